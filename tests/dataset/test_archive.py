"""Which windows a run trains on: splits that share no frame, and refusals that say why."""

import os
from datetime import datetime

import numpy as np
import pytest
from makers import rain, tiny_experiment, write_record
from sequence_file import write_sequences

from nowcast.dataset.archive import open_archive
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.index import MANY

pytestmark = pytest.mark.usefixtures("cache")

EPOCH = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")


def data(records, **changes):
    return tiny_experiment(records).data.model_copy(update=changes)


def splits(records, **changes):
    experiment = tiny_experiment(records)
    return experiment.data.model_copy(update={"splits": experiment.data.splits.model_copy(update=changes)})


def used(plan, split):
    return {(r.name, int(p)) for r, w in zip(plan.records, plan.windows[split], strict=True) for p in w.positions.ravel()}


def test_no_records_is_a_usage_error():
    with pytest.raises(UsageError, match=r"no records to train on: give --data RECORD or data\.records in the config"):
        open_archive(data([]))


def test_no_complete_window_says_why(tmp_path):
    with pytest.raises(
        DataError, match=r"no complete training window of 2 \+ 3 frames.*\n0 windows in .*; 4 start times dropped: gap[^\n]*\.$"
    ) as caught:
        open_archive(data([write_record(tmp_path / "a.nc", rain(frames=4))]))
    assert caught.value.exit_code == 75


def test_fractions_leave_a_whole_window_between_splits(tmp_path):
    plan = open_archive(data([write_record(tmp_path / "a.nc", rain(frames=60))]))
    training, validation = used(plan, "training"), used(plan, "validation")
    assert training
    assert validation
    assert min(p for _, p in validation) - max(p for _, p in training) > 5


def test_events_are_kept_whole(tmp_path):
    times = [EPOCH + (day * 1440 + 5 * n) * MINUTES for day in range(4) for n in range(10)]
    record = write_record(tmp_path / "a.nc", rain(frames=40), times=times)
    plan = open_archive(splits([record], by="events", fractions=(0.5, 0.25, 0.25)))
    assert used(plan, "test") == {("a", n) for n in range(30, 40)}
    assert used(plan, "validation") == {("a", n) for n in range(20, 30)}
    assert used(plan, "training") == {("a", n) for n in range(20)}


def test_records_are_split_by_their_names(tmp_path):
    names = ("a.nc", "b.nc", "c.nc")
    paths = [write_record(tmp_path / name, rain(frames=10, shape=(20 + n, 20))) for n, name in enumerate(names)]
    plan = open_archive(splits(paths, by="records", validation_records=("*/b.nc",), test_records=("*/c.*",)))
    assert {name for name, _ in used(plan, "training")} == {"a"}
    assert {name for name, _ in used(plan, "validation")} == {"b"}
    assert {name for name, _ in used(plan, "test")} == {"c"}


def frames_of(plan, split):
    pairs = zip(plan.records, plan.windows[split], strict=True)
    return {int((time - EPOCH) / (5 * MINUTES)) for r, w in pairs for time in r.times[w.positions.ravel()]}


def test_records_that_overlap_in_time_share_no_frame_between_splits(tmp_path):
    names, starts = ("a.nc", "b.nc", "c.nc"), (0, 30, 45)  # slots 0 to 39, 30 to 59, 45 to 74
    lengths = (40, 30, 30)
    paths = [
        write_record(tmp_path / name, rain(frames=length), times=EPOCH + (start + np.arange(length)) * 5 * MINUTES)
        for name, start, length in zip(names, starts, lengths, strict=True)
    ]
    plan = open_archive(splits(paths, by="records", validation_records=("*/b.nc",), test_records=("*/c.nc",)))
    assert frames_of(plan, "training") == set(range(25))  # 25 is 5 frames from 30, the length of a window
    assert frames_of(plan, "validation") == set(range(30, 40))
    assert frames_of(plan, "test") == set(range(45, 75))
    assert plan.account.as_dict() == {"num_frames": 100, "num_candidates": 100, "num_windows": 21 + 6 + 26, "num_gap": 12,
                                      "num_strided": 0, "num_missing": 0, "num_dry": 0, "num_purged": 15 + 20}  # fmt: skip


