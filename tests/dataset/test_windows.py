"""Windows are exact, account for every frame, and agree with a count by brute force."""

import time as clock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.slots import FIVE, MINUTE, lengths, records, times_at

from nowcast.dataset.splits import split_windows
from nowcast.dataset.windows import Account, find_references, find_windows
from nowcast.errors import UsageError


def brute_force(times, *, input_frames, lead_frames, time_step, stride, missing, wet, max_missing, min_wet):
    """Rows of positions and the number dropped for each reason, one frame at a time with dict look-ups."""
    where = {t: position for position, t in enumerate(times.tolist())}
    step = time_step.astype(object)
    complete = []
    for t in times.tolist():
        wanted = [t + k * step for k in range(1 - input_frames, lead_frames + 1)]
        if all(w in where for w in wanted):
            complete.append([where[w] for w in wanted])
    rows, num_missing, num_dry = [], 0, 0
    for row in complete[::stride]:
        known = [wet[p] for p in row if not np.isnan(wet[p])]
        if any(missing[p] > max_missing for p in row):
            num_missing += 1
        elif min_wet > 0 and (sum(known) / len(known) if known else 0) < min_wet:
            num_dry += 1
        else:
            rows.append(row)
    dropped = {"num_gap": len(times) - len(complete), "num_missing": num_missing, "num_dry": num_dry}
    return rows, dropped | {"num_strided": len(complete) - len(complete[::stride])}


limits = st.fixed_dictionaries({"max_missing": st.sampled_from([0.25, 0.5, 1.0]), "min_wet": st.sampled_from([0.0, 0.25, 0.5])})


@settings(max_examples=200)
@given(records(), lengths, limits)
def test_windows_agree_with_brute_force(record, length, limit):
    times, missing, wet = record
    windows = find_windows(times, missing=missing, wet=wet, **length, **limit)
    rows, dropped = brute_force(times, missing=missing, wet=wet, **length, **limit)
    assert windows.positions.tolist() == rows
    assert windows.positions.dtype == np.int64
    assert windows.positions.shape == (len(rows), length["input_frames"] + length["lead_frames"])
    account = windows.account.as_dict()
    assert {name: account[name] for name in dropped} == dropped
    assert account["num_windows"] == len(rows) == len(windows)
    assert account["num_candidates"] == account["num_frames"] == len(times) == len(rows) + sum(dropped.values())


@settings(max_examples=50)
@given(records(), lengths)
def test_frames_of_a_window_are_exactly_one_time_step_apart(record, length):
    times, _, _ = record
    windows = find_windows(times, **length)
    assert (np.diff(times[windows.positions], axis=1) == length["time_step"]).all()
    references = times[windows.reference_positions]
    assert (np.diff(references) > np.timedelta64(0, "s")).all()


def test_windows_never_cross_a_gap():
    slots = [s for s in range(40) if s not in (17, 18)]
    windows = find_windows(times_at(slots), input_frames=4, lead_frames=6, time_step=FIVE)
    crossing = [row for row in windows.positions.tolist() if slots[row[0]] < 17 < slots[row[-1]]]
    assert crossing == []
    assert len(windows) == (17 - 9) + (21 - 9)
    assert windows.account.num_gap == 2 * 9


def test_ten_minute_windows_from_five_minute_frames_take_every_second_frame():
    windows = find_windows(times_at(range(8)), input_frames=2, lead_frames=1, time_step=2 * FIVE)
    assert windows.positions.tolist() == [[0, 2, 4], [1, 3, 5], [2, 4, 6], [3, 5, 7]]
    assert windows.reference_positions.tolist() == [2, 3, 4, 5]


def test_windows_a_whole_window_apart_share_no_frame():
    windows = find_windows(times_at(range(50)), input_frames=4, lead_frames=6, time_step=FIVE, stride=10)
    assert len(windows) == 5
    assert len(np.unique(windows.positions)) == windows.positions.size


def test_a_time_step_that_the_record_does_not_have_gives_no_window():
    windows = find_windows(times_at(range(20)), input_frames=2, lead_frames=2, time_step=7 * MINUTE)
    assert len(windows) == 0
    assert windows.account.num_gap == 20


