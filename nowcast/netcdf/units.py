"""Any declared unit -> mm/h.

Units are parsed by udunits (through cf_units) and never compared as strings; `_SPELLINGS` only rewrites what udunits
cannot read or reads otherwise than it is meant: to udunits `mm/5min` is mm/5 times minutes. 1 kg m-2 of water is 1 mm.
What a unit may mean is its `Meaning`; the interval of an accumulation and the Z-R relation make it a `Conversion`.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE, Quantity

RATE_NAMES = frozenset({"rainfall_rate", "lwe_precipitation_rate", "rainfall_flux", "precipitation_flux"})
AMOUNT_NAMES = frozenset({"rainfall_amount", "precipitation_amount", "lwe_thickness_of_precipitation_amount"})
REFLECTIVITY_NAMES = frozenset({"equivalent_reflectivity_factor"})
RAIN_NAMES = RATE_NAMES | AMOUNT_NAMES | REFLECTIVITY_NAMES

RIGHT_UNITS = "a rate (mm h-1, kg m-2 s-1), an amount per interval (mm, kg m-2) or dBZ"

_TIME = r"(s|sec\w*|min\w*|h|hrs?|hours?|d|days?)\b"
_SPELLINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"^\s*dBZ[eh]?\s*$", "dBZ"),
        (r"^\s*fraction\s*$", "1"),
        (r"\s+of\s+water(\s+equivalent)?\s*$", ""),
        (r"[{}$]", ""),
        # A count of time below the fraction bar: mm/5min, mm per 5 minutes, mm 5min-1.
        (rf"(?:/|\bper\b)\s*(\d+(?:\.\d+)?)\s*{_TIME}", r"/(\1 \2)"),
        (rf"(?<=[\w)])\s+(\d+(?:\.\d+)?)\s*{_TIME}\s*(?:\^|\*\*)?-1\b", r"/(\1 \2)"),
    )
)
_SIGNS = str.maketrans(
    "⁻⁰¹²³⁴⁵⁶⁷⁸⁹\u2212\u00a0\u202f", "-0123456789-  "
)  # the last three: a minus sign, spaces that do not break
_LARGEST = 1e7  # mm/h or mm: m s-1 is 3.6e6; above, a prefix such as that of `Mm` is meant otherwise
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
    """What a unit can stand for: value * scale + offset is in mm/h, mm, dBZ or 1, by `kind`."""

    kind: str
    scale: float
    offset: float


@dataclass(frozen=True)
class Conversion:
    """Values in declared units -> float32 in mm/h (or 1, for a dimensionless quantity). NaN stays NaN.

    `value * scale + offset` is the result, or for reflectivity dBZ, of which `zr` = (a, b) makes a rate.
    """

    quantity: Quantity
    describe: str
    scale: float
    offset: float = 0.0
    zr: tuple[float, float] | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        # In float32, 10 * 0.01 falls below 0.1, and an offset can cancel most of a rate's digits.
        plain = values.dtype.kind == "f" and (self.zr or not self.offset)
        kind = np.result_type(values.dtype.newbyteorder("="), np.float32) if plain else np.float64
        with np.errstate(over="ignore", under="ignore"):
            out = np.multiply(values, self.scale, dtype=kind)
            if self.offset:
                out += self.offset
            if self.zr:
                a, b = self.zr
                # Z = a R^b and Z = 10^(dBZ/10)
                out = np.exp(out * (np.log(10) / (10 * b)) - np.log(a) / b)
            return out.astype(np.float32, copy=False)

    def unpacking(self, scale_factor: float, add_offset: float) -> "Conversion":
        """This conversion applied to packed counts: one multiplication instead of two."""
        return replace(self, scale=self.scale * scale_factor, offset=self.scale * add_offset + self.offset)


@lru_cache(maxsize=1024)
def meaning(units: str) -> Meaning | None:
    """What `units` can stand for, or None where that is nothing that this program reads."""
    text = units.translate(_SIGNS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    try:
        unit = cf_units.Unit(text)
    except ValueError:
        return None
    fitting = [(kind, target) for kind, target in _TARGETS if unit.is_convertible(target)]
    if not fitting:
        return None
    kind, target = fitting[0]
    if kind == "reflectivity" and "(re " not in unit.definition:
        return None  # a volume: dBZ is the logarithm of mm6 m-3, which udunits makes cubic metres
    offset, one = unit.convert(0.0, target), unit.convert(1.0, target)
    return Meaning(kind, float(one - offset), float(offset)) if abs(one - offset) < _LARGEST else None


def to_rain_rate(
    units: str | None,
    *,
    standard_name: str | None = None,
    interval_seconds: float | None = None,
    zr_a: float = 200.0,
    zr_b: float = 1.6,
    variable: str = "the variable",
) -> Conversion:
    """The conversion of values in `units` to mm/h, or to 1 for a dimensionless quantity that is not rain.

    `interval_seconds` is what an accumulation is divided by. Z = zr_a R^zr_b; 200 and 1.6: Marshall & Palmer (1948).
    `variable` names the variable (and its file) in messages. Raises DataError for units that are missing, unknown or
    no measure of rain, and for an accumulation over an unknown interval.
    """
    if units is None and standard_name in REFLECTIVITY_NAMES:
        units = "dBZ"  # the one standard name whose unit nobody varies
    if units is None or not units.strip():
        raise DataError(f"{variable} has no units attribute.\nIts units must be {RIGHT_UNITS}.")
    found = meaning(units)
    if found is None or (found.kind == "dimensionless" and standard_name in RAIN_NAMES):
        raise DataError(f'{variable} has units "{units}", which is no measure of rain.\nRight would be {RIGHT_UNITS}.')
    if found.kind == "dimensionless":
        return Conversion(DIMENSIONLESS, f"{units} -> 1", found.scale, found.offset)
    if found.kind == "reflectivity":
        text = f"{units} -> mm/h (Z = {zr_a:g} R^{zr_b:g})"
        return Conversion(RAIN_RATE, text, found.scale, found.offset, (float(zr_a), float(zr_b)))
    if found.kind == "rate":
        return Conversion(RAIN_RATE, f"{units} -> mm/h", found.scale, found.offset)
    if interval_seconds is None or not interval_seconds > 0:
        raise DataError(
            f'{variable} is an accumulation ("{units}") over an unknown interval.\n'
            'Right would be time bounds, or cell_methods such as "time: sum (interval: 5 minutes)".'
        )
    per_hour = 3600.0 / interval_seconds
    text = f"{units} per {interval_seconds:g} s -> mm/h"
    return Conversion(RAIN_RATE, text, found.scale * per_hour, found.offset * per_hour)
