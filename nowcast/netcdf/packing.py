"""Stored numbers -> mm/h: packing, and what counts as missing.

Missing are declared fills, what lies out of the declared range, the fills that NetCDF itself leaves, sentinels that nobody
declared, and what no rain can be; it comes out as NaN and never as dry.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.units import Conversion

_SENTINELS = (9999, 99999, 999999)  # undeclared, in unpacked data; the negative ones fall to the two limits below
_HUGE = 1e30  # above: fills such as 9.97e36 and infinities
_NOISE = 0.01  # mm/h: negative rain down to here is rounding, and dry; below, it is a sentinel
_LOWEST_DBZ = -90.0  # -99, -99.99 and -999 dBZ are sentinels
_MOST_FILLS = 100  # each is looked for in every frame
HIGHEST = 10_000.0  # mm/h: the most ever measured, over a minute, is a quarter of it; above, a unit or a number is wrong


@dataclass(frozen=True)
class Packing:
    """How stored numbers become values: the equality and range tests are on stored numbers."""

    scale_factor: float = 1.0
    add_offset: float = 0.0
    missing: tuple = ()
    low: float = -np.inf
    high: float = np.inf
    unsigned: bool = False


def decode(stored: np.ndarray, packing: Packing, conversion: Conversion) -> np.ndarray:
    """Stored numbers -> float32 in mm/h; fills, out of range, sentinels and negative rain are NaN.

    What is more than any rain (`HIGHEST`) comes out as infinity, for the caller to report.
    """
    stored = np.asarray(stored, stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        return _decode(stored, packing, conversion)
    return _table(stored.dtype.str, packing, conversion).take(stored.view(f"u{stored.dtype.itemsize}"))


@lru_cache(maxsize=32)
def _table(kind: str, packing: Packing, conversion: Conversion) -> np.ndarray:
    """The decoded value of every 8 or 16 bit pattern: looking up is faster than computing, and rounds only once."""
    itemsize = np.dtype(kind).itemsize
    return _decode(np.arange(256**itemsize, dtype=f"u{itemsize}").view(kind), packing, conversion)


def _decode(stored: np.ndarray, packing: Packing, conversion: Conversion) -> np.ndarray:
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
    if conversion.quantity.is_rain:
        out[out > HIGHEST] = np.inf
    out[missing] = np.nan
    return out


def read_packing(variable, where: str) -> Packing:
    """The packing that a variable's attributes declare; DataError where a number is none. `where` names the variable."""
    kind, given = variable.dtype, {name: variable.getncattr(name) for name in variable.ncattrs()}
    scale, offset = (_one_number(given, name, default, where) for name, default in (("scale_factor", 1.0), ("add_offset", 0.0)))
    if scale == 0:
        raise DataError(f"{where} has scale_factor = 0, which makes all values alike.\nRight would be another number, or none.")
    packed = scale != 1.0 or offset != 0.0
    unsigned = kind.kind == "i" and str(given.get("_Unsigned", "false")).lower() == "true"
    fills = [_numbers(given[name]) for name in ("_FillValue", "missing_value") if name in given]
    if "_FillValue" not in given and kind.itemsize > 1:
        fills.append(netCDF4.default_fillvals[kind.str[1:]])  # what netCDF itself leaves where nothing was written
    if not packed:
        fills.append(_SENTINELS)
    stored = np.dtype(kind.str.replace("i", "u")) if unsigned else kind
    missing = tuple(dict.fromkeys(value for fill in fills for value in stored_as(fill, kind, stored)))
    if len(missing) > _MOST_FILLS:
        raise DataError(f"{where} declares {len(missing)} values as missing.\nRight would be at most {_MOST_FILLS}.")
    low, high = _valid_range(given, kind, stored, lambda value: (value - offset) / scale if packed else value)
    return Packing(scale, offset, missing, low, high, unsigned)


def _numbers(value) -> np.ndarray:
    """An attribute's numbers, also where they stand as text ("0.1"); none where it is other text."""
    if not isinstance(value, str):
        values = np.ravel(value)
        return values if values.dtype.kind in "iuf" else np.zeros(0)
    try:
        return np.array([float(part) for part in value.replace(",", " ").split()])
    except ValueError:
        return np.zeros(0)


def _one_number(given: dict, name: str, default: float, where: str) -> float:
    values = _numbers(given.get(name, default))
    if values.size != 1 or not np.isfinite(values).all():
        raise DataError(f"{where} has {name} = {str(given[name])[:40]!r}.\nRight would be one finite number, such as 0.01.")
    return float(values[0])


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


def _valid_range(given: dict, kind: np.dtype, stored: np.dtype, pack) -> tuple[float, float]:
    """(low, high) in stored numbers. Floating limits of an integer variable are unpacked (NetCDF users' guide)."""
    limits = [-np.inf, np.inf]
    pair = _numbers(given.get("valid_range", ()))
    declared = {i: pair[i : i + 1] for i in (0, 1)} if pair.size == 2 else {}
    declared |= {i: _numbers(given[name])[:1] for i, name in enumerate(("valid_min", "valid_max")) if name in given}
    for i, value in declared.items():
        if value.dtype.kind == "f" and np.isfinite(value).all() and value.size:
            limits[i] = float(pack(value[0]) if stored.kind in "iu" else value[0])
        elif value.dtype.kind in "iu" and value.size:
            limits[i] = float(next(iter(stored_as(value, kind, stored)), limits[i]))
    if stored.kind == "f":
        limits = [max(limits[0], -_HUGE), min(limits[1], _HUGE)]
    return min(limits), max(limits)  # a negative scale_factor turns them round
