"""Records: whatever the file looks like, the same rain comes out, north up, in time order, missing as NaN."""

import logging
import multiprocessing
import os
import pickle
import re
import tracemalloc
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import rain, write_record

from nowcast.errors import DataError, UsageError
from nowcast.netcdf import open_records

START = 1_600_000_200  # seconds since 1970: 2020-09-13 12:30


def write(path, stored, *, dims=("time", "y", "x"), kind=None, fill=None, times=None, name="rr", format="NETCDF4", **attributes):
    """A file of one variable of `stored` numbers as they are; dims of any order and number, y descending."""
    stored = np.asarray(stored)
    with netCDF4.Dataset(path, "w", format=format) as file:
        for dim, size in zip(dims, stored.shape, strict=True):
            file.createDimension(dim, size)
        num_times = stored.shape[dims.index("time")] if "time" in dims else 1
        times = START + 300 * np.arange(num_times) if times is None else times
        time = file.createVariable("time", "i4", ("time",) if "time" in dims else ())
        time.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01"})
        time[...] = times
        for dim, step in (("y", -1000.0), ("x", 1000.0)):
            if dim in dims:
                coordinate = file.createVariable(dim, "f8", (dim,))
                coordinate.setncatts({"standard_name": f"projection_{dim}_coordinate", "units": "m"})
                coordinate[:] = step * np.arange(len(file.dimensions[dim]))
        variable = file.createVariable(name, kind or stored.dtype, dims, fill_value=fill)
        variable.setncatts({"units": "mm h-1"} | attributes)
        variable.set_auto_maskandscale(False)
        variable[...] = stored
    return path


def edit(path):
    return netCDF4.Dataset(path, "a")


def open_one(path, **options):
    (record,) = open_records([path], **options)
    return record


def read_one(path, **options):
    record = open_one(path, **options)
    return record.read(range(len(record)))


# -- real records -----------------------------------------------------------------------------------------------------


