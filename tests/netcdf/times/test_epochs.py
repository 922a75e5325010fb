"""Units such as "minutes since 2020-01-01 00:00 -6:00" are read as udunits and CF 1.11 say, or refused."""

import re

import numpy as np
import pytest
from makers.foreign import improver_file
from makers.stored import START, edit, open_one, write

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.times.epochs import decode_times, read_moment, seconds_per

FIRST = np.datetime64("2020-06-01T00:00:00")
HOUR = 3600


def decoded(units, values=(0,), calendar="standard"):
    return decode_times(np.asarray(values), units, calendar, "a.nc: time")


@pytest.mark.parametrize(
    ("zone", "seconds"),
    [
        ("", 0),
        ("Z", 0),
        (" UTC", 0),
        (" GMT", 0),
        (" -6:00", 6 * HOUR),  # the example of CF
        ("-6:00", 6 * HOUR),
        (" -06:00", 6 * HOUR),
        (" \u22126:00", 6 * HOUR),  # a minus sign in place of a hyphen
        (" -600", 6 * HOUR),
        (" -0600", 6 * HOUR),
        (" -06:30", 6.5 * HOUR),
        (" -00:00", 0),
        (" -0000", 0),
        (" +0030", -0.5 * HOUR),
        (" -6", 6 * HOUR),
        (" +2:00", -2 * HOUR),
        ("+2", -2 * HOUR),
        (" +200", -2 * HOUR),
        (" +5:30", -5.5 * HOUR),
        (" +5:45", -5.75 * HOUR),
        (" +1000", -10 * HOUR),
        (" 3:30", -3.5 * HOUR),
    ],
)
@pytest.mark.parametrize("clock", ["00:00:00", "00:00", "0:0:0.0"])
def test_a_zone_is_taken_off(clock, zone, seconds):
    assert decoded(f"minutes since 2020-06-01 {clock}{zone}", [0, 5]).tolist() == [
        (FIRST + np.timedelta64(int(seconds) + late, "s")).item() for late in (0, 300)
    ]


@pytest.mark.parametrize("zone", [" CET", " EST", " UTC+2", " GMT +1", " +02:00:00", " America/New_York", " M", " (UTC)"])
def test_a_zone_that_udunits_does_not_have_is_refused(tmp_path, zone):
    path, units = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4")), f"seconds since 2020-06-01 00:00{zone}"
    with edit(path) as file:
        file["time"].units = units
    with pytest.raises(DataError, match=re.escape(f'a.nc: time has units "{units}", with a date, clock or zone')) as error:
        open_one(path)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("zone", ["+5:30", "-600"])
def test_records_and_forecasts_are_read_in_their_zone(tmp_path, zone):
    hours = {"+5:30": 5.5, "-600": -6}[zone]
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"))
    with edit(path) as file:
        file["time"].units = f"seconds since 1970-01-01 00:00 {zone}"
    assert open_one(path).times.astype(int).tolist() == [START - hours * HOUR, START + 300 - hours * HOUR]
    path = improver_file(tmp_path / "f.nc", np.zeros((3, 4)), reference=FIRST, lead_minutes=15)
    with edit(path) as file:
        for name in ("time", "forecast_reference_time"):
            file[name].units += f" {zone}"
    assert read_forecast(path).reference_times == [FIRST - np.timedelta64(int(hours * HOUR), "s")]


@pytest.mark.parametrize(
    ("units", "value", "expected"),
    [
        ("nanoseconds since 2020-06-01", 300_000_000_000, "2020-06-01T00:05"),
        ("ns since 2020-06-01T00:00:00.000000000", 300_000_000_000, "2020-06-01T00:05"),
        ("weeks since 2020-05-25", 1, "2020-06-01T00:00"),
        ("Minutes Since 2020-06-01", 5, "2020-06-01T00:05"),
        ("HOURS since 2020-06-01", 5, "2020-06-01T05:00"),
        ("mins since 2020-06-01", 5, "2020-06-01T00:05"),
        ("hrs since 2020-06-01", 5, "2020-06-01T05:00"),
        ("minutes since 20200601", 5, "2020-06-01T00:05"),
        ("minutes since 20200601T0100Z", 5, "2020-06-01T01:05"),
        ("minutes since 20200601 010030.0", 4.5, "2020-06-01T01:05"),
        ("minutes since 2020-06-01 9", 5, "2020-06-01T09:05"),
        ("minutes since 2020-06-01 +0000", 5, "2020-06-01T00:05"),
        ("minutes since 2020-06-01 14:00 +14:00 UTC", 5, "2020-06-01T00:05"),
        ("days since 2020-6-1", 0.25, "2020-06-01T06:00"),
        ("days since 2020-06", 1, "2020-06-02T00:00"),
        ("300 s since 2020-06-01", 2, "2020-06-01T00:10"),
        ("days since 1-1-1", 737578, "2020-06-01T00:00"),  # in the Julian calendar until 1582
        ("days since 1582-10-15", 159829, "2020-05-20T00:00"),
    ],
)
def test_units_and_dates_are_those_of_udunits(units, value, expected):
    assert decoded(units, [value])[0] == np.datetime64(expected)


