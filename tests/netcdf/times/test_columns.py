"""Times in columns of years, months, days, hours and minutes: the frames are where they say, or the file is refused."""

import netCDF4
import numpy as np
import pytest

from nowcast.errors import DataError
from nowcast.netcdf.opening import open_records

TIMES = np.datetime64("2020-12-31T23:50:00") + np.arange(6) * np.timedelta64(300, "s")
PARTS = [[time.year, time.month, time.day, time.hour, time.minute, time.second] for time in TIMES.tolist()]
COLUMNS = dict(zip(("year", "month", "day", "hour", "minute", "second"), np.array(PARTS).T, strict=True))
NAMED = {"Year": "year", "Month": "month", "DayOfMonth": "day", "Hour": "hour", "Minute": "minute", "Second": "second"}
SHORT = {"yr": "year", "mon": "month", "dd": "day", "hh": "hour", "min": "minute"}


def stored(path, columns, num=6, **others):
    """Write a record of `num` frames whose values are their numbers, with these variables, and scalars for single numbers."""
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in (("time", num), ("y", 3), ("x", 4)):
            file.createDimension(dim, size)
        for name, values in (columns | others).items():
            values = np.asarray(values)
            file.createVariable(name, values.dtype, ("time",)[: values.ndim])[...] = values
        rain = file.createVariable("rr", "f4", ("time", "y", "x"))
        rain.units = "mm/h"
        rain[:] = np.arange(num)[:, None, None]
    return path


DAY_OF_YEAR = {"year": COLUMNS["year"], "doy": [366, 366, 1, 1, 1, 1], "hour": COLUMNS["hour"] + COLUMNS["minute"] / 60}


@pytest.mark.parametrize(
    "columns",
    [
        COLUMNS,
        {name: COLUMNS[part].astype("i2") for name, part in NAMED.items()},
        {name: COLUMNS[part].astype("f4") for name, part in SHORT.items()},
        {f"time_{part}": values for part, values in COLUMNS.items()},
        COLUMNS | {"time": np.arange(6)},  # numbers of frames, which are no times
        DAY_OF_YEAR,
    ],
    ids=["plain", "GPM", "short", "prefixed", "beside an index", "day of the year"],
)
def test_columns_are_the_times_of_the_frames(tmp_path, columns):
    (record,) = open_records([stored(tmp_path / "a.nc", columns)])
    np.testing.assert_array_equal(record.times, TIMES)
    np.testing.assert_array_equal(record.read(range(6))[:, 0, 0], np.arange(6))


def test_a_date_may_be_one_for_all_frames_and_files_hold_one_frame_each(tmp_path):
    day = {"year": 2020, "month": 2, "day": 29, "hour": [0, 0, 1], "minute": [20, 40, 0]}
    (record,) = open_records([stored(tmp_path / "a.nc", day, 3)])
    np.testing.assert_array_equal(record.times, np.array(["2020-02-29T00:20", "2020-02-29T00:40", "2020-02-29T01:00"], "M8[s]"))
    (tmp_path / "each").mkdir()
    for n in range(len(TIMES)):
        stored(tmp_path / "each" / f"{5 - n}.nc", {part: values[n] for part, values in COLUMNS.items()}, 1)
    (record,) = open_records([tmp_path / "each"])
    np.testing.assert_array_equal(record.times, TIMES)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"month": np.arange(6) + 8}, r"a.nc: month goes from 8 to 13\.\nExpected the month of a date: 1 to 12"),
        ({"year": np.full(6, 20)}, r"year goes from 20 to 20\.\nExpected the year of a date: 1900 to 2199"),
        ({"month": np.full(6, 2)}, r"day has days that the month does not have\.\nExpected dates"),
        ({"hour": None, "minute": None, "second": None}, r"a.nc: year, month, day give no time of day\.\nExpected an hour too"),
        ({"day": None}, "has no times"),
    ],
)
def test_columns_that_are_no_times_are_refused(tmp_path, changed, says):
    columns = {part: values for part, values in (COLUMNS | changed).items() if values is not None}
    with pytest.raises(DataError, match=says):
        open_records([stored(tmp_path / "a.nc", columns)])


def test_times_that_count_from_a_date_are_taken_before_columns(tmp_path):
    path = stored(tmp_path / "a.nc", COLUMNS | {"date_time": np.arange(6) * 600.0})
    with netCDF4.Dataset(path, "a") as file:
        file["date_time"].units = "seconds since 2019-05-06"
        file["rr"].coordinates = "date_time"
    (record,) = open_records([path])
    np.testing.assert_array_equal(record.times, np.datetime64("2019-05-06") + np.arange(6) * np.timedelta64(600, "s"))
