"""Find the interval of an amount in attributes and names, such as `sum over 60 minutes`, `accutime` and `_1H`."""

import re
from typing import NamedTuple

import cf_units
import numpy as np

from nowcast.netcdf.attributes import attributes, is_numeric, text

_UNIT = r"(min(?:ute)?s?|h(?:ou)?rs?|h|days?|d|sec(?:ond)?s?|s)"
_NUMBER = r"(\d+(?:\.\d+)?)"
_LENGTH = re.compile(rf"(?<![\d.]){_NUMBER}[\s_-]*{_UNIT}(?![a-z])", re.IGNORECASE)
_IN_BRACKETS = re.compile(rf"[\[(]\s*{_UNIT}\s*[\])]\s*[:=]?\s*{_NUMBER}(?![\d.])", re.IGNORECASE)  # time [min]: 60
_ONE = re.compile(r"\b(?:past|last|previous|preceding|one|an|full)[\s-]+(minute|hour|day)\b", re.IGNORECASE)
_CLOCK = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?")
_ISO = re.compile(r"\bP(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?\b")
# attributes of the length of an accumulation; their ending gives the unit of a bare number
_ATTRIBUTES = re.compile(
    r"(?:acc(?:u(?:m\w*?)?)?|integration|aggregation|summation|interval)_?(?:time|period|interval|duration|length)?_?"
    r"(?:in_)?(?P<unit>hours?|minutes?|mins?|seconds?|sec|(?<=_)(?:h|s))?|time_interval|time_period|period|duration",
    re.IGNORECASE,
)
_WEAK = {"interval", "period", "duration"}  # attributes that may be about something else than the sum
# beginnings of such attributes that apply to a whole file; wradlib's is intervalseconds
_OF_FILE = re.compile(r"acc|integr|aggr|summ|interval_?(?:in_?)?(?:sec|min|hour)", re.IGNORECASE)
_LONGEST = 31 * 86400.0  # s: a longer interval is a fill value
_WORDS = (("hourly", 3600.0), ("daily", 86400.0))
# the update frequency of a product is not its accumulation interval
_FREQUENCY = re.compile(rf"\b(?:every|each|updated?(?: every)?|in steps of)\s+{_NUMBER}?\s*-?{_UNIT}\b", re.IGNORECASE)
_IN_NAME = re.compile(r"(?:^|_|(?<=[A-Za-z]))0*(\d{1,3})_?((?i:hours?|hrs?|h|minutes?|mins?)|M)(?=_|$)")
_WORD_IN_NAME = re.compile(r"(?:^|_)(hourly|daily)(?=_|$)", re.IGNORECASE)
_NUMBER_IN_NAME = re.compile(r"(?:sum|acc|accum|accumulat(?:ion|ed)|total|tot)_?0*([1-9]\d{0,3})$", re.IGNORECASE)
_MOST_MINUTES = 1440  # a day; larger numbers at the end of a name are years and others
_UNITS = (1.0, 60.0, 3600.0)  # s: units of a number that states none
# s: lengths over which rain is usually summed; 5 hours and 24 minutes are none
_USUAL = frozenset({60 * minutes for minutes in (1, 2, 2.5, 3, 4, 5, 6, 7.5, 10, 12, 15, 20, 30)})
_USUAL |= {3600 * hours for hours in (1, 2, 3, 4, 6, 8, 12, 18, 24, 48, 72)}
_SUM_WORDS = re.compile(r"accumulat|\btotals?\b|\bsums?\b|\bamounts?\b|\bdepth\b", re.IGNORECASE)
_OTHER_SPANS = re.compile(r"forecast|nowcast|lead|predict|file|archive|\bper\b|\bfrom\b|\bto\b|updat", re.IGNORECASE)
_NAME_UNITS = {"h": 3600.0, "m": 60.0}
_GRIB_UNITS = {0: 60.0, 1: 3600.0, 2: 86400.0, 10: 3 * 3600.0, 11: 6 * 3600.0, 12: 12 * 3600.0, 13: 1.0, 254: 1.0}
_GRIB_LETTERS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "s": 1.0}


class Statement(NamedTuple):
    """An interval, s, and where it is stated. With `is_spacing` it may be the spacing of the summed values instead.

    With `is_weak` the words may be about something else, such as the period that a file covers.
    """

    seconds: float
    where: str
    is_spacing: bool = False
    is_weak: bool = False


