"""Read times as datetime64[s]: of frames, reference times, and the interval that an accumulation covers.

Times may be CF times, ISO 8601 text or numbers such as 202006010005, along a dimension or one scalar per file. Times that are
stored too coarsely to distinguish frames are refused, since windows need frames exactly one time step apart.
"""

import re
from datetime import UTC, datetime

import cf_units
import cftime
import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import text
from nowcast.netcdf.places.grid import MAX_COORDINATE
from nowcast.netcdf.rain.packing import stored_as
from nowcast.netcdf.rain.variable import Field

_CALENDARS = {"standard", "gregorian", "proleptic_gregorian"}
_MOST_OFF = 90  # s that a frame may be early or late
_FURTHEST = 1e10  # s from 1970, in the year 2286: NaT and fill values are further away


def time_variable(dataset, field: Field, standard_name: str = "time") -> str | None:
    """Return the name of the time (or reference time) variable of a field, scalar or over its frame dimensions; None without.

    Of several, those with units of the form "… since …" come first, then those of a dimension or in the `coordinates`
    attribute, then the one that is called like the standard name.
    """
    variable = dataset.variables[field.variable]
    listed = [*variable.dimensions, *(text(variable, "coordinates") or "").split()]
    fitting = [name for name in dataset.variables if _is_time(dataset.variables[name], standard_name, field.frame_dims)]

    def order(name: str) -> tuple:
        return not _counts(dataset.variables[name]), name not in listed, name != standard_name

    return min(fitting, key=order, default=None)


def _is_time(variable, standard_name: str, frame_dims: tuple[str, ...]) -> bool:
    declared = text(variable, "standard_name")
    plain = {standard_name, f"valid_{standard_name}"}
    names = plain | set(frame_dims if standard_name == "time" and (_counts(variable) or _is_text(variable)) else ())
    named = declared == standard_name if declared else variable.name in names
    dims = dict(zip(variable.dimensions, variable.shape, strict=True))
    if _is_text(variable) and variable.dtype == "S1" and dims:
        dims.popitem()  # the dimension of the characters of a text
    return named and {dim for dim, size in dims.items() if size != 1} <= set(frame_dims)


def _counts(variable) -> bool:
    return " since " in (text(variable, "units") or "")


def _is_text(variable) -> bool:
    return variable.dtype is str or variable.dtype == "S1"


