"""Zarr stores, and NetCDF with groups or without units, become records with their values, times, places and intervals."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from makers import command, expect
from makers.originals import START, converted, counts, stored
from makers.stored import open_one

from nowcast.convert.sniffing import format_of

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")


def dataset(fields, **attributes):
    import xarray

    times = START + np.arange(len(fields)) * np.timedelta64(300, "s")
    y, x = 1000.0 * np.arange(fields.shape[1])[::-1], 1000.0 * np.arange(fields.shape[2])
    return xarray.Dataset(
        {"rr": (("time", "y", "x"), fields, attributes)},
        coords={
            "time": times.astype("datetime64[ns]"),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
        },
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore")
def test_zarr(tmp_path, zarr_format):
    pytest.importorskip("zarr")
    fields = np.stack([counts(seed=n) for n in range(11)]).astype(np.float32) / 8
    fields[:, 0, 0] = np.nan
    path = tmp_path / "a.zarr"
    dataset(fields, units="mm/h", long_name="rain rate").to_zarr(path, zarr_format=zarr_format)
    assert format_of(path) == "zarr"
    record = converted(path)
    np.testing.assert_array_equal(record.read(range(11)), fields)
    assert (record.times - START).astype(int).tolist() == list(range(0, 3300, 300))


def test_netcdf_in_a_group_and_without_units(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(3)]).astype(np.int16)
    dataset(fields).to_netcdf(tmp_path / "a.nc", group="radar", encoding={"time": {"units": "seconds since 1970-01-01"}})
    code, _, err = command("inspect", tmp_path / "a.nc")
    assert code == 3
    assert f"nowcast convert {tmp_path / 'a.nc'} --output archive/" in err
    record = converted(tmp_path / "a.nc", "--units", "0.01 mm/5min", "--variable", "radar/rr")
    np.testing.assert_allclose(record.read(range(3)), fields * 0.12, rtol=1e-6)
    assert stored(record)[0].dtype == np.int16 or stored(record)[0].dtype == np.int32


def in_group(path, fields, *, outside=("time", "lat", "lon"), order=("time", "row", "column"), **attributes):
    """Fields (time, y, x) from the south in a group, with latitude and longitude over the grid; variables may be outside."""
    latitudes, longitudes = np.meshgrid(50.0 + np.arange(12), 5.0 + np.arange(14), indexing="ij")
    declared = {
        "time": (("time",), 5 * np.arange(len(fields)), {"units": "minutes since 2020-06-01 02:00 +02:00"}),
        "lat": (("row", "column"), latitudes, {"units": "degrees_north"}),
        "lon": (("row", "column"), longitudes, {"units": "degrees_east"}),
    }
    with netCDF4.Dataset(path, "a" if path.exists() else "w") as file:
        group = file.createGroup(f"radar{len(file.groups)}")
        top = file if outside and not file.dimensions else group
        for dim, size in zip(("time", "row", "column"), fields.shape, strict=True):
            top.createDimension(dim, size)
        for name, (dims, values, own) in declared.items():
            variable = (file if name in outside else group).createVariable(name, "f8", dims)
            variable.setncatts(own)
            variable[:] = values
        variable = group.createVariable("rr", "f4", order)
        variable.setncatts({"units": "mm/h"} | attributes)
        variable[:] = fields.transpose([("time", "row", "column").index(dim) for dim in order])
    return path


@pytest.mark.parametrize("options", [(), ("--variable", "radar0/rr"), ("--variable", "rr")], ids=str)
@pytest.mark.parametrize("outside", [("time", "lat", "lon"), ()], ids=["outside", "inside"])
@pytest.mark.parametrize("order", [("time", "row", "column"), ("row", "column", "time")], ids=str)
def test_coordinates_may_be_in_the_group_or_outside_of_it(tmp_path, options, outside, order):
    fields = np.stack([counts(seed=n) for n in range(6)]).astype(np.float32)
    path = in_group(tmp_path / "a.nc", fields, outside=outside, order=order)
    code, _, err = command("inspect", path)
    assert (code, f"groups (radar0), which are not read.\nConvert it first: nowcast convert {path}" in err) == (3, True)
    record = converted(path, *options)
    np.testing.assert_array_equal(record.read(range(6)), fields[:, ::-1])
    assert (record.times - START).astype(int).tolist() == list(range(0, 1800, 300))
    np.testing.assert_allclose(record.grid.places[:, 0, 0], [61, 5])


def test_several_groups_with_rain_are_asked_for(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(6)]).astype(np.float32)
    for factor in (1, 3):
        in_group(tmp_path / "a.nc", factor * fields, outside=())
    code, _, err = command("convert", tmp_path / "a.nc", "--output", tmp_path / "no")
    assert (code, "a.nc has radar0/rr, radar1/rr.\nExpected a field over y and x; --variable names one." in err) == (3, True)
    np.testing.assert_array_equal(converted(tmp_path / "a.nc", "--variable", "radar1/rr").read(range(6)), 3 * fields[:, ::-1])


def test_sums_in_a_group_keep_their_intervals(tmp_path):
    """Ten minutes each, every five: the record has time bounds."""
    fields = np.stack([counts(seed=n) for n in range(6)]).astype(np.float32)
    path = in_group(tmp_path / "a.nc", fields / 6, outside=(), units="mm", long_name="rain of 10 minutes")
    record = converted(path)
    np.testing.assert_allclose(record.read(range(6)), fields[:, ::-1], rtol=1e-5)
    with netCDF4.Dataset(record.paths[0]) as file:
        assert (file["time_bnds"][:, 1] - file["time_bnds"][:, 0]).tolist() == [600] * 6


@pytest.mark.parametrize("options", [(), ("--variable", "radar0/rr"), ("--units", "mm")], ids=str)
@pytest.mark.parametrize("outside", [("time", "lat", "lon"), ()], ids=["outside", "inside"])
@pytest.mark.parametrize("said", ["bounds", "attribute"])
def test_bounds_and_attributes_of_the_file_hold_for_sums_in_a_group(tmp_path, options, outside, said):
    fields = np.stack([counts(seed=n) for n in range(6)]).astype(np.float32)
    path = in_group(tmp_path / "a.nc", fields, outside=outside, units="mm", standard_name="rainfall_amount")
    with netCDF4.Dataset(path, "a") as file:
        top = file if outside else file["radar0"]
        if said == "bounds":
            top.createDimension("nv", 2)
            top["time"].bounds = "ends"
            top.createVariable("ends", "f8", ("time", "nv"))[:] = np.stack([5 * np.arange(6) - 60, 5 * np.arange(6)], axis=1)
        else:
            file.accumulation_time = "60 minutes"
    np.testing.assert_array_equal(converted(path, *options).read(range(6)), fields[:, ::-1])


@pytest.mark.filterwarnings("ignore")
def test_bounds_of_a_zarr_store_tell_the_interval(tmp_path):
    pytest.importorskip("zarr")
    fields = np.stack([counts(seed=n) for n in range(11)]).astype(np.float32)
    sums = dataset(fields, units="mm", standard_name="rainfall_amount")
    sums["time"].attrs["bounds"] = "time_bnds"
    sums["time_bnds"] = (("time", "nv"), np.stack([sums.time.values - np.timedelta64(1, "h"), sums.time.values], axis=1))
    sums.to_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(converted(tmp_path / "a.zarr", "--variable", "rr").read(range(11)), fields)


@pytest.mark.parametrize("group", ["", "radar"])
@pytest.mark.filterwarnings("ignore")
def test_attributes_of_a_zarr_store_that_netcdf_cannot_hold_are_left_out(tmp_path, group):
    zarr = pytest.importorskip("zarr")
    fields = np.stack([counts(seed=n) for n in range(3)]).astype(np.int8) % 100 - 50
    fields[0, 0, :2] = -1  # 255 unsigned
    odd = {"ok": True, "levels": [[1], [1, 2]], "flags": [True], "about": {"a": 1}, "none": None, "a/b": "c"}
    dataset(fields, units="mm/h", valid_max=255.0).to_zarr(
        tmp_path / "a.zarr", group=group or None, zarr_format=2, consolidated=False
    )
    zarr.open_group(tmp_path / "a.zarr", mode="r+").attrs.update(odd | {"institution": "Met"})
    stored_rr = zarr.open_array(tmp_path / "a.zarr", path=f"{group}/rr".lstrip("/"), mode="r+")
    stored_rr.attrs.update(odd | {"_Unsigned": True})
    record = converted(tmp_path / "a.zarr", *(("--variable", f"{group}/rr") if group else ()))
    np.testing.assert_array_equal(record.read(range(3)), fields.view(np.uint8))


def store(folder, fields, *, minutes=None, **attributes):
    """A Zarr store of fields (time, y, x), 5 minutes apart or at `minutes`."""
    pytest.importorskip("zarr")
    made = dataset(fields, **attributes)
    if minutes is not None:
        made["time"] = ("time", START.astype("datetime64[ns]") + np.array(minutes) * np.timedelta64(60, "s"))
    made.to_zarr(folder / "a.zarr", zarr_format=2, encoding={"rr": {"_FillValue": None}})
    return folder / "a.zarr"


def test_totals_of_a_store_that_start_dry_are_refused(tmp_path):
    """As in a NetCDF file, not only the first frames are compared."""
    dry = np.zeros((6, 12, 14), np.float32)
    totals = np.cumsum([counts(seed=n) for n in range(8)], axis=0).astype(np.float32)
    path = store(tmp_path, np.concatenate([dry, totals]), units="mm", long_name="precipitation")
    said = f"error: {path}: rr, which never falls, is a total since the start of a run.\nExpected amounts of each time step"
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    assert (code, said in err) == (3, True), err


def test_the_interval_of_amounts_in_a_store_comes_from_all_times(tmp_path):
    """The first frames are 30 minutes apart, and not in order."""
    fields = np.stack([counts(seed=n) for n in range(10)]).astype(np.float32) / 8
    minutes = [60, 0, 30, 65, 70, 75, 80, 85, 90, 95]
    record = converted(store(tmp_path, fields, minutes=minutes, units="mm", long_name="rain"))
    np.testing.assert_allclose(record.read(range(10)), 12 * fields[np.argsort(minutes)], rtol=1e-6)


def test_codes_in_later_frames_of_a_store_are_found(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(12)]).clip(0, 90).astype(np.uint8)
    fields[6:, :3] = 255
    path = store(tmp_path, fields, units="mm/h", scale_factor=0.1)
    _, _, err = command("convert", path, "--output", tmp_path / "out")
    rates = open_one(tmp_path / "out").read(range(12))
    assert np.isnan(rates[6:, :3]).all()
    np.testing.assert_allclose(rates[:6], fields[:6] * 0.1, rtol=1e-6)
    assert err.count(f"{path}: rr: 255, which would be 25.5 mm/h in") == 1


def test_warnings_about_a_store_name_it_once(tmp_path):
    import xarray

    fields = np.stack([counts(seed=n) for n in range(4)]).astype(np.float32)
    path = store(tmp_path, fields, units="mm", standard_name="rainfall_amount", cell_methods="time: sum")
    bounded = xarray.open_dataset(path, engine="zarr", decode_times=False).load()
    bounded["time_bnds"] = ("time", "nv"), bounded.time.values[:, None] + np.array([0, 5])
    bounded.time.attrs |= {"bounds": "time_bnds", "units": f"minutes since {START}"}
    bounded.drop_encoding().to_zarr(tmp_path / "b.zarr", zarr_format=2, consolidated=False)
    code, out, err = command("convert", tmp_path / "b.zarr", "--output", tmp_path / "out")
    assert code == 0, err
    named = [line for line in (out + err).splitlines() if "before the ends of its intervals" in line]
    assert [line.split(" are ")[0] for line in named] == [f"{tmp_path / 'b.zarr'}: the times of rr"]
    assert "onsolidated" not in out + err


def test_units_that_a_store_states_count_more_than_given_ones(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(3)]).astype(np.float32)
    path = store(tmp_path, fields, units="mm/h")
    _, _, err = command("convert", path, "--output", tmp_path / "out", "--units", "0.01 mm/h")
    assert 'rr states units "mm/h", which are used; "0.01 mm/h" (--units) is for files that state none' in err
    np.testing.assert_array_equal(open_one(tmp_path / "out").read(range(3)), fields)


def test_the_only_group_with_rain_is_found_above_another(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(3)]).astype(np.float32)
    path = in_group(tmp_path / "a.nc", fields, outside=(), units="mm/h")
    with netCDF4.Dataset(path, "a") as file:
        inner = file["radar0"].createGroup("quality").createVariable("flag", "i1", ("time", "row", "column"))
        inner[:] = 1
    np.testing.assert_array_equal(converted(path).read(range(3)), fields[:, ::-1])


def test_advice_is_given_for_several_files_that_cannot_be_used(tmp_path):
    for name in "ab":
        for n in range(2):
            in_group(tmp_path / f"{name}.nc", np.ones((2, 12, 14), np.float32) * n, outside=(), units="mm/h")
    code, _, err = command("convert", tmp_path / "a.nc", tmp_path / "b.nc", "--output", tmp_path / "out")
    assert code == 3
    assert "Expected a field over y and x; --variable names one. (and 1 more of 2 files)" in err


def plain_store(folder, fields, *, fill, **attributes):
    """A Zarr store of version 2 as zarr writes it, without xarray: fields (time, y, x), and the fill_value `fill` of all."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    minutes = 5.0 * np.arange(len(fields))
    places = {name: 1.0 * np.arange(size) for name, size in zip(("lat", "lon"), fields.shape[1:], strict=True)}
    for name, dims, values, declared in (
        ("time", ["time"], minutes, {"units": f"minutes since {START}"}),
        ("lat", ["lat"], places["lat"][::-1], {"units": "degrees_north"}),
        ("lon", ["lon"], places["lon"], {"units": "degrees_east"}),
        ("rr", ["time", "lat", "lon"], fields, {"units": "mm/h", **attributes}),
    ):
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, fill_value=fill)
        array[...] = values
        array.attrs.update(declared | {"_ARRAY_DIMENSIONS": dims})
    return folder / "a.zarr"