def test_records_of_other_grids_and_sequences_may_have_the_same_times(tmp_path):
    paths = [write_record(tmp_path / f"{n}.nc", rain(frames=10, shape=(20 + n, 20))) for n in range(2)]
    plan = open_archive(splits(paths, by="records", validation_records=("*/1.nc",)))
    assert [plan.num_windows(split) for split in ("training", "validation")] == [6, 6]
    events = np.clip(rain(frames=20, shape=(12, 12)).reshape(2, 10, 12, 12), 0, 1)
    paths = [tmp_path / f"{name}.nc" for name in ("training", "validation")]
    for path in paths:
        write_sequences(path, events, title="", source="")
    chosen = splits(paths, by="records", validation_records=("*validation*",)).model_copy(update={"variable": "intensity"})
    plan = open_archive(chosen)
    assert [plan.num_windows(split) for split in ("training", "validation")] == [12, 12]


def test_the_same_record_under_two_names_cannot_train_and_validate(tmp_path):
    paths = [write_record(tmp_path / name, rain(frames=10)) for name in ("a.nc", "b.nc")]
    message = (
        r"^no complete training window.*\n6 windows in 20 .*; 6 start times dropped: at the edge of a split, or near another"
    )
    with pytest.raises(DataError, match=message):
        open_archive(splits(paths, by="records", validation_records=("*/b.nc",)))


def test_a_folder_names_its_records_and_a_pattern_without_a_match_is_refused(tmp_path):
    for number, folder in enumerate(("2015", "2016", "2017")):
        (tmp_path / folder).mkdir()
        times = EPOCH + (100 * number + np.arange(10)) * 5 * MINUTES
        write_record(tmp_path / folder / f"{folder}.nc", rain(frames=10), times=times)
    named = {"validation_records": (f"{tmp_path}/2016/",), "test_records": ("*/2017",)}
    plan = open_archive(splits([tmp_path], by="records", **named))
    assert [frames_of(plan, split) for split in ("training", "validation", "test")] == [
        set(range(10)), set(range(100, 110)), set(range(200, 210))
    ]  # fmt: skip
    for split in ("validation", "test"):
        message = rf"^data\.splits\.{split}_records: '\*/2061/\*' matches none of the 3 files, such as .*/2015/2015\.nc\ngive f"
        with pytest.raises(UsageError, match=message):
            open_archive(splits([tmp_path], by="records", **named | {f"{split}_records": ("*/2061/*",)}))


def test_a_record_named_for_validation_and_for_a_test_is_refused(tmp_path):
    paths = [write_record(tmp_path / f"{name}.nc", rain(frames=10)) for name in ("a", "b")]
    message = r"^data\.splits: .*/b\.nc is in validation_records and in test_records\ngive it in one of them"
    with pytest.raises(UsageError, match=message):
        open_archive(splits(paths, by="records", validation_records=("*/b.nc",), test_records=("*.nc",)))


def test_spans_choose_by_time(tmp_path):
    record = write_record(tmp_path / "a.nc", rain(frames=24))
    start, middle, end = datetime(2020, 6, 1), datetime(2020, 6, 1, 1), datetime(2020, 6, 2)
    spans = {"training": ((start, middle),), "validation": ((middle, end),)}
    plan = open_archive(splits([record], by="spans", **spans))
    assert used(plan, "training") == {("a", n) for n in range(12)}
    assert used(plan, "validation") == {("a", n) for n in range(12, 24)}


