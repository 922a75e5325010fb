"""The horizontal grid of a record or forecast: its coordinates and map projection, as stored in the file.

Coordinates keep the order of the file. Fields have row 0 northernmost everywhere, so `y_ascending` says whether the rows of a
file must be reversed. Two grids with equal `key` cover the same cells, in whatever order of rows.
"""

import dataclasses
import math
import re
from dataclasses import dataclass

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, is_numeric, text
from nowcast.netcdf.rain.variable import Field

MAX_COORDINATE = 50_000_000  # values; a longer coordinate is refused before it is read
KM_PER_DEGREE = 6371.0 * math.pi / 180  # km along a great circle, on a sphere of the mean radius of the earth
_LATITUDES = {"latitude", "grid_latitude"}
_DEGREES = (  # standard names, units and names of coordinates over (y, x)
    {"latitude", "degrees_north", "degree_north", "lat"},
    {"longitude", "degrees_east", "degree_east", "lon"},
)
# names of attributes that the NetCDF library accepts
_LEGAL = re.compile(r"[^\W](?:[^\x00-\x1f/\x7f]*[^\x00-\x1f/\x7f\s])?")
_RESERVED = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}  # attributes of HDF5 itself
_UNEVEN = 0.5  # cells that a coordinate may deviate from equal steps; rounded degrees deviate less
_POLAR = {"polar_stereographic": "stereographic"}  # the same projection with one more parameter, the pole


@dataclass(frozen=True, eq=False)
class Grid:
    """A horizontal grid. Without coordinates in the file, `y` and `x` are 0, 1, … and have no attributes.

    y, x: (y,) and (x,) float64, in the order of the file
    corners: (latitude or longitude, first or last row, first or last column) degrees, or None

    `corners` is for files that have two-dimensional latitude and longitude in place of coordinates.
    """

    y: np.ndarray
    x: np.ndarray
    y_name: str = "y"
    x_name: str = "x"
    y_attributes: dict = dataclasses.field(default_factory=dict)
    x_attributes: dict = dataclasses.field(default_factory=dict)
    mapping_name: str | None = None
    mapping_attributes: dict = dataclasses.field(default_factory=dict)
    corners: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def y_ascending(self) -> bool:
        """Whether row 0 of the file is the southernmost. Rows without a coordinate are taken to start in the north."""
        if self.corners is not None:
            north = self.corners[0].mean(axis=1)
            return bool(north[1] > north[0])
        return bool(self.y_attributes or not _is_index(self.y)) and len(self.y) > 1 and bool(self.y[-1] > self.y[0])

    @property
    def spacing_km(self) -> tuple[float, float]:
        """The spacing (dy, dx) in km, of degrees at the middle latitude; NaN if the units are not known."""
        if self.corners is not None:
            (south_west, south_east), (north_west, _) = np.moveaxis(self.corners, 0, -1)
            steps = [max(size - 1, 1) for size in self.shape]
            return _distance_km(south_west, north_west) / steps[0], _distance_km(south_west, south_east) / steps[1]
        dy, dx = _step(self.y), _step(self.x)
        if self.y_attributes.get("standard_name") in _LATITUDES or self.y_attributes.get("units") == "degrees_north":
            middle = math.radians(float(np.mean(self.y[[0, -1]])))
            return dy * KM_PER_DEGREE, dx * KM_PER_DEGREE * math.cos(middle)
        return dy * _kilometres(self.y_attributes), dx * _kilometres(self.x_attributes)

    @property
    def key(self) -> tuple:
        """A hashable key that equal grids share: shape, extents to a thousandth of a cell, numbers of the projection."""
        y = np.sort(self.y[[0, -1]])
        mapping = {name: value for name, value in self.mapping_attributes.items() if not isinstance(value, str)}
        numbers = sorted((name, *(f"{v:.9g}" for v in np.ravel(value))) for name, value in mapping.items())
        units = (self.y_attributes.get("units"), self.x_attributes.get("units"))
        name = self.mapping_attributes.get("grid_mapping_name")
        ends = (*_extent(y, _step(self.y)), *_extent(self.x[[0, -1]], _step(self.x)))
        return (self.shape, units, *ends, name, *numbers, *self._corner_key())

    def _corner_key(self) -> list[tuple[float, ...]]:
        """Return the corners to a ten-thousandth of a degree, in an order that does not depend on that of the rows."""
        if self.corners is None:
            return []
        return sorted(tuple(round(float(degrees), 4) for degrees in corner) for corner in self.corners.reshape(2, 4).T)


