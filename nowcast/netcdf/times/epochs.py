"""Decode numbers in units such as "minutes since 2020-01-01 00:00 -6:00" to datetime64[s].

Units, reference dates and zones are read by udunits, as CF says, and refused where udunits refuses them. CF 1.11, section 4.4.
"""

import re
from calendar import monthrange
from functools import lru_cache

import cf_units
import numpy as np

from nowcast.errors import DataError

_SINCE = re.compile(r"\s*(.+?)\s+since\s+(.+?)\s*", re.IGNORECASE)
# reference dates, before a clock and a zone: 2020-6-1, 2020-06, 20200601, 2020; udunits reads 2020-152 too, as 2 January
_DATES = (
    re.compile(r"(?P<year>[+-]?\d{1,6})-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2}))?(?P<clock>[ T].*|Z)?"),
    re.compile(r"(?P<year>\d{4})(?P<month>\d\d)?(?P<day>\d\d)?(?P<clock>[ T].*|Z)?"),
)
# a clock and a zone after a date: 0:05, 00:05:30.5 or 0005, then -6, -6:00 or -0600 up to 14 hours, or UTC
_TAIL = re.compile(
    r"(?:[ T]+(?:\d{1,2}(?::[0-5]?\d(?::\d{1,2}(?:\.\d*)?)?)?|\d\d[0-5]\d(?:\d\d(?:\.\d*)?)?)"
    r"(?:(?:\s+[+-]?|[+-])(?:1[0-4]|0?\d)(?::?[0-5]\d)?)?|[ T]*[+-]0{1,2}(?::?00)?)?\s*(?:Z|UTC|GMT)?",
    re.IGNORECASE,
)
_LESS_THAN_AN_HOUR = re.compile(r"-(?:0?0:|00?(?=\d\d(?!\d)))(?!00)\d")  # -0:30, of which udunits drops the sign
_SHORT = {"mins": "min", "hrs": "hour"}  # units that udunits does not know but others do
_SIGNS = str.maketrans("\u2212\u00a0\u202f", "-  ")  # a minus sign and two no-break spaces
_VARYING = ("month", "year")  # ambiguous: in udunits a year is 365.242 days and a month a twelfth of it
_FURTHEST = 1e10  # s from 1970, in the year 2286: NaT and fill values are further away
_EXACT = 0.5  # s: largest step of stored times that are read to the second
_ROUND = 60, 30, 10, 5  # s: times that storage has rounded more are rounded back to multiples of one of these
_CYCLE = 400, 146_097  # years and days after which the Gregorian calendar repeats
_GREGORIAN = 1583  # the first year that is Gregorian as a whole in the standard calendar
_ONLY_STANDARD = {"standard", "gregorian"}
# between these dates, of 1900-03-01 and 2100-03-01, the Julian calendar has the leap days of the standard one
_SAME_LEAP_DAYS = -2_203_891_200, 4_107_542_400


def counts_since(units: str | None) -> bool:
    """Return whether units are of the form "… since …"."""
    return bool(units and _SINCE.fullmatch(units))


@lru_cache(maxsize=256)
def seconds_per(unit: str | None) -> float | None:
    """Return the length of a unit of time, s; None if it is not a unit of time, or has no fixed length."""
    words = (unit or "").strip()
    try:
        length = float(cf_units.Unit(_SHORT.get(words.lower(), words)).convert(1.0, "s")) if words else None
    except ValueError:
        return None
    return None if any(word in words.lower() for word in _VARYING) else length


