"""Grids of original files: equidistant axes on a map projection, or in longitude and latitude."""

import importlib
import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.places.axes import angle
from nowcast.netcdf.places.coordinates import converted, numbers
from nowcast.netcdf.places.grid import Grid
from nowcast.runtime.log_lines import warn_once

Box = tuple[float, float, float, float]  # west, south, east, north, degrees
Window = tuple[slice, slice]  # rows and columns
SWISS_DATUM = "+towgs84=674.374,15.056,405.346,0,0,0,0"  # CH1903, by swisstopo
_NEAR = 0.02  # cells; largest difference of extents that are equal but for the rounding of degrees
_UNITS = {1.0: "m", 1000.0: "km", 0.3048: "foot", 1200 / 3937: "US_survey_foot"}  # of maps, by their length in metres
_AXES = (
    ("y", "Y", "projection_y_coordinate", "latitude", "degrees_north"),
    ("x", "X", "projection_x_coordinate", "longitude", "degrees_east"),
)


@dataclass(frozen=True)
class Axis:
    """Equidistant cell centres: `first`, `first + step`, …; units of the map, or degrees."""

    first: float
    step: float
    size: int

    @property
    def values(self) -> np.ndarray:
        """The cell centres, (cell,) float64."""
        return np.round(self.first + self.step * np.arange(self.size), 9)

    def cut(self, part: slice) -> "Axis":
        """Return the axis of a slice of the cells."""
        return Axis(round(self.first + self.step * part.start, 9), self.step, part.stop - part.start)


@dataclass(frozen=True)
class Place:
    """A grid: axes in the order of the file, and the map projection as PROJ text or WKT; "": longitude and latitude.

    A projection such as +proj=longlat or EPSG:4326 also means longitude and latitude. An invalid projection, or one in
    unknown units, raises DataError (exit 3).

    record_grid: the grid of a file that nowcast reads as a record; it replaces the axes
    """

    y: Axis
    x: Axis
    projection: str = ""
    record_grid: "RecordGrid | None" = None

    def __post_init__(self):
        unit_of(self.projection)

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.size, self.x.size

    def grid(self) -> Grid:
        """Return the grid with the CF attributes of its coordinates and of its mapping."""
        if self.record_grid is not None:
            return self.record_grid.grid
        unit = unit_of(self.projection)
        attributes = [
            {"standard_name": map_name if unit else name, "long_name": f"{letter} of the centres of cells"}
            | {"units": unit or units, "axis": axis}
            for letter, axis, map_name, name, units in _AXES
        ]
        return Grid(
            self.y.values, self.x.values, y_attributes=attributes[0], x_attributes=attributes[1],
            mapping_name="crs", mapping_attributes=_mapping(self.projection or "+proj=longlat +datum=WGS84 +no_defs"),
        )  # fmt: skip

    def degrees(self) -> tuple[np.ndarray, np.ndarray]:
        """Return longitude and latitude of the cell centres, degrees, (y, x) each."""
        x, y = np.meshgrid(self.x.values, self.y.values)
        if not unit_of(self.projection):
            return (x + 180) % 360 - 180, y
        return projection_of(self.projection)(x, y, inverse=True)


@dataclass(frozen=True, eq=False)
class RecordGrid:
    """The grid of a record, comparable and hashable by its key."""

    grid: Grid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordGrid) and self.grid.key == other.grid.key and self.grid.turned == other.grid.turned

    def __hash__(self) -> int:
        return hash((self.grid.key, self.grid.turned))


class BoxMissed(UsageError):
    """A box contains no cell of a grid."""


