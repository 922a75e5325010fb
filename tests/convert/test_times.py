"""Times in texts and file names: digits and time zones."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from makers import SHARED

from nowcast.convert.times import time_in_name, time_in_text
from nowcast.errors import DataError

FILE = Path("in/rain.tif")


@pytest.mark.parametrize(("text", "expected"), [
    ("2016-09-28T15:00:00+02:00", "2016-09-28T13:00"), ("2016-09-28T15:00:00-05:00", "2016-09-28T20:00"),
    ("2016-09-28T15:00-05:00", "2016-09-28T20:00"), ("2016-09-28 15:00:00 +0200", "2016-09-28T13:00"),
    ("2016-09-28 15:00:00+02", "2016-09-28T13:00"), ("20160928T150000+0530", "2016-09-28T09:30"),
    ("20160928T1500-05", "2016-09-28T20:00"), ("2016-09-28T15:00:00.000+02:00", "2016-09-28T13:00"),
    ("2016-09-28 15:00 UTC+2", "2016-09-28T13:00"), ("2016-09-28 15:00 GMT-03:30", "2016-09-28T18:30"),
    ("2016-09-28T01:00+02:00", "2016-09-27T23:00"), ("201609281500+0200", "2016-09-28T13:00"),
    ("2016-09-28T15:00:00Z", "2016-09-28T15:00"), ("2016-09-28T15:00:00.000Z", "2016-09-28T15:00"),
    ("2016-09-28 15:00 UTC", "2016-09-28T15:00"), ("2016-09-28 15:00 GMT", "2016-09-28T15:00"),
    ("2016-09-28T15:00+00:00", "2016-09-28T15:00"), ("201609281445", "2016-09-28T14:45"),
    ("2016-09-28 15:00-16:00", "2016-09-28T15:00"), ("2016-09-28 15:00 - 15:05", "2016-09-28T15:00"),
    ("20160928 0200-0300", "2016-09-28T02:00"), ("2016-09-28 15h05m10", "2016-09-28T15:05:10"),
    ("2016-09-28 15:00 PMM DBZH", "2016-09-28T15:00"), ("2016:09:28 15:00:10", "2016-09-28T15:00:10"), ("28.9.2016", None),
])  # fmt: skip
def test_times_in_texts_are_utc(text, expected):
    time = time_in_text(text, FILE)
    assert time == (None if expected is None else np.datetime64(expected))


@pytest.mark.parametrize(("text", "says"), [
    *((f"2016-09-28 15:00{zone}", rf"15:00{zone}' in a named time zone\.\nExpected UTC, or an offset")
      for zone in (" CEST", " MESZ", ":00 EDT", "_AEST", " Europe/Berlin", " local")),
    ("2016-09-28 15:00 (CET)", r"15:00 \(CET' in a named time zone"),
    *((f"2016-09-28 03:00{half}", rf"03:00{half}' with AM or PM\.\nExpected hours from 0 to 23")
      for half in (" PM", "am", ":00 PM")),
])  # fmt: skip
def test_named_time_zones_and_am_and_pm_are_refused(text, says):
    with pytest.raises(DataError, match=says) as caught:
        time_in_text(text, FILE)
    assert str(caught.value).startswith("in/rain.tif has the time '2016-09-28 ")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("name", "expected"), [
    ("rain_20160928T1500+02:00.png", "2016-09-28T13:00"), ("rain_20160928T150000-05:00.png", "2016-09-28T20:00"),
    ("rain_201609281500UTC-0500.png", "2016-09-28T20:00"), ("rain_20160928T1500Z.png", "2016-09-28T15:00"),
    ("rain_20160928T1500GMT+0530.png", "2016-09-28T09:30"), ("rain_20160928T1500+0200.png", "2016-09-28T15:00"),
    ("prod_20160928T0500-0600.nc", "2016-09-28T05:00"), ("20160928T1000-1100.h5", "2016-09-28T10:00"),
    ("cosmo_20160928T0000-0300.nc", "2016-09-28T00:00"), ("radar_201609281500+0030.grib2", "2016-09-28T15:00"),
    ("radar_201609281500+0100.grb", "2016-09-28T15:00"), ("radar_201609281500UTC+0030.grb", "2016-09-28T15:00"),
    ("prod_20160928T0500Z-0600Z.nc", "2016-09-28T05:00"), ("prod_20160928T0500UTC-0600UTC.nc", "2016-09-28T05:00"),
    ("prod_20160928T05:00-06:00Z.nc", "2016-09-28T05:00"), ("rain_201609281200UTC+06.nc", "2016-09-28T12:00"),
    ("rain_201609281500+0200.png", "2016-09-28T15:00"), ("rain_2016-09-28T15:00.png", "2016-09-28T15:00"),
    ("rain_201609281500-0500.png", "2016-09-28T15:00"), ("rain_20160928_1200-1300.png", "2016-09-28T12:00"),
    ("rain_20160928T1500-05.png", "2016-09-28T15:00"), ("rain_20160928T1500+006.png", "2016-09-28T15:00"),
    ("rain_20160928T1500-10000-dwd---bin.gz", "2016-09-28T15:00"), ("rain_201609281500_05min.h5", "2016-09-28T15:00"),
    ("rain_201609281500-1600.png", "2016-09-28T15:00"), ("rain_201609281500_EST.png", "2016-09-28T15:00"),
    ("20160928-150010.png", "2016-09-28T15:00:10"), ("2016-09-28_15-00-10.png", "2016-09-28T15:00:10"),
    ("2016092815.png", "2016-09-28T15:00"),
])  # fmt: skip
def test_in_names_only_offsets_that_are_clear_count(name, expected):
    assert time_in_name(Path("in") / name) == np.datetime64(expected)


@pytest.mark.parametrize(("name", "says"), [
    ("rain_20160928_05min_0010.png", "'20160928_05min' in its name, which is no time"),
    ("cappi_20160928_1500m_0005.png", "'20160928_1500m' in its name"),
    ("rain_20160928-10km.png", "'20160928-10km' in its name"),
    ("rain_20160928_0305PM.png", "'20160928_0305PM' with AM or PM"), ("rain_20160928_0305 am_x.png", "with AM or PM"),
])  # fmt: skip
def test_in_names_lengths_and_halves_of_days_are_no_times(name, says):
    """They were read as 05, 15, 10 and 03 UTC."""
    with pytest.raises(DataError, match=says):
        time_in_name(Path("in") / name)


@pytest.mark.parametrize(("name", "expected"), [
    ("rain_20160928_15h05m.png", "2016-09-28T15:05"), ("rain_20160928_1505_5min.png", "2016-09-28T15:05"),
    ("rain_20160928_1505main.png", "2016-09-28T15:05"), ("rain_20160928_15h05m10s.png", "2016-09-28T15:05:10"),
])  # fmt: skip
def test_in_names_letters_after_a_time_are_no_lengths(name, expected):
    assert time_in_name(Path("in") / name) == np.datetime64(expected)


@pytest.mark.parametrize(("folder", "first", "last"), [
    ("bom_netcdf", "2018-06-16T13:00", "2018-06-16T13:42"), ("fmi_pgm_gz", "2016-09-28T14:45", "2016-09-28T15:00"),
    ("knmi_hdf5", "2010-08-26T04:00", "2010-08-26T04:35"), ("mrms_grib2", "2019-06-10T00:00", "2019-06-10T00:02"),
    ("odim_hdf5", "2018-08-24T18:00", "2018-08-24T18:30"),
])  # fmt: skip
def test_names_of_services_are_read(folder, first, last):
    names = sorted((SHARED / "radar/raw" / folder).glob("*"))
    if not names:
        pytest.skip("no real files here")
    assert [time_in_name(path) for path in (names[0], names[-1])] == [np.datetime64(first), np.datetime64(last)]


def test_an_offset_in_the_form_of_names_counts_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        time = time_in_name(Path("rain_20160928T1500+0200.png"), "rain_%Y%m%dT%H%M%z.png")
    assert time == np.datetime64("2016-09-28T13:00")
    assert time_in_name(Path("rain_201609281500.png"), "rain_%Y%m%d%H%M.png") == np.datetime64("2016-09-28T15:00")
