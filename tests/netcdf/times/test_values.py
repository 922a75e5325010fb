"""Times: frames in order, to the second, each once; an accumulation covers the interval that its file gives."""

import logging
import re

import netCDF4
import numpy as np
import pytest
from makers import write_record
from makers.stored import START, edit, open_one, read_one, write

from nowcast.errors import DataError
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.times.values import read_periods, read_times


def test_frames_are_sorted_and_the_last_of_equal_times_is_kept(tmp_path, caplog):
    stored = np.arange(4, dtype="f4")[:, None, None] * np.ones((4, 2, 2), "f4")
    times = START + np.array([600, 0, 300, 0])
    with caplog.at_level(logging.WARNING):
        record = open_one(write(tmp_path / "a.nc", stored, times=times))
    assert record.times.astype(int).tolist() == [START, START + 300, START + 600]
    assert record.read(range(3))[:, 0, 0].tolist() == [3, 2, 0]
    assert [r.getMessage() for r in caplog.records] == ["a: left out 1 of 4 frames, because a later frame has the same time"]


def test_later_files_win_over_earlier_ones(tmp_path, caplog):
    old = write_record(tmp_path / "old.nc", np.full((3, 4, 4), 1.0))
    times = np.datetime64("2020-06-01T00:10") + np.arange(3)
    new = write_record(tmp_path / "new.nc", np.full((3, 4, 4), 2.0), times=times)
    (record,) = open_records([old, new])
    assert len(record) == 5
    assert record.read(range(5))[:, 0, 0].tolist() == [1, 1, 2, 2, 2]
    assert record.source(1) == old
    assert record.source(4) == new
    assert "left out 1 of 6 frames" in caplog.text


def test_a_long_series_that_comes_twice_is_read_from_its_later_file(tmp_path):
    paths = [write_record(tmp_path / f"{i}.nc", np.full((300, 2, 2), i), step_minutes=1) for i in range(2)]
    (record,) = open_records(paths)
    assert len(record) == 300
    assert record.read(range(300)).min() == 1


def test_gaps_are_kept_and_the_time_step_is_the_usual_one(tmp_path):
    times = np.datetime64("2020-06-01") + np.array([0, 5, 10, 40, 45]).astype("timedelta64[m]")
    record = open_one(write_record(tmp_path / "a.nc", np.zeros((5, 4, 4)), times=times))
    np.testing.assert_array_equal(record.times, times)
    assert record.times.dtype == "datetime64[s]"
    assert record.time_step == np.timedelta64(300, "s")


def test_one_frame_has_no_time_step(tmp_path):
    assert np.isnat(open_one(write_record(tmp_path / "a.nc", np.zeros((1, 4, 4)))).time_step)


@pytest.mark.parametrize(
    ("kind", "units", "values"),
    [
        ("i4", "seconds since 1970-01-01 00:00:00 UTC", [START, START + 300]),
        ("i8", "seconds since 1970-01-01T00:00:00Z", [START, START + 300]),
        ("f8", "days since 1970-01-01", [START / 86400, (START + 300) / 86400]),
        ("f8", "hours since 1900-01-01", [START / 3600 + 613608, (START + 300) / 3600 + 613608]),
        ("f4", "hours since 2020-09-01", [300.5, 300.5 + 1 / 12]),
        ("i2", "minutes since 2020-09-13 12:00", [30, 35]),
        ("f8", "day as %Y%m%d.%f", [20200913.520833333, 20200913.524305555]),  # a fraction of a second before
    ],
)
def test_times_in_any_units_are_read_to_the_second(tmp_path, kind, units, values):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        time = file.createVariable("time", kind, ("time",))
        time.units = units
        time[:] = values
    assert open_one(path).times.astype(int).tolist() == [START, START + 300]


@pytest.mark.parametrize(
    ("units", "stored", "packing", "resolution"),
    [
        ("hours since 1900-01-01", [1058052.5, 1058052.6], {}, 450),
        ("hours since 1900-01-01", [0, 1058052.5], {}, 450),
        ("hours since 2141-06-01", [-1058052.6, -1058052.5], {}, 450),
        ("seconds since 2020-06-01", [500000, 500000.3], {"scale_factor": 1000.0}, 31),
    ],
)
def test_times_too_coarse_to_tell_frames_apart_are_refused(tmp_path, units, stored, packing, resolution):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        time = file.createVariable("time", "f4", ("time",))
        time.set_auto_scale(False)
        time.setncatts({"units": units} | packing)
        time[:] = stored
    message = rf'time, in "{units}", is stored in steps of {resolution} s: frames cannot be told apart\.\nExpected'
    with pytest.raises(DataError, match=message):
        open_records([path])


