"""The horizontal grid of a record or forecast: its coordinates and map projection, as they stand in the file.

Coordinates keep the file's order; fields everywhere else have row 0 northernmost, so whoever writes fields looks at
`y_ascending`. Two grids are the same place when their `key`s are equal, whichever way their rows run.
"""

import math
import re
from dataclasses import dataclass, field

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.rain_variable import Field, attributes, is_numeric, text

MAX_COORDINATE = 50_000_000  # values: a longer coordinate is refused before it is read
KM_PER_DEGREE = 6371.0 * math.pi / 180  # of a great circle on the mean sphere
_LATITUDES = {"latitude", "grid_latitude"}
_DEGREES = (  # standard names, units and names of coordinates over (y, x)
    {"latitude", "degrees_north", "degree_north", "lat"},
    {"longitude", "degrees_east", "degree_east", "lon"},
)
_LEGAL = re.compile(r"[^\W](?:[^\x00-\x1f/\x7f]*[^\x00-\x1f/\x7f\s])?")
_RESERVED = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}  # HDF5's own
_UNEVEN = 0.5  # cells that a coordinate may be off an even one: rounded degrees are, by less
_POLAR = {"polar_stereographic": "stereographic"}  # the same with its pole in one parameter more


@dataclass(frozen=True, eq=False)
class Grid:
    """y and x: float64, 1-D, in the order of the file. Index coordinates without attributes where it has none.

    `corners`, where the file has two-dimensional latitude and longitude instead: degrees (latitude or longitude, first or
    last row, first or last column).
    """

    y: np.ndarray
    x: np.ndarray
    y_name: str = "y"
    x_name: str = "x"
    y_attributes: dict = field(default_factory=dict)
    x_attributes: dict = field(default_factory=dict)
    mapping_name: str | None = None
    mapping_attributes: dict = field(default_factory=dict)
    corners: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def y_ascending(self) -> bool:
        """Whether row 0 of the file is the southernmost. Rows without a coordinate run from the north."""
        if self.corners is not None:
            north = self.corners[0].mean(axis=1)
            return bool(north[1] > north[0])
        return bool(self.y_attributes or not _is_index(self.y)) and len(self.y) > 1 and bool(self.y[-1] > self.y[0])

    @property
    def spacing_km(self) -> tuple[float, float]:
        """(dy, dx), degrees at the middle latitude; NaN where the units do not tell."""
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
        """Hashable, equal for equal grids: extents within a thousandth of a cell, and the projection's numbers."""
        y = np.sort(self.y[[0, -1]])
        mapping = {name: value for name, value in self.mapping_attributes.items() if not isinstance(value, str)}
        numbers = sorted((name, *(f"{v:.9g}" for v in np.ravel(value))) for name, value in mapping.items())
        units = (self.y_attributes.get("units"), self.x_attributes.get("units"))
        name = self.mapping_attributes.get("grid_mapping_name")
        ends = (*_extent(y, _step(self.y)), *_extent(self.x[[0, -1]], _step(self.x)))
        return (self.shape, units, *ends, name, *numbers, *self._corner_key())

    def _corner_key(self) -> list[tuple[float, ...]]:
        """The corners to a ten thousandth of a degree, in an order that does not change with that of the rows."""
        if self.corners is None:
            return []
        return sorted(tuple(round(float(degrees), 4) for degrees in corner) for corner in self.corners.reshape(2, 4).T)


def _is_index(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, np.arange(len(values))))


def _step(values: np.ndarray) -> float:
    return abs(float(values[-1] - values[0])) / (len(values) - 1) if len(values) > 1 else math.nan


def _extent(ends: np.ndarray, step: float) -> tuple[int | float, ...]:
    """Ends in thousandths of a cell: coordinates that differ by rounding fall on the same whole number."""
    scale = step / 1000 if step > 0 else 1e-6
    return tuple(round(float(end) / scale) for end in ends)


def _distance_km(a: np.ndarray, b: np.ndarray) -> float:
    """Along the great circle between (latitude, longitude) in degrees: the haversine formula."""
    (phi_a, lambda_a), (phi_b, lambda_b) = np.radians(a), np.radians(b)
    half = np.sin((phi_b - phi_a) / 2) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin((lambda_b - lambda_a) / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(half))) * KM_PER_DEGREE)


def _kilometres(attributes: dict) -> float:
    try:
        return float(cf_units.Unit(attributes.get("units", "unknown")).convert(1.0, "km"))
    except ValueError:
        return math.nan


def difference(grid: Grid, other: Grid) -> str | None:
    """What makes `grid` another place than `other`, in words; None where they are the same, whichever way rows run.

    Coordinates agree within a hundredth of a cell, in whatever unit of length: some programs keep them as float32. Of the
    projections, what both state has to agree: programs differ in how much of one they write down.
    """
    if grid.shape != other.shape:
        return f"{grid.shape[0]} × {grid.shape[1]} cells in place of {other.shape[0]} × {other.shape[1]}"
    sides = (
        ("y", np.sort(grid.y), grid.y_attributes, np.sort(other.y), other.y_attributes),
        ("x", grid.x, grid.x_attributes, other.x, other.x_attributes),
    )
    for name, mine, attributes_, its, its_attributes in sides:
        converted = _in_units(mine, attributes_.get("units"), its_attributes.get("units"))
        units = its_attributes.get("units", "")
        if converted is None:
            return f"{name} in {attributes_.get('units', 'no units')} in place of {units or 'no units'}"
        step, apart = _step(its), np.abs(converted - its)
        if name == "x" and units.startswith("degree"):
            apart = np.minimum(apart % 360, -apart % 360)
        if not apart.max() <= 0.01 * (step if step > 0 else 1):
            return f"{name} from {converted[0]:g} to {converted[-1]:g} {units} in place of {its[0]:g} to {its[-1]:g}".strip()
    return _projection_difference(grid.mapping_attributes, other.mapping_attributes)