@lru_cache(maxsize=256)
def window(place: Place, box: Box) -> Window:
    """Return the smallest range of rows and columns with all cells in a box. Raises BoxMissed (exit 2) if it has none."""
    if place.record_grid is not None:
        longitude, latitude = _record_degrees(place.record_grid.grid)
    else:
        longitude, latitude = place.degrees()
    west, south, east, north = box
    width = (east - west) % 360 or 360  # degrees; -180 to 180 is the full circle
    inside = (latitude >= south) & (latitude <= north) & ((longitude - west) % 360 <= width)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise BoxMissed(
            f"--box {','.join(f'{edge:g}' for edge in box)} contains no cell: the grid extends from "
            f"{np.nanmin(longitude):.4g} to {np.nanmax(longitude):.4g} E, {np.nanmin(latitude):.4g} to "
            f"{np.nanmax(latitude):.4g} N.\nGive west,south,east,north in degrees."
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def cut(place: Place, rows: slice, columns: slice) -> Place:
    """Return the grid cut to some rows and columns."""
    record_grid = place.record_grid
    if record_grid is not None:
        old = record_grid.grid
        parts = {old.y_name: rows, old.x_name: columns}
        carried = tuple(replace(other, stored=other.stored[tuple(parts[dim] for dim in other.dims)]) for other in old.carried)
        record_grid = RecordGrid(replace(old, y=old.y[rows], x=old.x[columns], carried=carried, degrees=None))
    return Place(place.y.cut(rows), place.x.cut(columns), place.projection, record_grid)


def _record_degrees(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of a record's cells in the order of the file, (y, x) each, NaN where unknown."""
    kinds = grid.rows.kind, grid.columns.kind
    x, y = np.meshgrid(grid.x, grid.y)
    over = {angle(other.name, other.attributes): other for other in grid.carried if len(other.dims) == 2}
    if {"latitude", "longitude"} <= set(over):
        return tuple(
            numbers(other.attributes, other.stored if other.dims[0] == grid.y_name else other.stored.T)
            for other in (over["longitude"], over["latitude"])
        )
    if kinds == ("latitude", "longitude"):
        return (x + 180) % 360 - 180, y
    if kinds == ("length", "length") and grid.mapping_attributes:
        scales = [converted(axis.attributes["units"], "km") * 1000 for axis in (grid.columns, grid.rows)]
        crs = _pyproj().CRS.from_cf(grid.mapping_attributes)
        return _pyproj().Proj(crs)(x * scales[0], y * scales[1], inverse=True)
    raise UsageError("--box needs georeferenced cells, but this grid has neither projection nor latitudes.\nLeave it out.")


def _pyproj():
    try:
        return importlib.import_module("pyproj")
    except ImportError:
        raise UsageError(
            "pyproj, which computes map projections, is not installed.\nInstall it: pip install pyproj"
            "  (or all packages for convert: pip install -e '.[convert]')"
        ) from None


@lru_cache(maxsize=64)
def projection_of(text: str):
    """Return the pyproj.Proj of a PROJ text or WKT. Raises DataError (exit 3) if it is invalid."""
    return _parsed(text, "Proj")


def _crs(text: str):
    return _parsed(text, "CRS")


def _parsed(text: str, kind: str):
    pyproj = _pyproj()
    try:
        return getattr(pyproj, kind)(text)
    except pyproj.exceptions.ProjError as error:
        raise DataError(f'"{text[:80]}" is not a map projection ({str(error)[:80]}).\nExpected PROJ text or WKT.') from None


@lru_cache(maxsize=64)
def unit_of(text: str) -> str:
    """Return the unit of x and y of a PROJ text or WKT, such as m; "" if it is longitude and latitude.

    Raises DataError (exit 3) for units other than metres, kilometres and feet, for a rotated pole, and for longitudes that
    are not in degrees or not from Greenwich.
    """
    if not text:
        return ""
    crs = _crs(text)
    axis = crs.axis_info[0] if crs.axis_info else None
    if crs.is_geographic:
        if crs.is_derived or crs.prime_meridian.longitude or not math.isclose(axis.unit_conversion_factor, math.radians(1)):
            raise DataError(
                f'"{text[:80]}" has other longitudes or latitudes.\nExpected degrees from Greenwich and the equator.'
            )
        return ""
    for metres, unit in _UNITS.items():
        if axis and math.isclose(axis.unit_conversion_factor, metres, rel_tol=1e-9):
            return unit
    raise DataError(f'"{text[:80]}" is a map in {axis.unit_name if axis else "no unit"}.\nExpected metres, kilometres or feet.')


@lru_cache(maxsize=64)
def _mapping(text: str) -> dict:
    """Return the attributes of the CF grid mapping of a PROJ text or WKT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # for parameters without a CF name, which crs_wkt keeps
        attributes = _crs(text).to_cf()
    known = {name: value for name, value in attributes.items() if value not in ("", "unknown") and not isinstance(value, tuple)}
    if known.get("grid_mapping_name") == "polar_stereographic":
        known.setdefault("latitude_of_projection_origin", math.copysign(90.0, known.get("standard_parallel", 90.0)))
    if "azimuth_of_central_line" in known:
        known["azimuth"] = known["azimuth_of_central_line"]  # the CF checker requires this name
    if "+proj" in text:
        known["proj4"] = text
    return known


def place_from_corners(
    projection: str, *, west_south: tuple, east_north: tuple, shape: tuple[int, int], where: Path, size: tuple | None = None
) -> Place:
    """Return a grid from its outer corners, with the northernmost row first.

    west_south, east_north: longitude and latitude of two corners, degrees
    shape: rows and columns
    size: width and height of a cell, m, stated in the file; used if the corners agree with it. If they are one cell less apart
        than the cells need, they are taken as the centres of the outer cells

    Raises DataError (exit 3) for corners that do not span a grid.
    """
    projection = _with_datum(projection)
    (left, bottom), (right, top) = (_on_map(projection, *corner) for corner in (west_south, east_north))
    ends = np.array([left, right, bottom, top])
    if not (np.isfinite(ends).all() and right > left and top > bottom):
        raise DataError(f"{where} has corners that do not span a grid.\nExpected the lower left and the upper right corner.")
    if size and all(
        abs(extent / cell - cells + 1) < _NEAR
        for extent, cell, cells in zip((right - left, top - bottom), size, shape[::-1], strict=True)
    ):
        warn_once(where, "the corners are the centres of the outer cells, by the size of the cells (xscale, yscale)")
        left, right, bottom, top = left - size[0] / 2, right + size[0] / 2, bottom - size[1] / 2, top + size[1] / 2
    width, height = (right - left) / shape[1], (top - bottom) / shape[0]
    if size and math.isclose(width, size[0], rel_tol=1e-3) and math.isclose(height, size[1], rel_tol=1e-3):
        width, height = size
    left, top = (_rounded(edge, cell) for edge, cell in ((left, width), (top, height)))
    return Place(
        Axis(round(top - height / 2, 6), -height, shape[0]), Axis(round(left + width / 2, 6), width, shape[1]), projection
    )


def _with_datum(projection: str) -> str:
    """Add the Swiss datum to a Swiss projection without one: files omit it, and it is 200 m from WGS 84."""
    is_swiss = "+proj=somerc" in projection and "+ellps=bessel" in projection and "+towgs84" not in projection
    return f"{projection} {SWISS_DATUM}" if is_swiss else projection


def _on_map(projection: str, longitude: float, latitude: float) -> tuple[float, float]:
    """Return x and y of a point. Its degrees are in WGS 84 if the projection has +towgs84, else in its own datum."""
    if "+towgs84" not in projection:
        return projection_of(projection)(longitude, latitude)
    return _from_wgs84(projection).transform(longitude, latitude)


@lru_cache(maxsize=64)
def _from_wgs84(projection: str):
    return _pyproj().Transformer.from_crs(4326, _crs(projection), always_xy=True)


def _rounded(edge: float, cell: float) -> float:
    """Round an edge to whole metres if it differs only by the rounding of degrees in the file."""
    return float(round(edge)) if abs(edge - round(edge)) < min(1e-5 * cell, 0.05) else edge
