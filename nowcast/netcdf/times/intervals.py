"""Find the interval that an accumulation or a mean over time covers, s, and its ends."""

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, text
from nowcast.netcdf.rain.packing import read_packing
from nowcast.netcdf.rain.statements import Doubt, Statement, bare_numbers, fitting, statements, statements_beside, titles
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.epochs import decode_times
from nowcast.netcdf.times.values import read_times, unpacked
from nowcast.netcdf.times.variables import counts, find_times
from nowcast.runtime.log_lines import warn_once

_BOUNDS = ("time_bnds", "time_bounds")  # also where no attribute names them
STARTS = ("start_time", "time_start", "begin_time", "time_begin", "valid_from")
_ENDS = ("end_time", "time_end", "stop_time", "time_stop", "valid_to", "valid_until")
_OVER_TIME = re.compile(r"(time|period)\w*\s*:\s*(mean|sum|average)", re.IGNORECASE)  # in cell_methods
_TIME = re.compile(r"(time|period)\w*\s*:|:\s*point", re.IGNORECASE)  # in cell_methods, also of instants: "t: point"
ROUNDED = 0.02  # share by which two statements of one interval may differ: 3597 s are an hour


class Interval(NamedTuple):
    """The interval of an accumulation, s, where it is stated, and a statement that contradicts it, or "".

    `is_spacing`: whether it may be, strictly, the spacing of the summed values.
    """

    seconds: float
    source: str
    contradiction: str = ""
    is_spacing: bool = False


def stated_interval(dataset, field: Field, times: np.ndarray, where: str) -> Interval | None:
    """Return the accumulation interval of the frames: from time bounds, start_time, attributes, texts or the name; else None.

        times: (time,) datetime64[s] of the frames

    Attributes come last because, strictly, the interval in cell_methods is the spacing of the summed values. Raises DataError
    (exit 3) if the frames of a file have different intervals.
    """
    said = [*statements(dataset.variables[field.variable]), *statements_beside(dataset)]
    spans = _spans(dataset, field, times, where)
    if spans is not None:
        lengths = np.unique(spans.astype(np.int64))
        if len(lengths) > 1:
            raise DataError(
                f"{where}: {field.variable} accumulates over {lengths[0]} to {lengths[-1]} s.\n"
                "Expected one interval for all frames of a file."
            )
        if lengths[0] <= 0:
            raise DataError(
                f"{where}: {field.variable} is an amount, but its time bounds are 0 s long.\n"
                "Expected those of the interval that was summed."
            )
        said = [Statement(float(lengths[0]), "the time bounds"), *(each for each in said if not each.is_spacing)]
    said = said or _implied(dataset, field, times)[0]
    if not said:
        return None
    others = [each for each in said[1:] if abs(each.seconds - said[0].seconds) > ROUNDED * said[0].seconds]
    contradiction = f"{others[0].where} ({others[0].seconds:g} s)" if others else ""
    step = _step(times)
    if said[0].is_weak and abs(said[0].seconds - step) > ROUNDED * step:
        contradiction = f"the time step ({step:g} s)"
    return Interval(said[0].seconds, said[0].where, contradiction, said[0].is_spacing)


def doubtful_interval(dataset, field: Field, times: np.ndarray) -> Doubt | None:
    """Return what may state the interval of an amount that states none clearly; None without.

    times: (time,) datetime64[s] of the frames
    """
    return next(iter(_implied(dataset, field, times)[1]), None)


def _implied(dataset, field: Field, times: np.ndarray) -> tuple[list[Statement], list[Doubt]]:
    """Return the intervals that numbers without a unit, and title and summary, clearly state, and those that they may state."""
    step = _step(times)
    clear, unclear = [], []
    for number, where, is_weak in bare_numbers(dataset, dataset.variables[field.variable]):
        found = fitting(number, step)
        if len(found) == 1 and not is_weak:
            clear.append(Statement(found[0], where))
        else:
            unclear.append(Doubt(f"{where} has no unit", number=number, is_weak=is_weak))
    for statement, is_sum in titles(dataset):
        if is_sum:
            clear.append(statement)
        else:
            unclear.append(Doubt(statement.where, statement.seconds))
    return clear, unclear


