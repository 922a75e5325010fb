"""Decode numbers in units such as "minutes since 2020-01-01" to datetime64[s]."""

import cftime
import numpy as np

from nowcast.errors import DataError

_CALENDARS = {"standard", "gregorian", "proleptic_gregorian"}
_FURTHEST = 1e10  # s from 1970, in the year 2286: NaT and fill values are further away


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
