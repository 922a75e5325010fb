"""Facts of made-up archives: runs of frames with gaps between them."""

import numpy as np

from nowcast.plan.fingerprint import SeriesFacts

START = np.datetime64("2020-06-01T00:00:00")


MINUTES = np.timedelta64(60, "s")


def series(*runs, minutes=5, wet=0.1, name="a", start=START, gap_hours=6.0):
    """A record of runs of frames, some hours apart."""
    times, at = [], start
    for frames in runs:
        times.append(at + np.arange(frames) * minutes * MINUTES)
        at = times[-1][-1] + minutes * MINUTES + np.timedelta64(round(gap_hours * 3600), "s")
    times = np.concatenate(times).astype("datetime64[s]")
    step = minutes * MINUTES if len(times) > 1 else np.timedelta64("NaT", "s")
    return SeriesFacts(name, times, step, (40, 50), (1.0, 1.0), wet)
