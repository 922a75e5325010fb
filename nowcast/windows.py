"""Which stretches of a record make complete cases: positions only, no field is read here.

A window is `input_frames` past and `lead_frames` future frames, each exactly one `time_step` from the next, held as
positions into the record's sorted times. Every frame is a candidate for the reference frame (the last past frame) of
one window, and the account says what became of each candidate. Splits never share a frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np

from nowcast.errors import UsageError

_EXACT = np.timedelta64(0, "s")
SPLITS = ("training", "validation", "test")
Instant = str | date | datetime | np.datetime64

_REASONS = {
    "num_gap": "cross a gap or an end of the record",
    "num_strided": "skipped by the stride",
    "num_missing": "with too much missing",
    "num_dry": "too dry",
    "num_purged": "purged at the edge of a split",
}


@dataclass(frozen=True)
class Account:
    """What became of every candidate: `num_candidates` is `num_windows` plus every number dropped, exactly.

    After `plan` the candidates are all frames of the record; after `split_windows` they are the windows whose first
    frame lies in the split, and `num_frames` counts the frames in it. Accounts of several records add.
    """

    num_frames: int
    num_candidates: int
    num_windows: int
    num_gap: int = 0
    num_strided: int = 0
    num_missing: int = 0
    num_dry: int = 0
    num_purged: int = 0

    def __post_init__(self):
        assert self.num_candidates == self.num_windows + sum(getattr(self, name) for name in _REASONS)

    def __add__(self, other: "Account") -> "Account":
        return Account(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def lines(self) -> list[str]:
        """One line with the number kept, then one for each reason that dropped any."""
        dropped = [(getattr(self, name), words) for name, words in _REASONS.items()]
        kept = f"{self.num_windows:,} windows of {self.num_candidates:,} candidates in {self.num_frames:,} frames"
        return [kept] + [f"  {number:,} {words}" for number, words in dropped if number]


@dataclass(frozen=True, eq=False)
class Windows:
    """Cases of one record: `positions` int64 (window, input_frames + lead_frames) into its times, in time order."""

    positions: np.ndarray
    input_frames: int
    lead_frames: int
    time_step: np.timedelta64
    account: Account

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, chosen: np.ndarray) -> "Windows":
        """Only the `chosen` windows, a mask (window,); the account stays that of the plan."""
        return replace(self, positions=self.positions[chosen])

    def none(self) -> "Windows":
        """The same record with no window."""
        return replace(self, positions=self.positions[:0], account=Account(0, 0, 0))

    @property
    def reference_positions(self) -> np.ndarray:
        """(window,) the last past frame of each: its time is the forecast_reference_time."""
        return self.positions[:, self.input_frames - 1]


def plan(
    times: np.ndarray,
    *,
    input_frames: int,
    lead_frames: int,
    time_step: np.timedelta64,
    stride: int = 1,
    missing: np.ndarray | None = None,
    wet: np.ndarray | None = None,
    max_missing: float = 1.0,
    min_wet: float = 0.0,
    tolerance: np.timedelta64 = _EXACT,
) -> Windows:
    """All windows of a record with sorted, unique `times` (datetime64), and the account of the others.

    `time_step` may be a multiple of the record's own: windows then pick every so many frames. Of the complete windows
    every `stride`-th is kept, in frames of the record; then those go that hold a frame with more than `max_missing`
    missing, or whose mean wet fraction is under `min_wet`. `missing` and `wet` are fractions per frame, (time,); a wet
    fraction of NaN (nothing known) is left out of the mean, and a window with no other counts as dry. `tolerance`
    (under half a time step) lets each frame be off its exact distance from the reference frame.

    Raises UsageError for numbers that no window can have.
    """
    _check(input_frames, lead_frames, stride)
    missing, wet = _per_frame(missing, times, "missing"), _per_frame(wet, times, "wet")
    complete = _complete(times, range(1 - input_frames, lead_frames + 1), time_step, tolerance)
    positions = complete[::stride]
    num_strided = len(complete) - len(positions)

    num_missing = num_dry = 0
    if missing is not None:
        known = missing <= max_missing  # NaN is unknown, hence not known to be good
        keep = known[positions].all(axis=1)
        num_missing, positions = int((~keep).sum()), positions[keep]
    if wet is not None and min_wet > 0:
        keep = _mean_known(wet[positions]) >= min_wet
        num_dry, positions = int((~keep).sum()), positions[keep]

    account = Account(
        num_frames=len(times),
        num_candidates=len(times),
        num_windows=len(positions),
        num_gap=len(times) - len(complete),
        num_strided=num_strided,
        num_missing=num_missing,
        num_dry=num_dry,
    )
    return Windows(positions, input_frames, lead_frames, time_step, account)


def plan_references(
    times: np.ndarray, *, input_frames: int, time_step: np.timedelta64, tolerance: np.timedelta64 = _EXACT
) -> np.ndarray:
    """Every complete past: int64 (reference, input_frames), in time order, so the newest is the last row.

    No future frame is needed. The newest frame of the record is a reference only if its own past is complete.
    """
    _check(input_frames, 0, 1)
    return _complete(times, range(1 - input_frames, 1), time_step, tolerance)


def split_windows(
    windows: Windows,
    times: np.ndarray,
    *,
    fractions: Sequence[float] | None = None,
    spans: Mapping[str, Sequence[tuple[Instant, Instant]]] | None = None,
) -> dict[str, Windows]:
    """Divide the windows of one record by time; a split may come out empty. No frame is ever in two splits.

    `fractions` of the frames in time order for training, validation and test, adding to 1; a split begins one whole
    window of frames after the one before it ended, and the windows that cross or touch this gap are purged.
    `spans` are half-open, [start, end), in UTC: a window belongs to a split if all its frames lie in one of its spans.
    Spans of one split that touch count as one.

    Raises UsageError for fractions that do not add to 1, empty spans, and spans of two splits that overlap.
    """
    if (fractions is None) == (spans is None):
        given = "neither" if fractions is None else "both"
        raise UsageError(f"{given} of fractions and spans are given for the splits\ngive one of the two")
    if fractions is not None:
        return _split_by_fractions(windows, times, fractions)
    return _split_by_spans(windows, times, spans)


def _check(input_frames: int, lead_frames: int, stride: int) -> None:
    limits = (("input_frames", input_frames, 1), ("lead_frames", lead_frames, 0), ("stride", stride, 1))
    for name, value, least in limits:
        if value < least:
            raise UsageError(f"{name} is {value}: at least {least} is needed")


def _per_frame(values: np.ndarray | None, times: np.ndarray, name: str) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values, np.float64)
    assert values.shape == np.shape(times), f"{name} has shape {values.shape} for {np.shape(times)} times"
    return values


def _complete(times: np.ndarray, offsets: range, time_step, tolerance) -> np.ndarray:
    """Positions (window, offset) of every reference frame that has a frame at each offset, in time steps, from it."""
    times = np.asarray(times)
    assert np.all(times[1:] > times[:-1]), "times are not sorted and unique"
    if np.isnat(time_step):  # a record of one frame has no step: its only windows are of one frame
        return np.arange(len(times) if len(offsets) == 1 else 0).reshape(-1, len(offsets))
    _check_step(time_step, tolerance)
    positions = np.empty((len(offsets), len(times)), np.int64)
    complete = np.ones(len(times), bool)
    for row, offset in zip(positions, offsets, strict=True):
        row[:], near = _nearest(times, times + offset * time_step, tolerance)
        complete &= near
    return np.ascontiguousarray(positions[:, complete].T)


def _check_step(time_step: np.timedelta64, tolerance: np.timedelta64) -> None:
    if time_step <= np.timedelta64(0):
        raise UsageError(f"time_step is {time_step}: it must be positive")
    if tolerance < np.timedelta64(0) or 2 * tolerance >= time_step:  # else one frame could stand for two
        raise UsageError(f"the time tolerance is {tolerance}: it must be under half the time step of {time_step}")


def _nearest(times: np.ndarray, wanted: np.ndarray, tolerance: np.timedelta64) -> tuple[np.ndarray, np.ndarray]:
    """The position nearest to each wanted time, and whether it is near enough."""
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    if not tolerance:
        return after, times[after] == wanted
    before = (after - 1).clip(min=0)
    found = np.where(wanted - times[before] <= abs(times[after] - wanted), before, after)
    return found, abs(times[found] - wanted) <= tolerance


def _mean_known(values: np.ndarray) -> np.ndarray:
    """The mean over axis 1 of what is not NaN; 0 where nothing is known."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1).clip(min=1)


