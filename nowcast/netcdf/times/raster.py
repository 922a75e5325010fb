"""Move the times of frames, some seconds early or late, to a regular raster; find frames by times that are similarly inexact.

One tolerance holds for the times of records, forecasts and the command line: a quarter of the time step, and at most 90 s.
"""

import itertools
import math

import numpy as np

from nowcast.errors import DataError, counted

MOST_OFF = 90  # s that a frame may be early or late
_DRIFT = 1 / 20  # largest deviation of steps, relative to the time step, of a radar that drifts against the clock
_JOINED = 2.5, 1.5  # time steps: longest step within a stretch of one phase, of one absent frame or of none
_FINE = 30, 10  # s: multiples of these are preferred as time step to other numbers of seconds


def tolerance(step: np.timedelta64) -> np.timedelta64:
    """Return how far a time may be from that of a frame, timedelta64[s]; 0 for a record without a time step."""
    if np.isnat(step):
        return np.timedelta64(0, "s")
    return np.timedelta64(int(min(step / np.timedelta64(4, "s"), MOST_OFF)), "s")


def check_distinct(times: np.ndarray, where: str) -> None:
    """Raise DataError (exit 3) for times (frame,), or one, of which most repeat the one before: they were cut or rounded.

    Copies of frames are no reason: those that were joined to a file more than once go back in time.
    """
    steps = np.diff(times.ravel()).astype(np.int64)
    if (steps >= 0).all() and (num_equal := int((steps == 0).sum())) * 2 > times.size:
        num_times = counted(times.size - num_equal, "time")
        raise DataError(
            f"{where} has {times.size} frames at {num_times}: most have that of the frame before.\n"
            "Expected a time for every frame: perhaps these are whole hours or days."
        )


