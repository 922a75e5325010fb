"""How many frames in and out an archive allows, and how to split it, so that training and validation both have windows.

The longest windows come first; for each the splits are tried from the fairest to the barest, with the very code that will
plan the windows of the training, and the first that leaves enough of both is taken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.config.schema import Splits
from nowcast.dataset.splits import split_by_events, split_windows
from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import NotEnoughFrames
from nowcast.plan.fingerprint import SeriesFacts

LEAD_MINUTES, MOST_LEADS, FEWEST_LEADS = 60, 30, 4  # an hour; of very short or long steps so many frames
MOST_INPUTS, FEWEST_INPUTS = 4, 2  # four show motion and its change, two the motion alone
ENOUGH = ((8, 4), (1, 1))  # windows for training and validation: what is wished, and what is the least
LONG_DAYS = 40  # an archive as long can spare a tenth for a test
SHARES = ((0.75, 0.25, 0.0), (0.6, 0.4, 0.0), (0.5, 0.5, 0.0), (0.4, 0.6, 0.0))
DRY = 0.002  # the wet share below which a record's windows do not count: no rain is learnt or judged from them
MOST_SPANS = 8  # runs of frames that are cut in two by writing out their times


@dataclass(frozen=True)
class FrameChoice:
    """Frames of a window, how windows are split, and how many windows that gives; `splits_reason` says why so."""

    input_frames: int
    lead_frames: int
    wanted_leads: int
    minutes: float  # of the time step that most frames have
    splits: Splits
    splits_reason: str
    num_training: int
    num_validation: int
    is_apart: bool  # whether a gap of a window lies between training and validation

    @property
    def lead_minutes(self) -> float:
        return self.lead_frames * self.minutes


def choose_frames(series: Sequence[SeriesFacts]) -> FrameChoice:
    """The first choice that leaves enough windows. Raises NotEnoughFrames (exit 75) where not even the barest does."""
    usable = [part for part in series if not np.isnat(part.time_step)]
    if not usable:
        raise NotEnoughFrames("every record has a single frame: a plan needs runs of frames, six in a row or more")
    minutes = max({part.minutes for part in usable}, key=lambda m: (_num_frames(usable, m), -m))
    wanted = min(max(round(LEAD_MINUTES / minutes), FEWEST_LEADS), MOST_LEADS)
    longest = max(_longest_run(part) for part in usable)
    rainy = [part.wet >= DRY or np.isnan(part.wet) for part in usable]
    for counted, enough in [(c, e) for c in (rainy, [True] * len(usable)) for e in ENOUGH]:
        for inputs, leads in _sizes(wanted, longest):
            if found := _first_split(usable, counted, inputs, leads, enough):
                return FrameChoice(inputs, leads, wanted, minutes, *found)
    raise NotEnoughFrames(
        f"the longest run of frames without a gap has {longest}: too few for a plan\n"
        "right would be 6 frames in a row, or several runs of 3: 2 past and 1 future for training, as many for validation"
    )


def _num_frames(series: Sequence[SeriesFacts], minutes: float) -> int:
    return sum(len(part.times) for part in series if part.minutes == minutes)


def _longest_run(part: SeriesFacts) -> int:
    breaks = np.flatnonzero(np.diff(part.times) != part.time_step) + 1
    return int(np.diff([0, *breaks, len(part.times)]).max())


def _sizes(wanted: int, longest: int) -> Iterator[tuple[int, int]]:
    """(input_frames, lead_frames), longest first: of windows with less than half the leads a third are past frames."""
    half = (wanted + 1) // 2
    sizes = [(MOST_INPUTS, leads) for leads in range(wanted, half - 1, -1)]
    for size in range(MOST_INPUTS + half - 1, FEWEST_INPUTS, -1):
        inputs = min(max(size // 3, FEWEST_INPUTS), MOST_INPUTS)
        sizes.append((inputs, min(size - inputs, wanted)))
    return (size for size in sizes if sum(size) <= longest)


def _first_split(
    series: Sequence[SeriesFacts], counted: Sequence[bool], inputs: int, leads: int, enough: tuple[int, int]
) -> tuple[Splits, str, int, int, bool] | None:
    planned = [find_windows(p.times, input_frames=inputs, lead_frames=leads, time_step=p.time_step) for p in series]
    if _count(planned, counted) < sum(enough):
        return None
    times = [part.times for part in series]
    for splits, reason, is_apart in _candidates(series, inputs + leads, enough):
        found = _split(planned, times, splits)
        training, validation = (_count(found[name], counted) for name in ("training", "validation"))
        if training >= enough[0] and validation >= enough[1]:
            numbers = (sum(map(len, found[name])) for name in ("training", "validation"))
            return splits, reason, *numbers, is_apart
    return None


def _count(windows: Sequence[Windows], counted: Sequence[bool]) -> int:
    return sum(len(part) for part, counts in zip(windows, counted, strict=True) if counts)


def _candidates(series: Sequence[SeriesFacts], size: int, enough: tuple[int, int]) -> Iterator[tuple[Splits, str, bool]]:
    """Splits, their reason, and whether they keep a gap; from the fairest on."""
    days = len(np.unique(np.concatenate([part.times.astype("datetime64[D]") for part in series])))
    shares = ((0.8, 0.1, 0.1), *SHARES) if days >= LONG_DAYS else SHARES
    for by, what in (("events", "whole events, the newest for validation"), ("fractions", "by time, a window's gap between")):
        for fractions in shares:
            kept = "; the last tenth is left for a test" if fractions[2] else ""
            yield Splits(by=by, fractions=fractions), what + kept, True
    if spans := _spans(series, size, enough):
        yield (
            Splits(by="spans", training=spans[0], validation=spans[1]),
            "each run of frames cut in two: too short for a gap",
            False,
        )


def _spans(series: Sequence[SeriesFacts], size: int, enough: tuple[int, int]) -> tuple[tuple, tuple] | None:
    """Training and validation spans that cut every run of frames in two; None for many runs.

    Runs that overlap in time, such as those of two radars, are cut together, for a span holds for every record.
    """
    training, validation = [], []
    runs = _merged_runs(series)
    if len(runs) > MOST_SPANS:
        return None
    for start, stop, step in runs:
        frames = round((stop - start) / step)
        kept = max(size + enough[1] - 1, frames // 4)
        if frames - kept < size:
            kept = frames // 2
        cut = stop - kept * step
        training.append((_datetime(start), _datetime(cut)))
        validation.append((_datetime(cut), _datetime(stop)))
    return tuple(training), tuple(validation)


def _merged_runs(series: Sequence[SeriesFacts]) -> list[tuple[np.datetime64, np.datetime64, np.timedelta64]]:
    """(first frame, one step after the last, time step) of runs of more than one frame, in time order, none overlapping."""
    runs = []
    for part in series:
        for run in np.split(part.times, np.flatnonzero(np.diff(part.times) != part.time_step) + 1):
            if len(run) > 1:
                runs.append((run[0], run[-1] + part.time_step, part.time_step))
    merged: list[tuple] = []
    for start, stop, step in sorted(runs):
        if merged and start < merged[-1][1]:
            first, end, other = merged[-1]
            merged[-1] = (first, max(end, stop), max(step, other))
        else:
            merged.append((start, stop, step))
    return merged


def _datetime(instant: np.datetime64):
    return instant.astype("datetime64[s]").item()


def _split(planned: Sequence[Windows], times: Sequence[np.ndarray], splits: Splits) -> dict[str, Sequence[Windows]]:
    if splits.by == "events":
        return split_by_events(planned, times, fractions=splits.fractions)
    if splits.by == "fractions":
        chosen = {"fractions": splits.fractions}
    else:
        chosen = {"spans": {"training": splits.training, "validation": splits.validation}}
    parts = [split_windows(windows, t, **chosen) for windows, t in zip(planned, times, strict=True)]
    return {name: tuple(part[name] for part in parts) for name in ("training", "validation")}
