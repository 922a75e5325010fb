"""Read the values of a time variable as datetime64[s].

Times may be CF times, ISO 8601 text or numbers such as 202006010005, along a dimension or one scalar per file. Times that are
stored too coarsely to distinguish frames are refused, since windows need frames exactly one time step apart.
"""

from datetime import UTC, datetime

import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import text
from nowcast.netcdf.places.grid import MAX_COORDINATE
from nowcast.netcdf.rain.packing import stored_as
from nowcast.netcdf.times.epochs import decode_times
from nowcast.netcdf.times.variables import counts, is_text


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
    if is_text(variable):
        return _parse_times(stored, where)
    fill = getattr(variable, "_FillValue", netCDF4.default_fillvals[variable.dtype.str[1:]])
    fills = stored_as(fill, variable.dtype, variable.dtype)
    if not np.isfinite(stored).all() or np.isin(stored, fills).any():
        raise DataError(f"{where} has missing times.\nExpected a time for every frame.")
    declared = text(variable, "units") or ""
    if not counts(variable) and (stamped := _stamped_times(stored)) is not None:
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
