"""Find what attributes and names say of the interval of an amount, such as `sum over 60 minutes`, `accutime` and `_1H`."""

import re
from typing import NamedTuple

import cf_units
import numpy as np

from nowcast.netcdf.attributes import attributes

_UNIT = r"(min(?:ute)?s?|h(?:ou)?rs?|h|days?|d|sec(?:ond)?s?|s)"
_NUMBER = r"(\d+(?:\.\d+)?)"
_LENGTH = re.compile(rf"(?<![\d.]){_NUMBER}[\s_-]*{_UNIT}(?![a-z])", re.IGNORECASE)
_ISO = re.compile(r"\bP(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?\b")
_WORDS = (("hourly", 3600.0), ("daily", 86400.0))
# how often a product is made is not what it is summed over
_FREQUENCY = re.compile(rf"\b(?:every|each|updated?(?: every)?|in steps of)\s+{_NUMBER}?\s*-?{_UNIT}\b", re.IGNORECASE)
_IN_NAME = re.compile(r"(?:_|(?<=[A-Za-z]))0*(\d{1,3})_?((?i:hours?|hr|h|min)|M)(?=_|$)")
_NAME_UNITS = {"h": 3600.0, "m": 60.0}
_GRIB_UNITS = {0: 60.0, 1: 3600.0, 2: 86400.0, 10: 3 * 3600.0, 11: 6 * 3600.0, 12: 12 * 3600.0, 13: 1.0, 254: 1.0}
_GRIB_LETTERS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "s": 1.0}


class Statement(NamedTuple):
    """An interval, s, and where it stands. One of `is_spacing` may be that between the numbers that were summed."""

    seconds: float
    where: str
    is_spacing: bool = False


def statements(variable) -> list[Statement]:
    """Return all that a variable says of its interval: in cell_methods, attributes, texts and its name, the surest first."""
    declared = attributes(variable)
    texts = {name: value for name, value in declared.items() if isinstance(value, str)}
    found = sorted([*_cell_methods(texts.get("cell_methods", "")), *_numbers(declared)], key=lambda each: each.is_spacing)
    for name in ("long_name", "comment", "description", "GRIB_name"):
        found += [Statement(seconds, f'{name} "{texts[name][:40]}"') for seconds in lengths(texts.get(name, ""))]
    if match := _IN_NAME.search(variable.name):
        found.append(Statement(int(match[1]) * _NAME_UNITS[match[2][0].lower()], f"the name {variable.name}"))
    return [statement for statement in found if statement.seconds > 0]


def lengths(text: str) -> list[float]:
    """Return the length of time that a text names, s; an empty list if it names none, or several."""
    rest = _FREQUENCY.sub(" ", text)
    found = {float(number) * _seconds(unit) for number, unit in _LENGTH.findall(rest)}
    found |= {_iso_seconds(match) for match in _ISO.finditer(rest) if any(match.groups())}
    found |= {seconds for word, seconds in _WORDS if re.search(rf"\b{word}\b", rest, re.IGNORECASE)}
    return list(found) if len(found) == 1 else []


def _seconds(unit: str) -> float:
    return float(cf_units.Unit({"hrs": "hr", "mins": "min", "secs": "sec"}.get(unit.lower(), unit.lower())).convert(1.0, "s"))


def _iso_seconds(match: re.Match) -> float:
    days, hours, minutes = (int(number or 0) for number in match.groups())
    return days * 86400.0 + hours * 3600.0 + minutes * 60.0


def _cell_methods(methods: str) -> list[Statement]:
    """Return what `time: sum (interval: 1 hour)`, `time: sum over 60 minutes` or `time: sum (comment: …)` say."""
    where = f'cell_methods "{methods[:60]}"'
    over = re.search(r"\bover\s+([^()]*)", methods)
    comment = re.search(r"comment:\s*([^()]*)", methods)
    interval = re.search(r"interval:\s*([^():]*?)(?=\s*(?:comment:|\)|$))", methods)
    found = [Statement(seconds, where) for part in (over, comment) if part for seconds in lengths(part[1])]
    return found + [Statement(seconds, where, is_spacing=True) for seconds in (lengths(interval[1]) if interval else [])]


def _numbers(declared: dict) -> list[Statement]:
    """Return what pysteps' accutime (minutes) and GRIB's range of steps say."""
    found = []
    accutime = np.ravel(declared.get("accutime", []))
    if accutime.size == 1 and accutime.dtype.kind in "iuf":
        found.append(Statement(60 * float(accutime[0]), f"accutime {accutime[0]:g}"))
    steps = re.fullmatch(r"(\d+)([mhds]?)-(\d+)([mhds]?)", str(declared.get("GRIB_stepRange", "")))
    if steps:
        units = np.ravel(declared.get("GRIB_stepUnits", 1))[0]
        first, last = (int(steps[n]) * (_GRIB_LETTERS.get(steps[n + 1]) or _GRIB_UNITS.get(units, 3600.0)) for n in (1, 3))
        found.append(Statement(last - first, f"GRIB_stepRange {steps[0]}"))
    return found
