"""Divide windows into training, validation and test, so that no frame is in two splits.

Five ways: fractions of one record in time order, spans of time, numbered days, whole rain events of several records, and whole
records. A split can be empty; its account holds its number of windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np

from nowcast.dataset.windows import Account, Windows
from nowcast.errors import UsageError
from nowcast.netcdf.times.iso import from_iso

SPLITS = ("training", "validation", "test")
Instant = str | date | datetime | np.datetime64  # a time; one without a time zone is in UTC
Span = tuple[np.datetime64, np.datetime64]  # start and end in UTC; the end is not part of it


def split_windows(
    windows: Windows,
    times: np.ndarray,
    *,
    fractions: Sequence[float] | None = None,
    spans: Mapping[str, Sequence[tuple[Instant, Instant]]] | None = None,
) -> dict[str, Windows]:
    """Divide the windows of one record by `fractions` or by `spans`.

        times: (time,) datetime64 of the record
        fractions: shares of the frames in time order for training, validation and test, which add to 1
        spans: spans of time [start, end) for each split

    By fractions, a gap of one whole window lies between two splits; windows that cross or touch it are purged. By spans, a
    window belongs to a split if all its frames lie in one of the split's spans. Spans of the same split that touch or overlap
    count as one span.

    Raises UsageError (exit 2) for fractions that do not add up to 1, empty spans, and overlapping spans of two splits.
    """
    if (fractions is None) == (spans is None):
        number = "neither" if fractions is None else "both"
        raise UsageError(f"{number} of fractions and spans are given for the splits\ngive one of the two")
    if fractions is not None:
        return _split_by_fractions(windows, times, fractions)
    return _split_by_spans(windows, times, spans)


def split_by_days(
    windows: Windows, times: np.ndarray, *, every_days: int, days: Mapping[str, Sequence[int]]
) -> dict[str, Windows]:
    """Divide the windows of one record by the number of their day: days since 1970-01-01 UTC, modulo `every_days`.

    `days` lists the day numbers of each split; days in no list are left out, which keeps the splits apart in weather too.
    Days of one split that follow each other count as one span, and a window belongs to a split if it lies within one
    span. A window that leaves the span of its first frame is purged.

    times: (time,) datetime64, UTC
    """
    splits = np.full(every_days, -1)
    for index, name in enumerate(SPLITS):
        splits[list(days.get(name, ()))] = index
    split, span = _day_spans(np.asarray(times), splits)
    first, last = windows.positions[:, 0], windows.positions[:, -1]
    is_within = span[first] == span[last]
    divided = {}
    for index, name in enumerate(SPLITS):
        candidate = split[first] == index
        num_frames = int((split == index).sum())
        divided[name] = _select_split(windows, candidate, candidate & is_within, num_frames=num_frames)
    return divided


def split_by_events(
    windows: Sequence[Windows], times: Sequence[np.ndarray], *, fractions: Sequence[float]
) -> dict[str, tuple[Windows, ...]]:
    """Divide whole events of several records.

        windows: one entry per record, as in each split that is returned
        times: (time,) datetime64, one array per record

    An event is a stretch of a record between gaps of at least one whole window. From the newest event of all records to the
    oldest, each goes to the test split if that still has room for all its frames, else to validation if that has, else to
    training. The room of a split is its fraction of all frames. So a split is empty if every event is larger than its room.
    """
    room = dict(zip(SPLITS, np.array(fractions) * sum(map(len, times)) + 1e-6, strict=True))  # 1e-6 frames for rounding
    split_of_frame = [np.full(len(t), "training", object) for t in times]
    events = [
        (record, positions)
        for record, (w, t) in enumerate(zip(windows, times, strict=True))
        for positions in _event_positions(t, w)
    ]
    for record, positions in sorted(events, key=lambda event: times[event[0]][event[1][-1]], reverse=True):
        split = next((name for name in ("test", "validation") if len(positions) <= room[name]), "training")
        split_of_frame[record][positions] = split
        room[split] -= len(positions)
    return {
        name: tuple(_select_frames(w, frames == name) for w, frames in zip(windows, split_of_frame, strict=True))
        for name in SPLITS
    }


def split_by_records(
    windows: Sequence[Windows], times: Sequence[np.ndarray], *, assigned: Sequence[str], places: Sequence[int]
) -> dict[str, tuple[Windows, ...]]:
    """Divide the windows of several records by the split that each record is assigned to.

        windows: one entry per record, as in each split that is returned
        times: (time,) datetime64, one array per record
        assigned: the split of each record
        places: a number for each record, equal where records lie on the same grid and may hold the same frames

    Of records in one place, windows of training are purged within a window's length of any frame of validation or test, and
    windows of validation within that of a frame of test.
    """
    divided = {name: [each.none() for each in windows] for name in SPLITS}
    for index, (w, split, place) in enumerate(zip(windows, assigned, places, strict=True)):
        after = SPLITS[SPLITS.index(split) + 1 :]
        others = [t for t, s, p in zip(times, assigned, places, strict=True) if p == place and s in after]
        divided[split][index] = _apart_from(np.sort(np.concatenate(others)), w, times[index]) if others else w
    return {name: tuple(of_split) for name, of_split in divided.items()}


def _apart_from(others: np.ndarray, windows: Windows, times: np.ndarray) -> Windows:
    """Return the windows from which all frames of `others` (time,), sorted, are more than the length of a window away."""
    duration = windows.positions.shape[1] * windows.time_step
    first, last = times[windows.positions[:, 0]], times[windows.positions[:, -1]]
    before = np.searchsorted(others, first - duration, side="left")
    is_apart = before == np.searchsorted(others, last + duration, side="right")
    account = replace(windows.account, num_windows=int(is_apart.sum()), num_purged=int((~is_apart).sum()))
    return replace(windows, positions=windows.positions[is_apart], account=account)


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
        splits[name] = _select_split(windows, candidate, inside, num_frames=int(end - start))
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
        span_of_first = _find_spans(first, starts, ends)
        inside = (span_of_first >= 0) & (span_of_first == _find_spans(last, starts, ends))
        num_frames = int((_find_spans(times, starts, ends) >= 0).sum())
        splits[name] = _select_split(windows, span_of_first >= 0, inside, num_frames=num_frames)
    return splits


def _find_spans(instants: np.ndarray, starts: list[np.datetime64], ends: list[np.datetime64]) -> np.ndarray:
    """Return for each instant the number of the span [start, end) that holds it, or -1. Spans are in order, disjoint."""
    if not starts:
        return np.full(len(instants), -1)
    span = np.searchsorted(np.array(starts), instants, side="right") - 1
    return np.where(instants < np.array(ends)[span], span, -1)


def _day_spans(times: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the split of each frame's day and the number of its span, which grows by one where the split changes.

    splits: (every_days,) the index of the split of each day number, -1 for days left out
    returns: two arrays (time,)
    """
    day = times.astype("datetime64[D]").astype(np.int64)
    cycle, number = np.divmod(day, len(splits))
    changes = splits != np.roll(splits, 1)  # from the day before; day 0 follows the last day of a cycle
    return splits[number], cycle * changes.sum() + np.cumsum(changes)[number]