@pytest.mark.parametrize("num_frames", [0, 1, 9])
def test_records_shorter_than_a_window_give_none(num_frames):
    windows = find_windows(times_at(range(num_frames)), input_frames=4, lead_frames=6, time_step=FIVE)
    assert windows.positions.shape == (0, 10)
    assert windows.account == Account(num_frames, num_frames, 0, num_gap=num_frames)


def test_a_single_frame_has_no_time_step_and_no_window():
    unknown = np.timedelta64("NaT", "s")
    assert len(find_windows(times_at([3]), input_frames=1, lead_frames=1, time_step=unknown)) == 0
    assert find_references(times_at([3]), input_frames=1, time_step=unknown).tolist() == [[0]]
    assert find_references(times_at([3]), input_frames=2, time_step=unknown).shape == (0, 2)


def test_frames_off_their_exact_time_make_no_window():
    times = times_at(range(8)) + np.array([0, 20, -20, 15, -10, 0, 70, 0]) * np.timedelta64(1, "s")
    assert len(find_windows(times, input_frames=2, lead_frames=1, time_step=FIVE)) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"input_frames": 0}, "input_frames is 0: at least 1"),
        ({"stride": 0}, "stride is 0: at least 1"),
        ({"time_step": 0 * MINUTE}, "time_step is 0 seconds: it must be positive"),
    ],
)
def test_numbers_that_no_window_can_have_are_refused(wrong, words):
    with pytest.raises(UsageError, match=words):
        find_windows(times_at(range(9)), **({"input_frames": 2, "lead_frames": 1, "time_step": FIVE} | wrong))


def test_unsorted_times_are_a_bug():
    with pytest.raises(AssertionError, match="sorted"):
        find_windows(times_at([1, 0]), input_frames=1, lead_frames=1, time_step=FIVE)


def test_references_need_no_future_and_end_with_the_newest_frame():
    times = times_at([0, 1, 2, 4, 5, 6, 7])
    references = find_references(times, input_frames=3, time_step=FIVE)
    assert references.tolist() == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    assert len(find_references(times[:5], input_frames=3, time_step=FIVE)) == 1  # the newest frame's past is cut


@settings(max_examples=50)
@given(records(), lengths)
def test_every_window_begins_with_a_complete_past(record, length):
    times, _, _ = record
    windows = find_windows(times, **(length | {"stride": 1}))
    pasts = find_references(times, input_frames=length["input_frames"], time_step=length["time_step"])
    kept = np.isin(pasts[:, -1], windows.reference_positions)
    assert pasts[kept].tolist() == windows.positions[:, : length["input_frames"]].tolist()


def test_selected_windows_are_the_chosen_rows_and_none_is_empty():
    windows = find_windows(times_at(range(8)), input_frames=2, lead_frames=2, time_step=FIVE)
    assert windows.select(windows.reference_positions % 2 == 0).positions.tolist() == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert windows.none().positions.shape == (0, 4)
    assert windows.none().input_frames == 2


def test_accounts_add_and_are_written_in_words():
    a = Account(105120, 105120, 105000, num_gap=24, num_dry=96)
    total = a + Account(40, 40, 25, num_gap=15)
    assert total == Account(105160, 105160, 105025, num_gap=39, num_dry=96)
    assert total.lines() == [
        "105,025 windows in 105,160 frames",
        "  39 start times dropped: gap or end of file",
        "  96 start times dropped: too dry",
    ]


def test_an_account_that_does_not_add_up_is_a_bug():
    with pytest.raises(AssertionError):
        Account(10, 10, 5, num_gap=4)


def test_a_year_of_five_minute_frames_plans_in_a_moment():
    times = times_at(range(105_120))
    wet = np.linspace(0, 1, len(times))
    began = clock.perf_counter()
    windows = find_windows(times, input_frames=5, lead_frames=20, time_step=FIVE, missing=wet, wet=wet, min_wet=0.5)
    splits = split_windows(windows, times, fractions=(0.8, 0.1, 0.1))
    assert clock.perf_counter() - began < 3  # about 0.2 s; anything quadratic takes minutes
    assert sum(len(part) for part in splits.values()) > 50_000