class Doubt(NamedTuple):
    """What may state an interval, but not clearly: its length, s, NaN if unknown, or a number without a unit, else 0.

    With `is_weak` the number may be about something else, and states nothing but that the time step is the interval.
    """

    where: str
    seconds: float = np.nan
    number: float = 0.0
    is_weak: bool = False


def statements(variable) -> list[Statement]:
    """Return the statements of a variable about its interval: cell_methods, attributes, texts, name; most reliable first."""
    declared = attributes(variable)
    texts = {name: value for name, value in declared.items() if isinstance(value, str)}
    weak = {name: value for name, value in declared.items() if name.lower() in _WEAK}
    strong = {name: value for name, value in declared.items() if name not in weak}
    found = [*_cell_methods(texts.get("cell_methods", "")), *_numbers(declared), *_lengths_declared(strong)]
    found.sort(key=lambda each: each.is_spacing)
    for name in ("long_name", "comment", "description", "GRIB_name"):
        found += [Statement(seconds, f'{name} "{texts[name][:40]}"') for seconds in lengths(texts.get(name, ""))]
    if match := _IN_NAME.search(variable.name):
        found.append(Statement(int(match[1]) * _NAME_UNITS[match[2][0].lower()], f"the name {variable.name}"))
    elif match := _WORD_IN_NAME.search(variable.name):
        found.append(Statement(dict(_WORDS)[match[1].lower()], f"the name {variable.name}"))
    found = found or [each._replace(is_spacing=True, is_weak=True) for each in _lengths_declared(weak)]
    return [statement for statement in found if statement.seconds > 0]


def statements_beside(dataset) -> list[Statement]:
    """Return the statements of scalar variables and attributes of the file, such as `accumulation_time` in minutes."""
    declared = {name: value for name, value in attributes(dataset).items() if _OF_FILE.match(name)}
    found = []
    for name, variable in dataset.variables.items():
        if variable.size == 1 and is_numeric(variable) and _OF_FILE.match(name) and (named := _ATTRIBUTES.fullmatch(name)):
            unit = re.fullmatch(_UNIT, text(variable, "units") or named["unit"] or "", re.IGNORECASE)
            value = float(np.ravel(variable[...])[0])
            found += [Statement(value * _seconds(unit[0]), f"the variable {name}")] if unit else []
    return [statement for statement in (*found, *_lengths_declared(declared)) if 0 < statement.seconds <= _LONGEST]


def bare_numbers(dataset, variable) -> list[tuple[float, str, bool]]:
    """Return numbers without a unit that may be the interval, such as `accumulation_period = 60` and `rain_sum60`.

    returns: number, 0 where even its meaning is doubtful; where it stands; and whether it may be about something else
    """
    declared = {name: value for name, value in attributes(dataset).items() if _OF_FILE.match(name)} | attributes(variable)
    found = []
    for name, value in declared.items():
        named = _ATTRIBUTES.fullmatch(name)
        number = re.fullmatch(rf"\s*{_NUMBER}\s*", value) if isinstance(value, str) else _is_number(value)
        if number and named and not named["unit"]:
            size = float(value) if isinstance(value, str) else float(np.ravel(value)[0])
            found += [(size, f"{name} = {size:g}", name.lower() in _WEAK)] if size > 0 else []
    if (match := _NUMBER_IN_NAME.search(variable.name)) and int(match[1]) <= _MOST_MINUTES:  # no year
        # rain_sum2 may be the second sum
        found.append((float(match[1]) if int(match[1]) >= 5 else 0.0, f"the name {variable.name}", False))
    return found


def fitting(number: float, step: float) -> list[float]:
    """Return the usual intervals, s, that a number without a unit can mean: not shorter than the time step, s (NaN: unknown).

    The time step itself comes before longer ones.
    """
    found = [number * unit for unit in _UNITS if number * unit in _USUAL and not number * unit < 0.98 * step]
    return [seconds for seconds in found if abs(seconds - step) <= 0.02 * step] or found


