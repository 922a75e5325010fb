"""Times that are packed: scale_factor, add_offset and _Unsigned of frames, bounds, start times and lead times."""

import netCDF4
import numpy as np
import pytest
from makers.foreign import improver_file
from makers.stored import edit, open_one, read_one, write

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast

FIRST = np.datetime64("2020-06-01T00:00:00")
FIVE = np.arange(4) * np.timedelta64(300, "s")
SECONDS = "seconds since 2020-06-01"


def with_time(path, kind, stored, *, units=SECONDS, name="time", dims=("time",), **attributes):
    """Replace a time variable of a file by these stored numbers."""
    with edit(path) as file:
        if name in file.variables:
            file.renameVariable(name, f"old_{name}")
            file[f"old_{name}"].standard_name = "other"
        variable = file.createVariable(name, kind, dims, fill_value=attributes.pop("_FillValue", None))
        variable.set_auto_maskandscale(False)
        variable.setncatts({"units": units} | attributes)
        variable[...] = np.asarray(stored).astype(kind)
    return path


@pytest.fixture
def record(tmp_path):
    return write(tmp_path / "a.nc", np.full((4, 3, 3), 2.0, "f4"), units="mm")


@pytest.mark.parametrize(
    ("kind", "stored", "attributes"),
    [
        ("i2", np.arange(4), {"scale_factor": 300.0}),
        ("i2", np.arange(4), {"scale_factor": np.float32(300), "add_offset": np.float32(0)}),
        ("i4", 300 * np.arange(4) - 3600, {"add_offset": 3600.0}),
        ("i2", 3 * np.arange(4) - 36, {"scale_factor": 100.0, "add_offset": 3600.0}),
        ("f4", 0.5 * np.arange(4), {"scale_factor": 600.0}),
        ("f8", 5.0 * np.arange(4), {"scale_factor": 1.0, "add_offset": 0.0, "units": "minutes since 2020-06-01"}),
        ("i1", 5 * np.arange(4), {"_Unsigned": "true", "units": "minutes since 2020-06-01"}),
        ("i1", 240 + 5 * np.arange(4), {"_Unsigned": "true", "units": "minutes since 2020-05-31T20:00"}),
        ("i2", 40_000 + 300 * np.arange(4), {"_Unsigned": "true", "units": "s since 2020-05-31T12:53:20"}),
        ("i1", 200 + np.arange(4), {"_Unsigned": "true", "scale_factor": 300.0, "units": "s since 2020-05-31T07:20"}),
    ],
)
def test_packed_times_are_unpacked(record, kind, stored, attributes):
    assert open_one(with_time(record, kind, stored, **attributes)).times.tolist() == (FIRST + FIVE).tolist()


@pytest.mark.parametrize("mark", ["missing_value", "_FillValue"])
def test_a_fill_value_among_packed_times_is_missing(record, mark):
    with_time(record, "i2", [0, 1, -5, 3], scale_factor=300.0, **{mark: np.int16(-5)})
    with pytest.raises(DataError, match=r"a.nc: time has missing times\.\nExpected a time for every frame"):
        open_one(record)


@pytest.mark.parametrize("units", ["nanoseconds since 2020-06-01", "ms since 2020-06-01"])
def test_not_a_time_of_numpy_is_missing(record, units):
    """In nanoseconds it would be in 1677."""
    with_time(record, "i8", [0, np.iinfo("i8").min, 2, 3], units=units)
    with pytest.raises(DataError, match=r"a.nc: time has missing times\.\nExpected a time for every frame"):
        open_one(record)


def test_the_default_fill_value_is_a_time_where_another_is_declared(record):
    stored = netCDF4.default_fillvals["i2"] + np.arange(4)
    with_time(record, "i2", stored, units="minutes since 2020-06-23T18:07", _FillValue=np.int16(-5))
    assert open_one(record).times.tolist() == (FIRST + np.arange(4) * np.timedelta64(60, "s")).tolist()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_missing(record, number):
    with_time(record, "f8", [0, number, 600, 900])
    with pytest.raises(DataError, match=r"a.nc: time has missing times\.\nExpected a time for every frame"):
        open_one(record)


