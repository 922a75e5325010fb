"""Read the values of a time variable as datetime64[s], and lead times as timedelta64[s].

Times may be CF times, ISO 8601 text, numbers such as 202006010005 or columns of years, months and days, along a dimension or
one scalar per file, packed or not. Times that are stored too coarsely to distinguish frames are refused, since windows need
frames exactly one time step apart.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, text
from nowcast.netcdf.places.coordinates import MAX_COORDINATE
from nowcast.netcdf.rain.packing import read_packing, stored_as
from nowcast.netcdf.times.columns import find_columns, part_of, times_of
from nowcast.netcdf.times.epochs import decode_times, read_moment, seconds_per
from nowcast.netcdf.times.iso import from_iso
from nowcast.netcdf.times.variables import TimeNames, counts, is_text
from nowcast.runtime.log_lines import warn_once

_DATE_NUMBERS = re.compile(r"days? as %Y%m%d\.%f", re.IGNORECASE)  # the absolute times of CDO: 20200601.25 is 6 o'clock
_DAY = 86400  # s
_OFFSET = re.compile(r"(:\d\d\S*|\s)\s*[+-]\d{1,2}(:?\d\d)?\s*$")  # from UTC, at the end of units
# words of another zone than UTC in a name or a long name; attributes that name the zone, and what means UTC there
_LOCAL = re.compile(r"\blocal\b|\b(CE[SD]?T|MES?Z|[ECMP][SD]T|JST|KST|AE[SD]T|LST)\b")
_ZONES = ("timezone", "time_zone", "tz")
_UTC = re.compile(r"(?=.*\b(UTC|GMT|Z|Zulu|Universal)\b|[+-]?0)[^1-9]*", re.IGNORECASE)
_DIGITS = re.compile(r"(\d{4}(?:\d\d){3,5})\s*(?:Z|UTC|GMT)?", re.IGNORECASE)  # yyyymmddhh, yyyymmddhhmm, yyyymmddhhmmss
_YEARS = 1900, 2200  # the first, and the one after the last, of frames: other years are misread numbers


def read_times(dataset, name: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """Read a time variable.

        dims: dimensions to keep, in this order; those that the variable lacks are left out, its others are 1 long
        returns: (…,) datetime64[s], an axis for each of `dims` that it has

    `where` names the file in messages. Raises DataError (exit 3) for missing times, unsupported calendars, and times stored too
    coarsely to distinguish frames.
    """
    file, variable, where = where, dataset.variables[name], f"{where}: {name}"
    if variable.size > MAX_COORDINATE:
        raise DataError(f"{where} declares {variable.size} times.\nExpected at most {MAX_COORDINATE}.")
    if part_of(variable) and (columns := find_columns(dataset, dims)):
        parts = {part: unpacked(dataset.variables[own], dims, f"{file}: {own}")[0] for part, own in columns.items()}
        return times_of(parts, columns, file)
    if is_text(variable):
        return _parse_times(_in_order(variable, _read_text(variable, dims), dims), where)
    stored, resolution = unpacked(variable, dims, where)
    declared = text(variable, "units") or ""
    _warn_of_zone(variable, declared, file)
    if not counts(variable):
        is_dated = _DATE_NUMBERS.fullmatch(declared)
        dated = _dated_times(stored, resolution) if is_dated else _stamped_times(stored, resolution)
        if dated is not None:
            return dated
    return decode_times(stored, declared, text(variable, "calendar") or "standard", where, resolution=resolution)


def _warn_of_zone(variable, declared: str, file: str) -> None:
    """Warn, once per folder, if numbers without an offset from UTC in their units are said to be in another zone."""
    words = variable.name.replace("_", " "), text(variable, "long_name") or ""
    said = next((name for name in words if _LOCAL.search(name.replace("Local", "local"))), None)
    zone = next((zone for name in _ZONES if (zone := text(variable, name)) and not _UTC.fullmatch(zone)), said)
    if zone and not _OFFSET.search(declared):
        hint = 'If they are not, state the offset in its units, as in "minutes since 2020-06-01 00:00 +2:00".'
        warn_once(Path(file), f'{variable.name} says "{zone[:40]}" and no offset from UTC: its times are read as UTC.\n{hint}')


def read_periods(dataset, name: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """Read a variable of lead times as timedelta64[s]; dimensions as `read_times`.

        returns: (…,) timedelta64[s], an axis for each of `dims` that it has

    Raises DataError (exit 3) for missing lead times.
    """
    variable = dataset.variables[name]
    stored, _ = unpacked(variable, dims, f"{where}: {name}", what="a lead time for every forecast")
    return np.round(stored * seconds_per(text(variable, "units"))).astype("timedelta64[s]")


def read_valid_times(dataset, names: TimeNames, dims: tuple[str, ...], where: str) -> np.ndarray | None:
    """Read valid times, or add lead times to reference times.

        dims: one dimension to keep, or none
        returns: (time,) or () datetime64[s]; None if they are not stated along that dimension

    Raises DataError (exit 3) as `read_times`.
    """
    if names.valid and covered(dataset, [names.valid], dims):
        return read_times(dataset, names.valid, dims, where)
    if not (names.reference and names.period and covered(dataset, [names.reference, names.period], dims)):
        return None
    return read_times(dataset, names.reference, dims, where) + read_periods(dataset, names.period, dims, where)


def covered(dataset, names: Iterable[str], dims: Iterable[str]) -> bool:
    """Return whether every one of these dimensions is a dimension of at least one of the variables."""
    return set(dims) <= {dim for name in names for dim in dataset.variables[name].dimensions}


def unpacked(variable, dims: tuple[str, ...], where: str, *, what="a time for every frame") -> tuple[np.ndarray, float]:
    """Read the numbers of a time variable, unpacked by scale_factor, add_offset and _Unsigned; dimensions as `read_times`.

        returns: (…,) numbers, int64 if they are stored as integers and not packed; and their resolution, 0 if exact

    Raises DataError (exit 3) for missing values; `what` completes the message "Expected …".
    """
    stored = variable[tuple(slice(None) if dim in dims else 0 for dim in variable.dimensions)]
    stored = _in_order(variable, np.asarray(stored), dims)
    declared = attributes(variable)
    fills = [declared[mark] for mark in ("_FillValue", "missing_value") if mark in declared]
    if "_FillValue" not in declared and variable.dtype.itemsize > 1:
        fills.append(netCDF4.default_fillvals[variable.dtype.str[1:]])
    if variable.dtype == np.int64:
        fills.append(np.iinfo(np.int64).min)  # NumPy's "not a time", which xarray stores as it is
    missing = [number for fill in fills for number in stored_as(fill, variable.dtype, variable.dtype)]
    if not np.isfinite(stored).all() or np.isin(stored, missing).any():
        things = "lead times" if "lead" in what else "times"
        raise DataError(f"{where} has missing {things}.\nExpected {what}.")
    packing = read_packing(variable, where)
    if packing.unsigned:
        stored = stored.view(stored.dtype.str.replace("i", "u"))
    coarse = np.spacing(np.abs(stored).max()) if stored.dtype.kind == "f" and stored.size else 0
    if stored.dtype.kind != "f" and packing.scale_factor == 1 and packing.add_offset == 0:
        return stored.astype(np.int64), 0.0
    values = stored.astype(np.float64) * packing.scale_factor + packing.add_offset
    return values, float(coarse) * abs(packing.scale_factor)


def _in_order(variable, stored: np.ndarray, dims: tuple[str, ...]) -> np.ndarray:
    """Return values over some dimensions of a variable in the order of `dims`."""
    kept = [dim for dim in variable.dimensions if dim in dims]
    return stored.transpose([kept.index(dim) for dim in dims if dim in kept])


def _read_text(variable, dims: tuple[str, ...]) -> np.ndarray:
    """Read text over some of its dimensions; for single characters the last dimension is that of the characters."""
    characters = variable.dimensions[-1:] if variable.dtype == "S1" else ()
    stored = np.asarray(variable[tuple(slice(None) if dim in (*dims, *characters) else 0 for dim in variable.dimensions)])
    return netCDF4.chartostring(stored) if characters else stored


def _parse_times(stored: np.ndarray, where: str) -> np.ndarray:
    """Parse ISO 8601 text, UTC if it names no time zone, to datetime64[s]."""
    parsed = [_parse_time(str(entry).strip("\0 "), where) for entry in stored.ravel()]
    return np.array(parsed, "datetime64[s]").reshape(stored.shape)


def _parse_time(entry: str, where: str) -> np.datetime64:
    time = _of_digits(entry) if entry[:9].isdigit() and len(entry) > 8 else _of_text(entry)
    if time is None or not _YEARS[0] <= time.astype("M8[Y]").astype(int) + 1970 < _YEARS[1]:
        raise DataError(f'{where} has the text "{entry[:40]}".\nExpected times such as 2020-06-01T00:05:00Z.')
    return time


def _of_text(entry: str) -> np.datetime64 | None:
    """Return the time of ISO 8601 text, or of what udunits reads, in UTC; None for other text."""
    entry = re.sub(r"^(\d{4})/(\d\d)/(\d\d)(?!\d)", r"\1-\2-\3", entry)
    if time := from_iso(entry):
        return np.datetime64(time + timedelta(seconds=0.5), "s")  # rounded, as numbers are: NumPy cuts off fractions
    seconds = read_moment(entry)  # with a zone such as -6:00, which ISO 8601 does not have but udunits has
    return None if seconds is None else np.datetime64(round(seconds), "s")


def _of_digits(entry: str) -> np.datetime64 | None:
    """Return the time of text such as 202006010005 or 202006010005Z; None for other text."""
    digits = _DIGITS.fullmatch(entry)
    try:
        return np.datetime64(datetime.strptime(digits[1], "%Y%m%d%H%M%S"[: len(digits[1]) - 2]), "s") if digits else None
    except ValueError:
        return None


def _dated_times(stored: np.ndarray, resolution: float) -> np.ndarray | None:
    """Return times from numbers yyyymmdd.f, where f is the fraction of the day; None for other or too coarse numbers."""
    dates = np.floor(stored)
    days = _parse_stamps(dates, "%Y%m%d")
    if days is None or resolution * _DAY > 1:
        return None
    return days + np.round((stored - dates) * _DAY).astype("timedelta64[s]")


def _stamped_times(stored: np.ndarray, resolution: float) -> np.ndarray | None:
    """Return the times of numbers of the form yyyymmddhh, yyyymmddhhmm or yyyymmddhhmmss; None for other numbers."""
    exact = stored.size and resolution < 0.5 and (stored == np.round(stored)).all()
    for digits in (10, 12, 14) if exact else ():
        years = stored.astype(np.int64) // 10 ** (digits - 4)
        if ((years >= 1900) & (years < 2200)).all():
            return _parse_stamps(stored, "%Y%m%d%H%M%S"[: digits - 2])
    return None


def _parse_stamps(stored: np.ndarray, form: str) -> np.ndarray | None:
    try:
        parsed = [datetime.strptime(f"{number}", form) for number in stored.astype(np.int64).ravel()]
    except ValueError:
        return None
    return np.array(parsed, "datetime64[s]").reshape(stored.shape)
