"""CF times -> datetime64[s]: of frames, of reference times, and the interval that an accumulation covers.

A series may hold its times on a dimension or one scalar time per file. Times that are stored too coarsely to tell
frames apart are refused, since a window needs frames exactly one time step apart.
"""

import re

import cf_units
import cftime
import netCDF4
import numpy as np

from nowcast.errors import DataError
from nowcast.fields import Field, stored_as, text
from nowcast.grid import MAX_COORDINATE

_CALENDARS = {"standard", "gregorian", "proleptic_gregorian"}


def time_variable(dataset, found: Field, standard_name: str = "time") -> str | None:
    """The variable of times (or reference times) over the field's frame dimensions, or scalar; None if there is none.

    Where several would do: the one of a dimension or of the `coordinates` attribute, then the one with the plain name.
    """
    variable = dataset.variables[found.variable]
    listed = [*variable.dimensions, *(text(variable, "coordinates") or "").split()]
    fitting = [name for name in dataset.variables if _is_time(dataset.variables[name], standard_name, found.frame_dims)]
    return min(fitting, key=lambda name: (name not in listed, name != standard_name), default=None)


def _is_time(variable, standard_name: str, frame_dims: tuple[str, ...]) -> bool:
    declared = text(variable, "standard_name")
    names = {standard_name, f"valid_{standard_name}", *(frame_dims if standard_name == "time" else ())}
    named = declared == standard_name if declared else variable.name in names
    long = {dim for dim, size in zip(variable.dimensions, variable.shape, strict=True) if size != 1}
    return named and " since " in (text(variable, "units") or "") and long <= set(frame_dims)


def read_times(dataset, name: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """datetime64[s] of a CF time variable, with an axis for each of `dims` that it has (the others are 1 long).

    Raises DataError for missing times, impossible calendars, and times stored too coarsely to tell frames apart.
    """
    variable = dataset.variables[name]
    if variable.size > MAX_COORDINATE:
        raise DataError(f"{where}: {name} declares {variable.size} times.\nRight would be at most {MAX_COORDINATE}.")
    kept = [dim for dim in variable.dimensions if dim in dims]
    index = tuple(slice(None) if dim in dims else 0 for dim in variable.dimensions)
    stored = np.asarray(variable[index]).transpose([kept.index(dim) for dim in dims if dim in kept])
    fill = getattr(variable, "_FillValue", netCDF4.default_fillvals[variable.dtype.str[1:]])
    fills = stored_as(fill, variable.dtype, variable.dtype)
    if not np.isfinite(stored).all() or np.isin(stored, fills).any():
        raise DataError(f"{where}: {name} has missing times.\nRight would be a time for every frame.")
    calendar = text(variable, "calendar") or "standard"
    return decode_times(stored, text(variable, "units") or "", calendar, f"{where}: {name}")


def decode_times(stored: np.ndarray, declared: str, calendar: str, where: str) -> np.ndarray:
    """Numbers in CF time units ("minutes since 2020-01-01") -> datetime64[s], to the nearest second."""
    if calendar.lower() not in _CALENDARS:
        raise DataError(f'{where} is in the calendar "{calendar}".\nRight would be "standard".')
    try:
        epoch, later = cftime.num2date([0, 1], declared, calendar, only_use_cftime_datetimes=True)
        # Every unit that cftime takes in these calendars has a fixed length.
        unit = (later - epoch).total_seconds()
        seconds = stored * unit + cftime.date2num(epoch, "seconds since 1970-01-01", calendar)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f'{where} has units "{declared}" that give no times ({error}).\nRight would be such as "seconds since 1970-01-01".'
        ) from error
    resolution = np.spacing(np.abs(stored).max()) * unit if stored.dtype.kind == "f" else 0
    if resolution > 30:
        raise DataError(
            f'{where} is {stored.dtype} "{declared}", in steps of {resolution:.0f} s: frames cannot be told apart.\n'
            "Right would be int32 or float64."
        )
    grain = 60 if resolution > 0.5 else 1  # what storage rounded goes back to the minute
    return (np.round(seconds / grain) * grain).astype(np.int64).astype("datetime64[s]")


def interval_seconds(dataset, found: Field, times: np.ndarray, where: str) -> float | None:
    """Over how many seconds each frame accumulates: by time bounds, a start_time, or cell_methods; None if none tells.

    In this order, since the interval of cell_methods is, strictly, the one between the numbers that were summed.
    `times` are the frames' own.
    """
    spans = _spans(dataset, found, times, where)
    if spans is not None:
        lengths = np.unique(spans.astype(np.int64))
        if len(lengths) > 1:
            raise DataError(
                f"{where}: {found.variable} accumulates over {lengths[0]} to {lengths[-1]} s.\n"
                "Right would be one interval for all frames of a file."
            )
        return float(lengths[0])
    methods = text(dataset.variables[found.variable], "cell_methods") or ""
    given = re.search(r"interval:\s*([\d.]+)\s*([A-Za-z]+)", methods)
    try:
        return float(cf_units.Unit(given[2]).convert(float(given[1]), "s")) if given else None
    except ValueError:
        return None


def _spans(dataset, found: Field, times: np.ndarray, where: str) -> np.ndarray | None:
    """timedelta64[s] per frame from the time variable's bounds or from a `start_time`."""
    variable = dataset.variables[time_variable(dataset, found)]
    bounds = dataset.variables.get(text(variable, "bounds") or "")
    if bounds is not None and bounds.shape[-1:] == (2,):
        calendar = text(variable, "calendar") or "standard"
        ends = decode_times(np.asarray(bounds[:]), text(variable, "units") or "", calendar, f"{where}: {bounds.name}")
        return ends[..., 1] - ends[..., 0]
    start = dataset.variables.get("start_time")
    if start is None or " since " not in (text(start, "units") or ""):
        return None
    return times - read_times(dataset, "start_time", found.frame_dims, where)
