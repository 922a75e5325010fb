"""The frames and splits that an archive allows: both training and validation have windows, and share no frame."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.archives import MINUTES, START, series

from nowcast.config.schema import Data
from nowcast.dataset.archive import split_records
from nowcast.dataset.windows import find_windows
from nowcast.errors import NotEnoughFrames
from nowcast.plan.frames import ENOUGH, choose_frames


def used(parts, chosen):
    """{split: frames used}, from the code that plans a training's windows; a frame is (record, position)."""
    planned = [
        find_windows(
            p.times,
            input_frames=chosen.input_frames,
            lead_frames=chosen.lead_frames,
            time_step=p.time_step,
            absent=np.isin(p.times, p.absent),
            max_absent=1,
        )
        for p in (part.with_absent(1) for part in parts)
    ]
    parts = [part.with_absent(1) for part in parts]
    records = [type("Record", (), {"times": part.times}) for part in parts]
    found = split_records(records, planned, [""] * len(parts), chosen.splits)
    return {
        name: {(n, int(p)) for n, windows in enumerate(found[name]) for p in windows.positions.ravel()}
        for name in ("training", "validation", "test")
    }


def test_a_long_record_gets_an_hour_from_four_frames():
    chosen = choose_frames([series(2000)])
    assert (chosen.input_frames, chosen.lead_frames) == (4, 12)
    assert (chosen.splits.by, chosen.splits.fractions, chosen.is_apart) == ("fractions", (0.75, 0.25, 0.0), True)


@pytest.mark.parametrize(("minutes", "leads"), [(1, 30), (2, 30), (5, 12), (6, 10), (15, 4), (30, 4), (60, 4)])
def test_an_hour_is_so_many_leads(minutes, leads):
    assert choose_frames([series(500, minutes=minutes)]).lead_frames == leads


def test_many_events_are_kept_whole():
    chosen = choose_frames([series(*[40] * 12)])
    assert (chosen.splits.by, chosen.splits.fractions) == ("events", (0.75, 0.25, 0.0))


def test_more_than_three_weeks_are_split_by_days():
    for days, by in ((21, "events"), (22, "days")):
        chosen = choose_frames([series(*[48] * days, gap_hours=20)])
        assert chosen.splits.by == by
    assert (chosen.splits.validation_days, chosen.splits.test_days, chosen.num_test) == ((6, 7), (), 0)
    assert chosen.num_validation_days == 4
    assert chosen.has_few_days
    assert chosen.num_validation == 4 * 33
    assert chosen.is_apart


def test_months_of_data_leave_days_for_a_test():
    chosen = choose_frames([series(*[60] * 60, gap_hours=19)])
    assert (chosen.splits.validation_days, chosen.splits.test_days) == ((6,), (7,))
    assert (chosen.num_validation_days, chosen.num_test) == (6, 6 * 45)
    assert not chosen.has_few_days


def test_months_whose_validation_days_are_empty_are_split_by_events():
    runs = [series(60, name=str(n), start=START + (n // 5 * 10 + 6 + n % 5) * 1440 * MINUTES) for n in range(25)]
    chosen = choose_frames(runs)  # 2020-06-01 has the day number 4: these are days 0 to 4
    assert (chosen.splits.by, chosen.splits.fractions) == ("events", (0.75, 0.25, 0.0))


def test_a_short_record_keeps_its_leads_as_far_as_both_splits_have_windows():
    chosen = choose_frames([series(40)])
    assert (chosen.input_frames, chosen.lead_frames, chosen.splits.by) == (4, 11, "spans")
    assert chosen.num_training >= ENOUGH[0][0]
    assert chosen.num_validation >= ENOUGH[0][1]
    assert not chosen.is_apart


def test_windows_without_rain_do_not_count_where_there_are_others():
    dry, wet = series(60, wet=0.0, start=START + 10 * 1440 * MINUTES), series(60, wet=0.2)
    chosen = choose_frames([wet, dry])
    found = used([wet, dry], chosen)
    assert all(any(record == 0 for record, _ in found[name]) for name in ("training", "validation"))
    alone = choose_frames([dry])
    assert alone.num_training
    assert alone.num_validation


def test_the_step_that_most_frames_have_decides():
    assert choose_frames([series(200, minutes=15), series(50, minutes=5)]).lead_frames == 4


def test_windows_without_rain_count_where_the_others_are_too_few():
    assert choose_frames([series(2, wet=0.2), series(60, wet=0.0)]).lead_frames == 12


@pytest.mark.parametrize("runs", [(1,), (5,), (2, 2, 2), (1, 1, 1)])
def test_too_few_frames_are_an_error_that_asks_for_more(runs):
    with pytest.raises(NotEnoughFrames, match=r"longest run|single frame") as error:
        choose_frames([series(*runs)])
    assert error.value.exit_code == 75


@pytest.mark.parametrize("runs", [(6,), (3, 3), (3, 1, 2, 3)])
def test_the_barest_archive_that_can_train_and_validate(runs):
    chosen = choose_frames([series(*runs)])
    assert (chosen.input_frames, chosen.lead_frames) == (2, 1)
    assert (chosen.num_training, chosen.num_validation) == (1, 1)


archives = st.lists(
    st.tuples(
        st.lists(st.integers(1, 60), min_size=1, max_size=12),
        st.sampled_from([2, 5, 15]),
        st.sampled_from([0.0, 0.001, 0.1, float("nan")]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(archives)
def test_both_splits_have_windows_and_share_no_frame(archive):
    parts = [
        series(*runs, minutes=minutes, wet=wet, name=str(n), start=START + day * 1440 * MINUTES)
        for n, (runs, minutes, wet, day) in enumerate(archive)
    ]
    try:
        chosen = choose_frames(parts)
    except NotEnoughFrames:
        assert max(max(runs) for runs, *_ in archive) < 6
        return
    Data(input_frames=chosen.input_frames, lead_frames=chosen.lead_frames, splits=chosen.splits)
    parts = [part for part in parts if not np.isnat(part.time_step)]
    found = used(parts, chosen)
    assert found["training"]
    assert found["validation"]
    assert not found["training"] & found["validation"]
    assert not found["test"] & (found["training"] | found["validation"])


def test_windows_with_an_absent_frame_count_as_in_training():
    whole = series(400)
    holes = dataclasses.replace(whole, times=np.delete(whole.times, range(20, 400, 20)))
    chosen, without = choose_frames([holes]), choose_frames([whole])
    assert (chosen.input_frames, chosen.lead_frames) == (4, 12)
    assert chosen.splits == without.splits
    # a record of 20 frames less one between two others: the newest past frame is there in 19 of 20 windows
    assert chosen.num_training == pytest.approx(0.95 * without.num_training, abs=2)
    alone = dataclasses.replace(whole, times=np.delete(whole.times, np.ravel([[n, n + 1] for n in range(14, 398, 16)])))
    assert choose_frames([alone]).lead_frames < 12  # gaps of two frames stay gaps
