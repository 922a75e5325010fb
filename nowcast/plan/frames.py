"""Choose the number of past and future frames, and the split, so that training and validation both have windows.

Longer windows are tried before shorter ones, and for each length fairer splits before poorer ones. The windows are counted
by the code that the training uses; the first choice with enough of them is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.config.schema import Data, Splits
from nowcast.dataset.archive import split_records
from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import NotEnoughFrames
from nowcast.plan.fingerprint import RecordSummary

MAX_ABSENT = Data().max_absent  # frames of a window, as in the recipes
LEAD_MINUTES = 60  # min, the desired longest lead time
MOST_LEADS, FEWEST_LEADS = 30, 4  # frames; limits for very short and very long time steps
MOST_INPUTS, FEWEST_INPUTS = 4, 2  # past frames; four show the motion and its change, two the motion alone
ENOUGH = ((8, 4), (1, 1))  # (training, validation) windows: the desired numbers, then the fewest
CYCLE_DAYS = 22  # number of days from which on an archive is split by days, so that every split samples the whole period
FEW_DAYS = 5  # days of validation; fewer say little about other weather
LONG_DAYS = 40  # number of days from which on a tenth of the archive is kept for testing
SHARES = ((0.75, 0.25, 0.0), (0.6, 0.4, 0.0), (0.5, 0.5, 0.0), (0.4, 0.6, 0.0))  # (training, validation, test)
DRY = 0.002  # fraction of wet pixels below which the windows of a record are not counted, because they have hardly any rain
MOST_SPANS = 8  # runs of frames; with more of them a split by time spans would be too long to write


@dataclass(frozen=True)
class FrameChoice:
    """Frames of a window, the split with its reason, and the number of windows of each split."""

    input_frames: int
    lead_frames: int
    wanted_leads: int  # lead frames that reach LEAD_MINUTES
    minutes: float  # the time step of most frames
    splits: Splits
    splits_reason: str
    num_training: int
    num_validation: int
    num_test: int
    num_validation_days: int
    is_apart: bool  # whether there is a gap of one window between training and validation

    @property
    def lead_minutes(self) -> float:
        """Return the longest lead time in minutes."""
        return self.lead_frames * self.minutes

    @property
    def has_few_days(self) -> bool:
        """Return whether the split is by days and validation has windows on fewer than FEW_DAYS days."""
        return self.splits.by == "days" and self.num_validation_days < FEW_DAYS


def choose_frames(series: Sequence[RecordSummary], *, cycle_days: int = CYCLE_DAYS) -> FrameChoice:
    """Return the first choice that gives enough windows.

    cycle_days: number of days from which on a split by days is tried first

    Raises NotEnoughFrames (exit 75) where no choice gives enough windows.
    """
    usable = [record.with_absent(MAX_ABSENT) for record in series if not np.isnat(record.time_step)]
    if not usable:
        raise NotEnoughFrames("every record has a single frame: a plan needs runs of frames, six in a row or more")
    minutes = max({record.minutes for record in usable}, key=lambda m: (_num_frames(usable, m), -m))
    wanted = min(max(round(LEAD_MINUTES / minutes), FEWEST_LEADS), MOST_LEADS)
    longest = max(_longest_run(record) for record in usable)
    rainy = [record.wet >= DRY or np.isnan(record.wet) for record in usable]
    for counted, enough in [(c, e) for c in (rainy, [True] * len(usable)) for e in ENOUGH]:
        for inputs, leads in _sizes(wanted, longest):
            if choice := _first_split(usable, counted, inputs, leads, enough, cycle_days):
                splits, reason, is_apart, windows = choice
                return FrameChoice(
                    inputs, leads, wanted, minutes, splits, reason, is_apart=is_apart, **_windows_of(usable, windows)
                )
    whole = max(_longest_run(record) for record in series if not np.isnat(record.time_step))
    raise NotEnoughFrames(
        f"the longest run of frames without a gap has {whole}: too few for a plan\n"
        "expected 6 frames in a row, or several runs of 3: 2 past and 1 future for training, as many for validation"
    )


def _num_frames(series: Sequence[RecordSummary], minutes: float) -> int:
    return sum(len(record.times) for record in series if record.minutes == minutes)


def _longest_run(record: RecordSummary) -> int:
    breaks = np.flatnonzero(np.diff(record.times) != record.time_step) + 1
    return int(np.diff([0, *breaks, len(record.times)]).max())


def _sizes(wanted: int, longest: int) -> Iterator[tuple[int, int]]:
    """Return (input_frames, lead_frames) to try, longest first.

    If fewer than half the desired lead frames fit, a third of the frames are past frames.
    """
    half = (wanted + 1) // 2
    sizes = [(MOST_INPUTS, leads) for leads in range(wanted, half - 1, -1)]
    for size in range(MOST_INPUTS + half - 1, FEWEST_INPUTS, -1):
        inputs = min(max(size // 3, FEWEST_INPUTS), MOST_INPUTS)
        sizes.append((inputs, min(size - inputs, wanted)))
    return (size for size in sizes if sum(size) <= longest)


def _first_split(
    series: Sequence[RecordSummary],
    counted: Sequence[bool],
    inputs: int,
    leads: int,
    enough: tuple[int, int],
    cycle_days: int,
) -> tuple[Splits, str, bool, Mapping[str, Sequence[Windows]]] | None:
    all_windows = [
        find_windows(
            record.times, input_frames=inputs, lead_frames=leads, time_step=record.time_step,
            absent=np.isin(record.times, record.absent), max_absent=MAX_ABSENT,
        )
        for record in series
    ]  # fmt: skip
    if _count(all_windows, counted) < sum(enough):
        return None
    for splits, reason, is_apart in _candidates(series, inputs + leads, enough, cycle_days):
        windows = split_records(series, all_windows, (), splits)
        training, validation = (_count(windows[name], counted) for name in ("training", "validation"))
        if training >= enough[0] and validation >= enough[1]:
            return splits, reason, is_apart, windows
    return None


def _windows_of(series: Sequence[RecordSummary], windows: Mapping[str, Sequence[Windows]]) -> dict[str, int]:
    """Count the windows of each split, and the days of the validation."""
    numbers = {f"num_{split}": sum(map(len, of_split)) for split, of_split in windows.items()}
    pairs = zip(series, windows["validation"], strict=True)
    days = [record.times[w.reference_positions].astype("datetime64[D]") for record, w in pairs]
    return numbers | {"num_validation_days": len(np.unique(np.concatenate(days)))}


def _count(windows: Sequence[Windows], counted: Sequence[bool]) -> int:
    return sum(len(windows_of_record) for windows_of_record, counts in zip(windows, counted, strict=True) if counts)


def _candidates(
    series: Sequence[RecordSummary], size: int, enough: tuple[int, int], cycle_days: int
) -> Iterator[tuple[Splits, str, bool]]:
    """Yield splits to try, fairest first, each with its reason and whether it keeps a gap.

    size: frames of a window
    """
    days = len(np.unique(np.concatenate([record.times.astype("datetime64[D]") for record in series])))
    if days >= cycle_days:
        yield _by_days(days), "every split has weather of the whole archive; of every ten days two are left out, as a gap", True
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


def _by_days(days: int) -> Splits:
    """Train on six of every ten days, days 9 to 4; validate on 6, and test on 7 if there are days enough for both."""
    validation, test = ((6,), (7,)) if days >= 10 * FEW_DAYS else ((6, 7), ())
    return Splits(by="days", training_days=(0, 1, 2, 3, 4, 9), validation_days=validation, test_days=test)


def _spans(series: Sequence[RecordSummary], size: int, enough: tuple[int, int]) -> tuple[tuple, tuple] | None:
    """Return training and validation spans that cut every run of frames in two; None for more than MOST_SPANS runs.

    Runs that overlap in time, such as those of two radars, are cut together, because a span applies to every record.
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


def _merged_runs(series: Sequence[RecordSummary]) -> list[tuple[np.datetime64, np.datetime64, np.timedelta64]]:
    """Return (first time, one time step after the last, time step) of runs of frames, in order; overlapping runs as one."""
    runs = []
    for record in series:
        for run in np.split(record.times, np.flatnonzero(np.diff(record.times) != record.time_step) + 1):
            if len(run) > 1:
                runs.append((run[0], run[-1] + record.time_step, record.time_step))
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
