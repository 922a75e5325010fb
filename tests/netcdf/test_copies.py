"""Frames whose times come again: the last copy that holds something is read; forecasts among records are told."""

import os

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.damaged import damage, write_by_frame

from nowcast.netcdf import damage as damage_module
from nowcast.netcdf.index import FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record

FIELDS = rain(frames=8, shape=(40, 44)) + 0.1
START = np.datetime64("2020-06-01T00:00:00")


def times(*numbers):
    return START + 300 * np.array(numbers)


def test_the_last_copy_is_read(tmp_path, caplog):
    write_record(tmp_path / "a.nc", FIELDS)
    write_record(tmp_path / "b.nc", 2 * FIELDS[6:], times=times(6, 7))
    (record,) = open_records([tmp_path])
    np.testing.assert_array_equal(record.read(range(8)), np.concatenate([FIELDS[:6], 2 * FIELDS[6:]]))
    said = "left out 2 of 10 frames, because a later frame has the same time (b.nc is read in place of a.nc)"
    assert caplog.messages == [f"{tmp_path.name}: {said}"]


@pytest.mark.parametrize("copies", [1, 2])
def test_a_copy_of_nothing_does_not_displace_a_frame(tmp_path, caplog, copies):
    write_record(tmp_path / "a.nc", FIELDS)
    for n in range(copies):
        write_record(tmp_path / f"b{n}.nc", np.nan * FIELDS[6:], times=times(6, 7))
    (record,) = open_records([tmp_path])
    assert record.times.tolist() == times(*range(8)).tolist()
    np.testing.assert_array_equal(record.read(range(8)), FIELDS)
    said = f"{tmp_path.name}: the last copy of 2 frames is missing as a whole; an earlier copy is used"
    assert said in caplog.messages
    assert f"(a.nc is read in place of b{copies - 1}.nc)" in caplog.text


def test_nor_does_a_damaged_one(tmp_path):
    write_record(tmp_path / "a.nc", FIELDS)
    damage(write_by_frame(tmp_path / "b.nc", FIELDS), [3])
    (record,) = open_records([tmp_path])
    np.testing.assert_array_equal(record.read(range(8)), FIELDS)
    assert sorted(record.source(n).name for n in range(8)) == ["a.nc"] + ["b.nc"] * 7


def test_all_copies_of_nothing_are_missing(tmp_path):
    for name in "ab":
        write_record(tmp_path / f"{name}.nc", np.where(np.arange(8)[:, None, None] == 5, np.nan, FIELDS))
    (record,) = open_records([tmp_path])
    assert np.isnan(record.read([5])).all()


def with_reference(path, reference):
    """Write a record that states one reference time."""
    write_record(path, FIELDS)
    with netCDF4.Dataset(path, "a") as file:
        start = file.createVariable("forecast_reference_time", "i4")
        start.setncatts({"standard_name": "forecast_reference_time", "units": "seconds since 2020-06-01"})
        start[...] = int((reference - START) / np.timedelta64(1, "s"))
    return path


def test_a_forecast_that_is_read_as_a_record_is_told(tmp_path, caplog):
    path = with_reference(tmp_path / "a.nc", times(-1)[0])
    (record,) = open_records([path])
    np.testing.assert_array_equal(record.read([0]), FIELDS[:1])
    assert caplog.messages == [
        f"{path}: this is a forecast from 2020-05-31T23:55:00Z, which is read as if it had been observed"
    ]


@pytest.mark.parametrize("number", [0, 7])
def test_a_reference_time_that_frames_are_not_ahead_of_is_none_of_a_forecast(tmp_path, caplog, number):
    open_records([with_reference(tmp_path / "a.nc", times(number)[0])])
    assert not caplog.messages


@pytest.mark.parametrize("facts", [
    {}, {"units": "1"}, {"units": "days since start"}, {"units": "hours since 2020-01-01 00:00 CET"},
])  # fmt: skip
def test_a_reference_time_that_cannot_be_read_tells_nothing(tmp_path, caplog, facts):
    write_record(tmp_path / "a.nc", FIELDS)
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
        file.createVariable("forecast_reference_time", "f8").setncatts({"standard_name": "forecast_reference_time", **facts})
    (record,) = open_records([tmp_path / "a.nc"])
    np.testing.assert_array_equal(record.read([0]), FIELDS[:1])
    assert "forecast" not in caplog.text


def test_what_copies_hold_is_remembered(tmp_path, monkeypatch):
    for n in range(20):  # so many that their index is kept
        path = write_record(tmp_path / f"{n:02}.nc", FIELDS * (np.nan if n % 2 else 1), times=times(*range(7 * n, 7 * n + 8)))
        os.utime(path, (0, 0))  # what is told of files that have just been written is not kept
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    read, records = [], []
    of_record = Record.read
    for _ in range(2):
        monkeypatch.setattr(Record, "read", lambda self, some: read.append(list(some)) or of_record(self, some))
        before = len(read)
        records += open_records([str(tmp_path / "*.nc")], index=FileIndex(None))
    assert before == len(read) > 0
    np.testing.assert_array_equal(*(record.frame_sources for record in records))
    assert [records[0].source(n).name for n in (7, 14, 21, 28)] == ["00.nc", "02.nc", "02.nc", "04.nc"]


def test_of_more_copies_than_are_looked_at_it_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(damage_module, "MOST_COPIES", 3)
    write_record(tmp_path / "a.nc", FIELDS)
    write_record(tmp_path / "b.nc", np.nan * FIELDS)
    (record,) = open_records([tmp_path])
    assert np.isnan(record.read(range(8))).all(axis=(1, 2)).tolist() == [True] * 5 + [False] * 3
    assert "whether that one is missing as a whole was checked for the newest 3 times only" in caplog.text


def test_a_grid_without_cells_is_refused(tmp_path):
    from nowcast.errors import DataError

    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("time", 3), ("y", 4), ("x", 0)):
            file.createDimension(name, size)
            file.createVariable(name, "f8", (name,))[:] = np.arange(size)
        file["time"].units = "minutes since 2020-06-01"
        rate = file.createVariable("rain", "f4", ("time", "y", "x"))
        rate.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1"})
    with pytest.raises(DataError, match=r"rain has no cells: frames of 4 × 0\.\nExpected at least one row and column"):
        open_records([tmp_path / "a.nc"])
