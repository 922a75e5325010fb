"""Read the coordinates of rows and of columns: `lat(lat)`, `lat(y)`, or 0, 1, … if a file has none."""

import re
from dataclasses import dataclass, field

import cf_units
import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, is_numeric, is_true
from nowcast.netcdf.places.axes import along, angle, axis_of_name, declared_axis, degrees_per_unit, listed

MAX_COORDINATE = 50_000_000  # values; a longer coordinate is refused before it is read
PACKING = {"scale_factor", "add_offset", "_Unsigned", "_FillValue", "missing_value"}
_SAME = 0.01  # cells by which a map's coordinate over the grid may differ between columns
_NUMBERS = {"units": "1", "long_name": "number of the cell"}  # of dimensions named like an angle without a coordinate
_BOUNDS = re.compile(r"_(bnds|bounds)$", re.IGNORECASE)
_LIMITS = re.compile(r"valid_|actual_range")  # attributes in the units of the stored numbers
_POLE = 91.0  # degrees; edges and rounding may lead a little beyond 90
_UNEVEN = 0.5  # cells that a coordinate may deviate from equal steps; rounded degrees deviate less


@dataclass(frozen=True, eq=False)
class Coordinate:
    """A coordinate of rows or columns. If the file has none: 0, 1, …, without attributes or with the units 1.

    values: (y,) or (x,) float64, in the order of the file
    """

    name: str
    values: np.ndarray
    attributes: dict = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of the values: latitude, longitude, length, rotated (degrees), index (row or column numbers), or bare."""
        units, standard_name = (str(self.attributes.get(key, "")) for key in ("units", "standard_name"))
        if kind := angle(self.name, self.attributes):
            return kind
        if converted(units, "km") is not None:
            return "length"
        if standard_name.startswith("grid_l") and converted(units, "degrees") == 1.0:
            return "rotated"
        return "index" if _is_index(self.values) else "bare"

    @property
    def is_measured(self) -> bool:
        """Whether the values are positions in known units."""
        return self.kind not in ("index", "bare")

    @property
    def unwrapped(self) -> np.ndarray:
        """The values (y,) or (x,); longitudes without the jump from 360 to 0 or from 180 to -180."""
        return np.unwrap(self.values, period=360) if self.kind == "longitude" else self.values

    @property
    def is_ascending(self) -> bool:
        return len(self.values) > 1 and bool(self.unwrapped[-1] > self.unwrapped[0])


def _is_index(values: np.ndarray) -> bool:
    """Return whether values (y,) are row numbers: 0, 1, 2, … or 1, 2, 3, …, ascending or descending."""
    steps = np.diff(values)
    return bool(len(values) and values.min() in (0, 1) and ((steps == 1).all() or (steps == -1).all()))


def converted(units: str, wanted: str) -> float | None:
    """Return the factor from a unit to another; None if it cannot be converted, or is not a unit."""
    try:
        return float(cf_units.Unit(units).convert(1.0, wanted))
    except ValueError:
        return None


def read_coordinate(dataset, variable, dim: str, axis: str, where: str) -> Coordinate:
    """Read the coordinate of a dimension that is the field's axis Y or X: `dim(dim)`, or another with more information.

    Raises DataError (exit 3) for coordinates that are too long, incomplete or not equally spaced.
    """
    size = len(dataset.dimensions[dim])
    if size > MAX_COORDINATE:
        raise DataError(f"{where}: dimension {dim} has {size} cells.\nExpected at most {MAX_COORDINATE}.")
    own = dataset.variables.get(dim)
    if own is not None and own.dimensions == (dim,) and is_numeric(own):
        coordinate = _read(own, where)
    else:
        coordinate = Coordinate(dim, np.arange(size, dtype=np.float64), _NUMBERS if angle(dim, {}) else {})
    if not coordinate.is_measured:
        others = (_read(other, where) for other in along(dataset, variable, dim) if _is_place(other, variable, axis))
        coordinate = next((other for other in others if other.is_measured), coordinate)
    if not coordinate.is_measured:
        coordinate = _of_two_dimensions(dataset, variable, dim, axis) or coordinate
    check_even(coordinate, where)
    return coordinate


def _is_place(other, variable, axis: str) -> bool:
    """Return whether a one-dimensional variable holds the positions of rows or columns.

    It has the attributes of the axis or is listed in `coordinates`; otherwise its name decides.
    """
    declared = declared_axis(other.name, attributes(other))
    return declared == axis or (declared is None and (other.name in listed(variable) or axis_of_name(other.name) == axis))


def _of_two_dimensions(dataset, variable, dim: str, axis: str) -> Coordinate | None:
    """Return the coordinate of a dimension from a map coordinate over (y, x) that is alike in all columns, or from bounds."""
    for other in dataset.variables.values():
        dims = set(other.dimensions)
        if other.ndim != 2 or dim not in dims or not is_numeric(other):
            continue
        is_bounds = other.shape[other.dimensions.index(dim) - 1] == 2 and bool(_BOUNDS.search(other.name))
        name = _BOUNDS.sub("", other.name) if is_bounds else other.name
        if not (is_bounds or dims <= set(variable.dimensions)):
            continue
        declared = in_degrees(name, attributes(other))
        if declared_axis(name, declared) != axis or (angle(name, declared) and not is_bounds):
            continue
        if other.size > MAX_COORDINATE:
            continue
        values = numbers(attributes(other), other[:])
        values = values if other.dimensions[0] == dim else values.T
        step = abs(values[-1, 0] - values[0, 0]) / max(len(values) - 1, 1)
        found = Coordinate(name, values.mean(axis=1), declared)
        if found.is_measured and (is_bounds or np.ptp(values, axis=1).max() <= _SAME * step):
            return found
    return None


def _read(variable, where: str) -> Coordinate:
    declared = in_degrees(variable.name, attributes(variable))
    coordinate = Coordinate(variable.name, numbers(attributes(variable), variable[:]), declared)
    if not np.isfinite(coordinate.values).all():
        raise DataError(f"{where}: coordinate {variable.name} has missing values.\nExpected a number for every cell.")
    return coordinate


def in_degrees(name: str, declared: dict) -> dict:
    """Return the attributes of a coordinate after `numbers` has unpacked it."""
    kept = {key: value for key, value in declared.items() if key not in PACKING}
    if degrees_per_unit(declared) == 1:
        return kept
    units = {"latitude": "degrees_north", "longitude": "degrees_east"}.get(angle(name, declared) or "", "degrees")
    return {key: value for key, value in kept.items() if not _LIMITS.match(key)} | {"units": units}


def numbers(declared: dict, stored: np.ndarray) -> np.ndarray:
    """Unpack stored numbers of a coordinate with these attributes, (…,) of any shape, to float64; NaN where missing.

    Angles are in degrees, north and east.
    """
    stored = np.asarray(stored)
    fill = declared.get("_FillValue", netCDF4.default_fillvals.get(stored.dtype.str[1:]))
    fills = [fill, *np.ravel(declared.get("missing_value", []))]
    missing = np.isin(stored, [value for value in fills if isinstance(value, int | float | np.number)])
    if is_true(declared.get("_Unsigned")) and stored.dtype.kind == "i":
        stored = stored.view(stored.dtype.str.replace("i", "u"))
    values = stored * np.float64(declared.get("scale_factor", 1.0)) + np.float64(declared.get("add_offset", 0.0))
    return np.where(missing, np.nan, values * degrees_per_unit(declared))


def check_even(coordinate: Coordinate, where: str) -> None:
    """Raise DataError (exit 3) for unequal steps of a coordinate: motion in cells would have no meaning.

    Latitudes may also be equally spaced on a Mercator map. Raises it for latitudes beyond the poles, too.
    """
    values, named = coordinate.unwrapped, f"{where}: coordinate {coordinate.name}"
    if coordinate.kind == "latitude":
        check_latitudes(values, named)
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise DataError(f"{named} is not monotonic.\nExpected an even grid.")
    is_mercator = coordinate.kind == "latitude" and np.abs(values).max() < 90
    if not _is_even(values) and not (is_mercator and _is_even(np.arcsinh(np.tan(np.radians(values))))):
        sizes = f"{np.abs(steps).min():g} to {np.abs(steps).max():g}"
        raise DataError(f"{named} is uneven, in steps of {sizes}.\nExpected an even grid: interpolate the fields.")


def check_latitudes(values: np.ndarray, named: str) -> None:
    """Raise DataError (exit 3) for latitudes (…,), degrees, that are beyond the poles; `named` is the variable in messages."""
    furthest = float(np.nanmax(np.abs(values), initial=0))
    if furthest > _POLE:
        right = "Expected -90 to 90: perhaps latitude and longitude are exchanged."
        raise DataError(f"{named} has latitudes up to {furthest:g} degrees.\n{right}")


def _is_even(values: np.ndarray) -> bool:
    """Return whether values (y,) are equally spaced, to within half a step."""
    step = abs(values[-1] - values[0]) / max(len(values) - 1, 1)
    return len(values) < 3 or bool(np.abs(values - np.linspace(values[0], values[-1], len(values))).max() <= _UNEVEN * step)
