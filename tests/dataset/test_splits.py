"""Splits of a record: they share no frame, lie a whole window apart, and agree with a count by brute force."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.slots import FIVE, START, lengths, records, shares, times_at

from nowcast.dataset.splits import SPLITS, split_by_days, split_by_events, split_by_records, split_windows
from nowcast.dataset.windows import Account, find_windows
from nowcast.errors import UsageError


def assert_disjoint(splits):
    assert list(splits) == list(SPLITS)
    used = [position for part in splits.values() for position in np.unique(part.positions)]
    assert len(used) == len(set(used))


@settings(max_examples=100)
@given(records(), lengths, shares)
def test_fraction_splits_share_no_frame_and_lie_a_window_apart(record, length, fractions):
    times, _, _ = record
    windows = find_windows(times, **length)
    splits = split_windows(windows, times, fractions=fractions)
    assert_disjoint(splits)
    assert sum(part.account.num_candidates for part in splits.values()) == len(windows)
    assert sum(part.account.num_frames for part in splits.values()) == len(times)
    duration = windows.positions.shape[1] * length["time_step"]
    parts = [times[part.positions] for part in splits.values() if len(part)]
    for i in range(1, len(parts)):
        assert parts[i].min() - parts[i - 1].max() > duration


@settings(max_examples=100)
@given(records(), lengths, shares)
def test_fraction_splits_purge_nothing_but_the_edges(record, length, fractions):
    times, _, _ = record
    windows = find_windows(times, **length)
    duration = windows.positions.shape[1] * length["time_step"]
    edges = [round(sum(fractions[:i]) * len(times)) for i in range(4)]
    splits = split_windows(windows, times, fractions=fractions)
    for name, start, end in zip(SPLITS, edges[:-1], edges[1:], strict=True):
        expected = [
            row
            for row in windows.positions.tolist()
            if start <= row[0] and row[-1] < end and (start == 0 or times[row[0]] - times[start - 1] > duration)
        ]
        assert splits[name].positions.tolist() == expected


def test_the_purge_gap_is_one_whole_window_of_frames():
    times = times_at(range(100))
    windows = find_windows(times, input_frames=2, lead_frames=3, time_step=FIVE)
    splits = split_windows(windows, times, fractions=(0.6, 0.4, 0.0))
    assert splits["training"].positions.max() == 59
    assert splits["validation"].positions.min() == 65
    assert splits["training"].account == Account(60, 60, 56, num_purged=4)
    assert splits["validation"].account == Account(40, 36, 31, num_purged=5)


def test_even_one_frame_of_training_is_kept_apart():
    times = times_at(range(10))
    windows = find_windows(times, input_frames=1, lead_frames=1, time_step=FIVE)
    splits = split_windows(windows, times, fractions=(0.1, 0.9, 0.0))
    assert splits["training"].account == Account(1, 1, 0, num_purged=1)
    assert splits["validation"].positions.min() == 3


def test_a_natural_gap_at_the_boundary_needs_no_purge():
    times = times_at([*range(20), *range(1000, 1020)])
    windows = find_windows(times, input_frames=2, lead_frames=3, time_step=FIVE)
    splits = split_windows(windows, times, fractions=(0.5, 0.5, 0.0))
    assert [len(splits[name]) for name in SPLITS] == [16, 16, 0]
    assert sum(part.account.num_purged for part in splits.values()) == 0


def test_a_short_event_may_leave_no_validation_window_and_says_why():
    times = times_at(range(40))
    windows = find_windows(times, input_frames=4, lead_frames=12, time_step=FIVE)
    splits = split_windows(windows, times, fractions=(0.75, 0.25, 0.0))
    assert len(splits["training"]) == 15
    assert splits["training"].account.num_purged == 10
    assert splits["validation"].positions.shape == (0, 16)
    late = split_windows(windows, times, fractions=(0.5, 0.5, 0.0))["validation"]
    assert len(late) == 0
    assert late.account.num_purged == 5


@settings(max_examples=100)
@given(records(), lengths, st.lists(st.tuples(st.integers(1, 12), st.sampled_from([*SPLITS, "unused"])), max_size=8))
def test_span_splits_agree_with_brute_force(record, length, blocks):
    times, _, _ = record
    windows = find_windows(times, **length)
    spans, merged, slot = {name: [] for name in SPLITS}, {name: [] for name in SPLITS}, 0
    for size, name in blocks:
        if name != "unused":
            span = (times_at(slot), times_at(slot + size))
            spans[name].append(span)
            touches = merged[name] and merged[name][-1][1] == span[0]
            merged[name].append((merged[name].pop()[0], span[1]) if touches else span)
        slot += size
    splits = split_windows(windows, times, spans=spans)
    assert_disjoint(splits)
    for name in SPLITS:
        expected = [
            row
            for row in windows.positions.tolist()
            if any(all(start <= times[p] < end for p in row) for start, end in merged[name])
        ]
        assert splits[name].positions.tolist() == expected
        in_split = [any(start <= t < end for start, end in merged[name]) for t in times]
        assert splits[name].account.num_frames == sum(in_split)
        assert splits[name].account.num_candidates == sum(in_split[row[0]] for row in windows.positions.tolist())


def test_spans_take_dates_text_and_zones():
    times = times_at(range(0, 288 * 4))
    windows = find_windows(times, input_frames=2, lead_frames=2, time_step=FIVE)
    cest = timezone(timedelta(hours=2))
    forms = [
        ("2020-06-02", "2020-06-03"),
        ("2020-06-02T00:00:00Z", "2020-06-03T02:00+02:00"),
        (datetime(2020, 6, 2).date(), datetime(2020, 6, 3)),
        (datetime(2020, 6, 2, tzinfo=UTC), datetime(2020, 6, 3, 2, tzinfo=cest)),
        (np.datetime64("2020-06-02"), np.datetime64("2020-06-03T00:00:00.000000000")),
    ]
    for span in forms:
        training = split_windows(windows, times, spans={"training": [span]})["training"]
        assert (training.positions.min(), training.positions.max()) == (288, 2 * 288 - 1)


def test_spans_of_one_split_may_nest_and_touch():
    times = times_at(range(48))
    windows = find_windows(times, input_frames=2, lead_frames=2, time_step=FIVE)
    nested = [
        ("2020-06-01", "2020-06-01T02"),
        ("2020-06-01T00:30", "2020-06-01T01"),
        ("2020-06-01T02", "2020-06-01T03"),
    ]
    training = split_windows(windows, times, spans={"training": nested})["training"]
    assert training.account == Account(36, 36, 33, num_purged=3)


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ({"training": [("2020-06-01", "2020-06-03")], "test": [("2020-06-02", "2020-06-04")]}, "training and test"),
        ({"training": [("2020-06-01", "2020-06-09")], "test": [("2020-06-02", "2020-06-03")]}, "training and test"),
        ({"training": [("2020-06-02", "2020-06-02")]}, "training span .* is empty"),
        ({"training": [("yesterday", "2020-06-02")]}, "'yesterday' is not a time"),
        ({"training": [("2020-06-01 14.35", "2020-06-02")]}, "'2020-06-01 14.35' is not a time"),  # to Python 14:00
        ({"training": [("2020-06-01", "2020-06-02+02:00")]}, r"'2020-06-02\+02:00' is not a time"),  # to Python 2 o'clock
        ({"train": [("2020-06-01", "2020-06-02")]}, "no such split: train"),
    ],
)
def test_spans_that_cannot_be_are_refused(spans, words):
    times = times_at(range(10))
    windows = find_windows(times, input_frames=1, lead_frames=1, time_step=FIVE)
    with pytest.raises(UsageError, match=words):
        split_windows(windows, times, spans=spans)


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.4, 0.0), (0.5, 0.499, 0.0), (1.2, -0.2, 0.0), (0.4, 0.3, 0.2, 0.1), (float("nan"), 1, 0)]
)
def test_fractions_that_do_not_add_to_one_are_refused(fractions):
    times = times_at(range(10))
    windows = find_windows(times, input_frames=1, lead_frames=1, time_step=FIVE)
    with pytest.raises(UsageError, match="adding to 1"):
        split_windows(windows, times, fractions=fractions)


def test_splits_need_fractions_or_spans():
    windows = find_windows(times_at(range(9)), input_frames=1, lead_frames=1, time_step=FIVE)
    with pytest.raises(UsageError, match="neither"):
        split_windows(windows, times_at(range(9)))
    with pytest.raises(UsageError, match="both"):
        split_windows(windows, times_at(range(9)), fractions=(1, 0, 0), spans={})


HOUR = 12 * FIVE


CYCLE = {"every_days": 10, "days": {"training": (0, 1, 2, 3, 4), "validation": (6,), "test": (7,)}}


def day_of(times) -> np.ndarray:
    """Days since 1970-01-01, UTC."""
    return np.asarray(times).astype("datetime64[D]").astype(int)


def test_days_are_split_by_their_number():
    assert day_of(START) % 10 == 4  # 2020-06-01 is 18414 days after 1970-01-01
    times = START + np.arange(24 * 20) * HOUR
    windows = find_windows(times, input_frames=1, lead_frames=2, time_step=HOUR)
    splits = split_by_days(windows, times, **CYCLE)
    used = {name: np.unique(day_of(times[part.positions])) - day_of(START) for name, part in splits.items()}
    assert used["training"].tolist() == [0, 6, 7, 8, 9, 10, 16, 17, 18, 19]  # the rest of the cycle is left out
    assert used["validation"].tolist() == [2, 12]
    assert used["test"].tolist() == [3, 13]


def test_days_of_one_split_in_a_row_are_one_span():
    times = START + np.arange(24 * 20) * HOUR
    windows = find_windows(times, input_frames=1, lead_frames=2, time_step=HOUR)
    splits = split_by_days(windows, times, **CYCLE)
    assert splits["training"].account == Account(240, 238, 234, num_purged=4)  # two at the end of each day 4
    assert splits["validation"].account == Account(48, 48, 44, num_purged=4)
    around = split_by_days(windows, times, every_days=10, days={"training": (9, 0), "test": (1,)})
    assert around["training"].account == Account(96, 96, 92, num_purged=4)  # from day 9 to 0 no window is lost
    everything = split_by_days(windows, times, every_days=2, days={"training": (0, 1)})
    assert everything["training"].positions.tolist() == windows.positions.tolist()


@st.composite
def cycles(draw):
    every_days = draw(st.integers(2, 7))
    owners = draw(st.lists(st.sampled_from([*SPLITS, "unused"]), min_size=every_days, max_size=every_days))
    return every_days, {name: tuple(n for n, owner in enumerate(owners) if owner == name) for name in SPLITS}


@settings(max_examples=100)
@given(st.sets(st.integers(-100, 100), max_size=120), lengths, cycles())
def test_day_splits_agree_with_brute_force(slots, length, cycle):
    """Frames every six hours around 1970: a window is kept if it, and every day that it passes, is of one split."""
    every_days, days = cycle
    times = np.datetime64("1970-01-01T00:00:00") + np.array(sorted(slots), np.int64) * 6 * HOUR
    windows = find_windows(times, **(length | {"time_step": length["time_step"] * 72}))
    splits = split_by_days(windows, times, every_days=every_days, days=days)
    assert_disjoint(splits)
    for name in SPLITS:
        passed = [range(day_of(times[row[0]]), day_of(times[row[-1]]) + 1) for row in windows.positions]
        inside = [all(day % every_days in days[name] for day in span) for span in passed]
        assert splits[name].positions.tolist() == windows.positions[np.array(inside, bool)].tolist()
        frames = [day % every_days in days[name] for day in day_of(times)]
        assert splits[name].account.num_frames == sum(frames)
        assert splits[name].account.num_candidates == sum(frames[row[0]] for row in windows.positions)


@st.composite
def archives(draw):
    """Times of one to three records, each of a few events with long and short gaps between them."""
    slots = []
    for _ in range(draw(st.integers(1, 3))):
        runs = draw(st.lists(st.tuples(st.integers(1, 30), st.integers(2, 12)), max_size=5))
        start = draw(st.integers(0, 50))
        slots.append([])
        for length, gap in runs:
            slots[-1] += range(start, start + length)
            start += length + gap
    return [times_at(record) for record in slots]


@settings(max_examples=100)
@given(archives(), lengths, shares)
def test_event_splits_lose_no_window_share_no_frame_and_keep_to_their_fractions(times, length, fractions):
    planned = [find_windows(t, **length) for t in times]
    splits = split_by_events(planned, times, fractions=fractions)
    for record, (windows, t) in enumerate(zip(planned, times, strict=True)):
        parts = {name: splits[name][record] for name in SPLITS}
        assert_disjoint(parts)
        assert sorted(row for part in parts.values() for row in part.positions.tolist()) == windows.positions.tolist()
        assert sum(part.account.num_frames for part in parts.values()) == len(t)
        duration = windows.positions.shape[1] * length["time_step"]
        owned = [(t[part.positions], name) for name, part in parts.items() if len(part)]
        for a, name in owned:
            for b, other in owned:
                near = abs(a.reshape(-1, 1) - b.reshape(1, -1)) < duration
                assert name == other or not near.any()
    total = sum(map(len, times))
    for name, fraction in zip(SPLITS[1:], fractions[1:], strict=True):
        assert sum(part.account.num_frames for part in splits[name]) <= fraction * total


def test_the_newest_events_are_kept_for_test_and_validation():
    times = [times_at([*range(10), *range(300, 310)]), times_at([*range(100, 110), *range(200, 210)])]
    planned = [find_windows(t, input_frames=2, lead_frames=2, time_step=FIVE) for t in times]
    splits = split_by_events(planned, times, fractions=(0.5, 0.25, 0.25))
    kept = {name: [[len(part), *np.unique(part.positions // 10)] for part in splits[name]] for name in SPLITS}
    assert kept == {"training": [[7, 0], [7, 0]], "validation": [[0], [7, 1]], "test": [[7, 1], [0]]}


def test_an_event_that_just_fills_its_room_has_it():
    times = times_at([*range(71), *range(74, 103)])  # a gap of 4 time steps, the length of a window
    windows = find_windows(times, input_frames=2, lead_frames=2, time_step=FIVE)
    assert 0.29 * 100 < 29  # in floating point
    splits = split_by_events([windows], [times], fractions=(0.71, 0.0, 0.29))
    assert {name: splits[name][0].account.num_frames for name in SPLITS} == {"training": 71, "validation": 0, "test": 29}


def test_training_keeps_away_from_the_frames_of_other_records_on_both_sides():
    slots = [range(60), range(50, 54), range(20, 24)]  # of training and, not in this order of time, of validation and test
    times = [times_at(each) for each in slots]
    windows = [find_windows(t, input_frames=2, lead_frames=2, time_step=FIVE) for t in times]
    (found, *_) = split_by_records(windows, times, assigned=SPLITS, places=(0, 0, 0))["training"]
    firsts = [n for n in range(57) if all(n + 3 + 4 < a or n - 4 > b for a, b in ((20, 23), (50, 53)))]
    assert found.positions[:, 0].tolist() == firsts
    assert (found.account.num_windows, found.account.num_purged) == (len(firsts), 57 - len(firsts))
