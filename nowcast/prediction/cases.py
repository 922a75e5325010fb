"""Select the cases to forecast: reference times of a record and their past frames.

A case is identified by its reference time, the time of the last frame used. A network takes exactly as many past frames as in
training; a baseline takes all complete ones up to its largest number.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nowcast.dataset.windows import find_references, is_enough
from nowcast.errors import DataError, NotEnoughFrames, UsageError, counted
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.record import Record
from nowcast.runtime.log_lines import warn_once

log = logging.getLogger(__name__)
NAMED_TIMES = 4  # most times listed in a message
NAMED_RECORDS = 4  # most records whose times a message lists
TRIED_TIMES = 12  # most earlier reference times that are tried for a message


@dataclass(frozen=True)
class Selection:
    """Reference times to forecast from: the listed ones, or `start` to `end` every `every` minutes, or the newest frame.

    `every` counts from `start` if that is a case, else from the first complete case on a full hour, else from the first case.
    """

    listed: tuple[np.datetime64, ...] = ()
    start: np.datetime64 | None = None
    end: np.datetime64 | None = None
    every: float | None = None  # minutes

    def __post_init__(self):
        if self.listed and self.is_range:
            raise UsageError("give --reference-time, or --start, --end and --every, not both")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UsageError(f"--start {self.start} is after --end {self.end}")
        is_number = isinstance(self.every, int | float | np.number) and not isinstance(self.every, np.timedelta64)
        if self.every is not None and not (is_number and math.isfinite(self.every) and self.every * 60 >= 1):
            given = f"{self.every:g}" if is_number else repr(self.every)
            raise UsageError(f"--every {given}: write minutes between reference times, such as 30")

    @property
    def is_range(self) -> bool:
        return any(value is not None for value in (self.start, self.end, self.every))

    def select(self, record: Record, positions: np.ndarray) -> np.ndarray:
        """Return a mask (case,) of the selected cases, whose reference frames are at these positions of the record."""
        chosen = record.is_between(self.start, self.end)[positions]
        times = record.times[positions]
        chosen[chosen] = self.thin(times[chosen], times[chosen])
        self.warn_of_frames(record)
        return chosen

    def warn_of_frames(self, record: Record) -> None:
        """Warn, once per folder, if `every` is no multiple of the time step, so that reference times are further apart."""
        if self.every is None or np.isnat(record.time_step):
            return
        step, every = (int(span / np.timedelta64(1, "s")) for span in (record.time_step, self._every()))
        if every % step:
            apart = f"frames are {step / 60:g} min apart, reference times {math.lcm(step, every) / 60:g} min"
            warn_once(record.paths[0] if record.paths else Path(record.name), f"--every {self.every:g}: {apart}")

    def _every(self) -> np.timedelta64:
        return np.timedelta64(round(self.every * 60), "s")

    def thin(self, times: np.ndarray, complete: np.ndarray) -> np.ndarray:
        """Return a mask (time,) of the times that are selected by `every`.

        complete: (case,) the reference times of the complete cases between `start` and `end`, ascending
        """
        if self.every is None or not len(complete):
            return np.ones(len(times), bool)
        on_the_hour = complete[complete == complete.astype("datetime64[h]")]
        counts_from_hour = complete[0] != self.start and len(on_the_hour)
        anchor = on_the_hour[0] if counts_from_hour else complete[0]
        return (times >= complete[0]) & ((times - anchor) % self._every() == np.timedelta64(0, "s"))


def references_of(
    record: Record, selection: Selection, input_frames: int, step: np.timedelta64, max_absent: int = 0
) -> list[np.datetime64]:
    """Return the selected reference times of a record: its newest frame, the listed times that it has, or a range.

    In a range, times are left out with a warning if their past has a gap, or more than `max_absent` frames without any
    observation; the result may be empty.
    """
    if selection.listed:
        frames = record.frames_at(np.array(selection.listed))
        return list(np.unique(frames[~np.isnat(frames)]))
    if not selection.is_range:
        return [record.times[-1]]
    selection.warn_of_frames(record)
    wanted = record.times[record.is_between(selection.start, selection.end)]
    whole = record.with_absent(max_absent)
    pasts = find_references(whole.times, input_frames=input_frames, time_step=step)
    pasts = pasts[np.isin(whole.times[pasts[:, -1]], wanted)]
    wanted = wanted[selection.thin(wanted, whole.times[pasts[:, -1]])]
    pasts = pasts[np.isin(whole.times[pasts[:, -1]], wanted)]
    empty, damage = np.zeros(len(whole), bool), Damage(whole)
    for position in np.unique(pasts):
        empty[position] = whole.is_absent[position] or np.isnan(damage.read(position)).all()
    damage.check()
    pasts = pasts[is_enough(pasts, input_frames - 1, empty, max_absent)]
    if left_out := len(wanted) - len(pasts):
        log.warning("%s: left out %d of %d reference times, whose past is not complete", record.name, left_out, len(wanted))
    return list(whole.times[pasts[:, -1]])


class KeptFrames:
    """Reads frames of a record and keeps those of the latest case in memory.

    If cases are read in time order, the frames that they share are decoded once.
    """

    def __init__(self, record: Record):
        self.damage = Damage(record)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, positions: Sequence[int]) -> np.ndarray:
        """Return the frames (frame, y, x), mm/h, as `Damage.frames`."""
        positions = [int(position) for position in positions]
        if absent := [position for position in positions if position not in self._kept]:
            self._kept.update(zip(absent, self.damage.frames(absent), strict=True))
        for position in sorted(positions):  # the oldest frame is the first that no later case needs
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
    suggests: bool = True,
) -> np.ndarray:
    """Read the newest complete frames (time, y, x), mm/h, up to `reference`, as many as the forecaster uses.

    kept: frames of earlier cases; suggests: whether errors name an earlier time that can be forecast from

    Raises NotEnoughFrames (exit 75), which names the frames, if a frame that the forecaster needs is absent or has no known
    cell, and DataError (3) if it is damaged.
    """
    wanted = reference - np.arange(forecaster.most_past_frames) * step  # newest first; reversed below
    positions = np.searchsorted(record.times, wanted).clip(max=len(record.times) - 1)
    is_there = record.times[positions] == wanted
    least, tried = forecaster.input_frames, TRIED_TIMES if suggests else 0
    if not is_there[:least].all():
        absent, needed = wanted[:least][~is_there[:least]], counted(least, "frame")
        raise NotEnoughFrames(
            f"{record.name}: a forecast from {reference}Z needs {needed} {step / np.timedelta64(60, 's'):g} min apart.\n"
            f"Absent: {listing(absent)}{_instead(record, reference, forecaster, step, tried)}."
        )
    kept, positions = kept or KeptFrames(record), positions[: _leading(is_there)]
    past = kept.read(positions[::-1])
    usable = usable_past(past, forecaster)
    if usable is None:
        if fatal := [error for n in positions[:least] if (error := kept.damage.errors.get(int(n)))]:
            raise fatal[0]
        known = ~np.isnan(past).all(axis=(1, 2))[::-1]
        missing = wanted[:least][~known[:least]]
        raise NotEnoughFrames(
            f"{record.name}: a forecast from {reference}Z needs {counted(least, 'frame')} with something observed.\n"
            f"Missing as a whole: {listing(missing)}{_instead(record, reference, forecaster, step, tried)}."
        )
    kept.damage.warn()
    return usable


def _instead(record: Record, reference: np.datetime64, forecaster: Forecaster, step: np.timedelta64, tried: int) -> str:
    """Return the newest earlier time that can be forecast from, for a message; else what the record covers.

    Only the last `tried` times whose frames are in the record are read.
    """
    pasts, kept = find_references(record.times, input_frames=forecaster.input_frames, time_step=step), KeptFrames(record)
    with suppress(DataError):  # files that cannot be read are another error
        for past in pasts[record.times[pasts[:, -1]] < reference][: -tried - 1 : -1]:
            if usable_past(kept.read(past), forecaster) is not None:
                return f"; a forecast from {record.times[past[-1]]}Z has all that it needs (--reference-time)"
    return f"; the record goes from {record.times[0]}Z to {record.times[-1]}Z"


def usable_past(past: np.ndarray, forecaster: Forecaster) -> np.ndarray | None:
    """Return the newest past frames (time, y, x), mm/h, that a forecaster uses: the complete ones, or all that it needs.

    None if the newest is missing as a whole, or more of those that it needs than it allows.
    """
    past = past[-forecaster.most_past_frames :]
    known = ~np.isnan(past).all(axis=(1, 2))[::-1]
    return past[len(past) - max(_leading(known), forecaster.input_frames) :] if can_forecast(known, forecaster) else None


def can_forecast(known: np.ndarray, forecaster: Forecaster) -> bool:
    """Return whether a forecaster can forecast from these past frames; known: (time,) not missing as a whole, newest first."""
    return bool(known[0] and (~known[: forecaster.input_frames]).sum() <= forecaster.max_absent)


def _leading(flags: np.ndarray) -> int:
    """Count the flags that are True before the first that is False."""
    return len(flags) if flags.all() else int(flags.argmin())


def listing(times: Sequence[np.datetime64]) -> str:
    """Return the first few times in time order, for a message."""
    shown = [f"{time}Z" for time in sorted(times)[:NAMED_TIMES]]
    return ", ".join(shown) + (f" and {len(times) - NAMED_TIMES} more" if len(times) > NAMED_TIMES else "")


def spans(records: Sequence[Record]) -> str:
    """Return the first and last times of the records; of at most NAMED_RECORDS, and of all together."""
    each = [f"{record.name} goes from {record.times[0]}Z to {record.times[-1]}Z" for record in records[:NAMED_RECORDS]]
    if (more := len(records) - NAMED_RECORDS) > 0:
        first, last = min(record.times[0] for record in records), max(record.times[-1] for record in records)
        each.append(f"{counted(more, 'further record')}; all together from {first}Z to {last}Z")
    return "; ".join(each)
