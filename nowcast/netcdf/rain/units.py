"""Convert any declared units to mm/h.

Units are parsed by udunits (through cf_units) and never compared as strings. `_SPELLINGS` rewrites only what udunits cannot
read, or reads in another sense: to udunits `mm/5min` is mm/5 times minutes. 1 kg m-2 of water is 1 mm. A `Meaning` is the kind
of quantity that units express; with the interval of an accumulation or a Z-R relation it becomes a `Conversion`.
"""

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import cf_units
import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE, Quantity

RATE_NAMES = frozenset({"rainfall_rate", "lwe_precipitation_rate", "rainfall_flux", "precipitation_flux"})
AMOUNT_NAMES = frozenset({"rainfall_amount", "precipitation_amount", "lwe_thickness_of_precipitation_amount"})
REFLECTIVITY_NAMES = frozenset({"equivalent_reflectivity_factor"})
RAIN_NAMES = RATE_NAMES | AMOUNT_NAMES | REFLECTIVITY_NAMES

EXPECTED_UNITS = "a rate (mm h-1, kg m-2 s-1), an amount per interval (mm, kg m-2) or dBZ"

_TIME = r"(s|sec\w*|min\w*|h|hrs?|hours?|d|days?)\b"
_SPELLINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"^\s*dBZ[eh]?\s*$", "dBZ"),
        (r"^\s*fraction\s*$", "1"),
        (r"\s+of\s+water(\s+equivalent)?\s*$", ""),
        (r"[{}$]", ""),
        (r"^\s*\[(.*)\]\s*$", r"\1"),
        (r"^(\s*mm)(?=(?:h|hr|\d+\s*min)\s*(?:\^|\*\*)?-1)", r"\1 "),  # mmh-1
        # per several units of time: mm/5min, mm per 5 minutes, mm 5min-1
        (rf"(?:/|\bper\b)\s*(\d+(?:\.\d+)?)\s*{_TIME}", r"/(\1 \2)"),
        (rf"(?<=[\w)])\s+(\d+(?:\.\d+)?)\s*{_TIME}\s*(?:\^|\*\*)?-1\b", r"/(\1 \2)"),
        (r"/\s*(\d+)\s*['′](?!['′])", r"/(\1 min)"),  # mm/5', to udunits an angle
        # mm/h*32: the stored numbers are 32 times the rate
        (r"(?<=[\w)])\s*(?:(?<!\*)\*(?!\*)|[x×](?=\s*\d))\s*([1-9]\d*(?:\.\d+)?)\s*$", r"/\1"),
    )
)
_SIGNS = str.maketrans(
    "⁻⁰¹²³⁴⁵⁶⁷⁸⁹\u2212\u00a0\u202f\u22c5", "-0123456789-  ."
)  # the last four: a minus sign, two no-break spaces and a multiplication dot
_LARGEST = 1e7  # mm/h or mm per unit: m s-1 is 3.6e6; larger units, such as `Mm`, are not what was meant
_ROUNDING = np.float32(3e-7)  # largest relative error of a product of two numbers in single precision, with some room
_THOUSAND = np.float32(1000)
_PART = 2**14  # numbers that are rounded at a time, which stay in the cache of the processor
_TARGETS = (
    ("rate", "mm h-1"),
    ("rate", "kg m-2 h-1"),
    ("amount", "mm"),
    ("amount", "kg m-2"),
    ("reflectivity", "dBZ"),
    ("dimensionless", "1"),
)


@dataclass(frozen=True)
class Meaning:
    """The kind of quantity that units express.

    value * scale + offset is in mm/h, mm, dBZ or 1 for the kinds rate, amount, reflectivity and dimensionless.
    """

    kind: str
    scale: float
    offset: float


@dataclass(frozen=True)
class Conversion:
    """A conversion of values in declared units to float32 in mm/h, or in 1 for a dimensionless quantity. NaN stays NaN.

    The result is value * scale + offset; for reflectivity this is in dBZ, and `zr` = (a, b) of Z = a R^b gives the rate R.
    For amounts, `interval_seconds` is the interval that they are divided by, s.
    """

    quantity: Quantity
    describe: str
    scale: float
    offset: float = 0.0
    zr: tuple[float, float] | None = None
    interval_seconds: float | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        # In float32, 10 * 0.01 is below 0.1, and an offset can cancel most digits of a rate.
        float32_suffices = values.dtype.kind == "f" and (self.zr or not self.offset)
        kind = np.result_type(values.dtype.newbyteorder("="), np.float32) if float32_suffices else np.float64
        with np.errstate(over="ignore", under="ignore"):
            out = np.multiply(values, self.scale, dtype=kind, order="C")
            if self.offset:
                out += self.offset
            if self.zr:
                a, b = self.zr
                # Z = a R^b and Z = 10^(dBZ/10)
                out = np.exp(out * (np.log(10) / (10 * b)) - np.log(a) / b)
            out = out.astype(np.float32, copy=False)
            if self.scale != 1 and self.quantity.is_rain and values.dtype == np.float32 and not self.zr:
                _mend_rounding(out)
            return out

    def unpacking(self, scale_factor: float, add_offset: float) -> "Conversion":
        """Return the conversion of packed numbers: one multiplication in place of two."""
        return replace(self, scale=self.scale * scale_factor, offset=self.scale * add_offset + self.offset)


