"""Read times in columns: year, month and day, optionally hour, minute and second, each in a variable of its own."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import is_numeric, text
from nowcast.netcdf.times.epochs import counts_since

_OWN = r"(?:time|date|datetime|obs|observation|scan|utc|valid)?"  # what may stand before the name of a column
_NAMES = {
    "year": r"year|yr|yyyy",
    "month": r"month|mon|monthofyear",
    "day": r"day|dayofmonth|dom|dd",
    "yearday": r"dayofyear|doy|yearday|julianday",
    "hour": r"hour|hours|hr|hh|hourofday",
    "minute": r"minute|minutes|min|minuteofhour",
    "second": r"second|seconds|sec|secondofminute",
}
_PARTS = {part: re.compile(f"{_OWN}(?:{names})(?:utc)?") for part, names in _NAMES.items()}
_RANGES = {"year": (1900, 2199), "month": (1, 12), "day": (1, 31), "yearday": (1, 366), "hour": (0, 24), "minute": (0, 60),
           "second": (0, 61)}  # fmt: skip
_SECONDS = {"hour": 3600, "minute": 60, "second": 1}


def part_of(variable) -> str | None:
    """Return the part of a date or time of day in a variable, by its name: year, month, …; None for other variables."""
    if not is_numeric(variable) or counts_since(text(variable, "units")):
        return None
    word = re.sub(r"[^a-z0-9]", "", variable.name.lower())
    return next((part for part, pattern in _PARTS.items() if pattern.fullmatch(word)), None)


def find_columns(dataset, dims: Iterable[str]) -> dict[str, str]:
    """Return the names of the variables of a date and a time of day over some of the dimensions `dims`, by part.

    The first is over all dimensions of the others. Empty if year, month or day (or day of the year) is missing.
    """
    columns: dict[str, str] = {}
    for name, variable in dataset.variables.items():
        if (part := part_of(variable)) and _long(variable) <= set(dims):
            columns.setdefault(part, name)
    if not ("year" in columns and ({"month", "day"} <= set(columns) or "yearday" in columns)):
        return {}
    longest = max(columns, key=lambda part: len(_long(dataset.variables[columns[part]])))
    covered = _long(dataset.variables[columns[longest]])
    if not all(_long(dataset.variables[name]) <= covered for name in columns.values()):
        return {}
    return {longest: columns[longest]} | columns


def _long(variable) -> set[str]:
    return {dim for dim, size in zip(variable.dimensions, variable.shape, strict=True) if size != 1}


def times_of(parts: Mapping[str, np.ndarray], names: Mapping[str, str], where: str) -> np.ndarray:
    """Return times datetime64[s] from numbers of years, months, …, each (…,); names: of the variables, for messages.

    Raises DataError (exit 3) for invalid dates, and if several frames have the same time.
    """
    for part, values in parts.items():
        low, high = _RANGES[part]
        if values.size and not (values.min() >= low and values.max() <= high):
            span = f"{values.min():g} to {values.max():g}"
            raise DataError(f"{where}: {names[part]} goes from {span}.\nExpected the {part} of a date: {low} to {high}.")
    years = parts["year"].astype(np.int64) - 1970
    if {"month", "day"} <= set(parts):
        months = (years * 12 + parts["month"].astype(np.int64) - 1).astype("datetime64[M]")
        dates = months + (parts["day"].astype(np.int64) - 1).astype("timedelta64[D]")
        if (dates.astype("datetime64[M]") != months).any():
            raise DataError(f"{where}: {names['day']} has days that the month does not have.\nExpected dates of the calendar.")
    else:
        dates = years.astype("datetime64[Y]") + (parts["yearday"].astype(np.int64) - 1).astype("timedelta64[D]")
    seconds = sum(parts[part] * size for part, size in _SECONDS.items() if part in parts)
    times = dates.astype("datetime64[s]") + np.round(seconds).astype("timedelta64[s]")
    if "hour" not in parts and len(np.unique(times)) < times.size:
        raise DataError(f"{where}: {', '.join(names.values())} give no time of day.\nExpected an hour too, or times as CF has.")
    return times