def _in_units(values: np.ndarray, given: str | None, wanted: str | None) -> np.ndarray | None:
    """The values in wanted units, None where they cannot be; without units they are taken as they are."""
    if given is None or wanted is None or given == wanted:
        return values
    try:
        return cf_units.Unit(given).convert(values, wanted)
    except ValueError:
        return None


def _projection_difference(mine: dict, its: dict) -> str | None:
    names = [attributes_.get("grid_mapping_name") for attributes_ in (mine, its)]
    if None in names:
        return None
    if len({_POLAR.get(name, name) for name in names}) > 1:
        return f"projection {names[0]} in place of {names[1]}"
    for name in sorted(set(mine) & set(its)):
        a, b = (np.ravel(attributes_[name]) for attributes_ in (mine, its))
        if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
            continue  # names and remarks
        apart = np.abs(a - b) if a.shape == b.shape else np.array([np.inf])
        if name.startswith("longitude") or name.endswith(("_longitude", "longitude_from_pole")):
            apart = np.minimum(apart % 360, -apart % 360)
        if (apart > 1e-6 * np.maximum(np.abs(b).max(), 1)).any():
            return f"{name} {mine[name]} in place of {its[name]}"
    return None


def read_grid(dataset, found: Field, where: str) -> Grid:
    """The coordinates of y and x, and the grid mapping that the variable names."""
    (y, y_attributes), (x, x_attributes) = (_coordinate(dataset, dim, where) for dim in (found.y_dim, found.x_dim))
    # The long form is "name: coordinates name: coordinates"; the first is the one of x and y.
    mapping_name = (text(dataset.variables[found.variable], "grid_mapping") or "").split(":")[0].strip()
    mapping = dataset.variables.get(mapping_name)
    return Grid(
        y=y,
        x=x,
        y_name=found.y_dim,
        x_name=found.x_dim,
        y_attributes=y_attributes,
        x_attributes=x_attributes,
        mapping_name=mapping_name if mapping is not None else None,
        mapping_attributes=_written(mapping) if mapping is not None else {},
        corners=_corners(dataset, found) if not y_attributes and not x_attributes else None,
    )


def _written(variable) -> dict:
    """The attributes that a forecast on the same grid can have: others' files hold names that the library refuses."""
    return {name: value for name, value in attributes(variable).items() if _LEGAL.fullmatch(name) and name not in _RESERVED}


def _corners(dataset, found: Field) -> np.ndarray | None:
    """(2, 2, 2) latitude and longitude of the corners by coordinates over (y, x); None where there are none."""
    degrees = [_over_grid(dataset, found, names) for names in _DEGREES]
    if None in degrees:
        return None
    read = [coordinate[:: max(coordinate.shape[0] - 1, 1), :: max(coordinate.shape[1] - 1, 1)] for coordinate in degrees]
    read = [part.T if coordinate.dimensions[0] == found.x_dim else part for part, coordinate in zip(read, degrees, strict=True)]
    corners = np.array(read, np.float64)
    known = corners.shape == (2, 2, 2) and np.isfinite(corners).all() and (np.abs(corners) <= 360).all()
    return corners if known else None


def _over_grid(dataset, found: Field, names: set):
    """The variable over y and x alone that is marked with one of the names."""
    for variable in dataset.variables.values():
        marks = {variable.name.lower(), text(variable, "standard_name"), text(variable, "units")}
        if (
            set(variable.dimensions) == {found.y_dim, found.x_dim}
            and variable.ndim == 2
            and marks & names
            and is_numeric(variable)
        ):
            return variable
    return None


def _coordinate(dataset, dim: str, where: str) -> tuple[np.ndarray, dict]:
    size = len(dataset.dimensions[dim])
    coordinate = dataset.variables.get(dim)
    if size > MAX_COORDINATE:
        raise DataError(f"{where}: dimension {dim} has {size} cells.\nRight would be at most {MAX_COORDINATE}.")
    if coordinate is None or coordinate.dimensions != (dim,) or not is_numeric(coordinate):
        return np.arange(size, dtype=np.float64), {}
    found = _written(coordinate)
    found.pop("_FillValue", None)  # CF forbids it on a coordinate
    scale, offset = found.pop("scale_factor", 1.0), found.pop("add_offset", 0.0)
    values = coordinate[:].astype(np.float64) * scale + offset
    if not np.isfinite(values).all():
        raise DataError(f"{where}: coordinate {dim} has missing values.\nRight would be a number for every cell.")
    _check_even(values, dim, where)
    return values, found


def _check_even(values: np.ndarray, dim: str, where: str) -> None:
    """DataError for a coordinate that turns or is uneven: motion is counted in cells, which then mean nothing."""
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise DataError(f"{where}: coordinate {dim} neither rises nor falls all the way.\nRight would be an even grid.")
    even = np.linspace(values[0], values[-1], len(values))
    if len(values) > 2 and np.abs(values - even).max() > _UNEVEN * _step(values):
        found = f"{np.abs(steps).min():g} to {np.abs(steps).max():g}"
        raise DataError(
            f"{where}: coordinate {dim} is uneven, in steps of {found}.\nRight would be an even grid: interpolate the fields."
        )
