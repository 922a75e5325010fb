"""Synthetic archives for `nowcast plan`: fingerprints, or a record of moving rain."""

import math

import numpy as np

from makers import rain, write_record
from nowcast.plan.fingerprint import RATES, Fingerprint, RecordSummary
from nowcast.quantity import RAIN_RATE

START = np.datetime64("2020-06-01T00:00:00")


MINUTES = np.timedelta64(60, "s")


def series(*runs, minutes=5, wet=0.1, name="a", start=START, gap_hours=6.0):
    """Return a record of series of frames without gaps, some hours apart."""
    times, at = [], start
    for frames in runs:
        times.append(at + np.arange(frames) * minutes * MINUTES)
        at = times[-1][-1] + minutes * MINUTES + np.timedelta64(round(gap_hours * 3600), "s")
    times = np.concatenate(times).astype("datetime64[s]")
    step = minutes * MINUTES if len(times) > 1 else np.timedelta64("NaT", "s")
    return RecordSummary(name, times, step, (40, 50), (1.0, 1.0), wet)


def made_up(
    parts, *, motion=4.0, heavy=0.01, missing=0.1, most_missing=0.1, top=60.0, quantity=RAIN_RATE,
    rainy_frames=0.5, num_rainy_days=1,
):  # fmt: skip
    """Return the fingerprint of rain with this motion: a tenth of the cells is wet, the fraction `heavy` has 8 mm/h."""
    counts = np.zeros(len(RATES) - 1)
    for rate, share in ((0.0, 0.9 - heavy), (0.3, 0.1), (8.0, heavy), (top, 1e-4)):
        counts[np.searchsorted(RATES, rate, side="right") - 1] += share * 1e6
    return Fingerprint(
        tuple(parts),
        quantity,
        50,
        missing,
        most_missing,
        counts,
        counts,
        top,
        0 if math.isnan(motion) else 8,
        motion / 2,
        motion,
        rainy_frames,
        num_rainy_days,
    )


def record(folder, *, name="rain.nc", step_minutes=5, times=None, **options):
    """Write a record of moving rain and return its path; `options` are those of `makers.rain`."""
    return write_record(
        folder / name, rain(**{"frames": 60, "shape": (64, 72)} | options), times=times, step_minutes=step_minutes
    )
