"""Arrays that xarray has unpacked are read as their files are: their attributes still hold stored numbers."""

import numpy as np
import pytest
import xarray as xr
from makers.stored import read_one, write

import nowcast
from nowcast.netcdf.rain.data_arrays import as_record

STORED = np.arange(24).reshape(2, 3, 4)
BYTES = {"scale_factor": 0.5, "add_offset": -1.0}  # 0 is -1 mm/h, 23 is 10.5 mm/h


def read_array(array):
    with as_record(array) as record:
        return record.read(range(len(record)))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("u1", BYTES | {"valid_range": np.array([2, 20], "u1")}),
        ("u1", BYTES | {"valid_max": np.uint8(20)}),
        ("u1", BYTES | {"valid_min": np.uint8(10)}),
        ("i2", {"scale_factor": -0.5, "add_offset": 20.0, "valid_min": np.int16(3), "valid_max": np.int16(20)}),
        ("i2", {"scale_factor": -0.5, "add_offset": 20.0, "valid_min": np.int16(3)}),
        ("u1", BYTES | {"valid_range": np.array([0.0, 9.0])}),  # unpacked, since it is no integer
        ("i2", {"scale_factor": np.float32(0.1), "valid_max": np.int16(17)}),
        ("u1", BYTES | {"flag_values": np.array([22, 23], "u1"), "flag_meanings": "no_echo outside_coverage"}),
        ("u1", BYTES | {"_Undetect": np.uint8(0)}),
        ("u1", BYTES | {"nodata": np.uint8(23), "undetect": np.uint8(1)}),
        ("i2", {"scale_factor": np.float32(0.1), "flag_values": np.array([23], "i2"), "flag_meanings": "no_data"}),
        ("i2", BYTES | {"valid_range": np.array([3, 100_000], "i4")}),
        ("u1", BYTES | {"zerovalue": -1.0}),  # pysteps' is unpacked
        ("f4", {"scale_factor": 0.1, "valid_max": np.float32(20.5)}),
    ],
)
def test_stored_numbers_in_attributes_are_unpacked_as_the_values_are(tmp_path, kind, attributes):
    path = write(tmp_path / "a.nc", STORED.astype(kind), **attributes)
    expected = read_one(path)
    assert np.isnan(expected).any() or (expected == 0).any()
    with xr.open_dataset(path) as dataset:
        before = {name: np.copy(value) for name, value in dataset.rr.attrs.items()}
        for array in (dataset, dataset.rr, dataset.rr.isel(x=slice(None)).load()):
            np.testing.assert_allclose(read_array(array), expected, rtol=1e-6, atol=1e-6)
        assert all((before[name] == value).all() for name, value in dataset.rr.attrs.items())


def test_unsigned_codes_are_unpacked_too(tmp_path):
    stored = np.where(STORED > 20, STORED + 200, STORED).astype("u1").view("i1")
    codes = {"flag_values": np.array([221, 223], "u1").view("i1"), "flag_meanings": "no_data no_rain"}
    path = write(tmp_path / "a.nc", stored, fill=np.int8(-1), _Unsigned="true", **BYTES, **codes)
    expected = read_one(path)
    assert np.isnan(expected[1, 2, 1])
    assert expected[1, 2, 2:].tolist() == [110, 0]
    with xr.open_dataset(path) as dataset:
        np.testing.assert_allclose(read_array(dataset.rr), expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:variable 'rr' has multiple fill values")
@pytest.mark.parametrize("codes", [np.int8(-3), np.array([-3, -2], "i1")])
def test_missing_values_of_unsigned_numbers_that_xarray_does_not_mask_are_missing(tmp_path, codes):
    stored = np.where(STORED > 20, STORED + 232, STORED).astype("u1").view("i1")  # 253, 254, 255
    path = write(tmp_path / "a.nc", stored, _Unsigned="true", missing_value=codes, **BYTES)
    expected = read_one(path)
    assert np.isnan(expected[1, 2, 1])
    with xr.open_dataset(path) as dataset:
        for array in (dataset, dataset.rr):
            np.testing.assert_allclose(read_array(array), expected, rtol=1e-6)


def test_numbers_of_an_array_that_is_not_unpacked_stay(tmp_path):
    path = write(tmp_path / "a.nc", STORED.astype("u1"), **BYTES, valid_max=np.uint8(20))
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(read_array(dataset.rr), read_one(path))


@pytest.mark.parametrize("name", ["valid_min", "valid_max"])
def test_packed_limits_of_an_array_after_arithmetic_are_told_and_left_out(tmp_path, caplog, name):
    """Of 0 to 10.5 mm/h, stored as 2 to 23, a limit of 12 would leave out all, or nothing, of what it should."""
    path = write(tmp_path / "a.nc", STORED.astype("u1"), **BYTES, **{name: np.uint8(12)})
    with xr.open_dataset(path) as dataset, xr.set_options(keep_attrs=True):
        found = read_array(dataset.rr * 2)
    expected = 2.0 * (STORED * 0.5 - 1)
    np.testing.assert_allclose(found, np.where(expected < 0, np.nan, expected), rtol=1e-6)
    assert f"the array: {name}: numbers of packed values, whose packing was lost in arithmetic; left out.\nTake" in caplog.text
    limited = xr.DataArray(expected, dataset.rr.coords, dataset.rr.dims, "rr", {"units": "mm h-1", name: 12.0})
    assert np.isnan(read_array(limited)).sum() > 2  # limits in units of the array count


def test_amounts_that_lost_their_interval_with_the_dataset_are_told(caplog):
    times = np.datetime64("2020-06-01T00:00:00", "ns") + np.arange(5) * np.timedelta64(5, "m")
    fields = np.full((5, 3, 4), 3.0)  # mm in 15 minutes: 12 mm/h
    fields[:, 0, 0] = 0
    variables = {"rain": (("time", "y", "x"), fields, {"units": "mm"}), "start_time": ("time", times - np.timedelta64(15, "m"))}
    whole = xr.Dataset(variables, {"time": times})
    stated = whole["rain"].assign_attrs(cell_methods="time: sum over 15 minutes")
    for complete in (whole, whole.set_coords("start_time")["rain"], stated):
        np.testing.assert_allclose(read_array(complete)[:, 1:], 12, rtol=1e-6)
    assert not caplog.messages
    np.testing.assert_allclose(read_array(whole["rain"])[:, 1:], 36, rtol=1e-6)
    (told,) = caplog.messages
    assert told == (
        "the array: rain states no interval and is divided by 5 min, the time step.\nGive the Dataset with its start_time or "
        'time bounds, or state it: cell_methods = "time: sum over 15 minutes"'
    )


def test_amounts_of_numpy_arrays_cover_the_time_step_that_is_given(caplog):
    rain = np.full((8, 12, 12), 0.5, np.float32)
    rain[:, 0, 0] = 0
    made = nowcast.load("persistence").forecast(rain, leads=1, units="mm", time_step=2.5)
    np.testing.assert_allclose(made[0, 1:], 12, rtol=1e-6)
    assert not caplog.messages
