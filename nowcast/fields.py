"""Finding the rain variable in an open CF dataset, and turning its stored numbers into mm/h with NaN for missing.

A `Field` is everything about a variable that is the same in every file of an archive: dimensions, units and packing.
It holds no open file and no field values; `read` takes the dataset. Rows come out with the northernmost first.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import netCDF4
import numpy as np

from nowcast import units
from nowcast.errors import DataError

_Y_NAMES = {"projection_y_coordinate", "latitude", "grid_latitude", "degrees_north", "degree_north"}
_X_NAMES = {"projection_x_coordinate", "longitude", "grid_longitude", "degrees_east", "degree_east"}
_Y_DIMENSIONS = {"y", "yc", "lat", "latitude", "rlat", "south_north", "north_south", "row", "rows", "nj", "j"}
_X_DIMENSIONS = {"x", "xc", "lon", "longitude", "rlon", "west_east", "east_west", "column", "columns", "ni", "i"}
_TIER = {"rate": 0, "amount": 1, "reflectivity": 2}
# Coarser units than these (mm/h, mm) are heights and winds, not rain, unless a standard name says so.
_COARSEST = {"rate": 1e4, "amount": 100.0, "reflectivity": np.inf}
_SENTINELS = (9999, 99999, 999999)  # undeclared, in unpacked data; the negative ones fall to the two limits below
_HUGE = 1e30  # above: fills such as 9.97e36 and infinities
_NOISE = 0.01  # mm/h: negative rain down to here is rounding, and dry; below, it is a sentinel
_LOWEST_DBZ = -90.0  # -99, -99.99 and -999 dBZ are sentinels


@dataclass(frozen=True)
class Packing:
    """How stored numbers become values: the equality and range tests are on stored numbers."""

    scale_factor: float = 1.0
    add_offset: float = 0.0
    missing: tuple = ()
    low: float = -np.inf
    high: float = np.inf
    unsigned: bool = False


@dataclass(frozen=True)
class Field:
    """A rain variable: `frame_dims` are its dimensions longer than 1 other than y and x, in the file's order."""

    variable: str
    frame_dims: tuple[str, ...]
    y_dim: str
    x_dim: str
    units: str | None
    standard_name: str | None
    packing: Packing = field(default_factory=Packing)

    def conversion(self, *, interval_seconds=None, zr_a=200.0, zr_b=1.6, where: str = "") -> units.Conversion:
        """Declared units -> mm/h. `where` (a file) is named in the DataError."""
        return units.to_rain_rate(
            self.units,
            standard_name=self.standard_name,
            interval_seconds=interval_seconds,
            zr_a=zr_a,
            zr_b=zr_b,
            variable=f"{where}: {self.variable}",
        )

    @property
    def kind(self) -> str | None:
        """rate, amount, reflectivity or dimensionless; None for units that mean none of these."""
        if not self.units:
            return "reflectivity" if self.standard_name in units.REFLECTIVITY_NAMES else None
        found = units.meaning(self.units)
        return found.kind if found else None

    @property
    def quantity(self) -> str:
        return "dimensionless" if self.kind == "dimensionless" else "rain_rate"

    def read(self, dataset, frames: dict, conversion: units.Conversion, *, flip: bool) -> np.ndarray:
        """(frame dims…, y, x) float32 in mm/h, NaN missing; `frames` maps each frame dimension to an index or slice."""
        variable = dataset.variables[self.variable]
        index = {self.y_dim: slice(None), self.x_dim: slice(None)} | frames
        stored = variable[tuple(index.get(name, 0) for name in variable.dimensions)]
        kept = [name for name in variable.dimensions if isinstance(index.get(name, 0), slice)]
        order = [name for name in self.frame_dims if name in kept] + [self.y_dim, self.x_dim]
        stored = np.transpose(stored, [kept.index(name) for name in order])
        return np.ascontiguousarray(decode(stored[..., ::-1, :] if flip else stored, self.packing, conversion))