def decode_times(values: np.ndarray, declared: str, calendar: str, where: str, *, resolution: float = 0.0) -> np.ndarray:
    """Decode numbers in CF time units to datetime64[s], to the nearest second.

        values: any shape, in the units `declared`
        resolution: of the stored numbers, in the same units; 0 if they are exact

    Raises DataError (exit 3) for units and calendars that give no times, and for times stored too coarsely.
    """
    unit, epoch = _reference(declared, calendar.lower(), where)
    seconds = values * unit + epoch
    if values.size and not np.abs(seconds).max() < _FURTHEST:
        largest = f'{np.abs(values.astype(np.float64)).max():g} "{declared}"'
        raise DataError(f"{where} has {largest}, which is no time of a frame.\nExpected a time for every frame.")
    if (step := resolution * unit) > 30:
        raise DataError(
            f'{where}, in "{declared}", is stored in steps of {step:.0f} s: frames cannot be told apart.\n'
            "Expected int32 or float64."
        )
    if calendar.lower() == "julian":
        _check_julian(np.append(seconds.ravel(), epoch), where)
    return _rounded(seconds, step).astype(np.int64).astype("datetime64[s]")


def _rounded(seconds: np.ndarray, step: float) -> np.ndarray:
    """Round times, s from 1970, stored in steps of `step` s back to whole minutes, or to less where they are not near these.

    Radars also scan every 150, 30 or 20 seconds. Numbers computed in single precision are some steps off.
    """
    if step <= _EXACT:
        return np.round(seconds)
    for size in [each for each in _ROUND if each >= step]:
        off = np.abs(seconds - np.round(seconds / size) * size).max(initial=0)
        if off <= step / 2 or off < min(4 * step, size / 4):
            break
    return np.round(seconds / size) * size


def _check_julian(seconds: np.ndarray, where: str) -> None:
    first, last = _SAME_LEAP_DAYS
    if not (seconds.min() >= first and seconds.max() < last):
        raise DataError(
            f'{where} is in the calendar "julian", with dates outside of 1901 to 2099, where it has other leap days.\n'
            'Expected "standard".'
        )


def _reference(declared: str, calendar: str, where: str) -> tuple[float, float]:
    """Return the length of the unit, s, and the reference date in s from 1970, of units such as "minutes since 2020-01-01"."""
    if calendar not in {*_ONLY_STANDARD, "proleptic_gregorian", "julian"}:
        raise DataError(f'{where} is in the calendar "{calendar}".\nExpected "standard".')
    expected = 'Expected units such as "seconds since 1970-01-01 00:00:00 +2:00".'
    parts = _SINCE.fullmatch(declared.translate(_SIGNS))
    unit = seconds_per(parts[1]) if parts else None
    if unit is None:
        raise DataError(f'{where} has units "{declared}" that give no times.\n{expected}')
    epoch = _epoch(parts[2], calendar)
    if epoch is None:
        raise DataError(
            f'{where} has units "{declared}", with a date, clock or zone that CF and udunits do not have.\n{expected}'
        )
    return unit, epoch


@lru_cache(maxsize=256)
def _epoch(moment: str, calendar: str) -> float | None:
    """Return a reference date, with or without clock and zone, in s from 1970; None if it is not a date."""
    if moment.lower() == "epoch":
        return 0.0
    parts = next((found for pattern in _DATES if (found := pattern.fullmatch(moment))), None)
    if parts is None:
        return None
    # udunits reads "14-35" as a zone of 35 hours, "935" as 93:05 and "2020 06 01" as a clock and a zone in January
    clock = parts["clock"] or ""
    if not _TAIL.fullmatch(clock) or _LESS_THAN_AN_HOUR.search(clock) or (clock and not parts["day"]):
        return None
    year, month, day = (int(parts[name] or 1) for name in ("year", "month", "day"))
    # the standard calendar has no years before 1; in the proleptic one every date is read 400, 800, … years later
    cycles = max(-(-(_GREGORIAN - year) // _CYCLE[0]), 0) if calendar == "proleptic_gregorian" else 0
    if year < 1 and not cycles:
        return None
    year += cycles * _CYCLE[0]
    if not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    try:
        date = f"{year:04}-{month}-{day}{clock}"
        seconds = cf_units.Unit(f"s since {date}").convert(0.0, "s since 1970-01-01")
    except ValueError:
        return None
    return float(seconds) - cycles * _CYCLE[1] * 86400.0


def read_moment(moment: str) -> float | None:
    """Return a date with clock and zone, as text that udunits reads, in s from 1970; None for other text."""
    return _epoch(moment.translate(_SIGNS).strip(), "standard")
