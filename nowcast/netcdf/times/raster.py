"""Move the times of frames, some seconds early or late, to an even raster."""

import numpy as np

MOST_OFF = 90  # s that a frame may be early or late


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
            if np.abs(offsets).max() <= min(step / 4, MOST_OFF):
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
    return step if (np.abs(steps - step) <= min(step / 2, 2 * MOST_OFF)).mean() > 0.5 else 0


def _offsets(seconds: np.ndarray, step: int) -> np.ndarray:
    """Return the seconds that each time is late (early: negative) of the nearest nominal time."""
    phases, counts = np.unique(seconds % step, return_counts=True)
    phase = int(phases[counts.argmax()])
    if counts.max() * 2 < len(seconds):
        turns = np.exp(2j * np.pi * (seconds % step) / step).mean()
        phase = round(float(np.angle(turns)) / (2 * np.pi) * step / 60) * 60
    return (seconds - phase + step // 2) % step - step // 2
