"""Which cases a forecaster is asked for: the reference times of a record, its time step, and the past frames.

A case is named by its forecast_reference_time, the time of the last frame used.
"""

import logging
from dataclasses import dataclass

import numpy as np

from nowcast.errors import DataError, NotEnoughFrames, UsageError
from nowcast.forecaster import Forecaster
from nowcast.netcdf import Record

log = logging.getLogger(__name__)
DEFAULT_LEADS = 12  # for a baseline, which has no number of its own


@dataclass(frozen=True)
class Selection:
    """Which forecasts to make: the listed ones, or those from `start` to `end` every so many minutes, or the newest."""

    listed: tuple[np.datetime64, ...] = ()
    start: np.datetime64 | None = None
    end: np.datetime64 | None = None
    every: float | None = None  # minutes

    def __post_init__(self):
        if self.listed and self.is_range:
            raise UsageError("give --reference-time, or --start, --end and --every, not both")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UsageError(f"--start {self.start} is after --end {self.end}")

    @property
    def is_range(self) -> bool:
        return any(value is not None for value in (self.start, self.end, self.every))

    def select(self, references: np.ndarray) -> np.ndarray:
        """Mask (reference,) of the sorted `references` that lie in the range and on its raster."""
        first = self.start if self.start is not None else (references[0] if len(references) else None)
        chosen = np.ones(len(references), bool)
        if self.start is not None:
            chosen &= references >= self.start
        if self.end is not None:
            chosen &= references <= self.end
        if self.every is not None and len(references):
            every = np.timedelta64(round(self.every * 60), "s")
            chosen &= (references - first) % every == np.timedelta64(0, "s")
        return chosen


def time_step(forecaster: Forecaster, record: Record) -> np.timedelta64:
    """The step to forecast `record` in; DataError where the record does not fit the forecaster."""
    if hasattr(forecaster, "time_step"):
        return forecaster.time_step(record)
    if np.isnat(record.time_step):
        raise DataError(f"{record.name} has a single frame: its time step, and so the lead times, are unknown")
    return record.time_step


def past_positions(record: Record, reference: np.datetime64, input_frames: int, step: np.timedelta64) -> np.ndarray:
    """Positions of the `input_frames` frames up to `reference`; NotEnoughFrames (exit 75) names those that are absent."""
    wanted = reference + np.arange(1 - input_frames, 1) * step
    found = np.searchsorted(record.times, wanted).clip(max=len(record.times) - 1)
    absent = wanted[record.times[found] != wanted]
    if len(absent):
        names = ", ".join(f"{time}Z" for time in absent[:4]) + (", …" if len(absent) > 4 else "")
        raise NotEnoughFrames(
            f"{record.name}: a forecast from {reference}Z needs {input_frames} frames {step} apart, but {len(absent)} "
            f"of them are not there: {names}"
        )
    return found


def read_past(record: Record, reference: np.datetime64, input_frames: int, step: np.timedelta64) -> np.ndarray:
    """(time, y, x) mm/h of the past of a forecast; NotEnoughFrames (exit 75) also where a frame is missing as a whole."""
    past = record.read(past_positions(record, reference, input_frames, step))
    empty = np.flatnonzero(np.isnan(past).all(axis=(1, 2)))
    if len(empty):
        times = reference + (empty + 1 - input_frames) * step
        raise NotEnoughFrames(f"{record.name}: no pixel is known in the frame of {', '.join(f'{t}Z' for t in times)}")
    return past


def references_of(record: Record, selection: Selection, input_frames: int, step: np.timedelta64) -> list[np.datetime64]:
    """The reference times asked for; of a range those whose past is complete, with a warning about the others."""
    if selection.listed:
        return sorted(selection.listed)
    if not selection.is_range:
        return [record.times[-1]]
    asked = record.times[selection.select(record.times)]
    complete = [t for t in asked if np.isin(t + np.arange(1 - input_frames, 1) * step, record.times).all()]
    if not complete:
        raise NotEnoughFrames(
            f"{record.name}: no reference time in the range has {input_frames} frames {step} apart; "
            f"the record goes from {record.times[0]}Z to {record.times[-1]}Z"
        )
    if len(complete) < len(asked):
        log.warning("%s: %d of %d reference times are left out, their past is not complete", record.name,
                    len(asked) - len(complete), len(asked))  # fmt: skip
    return complete


def num_leads(forecaster: Forecaster) -> int:
    """How many frames it forecasts unless asked otherwise."""
    return getattr(forecaster, "lead_frames", DEFAULT_LEADS)
