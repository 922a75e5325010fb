"""The horizontal grid of a record or forecast: its coordinates and map projection, as they stand in the file.

Coordinates keep the file's order; fields everywhere else have row 0 northernmost, so whoever writes fields looks at
`y_ascending`. Two grids are the same place when their `key`s are equal, whichever way their rows run.
"""

import math
from dataclasses import dataclass, field

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.fields import Field, attributes, is_numeric, text

MAX_COORDINATE = 50_000_000  # values: a longer coordinate is refused before it is read
KM_PER_DEGREE = 6371.0 * math.pi / 180  # of a great circle on the mean sphere
_LATITUDES = {"latitude", "grid_latitude"}
_POLAR = {"polar_stereographic": "stereographic"}  # the same with its pole in one parameter more


@dataclass(frozen=True, eq=False)
class Grid:
    """y and x: float64, 1-D, in the order of the file. Index coordinates without attributes where it has none."""

    y: np.ndarray
    x: np.ndarray
    y_name: str = "y"
    x_name: str = "x"
    y_attributes: dict = field(default_factory=dict)
    x_attributes: dict = field(default_factory=dict)
    mapping_name: str | None = None
    mapping_attributes: dict = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def y_ascending(self) -> bool:
        """Whether row 0 of the file is the southernmost. Rows without a coordinate run from the north."""
        return bool(self.y_attributes or not _is_index(self.y)) and len(self.y) > 1 and bool(self.y[-1] > self.y[0])

    @property
    def spacing_km(self) -> tuple[float, float]:
        """(dy, dx), degrees at the middle latitude; NaN where the units do not tell."""
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
        return (self.shape, units, *_extent(y, _step(self.y)), *_extent(self.x[[0, -1]], _step(self.x)), name, *numbers)


def _is_index(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, np.arange(len(values))))


def _step(values: np.ndarray) -> float:
    return abs(float(values[-1] - values[0])) / (len(values) - 1) if len(values) > 1 else math.nan


def _extent(ends: np.ndarray, step: float) -> tuple[int | float, ...]:
    """Ends in thousandths of a cell: coordinates that differ by rounding fall on the same whole number."""
    scale = step / 1000 if step > 0 else 1e-6
    return tuple(round(float(end) / scale) for end in ends)


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
        mapping_attributes=attributes(mapping) if mapping is not None else {},
    )


def _coordinate(dataset, dim: str, where: str) -> tuple[np.ndarray, dict]:
    size = len(dataset.dimensions[dim])
    coordinate = dataset.variables.get(dim)
    if size > MAX_COORDINATE:
        raise DataError(f"{where}: dimension {dim} has {size} cells.\nRight would be at most {MAX_COORDINATE}.")
    if coordinate is None or coordinate.dimensions != (dim,) or not is_numeric(coordinate):
        return np.arange(size, dtype=np.float64), {}
    found = attributes(coordinate)
    found.pop("_FillValue", None)  # CF forbids it on a coordinate
    scale, offset = found.pop("scale_factor", 1.0), found.pop("add_offset", 0.0)
    values = coordinate[:].astype(np.float64) * scale + offset
    if not np.isfinite(values).all():
        raise DataError(f"{where}: coordinate {dim} has missing values.\nRight would be a number for every cell.")
    return values, found
