"""Decode stored numbers to mm/h: packing and missing values.

These count as missing: declared fill values, values outside the declared range, the default fill values of NetCDF, common
undeclared sentinels such as 9999, and values that cannot be rain. They become NaN, never dry.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import is_true
from nowcast.netcdf.rain.units import Conversion

SENTINELS = (9999, 99999, 999999)  # undeclared, in unpacked data; negative ones are below the two limits that follow
_HUGE = 1e30  # larger numbers are fill values, such as 9.97e36, or infinite
NOISE = 0.01  # mm/h: negative rain down to -0.01 is a rounding error, and dry; below, it is a sentinel
_LOWEST_DBZ = -90.0  # dBZ; -99, -99.99 and -999 dBZ are sentinels
# names of attributes without what is no letter or digit, in lower case: of fill values, and others' scale_factor and add_offset
_FILLS = frozenset({"fillvalue", "missingvalue", "nodatavalue", "codemissingvalue", "missing", "missingdata"})
_STORED_FILLS = frozenset({"nodata", "whatnodata"})  # of ODIM: always stored numbers, which others may give unpacked
_COUNTS = frozenset({"missing", "missingdata"})  # fill values unless they are 0, the number of missing cells
_SCALES = ("gain", "whatgain", "slope", "scalefactor", "scalingfactor", "scale")
_OFFSETS = ("offset", "whatoffset", "intercept", "addoffset")
_ALONE = frozenset({"slope", "scalefactor", "scalingfactor"})  # scales that may lack an offset, which then is 0
# calibration_formulas = "GEO = 0.1 * PV + 0.0" of KNMI; not "Z = 200 * R^1.6"
_LINEAR = re.compile(r"\s*\w+\s*=\s*(?P<scale>[-+.\de]+)\s*[*/]\s*[A-Za-z]\w*\s*(?:[-+][-+.\de\s]+)?", re.IGNORECASE)
_UNDETECT = (
    "_Undetect",
    "undetect",
    "what_undetect",
)  # attributes with the code for no echo: those of ODIM, and pysteps' `zerovalue`
# words in flag_meanings, which describe codes among the stored numbers
_DRY_WORDS = re.compile(
    r"no_?(echo|rain|precip|detect)|not_(rain|detect)|undetect|\bdry|below_(detect|thresh|min|noise|sens)", re.IGNORECASE
)
_MISSING_WORDS = re.compile(
    r"no_?(data|coverage|value|measure|observ|radar)|not_(avail|observ|measur|scan|cover|valid)|missing|fill|invalid|outside|"
    r"out_of|unavailable|undefined|unknown|clutter|blocked|masked",
    re.IGNORECASE,
)
ROUNDING = 0.499  # stored units by which a limit given in unpacked values may be inexact
_INEXACT = 0.01  # stored units by which a fill value that is given unpacked may be inexact
_MOST_FILLS = 100  # fill values, each of which is searched for in every frame
HIGHEST = 10_000.0  # mm/h, four times the highest rate ever measured over a minute: above, the units or the number are wrong


@dataclass(frozen=True)
class Packing:
    """The packing of a variable: value = stored * scale_factor + add_offset.

    Stored numbers are missing if they equal one of `missing` or lie outside `low` to `high`, and dry if in `dry`.
    `unsigned`: read signed integers as unsigned. Rates below `least`, mm/h, are missing; those from it to 0 are dry.
    `keeps_negative`: values from `least` to 0 stay as they are, for the caller to judge, in place of dry.
    `unclear`: pairs of a declared fill value and the stored number that it would be if it was declared unpacked.
    """

    scale_factor: float = 1.0
    add_offset: float = 0.0
    missing: tuple = ()
    low: float = -np.inf
    high: float = np.inf
    unsigned: bool = False
    dry: tuple = ()
    least: float = -NOISE
    keeps_negative: bool = False
    unclear: tuple[tuple[float, float], ...] = ()


def decode(stored: np.ndarray, packing: Packing, conversion: Conversion) -> np.ndarray:
    """Decode stored numbers of any shape to float32 in mm/h, missing ones to NaN.

    Rates above `HIGHEST` become infinity, for the caller to report.
    """
    stored = np.asarray(stored, stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        return _decode(stored, packing, conversion)
    return _table(stored.dtype.str, packing, conversion).take(stored.view(f"u{stored.dtype.itemsize}"))


@lru_cache(maxsize=32)
def _table(kind: str, packing: Packing, conversion: Conversion) -> np.ndarray:
    """Return the decoded values of all 8 or 16 bit patterns: looking them up is faster than computing, and rounds only once."""
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
    missing |= out < packing.least
    if not packing.keeps_negative:
        np.maximum(out, 0, out=out)
    if conversion.quantity.is_rain:
        out[out > HIGHEST] = np.inf
    out[missing] = np.nan
    for value in packing.dry:
        out[stored == value] = 0
    return out


def read_packing(variable, where: str) -> Packing:
    """Return the packing that a variable's attributes declare. `where` names the variable in messages.

    Raises DataError (exit 3) for a scale or offset that is not one finite number, and for too many fill values.
    """
    kind = variable.dtype
    attributes = _with_cf_names({name: variable.getncattr(name) for name in variable.ncattrs()}, kind)
    scale, offset = (
        _one_number(attributes, name, default, where) for name, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    if scale == 0:
        raise DataError(f"{where} has scale_factor = 0, which makes all values alike.\nExpected another number, or none.")
    packed = scale != 1.0 or offset != 0.0
    unsigned = _is_unsigned(attributes, kind)
    stated = _stated_fills(attributes)
    fills = list(stated)
    if "_FillValue" not in attributes and kind.itemsize > 1:
        fills.append(netCDF4.default_fillvals[kind.str[1:]])  # the default of NetCDF, where nothing was written
    if not packed:
        fills.append(SENTINELS)
    stored = np.dtype(kind.str.replace("i", "u")) if unsigned else kind
    twofold, unpacked = _unpacked_fills(attributes, kind, stored, scale, offset) if packed else ((), ())
    missing = tuple(dict.fromkeys([*(value for fill in fills for value in stored_as(fill, kind, stored)), *unpacked]))
    if len(missing) > _MOST_FILLS:
        raise DataError(f"{where} declares {len(missing)} values as missing.\nExpected at most {_MOST_FILLS}.")
    low, high = _valid_range(attributes, kind, stored, lambda value: (value - offset) / scale if packed else value)
    dry_flags, missing_flags = _flags(attributes)
    missing += tuple(v for v in stored_as(missing_flags, kind, stored) if v not in missing)
    declared = [dry_flags, *(_numbers(attributes[name]) for name in _UNDETECT if name in attributes)]
    declared += [(_numbers(attributes["zerovalue"]) - offset) / scale] if "zerovalue" in attributes else []
    filled = {value for fill in stated for value in stored_as(fill, kind, stored)}
    dry = dict.fromkeys(value for numbers in declared for value in stored_as(numbers, kind, stored) if value not in filled)
    return Packing(scale, offset, missing, low, high, unsigned, tuple(dry), unclear=twofold)


def is_stored_number(name: str) -> bool:
    """Return whether an attribute of this name holds stored numbers of its variable: limits, flags, codes and fill values."""
    codes = {"valid_range", "valid_min", "valid_max", "flag_values", *_UNDETECT}
    return name in codes or _word(name) in _FILLS | _STORED_FILLS


def _stated_fills(attributes: dict) -> list[np.ndarray]:
    """Return the numbers of each attribute that declares fill values."""
    found = [(word, _numbers(value)) for name, value in attributes.items() if (word := _word(name)) in _FILLS | _STORED_FILLS]
    return [values[values != 0] if word in _COUNTS else values for word, values in found]


def _unpacked_fills(attributes: dict, kind: np.dtype, stored: np.dtype, scale: float, offset: float) -> tuple[tuple, tuple]:
    """Return fill values of packed integers that may be declared unpacked, against CF, as `missing_value = 99.0`.

    returns: pairs (as declared, packed) of those that the stored type can hold either way, and the packed numbers of those
    that it can only hold packed
    """
    pairs, only = [], []
    for values in [_numbers(value) for name, value in attributes.items() if _word(name) in _FILLS] if kind.kind in "iu" else []:
        for value in values[np.isfinite(values)] if values.dtype.kind == "f" else ():
            packed = (float(value) - offset) / scale
            held = stored_as(np.round([packed]), kind, stored) if abs(packed - round(packed)) < _INEXACT else []
            if held and not stored_as([value], kind, stored):
                only.append(held[0])
            elif held and float(value) != held[0] and value > 0:
                pairs.append((float(value), held[0]))
    return tuple(pairs), tuple(only)


def _flags(attributes: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the stored numbers that `flag_values` and `flag_meanings` declare as dry, and those declared as missing."""
    values = _numbers(attributes.get("flag_values", ()))
    meanings = str(attributes.get("flag_meanings", "")).split()
    if len(values) != len(meanings):
        return np.zeros(0), np.zeros(0)
    is_dry = np.array([bool(_DRY_WORDS.search(meaning)) for meaning in meanings], bool)
    is_missing = np.array([bool(_MISSING_WORDS.search(meaning)) for meaning in meanings], bool)
    return values[is_dry], values[is_missing & ~is_dry]