def _split_by_fractions(windows: Windows, times: np.ndarray, fractions: Sequence[float]) -> dict[str, Windows]:
    shares = np.array([*fractions, 0.0, 0.0, 0.0])[: max(len(SPLITS), len(fractions))]
    if len(shares) > len(SPLITS) or not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-6:
        raise UsageError(f"the split fractions are {list(fractions)}\ngive {', '.join(SPLITS)}: each at least 0, adding to 1")
    edges = np.round(np.cumsum([0.0, *shares]) / shares.sum() * len(times)).astype(int)
    duration = windows.positions.shape[1] * windows.time_step
    first, last = windows.positions[:, 0], windows.positions[:, -1]
    splits = {}
    for name, start, end in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        candidate = (first >= start) & (first < end)
        inside = candidate & (last < end)
        if start > 0:
            inside &= times[first] > times[start - 1] + duration
        splits[name] = _part(windows, candidate, inside, num_frames=int(end - start))
    return splits


def _split_by_spans(windows: Windows, times: np.ndarray, spans: Mapping) -> dict[str, Windows]:
    if unknown := set(spans) - set(SPLITS):
        raise UsageError(f"no such split: {', '.join(sorted(unknown))}\nthe splits are {', '.join(SPLITS)}")
    merged = {name: _merge(name, spans.get(name, ())) for name in SPLITS}
    _refuse_overlap(merged)
    times = np.asarray(times)
    first, last = times[windows.positions[:, 0]], times[windows.positions[:, -1]]
    splits = {}
    for name, ranges in merged.items():
        starts, ends = ([span[side] for span in ranges] for side in (0, 1))
        owner = _span_of(first, starts, ends)
        inside = (owner >= 0) & (owner == _span_of(last, starts, ends))
        num_frames = int((_span_of(times, starts, ends) >= 0).sum())
        splits[name] = _part(windows, owner >= 0, inside, num_frames=num_frames)
    return splits


