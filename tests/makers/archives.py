"""Synthetic archives to plan a training for: their facts alone, or a record of moving rain."""

import numpy as np

from makers import rain, write_record
from nowcast.plan.fingerprint import RecordSummary

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
    return RecordSummary(name, times, step, (40, 50), (1.0, 1.0), wet)


def record(folder, *, name="rain.nc", step_minutes=5, times=None, **options):
    """Write a record of moving rain and return its path; `options` are those of `makers.rain`."""
    return write_record(
        folder / name, rain(**{"frames": 60, "shape": (64, 72)} | options), times=times, step_minutes=step_minutes
    )