def _select_split(windows: Windows, candidate: np.ndarray, inside: np.ndarray, *, num_frames: int) -> Windows:
    """Return the windows `inside` a split. `candidate` (window,): whether the first frame is in the split."""
    account = Account(
        num_frames=num_frames,
        num_candidates=int(candidate.sum()),
        num_windows=int(inside.sum()),
        num_purged=int((candidate & ~inside).sum()),
    )
    return replace(windows, positions=windows.positions[inside], account=account)


def _merge(name: str, spans: Sequence[tuple[Instant, Instant]]) -> list[Span]:
    """Sort the spans of one split, and merge those that touch or overlap."""
    merged: list[Span] = []
    for start, end in sorted((_as_utc(start), _as_utc(end)) for start, end in spans):
        if not start < end:
            raise UsageError(f"the {name} span {start} to {end} is empty: the end must be after the start")
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _refuse_overlap(merged: Mapping[str, Sequence[Span]]) -> None:
    ordered = sorted((start, end, name) for name, ranges in merged.items() for start, end in ranges)
    for (_, end, name), (start, _, other) in pairwise(ordered):
        if start < end:
            raise UsageError(
                f"the {name} and {other} spans overlap from {start} to {end}\n"
                "a span must end before the next begins, or at the same time (its end is not part of it)"
            )


def _as_utc(value: Instant) -> np.datetime64:
    if isinstance(value, str):
        time = from_iso(value)
        if time is None:
            raise UsageError(f"{value!r} is not a time: write it like 2020-06-01 or 2020-06-01T12:00")
        value = time
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(value, "s")


def _event_positions(times: np.ndarray, windows: Windows) -> list[np.ndarray]:
    """Return the positions of the frames of each event of one record."""
    if not len(times) or np.isnat(windows.time_step):
        return [np.array([position]) for position in range(len(times))]
    long_gap = np.diff(times) >= windows.positions.shape[1] * windows.time_step
    return np.split(np.arange(len(times)), np.flatnonzero(long_gap) + 1)


def _select_frames(windows: Windows, chosen: np.ndarray) -> Windows:
    """Return the windows whose first frame is chosen by the mask (time,); events are never divided."""
    inside = chosen[windows.positions[:, 0]]
    return _select_split(windows, inside, inside, num_frames=int(chosen.sum()))