@pytest.mark.parametrize("kind", ["f4", "u1"])
def test_zarrs_default_fill_value_does_not_make_dry_cells_missing(tmp_path, kind):
    fields = np.stack([counts(seed=n) for n in range(3)]).clip(0, 90).astype(kind)
    fields[:, :4] = 0
    path = plain_store(tmp_path, fields, fill=0)
    code, _, err = command("convert", path, "--output", tmp_path / "out")
    assert (code, f"{path}: rr: 0, the fill_value of the store and Zarr's default, is taken as dry" in err) == (0, True), err
    np.testing.assert_array_equal(open_one(tmp_path / "out").read(range(3)), fields)


def test_a_fill_value_of_0_counts_where_0_is_no_rain_rate_or_stated_to_be_missing(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(3)]).clip(1, 90).astype("u1")
    fields[:, :4] = 0
    for number, declared in enumerate(({"scale_factor": 0.1, "add_offset": -0.1}, {"missing_value": 0})):
        (tmp_path / str(number)).mkdir()
        path = plain_store(tmp_path / str(number), fields, fill=0, **declared)
        _, _, err = command("convert", path, "--output", tmp_path / f"out{number}")
        assert "taken as dry" not in err
        np.testing.assert_array_equal(np.isnan(open_one(tmp_path / f"out{number}").read(range(3))), fields == 0)


def test_halves_in_a_store_are_read(tmp_path):
    fields = np.stack([counts(seed=n) for n in range(3)]).astype(np.float16) / 8
    fields[:, 0, 0] = np.nan
    np.testing.assert_array_equal(converted(plain_store(tmp_path, fields, fill=np.nan)).read(range(3)), fields)


def test_a_full_temporary_folder_is_no_damage(tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("NetCDF: HDF error")  # what the library says of a disk that is full

    in_group(tmp_path / "a.nc", np.stack([counts()]), units="mm/h")
    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    says = r"first\.nc cannot be written: NetCDF: HDF error\.\nIs the disk full \(free: .*\), or the folder read-only\?"
    expect(5, "convert", tmp_path / "a.nc", "--output", tmp_path / "out", says=says)
