"""Anything that maps past frames to future frames is a Forecaster: a trained network or a baseline, by one call.

Both sides of the call are mm/h with NaN for missing; network values exist only inside `Network`.
"""

from typing import Protocol

import numpy as np

from nowcast.errors import NotEnoughFrames
from nowcast.forecasters.baselines import Baseline
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.motion import MOTION_FRAMES
from nowcast.netcdf.record import Record


class Forecaster(Protocol):
    """`forecast` maps the newest frames to `num_leads` future ones, both in mm/h with NaN for missing.

    One that gives probabilities has `thresholds`, mm/h, not empty, and `forecast_and_exceedance(past, num_leads, thresholds)`,
    which gives the forecast and (case, num_leads, threshold, y, x) float32 of 0 to 1: the probability of as much or more,
    NaN for missing.
    """

    name: str
    input_frames: int

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """(case, time, y, x), time >= input_frames with the newest last -> (case, num_leads, y, x), float32."""
        ...


DEFAULT_LEADS = 12  # for a baseline, which has no number of its own


def num_leads(forecaster: Forecaster | FileForecaster) -> int:
    """How many frames it forecasts unless asked otherwise."""
    return getattr(forecaster, "lead_frames", DEFAULT_LEADS)


def own_thresholds(forecaster: Forecaster | FileForecaster) -> tuple[float, ...]:
    """Those (mm/h) that it gives exceedance probabilities of unless asked otherwise; none where it gives no probabilities."""
    return tuple(getattr(forecaster, "thresholds", ()))


def on_record(forecaster: Forecaster, record: Record, step: np.timedelta64) -> Forecaster:
    """The forecaster as it is for these frames and cells, where that makes a difference to it."""
    fitted = getattr(forecaster, "on", None)
    return fitted(float(step / np.timedelta64(60, "s")), record.grid.spacing_km) if fitted else forecaster


def most_past_frames(forecaster: Forecaster | FileForecaster) -> int:
    """The most past frames that it makes use of, at least its `input_frames`."""
    follows_motion = isinstance(forecaster, Baseline) and forecaster.input_frames > 1
    return MOTION_FRAMES if follows_motion else forecaster.input_frames


def time_step(forecaster: Forecaster | FileForecaster, record: Record) -> np.timedelta64:
    """The step to forecast `record` in.

    Raises DataError (exit 3) where the record does not fit the forecaster, NotEnoughFrames (75) where it has no step.
    """
    if hasattr(forecaster, "time_step"):
        return forecaster.time_step(record)
    if np.isnat(record.time_step):
        raise NotEnoughFrames(f"{record.name} has a single frame: its time step, and so the lead times, are unknown")
    return record.time_step