@pytest.mark.parametrize(
    ("units", "step"),
    [
        ("minutes since 2020-01-01", 150),  # stored in steps of 0.94 s
        ("days since 2020-01-01", 150),  # 1.3 s
        ("seconds since 2020-01-01", 20),  # 1 s
        ("hours since 2018-01-01", 30),  # 7 s
        ("hours since 2010-01-01", 150),  # 28 s
        ("hours since 2010-01-01", 300),
        ("days since 2014-01-01", 60),  # 21 s
    ],
)
def test_times_that_single_precision_has_rounded_are_rounded_back(units, step):
    wanted = np.datetime64("2020-06-01T12:00:00") + np.arange(12) * np.timedelta64(step, "s")
    unit, start = re.fullmatch(r"(\w+) since (.*)", units).groups()
    stored = ((wanted - np.datetime64(start)) / np.timedelta64(1, "s") / seconds_per(unit)).astype("f4")
    resolution = float(np.spacing(stored).max())
    np.testing.assert_array_equal(
        decode_times(stored.astype("f8"), units, "standard", "a.nc: time", resolution=resolution), wanted
    )


def test_times_computed_in_single_precision_are_whole_minutes():
    days = np.float32(152.5) + np.arange(12, dtype="f4") * np.float32(300 / 86400)
    days = np.nextafter(np.nextafter(days, np.float32(0)), np.float32(0))  # two further steps of 1.3 s
    read = decode_times(
        days.astype("f8"), "days since 2020-01-01", "standard", "a.nc: time", resolution=float(np.spacing(days[0]))
    )
    assert (read == np.datetime64("2020-06-01T12:00:00") + 300 * np.arange(12)).all()


@pytest.mark.parametrize("date", ["1970-01-01", "1500-01-01", "0001-01-01", "0000-01-01", "-0400-02-29"])
def test_the_proleptic_calendar_is_gregorian_before_1582_too(date):
    wanted = np.datetime64("2020-06-01")  # NumPy's calendar is the proleptic one
    days = (wanted - np.datetime64(date)).astype(int)
    assert decoded(f"days since {date}", [days], "proleptic_gregorian")[0] == wanted


@pytest.mark.parametrize(
    "units",
    [
        "seconds",
        "seconds since 01/06/2020",
        "seconds since 2020-06-31",
        "seconds since 2020-13-01",
        "seconds since 2020-152",
        "seconds since 2020-06-01 25:00",
        "seconds since 2020-06-01 23:61",
        "seconds since 2020-06-01 14-35",  # to udunits a zone of 35 hours
        "seconds since 2020-06-01 14 35",
        "seconds since 2020-06-01 00:00:00 15",
        "seconds since 2020-06-01 00:00 +5:75",
        "seconds since 20200601 935",  # to udunits 93:05
        "seconds since 2020-06-01 12000",
        "seconds since 2020-06-01 +0500",  # to udunits the clock 0:50
        "seconds since 2020-06-01 -5",
        "seconds since 2020-06-01 00:00 -00:30",  # to udunits +00:30
        "seconds since 2020-06-01 00:00 -0:05",
        "seconds since 2020-06-01 00:00 -0030",
        "seconds since 2020-06-01 00:00-030",
        "seconds since 2020 06 01",  # to udunits 6 o'clock on 1 January, in the zone +1
        "days since -4712-01-01 12:00",  # CF has no years before 1 in this calendar
        "days since 0000-01-01",
        "months since 2020-06-01",
        "years since 2020-06-01",
        "metres since 2020-06-01",
    ],
)
def test_units_that_give_no_times_are_refused(units):
    with pytest.raises(DataError, match=re.escape(f'a.nc: time has units "{units}"')) as error:
        decoded(units)
    _, second = str(error.value).splitlines()
    assert second.startswith("Expected")


def test_a_julian_calendar_counted_from_1901_to_2099_is_the_standard_one():
    """IMERG's: both calendars have the same leap days from March 1900 to February 2100."""
    for date, value in (("1970-01-01 00:00:00 UTC", 1_591_000_000), ("1980-01-06", 1e9), ("2000-02-29", 86400)):
        units = f"seconds since {date}"
        assert decoded(units, [value], "julian") == decoded(units, [value])
    for units, value in (("days since 1900-01-01", 44000), ("days since 1970-01-01", 47600), ("days since 1-1-1", 737578)):
        with pytest.raises(DataError, match=r'a.nc: time is in the calendar "julian", with dates outside of 1901 to 2099'):
            decoded(units, [value], "julian")


def test_text_with_a_zone_that_iso_8601_does_not_have():
    assert read_moment("2020-06-01 00:05:00 -6:00") == (np.datetime64("2020-06-01T06:05") - np.datetime64(0, "s")).astype(int)
    assert read_moment("2020-06-01 00:05:00 CET") is None
    assert read_moment("soon") is None


def test_units_of_a_varying_length_are_none():
    assert [seconds_per(unit) for unit in ("min", "h", "5 minutes", "month", "common_year", "m", "", None)] == [
        60, 3600, 300, None, None, None, None, None,
    ]  # fmt: skip