def _step(times: np.ndarray) -> float:
    """Return the median step of times (time,) datetime64[s], s; NaN of a single one."""
    steps = np.diff(np.unique(times)).astype(np.float64)
    return float(np.median(steps)) if steps.size else np.nan


def covers_all_since(dataset, field: Field, leads: np.ndarray, times: np.ndarray, where: str) -> bool:
    """Return whether the intervals of a forecast grow with the lead time: totals since its start.

    leads, times: (…,) timedelta64[s] and datetime64[s], lead times and valid times
    """
    spans = _spans(dataset, field, times, where)
    if spans is None or spans.size != leads.size or len(np.unique(leads)) < 2:
        return False
    return bool((spans.ravel() == leads.ravel()).all())


def _spans(dataset, field: Field, times: np.ndarray, where: str) -> np.ndarray | None:
    """Return the interval timedelta64[s] of each frame, from bounds of the time variable or a `start_time`; None without.

    Without an `end_time` the intervals end at the times.
    """
    ends = time_bounds(dataset, field, times, where)
    if ends is not None:
        return np.abs(ends[..., 1] - ends[..., 0])
    start, end = _named_ends(dataset, times)
    if start is None:
        return None
    ends = read_times(dataset, end, field.frame_dims, where) if end else times
    return ends - read_times(dataset, start, field.frame_dims, where)


def at_ends(dataset, field: Field, times: np.ndarray, where: str, *, dims: tuple[str, ...]) -> tuple[np.ndarray, float | None]:
    """Return times that are the ends of the time bounds of sums and means, and the length of these intervals, s.

    Warns, once per folder, if the file has their starts or middles as times. Rates without cell_methods are taken as means
    where bounds start at their times. The length is None for instants, and for intervals that are not stated or differ.

    times: (…,) datetime64[s] over `dims`
    """
    methods = text(dataset.variables[field.variable], "cell_methods") or ""
    found, hint = None, ""
    if times.size and (field.kind == "amount" or _OVER_TIME.search(methods)):
        found = _starts_and_ends(dataset, field, times, where, dims)
    elif times.size and field.kind == "rate" and not _TIME.search(methods):
        found = _starts_and_ends_unsaid(dataset, field, times, where, dims)
        hint = '.\nIf they are instants, state that: cell_methods = "time: point"'
    if found is None:
        return times, None
    starts, ends = (np.broadcast_to(each, times.shape) for each in found)
    lengths = np.unique((ends - starts).astype(np.int64))
    seconds = float(lengths[0]) if len(lengths) == 1 and lengths[0] > 0 else None
    if not ((starts <= times) & (times < ends)).all():
        return times, seconds
    minutes = (ends - times).max() / np.timedelta64(60, "s")
    said = f"the times of {field.variable} are up to {minutes:g} min before the ends of its intervals (time bounds)"
    warn_once(Path(where), f"{said}; the ends are taken as valid times{hint}")
    return ends.copy(), seconds