def readme_rows(shared):
    """(path, not observed %, >= 0.1 %, >= 1 %, >= 5 %, max, frames, minutes, (ny, nx), y ascends) of every real record."""
    rows = []
    for line in (shared / "radar" / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 12 and cells[0].endswith(".nc"):
            frames, minutes = re.match(r"(\d+) x (\d+) min", cells[3]).groups()
            shape = tuple(int(n) for n in re.match(r"(\d+) x (\d+),", cells[4]).groups())
            figures = [float(cell) for cell in cells[6:11]]
            rows.append((cells[0], figures, int(frames), int(minutes), shape, "y up" in cells[4]))
    return rows


def test_every_real_record_has_the_figures_of_its_description(shared):
    rows = readme_rows(shared)
    assert len(rows) == len(list((shared / "radar").glob("*/*.nc"))) >= 14
    for path, (missing, *wet, highest), frames, minutes, shape, y_ascending in rows:
        record = open_one(shared / "radar" / path)
        fields = read_one(shared / "radar" / path)
        assert (len(record), record.grid.shape) == (frames, shape), path
        assert record.time_step == np.timedelta64(minutes, "m"), path
        assert record.grid.y_ascending == y_ascending, path
        assert fields.dtype == np.float32
        assert fields.flags.c_contiguous
        observed = fields[~np.isnan(fields)]
        found = [100 * np.isnan(fields).mean(), *(100 * (observed >= np.float32(t)).mean() for t in (0.1, 1, 5))]
        assert found[:3] == pytest.approx([missing, *wet[:2]], abs=0.051), path
        assert found[3] == pytest.approx(wet[2], abs=0.0051), path
        assert observed.max() == pytest.approx(highest, abs=0.51), path


def test_original_files_of_one_frame_each_are_the_converted_record(shared):
    original = open_one(shared / "radar" / "raw" / "bom_netcdf")
    converted = open_one(shared / "radar" / "bom" / "melbourne_20180616.nc")
    positions = np.searchsorted(converted.times, original.times)
    np.testing.assert_array_equal(converted.times[positions], original.times)
    assert (original.variable, len(original.paths), original.time_step) == ("precipitation", 8, np.timedelta64(6, "m"))
    ours, theirs = original.read(range(8)), converted.read(positions)
    observed = ~np.isnan(theirs)
    np.testing.assert_array_equal(ours[observed], theirs[observed])
    assert original.grid.spacing_km == pytest.approx(converted.grid.spacing_km)


def test_an_original_file_of_packed_rates_is_the_converted_record(shared):
    original = open_one(shared / "radar" / "raw" / "openmrg_netcdf")
    converted = open_one(shared / "radar" / "smhi" / "gothenburg_20150827.nc")
    positions = np.searchsorted(converted.times, original.times)
    # The original is rounded to 0.01 mm/h.
    np.testing.assert_allclose(original.read(range(len(original))), converted.read(positions), atol=0.0051)


def test_cell_sizes_are_kilometres_also_on_longitude_and_latitude(shared):
    assert open_one(shared / "radar/opera/20180824_central_europe.nc").grid.spacing_km == pytest.approx((2, 2))
    dy, dx = open_one(shared / "radar/meteofrance/nw_201608_gappy.nc").grid.spacing_km
    assert dy == pytest.approx(1.112, abs=1e-3)
    assert dx == pytest.approx(1.112 * np.cos(np.radians(49.1)), abs=0.01)


def test_a_window_is_read_without_its_record(shared):
    record = open_one(shared / "radar/fmi/20160928.nc")
    tracemalloc.start()
    window = record.read([3, 4, 5, 30])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * window.nbytes


# -- the same rain, however it is stored ------------------------------------------------------------------------------


@given(
    order=st.permutations(["time", "y", "x", "level"]),
    y_ascending=st.booleans(),
    packing=st.sampled_from(["f4", ">f4", "f8", "i2", ">i2", "u2", "u1", "i4"]),
    offset=st.sampled_from([0.0, 20.0]),
    units=st.sampled_from([("mm h-1", 1.0), ("kg m-2 s-1", 3600.0), ("0.1 mm/5min", 1.2), ("inches/hour", 25.4)]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_layout_and_packing_is_read_as_the_same_rain(tmp_path, order, y_ascending, packing, offset, units, seed):
    rng = np.random.default_rng(seed)
    kind, (name, factor) = np.dtype(packing), units
    counts = rng.integers(0, 200, (4, 5, 6, 1))
    packed = kind.kind != "f"
    scale, offset = (0.25, offset) if packed else (1.0, 0.0)
    rate = np.where(counts == 7, np.nan, (counts * scale + offset) * factor)[..., 0]
    fill = {"f": -9999.0, "i": -5, "u": 255}[kind.kind]
    stored = np.where(counts == 7, fill, counts).astype(kind)[:, :: -1 if y_ascending else 1]
    stored = stored.transpose([["time", "y", "x", "level"].index(dim) for dim in order])
    attributes = {"scale_factor": scale, "add_offset": offset} if packed else {}
    path = tmp_path / "any.nc"
    path.unlink(missing_ok=True)
    write(path, stored, dims=tuple(order), kind=kind, fill=kind.type(fill), units=name, **attributes)
    if y_ascending:
        with edit(path) as file:
            file["y"][:] = file["y"][:][::-1]
    fields = read_one(path)
    np.testing.assert_allclose(fields, rate, rtol=1e-6, equal_nan=True)
    assert fields.dtype == np.dtype("=f4")
    assert fields.flags.c_contiguous


def test_frames_come_in_the_order_asked_for(tmp_path):
    fields = rain(frames=6)
    record = open_one(write_record(tmp_path / "a.nc", fields))
    np.testing.assert_array_equal(record.read([4, 5, 0, 0, 3]), fields[[4, 5, 0, 0, 3]])
    assert record.read([]).shape == (0, 48, 56)
    with pytest.raises(IndexError, match="positions 0 to 6 of a record of 6 frames"):
        record.read([0, 6])
    with pytest.raises(IndexError):
        record.read([-1])


def test_row_0_is_the_northernmost_either_way(tmp_path):
    fields = rain(frames=2)
    down, up = (write_record(tmp_path / f"{up}.nc", fields, y_ascending=up) for up in (False, True))
    np.testing.assert_array_equal(read_one(down), read_one(up))
    assert not open_one(down).grid.y_ascending
    assert open_one(up).grid.y_ascending
    assert open_one(down).grid.key == open_one(up).grid.key


def test_rows_without_coordinates_run_from_the_north(tmp_path):
    path = tmp_path / "bare.nc"
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in (("time", 2), ("ny", 3), ("nx", 4)):
            file.createDimension(dim, size)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "minutes since 2020-01-01"
        time[:] = [0, 5]
        variable = file.createVariable("rr", "f4", ("time", "ny", "nx"))
        variable.units = "mm/h"
        variable[:] = np.arange(24).reshape(2, 3, 4)
    record = open_one(path)
    assert not record.grid.y_ascending
    assert record.grid.y.tolist() == [0, 1, 2]
    assert np.isnan(record.grid.spacing_km).all()
    assert record.read([1])[0].tolist() == np.arange(12, 24).reshape(3, 4).tolist()


# -- missing stays missing --------------------------------------------------------------------------------------------

NOTHING = -32768


@pytest.mark.parametrize(
    ("stored", "fill", "attributes"),
    [
        (np.float32([1, -9999, 2]), np.float32(-9999), {}),
        (np.float32([1, -9999, 2]), None, {}),  # an undeclared sentinel
        (np.float32([1, -1, 2]), None, {}),
        (np.float32([1, 9999, 2]), None, {}),
        (np.float32([1, np.nan, 2]), None, {}),
        (np.float32([1, np.inf, 2]), None, {}),
        (np.float32([1, netCDF4.default_fillvals["f4"], 2]), None, {}),
        (np.float32([1, netCDF4.default_fillvals["f4"], 2]), np.float32(-1), {}),
        (np.float32([1, 77, 2]), None, {"missing_value": np.float32(77)}),
        (np.float32([1, 77, 2]), np.float32(-1), {"missing_value": np.float64([55, 77])}),
        (np.float32([1, 77, 2]), None, {"valid_max": np.float32(50)}),
        (np.float32([1, 77, 2]), None, {"valid_range": np.float32([0, 50])}),
        (np.float32([1, 0.25, 2]), None, {"valid_min": np.float32(0.5)}),
        (np.int16([1, netCDF4.default_fillvals["i2"], 2]), None, {}),
        (np.int16([1, -9999, 2]), None, {}),
        (np.int16([1, -9999, 2]), None, {"missing_value": "none"}),
        (np.uint16([10, 65535, 20]), np.uint16(65535), {"scale_factor": 0.1}),
        (np.uint16([10, 65535, 20]), None, {"scale_factor": 0.1}),
        (np.int16([-20, NOTHING, -10]), np.int16(NOTHING), {"scale_factor": 0.1, "add_offset": 3.0}),
        (np.int16([10, 500, 20]), None, {"scale_factor": 0.1, "valid_max": np.int16(499)}),
        (np.int16([10, 500, 20]), None, {"scale_factor": 0.1, "valid_max": np.float32(49.9)}),
        (np.int16([-10, -500, -20]), None, {"scale_factor": -0.1, "valid_range": np.float32([0, 49.9])}),
        (np.int8([10, -1, 20]), np.int8(-1), {"scale_factor": 0.1, "_Unsigned": "true"}),
        (np.int8([1, -56, 2]), None, {"_Unsigned": "true", "valid_range": np.int8([0, -57])}),
        (np.int8([1, -56, 2]), None, {"_Unsigned": "true", "missing_value": np.int16(200)}),
    ],
)
def test_missing_of_every_kind_is_nan(tmp_path, stored, fill, attributes):
    stored = np.tile(stored, (1, 2, 1))
    fields = read_one(write(tmp_path / "a.nc", stored, fill=fill, **attributes))
    np.testing.assert_allclose(fields[0], [[1, np.nan, 2]] * 2, rtol=1e-6)


def test_unsigned_bytes_reach_255(tmp_path):
    stored = np.int8([[[0, 127, -128, -2]] * 2])
    assert read_one(write(tmp_path / "a.nc", stored, _Unsigned="true"))[0, 0].tolist() == [0, 127, 128, 254]


@pytest.mark.parametrize("sentinel", [-9999, -999, -99.99, -99, 9999, 1e31, -np.inf])
def test_reflectivity_may_be_negative_but_no_sentinel(tmp_path, sentinel):
    stored = np.float32([[[-32, sentinel, 23.0103]] * 2])
    fields = read_one(write(tmp_path / "a.nc", stored, units="dBZ"))
    assert fields[0, 0] == pytest.approx([0.00036, np.nan, 1], abs=1e-4, nan_ok=True)


def test_rounding_below_zero_is_dry(tmp_path):
    fields = read_one(write(tmp_path / "a.nc", np.float32([[[-0.005, 0, -0.02]] * 2])))
    assert fields[0, 0].tolist()[:2] == [0, 0]
    assert np.isnan(fields[0, 0, 2])
    assert not np.signbit(fields[0, 0, 0])


def test_another_relation_of_reflectivity_is_used(tmp_path):
    path = write(tmp_path / "a.nc", np.full((1, 2, 2), 10 * np.log10(223), "f4"), units="dBZ")
    assert read_one(path, zr_a=223, zr_b=1.53) == pytest.approx(1)


# -- times ------------------------------------------------------------------------------------------------------------


def test_frames_are_sorted_and_the_last_of_equal_times_is_kept(tmp_path, caplog):
    stored = np.arange(4, dtype="f4")[:, None, None] * np.ones((4, 2, 2), "f4")
    times = START + np.array([600, 0, 300, 0])
    with caplog.at_level(logging.WARNING):
        record = open_one(write(tmp_path / "a.nc", stored, times=times))
    assert record.times.astype(int).tolist() == [START, START + 300, START + 600]
    assert record.read(range(3))[:, 0, 0].tolist() == [3, 2, 0]
    assert [r.getMessage() for r in caplog.records] == ["a: left out 1 of 4 frames, whose times come again later"]


def test_later_files_win_over_earlier_ones(tmp_path, caplog):
    old = write_record(tmp_path / "old.nc", np.full((3, 4, 4), 1.0))
    new = write_record(tmp_path / "new.nc", np.full((3, 4, 4), 2.0), times=np.datetime64("2020-06-01T00:10") + np.arange(3))
    (record,) = open_records([old, new])
    assert len(record) == 5
    assert record.read(range(5))[:, 0, 0].tolist() == [1, 1, 2, 2, 2]
    assert record.source(1) == old
    assert record.source(4) == new
    assert "left out 1 of 6 frames" in caplog.text


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


def test_times_too_coarse_to_tell_frames_apart_are_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 3), "f4"))
    with edit(path) as file:
        file.renameVariable("time", "old")
        file["old"].standard_name = "other"
        time = file.createVariable("time", "f4", ("time",))
        time.units = "hours since 1900-01-01"
        time[:] = [1058052.5, 1058052.6]
    message = r'time is float32 "hours since 1900-01-01", in steps of 450 s: frames cannot be told apart\.\nRight would be'
    with pytest.raises(DataError, match=message):
        open_records([path])


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("calendar", "360_day", 'a.nc: time is in the calendar "360_day".\nRight would be "standard".'),
        ("units", "fortnights since 1970-01-01", 'a.nc: time has units "fortnights since 1970-01-01" that give no times'),
        ("_FillValue", None, "a.nc: time has missing times.\nRight would be a time for every frame."),
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


