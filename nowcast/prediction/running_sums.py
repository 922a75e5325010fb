"""Add up rain rates to the rain of the last minutes up to each frame, mm."""

from collections.abc import Sequence

import numpy as np

from nowcast.errors import UsageError
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.intervals import ROUNDED

_MINUTE = np.timedelta64(60, "s")


def covered(step: np.timedelta64, interval_seconds: float | None) -> np.timedelta64:
    """Return the time that a frame stands for in sums: the time step, or the interval of amounts and means that overlap.

    interval_seconds: of amounts and means, s; None of instants
    """
    if np.isnat(step) or (interval_seconds or 0) <= step / np.timedelta64(1, "s") * (1 + ROUNDED):
        return step
    return np.timedelta64(round(interval_seconds), "s")


def overlap(record: Record, step: np.timedelta64) -> str | None:
    """Return a warning if amounts or means of a record cover more than the time step of forecasts, whose sums are no sums."""
    if (each := covered(step, record.interval_seconds)) == step or np.isnat(step):
        return None
    held = f"holds {'amounts' if record.are_amounts else 'means'} over {each / _MINUTE:g} min, one every {step / _MINUTE:g} min"
    return f"{record.name} {held}: they overlap, so that sums of several frames are not the rain of their time"


def check_sums(minutes: Sequence[int], step: np.timedelta64, each: np.timedelta64, name: str) -> None:
    """Raise UsageError (exit 2) for minutes that are no multiple of `each`, the time that a frame stands for."""
    for length in minutes:
        if np.isnat(each) or (length * _MINUTE) % each:
            what = "the time step" if np.isnat(each) or each == step else "the interval of the frames"
            given = "unknown" if np.isnat(each) else f"{each / _MINUTE:g} minutes"
            raise UsageError(f"--sums {length}: {what} of {name} is {given}.\nExpected a multiple of it.")


def running_sums(
    rates: np.ndarray,
    times: np.ndarray,
    step: np.timedelta64,
    minutes: Sequence[int],
    each: np.timedelta64 | None = None,
) -> np.ndarray:
    """Return rain sums over the last minutes up to each time: rate times time step, summed; NaN if a frame is missing.

    Frames must be evenly spaced; if they are closer than `step`, all frames count. Of frames that overlap, because each has the
    mean rate of a time `each` longer than `step`, those that follow one another count.

    rates: (time, place) mm/h; times: (time,) ascending; returns: (time, sum, place) mm
    """
    out = np.full((len(times), len(minutes), rates.shape[1]), np.nan)
    if each is not None and each > step:
        return _sums_of_overlapping(rates, times, each, minutes, out)
    for n, length in enumerate(minutes):
        firsts = np.searchsorted(times, times - length * _MINUTE, side="right")  # of the frames within the minutes
        for last, first in enumerate(firsts):
            spacing = np.diff(times[first : last + 1]) if last > first else step
            if (spacing <= step).all() and (spacing * (last - first + 1) == length * _MINUTE).all():
                out[last, n] = rates[first : last + 1].mean(axis=0) * (length / 60)
    return out


def _sums_of_overlapping(
    rates: np.ndarray, times: np.ndarray, each: np.timedelta64, minutes: Sequence[int], out: np.ndarray
) -> np.ndarray:
    """Fill in sums (time, sum, place), mm, of frames that each cover a time longer than the step; other arguments as above."""
    for n, length in enumerate(minutes):
        number = int(length * _MINUTE / each)
        ends = times[:, None] - np.arange(number) * each
        found = np.searchsorted(times, ends).clip(max=len(times) - 1)
        complete = (times[found] == ends).all(axis=1) & (number * each == length * _MINUTE)
        out[complete, n] = rates[found[complete]].mean(axis=1) * (length / 60)
    return out