def decode(stored: np.ndarray, packing: Packing, conversion: units.Conversion) -> np.ndarray:
    """Stored numbers -> float32 in mm/h; fills, out of range, sentinels and negative rain are NaN."""
    stored = np.asarray(stored, stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        return _decode(stored, packing, conversion)
    return _table(stored.dtype.str, packing, conversion).take(stored.view(f"u{stored.dtype.itemsize}"))


@lru_cache(maxsize=32)
def _table(kind: str, packing: Packing, conversion: units.Conversion) -> np.ndarray:
    """The decoded value of every 8 or 16 bit pattern: looking up is faster than computing, and rounds only once."""
    itemsize = np.dtype(kind).itemsize
    return _decode(np.arange(256**itemsize, dtype=f"u{itemsize}").view(kind), packing, conversion)


def _decode(stored: np.ndarray, packing: Packing, conversion: units.Conversion) -> np.ndarray:
    if packing.unsigned:
        stored = stored.view(stored.dtype.str.replace("i", "u"))
    missing = np.zeros(stored.shape, bool)
    for value in packing.missing:
        missing |= stored == value
    if packing.low > -np.inf:
        missing |= stored < packing.low
    if packing.high < np.inf:
        missing |= stored > packing.high
    out = conversion.unpacking(packing.scale_factor, packing.add_offset)(stored)
    if conversion.zr:
        missing |= out < replace(conversion, scale=1.0, offset=0.0)(np.float32(_LOWEST_DBZ))
    missing |= out < -_NOISE
    np.maximum(out, 0, out=out)
    out[missing] = np.nan
    return out


def attributes(variable) -> dict:
    return {name: variable.getncattr(name) for name in variable.ncattrs()}


def text(variable, name: str) -> str | None:
    """A text attribute, stripped; None where it is absent or not text."""
    value = getattr(variable, name, None)
    return value.strip() if isinstance(value, str) else None


def find_field(dataset, where: str, variable: str | None = None) -> Field:
    """The rain variable of an open dataset, or the one called `variable`.

    By standard name first, then by units; rates before amounts before reflectivity. Raises DataError where there is
    none or where several are equally good.
    """
    if variable is not None:
        if variable not in dataset.variables:
            raise DataError(f'{where} has no variable "{variable}".\nIt has {_inventory(dataset)}.')
        return _describe(dataset, variable, where)
    ranked = [(rank, name) for name in dataset.variables if (rank := _rank(dataset, name)) is not None]
    if not ranked:
        raise DataError(
            f"{where} has no variable that is known to be rain; it has {_inventory(dataset)}.\n"
            "Right would be a CF standard name such as rainfall_rate; or choose one with --variable (data.variable)."
        )
    best = [name for rank, name in ranked if rank == min(ranked)[0]]
    if len(best) > 1:
        raise DataError(f"{where} has several rain variables: {', '.join(best)}.\nChoose one with --variable (data.variable).")
    return _describe(dataset, best[0], where)


def _rank(dataset, name: str) -> tuple | None:
    """Smaller is better; None is no candidate."""
    variable = dataset.variables[name]
    if name in dataset.dimensions or not is_numeric(variable) or _horizontal(dataset, variable) is None:
        return None
    num_extra = max(0, sum(size != 1 for size in variable.shape) - 3)
    standard_name = text(variable, "standard_name")
    if standard_name in units.RAIN_NAMES:
        tier = [standard_name in names for names in (units.RATE_NAMES, units.AMOUNT_NAMES)]
        return (num_extra, 0, tier.index(True) if any(tier) else 2)
    found = units.meaning(text(variable, "units") or "")
    if standard_name or found is None or found.scale > _COARSEST.get(found.kind, 0):
        return None
    return (num_extra, 1, _TIER[found.kind])


def is_numeric(variable) -> bool:
    return variable.dtype is not str and getattr(variable.dtype, "kind", "") in "iuf"


def _inventory(dataset) -> str:
    """The variables of a dataset as `name(dims) [units]`, for a message."""
    listed = [
        f"{name}({', '.join(variable.dimensions)}) [{text(variable, 'units') or 'no units'}]"
        for name, variable in dataset.variables.items()
        if name not in dataset.dimensions
    ]
    if dataset.groups:
        listed.append(f"the groups {', '.join(dataset.groups)}, which are not read")
    shown = listed[:12] + (["…"] if len(listed) > 12 else [])
    return ", ".join(shown) or "no variables"


def _describe(dataset, name: str, where: str) -> Field:
    """The Field of one variable; DataError unless it is numeric and has y and x."""
    variable = dataset.variables[name]
    if not is_numeric(variable):
        raise DataError(f"{where}: {name} is not numeric.\nRight would be a field of numbers over (time, y, x).")
    horizontal = _horizontal(dataset, variable)
    if horizontal is None:
        dims = ", ".join(variable.dimensions)
        raise DataError(f"{where}: {name} has dimensions ({dims}).\nRight would be (time, y, x).")
    y_dim, x_dim = horizontal
    others = [
        dim for dim, size in zip(variable.dimensions, variable.shape, strict=True) if size != 1 and dim not in (y_dim, x_dim)
    ]
    return Field(
        variable=name,
        frame_dims=tuple(others),
        y_dim=y_dim,
        x_dim=x_dim,
        units=text(variable, "units"),
        standard_name=text(variable, "standard_name"),
        packing=_packing(variable),
    )


def _horizontal(dataset, variable) -> tuple[str, str] | None:
    """The y and x dimensions: by their coordinate variables, else by their names, else the last two but time."""
    rest = list(variable.dimensions)
    y = next((dim for dim in rest if _is_axis(dataset, dim, "Y", _Y_NAMES, _Y_DIMENSIONS)), None)
    x = next((dim for dim in rest if _is_axis(dataset, dim, "X", _X_NAMES, _X_DIMENSIONS)), None)
    long = [dim for dim in rest if dim not in (y, x) and not _is_axis(dataset, dim, "T", {"time"}, {"time"})]
    if len(long) < (y is None) + (x is None):
        return None
    x = x or long.pop()
    return y or long.pop(), x


def _is_axis(dataset, dim: str, axis: str, standard_names: set, names: set) -> bool:
    coordinate = dataset.variables.get(dim)
    marks = {text(coordinate, mark) for mark in ("axis", "standard_name", "units")} - {None}
    if marks & (standard_names | {axis}):
        return True
    declared = coordinate is not None and (text(coordinate, "axis") or text(coordinate, "standard_name"))
    return not declared and dim.lower() in names


def _packing(variable) -> Packing:
    kind = variable.dtype
    scale, offset = (float(np.ravel(getattr(variable, name, default))[0])
                     for name, default in (("scale_factor", 1.0), ("add_offset", 0.0)))  # fmt: skip
    packed = scale != 1.0 or offset != 0.0
    unsigned = kind.kind == "i" and str(getattr(variable, "_Unsigned", "false")).lower() == "true"
    fills = [getattr(variable, name) for name in ("_FillValue", "missing_value") if hasattr(variable, name)]
    if not hasattr(variable, "_FillValue") and kind.itemsize > 1:
        fills.append(netCDF4.default_fillvals[kind.str[1:]])  # what netCDF itself leaves where nothing was written
    if not packed:
        fills.append(_SENTINELS)
    stored = np.dtype(kind.str.replace("i", "u")) if unsigned else kind
    missing = tuple(dict.fromkeys(value for fill in fills for value in stored_as(fill, kind, stored)))
    low, high = _valid_range(variable, stored, lambda value: (value - offset) / scale if packed else value)
    return Packing(scale, offset, missing, low, high, unsigned)


def stored_as(values, kind: np.dtype, stored: np.dtype) -> list:
    """Those of the attribute's values that the stored type can hold, as the stored type shows them."""
    values = np.ravel(values)
    found = []
    for target in {kind, stored} if values.dtype.kind in "iuf" else ():
        with np.errstate(invalid="ignore", over="ignore"):
            cast = values.astype(target)
        same = np.isclose(cast.astype(np.float64), values.astype(np.float64), rtol=1e-6)
        found += cast[same].view(stored).tolist()
    return found


def _valid_range(variable, stored: np.dtype, pack) -> tuple[float, float]:
    """(low, high) in stored numbers. Floating limits of an integer variable are unpacked (NetCDF users' guide)."""
    limits = [-np.inf, np.inf]
    pair = np.ravel(getattr(variable, "valid_range", ()))
    given = dict(enumerate(pair)) if pair.size == 2 else {}
    names = ("valid_min", "valid_max")
    given |= {i: getattr(variable, name) for i, name in enumerate(names) if hasattr(variable, name)}
    for i, value in given.items():
        value = np.ravel(value)
        if value.dtype.kind == "f":
            limits[i] = float(pack(value[0]) if stored.kind in "iu" else value[0])
        elif value.dtype.kind in "iu":
            limits[i] = float(stored_as(value[:1], variable.dtype, stored)[0])
    if stored.kind == "f":
        limits = [max(limits[0], -_HUGE), min(limits[1], _HUGE)]
    return min(limits), max(limits)  # a negative scale_factor turns them round