def nearest(times: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of sorted times.

    times, wanted: (time,) and (wanted,) datetime64[s]
    returns: (wanted,) positions into `times`, and (wanted,) timedelta64[s], how far it is
    """
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    before = (after - 1).clip(min=0)
    is_before = np.abs(times[before] - wanted) < np.abs(times[after] - wanted)
    position = np.where(is_before, before, after)
    return position, np.abs(times[position] - wanted)


def absent_between(times: np.ndarray, step: np.timedelta64, most: int) -> np.ndarray:
    """Return the times of absent frames in gaps of up to `most` frames; longer gaps stay gaps.

    times: (time,) sorted; returns: (absent,), sorted
    """
    if np.isnat(step):
        return times[:0]
    apart = np.diff(times)
    count = apart // step - 1
    holes = np.flatnonzero((count > 0) & (count <= most) & (apart % step == np.timedelta64(0, "s")))
    return np.concatenate([times[:0], *(times[hole] + np.arange(1, count[hole] + 1) * step for hole in holes)])


def nominal_times(times: np.ndarray) -> np.ndarray:
    """Move the times of frames to nominal times, because radars are some seconds early or late.

        times: (frame,) datetime64[s], sorted
        returns: (frame,) datetime64[s]

    Nominal times are equally spaced between gaps, on whole minutes unless frames have another step or equally spaced times
    already. A stretch of frames is moved only if all are within the tolerance of their nominal times. The frames of a radar
    that drifts, with steps that differ by some seconds, are moved in stretches as long as possible.
    """
    seconds = times.astype(np.int64)
    step = _nominal_step(seconds)
    if step == 0:
        return times
    nominal = np.concatenate([_moved(seconds[part], step, _JOINED) for part in _stretches(seconds, _JOINED[0] * step)])
    return nominal.astype("datetime64[s]")


def _moved(seconds: np.ndarray, step: int, joined: tuple[float, ...]) -> np.ndarray:
    """Return the nominal times, s, of a stretch: moved as a whole, or in parts, if they are near a regular raster.

    joined: longest step within a stretch, in time steps: for this one, and for the parts that it may be split into
    """
    steps, most = np.diff(seconds), min(step / 4, MOST_OFF)
    if (steps % step == 0).all():
        return seconds
    offsets = _offsets(seconds, step)
    if np.abs(offsets).max() <= most:
        return seconds - offsets
    if len(joined) > 1:
        parts = _stretches(seconds, joined[1] * step)
        return np.concatenate([_moved(seconds[part], step, joined[1:]) for part in parts])
    if (np.abs(steps - step) <= _DRIFT * step).all():
        return _drifting(seconds, np.arange(len(seconds)) * step, most)
    return seconds


def _drifting(seconds: np.ndarray, raster: np.ndarray, most: float) -> np.ndarray:
    """Return nominal times, s, of times that drift against a raster (time,): a new raster starts where they leave it."""
    late, out, first = seconds - raster, seconds.copy(), 0
    while first < len(seconds):
        widest = np.maximum.accumulate(late[first:]) - np.minimum.accumulate(late[first:])
        count = int(np.searchsorted(widest, 2 * most - 1, side="right"))  # `widest` never falls
        part = slice(first, first + count)
        out[part] = raster[part] + (int(late[part].max()) + int(late[part].min())) // 2
        first += count
    return out


def _stretches(seconds: np.ndarray, longest: float) -> list[slice]:
    """Return the stretches of times, s, between gaps, which are steps longer than `longest`."""
    breaks = np.flatnonzero(np.diff(seconds) > longest) + 1
    ends = [0, *breaks.tolist(), len(seconds)]
    return [slice(first, stop) for first, stop in itertools.pairwise(ends)]


def _nominal_step(seconds: np.ndarray) -> int:
    """Return the most frequent step, s, if half of the steps equal it; else one near most of them, or 0.

    It is the mean step instead if that is a multiple of 30 s on which all times fit, and the most frequent one is not: times
    that were rounded, such as to 0.01 hours, to days of four decimals or from 2.5 to whole minutes, have two steps by turns.
    """
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    if len(steps) < 2:
        return 0
    values, counts = np.unique(steps, return_counts=True)
    if counts.max() * 2 < len(steps):
        return _mean_step(steps)
    frequent = int(values[counts.argmax()])
    if (steps % frequent == 0).all():
        return frequent
    mean = _mean_step(steps)
    is_rounded = mean and not mean % _FINE[0] and (frequent % _FINE[0] or not _fits(seconds, frequent)) and _fits(seconds, mean)
    return mean if is_rounded else frequent


def _fits(seconds: np.ndarray, step: int) -> bool:
    """Return whether the times, s, of every stretch are within the tolerance of a raster."""
    offsets = (np.abs(_offsets(seconds[part], step)).max() for part in _stretches(seconds, _JOINED[0] * step))
    return max(offsets) <= min(step / 4, MOST_OFF)


def _mean_step(steps: np.ndarray) -> int:
    """Return a step, s, near most of these, or 0. It is rounded to whole minutes if the difference may be chance."""
    near = steps[steps <= 1.5 * np.median(steps)]
    mean, spread = float(near.mean()), float(near.std())
    step = round(mean / 60) * 60
    if not step or abs(mean - step) > 2.5 * spread / math.sqrt(len(near)) + 0.5:
        exact = 2 * spread / len(near) + 0.5  # what is left of the jitter of the first and the last time
        step = next(
            (round(mean / unit) * unit for unit in _FINE if abs(mean - round(mean / unit) * unit) <= exact), round(mean)
        )
    return step if step and (np.abs(steps - step) <= min(step / 2, 2 * MOST_OFF)).mean() > 0.5 else 0


def _offsets(seconds: np.ndarray, step: int) -> np.ndarray:
    """Return the seconds that each time is late (early: negative) of the nearest nominal time."""
    phases, counts = np.unique(seconds % step, return_counts=True)
    phase = int(phases[counts.argmax()])
    if counts.max() * 2 < len(seconds):
        turns, unit = np.exp(2j * np.pi * (seconds % step) / step).mean(), math.gcd(step, 60)
        phase = round(float(np.angle(turns)) / (2 * np.pi) * step / unit) * unit
    return (seconds - phase + step // 2) % step - step // 2
