"""Convert between positions in a grid and latitude and longitude.

Positions are rows and columns, counted as in fields: row 0 is the northernmost, column 0 the westernmost, whole
numbers are the centres of cells. A grid of n rows extends from -0.5 to n - 0.5. Map projections need pyproj, an extra.
"""

import functools
import logging
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.places.axes import angle
from nowcast.netcdf.places.coordinates import Coordinate, converted, numbers
from nowcast.netcdf.places.degrees import LARGEST, sampled
from nowcast.netcdf.places.distance import distance_km
from nowcast.netcdf.places.grid import Grid

log = logging.getLogger(__name__)
PROJ_STRINGS = (
    "crs_wkt",
    "spatial_ref",
    "proj4",
    "proj4_params",
    "proj4_string",
    "proj_string",
    "epsg_code",
    "epsg",
)  # attributes of a grid mapping that hold a PROJ string, or the number of a projection
_APART = 1.0  # cells by which map coordinates and latitude, longitude of one file may differ
_STEPS, _CLOSE = 30, 1e-4  # most steps of Newton's method, and cells that end it
_FITTED, _DEGREE = 10_000, 5  # known cells that polynomials are fitted to, where others are missing, and their degree
_BACK = 0.1  # cells from a position to that of its own latitude and longitude


class Earth(ABC):
    """The location of a grid on the earth, in degrees of WGS 84."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape

    @abstractmethod
    def degrees(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return latitude and longitude (degrees) of positions, also beyond the edge of the grid.

        rows, columns: (place,), or any shape; returns: the same shape, longitudes from -180 to 180
        """

    @abstractmethod
    def positions(self, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of points on the earth, also outside of the grid; NaN where the projection is undefined.

        latitudes, longitudes: (point,), or any shape, degrees; returns: the same shape
        """

    @property
    def corners(self) -> np.ndarray:
        """Return the outermost corners of the grid, (4, 2) latitude, longitude: NW, NE, SE, SW."""
        bottom, right = (size - 0.5 for size in self.shape)
        return np.stack(self.degrees(np.array([-0.5, -0.5, bottom, bottom]), np.array([-0.5, right, right, -0.5])), axis=1)


class _LatitudesLongitudes(Earth):
    """A grid of latitudes and longitudes, one of each per row and column."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray):
        super().__init__((len(rows), len(columns)))
        self.rows, self.columns, self.middle = rows, columns, (columns[0] + columns[-1]) / 2

    def degrees(self, rows, columns):
        return _values_at(self.rows, rows), wrapped(_values_at(self.columns, columns))

    def positions(self, latitudes, longitudes):
        near = self.middle + wrapped(np.asarray(longitudes, np.float64) - self.middle)
        return _positions_of(self.rows, np.asarray(latitudes, np.float64)), _positions_of(self.columns, near)


@functools.lru_cache(maxsize=8)
def _transformations(crs: Any) -> tuple[Any, Any]:
    """Return transformations of pyproj from degrees to a map and back. Kept, as they take longer to find than to use."""
    from pyproj import Transformer

    return Transformer.from_crs(4326, crs, always_xy=True), Transformer.from_crs(crs, 4326, always_xy=True)


class _Map(Earth):
    """A grid of a map. `to_map` and `to_degrees` are transformations of pyproj; rows and columns in the units of the map."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, crs: Any):
        super().__init__((len(rows), len(columns)))
        self.rows, self.columns = rows, columns
        self.to_map, self.to_degrees = _transformations(crs)

    def degrees(self, rows, columns):
        longitudes, latitudes = self.to_degrees.transform(_values_at(self.columns, columns), _values_at(self.rows, rows))
        return np.asarray(latitudes), wrapped(np.asarray(longitudes))

    def positions(self, latitudes, longitudes):
        x, y = self.to_map.transform(np.asarray(longitudes, np.float64), np.asarray(latitudes, np.float64))
        rows, columns = _positions_of(self.rows, np.asarray(y)), _positions_of(self.columns, np.asarray(x))
        known = np.isfinite(rows) & np.isfinite(columns)
        return np.where(known, rows, np.nan), np.where(known, columns, np.nan)


class _Everywhere(Earth):
    """A grid with a latitude and a longitude of each cell, between which it is interpolated on the sphere."""

    def __init__(self, vectors: np.ndarray):
        super().__init__(vectors.shape[1:])
        self.vectors = vectors  # (3, y, x), of length 1

    def degrees(self, rows, columns):
        return latitudes_longitudes(self._vectors_at(np.asarray(rows, np.float64), np.asarray(columns, np.float64)))

    def positions(self, latitudes, longitudes):
        wanted = unit_vectors(latitudes, longitudes)
        rows, columns = (np.full(wanted.shape[1:], (size - 1) / 2) for size in self.shape)
        for _ in range(_STEPS):
            here = self._vectors_at(rows, columns)
            south = self._vectors_at(rows + 0.5, columns) - self._vectors_at(rows - 0.5, columns)
            east = self._vectors_at(rows, columns + 0.5) - self._vectors_at(rows, columns - 0.5)
            a, b, c = (south * south).sum(0), (south * east).sum(0), (east * east).sum(0)
            p, q = (south * (wanted - here)).sum(0), (east * (wanted - here)).sum(0)
            down, right = (c * p - b * q) / (a * c - b * b), (a * q - b * p) / (a * c - b * b)
            rows, columns = (np.clip(rows + down, -self.shape[0], 2 * self.shape[0]),
                             np.clip(columns + right, -self.shape[1], 2 * self.shape[1]))  # fmt: skip
            if max(np.abs(down).max(initial=0), np.abs(right).max(initial=0)) < _CLOSE:
                break
        is_lost = ((wanted * self._vectors_at(rows, columns)).sum(0) <= 0) | ~(np.hypot(down, right) < 1)
        return np.where(is_lost, np.nan, rows), np.where(is_lost, np.nan, columns)

    def _vectors_at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the unit vectors (3, …) of positions, linear in each cell and beyond the edge."""
        top, left = (np.floor(at).clip(0, size - 2).astype(int) for at, size in zip((rows, columns), self.shape, strict=True))
        down, right = rows - top, columns - left
        corners = self.vectors[:, top, left], self.vectors[:, top, left + 1]
        below = self.vectors[:, top + 1, left], self.vectors[:, top + 1, left + 1]
        north, south = (pair[0] * (1 - right) + pair[1] * right for pair in (corners, below))
        vectors = north * (1 - down) + south * down
        return vectors / np.sqrt((vectors**2).sum(0))


def locate(grid: Grid, name: str) -> Earth:
    """Return the location of a grid on the earth; `name` is that of the record, for messages.

    grid: with its auxiliary coordinates (`carried`), which may be latitude and longitude

    Raises DataError (exit 3) if the file does not state it, UsageError (exit 2) if it needs pyproj and that is not installed.
    """
    if min(grid.shape) < 2:
        raise DataError(
            f"{name} has {grid.shape[0]} × {grid.shape[1]} cells.\nExpected two rows and columns to place cells by."
        )
    kinds = grid.rows.kind, grid.columns.kind
    if kinds == ("latitude", "longitude"):
        return _LatitudesLongitudes(*_northern(grid))
    everywhere = _given_everywhere(grid)
    if grid.mapping_attributes and "index" not in kinds:
        on_map = _on_map(grid, name, needed=everywhere is None)
        if on_map is not None and _agree(on_map, grid, name):
            return on_map
    if everywhere is None:
        raise DataError(
            f"{name} does not say where its cells are on the earth: it has {_what_it_has(grid)}.\n"
            "Expected latitude and longitude, or x and y with a grid mapping (a variable with grid_mapping_name)."
        )
    return everywhere


def _northern(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates y (y,) from the north, and x (x,) from the west."""
    y_turned, x_turned = grid.turned
    return grid.rows.unwrapped[:: -1 if y_turned else 1], grid.columns.unwrapped[:: -1 if x_turned else 1]


def _what_it_has(grid: Grid) -> str:
    if any(angle(other.name, other.attributes) for other in grid.carried):
        return "latitude and longitude of cells, but they do not vary smoothly"
    kinds = {"length": "distances on a map", "rotated": "rotated degrees", "bare": "numbers without units",
             "index": "row and column numbers"}  # fmt: skip
    kind = grid.rows.kind if grid.rows.kind == grid.columns.kind else "index"
    return f"{kinds.get(kind, kind)}, and no grid mapping that PROJ can use" if kind in ("length", "rotated") else kinds[kind]


def _on_map(grid: Grid, name: str, *, needed: bool) -> Earth | None:
    """Return the location of a grid with a map projection; None if PROJ does not know it, or without pyproj if not `needed`."""
    try:
        from pyproj import CRS
        from pyproj.exceptions import ProjError
    except ImportError:
        if not needed:
            return None
        projection = grid.mapping_attributes.get("grid_mapping_name", "of a projection")
        raise UsageError(
            f"{name} lies on a map ({projection}), whose places need pyproj.\nIt is not installed: pip install pyproj"
        ) from None
    stated = [_user_input(grid.mapping_attributes[key]) for key in PROJ_STRINGS if key in grid.mapping_attributes]
    for make, text in ((CRS.from_cf, dict(grid.mapping_attributes)), *((CRS.from_user_input, text) for text in stated)):
        try:
            crs = make(text)
            y_factor, x_factor = (_factor(crs, coordinate, grid) for coordinate in (grid.rows, grid.columns))
            y, x = _northern(grid)
            return _Map(y * y_factor, x * x_factor, crs)
        except (ProjError, LookupError, ValueError, TypeError, AttributeError) as error:
            log.debug("%s: %s", name, error)
    return None


def _user_input(stated: Any) -> str:
    """Return a description of a projection as PROJ takes it: an EPSG number, 3035 or "3035", with its authority."""
    return f"EPSG:{str(stated).strip()}" if str(stated).strip().isdigit() else str(stated)


def _factor(crs: Any, coordinate: Coordinate, grid: Grid) -> float:
    """Return the factor from the units of a coordinate to those of the axes of a projection.

    Raises ValueError for distances where the projection has degrees.
    """
    if coordinate.kind == "length" and crs.is_geographic:
        raise ValueError(f"{coordinate.name} is in {coordinate.attributes['units']}, but the projection in degrees")
    if coordinate.kind == "rotated" or crs.is_geographic:
        return 1.0
    units = str(coordinate.attributes.get("units", "m"))
    metres = converted(units, "m")
    if metres is None:  # viewing angles of a satellite, which PROJ multiplies by its height
        metres = converted(units, "radian") * float(np.ravel(grid.mapping_attributes["perspective_point_height"])[0])
    return metres / crs.axis_info[0].unit_conversion_factor


def _agree(on_map: Earth, grid: Grid, name: str) -> bool:
    """Return whether the map coordinates and the latitudes and longitudes of a file agree; log a warning if not."""
    if grid.degrees is None:
        return True
    rows, columns = np.meshgrid(*(sampled(size) for size in grid.shape), indexing="ij")
    # sampled positions are symmetric, so that those of a turned axis are the same
    latitudes, longitudes = on_map.degrees(rows, columns)
    there = np.stack([latitudes.ravel(), longitudes.ravel()], axis=1)
    apart = max(distance_km(a, b) for a, b in zip(there, grid.places.reshape(2, -1).T, strict=True))
    spacing = np.nanmax(np.append(grid.spacing_km, 0))
    if apart <= _APART * spacing or not np.isfinite(spacing):
        return True
    log.warning("%s: map projection and latitude, longitude disagree by up to %.3g km; the latter are used", name, apart)
    return False


def _given_everywhere(grid: Grid) -> Earth | None:
    """Return the location of a grid with latitude and longitude of each cell; None without them, or if they are not smooth."""
    found = {}
    for other in grid.carried:
        if set(other.dims) == {grid.y_name, grid.x_name} and (kind := angle(other.name, other.attributes)):
            values = numbers(other.attributes, other.stored)
            values = np.where(np.abs(values) <= LARGEST, values, np.nan)
            values = values if other.dims[0] == grid.y_name else values.T
            found.setdefault(kind, values[tuple(slice(None, None, -1 if turned else 1) for turned in grid.turned)])
    vectors = _filled(unit_vectors(found["latitude"], found["longitude"])) if len(found) == 2 else None
    if vectors is None:
        return None
    everywhere = _Everywhere(vectors)
    rows, columns = np.meshgrid(*(sampled(size) for size in grid.shape), indexing="ij")
    back = np.stack(everywhere.positions(*everywhere.degrees(rows, columns))) - (rows, columns)
    return everywhere if np.abs(back).max() < _BACK else None  # NaN, too: latitudes and longitudes that are no map


def _filled(vectors: np.ndarray) -> np.ndarray | None:
    """Fill missing unit vectors (3, y, x) with polynomials of rows and columns fitted to the others; None if the fit is bad."""
    known = np.isfinite(vectors).all(axis=0)
    if known.all():
        return vectors
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in known.shape), indexing="ij")
    powers = np.stack([y**m * x**n for m in range(_DEGREE + 1) for n in range(_DEGREE + 1 - m)], axis=-1)
    every = max(1, int(known.sum()) // _FITTED)
    terms, places = powers[known][::every], vectors[:, known].T[::every]
    if len(terms) < 2 * powers.shape[-1]:
        return None
    fit = np.linalg.lstsq(terms, places, rcond=None)[0]
    cell = np.nanmedian(np.sqrt((np.diff(vectors, axis=1) ** 2).sum(axis=0)))
    if not np.sqrt(((terms @ fit - places) ** 2).sum(axis=1)).max() <= _BACK * cell:
        return None
    smooth = np.moveaxis(powers @ fit, -1, 0)
    return np.where(known, vectors, smooth / np.sqrt((smooth**2).sum(axis=0)))


def unit_vectors(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Return the unit vectors (3, …) of places on the sphere.

    latitudes, longitudes: (place,), or any shape, degrees
    """
    phi, lam = np.radians(np.asarray(latitudes, np.float64)), np.radians(np.asarray(longitudes, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])


def latitudes_longitudes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes (…) in degrees of vectors (3, …)."""
    x, y, z = vectors
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def _values_at(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return values (y,) interpolated at positions, and extrapolated beyond the ends; any shape."""
    positions = np.asarray(positions, np.float64)
    before = np.floor(positions).clip(0, len(values) - 2).astype(int)
    return values[before] + (positions - before) * (values[before + 1] - values[before])


def _positions_of(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the positions of wanted values, of any shape, among values (y,) that rise or fall; the inverse of `_values_at`."""
    falls = values[-1] < values[0]
    rising = values[::-1] if falls else values
    before = (np.searchsorted(rising, wanted) - 1).clip(0, len(values) - 2)
    positions = before + (wanted - rising[before]) / (rising[before + 1] - rising[before])
    return len(values) - 1 - positions if falls else positions


def wrapped(longitudes: np.ndarray) -> np.ndarray:
    """Return longitudes of any shape from -180 on, below 180."""
    return (longitudes + 180) % 360 - 180
