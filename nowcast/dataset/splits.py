"""Which stretches of a record make complete cases: positions only, no field is read here.

A window is `input_frames` past and `lead_frames` future frames, each exactly one `time_step` from the next, held as
positions into the record's sorted times. Every frame is a candidate for the reference frame (the last past frame) of
one window, and the account says what became of each candidate. Splits never share a frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np

from nowcast.dataset.windows import Account, Windows
from nowcast.errors import UsageError

SPLITS = ("training", "validation", "test")
Instant = str | date | datetime | np.datetime64


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