def _starts_and_ends(
    dataset, field: Field, times: np.ndarray, where: str, dims: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the starts and ends datetime64[s] of the intervals, 1 long where they lack a dimension; None if not stated."""
    bounds = time_bounds(dataset, field, times, where, dims=dims)
    if bounds is not None:
        return bounds.min(axis=-1), bounds.max(axis=-1)
    start, end = _named_ends(dataset, times)
    return tuple(read_times(dataset, name, dims, where) for name in (start, end)) if start and end else None


def _starts_and_ends_unsaid(
    dataset, field: Field, times: np.ndarray, where: str, dims: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the ends of the time bounds of rates without cell_methods if these bounds start at the times; else None.

    By CF such rates are instants, but an instant does not last until a later time: these are means, as those of IMERG. Bounds
    around the times are often computed from these, so the times stay, with a warning.
    """
    bounds = None
    with contextlib.suppress(DataError):  # instants do not need them
        bounds = time_bounds(dataset, field, times, where, dims=dims)
    if bounds is None:
        return None
    starts, ends = bounds.min(axis=-1), bounds.max(axis=-1)
    if ((starts == times) & (times < ends)).all():
        return starts, ends
    if ((starts < times) & (times < ends)).all():
        said = "states no cell_methods; the times in the middle of its time bounds are taken as those of instants"
        hint = 'If it is a mean over them, state that: cell_methods = "time: mean"'
        warn_once(Path(where), f"{field.variable} {said}.\n{hint}")
    return None


def _named_ends(dataset, times: np.ndarray) -> tuple[str | None, str | None]:
    """Return the names of the variables that hold the starts and the ends of intervals; None for those that are not there.

    One start and one end for several times are the period that the file covers, and no interval.
    """
    variables = dataset.variables
    start, end = (
        next((name for name in names if name in variables and counts(variables[name])), None) for names in (STARTS, _ENDS)
    )
    if start and end and times.size > 1 and variables[start].size == variables[end].size == 1:
        return None, None
    return start, end


def time_bounds(
    dataset, field: Field, times: np.ndarray, where: str, *, dims: tuple[str, ...] | None = None
) -> np.ndarray | None:
    """Return the bounds of the time variable, (…, 2) datetime64[s]; None without.

    times: (time,) datetime64[s] of the frames
    dims: dimensions that the result has in this order, 1 long where the bounds lack them; default: those of the bounds
    """
    variable = dataset.variables.get(find_times(dataset, field.variable, field.frame_dims).valid)
    names = [text(variable, "bounds") or "", text(variable, "climatology") or "", *_BOUNDS]
    bounds = next((dataset.variables[name] for name in names if name in dataset.variables), None)
    if bounds is None or not (bounds.shape[-1:] == (2,) or _ends_first(bounds, variable)):
        return None
    read = _read_bounds(bounds, variable, times, f"{where}: {bounds.name}")
    if dims is None:
        return read
    own = [dim for dim in bounds.dimensions if dim in dims]
    sizes = {dim: len(dataset.dimensions[dim]) for dim in own}
    ordered = [own.index(dim) for dim in dims if dim in own]
    read = read.reshape(*sizes.values(), 2).transpose(*ordered, len(own))
    return read.reshape(*(sizes.get(dim, 1) for dim in dims), 2)


def _ends_first(bounds, variable) -> bool:
    """Return whether bounds are (2, …), as some write them, in place of (…, 2)."""
    return bounds.ndim > 1 and bounds.shape[0] == 2 and bounds.dimensions[1:] == variable.dimensions


def _read_bounds(bounds, variable, times: np.ndarray, where: str) -> np.ndarray:
    """Read time bounds (…, 2) as datetime64[s]: in their own units and packing, else in those of the time variable.

    Bounds of a packed variable without packing attributes may be packed or not: the reading that ends near the times is taken.
    """
    declared = text(bounds, "units") or text(variable, "units") or ""
    calendar = text(bounds, "calendar") or text(variable, "calendar") or "standard"
    packing = read_packing(variable, where)
    stored, resolution = unpacked(bounds, bounds.dimensions, where)
    if _ends_first(bounds, variable):
        stored = np.moveaxis(stored, 0, -1)
    readings = [stored]
    if not {"scale_factor", "add_offset"} & set(attributes(bounds)):
        readings.append(stored * packing.scale_factor + packing.add_offset)
    decoded = [decode_times(reading, declared, calendar, where, resolution=resolution) for reading in readings]
    return min(decoded, key=lambda ends: abs(ends.max() - times.max())) if times.size else decoded[0]