# -- accumulations ----------------------------------------------------------------------------------------------------


def accumulation(path, **attributes):
    return write(path, np.full((3, 3, 3), 2.0, "f4"), **({"units": "mm", "standard_name": "rainfall_amount"} | attributes))


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


def test_an_accumulation_without_an_interval_covers_the_time_step(tmp_path):
    assert read_one(accumulation(tmp_path / "a.nc")) == pytest.approx(24)


def test_an_accumulation_over_varying_intervals_is_refused(tmp_path):
    path = accumulation(tmp_path / "a.nc")
    with edit(path) as file:
        start = file.createVariable("start_time", "i4", ("time",))
        start.units = "seconds since 1970-01-01"
        start[:] = file["time"][:] - [300, 300, 600]
    with pytest.raises(DataError, match=r"a.nc: rr accumulates over 300 to 600 s\.\nRight would be one interval"):
        open_records([path])


def test_one_accumulation_over_an_unknown_interval_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((1, 3, 3), "f4"), units="mm")
    with pytest.raises(DataError, match=r'a.nc: rr is an accumulation \("mm"\) over an unknown interval\.\n'):
        open_records([path])


# -- finding the variable ---------------------------------------------------------------------------------------------


def add_variable(path, name, dims=("time", "y", "x"), value=5.0, **attributes):
    with edit(path) as file:
        variable = file.createVariable(name, "f4", dims)
        variable.setncatts(attributes)
        variable[...] = value