def _is_index(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, np.arange(len(values))))


def _step(values: np.ndarray) -> float:
    return abs(float(values[-1] - values[0])) / (len(values) - 1) if len(values) > 1 else math.nan


def _extent(ends: np.ndarray, step: float) -> tuple[int | float, ...]:
    """Return the ends in thousandths of a cell, rounded, so that coordinates that differ by rounding errors are equal."""
    scale = step / 1000 if step > 0 else 1e-6
    return tuple(round(float(end) / scale) for end in ends)


def _distance_km(a: np.ndarray, b: np.ndarray) -> float:
    """Return the great-circle distance between two points (latitude, longitude) in degrees, by the haversine formula."""
    (phi_a, lambda_a), (phi_b, lambda_b) = np.radians(a), np.radians(b)
    half = np.sin((phi_b - phi_a) / 2) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin((lambda_b - lambda_a) / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(half))) * KM_PER_DEGREE)


def _kilometres(attributes: dict) -> float:
    try:
        return float(cf_units.Unit(attributes.get("units", "unknown")).convert(1.0, "km"))
    except ValueError:
        return math.nan


def difference(grid: Grid, other: Grid) -> str | None:
    """Return how `grid` differs from `other`, for a message; None if they are equal, in whatever order of rows.

    Coordinates may differ by a hundredth of a cell, since some programs store them as float32, and may have other units of
    length. Of the projections only parameters that both files state are compared, since programs write more or fewer of them.
    """
    if grid.shape != other.shape:
        return f"{grid.shape[0]} × {grid.shape[1]} cells in place of {other.shape[0]} × {other.shape[1]}"
    sides = (
        ("y", np.sort(grid.y), grid.y_attributes, np.sort(other.y), other.y_attributes),
        ("x", grid.x, grid.x_attributes, other.x, other.x_attributes),
    )
    for name, values, own_attributes, expected, other_attributes in sides:
        converted = _in_units(values, own_attributes.get("units"), other_attributes.get("units"))
        units = other_attributes.get("units", "")
        if converted is None:
            return f"{name} in {own_attributes.get('units', 'no units')} in place of {units or 'no units'}"
        step, distance = _step(expected), np.abs(converted - expected)
        if name == "x" and units.startswith("degree"):
            distance = np.minimum(distance % 360, -distance % 360)
        if not distance.max() <= 0.01 * (step if step > 0 else 1):
            span = f"{name} from {converted[0]:g} to {converted[-1]:g} {units}"
            return f"{span} in place of {expected[0]:g} to {expected[-1]:g}".strip()
    return _projection_difference(grid.mapping_attributes, other.mapping_attributes)


def _in_units(values: np.ndarray, units: str | None, wanted: str | None) -> np.ndarray | None:
    """Convert values to the wanted units; None if that is impossible. If either has no units they stay as they are."""
    if units is None or wanted is None or units == wanted:
        return values
    try:
        return cf_units.Unit(units).convert(values, wanted)
    except ValueError:
        return None


def _projection_difference(own: dict, other: dict) -> str | None:
    names = [parameters.get("grid_mapping_name") for parameters in (own, other)]
    if None in names:
        return None
    if len({_POLAR.get(name, name) for name in names}) > 1:
        return f"projection {names[0]} in place of {names[1]}"
    for name in sorted(set(own) & set(other)):
        a, b = (np.ravel(parameters[name]) for parameters in (own, other))
        if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
            continue  # names and remarks
        distance = np.abs(a - b) if a.shape == b.shape else np.array([np.inf])
        if name.startswith("longitude") or name.endswith(("_longitude", "longitude_from_pole")):
            distance = np.minimum(distance % 360, -distance % 360)
        if (distance > 1e-6 * np.maximum(np.abs(b).max(), 1)).any():
            return f"{name} {own[name]} in place of {other[name]}"
    return None


