"""Identify the time variables of a dataset, by standard name, then by name.

A forecast has valid times, reference times (its start) and lead times, of which two give the third. Reference times are never
taken for valid times. A variable called `time`, or a coordinate of another name, without a standard name holds valid times,
unless lead times or other valid times in the file show that it holds reference times.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nowcast.netcdf.attributes import is_numeric, text
from nowcast.netcdf.times.columns import find_columns
from nowcast.netcdf.times.epochs import counts_since, seconds_per

_STANDARD = {"time": "valid", "forecast_reference_time": "reference", "forecast_period": "period"}
# names in small letters, without what is neither letter nor digit
_VALID = {"validtime", "validitytime", "timevalid", "valid", "validdate", "forecastvalidtime", "verificationtime"}
_REFERENCE = re.compile(
    r"(forecast|model|nowcast)?(reference|ref|init\w*|base|analysis|issu\w+|run|cycle|origin)(forecast)?(date)?(time)?\d*"
)
_REFERENCE_WORDS = re.compile(r"\b(initial\w*|init|issue|model run|forecast reference) (date|time)\b")
_PERIODS = {"forecastperiod", "leadtime", "leadtimes", "lead", "forecastlead", "forecastleadtime", "forecasthour", "step"}
_PERIODS |= {"predictiontimedelta", "forecaststep", "timeoffset"}  # ARM: time_offset from base_time, in s or "s since"
_SINCE_START = {"step", "predictiontimedelta"}  # of cfgrib and WeatherBench, whose `time` is the start of the forecast
_OTHERS = ("time", "times", "xtime", "datetime", "timestamp", "date", "timeoffset")  # `Times` of WRF before its `XTIME`
_ENDS = re.compile(r"(start|stop|end|begin)\w*")  # start or end of an accumulation interval
_LAST = ("endtime", "timeend", "stoptime", "timestop")  # end of an interval: its time where nothing else is
_NOT_OF_FRAMES = re.compile(r"start|stop|end|begin|creat|process|produc|modif|updat|receiv|archiv")


@dataclass(frozen=True)
class TimeNames:
    """The names of the time variables of a field; None for those that it lacks.

    `is_guess`: whether `reference` was identified only because other variables hold the valid times.
    """

    valid: str | None = None
    reference: str | None = None
    period: str | None = None
    is_guess: bool = False


@dataclass(frozen=True)
class _Candidate:
    name: str
    role: str  # valid, reference, period, or other: valid or reference
    dims: frozenset[str]
    rank: tuple

    def covers(self, dims: Iterable[str]) -> bool:
        return set(dims) <= self.dims


def find_times(dataset, variable: str, dims: Iterable[str]) -> TimeNames:
    """Find the time variables of a variable; each is a scalar or over some of the dimensions `dims`."""
    dims = tuple(dims)
    listed = [*dims, *(text(dataset.variables[variable], "coordinates") or "").split()]
    candidates = [found for name in dataset.variables if (found := _candidate(dataset, name, dims, listed))]

    def best(role: str) -> _Candidate | None:
        fitting = [candidate for candidate in candidates if candidate.role == role]
        return min(fitting, key=lambda each: (not each.covers(dims), each.rank), default=None)

    valid, reference, period, other = (best(role) for role in ("valid", "reference", "period", "other"))
    is_known = valid or reference or (other and _is_moment(dataset.variables[other.name]))
    if not is_known and (columns := find_columns(dataset, dims)):
        return TimeNames(valid=next(iter(columns.values())))
    if not (valid or other or reference):
        other = _only_moment(dataset, dims) or _end(dataset, dims)
    is_guess = False
    if other and not (valid and valid.covers(dims)):
        is_start = period and (period.dims - other.dims or _word(period.name) in _SINCE_START)
        if not reference and (is_start or (valid and period)):
            reference = other
        elif not valid or other.covers(dims):
            valid = other
    elif other and not reference and _word(other.name) == "time":
        reference, is_guess = other, True
    return TimeNames(*(each.name if each else None for each in (valid, reference, period)), is_guess=is_guess)


def _only_moment(dataset, dims: tuple[str, ...]) -> _Candidate | None:
    """Return the only variable over the frames with units "… since …", whatever its name; None if there is none, or several."""
    moments = [
        name for name, variable in dataset.variables.items()
        if dims and variable.dimensions and set(variable.dimensions) <= set(dims) and is_numeric(variable)
        and counts(variable) and not _NOT_OF_FRAMES.search(_word(name))
    ]  # fmt: skip
    if len(moments) != 1:
        return None
    return _Candidate(moments[0], "other", frozenset(dataset.variables[moments[0]].dimensions), ())


def _end(dataset, dims: tuple[str, ...]) -> _Candidate | None:
    """Return the variable of the ends of intervals, in a file that has no other times; None without."""
    ends = [
        name for name, variable in dataset.variables.items()
        if _word(name) in _LAST and is_numeric(variable) and counts(variable) and set(variable.dimensions) <= set(dims)
    ]  # fmt: skip
    if len(ends) != 1:
        return None
    return _Candidate(ends[0], "other", frozenset(dataset.variables[ends[0]].dimensions), ())


def _candidate(dataset, name: str, dims: tuple[str, ...], listed: list[str]) -> _Candidate | None:
    variable = dataset.variables[name]
    long = dict(zip(variable.dimensions, variable.shape, strict=True))
    if is_text(variable) and variable.dtype == "S1" and long:
        long.popitem()  # the dimension of the characters of a text
    long = frozenset(dim for dim, size in long.items() if size != 1)
    role = _role(variable, name in listed) if long <= set(dims) else None
    if role is None:
        return None
    has_standard_name = text(variable, "standard_name") in _STANDARD
    word = _word(name)
    by_name = word not in _VALID, _OTHERS.index(word) if word in _OTHERS else len(_OTHERS), name not in listed
    return _Candidate(name, role, long, (not has_standard_name, not _is_moment(variable), *by_name))


def _role(variable, is_listed: bool) -> str | None:
    """Return the role of a time variable: valid, reference, period, or other (valid or reference); None if it is none."""
    standard_name, units = text(variable, "standard_name"), text(variable, "units")
    is_moment = _is_moment(variable)
    if not (is_text(variable) or is_numeric(variable)):
        return None
    if standard_name and standard_name != "unknown":
        role = _STANDARD.get(standard_name)
        return role if role != "period" or seconds_per(units) is not None else None
    word, long_name = _word(variable.name), (text(variable, "long_name") or "").lower()
    if word in _PERIODS and not (is_moment and word in _OTHERS):
        return "period" if seconds_per(units) is not None else None
    if _ENDS.fullmatch(word):
        return None
    if is_moment and (_REFERENCE.fullmatch(word) or _REFERENCE_WORDS.search(long_name)):
        return "reference"
    if word in _VALID:
        return "valid"
    return "other" if word == "time" or (is_moment and (is_listed or word in _OTHERS)) else None


def _is_moment(variable) -> bool:
    return counts(variable) or is_text(variable)


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def names_period(name: str) -> bool:
    """Return whether a variable of this name holds lead times."""
    return _word(name) in _PERIODS


def counts(variable) -> bool:
    """Return whether the units of a variable are of the form "… since …"."""
    return counts_since(text(variable, "units"))


def is_text(variable) -> bool:
    """Return whether a variable holds text."""
    return variable.dtype is str or variable.dtype == "S1"