def test_a_standard_name_wins_over_units_and_a_rate_over_reflectivity(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), standard_name="rainfall_rate")
    add_variable(path, "quality", units="1")
    add_variable(path, "other", units="mm/h")
    add_variable(path, "z", units="dBZ", standard_name="equivalent_reflectivity_factor")
    add_variable(path, "error", units="mm/h", standard_name="rainfall_rate standard_error")
    assert open_one(path).variable == "rr"
    assert read_one(path).max() == 1


def test_winds_and_heights_are_not_taken_for_rain(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), units="m s-1")
    add_variable(path, "height", units="m")
    add_variable(path, "wind", units="mm/h", standard_name="eastward_wind")
    with pytest.raises(DataError, match=r"no variable that is known to be rain; it has rr\(time, y, x\) \[m s-1\], height"):
        open_records([path])
    assert read_one(path, variable="rr").max() == pytest.approx(3.6e6)


def test_several_equal_candidates_are_named(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    add_variable(path, "rain2", units="mm/h")
    message = f"{path} has several rain variables: rr, rain2.\nChoose one with --variable (data.variable)."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_records([path])
    assert open_one(path, variable="rain2").read([0]).max() == 5


def test_no_candidate_lists_what_there_is(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), units="K", name="temperature")
    message = (
        f"{path} has no variable that is known to be rain; it has temperature(time, y, x) [K].\n"
        "Right would be a CF standard name such as rainfall_rate; or choose one with --variable (data.variable)."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_records([path])


def test_groups_are_not_read_and_said_so(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createGroup("dataset1")
    with pytest.raises(DataError, match="it has the groups dataset1, which are not read"):
        open_records([tmp_path / "a.nc"])


def test_a_variable_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    with pytest.raises(DataError, match=r'a.nc has no variable "rain".\nIt has rr\(time, y, x\) \[mm h-1\]\.$'):
        open_records([path], variable="rain")


def test_a_variable_without_rows_and_columns_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"))
    add_variable(path, "mean", dims=("time", "y"), units="mm/h")
    with pytest.raises(DataError, match=r"a.nc: mean has dimensions \(time, y\)\.\nRight would be \(time, y, x\)\."):
        open_records([path], variable="mean")
    assert open_one(path).variable == "rr"


@pytest.mark.parametrize("name", ["rainfall_rate", "precipitation_flux"])
def test_unknown_units_are_refused_where_the_name_says_rain(tmp_path, name):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), units="counts/pixel", standard_name=name)
    with pytest.raises(DataError, match='a.nc: rr has units "counts/pixel", which is no measure of rain'):
        open_records([path])


