"""Which cases a forecaster is asked for: the reference times of a record, its time step, and the past frames.

A case is named by its forecast_reference_time, the time of the last frame used. A network takes exactly the past frames
it was trained on; a baseline takes as many as are complete, up to the most that it uses.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.dataset.windows import find_references
from nowcast.errors import NotEnoughFrames, UsageError
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.record import Record

log = logging.getLogger(__name__)
NAMED_TIMES = 4  # in a message


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
        if self.every is not None and not (math.isfinite(self.every) and self.every * 60 >= 1):
            raise UsageError(f"--every {self.every:g}: write minutes between reference times, such as 30")

    @property
    def is_range(self) -> bool:
        return any(value is not None for value in (self.start, self.end, self.every))

    def select(self, times: np.ndarray) -> np.ndarray:
        """Mask of the sorted `times` that lie in the range and on its raster, which begins at the first of them."""
        chosen = np.ones(len(times), bool)
        if self.start is not None:
            chosen &= times >= self.start
        if self.end is not None:
            chosen &= times <= self.end
        if self.every is not None and chosen.any():
            every = np.timedelta64(round(self.every * 60), "s")
            chosen &= (times - times[chosen][0]) % every == np.timedelta64(0, "s")
        return chosen


def references_of(record: Record, selection: Selection, input_frames: int, step: np.timedelta64) -> list[np.datetime64]:
    """The reference times asked of this record: the newest frame, the listed ones it has, or of a range the complete.

    Of a range those are left out, with a warning, whose past has a gap or a frame that is missing as a whole; there may
    be none.
    """
    if selection.listed:
        return sorted(set(selection.listed) & set(record.times))
    if not selection.is_range:
        return [record.times[-1]]
    asked = selection.select(record.times)
    pasts = find_references(record.times, input_frames=input_frames, time_step=step)
    pasts = pasts[asked[pasts[:, -1]]]
    empty = [position for position in np.unique(pasts) if np.isnan(record.read([position])).all()]
    pasts = pasts[~np.isin(pasts, empty).any(axis=1)]
    if left_out := int(asked.sum()) - len(pasts):
        log.warning("%s: left out %d of %d reference times, whose past is not complete", record.name, left_out, asked.sum())
    return list(record.times[pasts[:, -1]])


class KeptFrames:
    """Reads the frames of a record, and keeps as many as lie between the first and the last of those asked for.

    So cases that share frames, asked for in time order, have each decoded once.
    """

    def __init__(self, record: Record):
        self.record = record
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    @property
    def num_kept(self) -> int:
        """Return the number of frames kept now."""
        return len(self._kept)

    def read(self, positions: Sequence[int]) -> np.ndarray:
        """As `Record.read`, (frame, y, x)."""
        positions = [int(position) for position in positions]
        if absent := [position for position in positions if position not in self._kept]:
            self._kept.update(zip(absent, self.record.read(absent), strict=True))
        for position in sorted(positions):  # the oldest is the first that no later case asks for
            self._kept.move_to_end(position)
        while len(self._kept) > max(positions) - min(positions) + 1:
            self._kept.popitem(last=False)
        return np.stack([self._kept[position] for position in positions])


def read_past(
    record: Record,
    reference: np.datetime64,
    forecaster: Forecaster,
    step: np.timedelta64,
    *,
    kept: KeptFrames | None = None,
) -> np.ndarray:
    """(time, y, x) mm/h: the newest complete frames up to `reference`, as many as the forecaster makes use of.

    `kept` are frames of the cases before. Raises NotEnoughFrames (exit 75), naming the frames, where one that it needs is
    absent or has no known pixel.
    """
    wanted = reference - np.arange(forecaster.most_past_frames) * step  # newest first, until the order is turned below
    positions = np.searchsorted(record.times, wanted).clip(max=len(record.times) - 1)
    there = record.times[positions] == wanted
    least = forecaster.input_frames
    if not there[:least].all():
        absent = wanted[:least][~there[:least]]
        raise NotEnoughFrames(
            f"{record.name}: a forecast from {reference}Z needs {least} frames {step / np.timedelta64(60, 's'):g} min apart.\n"
            f"Absent: {listing(absent)}; the record goes from {record.times[0]}Z to {record.times[-1]}Z."
        )
    newest = _leading(there)
    past = (kept or record).read(positions[:newest][::-1])
    known = ~np.isnan(past).all(axis=(1, 2))[::-1]
    if not known[:least].all():
        raise NotEnoughFrames(
            f"{record.name}: a forecast from {reference}Z needs {least} frames with something observed.\n"
            f"Missing as a whole: {listing(wanted[:least][~known[:least]])}."
        )
    return past[newest - _leading(known) :]


def _leading(flags: np.ndarray) -> int:
    """How many are True before the first that is not."""
    return len(flags) if flags.all() else int(flags.argmin())


def listing(times: Sequence[np.datetime64]) -> str:
    """The first few in time order, for a message."""
    shown = [f"{time}Z" for time in sorted(times)[:NAMED_TIMES]]
    return ", ".join(shown) + (f" and {len(times) - NAMED_TIMES} more" if len(times) > NAMED_TIMES else "")