def read_times(dataset, name: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """Read a time variable.

        dims: dimensions to keep, in this order; those that the variable lacks are left out, its others are 1 long
        returns: (…,) datetime64[s], an axis for each of `dims` that it has

    `where` names the file in messages. Raises DataError (exit 3) for missing times, unsupported calendars, and times stored too
    coarsely to distinguish frames.
    """
    variable, where = dataset.variables[name], f"{where}: {name}"
    if variable.size > MAX_COORDINATE:
        raise DataError(f"{where} declares {variable.size} times.\nExpected at most {MAX_COORDINATE}.")
    characters = variable.dimensions[-1:] if variable.dtype == "S1" else ()
    kept = [dim for dim in variable.dimensions if dim in dims]
    index = tuple(slice(None) if dim in (*dims, *characters) else 0 for dim in variable.dimensions)
    stored = np.asarray(variable[index])
    stored = netCDF4.chartostring(stored) if characters else stored
    stored = stored.transpose([kept.index(dim) for dim in dims if dim in kept])
    if _is_text(variable):
        return _parse_times(stored, where)
    fill = getattr(variable, "_FillValue", netCDF4.default_fillvals[variable.dtype.str[1:]])
    fills = stored_as(fill, variable.dtype, variable.dtype)
    if not np.isfinite(stored).all() or np.isin(stored, fills).any():
        raise DataError(f"{where} has missing times.\nExpected a time for every frame.")
    declared = text(variable, "units") or ""
    if not _counts(variable) and (stamped := _stamped_times(stored)) is not None:
        return stamped
    return decode_times(stored, declared, text(variable, "calendar") or "standard", where)


def _parse_times(stored: np.ndarray, where: str) -> np.ndarray:
    """Parse ISO 8601 text, UTC if it names no time zone, to datetime64[s]."""
    parsed = [_parse_time(str(entry).strip("\0 "), where) for entry in stored.ravel()]
    return np.array(parsed, "datetime64[s]").reshape(stored.shape)


def _parse_time(entry: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(entry)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        raise DataError(f'{where} has the text "{entry[:40]}".\nExpected times such as 2020-06-01T00:05:00Z.') from None


def _stamped_times(stored: np.ndarray) -> np.ndarray | None:
    """Return the times of numbers of the form yyyymmddhh, yyyymmddhhmm or yyyymmddhhmmss; None for other numbers."""
    exact = stored.dtype.itemsize == 8 and stored.size and (stored == np.round(stored)).all()
    for digits in (10, 12, 14) if exact else ():
        scale = 10 ** (digits - 4)
        years = stored.astype(np.int64) // scale
        if ((years >= 1900) & (years < 2200)).all():
            entries = (f"{number}" for number in stored.astype(np.int64).ravel())
            try:
                parsed = [datetime.strptime(entry, "%Y%m%d%H%M%S"[: digits - 2]) for entry in entries]
            except ValueError:
                return None
            return np.array(parsed, "datetime64[s]").reshape(stored.shape)
    return None


def decode_times(stored: np.ndarray, declared: str, calendar: str, where: str) -> np.ndarray:
    """Decode numbers (time,) in CF time units (such as "minutes since 2020-01-01") to datetime64[s], to the nearest second.

    Raises DataError (exit 3) for units and calendars that give no times, and for times stored too coarsely.
    """
    if calendar.lower() not in _CALENDARS:
        raise DataError(f'{where} is in the calendar "{calendar}".\nExpected "standard".')
    try:
        epoch, later = cftime.num2date([0, 1], declared, calendar, only_use_cftime_datetimes=True)
        # every unit that cftime accepts in these calendars has a fixed length
        unit = (later - epoch).total_seconds()
        seconds = stored * unit + cftime.date2num(epoch, "seconds since 1970-01-01", calendar)
    except (ValueError, OverflowError, TypeError) as error:
        raise DataError(
            f'{where} has units "{declared}" that give no times ({error}).\nExpected units such as "seconds since 1970-01-01".'
        ) from error
    resolution = np.spacing(np.abs(stored).max()) * unit if stored.dtype.kind == "f" else 0
    if resolution > 30:
        raise DataError(
            f'{where} is {stored.dtype} "{declared}", in steps of {resolution:.0f} s: frames cannot be told apart.\n'
            "Expected int32 or float64."
        )
    if stored.size and not np.abs(seconds).max() < _FURTHEST:
        largest = f'{np.abs(stored.astype(np.float64)).max():g} "{declared}"'
        raise DataError(f"{where} has {largest}, which is no time of a frame.\nExpected a time for every frame.")
    unit_seconds = 60 if resolution > 0.5 else 1  # times that storage has rounded are rounded back to the minute
    return (np.round(seconds / unit_seconds) * unit_seconds).astype(np.int64).astype("datetime64[s]")


def interval_seconds(dataset, field: Field, times: np.ndarray, where: str) -> float | None:
    """Return the seconds that each frame accumulates over: by time bounds, a start_time, or cell_methods; None if not stated.

        times: (time,) datetime64[s] of the frames

    In this order because, strictly, the interval of cell_methods is that between the numbers that were summed. Raises DataError
    (exit 3) if the frames of a file differ.
    """
    spans = _spans(dataset, field, times, where)
    if spans is not None:
        lengths = np.unique(spans.astype(np.int64))
        if len(lengths) > 1:
            raise DataError(
                f"{where}: {field.variable} accumulates over {lengths[0]} to {lengths[-1]} s.\n"
                "Expected one interval for all frames of a file."
            )
        return float(lengths[0])
    methods = text(dataset.variables[field.variable], "cell_methods") or ""
    interval = re.search(r"interval:\s*([\d.]+)\s*([A-Za-z]+)", methods)
    try:
        return float(cf_units.Unit(interval[2]).convert(float(interval[1]), "s")) if interval else None
    except ValueError:
        return None


def _spans(dataset, field: Field, times: np.ndarray, where: str) -> np.ndarray | None:
    """Return the timedelta64[s] of each frame, from the bounds of the time variable or from a `start_time`; None without."""
    variable = dataset.variables[time_variable(dataset, field)]
    bounds = dataset.variables.get(text(variable, "bounds") or "")
    if bounds is not None and bounds.shape[-1:] == (2,):
        calendar = text(variable, "calendar") or "standard"
        ends = decode_times(np.asarray(bounds[:]), text(variable, "units") or "", calendar, f"{where}: {bounds.name}")
        return ends[..., 1] - ends[..., 0]
    start = dataset.variables.get("start_time")
    if start is None or " since " not in (text(start, "units") or ""):
        return None
    return times - read_times(dataset, "start_time", field.frame_dims, where)


def nominal_times(times: np.ndarray) -> np.ndarray:
    """Move the times of frames to their nominal times: radars are some seconds early or late.

        times: (frame,) datetime64[s], sorted
        returns: (frame,) datetime64[s]

    Nominal times are equally spaced between gaps, on whole minutes unless most frames have equally spaced times already. Frames
    between two gaps are moved only if all are within a quarter of the time step, and 90 s, of their nominal times.
    """
    seconds = times.astype(np.int64)
    steps = np.diff(seconds)
    step = _nominal_step(steps[steps > 0])
    if step == 0:
        return times
    nominal = seconds.copy()
    for stretch in np.split(np.arange(len(seconds)), np.flatnonzero(steps > 1.5 * step) + 1):
        if (steps[stretch[:-1]] != step).any():
            offsets = _offsets(seconds[stretch], step)
            if np.abs(offsets).max() <= min(step / 4, _MOST_OFF):
                nominal[stretch] -= offsets
    return nominal.astype("datetime64[s]")


def _nominal_step(steps: np.ndarray) -> int:
    """Return the most frequent step, s, if half the steps have it; else one of whole minutes that most are near; else 0."""
    if len(steps) < 2:
        return 0
    values, counts = np.unique(steps, return_counts=True)
    if counts.max() * 2 >= len(steps):
        return int(values[counts.argmax()])
    step = round(float(steps[steps < 1.5 * np.median(steps)].mean()) / 60) * 60
    return step if (np.abs(steps - step) <= min(step / 2, 2 * _MOST_OFF)).mean() > 0.5 else 0


def _offsets(seconds: np.ndarray, step: int) -> np.ndarray:
    """Return the seconds that each time is late (early: negative) of the nearest nominal time."""
    phases, counts = np.unique(seconds % step, return_counts=True)
    phase = int(phases[counts.argmax()])
    if counts.max() * 2 < len(seconds):
        turns = np.exp(2j * np.pi * (seconds % step) / step).mean()
        phase = round(float(np.angle(turns)) / (2 * np.pi) * step / 60) * 60
    return (seconds - phase + step // 2) % step - step // 2