def _with_cf_names(attributes: dict, kind: np.dtype) -> dict:
    """Return attributes with gain and offset (ODIM), or other names of them, of integers as scale_factor and add_offset."""
    if kind.kind not in "iu" or "scale_factor" in attributes:
        return attributes
    words = {_word(name): value for name, value in attributes.items() if np.isfinite(_numbers(value)).sum() == 1}
    offset = next((words[word] for word in _OFFSETS if word in words), None)
    scale = next((words[word] for word in _SCALES if word in words and (offset is not None or word in _ALONE)), None)
    return (
        attributes if scale is None else attributes | {"scale_factor": scale, "add_offset": 0.0 if offset is None else offset}
    )


def unused_scale(variable) -> str | None:
    """Return an attribute that seems to scale the stored numbers but does not, as `gain = 0.1` without an offset; else None."""
    declared = {name: variable.getncattr(name) for name in variable.ncattrs()}
    if {"scale_factor", "add_offset"} & set(_with_cf_names(declared, variable.dtype)):
        return None
    for name, value in declared.items():
        numbers = _numbers(value)
        if _word(name) in _SCALES and numbers.size == 1 and np.isfinite(numbers[0]) and numbers[0] not in (0, 1):
            return f"{name} = {numbers[0]:g}"
        if "formula" in name.lower() and _LINEAR.fullmatch(str(value)):
            return f'{name} = "{str(value)[:40]}"'
    return None