def test_missing_units_are_asked_for(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((2, 3, 3), "f4"), standard_name="rainfall_rate")
    with edit(path) as file:
        del file["rr"].units
    with pytest.raises(DataError, match=r"a.nc: rr has no units attribute\."):
        open_records([path])


def test_a_named_variable_may_be_dimensionless(tmp_path):
    path = write(tmp_path / "a.nc", np.full((2, 3, 3), 0.5, "f4"), units="1", name="brightness")
    record = open_one(path, variable="brightness")
    assert (record.quantity, record.units) == ("dimensionless", "1")
    assert record.read([0]).max() == 0.5


def test_dimensions_one_long_are_dropped_and_longer_ones_refused_by_name(tmp_path):
    path = write(tmp_path / "one.nc", np.ones((1, 2, 3, 4), "f4"), dims=("member", "time", "y", "x"))
    assert read_one(path).shape == (2, 3, 4)
    path = write(tmp_path / "two.nc", np.ones((2, 5, 3, 4), "f4"), dims=("time", "member", "y", "x"))
    message = r"two.nc: rr has more dimensions than time, y and x: member \(5\)\.\nRight would be"
    with pytest.raises(DataError, match=message):
        open_records([path])
    path = write(tmp_path / "untimed.nc", np.ones((5, 3, 4), "f4"), dims=("member", "y", "x"))
    with pytest.raises(DataError, match=r"untimed.nc: rr has no times\."):
        open_records([path])