def titles(dataset) -> list[tuple[Statement, bool]]:
    """Return the lengths of time in title and summary of a file, and whether they are clearly those of a sum of rain."""
    found = []
    for name in ("title", "summary"):
        words = text(dataset, name) or ""
        is_sum = bool(_SUM_WORDS.search(words)) and not _OTHER_SPANS.search(_FREQUENCY.sub(" ", words))
        found += [(Statement(seconds, f'{name} "{words[:60]}"'), is_sum) for seconds in lengths(words)]
    return found


def lengths(text: str) -> list[float]:
    """Return the length of time in a text, s; an empty list if there is none, or several."""
    rest = _FREQUENCY.sub(" ", text)
    found = {float(number) * _seconds(unit) for number, unit in _LENGTH.findall(rest)}
    found |= {float(number) * _seconds(unit) for unit, number in _IN_BRACKETS.findall(rest)}
    found |= {_seconds(unit) for unit in _ONE.findall(rest)}
    found |= {_iso_seconds(match) for match in _ISO.finditer(rest) if any(match.groups())}
    found |= {seconds for word, seconds in _WORDS if re.search(rf"\b{word}\b", rest, re.IGNORECASE)}
    return list(found) if len(found) == 1 else []


def _seconds(unit: str) -> float:
    return float(cf_units.Unit({"hrs": "hr", "mins": "min", "secs": "sec"}.get(unit.lower(), unit.lower())).convert(1.0, "s"))


def _iso_seconds(match: re.Match) -> float:
    days, hours, minutes = (int(number or 0) for number in match.groups())
    return days * 86400.0 + hours * 3600.0 + minutes * 60.0


def _cell_methods(methods: str) -> list[Statement]:
    """Return the statements in `time: sum (interval: 1 hour)`, `time: sum over 60 minutes` or `time: sum (comment: …)`."""
    where = f'cell_methods "{methods[:60]}"'
    over = re.search(r"\bover\s+([^()]*)", methods)
    comment = re.search(r"comment:\s*([^()]*)", methods)
    interval = re.search(r"interval:\s*([^():]*?)(?=\s*(?:comment:|\)|$))", methods)
    found = [Statement(seconds, where) for part in (over, comment) if part for seconds in lengths(part[1])]
    if not found:
        rest = methods.replace(interval[0], "") if interval else methods
        found = [Statement(seconds, where) for seconds in lengths(rest)]  # sum within 1 hour; sum (previous hour)
    return found + [Statement(seconds, where, is_spacing=True) for seconds in (lengths(interval[1]) if interval else [])]


def _lengths_declared(declared: dict) -> list[Statement]:
    """Return the statements of attributes such as `accumulation_time = "60 min"`, `"01:00:00"` or `accumulation_hours = 1`."""
    found = []
    for name, value in declared.items():
        named = _ATTRIBUTES.fullmatch(name)
        if not named:
            continue
        is_text = isinstance(value, str)
        number = re.fullmatch(rf"\s*{_NUMBER}\s*", value) if is_text else None
        clock = _CLOCK.fullmatch(value.strip()) if is_text else None
        size = float(number[1]) if number else float(np.ravel(value)[0]) if _is_number(value) else None
        unit = named["unit"] or ("min" if name.lower() == "accutime" else None)  # pysteps' are minutes
        seconds = lengths(value) if is_text and not (number or clock) else []
        if clock:
            seconds = [3600.0 * int(clock[1]) + 60.0 * int(clock[2]) + int(clock[3] or 0)]
        elif size is not None and unit:
            seconds = [size * _seconds(unit)]
        where = f"{name} {value:g}" if _is_number(value) else f'{name} "{value[:40]}"'
        found += [Statement(each, where) for each in seconds]
    return found


def _is_number(value) -> bool:
    return np.ravel(value).size == 1 and np.ravel(value).dtype.kind in "iuf"


def _numbers(declared: dict) -> list[Statement]:
    """Return the statement in GRIB's step range."""
    found = []
    steps = re.fullmatch(r"(\d+)([mhds]?)-(\d+)([mhds]?)", str(declared.get("GRIB_stepRange", "")))
    if steps:
        units = np.ravel(declared.get("GRIB_stepUnits", 1))[0]
        first, last = (int(steps[n]) * (_GRIB_LETTERS.get(steps[n + 1]) or _GRIB_UNITS.get(units, 3600.0)) for n in (1, 3))
        found.append(Statement(last - first, f"GRIB_stepRange {steps[0]}"))
    return found