def _mend_rounding(rates: np.ndarray) -> None:
    """Set rates, mm/h, that are thousandths but for rounding errors to these, in place.

    Of rates in steps of 0.01 mm/h that are stored as amounts in single precision, many would be just below their thresholds.

    rates: any shape, contiguous
    """
    flat = rates.reshape(-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # fill values are still among them
        for start in range(0, flat.size, _PART):
            part = flat[start : start + _PART]
            whole = np.rint(part * _THOUSAND)
            whole /= _THOUSAND
            np.putmask(part, np.abs(part - whole) < part * _ROUNDING, whole)


@lru_cache(maxsize=1024)
def meaning(units: str) -> Meaning | None:
    """Return the meaning of units; None if they are neither those of rain nor dimensionless."""
    text = units.translate(_SIGNS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    units_ = (_unit(spelling) for spelling in (text, text.lower()))  # MM/HR
    fitting = [(unit, kind, target) for unit in units_ if unit for kind, target in _TARGETS if unit.is_convertible(target)]
    if not fitting:
        return None
    unit, kind, target = fitting[0]
    if kind == "reflectivity" and "(re " not in unit.definition:
        return None  # a volume: dBZ is the logarithm of mm6 m-3, which udunits converts to cubic metres
    offset, one, two = (unit.convert(number, target) for number in (0.0, 1.0, 2.0))
    if not math.isclose(two - one, one - offset, rel_tol=1e-6):
        return None  # a logarithm of rain, such as lg(re 1 mm/h)
    return Meaning(kind, float(one - offset), float(offset)) if abs(one - offset) < _LARGEST else None


def check_given(units: str | None, zr_a: float, zr_b: float) -> None:
    """Raise UsageError (exit 2) for units of --units or data.units that are not those of rain (None: not given).

    Also for invalid factors of Z = zr_a R^zr_b, which would give only NaN.
    """
    for name, value, usual in (("zr_a", zr_a, 200), ("zr_b", zr_b, 1.6)):
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (is_number and 0 < value < math.inf):
            raise UsageError(f"{name} = {value!r}: write a number above 0, for Z = zr_a R^zr_b, such as {usual}")
    meant = meaning(units) if units is not None else None
    if units is not None and (meant is None or meant.kind == "dimensionless"):
        raise UsageError(f'--units "{units}" (data.units) is no measure of rain.\nExpected {EXPECTED_UNITS}.')


def _unit(text: str) -> cf_units.Unit | None:
    try:
        return cf_units.Unit(text)
    except ValueError:
        return None


def to_rain_rate(
    units: str | None,
    *,
    standard_name: str | None = None,
    interval_seconds: float | None = None,
    zr_a: float = 200.0,
    zr_b: float = 1.6,
    decibel: bool = False,
    variable: str = "the variable",
) -> Conversion:
    """Return the conversion of values in `units` to mm/h, or to 1 for a dimensionless quantity that is not rain.

    interval_seconds: the length that an accumulation is divided by, s
    zr_a, zr_b: Z = zr_a R^zr_b; 200 and 1.6: Marshall & Palmer (1948)
    decibel: whether the values are 10 times the decimal logarithm of a rate or an amount in these units; variable: for messages

    Raises DataError (exit 3) for units that are missing or not those of rain, and for an amount over an unknown interval.
    """
    if units is None and standard_name in REFLECTIVITY_NAMES:
        units = "dBZ"  # the one standard name that is always in the same units
    if units is None or not units.strip():
        raise DataError(f"{variable} has no units attribute.\nGive them by --units (data.units): {EXPECTED_UNITS}.")
    meant = meaning(units)
    if meant is None or (meant.kind == "dimensionless" and standard_name in RAIN_NAMES):
        raise DataError(_no_rain(variable, units, standard_name if meant else None))
    if meant.kind == "dimensionless":
        return Conversion(DIMENSIONLESS, f"{units} -> 1", meant.scale, meant.offset)
    if meant.kind == "reflectivity":
        text = f"{units} -> mm/h (Z = {zr_a:g} R^{zr_b:g})"
        return Conversion(RAIN_RATE, text, meant.scale, meant.offset, (float(zr_a), float(zr_b)))
    if meant.kind == "rate":
        return _linear(f"{units} -> mm/h", meant.scale, meant.offset, decibel=decibel)
    if interval_seconds is None or not interval_seconds > 0:
        raise DataError(
            f'{variable} is an accumulation ("{units}") over an unknown interval.\n'
            'Expected time bounds, or cell_methods such as "time: sum (interval: 5 minutes)".'
        )
    per_hour, text = 3600.0 / interval_seconds, f"{units} per {interval_seconds:g} s -> mm/h"
    rates = _linear(text, meant.scale * per_hour, meant.offset * per_hour, decibel=decibel)
    return replace(rates, interval_seconds=interval_seconds)


def _no_rain(variable: str, units: str, named: str | None) -> str:
    """Return a message about units that are not of rain; `named` is the standard name of rain, where one is stated."""
    said = f", as its standard_name {named} says that it is" if named else ""
    return f'{variable} has units "{units}", which is no measure of rain{said}.\nExpected {EXPECTED_UNITS}.'


def _linear(text: str, scale: float, offset: float, *, decibel: bool) -> Conversion:
    """Return the conversion of rates; with `decibel` of ten times their decimal logarithm, as a reflectivity Z = R / scale."""
    if not decibel:
        return Conversion(RAIN_RATE, text, scale, offset)
    return Conversion(RAIN_RATE, f"dB of {text}", 1.0, 0.0, (1 / scale, 1.0))