def _is_unsigned(attributes: dict, kind: np.dtype) -> bool:
    """Return whether signed integers stand for unsigned ones: `_Unsigned` says so, or a valid range of bytes up to 255."""
    if kind.kind != "i" or "_Unsigned" in attributes or kind.itemsize > 1:
        return kind.kind == "i" and is_true(attributes.get("_Unsigned"))
    limits = [_numbers(attributes[name]) for name in ("valid_range", "valid_max") if name in attributes]
    return any(limit.dtype.kind in "iu" and limit.size and limit.min() >= 0 and limit.max() > 127 for limit in limits)


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _numbers(value) -> np.ndarray:
    """Return the numbers of an attribute, also those written as text ("0.1"); an empty array for other text."""
    if not isinstance(value, str):
        values = np.ravel(value)
        return values if values.dtype.kind in "iuf" else np.zeros(0)
    try:
        return np.array([float(part) for part in value.replace(",", " ").split()])
    except ValueError:
        return np.zeros(0)


def _one_number(attributes: dict, name: str, default: float, where: str) -> float:
    values = _numbers(attributes.get(name, default))
    if values.size != 1 or not np.isfinite(values).all():
        raise DataError(f"{where} has {name} = {str(attributes[name])[:40]!r}.\nExpected one finite number, such as 0.01.")
    return float(values[0])


def stored_as(values, kind: np.dtype, stored: np.dtype) -> list:
    """Return the values of an attribute that the type `kind` can represent, as numbers of the type `stored`."""
    values = np.ravel(values)
    held = []
    for target in {kind, stored} if values.dtype.kind in "iuf" else ():
        with np.errstate(invalid="ignore", over="ignore"):
            cast = values.astype(target)
        same = np.isclose(cast.astype(np.float64), values.astype(np.float64), rtol=1e-6)
        held += cast[same].view(stored).tolist()
    return held


def _valid_range(attributes: dict, kind: np.dtype, stored: np.dtype, pack) -> tuple[float, float]:
    """Return (low, high) in stored numbers. Floating-point limits of integers are unpacked values (NetCDF users' guide).

    They are widened by ROUNDING, so that a limit itself is within the range.
    """
    limits, swaps = [-np.inf, np.inf], pack(1.0) < pack(0.0)
    pair = _numbers(attributes.get("valid_range", ()))
    declared = {i: pair[i : i + 1] for i in (0, 1)} if pair.size == 2 else {}
    declared |= {i: _numbers(attributes[name])[:1] for i, name in enumerate(("valid_min", "valid_max")) if name in attributes}
    for i, value in declared.items():
        if value.dtype.kind == "f" and np.isfinite(value).all() and value.size:
            if stored.kind in "iu":
                side = 1 - i if swaps else i
                limits[side] = float(pack(float(value[0]))) + (ROUNDING if side else -ROUNDING)
            else:
                limits[i] = float(value[0])
        elif value.dtype.kind in "iu" and value.size:
            limits[i] = float(next(iter(stored_as(value, kind, stored)), limits[i]))
    if stored.kind == "f":
        limits = [max(limits[0], -_HUGE), min(limits[1], _HUGE)]
    return min(limits), max(limits)