def _span_of(instants: np.ndarray, starts: list[np.datetime64], ends: list[np.datetime64]) -> np.ndarray:
    """Which of the ordered, disjoint spans [start, end) holds each instant; -1 for none."""
    if not starts:
        return np.full(len(instants), -1)
    span = np.searchsorted(np.array(starts), instants, side="right") - 1
    return np.where(instants < np.array(ends)[span], span, -1)


def _part(windows: Windows, candidate: np.ndarray, inside: np.ndarray, *, num_frames: int) -> Windows:
    account = Account(
        num_frames=num_frames,
        num_candidates=int(candidate.sum()),
        num_windows=int(inside.sum()),
        num_purged=int((candidate & ~inside).sum()),
    )
    return replace(windows, positions=windows.positions[inside], account=account)


def _merge(name: str, spans: Sequence[tuple[Instant, Instant]]) -> list[tuple[np.datetime64, np.datetime64]]:
    """The spans in order, those that touch or overlap made one."""
    merged: list[tuple[np.datetime64, np.datetime64]] = []
    for start, end in sorted((_instant(start), _instant(end)) for start, end in spans):
        if not start < end:
            raise UsageError(f"the {name} span {start} to {end} is empty: the end must be after the start")
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _refuse_overlap(merged: Mapping[str, Sequence[tuple[np.datetime64, np.datetime64]]]) -> None:
    ordered = sorted((start, end, name) for name, ranges in merged.items() for start, end in ranges)
    for (_, end, name), (start, _, other) in pairwise(ordered):
        if start < end:
            raise UsageError(
                f"the {name} and {other} spans overlap from {start} to {end}\n"
                "a span ends before the next begins (its end is not part of it)"
            )


def _instant(value: Instant) -> np.datetime64:
    """A time in UTC; one without a zone is taken as UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(f"{value!r} is no time: write it like 2020-06-01 or 2020-06-01T12:00") from None
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(value, "s")


def split_by_events(
    windows: Sequence[Windows], times: Sequence[np.ndarray], *, fractions: Sequence[float]
) -> dict[str, tuple[Windows, ...]]:
    """Divide whole events of several records; no event, hence no frame, is in two splits.

    An event is a stretch of a record's `times` between gaps of at least one whole window. Going back from the newest event
    of all records, each joins the test split while the test's share of all frames has room for it, else validation, else
    training; so a split can come out empty where every event is larger than its share.
    """
    room = dict(zip(SPLITS, np.array(fractions) * sum(map(len, times)) + 1e-6, strict=True))  # for rounding
    splits = [np.full(len(t), "training", object) for t in times]  # per record, the split of each frame
    events = ((record, part) for record, (w, t) in enumerate(zip(windows, times, strict=True)) for part in _events(t, w))
    for record, part in sorted(events, key=lambda event: times[event[0]][event[1][-1]], reverse=True):
        split = next((name for name in ("test", "validation") if len(part) <= room[name]), "training")
        splits[record][part] = split
        room[split] -= len(part)
    return {name: tuple(_of_frames(w, frames == name) for w, frames in zip(windows, splits, strict=True)) for name in SPLITS}


def _events(times: np.ndarray, windows: Windows) -> list[np.ndarray]:
    """The positions of the frames of each event."""
    if not len(times) or np.isnat(windows.time_step):
        return [np.array([position]) for position in range(len(times))]
    apart = np.diff(times) >= windows.positions.shape[1] * windows.time_step
    return np.split(np.arange(len(times)), np.flatnonzero(apart) + 1)


def _of_frames(windows: Windows, chosen: np.ndarray) -> Windows:
    """The windows whose frames are `chosen`, a mask (time,)."""
    inside = chosen[windows.positions[:, 0]]
    return _part(windows, inside, inside, num_frames=int(chosen.sum()))