def test_days_choose_by_their_number(tmp_path):
    times = [EPOCH + 120 * n * MINUTES for n in range(60)]  # 2020-06-01 has the day number 4
    record = write_record(tmp_path / "a.nc", rain(frames=60), times=times)
    plan = open_archive(splits([record], by="days"))
    assert used(plan, "training") == {("a", n) for n in range(12)}
    assert used(plan, "validation") == {("a", n) for n in range(24, 36)}
    assert used(plan, "test") == {("a", n) for n in range(36, 48)}


def test_windows_with_too_much_missing_or_too_little_rain_are_dropped(tmp_path):
    fields = np.zeros((12, 20, 20), np.float32)
    fields[6:] = 1.0
    fields[3, :12] = np.nan
    record = write_record(tmp_path / "a.nc", fields)
    keep_all = splits([record], fractions=(1.0, 0.0, 0.0))
    assert open_archive(keep_all).num_windows("training") == 8
    account = open_archive(keep_all.model_copy(update={"max_missing": 0.5, "min_wet": 0.5})).account
    assert (account.num_windows, account.num_missing, account.num_dry) == (4, 4, 0)
    account = open_archive(keep_all.model_copy(update={"min_wet": 0.5})).account
    assert account.num_dry == 4


def test_a_longer_time_step_takes_every_so_many_frames(tmp_path):
    record = write_record(tmp_path / "a.nc", rain(frames=20))
    plan = open_archive(splits([record], fractions=(1.0, 0.0, 0.0)).model_copy(update={"time_step": 10}))
    assert plan.time_steps() == [600]
    assert (np.diff(plan.windows["training"][0].positions, axis=1) == 2).all()


@pytest.mark.parametrize("minutes", [2.5, 7])
def test_a_time_step_that_no_record_has_is_named(tmp_path, minutes):
    fields = {step: rain(frames=40, shape=(24, 20 + step)) for step in (5, 6)}  # on two grids
    records = [write_record(tmp_path / f"{step}.nc", rates, step_minutes=step) for step, rates in fields.items()]
    data = splits(records, fractions=(1.0, 0.0, 0.0)).model_copy(update={"time_step": minutes})
    message = rf"data\.time_step = {minutes:g} minutes fits no record: their frames are 5, 6 minutes apart\.\n.*'auto'"
    with pytest.raises(DataError, match=message):
        open_archive(data)


def test_rain_and_another_quantity_do_not_train_together(tmp_path):
    a = write_record(tmp_path / "a.nc", rain(frames=10))
    b = write_record(tmp_path / "b.nc", rain(frames=10) / 100, units="1", standard_name="probability")
    with pytest.raises(DataError):
        open_archive(data([a, b]))


def test_the_files_of_an_archive_are_opened_once(tmp_path, monkeypatch):
    for number in range(MANY):
        time = [EPOCH + 5 * number * MINUTES]
        write_record(tmp_path / f"{number}.nc", rain(frames=1, shape=(16, 16)), times=time)
        os.utime(tmp_path / f"{number}.nc", (0, 0))  # what has just changed is not believed to stay as it is
    first = open_archive(data([tmp_path]))
    opened, briefly = set(), OPEN_FILES.briefly
    monkeypatch.setattr(OPEN_FILES, "briefly", lambda path: opened.add(path) or briefly(path))
    again = open_archive(data([tmp_path]))
    assert used(again, "training") == used(first, "training")
    assert len(opened) <= 4  # a sample of the frames, in which undeclared numbers for dry are looked for


def test_a_record_in_which_nothing_is_known_is_refused(tmp_path):
    write_record(tmp_path / "a.nc", np.full((20, 8, 9), np.nan))
    archive = open_archive(data([tmp_path / "a.nc"]))
    with pytest.raises(DataError, match=r"^a: every cell of the frames of all training windows is missing\.\nExpected observ"):
        archive.series("training")
    write_record(tmp_path / "b.nc", rain(frames=20, shape=(8, 9)))
    assert len(open_archive(data([tmp_path])).series("training")) == 1  # one series: b replaces a