def test_a_time_dimension_of_no_frames_is_refused(tmp_path):
    path = write(tmp_path / "a.nc", np.ones((0, 3, 4), "f4"))
    with pytest.raises(DataError, match=r"a.nc: rr has no frames\.\nRight would be at least one\."):
        open_records([path])


@pytest.mark.parametrize("dims", [("latitude", "longitude"), ("lat", "lon"), ("south_north", "west_east"), ("a", "b")])
def test_rows_and_columns_are_known_by_many_names(tmp_path, dims):
    path = write(tmp_path / "a.nc", np.arange(24, dtype="f4").reshape(2, 3, 4), dims=("time", *dims))
    record = open_one(path)
    assert (record.grid.y_name, record.grid.x_name) == dims
    assert record.read([0]).shape == (1, 3, 4)


def test_coordinates_tell_rows_from_columns_before_names(tmp_path):
    path = write(tmp_path / "a.nc", np.zeros((2, 3, 4), "f4"))
    with edit(path) as file:
        for dim, axis in (("y", "X"), ("x", "Y")):
            file[dim].delncattr("standard_name")
            file[dim].axis = axis
    assert open_one(path).grid.shape == (4, 3)


# -- files and folders ------------------------------------------------------------------------------------------------


def test_files_on_different_grids_are_different_records(tmp_path):
    write_record(tmp_path / "a1.nc", np.zeros((2, 4, 4)))
    write_record(tmp_path / "b.nc", np.zeros((2, 5, 4)))
    write_record(tmp_path / "a2.nc", np.zeros((2, 4, 4)), times=np.datetime64("2021-01-01") + np.arange(2) * 300)
    records = open_records([tmp_path / "b.nc", tmp_path / "a*.nc"])
    assert [(record.grid.shape, len(record)) for record in records] == [((5, 4), 2), ((4, 4), 4)]
    assert len({record.name for record in open_records([tmp_path])}) == 2


def test_grids_are_equal_up_to_rounding_only(tmp_path):
    paths = [write_record(tmp_path / f"{i}.nc", np.zeros((2, 4, 4))) for i in range(3)]
    for path, shift in zip(paths, (0, 1e-4, 10), strict=True):
        with edit(path) as file:
            file["x"][:] += shift
    keys = [open_one(path).grid.key for path in paths]
    assert keys[0] == keys[1] != keys[2]
    assert len({hash(key) for key in keys}) == 2


def test_another_projection_is_another_grid(tmp_path):
    paths = [write_record(tmp_path / f"{i}.nc", np.zeros((2, 4, 4))) for i in range(2)]
    with edit(paths[1]) as file:
        file["crs"].longitude_of_projection_origin = 6.0
    assert len(open_records(paths)) == 2


def test_a_series_may_turn_its_rows_round(tmp_path):
    fields = rain(frames=4)
    first = write_record(tmp_path / "1.nc", fields[:2])
    second = write_record(tmp_path / "2.nc", fields[2:], times=np.datetime64("2020-06-01T00:10") + np.arange(2) * np.timedelta64(5, "m"), y_ascending=True)  # fmt: skip
    (record,) = open_records([first, second])
    np.testing.assert_array_equal(record.read(range(4)), fields)