def read_grid(dataset, field: Field, where: str) -> Grid:
    """Read the coordinates of y and x, and the grid mapping that the variable refers to.

    Raises DataError (exit 3) for coordinates that are too long, incomplete or not equally spaced.
    """
    (y, y_attributes), (x, x_attributes) = (_coordinate(dataset, dim, where) for dim in (field.y_dim, field.x_dim))
    # the long form is "name: coordinates name: coordinates", of which the first is that of x and y
    mapping_name = (text(dataset.variables[field.variable], "grid_mapping") or "").split(":")[0].strip()
    mapping = dataset.variables.get(mapping_name)
    return Grid(
        y=y,
        x=x,
        y_name=field.y_dim,
        x_name=field.x_dim,
        y_attributes=y_attributes,
        x_attributes=x_attributes,
        mapping_name=mapping_name if mapping is not None else None,
        mapping_attributes=_legal_attributes(mapping) if mapping is not None else {},
        corners=_corners(dataset, field) if not y_attributes and not x_attributes else None,
    )


def _legal_attributes(variable) -> dict:
    """Return the attributes that a forecast file can have too: files may hold names that the library refuses to write."""
    return {name: value for name, value in attributes(variable).items() if _LEGAL.fullmatch(name) and name not in _RESERVED}


def _corners(dataset, field: Field) -> np.ndarray | None:
    """Read the corners, (2, 2, 2) degrees, from latitude and longitude over (y, x); None if the file has none."""
    degrees = [_over_grid(dataset, field, names) for names in _DEGREES]
    if None in degrees:
        return None
    ends = [coordinate[:: max(coordinate.shape[0] - 1, 1), :: max(coordinate.shape[1] - 1, 1)] for coordinate in degrees]
    ends = [end.T if coordinate.dimensions[0] == field.x_dim else end for end, coordinate in zip(ends, degrees, strict=True)]
    corners = np.array(ends, np.float64)
    known = corners.shape == (2, 2, 2) and np.isfinite(corners).all() and (np.abs(corners) <= 360).all()
    return corners if known else None


def _over_grid(dataset, field: Field, names: set):
    """Return the variable over y and x alone that has one of the names as its name, standard name or units."""
    for variable in dataset.variables.values():
        marks = {variable.name.lower(), text(variable, "standard_name"), text(variable, "units")}
        if (
            set(variable.dimensions) == {field.y_dim, field.x_dim}
            and variable.ndim == 2
            and marks & names
            and is_numeric(variable)
        ):
            return variable
    return None


def _coordinate(dataset, dim: str, where: str) -> tuple[np.ndarray, dict]:
    """Read the values and attributes of a coordinate; 0, 1, … without attributes if the file has none."""
    size = len(dataset.dimensions[dim])
    coordinate = dataset.variables.get(dim)
    if size > MAX_COORDINATE:
        raise DataError(f"{where}: dimension {dim} has {size} cells.\nExpected at most {MAX_COORDINATE}.")
    if coordinate is None or coordinate.dimensions != (dim,) or not is_numeric(coordinate):
        return np.arange(size, dtype=np.float64), {}
    attributes_ = _legal_attributes(coordinate)
    attributes_.pop("_FillValue", None)  # CF forbids it on a coordinate
    scale, offset = attributes_.pop("scale_factor", 1.0), attributes_.pop("add_offset", 0.0)
    values = coordinate[:].astype(np.float64) * scale + offset
    if not np.isfinite(values).all():
        raise DataError(f"{where}: coordinate {dim} has missing values.\nExpected a number for every cell.")
    _check_even(values, dim, where)
    return values, attributes_


def _check_even(values: np.ndarray, dim: str, where: str) -> None:
    """Raise DataError (exit 3) for a coordinate that is not in equal steps: motion in cells would have no meaning."""
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise DataError(f"{where}: coordinate {dim} neither rises nor falls all the way.\nExpected an even grid.")
    even = np.linspace(values[0], values[-1], len(values))
    if len(values) > 2 and np.abs(values - even).max() > _UNEVEN * _step(values):
        sizes = f"{np.abs(steps).min():g} to {np.abs(steps).max():g}"
        raise DataError(
            f"{where}: coordinate {dim} is uneven, in steps of {sizes}.\nExpected an even grid: interpolate the fields."
        )
