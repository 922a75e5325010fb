"""The horizontal grid of a record or forecast: its coordinates and map projection, as stored in the file.

Coordinates keep the order of the file. Fields have row 0 northernmost and column 0 westernmost everywhere, so `y_ascending` and
`x_descending` say which axes of a file must be reversed.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.netcdf.attributes import attributes, is_numeric
from nowcast.netcdf.files import OPEN_FILES, library_errors
from nowcast.netcdf.places.axes import angle, declared_axis, listed, over_grid
from nowcast.netcdf.places.coordinates import Coordinate, converted, in_degrees
from nowcast.netcdf.places.degrees import read_degrees, sampled
from nowcast.netcdf.places.distance import KM_PER_DEGREE, distance_km, map_scale, projection_text, viewed_spacing_km
from nowcast.netcdf.places.edges import coordinate_of, find_corners, is_corners, middle_name, middles
from nowcast.netcdf.places.mapping import find_mapping
from nowcast.netcdf.rain.variable import Field
from nowcast.runtime.log_lines import warn_once

_ROUNDED = 0.01  # relative difference from which the spacing on the ground replaces that on the map
_SMALLEST_KM, _LARGEST_KM, _LONGEST = 0.01, 500.0, 20.0  # km, and the ratio of two sides: no grid of rain has such cells
# names of attributes that the NetCDF library accepts
_LEGAL = re.compile(r"[^\W](?:[^\x00-\x1f/\x7f]*[^\x00-\x1f/\x7f\s])?")
_RESERVED = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}  # attributes of HDF5 itself


@dataclass(frozen=True, eq=False)
class Carried:
    """An auxiliary coordinate of the grid, copied to forecasts: stored numbers over y, x or both, and all attributes."""

    name: str
    dims: tuple[str, ...]
    stored: np.ndarray
    attributes: dict


@dataclass(frozen=True, eq=False)
class Grid:
    """A horizontal grid. Without coordinates in the file, `y` and `x` are 0, 1, … and have no attributes.

    y, x: (y,) and (x,) float64, in the order of the file
    y_name, x_name: names of the dimensions
    y_variable, x_variable: names of the coordinates, if they differ from the dimensions
    degrees: (latitude or longitude, y, x) at sampled rows and columns, from two-dimensional coordinates; None without them
    others: the names of auxiliary coordinates in the file
    carried: these coordinates, in the grid of a record
    """

    y: np.ndarray
    x: np.ndarray
    y_name: str = "y"
    x_name: str = "x"
    y_attributes: dict = dataclasses.field(default_factory=dict)
    x_attributes: dict = dataclasses.field(default_factory=dict)
    mapping_name: str | None = None
    mapping_attributes: dict = dataclasses.field(default_factory=dict)
    degrees: np.ndarray | None = None
    y_variable: str | None = None
    x_variable: str | None = None
    others: tuple[str, ...] = ()
    carried: tuple[Carried, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def rows(self) -> Coordinate:
        return Coordinate(self.y_variable or self.y_name, self.y, self.y_attributes)

    @property
    def columns(self) -> Coordinate:
        return Coordinate(self.x_variable or self.x_name, self.x, self.x_attributes)

    @property
    def y_ascending(self) -> bool:
        """Whether row 0 of the file is the southernmost; rows of unknown latitude are assumed to start in the north."""
        rises = None if self.degrees is None else _rise(self.degrees[0], axis=0)
        return self._is_ascending(self.rows, rises)

    @property
    def x_descending(self) -> bool:
        """Whether column 0 of the file is the easternmost; columns of unknown longitude are assumed to start in the west."""
        rises = None if self.degrees is None else _rise(self.degrees[1], axis=1)
        return len(self.x) > 1 and self._is_ascending(self.columns, rises, otherwise=True) is False

    def _is_ascending(self, coordinate: Coordinate, rises: float | None, *, otherwise: bool = False) -> bool:
        """Return whether a coordinate increases to the north or east: by its values, or by `degrees` without positions."""
        if rises and not (coordinate.is_measured and self.mapping_name):
            return rises > 0
        declared = coordinate.kind != "index" or {"axis", "standard_name"} & set(coordinate.attributes)
        return coordinate.is_ascending if declared else otherwise

    @cached_property  # asked for each file of an archive
    def turned(self) -> tuple[bool, bool]:
        """Whether rows, and columns, of the file must be reversed."""
        return self.y_ascending, self.x_descending

    @property
    def is_placed(self) -> bool:
        """Whether the file states the location of its cells."""
        return self.degrees is not None or (self.rows.is_measured and self.columns.is_measured) or self._is_viewed

    @property
    def _is_viewed(self) -> bool:
        """Whether the coordinates are viewing angles of a satellite, whose projection the file states."""
        is_geostationary = self.mapping_attributes.get("grid_mapping_name") == "geostationary"
        units = (str(each.attributes.get("units", "")) for each in (self.rows, self.columns))
        return is_geostationary and all(converted(unit, "radian") for unit in units)

    @property
    def places(self) -> np.ndarray | None:
        """Latitude and longitude (2, y, x) at sampled rows and columns, from the north and the west; None if unknown."""
        degrees = self.degrees
        if degrees is None and (self.rows.kind, self.columns.kind) == ("latitude", "longitude"):
            y, x = self.y[sampled(len(self.y))], self.x[sampled(len(self.x))]
            degrees = np.stack(np.meshgrid(y, x, indexing="ij"))
        if degrees is None:
            return None
        return degrees[:, :: -1 if self.y_ascending else 1, :: -1 if self.x_descending else 1]

    @property
    def spacing_km(self) -> tuple[float, float]:
        """The spacing (dy, dx) on the ground at the middle of the grid, km; NaN if it is unknown."""
        if self.rows.kind == self.columns.kind == "length":
            return self._map_spacing_km()
        if self.degrees is not None:
            return self._degrees_spacing_km()
        if {self.rows.kind, self.columns.kind} <= {"latitude", "longitude", "rotated"}:
            y, x = (_central(coordinate.unwrapped) for coordinate in (self.rows, self.columns))
            return y[1] * KM_PER_DEGREE, x[1] * KM_PER_DEGREE * math.cos(math.radians(y[0]))
        if self._is_viewed:
            y, x = (
                [float(number) * converted(each.attributes["units"], "radian") for number in _central(each.values)]
                for each in (self.rows, self.columns)
            )
            return viewed_spacing_km(self.mapping_attributes, tuple(y), tuple(x))
        return math.nan, math.nan

    def has_spacing(self, sizes_km: Sequence[Sequence[float]]) -> bool:
        """Return whether cells have one of these sizes (dy, dx) within 1 %: on the ground, or on the map.

        Checkpoints of nowcast before 2026-11-28 hold the sizes on the map.
        """
        own = [self.spacing_km]
        if self.rows.kind == self.columns.kind == "length":
            (_, dy), (_, dx) = self._map_centre_km()
            own.append((dy, dx))
        return any(np.isclose(size, each, rtol=_ROUNDED).all() for size in sizes_km for each in own)

    def _map_centre_km(self) -> list[tuple[float, float]]:
        """Return the position and spacing on the map, km, of the middle row and column."""
        factors = [converted(coordinate.attributes["units"], "km") for coordinate in (self.rows, self.columns)]
        centres = [np.array(_central(coordinate.values)) for coordinate in (self.rows, self.columns)]
        return [tuple(map(float, centre * factor)) for centre, factor in zip(centres, factors, strict=True)]

    def _map_spacing_km(self) -> tuple[float, float]:
        y, x = self._map_centre_km()
        on_map = y[1], x[1]
        if self.degrees is not None and min(self.degrees.shape) > 1:
            on_ground = self._degrees_spacing_km()
        else:
            scale = map_scale(self.mapping_attributes, y[0], x[0])
            on_ground = on_map[0] / scale, on_map[1] / scale
        return on_map if np.allclose(on_ground, on_map, rtol=_ROUNDED, equal_nan=True) else on_ground

    def _degrees_spacing_km(self) -> tuple[float, float]:
        """Return the spacing (dy, dx), km, in mid-grid, from the second to the last but one sampled row and column."""
        sizes = []
        for axis, size in enumerate(self.shape):
            positions = sampled(size)
            first, last = (1, -2) if len(positions) > 3 else (0, -1)
            line = np.moveaxis(self.degrees, 1 + axis, 1)
            middle = line[:, :, line.shape[2] // 2]
            cells = positions[last] - positions[first]
            sizes.append(distance_km(middle[:, first], middle[:, last]) / cells if cells else math.nan)
        return sizes[0], sizes[1]

    @property
    def key(self) -> tuple:
        """A hashable key that equal grids share: shape, extents to a thousandth of a cell, numbers of the projection."""
        mapping = {name: value for name, value in self.mapping_attributes.items() if not isinstance(value, str)}
        projection = sorted((name, *(f"{v:.9g}" for v in np.ravel(value))) for name, value in mapping.items())
        units = (self.y_attributes.get("units"), self.x_attributes.get("units"))
        name = self.mapping_attributes.get("grid_mapping_name") or projection_text(self.mapping_attributes)
        ends = (*_extent(self.rows), *_extent(self.columns))
        places = [] if self.degrees is None else self.places.round(4).ravel().tolist()
        return (self.shape, units, *ends, name, *projection, *places)


def _rise(angles: np.ndarray, axis: int) -> float:
    """Return the mean increase of angles (y, x) along an axis, degrees."""
    unwrapped = np.unwrap(angles, period=360, axis=axis)
    return float((unwrapped.take(-1, axis) - unwrapped.take(0, axis)).mean())


def _central(values: np.ndarray) -> tuple[float, float]:
    """Return the value in the middle of a coordinate (y,), and its mean step over the middle half."""
    last = len(values) - 1
    first = last // 4
    a, b = values[first], values[last - first]
    return float(a + b) / 2, abs(float(b - a)) / (last - 2 * first) if last else math.nan


def _extent(coordinate: Coordinate) -> tuple[int, ...]:
    """Return both ends in thousandths of a step, the smaller first: equal for coordinates that differ only by rounding."""
    ends = np.sort(coordinate.unwrapped[[0, -1]]) if len(coordinate.values) else np.zeros(2)
    if coordinate.kind == "longitude":
        ends = ends - 360 * np.floor(ends[0] / 360)
    step = float(f"{(ends[1] - ends[0]) / max(len(coordinate.values) - 1, 1):.4g}")
    return tuple(round(float(end) / (step / 1000 if step > 0 else 1e-6)) for end in ends)


def read_grid(dataset, field: Field, where: str) -> Grid:
    """Read the coordinates of y and x, two-dimensional latitude and longitude, and the grid mapping of a variable.

    Raises DataError (exit 3) for coordinates that are too long, incomplete or not equally spaced, or that change with time.
    """
    variable = dataset.variables[field.variable]
    y, x = (coordinate_of(dataset, variable, dim, axis, where) for dim, axis in ((field.y_dim, "Y"), (field.x_dim, "X")))
    mapping = find_mapping(dataset, variable, (y.name, x.name))
    return Grid(
        y=y.values,
        x=x.values,
        y_name=field.y_dim,
        x_name=field.x_dim,
        y_attributes=_legal(y.attributes),
        x_attributes=_legal(x.attributes),
        mapping_name=mapping.name if mapping is not None else None,
        mapping_attributes=_legal(attributes(mapping)) if mapping is not None else {},
        degrees=read_degrees(dataset, variable, field.y_dim, field.x_dim, where),
        y_variable=y.name if y.name != field.y_dim else None,
        x_variable=x.name if x.name != field.x_dim else None,
        others=tuple(_others(dataset, variable, (field.y_dim, field.x_dim), (y.name, x.name))),
    )


def _legal(declared: dict) -> dict:
    """Return the attributes that can be written to a forecast file: the library refuses some names that files may hold."""
    return {name: value for name, value in declared.items() if _LEGAL.fullmatch(name) and name not in _RESERVED}


def _others(dataset, variable, dims: tuple[str, str], known: tuple[str, str]) -> list[str]:
    """Return the names of auxiliary coordinates over y, x or both; latitude and longitude may also have a time dimension.

    Cell corners are among them if nothing else states the location of the cells.
    """
    names, sizes = [], tuple(len(dataset.dimensions[dim]) for dim in dims)
    corners = None if over_grid(dataset, variable, *dims) else find_corners(dataset, variable, *dims)
    for name, other in dataset.variables.items():
        if is_corners(other, dims, sizes, variable.dimensions):
            names += [name] if corners and middle_name(name) not in (*known, *dims) else []
            continue
        own = {dim for dim, size in zip(other.dimensions, other.shape, strict=True) if size != 1 or dim in dims}
        if name in (*known, variable.name) or not own & set(dims) or not is_numeric(other):
            continue
        declared = attributes(other)
        is_place = name in (*dims, *listed(variable)) or declared_axis(name, declared) in ("Y", "X")
        if is_place and (own <= set(dims) or angle(name, declared)):
            names.append(name)
    return names


def warn_of_cells(grid: Grid, path: Path) -> None:
    """Warn, once per folder, of cells so small, large or long that the units of the coordinates must be wrong."""
    y, x = grid.spacing_km
    sizes = [size for size in (y, x) if math.isfinite(size)]
    if sizes and (min(sizes) < _SMALLEST_KM or max(sizes) > _LARGEST_KM or max(sizes) > _LONGEST * min(sizes)):
        units = " and ".join(str(each.attributes.get("units", "no units")) for each in (grid.rows, grid.columns))
        said = f"cells of {y:.4g} × {x:.4g} km, by {grid.rows.name} and {grid.columns.name} in {units}"
        warn_once(path, f"{said}. Are these units right?")


def carried(grid: Grid, path: Path) -> Grid:
    """Return the grid of a file with its auxiliary coordinates, which are copied to forecasts. Raises DataError (exit 3)."""
    if not grid.others:
        return grid
    with OPEN_FILES.lock, library_errors(path), OPEN_FILES.briefly(path) as dataset:
        return dataclasses.replace(grid, carried=tuple(_carried(dataset.variables[name], grid) for name in grid.others))


def _carried(variable, grid: Grid) -> Carried:
    if is_corners(variable, (grid.y_name, grid.x_name), grid.shape, (grid.y_name, grid.x_name)):
        name = middle_name(variable.name)
        declared = in_degrees(name, _legal(attributes(variable)))
        kept = {key: value for key, value in declared.items() if key in ("standard_name", "units")}
        return Carried(name, (grid.y_name, grid.x_name), middles(variable), kept)
    dims = tuple(dim for dim in variable.dimensions if dim in (grid.y_name, grid.x_name))
    stored = variable[tuple(slice(None) if dim in dims else 0 for dim in variable.dimensions)]
    return Carried(variable.name, dims, np.asarray(stored), _legal(attributes(variable)))