def test_a_folder_a_subfolder_and_a_glob_are_the_same_files(tmp_path):
    folder = tmp_path / "radar" / "june"
    folder.mkdir(parents=True)
    write_record(folder / "a.nc", np.zeros((2, 4, 4)))
    write_record(folder / ".hidden.nc", np.zeros((2, 9, 4)))
    (folder / "notes.txt").write_text("not read")
    for argument in (folder, folder.parent, str(folder / "*.nc"), folder / "a.nc", str(tmp_path / "**" / "*.nc")):
        (record,) = open_records([argument])
        assert [path.name for path in record.paths] == ["a.nc"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere.nc", "no such file or folder: nowhere.nc"),
        ("none/*.nc", "no such file or folder: none/*.nc"),
        ("https://host/a.nc", "https://host/a.nc is a URL.\nRight would be a file on this machine: download it first."),
        ("s3://bucket/a.nc", "s3://bucket/a.nc is a URL."),
        (Path("http://host/a.nc"), "http:/host/a.nc is a URL."),
        ("/dev/null", "/dev/null is no regular file.\nRight would be a NetCDF file, a folder or a glob."),
    ],
)
def test_what_is_no_local_file_is_refused(argument, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        open_records([argument])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^no NetCDF files in .*\.\nRight would be files ending in \.nc, \.nc4, \.cdf\.$"):
        open_records([tmp_path])


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", r"bad.nc is empty \(0 bytes\)\.\nRight would be a NetCDF file with at least one frame\."),
        (b"GRIB....", r"bad.nc is not a NetCDF file: it starts with b'GRIB'\.\nConvert it to CF NetCDF first\."),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 99, r"bad.nc is damaged or incomplete \(.*\)\.\nRight would be a whole NetCDF file\."),
    ],
)
def test_what_is_no_netcdf_is_refused(tmp_path, contents, message):
    path = tmp_path / "bad.nc"
    path.write_bytes(contents)
    with pytest.raises(DataError, match=message):
        open_records([path])


def test_an_unusable_file_in_a_folder_is_left_out_and_reported(tmp_path, caplog):
    write_record(tmp_path / "good.nc", np.zeros((2, 4, 4)))
    (tmp_path / "bad.nc").write_bytes(b"")
    assert len(open_one(tmp_path)) == 2
    assert "left out 1 of 2 files of" in caplog.text
    assert "bad.nc is empty" in caplog.text
    with pytest.raises(DataError, match=r"bad.nc is empty"):
        open_records([tmp_path / "good.nc", tmp_path / "bad.nc"])


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
def test_a_classic_file_cut_short_is_refused(tmp_path, format):
    path = write(tmp_path / "a.nc", np.ones((4, 16, 16), "f4"), format=format)
    assert read_one(path).min() == 1
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(DataError, match=r"a.nc is cut off: it is shorter than its header says\."):
        open_records([path])


def test_a_flipped_bit_is_noticed_and_its_file_named(tmp_path):
    path = tmp_path / "a.nc"
    fields = rain(frames=3)
    with netCDF4.Dataset(write_record(tmp_path / "plain.nc", fields)) as plain, netCDF4.Dataset(path, "w") as file:
        for name, dim in plain.dimensions.items():
            file.createDimension(name, len(dim))
        for name, variable in plain.variables.items():
            last = name == "rainfall_rate"
            copy = file.createVariable(name, variable.dtype, variable.dimensions, fletcher32=last, fill_value=-9999.0 if last else None)
            copy.setncatts({key: value for key, value in variable.__dict__.items() if key != "_FillValue"})
            copy[...] = variable[...]
    contents = bytearray(path.read_bytes())
    start = contents.find(fields[1, 20].tobytes())
    contents[start + 5] ^= 4
    path.write_bytes(contents)
    record = open_one(path)
    with pytest.raises(DataError, match=r"a.nc: frames? .* of rainfall_rate cannot be read \(.*HDF error.*\)\.\nThe file is damaged"):
        record.read([0, 1, 2])


