"""Arguments of nowcast in Python become paths, names and times, each by value."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from makers import rain
from makers.stored import open_one

from nowcast.errors import UsageError
from nowcast.prediction.given import as_paths, as_thresholds, as_time, as_variable, observed

NOON = np.datetime64("2020-06-01T12:00:00")


def labelled():
    fields = rain(frames=3, shape=(6, 8))
    times = NOON + np.arange(3) * np.timedelta64(300, "s")
    coordinates = {"time": times.astype("M8[ns]"), "y": ("y", 1000.0 * np.arange(6)[::-1], {"units": "m"}),
                   "x": ("x", 1000.0 * np.arange(8), {"units": "m"})}  # fmt: skip
    return xr.DataArray(fields, coordinates, ("time", "y", "x"), "rain", {"units": "mm h-1"})


def test_paths_are_one_or_several_of_any_kind(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for given in ("~/a.nc", Path("~/a.nc"), ["~/a.nc"], (Path("~/a.nc"),), (each for each in ["~/a.nc"]), {"~/a.nc": 1}):
        assert as_paths(given, "rain") == ["/home/me/a.nc"]
    assert as_paths(["a.nc", Path("b.nc")], "rain") == ["a.nc", "b.nc"]
    with pytest.raises(UsageError, match=r"^rain: the list is empty\.\nExpected NetCDF files, folders or globs\.$"):
        as_paths([], "rain")
    with pytest.raises(UsageError, match=r"^rain: got the type int, which is not a path\.\nExpected NetCDF files"):
        as_paths(["a.nc", 5], "rain")
    with pytest.raises(UsageError, match=r"^rain: got the type DataArray, which is not a path"):
        as_paths(labelled(), "rain")  # not one for each frame


def test_names_of_variables_are_joined():
    assert [as_variable(given) for given in (None, "rr", ["rr"], ("rr", "tp"))] == [None, "rr", "rr", "rr,tp"]
    for wrong in (3, [], ["rr", 3], b"rr"):
        with pytest.raises(UsageError, match=r"^variable = .*: write the name of a variable, such as"):
            as_variable(wrong)


def test_arrays_are_files_within_the_block_only():
    array = labelled()
    with observed([array, "other.nc", array.to_dataset()]) as paths:
        assert paths[1] == "other.nc"
        for path in (paths[0], paths[2]):
            np.testing.assert_array_equal(open_one(path).read(range(3)), array.values)
    assert not any(Path(path).exists() for path in paths)
    with observed((array * 2).round().astype(int).assign_attrs(array.attrs)) as paths:  # whole numbers are no comparison
        assert open_one(paths[0]).read([1])[0].max() == (array[1] * 2).round().max()
    with pytest.raises(UsageError, match=r"^observations: got a DataArray of bool\.\nExpected rain"), observed(array >= 1):
        pass


@pytest.mark.parametrize(
    "given",
    [
        datetime(2020, 6, 1, 12),
        datetime(2020, 6, 1, 12, 0, 0, 999),
        datetime(2020, 6, 1, 12, tzinfo=UTC),
        datetime(2020, 6, 1, 7, 30, tzinfo=timezone(timedelta(hours=-4, minutes=-30))),
        np.array(NOON, "M8[ns]"),
        xr.DataArray(NOON.astype("M8[ns]")),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole_day", [False, True])
def test_times_are_those_in_utc_to_the_second(given, whole_day):
    found = as_time(given, "end", whole_day=whole_day)
    assert (found, found.dtype) == (NOON, "M8[s]")


def test_a_date_is_its_first_or_its_last_second():
    assert str(as_time(date(2020, 6, 1), "start")) == "2020-06-01T00:00:00"
    assert str(as_time(date(2020, 6, 1), "end", whole_day=True)) == "2020-06-01T23:59:59"
    assert str(as_time(np.datetime64("2020-06-01"), "start")) == "2020-06-01T00:00:00"
    assert str(as_time(np.datetime64("2020-06-01"), "end", whole_day=True)) == "2020-06-01T23:59:59"
    assert str(as_time(np.datetime64("2020-06-01", "s"), "end", whole_day=True)) == "2020-06-01T00:00:00"


@pytest.mark.parametrize("wrong", [5, np.datetime64("NaT"), xr.DataArray(np.datetime64("NaT", "ns")), "x" * 200], ids=str)
def test_what_is_no_time_is_shown_in_short(wrong):
    with pytest.raises(UsageError, match=r"^start = .{1,80}: not a time; write it as 2016-09-28T15:00 \(UTC\)") as error:
        as_time(wrong, "start")
    assert repr(wrong)[:14] in str(error.value)


def test_thresholds_are_numbers_that_ascend():
    assert as_thresholds(None) is None
    assert as_thresholds(2) == (2.0,)
    assert as_thresholds(np.array([0.5, 1])) == (0.5, 1.0)
    with pytest.raises(UsageError, match=r"^thresholds = \[2, 1\]: write ascending numbers above 0, in mm/h"):
        as_thresholds([2, 1])