def test_a_number_that_is_no_time_is_told_as_such(record):
    with_time(record, "f8", [0, 9.97e36, 600, 900])
    with pytest.raises(DataError, match=r"a.nc: time has 9.97e\+36 .*, which is no time of a frame"):
        open_one(record)


def with_bounds(path, kind, ends, **attributes):
    with edit(path) as file:
        file["time"].bounds = "time_bnds"
        file.createDimension("nv", 2)
        bounds = file.createVariable("time_bnds", kind, ("time", "nv"))
        bounds.set_auto_maskandscale(False)
        bounds.setncatts(attributes)
        bounds[:] = np.asarray(ends).astype(kind)


@pytest.mark.parametrize(
    ("kind", "unit", "attributes"),
    [
        ("i4", 60, {}),  # not packed, though the times are
        ("i2", 1, {}),  # packed like the times, without saying so
        ("i2", 2, {"scale_factor": 30.0}),
        ("i4", 1, {"units": "minutes since 2020-06-01"}),  # units of their own
    ],
)
def test_bounds_are_unpacked(record, kind, unit, attributes):
    minutes = 5 * np.arange(1, 5)
    with_time(record, "i2", minutes, scale_factor=60.0)
    with_bounds(record, kind, np.stack([minutes - 10, minutes], axis=1) * unit, **attributes)
    assert read_one(record) == pytest.approx(12)  # 2 mm in 10 minutes


def test_bounds_are_unpacked_with_the_offset_of_the_times(record):
    minutes, offset = 5 * np.arange(1, 5), 86400.0
    with_time(record, "i2", minutes, scale_factor=60.0, add_offset=offset)
    with_bounds(record, "i2", np.stack([minutes - 10, minutes], axis=1))
    assert read_one(record) == pytest.approx(12)  # 2 mm in 10 minutes


def test_a_start_time_is_unpacked(record):
    with_time(record, "i2", 5 * np.arange(4), scale_factor=60.0)
    with_time(record, "i1", 200 + 5 * np.arange(4), units="s since 2020-05-31T20:25", name="start_time", scale_factor=60.0)
    with edit(record) as file:
        file["start_time"].setncattr("_Unsigned", "true")
    assert read_one(record) == pytest.approx(8)  # 2 mm in 15 minutes


@pytest.mark.parametrize(
    ("kind", "stored", "attributes"),
    [
        ("i2", 3, {"units": "s", "scale_factor": 300.0}),
        ("i1", 180, {"units": "s", "scale_factor": 5.0, "_Unsigned": "true"}),
        ("i4", 10, {"units": "minutes", "add_offset": 5.0}),
        ("f4", 0.7, {"units": "hours", "scale_factor": 1 / 2.8}),  # 899.99998 s
    ],
)
def test_lead_times_and_reference_times_are_unpacked(tmp_path, kind, stored, attributes):
    path = improver_file(tmp_path / "f.nc", np.ones((3, 4)), reference=FIRST, lead_minutes=15)
    with_time(path, kind, stored, name="forecast_period", dims=(), standard_name="forecast_period", **attributes)
    with_time(path, "i2", 1, name="forecast_reference_time", dims=(), scale_factor=3600.0, units="s since 2020-05-31T23:00")
    with edit(path) as file:
        file.renameVariable("time", "unused")  # so that it follows from the other two
        file["unused"].standard_name = "other"
    found = read_forecast(path)
    assert (found.reference_times[0], found.lead_times[0]) == (FIRST, np.timedelta64(900, "s"))


def test_what_netcdf4_and_xarray_unpack_is_what_is_read(record):
    with_time(record, "i2", 7 * np.arange(4), scale_factor=60.0, add_offset=120.0)
    with netCDF4.Dataset(record) as file:
        oracle = netCDF4.num2date(file["time"][:], SECONDS, only_use_cftime_datetimes=False, only_use_python_datetimes=True)
    assert open_one(record).times.tolist() == oracle.tolist()