def test_seconds_that_look_like_dates_are_seconds(tmp_path):
    times = [1901010100, 1901010400]  # in 2030; as yyyymmddhh in 1901
    assert open_one(write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"), times=times)).times.astype(int).tolist() == times


def test_days_as_numbers_are_refused_in_single_precision(tmp_path):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        file.createVariable("time", "f4", ("time",)).setncatts({"standard_name": "time", "units": "day as %Y%m%d.%f"})
        file["time"][:] = [20200602, 20200604]  # the days between are none in single precision
    with pytest.raises(DataError, match=r"a\.nc: time has units"):
        open_records([path])


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("2020-06-01T02:05:00+02:00", "00:05:00"),
        ("2020-05-31T19:05:30-05:00", "00:05:30"),
        ("2020-06-01T00:05:29.7Z", "00:05:30"),
        ("2020-06-01T00:05:30.4", "00:05:30"),
        ("2020-05-31 18:05:29.7 -6:00", "00:05:30"),
        ("  2020-06-01 00:05:30  ", "00:05:30"),
        ("2020-06-01T00:00:30,4 -00:05", "00:05:30"),
        ("2020-06-01T1405+14", "00:05:00"),
        ("2020-W23-1 00:05", "00:05:00"),
        ("2020060104", "04:00:00"),
        ("202006010005Z", "00:05:00"),
        ("20200601000530 UTC", "00:05:30"),
    ],
)
def test_texts_are_read_in_their_zone_to_the_nearest_second(tmp_path, text, clock):
    path = write(tmp_path / "a.nc", np.zeros((1, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        file.createVariable("time", str, ("time",))[0] = text
    assert str(open_one(path).times[0]) == f"2020-06-01T{clock}"


@pytest.mark.parametrize(
    "text",
    [
        "202006010005+02",
        "2020060100005",  # to Python the clock 0005 after a 0 in place of a T
        "20200601000500000",
        "2020-06-01 14.35",  # to Python 14:00 and a fraction of a second
        "2020-06-01 14,35",
        "2020-06-01 14:35.5",
        "2020-06-01 14-35",
        "2020-06-01 14 35",
        "2020-06-01 00:05-20",
        "2020-06-01+02:00",  # a day in another zone, to Python a clock
        "20200601 935",
        "2020 06 01",
        "20-06-01 00:05",
        "1-1-1 00:05",  # two days before the first of NumPy's calendar
        "000501062020",  # hour, minute, day, month, year
        "1591022100",  # seconds since 1970, as digits 1591-02-21
        "1591022100000",
    ],
)
def test_text_that_would_be_another_time_is_refused(tmp_path, text):
    path = write(tmp_path / "a.nc", np.zeros((1, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        file.createVariable("time", str, ("time",))[0] = text
    with pytest.raises(DataError, match=re.escape(f'a.nc: time has the text "{text}".\nExpected times such as 2020-06-01T')):
        open_one(path)


def test_times_and_lead_times_come_in_the_order_of_the_dimensions_that_are_asked_for(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for dim, size in (("run", 2), ("lead", 3)):
            file.createDimension(dim, size)
        minutes = np.array([[0, 60], [5, 65], [10, 70]])
        for name, units in (("number", "minutes since 2020-06-01"), ("period", "minutes")):
            file.createVariable(name, "i4", ("lead", "run")).units = units
            file[name][:] = minutes
        file.createVariable("text", str, ("lead", "run"))[:] = np.array(
            [[f"2020-06-01T{minute // 60:02}:{minute % 60:02}" for minute in row] for row in minutes], object
        )
        for dims, expected in ((("run", "lead"), minutes.T), (("lead", "run"), minutes), (("lead",), minutes[:, 0])):
            times = np.datetime64("2020-06-01") + expected.astype("timedelta64[m]")
            for name in ("number", "text"):
                np.testing.assert_array_equal(read_times(file, name, dims, "a.nc"), times)
            np.testing.assert_array_equal(read_periods(file, "period", dims, "a.nc"), expected.astype("timedelta64[m]"))


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("calendar", "360_day", 'a.nc: time is in the calendar "360_day".\nExpected "standard".'),
        ("units", "parsecs since 1970-01-01", 'a.nc: time has units "parsecs since 1970-01-01" that give no times.'),
        ("units", "months since 1970-01-01", 'a.nc: time has units "months since 1970-01-01" that give no times.'),
        ("_FillValue", None, "a.nc: time has missing times.\nExpected a time for every frame."),
    ],
)
def test_times_that_are_none_are_refused(tmp_path, attribute, value, message):
    times = [START, netCDF4.default_fillvals["i4"]] if value is None else None
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"), times=times)
    if value is not None:
        with edit(path) as file:
            file["time"].setncattr(attribute, value)
    with pytest.raises(DataError, match=re.escape(message)):
        open_records([path])


def test_a_scalar_time_per_file_makes_a_series(tmp_path):
    for i in (2, 0, 1):
        write(tmp_path / f"{i}.nc", np.full((3, 3), float(i), "f4"), dims=("y", "x"), times=START + 300 * i)
    record = open_one(tmp_path)
    assert record.read([2, 0, 1])[:, 0, 0].tolist() == [2, 0, 1]
    assert record.name == tmp_path.name
    assert record.frame_sources.tolist() == [[0, 0], [1, 0], [2, 0]]


def accumulation(path, **attributes):
    attributes = {"units": "mm", "standard_name": "rainfall_amount"} | attributes
    return write(path, np.full((3, 3, 3), 2.0, "f4"), **attributes)


def test_an_accumulation_covers_the_interval_of_its_cell_methods(tmp_path):
    path = accumulation(tmp_path / "a.nc", cell_methods="area: mean time: sum (interval: 10 minutes comment: gauges)")
    assert read_one(path) == pytest.approx(12)


def test_an_accumulation_covers_its_time_bounds_before_its_cell_methods(tmp_path):
    path = accumulation(tmp_path / "a.nc", cell_methods="time: sum (interval: 10 minutes)")
    with edit(path) as file:
        file["time"].bounds = "time_bnds"
        file.createDimension("nv", 2)
        bounds = file.createVariable("time_bnds", "i4", ("time", "nv"))
        bounds[:] = file["time"][:][:, None] + [-900, 0]
    assert read_one(path) == pytest.approx(8)


def test_an_accumulation_covers_the_time_since_its_start(tmp_path):
    path = accumulation(tmp_path / "a.nc")
    with edit(path) as file:
        start = file.createVariable("start_time", "i4", ("time",))
        start.units = "seconds since 1970-01-01"
        start[:] = file["time"][:] - 600
    assert read_one(path) == pytest.approx(12)


def test_an_accumulation_with_a_start_and_an_end_does_not_last_until_a_later_time(tmp_path):
    """The time may be that at which the sum was made."""
    path = accumulation(tmp_path / "a.nc")
    with edit(path) as file:
        for name, before in (("start_time", 900), ("end_time", 300)):
            file.createVariable(name, "i4", ("time",)).units = file["time"].units
            file[name][:] = file["time"][:] - before
    assert read_one(path) == pytest.approx(12)


def test_a_start_that_counts_from_no_date_is_no_start_of_the_interval(tmp_path):
    path = accumulation(tmp_path / "a.nc")
    with edit(path) as file:
        file.createVariable("start_time", "i4")[...] = 5
    assert read_one(path) == pytest.approx(24)


def test_a_gap_changes_no_weak_word_into_a_contradiction(tmp_path, caplog):
    times = 1_600_000_200 + 300 * np.array([0, 1, 2, 9, 10])
    path = write(tmp_path / "a.nc", np.full((5, 3, 3), 2.0, "f4"), times=times, units="mm", period="PT5M")
    assert read_one(path) == pytest.approx(24)
    assert not caplog.messages


def test_an_accumulation_without_an_interval_covers_the_time_step(tmp_path):
    assert read_one(accumulation(tmp_path / "a.nc")) == pytest.approx(24)


def test_an_accumulation_over_varying_intervals_is_refused(tmp_path):
    path = accumulation(tmp_path / "a.nc")
    with edit(path) as file:
        start = file.createVariable("start_time", "i4", ("time",))
        start.units = "seconds since 1970-01-01"
        start[:] = file["time"][:] - [300, 300, 600]
    with pytest.raises(DataError, match=r"a.nc: rr accumulates over 300 to 600 s\.\nExpected one interval"):
        open_records([path])


def test_one_accumulation_over_an_unknown_interval_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((1, 3, 3), "f4"), units="mm")
    with pytest.raises(DataError, match=r'a.nc: rr is an accumulation \("mm"\) over an unknown interval\.\n'):
        open_records([path])


def moments(seconds):
    return np.datetime64("2020-06-01") + np.asarray(seconds).astype("timedelta64[s]")


@pytest.mark.parametrize(
    ("off", "meant"),
    [
        ([0, 60, -60, 0, 30, -45, 0, 60], 300 * np.arange(8)),  # by a minute
        ([7, 11, 4, 9, 12, 6, 8, 10], 300 * np.arange(8)),  # some seconds late
        ([0, 0, 0, 60, 0, 0, 0, 0], 300 * np.arange(8)),  # a single one
    ],
)
def test_times_that_are_off_by_up_to_a_minute_are_taken_as_even(tmp_path, caplog, off, meant):
    times = moments(300 * np.arange(8) + off)
    with caplog.at_level(logging.WARNING):
        record = open_one(write_record(tmp_path / "a.nc", np.zeros((8, 4, 4)), times=times))
    np.testing.assert_array_equal(record.times, moments(meant))
    (message,) = (r.getMessage() for r in caplog.records)
    assert message == (
        f"a: moved {np.count_nonzero(off)} of 8 times by up to {np.abs(off).max()} s, so that they are evenly spaced"
    )


@pytest.mark.parametrize(
    "seconds",
    [
        303 * np.arange(20),  # a step of its own
        [*range(0, 3600, 300), *range(3600, 9000, 360)],  # two steps
        [*range(0, 1500, 300), *range(3660, 5400, 300)],  # another minute after an outage
        [0, 300, 18_500_000, 44_400_000],  # no step at all
        [0, 300, 600, 750, 900, 1200],  # half a step is no jitter
        [0, 17],
        [0],
    ],
)
def test_times_that_are_even_in_their_own_way_stay(tmp_path, caplog, seconds):
    record = open_one(write_record(tmp_path / "a.nc", np.zeros((len(seconds), 4, 4)), times=moments(seconds)))
    np.testing.assert_array_equal(record.times, moments(seconds))
    assert not caplog.records


ZONES = {  # attributes of the times, and what is told
    "local": ({"long_name": "Local time"}, "Local time"),
    "a zone": ({"long_name": "time in CEST"}, "time in CEST"),
    "its name": ({"time_zone": "Europe/Rome", "long_name": "time"}, "Europe/Rome"),
    "an offset": ({"timezone": "UTC+2"}, "UTC+2"),
    "an offset in the units": ({"long_name": "local time", "units": "seconds since 1970-01-01 02:00:00 +02:00"}, None),
    "an offset of minutes": ({"timezone": "UTC+05:30"}, "UTC+05:30"),
    "UTC": ({"long_name": "time (UTC)", "timezone": "UTC", "tz": "+00:00"}, None),
    "other words for UTC": ({"timezone": "Coordinated Universal Time", "tz": "UTC (Z)", "time_zone": "GMT+0"}, None),
}


@pytest.mark.parametrize("kind", ZONES)
def test_another_zone_without_an_offset_in_the_units_is_told(tmp_path, caplog, kind):
    stated, said = ZONES[kind]
    path = write(tmp_path / "a.nc", np.ones((3, 2, 2), "f4"))
    with edit(path) as file:
        file["time"].setncatts(stated)
    assert open_one(path).times[0].astype(int) == START
    told = f'{path}: time says "{said}" and no offset from UTC: its times are read as UTC.\n'
    hint = 'If they are not, state the offset in its units, as in "minutes since 2020-06-01 00:00 +2:00".'
    assert caplog.messages == ([told + hint] if said else [])


def test_a_variable_that_is_called_local_time_is_told(tmp_path, caplog):
    path = write(tmp_path / "a.nc", np.ones((3, 2, 2), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "local_time")
    open_one(path)
    assert f'{path}: local_time says "local time" and no offset from UTC' in caplog.text