def test_a_huge_declared_variable_opens_without_memory(tmp_path):
    path = tmp_path / "huge.nc"
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in (("time", 200_000), ("y", 2000), ("x", 2000)):
            file.createDimension(dim, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "seconds since 2020-01-01"
        time[:] = 300 * np.arange(200_000)
        file.createVariable("rr", "f4", ("time", "y", "x"), chunksizes=(1, 2000, 2000)).units = "mm/h"
    tracemalloc.start()
    record = open_one(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(record) == 200_000
    assert peak < 200 * 2**20
    assert np.isnan(record.read([199_999])).all()


def test_a_coordinate_too_long_to_read_is_refused(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("y", 10**12)
        file.createDimension("x", 2)
        file.createVariable("rr", "f4", ("y", "x"), chunksizes=(10, 2)).units = "mm/h"
        file.createVariable("time", "i4").units = "seconds since 2020-01-01"
        file["time"][...] = 0
    with pytest.raises(DataError, match=r"a.nc: dimension y has 1000000000000 cells\.\nRight would be at most 50000000\."):
        open_records([tmp_path / "a.nc"])


# -- processes --------------------------------------------------------------------------------------------------------


def _sum(record):
    return float(record.read(range(len(record))).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_record_that_was_read_is_read_again_in_another_process(tmp_path, method):
    record = open_one(write_record(tmp_path / "a.nc", rain(frames=4)))
    expected = _sum(record)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sum, [record] * 4) == [expected] * 4
    assert _sum(record) == expected


def test_a_pickled_record_holds_no_fields_and_no_open_file(tmp_path):
    record = open_one(write_record(tmp_path / "a.nc", rain(frames=4)))
    record.read([0])
    contents = pickle.dumps(record)
    assert len(contents) < 8000
    np.testing.assert_array_equal(pickle.loads(contents).read([2]), record.read([2]))


def test_few_of_many_files_stay_open(tmp_path):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("open files are counted in /proc")
    fields = rain(frames=40, shape=(8, 8))
    for i, field in enumerate(fields):
        write_record(tmp_path / f"{i:02}.nc", field[None], times=[np.datetime64("2020-06-01T00:00") + 5 * i])
    record = open_one(tmp_path)
    np.testing.assert_array_equal(record.read(range(40)), fields)
    assert sum(".nc" in os.readlink(link) for link in folder.iterdir() if link.is_symlink()) <= 16


def test_a_replaced_file_is_read_anew(tmp_path):
    path = write_record(tmp_path / "a.nc", np.full((2, 4, 4), 1.0))
    record = open_one(path)
    assert record.read([0]).max() == 1
    write_record(tmp_path / "new.nc", np.full((2, 4, 4), 2.0)).replace(path)
    assert record.read([0]).max() == 2


def test_a_file_that_has_gone_or_shrunk_is_named(tmp_path):
    path = write_record(tmp_path / "a.nc", np.full((3, 4, 4), 1.0))
    record = open_one(path)
    write_record(tmp_path / "new.nc", np.full((1, 4, 4), 2.0)).replace(path)
    with pytest.raises(DataError, match=r"a.nc: frame 2 of rainfall_rate cannot be read"):
        record.read([2])
    path.unlink()
    with pytest.raises(DataError, match=r"a.nc cannot be read any more"):
        record.read([0])


def test_a_digest_tells_contents_conversions_and_frames_apart(tmp_path):
    path = write_record(tmp_path / "a.nc", np.full((3, 4, 4), 1.0), units="dBZ")
    record = open_one(path)
    assert record.digest([0, 1]) == pickle.loads(pickle.dumps(record)).digest([0, 1]) == open_one(path).digest([0, 1])
    digests = {record.digest(), record.digest([0, 1]), record.digest([1, 0]), open_one(path, zr_a=300).digest()}
    os.utime(path, ns=(0, 0))
    assert len(digests | {record.digest()}) == 5
