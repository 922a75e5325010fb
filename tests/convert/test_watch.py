"""Files that come into a folder become a record each, once; broken ones are told once, changed ones converted again."""

import os

import numpy as np
import pytest
from makers.originals import START, counts, write_odim

from nowcast.convert.inputs import find_files
from nowcast.convert.jobs import Request
from nowcast.convert.watch import TRIES, watch
from nowcast.errors import UsageError
from nowcast.netcdf.opening import open_records
from nowcast.runtime.outputs import temporary_path

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")
pytest.importorskip("h5py")


class Steps:
    """A stop request that runs one step between two listings of a folder, and then stops."""

    def __init__(self, *steps):
        self.steps, self.received = list(steps), 0

    def wait(self, seconds):
        if self.steps:
            self.steps.pop(0)()
        else:
            self.received = 2


def nothing():
    """Let a listing pass."""


def test_each_file_that_comes_becomes_a_record_once(tmp_path):
    (tmp_path / "in").mkdir()
    write_odim(tmp_path / "in/a.h5", counts(seed=0))
    steps = Steps(nothing, lambda: write_odim(tmp_path / "in/b.h5", counts(seed=1), minutes=5), nothing, nothing, nothing)
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=steps))
    assert written == [tmp_path / "out/a.nc", tmp_path / "out/b.nc"]
    (record,) = open_records([tmp_path / "out"])
    np.testing.assert_allclose(record.read([1])[0], counts(seed=1) * 0.1, rtol=1e-6)


def test_a_file_that_changes_is_converted_again(tmp_path):
    (tmp_path / "in").mkdir()
    write_odim(tmp_path / "in/a.h5", counts(seed=0))
    steps = Steps(nothing, lambda: write_odim(tmp_path / "in/a.h5", counts(seed=1, shape=(13, 14))), nothing, nothing)
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=steps))
    assert written == [tmp_path / "out/a.nc"] * 2
    assert open_records([tmp_path / "out"])[0].grid.shape == (13, 14)


def test_a_broken_file_is_told_once_and_the_others_go_on(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    broken = write_odim(tmp_path / "in/a.h5", counts())
    broken.write_bytes(broken.read_bytes()[:3000])
    write_odim(tmp_path / "in/b.h5", counts())
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(*[nothing] * (TRIES + 3))))
    assert written == [tmp_path / "out/b.nc"]
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 1
    assert told[0].startswith(f"left out: {broken} is damaged or incomplete")


def test_a_record_of_another_file_is_left_and_told(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    write_odim(tmp_path / "in/a.h5", counts(seed=0))
    assert len(list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(nothing, nothing)))) == 1
    (tmp_path / "in/a.h5").unlink()
    write_odim(tmp_path / "in/a.hdf", counts(seed=1))
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(nothing, nothing))) == []
    told = f"{tmp_path / 'out/a.nc'} was converted from another file than {tmp_path / 'in/a.hdf'}"
    assert sum(record.message.startswith(told) for record in caplog.records) == 1
    np.testing.assert_allclose(values(tmp_path / "out/a.nc"), counts(seed=0) * 0.1, rtol=1e-6)


def test_a_file_that_changed_while_no_watch_ran_is_converted_again(tmp_path, caplog):
    (tmp_path / "in/east").mkdir(parents=True)
    day, record = tmp_path / "in/east/day.h5", tmp_path / "out/east/day.nc"
    write_odim(day, counts(seed=0))
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(nothing, nothing))) == [record]
    write_odim(day, counts(seed=1, shape=(13, 14)))
    found = []

    def change(seed):
        found.append(values(record))
        write_odim(day, counts(seed=seed, shape=(11 + seed, 14)))

    steps = Steps(nothing, lambda: change(2), nothing, lambda: change(3), nothing, nothing)
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=steps)) == [record] * 3
    for field, (seed, rows) in zip([*found, values(record)], ((1, 13), (2, 13), (3, 14)), strict=True):
        np.testing.assert_allclose(field, counts(seed=seed, shape=(rows, 14)) * 0.1, rtol=1e-6)
    assert not [each for each in caplog.records if "another file" in each.message]


def values(path):
    return open_records([path])[0].read([0])[0]


def test_files_of_one_name_in_two_folders_become_a_record_each(tmp_path, caplog):
    """The second had no record; when it changed, its record replaced that of the first."""
    (tmp_path / "in/east/far").mkdir(parents=True)
    paths = [tmp_path / "in" / folder / "a.h5" for folder in ("", "east", "east/far")]
    for number, path in enumerate(paths):
        write_odim(path, counts(seed=number))
    steps = Steps(nothing, lambda: write_odim(paths[1], counts(seed=7, shape=(13, 14))), nothing, nothing)
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=steps))
    records = [tmp_path / "out" / folder / "a.nc" for folder in ("", "east", "east/far")]
    assert (written[:3], written[3:]) == (records, records[1:2])
    for record, field in zip(records, (counts(seed=0), counts(seed=7, shape=(13, 14)), counts(seed=2)), strict=True):
        np.testing.assert_allclose(values(record), field * 0.1, rtol=1e-6)
    assert not [record for record in caplog.records if "another file" in record.message]
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(nothing, nothing))) == []


def test_a_record_of_another_file_is_not_replaced_when_a_file_changes(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    write_odim(tmp_path / "in/a.h5", counts(seed=0))
    steps = Steps(nothing, lambda: write_odim(tmp_path / "in/a.hdf", counts(seed=1)), nothing, nothing,
                  lambda: write_odim(tmp_path / "in/a.hdf", counts(seed=2, shape=(13, 14))), nothing, nothing)  # fmt: skip
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=steps)) == [tmp_path / "out/a.nc"]
    np.testing.assert_allclose(values(tmp_path / "out/a.nc"), counts(seed=0) * 0.1, rtol=1e-6)
    told = f"{tmp_path / 'out/a.nc'} was converted from another file than {tmp_path / 'in/a.hdf'}: rename the file, or delete"
    assert sum(record.message.startswith(told) for record in caplog.records) == 2


def test_partial_files_in_subfolders_are_removed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out/east").mkdir(parents=True)
    stale = temporary_path(tmp_path / "out/east/a.nc")
    stale = stale.with_name(stale.name.replace(f".{os.getpid()}-", ".4194305-"))  # no process has this number
    stale.touch()
    assert list(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps(nothing))) == []
    assert not stale.exists()


@pytest.mark.parametrize(("minutes", "expected"), [
    (range(-2, 23), [0, 10, 20]),  # a file a minute
    ([n + 4 / 60 for n in range(-2, 23)], [4 / 60, 10 + 4 / 60, 20 + 4 / 60]),  # 4 s late
    ([n + 0.5 for n in range(-2, 23)], [-0.5, 9.5, 19.5]),  # as near to one as to the other: one of them
    ([n * 5 + 0.75 for n in range(-1, 5)], [0.75, 10.75, 20.75]),  # 45 s late, but none is nearer
    ([n * 5 + 0.75 for n in range(5)], [10.75, 20.75]),  # the first may be one of many
    ([0, 0.25, 10.25, 10], [0, 10.25]),  # one of each multiple
])  # fmt: skip
def test_of_files_that_come_one_by_one_the_frames_nearest_to_multiples_are_kept(tmp_path, minutes, expected):
    (tmp_path / "in").mkdir()
    acts = [lambda n=n, each=each: write_odim(tmp_path / f"in/{n:02}.h5", counts(seed=n), minutes=each)
            for n, each in enumerate(minutes)]  # fmt: skip
    steps = Steps(nothing, *[step for act in acts for step in (act, nothing)], nothing)
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(every=10), stop=steps))
    times = [open_records([path])[0].times[0] for path in written]
    np.testing.assert_allclose([(time - START) / np.timedelta64(60, "s") for time in times], expected)


def test_a_frame_near_a_multiple_stays_when_its_file_grows(tmp_path):
    (tmp_path / "in/other").mkdir(parents=True)
    write_odim(tmp_path / "in/a.h5", counts(seed=0), minutes=10.1)
    steps = Steps(nothing, nothing, lambda: write_odim(tmp_path / "in/a.h5", counts(seed=1), minutes=10.1), nothing,
                  lambda: write_odim(tmp_path / "in/other/a.h5", counts(seed=2), minutes=10), nothing, nothing)  # fmt: skip
    written = list(watch(tmp_path / "in", tmp_path / "out", Request(every=10), stop=steps))
    assert written == [tmp_path / "out/a.nc"] * 2 + [tmp_path / "out/other/a.nc"]
    np.testing.assert_allclose(values(tmp_path / "out/a.nc"), counts(seed=1) * 0.1, rtol=1e-6)


def test_what_files_told_is_kept_while_they_are_listed(tmp_path):
    """Thousands of files a day go through a folder that is watched for a year."""
    known = {}
    for name in "abc":
        write_odim(tmp_path / f"{name}.h5", counts())
        assert [source.path.name for source in find_files([tmp_path], known=known).inputs] == [f"{name}.h5"]
        assert {path.name for path, _ in known} == {f"{name}.h5"}
        (tmp_path / f"{name}.h5").unlink()


def test_the_folders_must_be_two(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        next(watch(tmp_path / "in", tmp_path / "out", Request(), stop=Steps()))
    with pytest.raises(UsageError, match="is the folder that is watched"):
        next(watch(tmp_path, tmp_path, Request(), stop=Steps()))
