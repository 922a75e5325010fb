"""Records that are written: numbers come back as they were given, with what they mean."""

import itertools
import zlib

import netCDF4
import numpy as np
import pytest
from makers import rain
from makers import write_record as write_plain
from makers.stored import edit, open_one, read_one

from nowcast.errors import OutputError
from nowcast.netcdf.writing.records import Storage, TimedField, attributes_of, write_record

DBZ = Storage("u2", scale=0.5, offset=-32.0, fill=65535, dry=0, reflectivity=True)
START = np.datetime64("2020-06-01T00:00:00")


def write(path, grid, numbers, storage=DBZ):
    frames = [TimedField(START + n * np.timedelta64(300, "s"), field) for n, field in enumerate(numbers)]
    return write_record(path, frames, grid=grid, storage=storage, attributes={})


@pytest.fixture
def grid(tmp_path):
    return open_one(write_plain(tmp_path / "plain.nc", rain(frames=1, shape=(4, 5)))).grid


def test_numbers_are_unpacked_with_their_codes():
    found = DBZ.unpacked(np.array([[0, 1, 100, 65535]], np.uint16))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[-np.inf, -31.5, 18, np.nan]])
    numbers = np.arange(255, dtype=np.uint8)[None]  # in double precision: 0.1 is none in single
    np.testing.assert_array_equal(Storage("u1", 0.1, fill=255).unpacked(numbers), np.float32(np.arange(255)[None] / 10))


def test_numbers_come_back_with_what_they_mean(tmp_path, grid):
    numbers = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(np.uint16)
    assert write(tmp_path / "a.nc", grid, numbers) == 3
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        file.set_auto_maskandscale(False)
        variable = file["reflectivity"]
        np.testing.assert_array_equal(variable[:], numbers)
        stated = {name: variable.getncattr(name) for name in ("units", "scale_factor", "add_offset", "_FillValue", "_Undetect")}
        assert stated == {"units": "dBZ", "scale_factor": 0.5, "add_offset": -32, "_FillValue": 65535, "_Undetect": 0}
        assert np.diff(file["time"][:]).tolist() == [300, 300]
    assert write(tmp_path / "none.nc", grid, []) == 0
    assert not (tmp_path / "none.nc").exists()


def test_a_record_that_does_not_read_back_is_no_file(tmp_path, grid, monkeypatch):
    numbers = itertools.count()  # of what is written, then of what is read
    monkeypatch.setattr(zlib, "crc32", lambda _: next(numbers))
    with pytest.raises(OutputError, match="read back"):
        write(tmp_path / "a.nc", grid, np.zeros((2, 4, 5), np.uint16))
    assert not (tmp_path / "a.nc").exists()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.5, 0.0), (1.0, 2.0), (0.5, 2.0)])
def test_a_scale_and_an_offset_are_stated_where_there_are_any(tmp_path, grid, scale, offset):
    numbers = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    write(tmp_path / "a.nc", grid, numbers, Storage("u1", scale, offset, fill=255))
    np.testing.assert_array_equal(read_one(tmp_path / "a.nc"), numbers * scale + offset)
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert ("scale_factor" in file["rainfall_rate"].ncattrs()) == ((scale, offset) != (1, 0))


def test_means_have_the_bounds_of_their_intervals(tmp_path, grid):
    step, number = np.timedelta64(300, "s"), np.zeros((4, 5), np.uint16)
    frames = [TimedField(START + n * step, number, span=(START + (n - 2) * step, START + n * step)) for n in range(3)]
    write_record(tmp_path / "a.nc", frames, grid=grid, storage=DBZ, attributes={"institution": "here"}, minutes=10)
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file["reflectivity"].cell_methods == "time: mean (comment: of sums over 10 minutes)"
        assert file["reflectivity"].chunking() == [1, 4, 5]
        np.testing.assert_array_equal(file[file["time"].bounds][:], file["time"][:][:, None] + [-600, 0])
    assert attributes_of(tmp_path / "a.nc")["institution"] == "here"


def test_a_record_that_is_there_is_replaced_only_if_asked(tmp_path, grid):
    numbers, frame = np.zeros((1, 4, 5), np.uint16), TimedField(START, np.ones((4, 5), np.uint16))
    write(tmp_path / "a.nc", grid, numbers)
    asked = []
    with pytest.raises(OutputError, match="exists"):
        write_record(tmp_path / "a.nc", (asked.append(frame) for _ in "a"), grid=grid, storage=DBZ, attributes={})
    assert not asked, "refused before any frame is read"
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert np.ma.filled(file["time"][:]).tolist() == [int(START.astype(int))]
    write_record(tmp_path / "a.nc", [frame, frame], grid=grid, storage=DBZ, attributes={}, overwrite=True)
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert len(file["time"]) == 2


def test_what_cannot_be_read_has_no_attributes(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"no NetCDF")
    assert attributes_of(tmp_path / "a.nc") == attributes_of(tmp_path / "none.nc") == {}


def test_coordinates_over_both_dimensions_are_named_and_written(tmp_path):
    path = write_plain(tmp_path / "b.nc", rain(frames=1, shape=(4, 5)))
    with edit(path) as file:
        for name, standard_name, units in (("lat", "latitude", "degrees_north"), ("lon", "longitude", "degrees_east")):
            coordinate = file.createVariable(name, "f8", ("y", "x"))
            coordinate.setncatts({"standard_name": standard_name, "units": units})
            coordinate[:] = 50 + np.arange(20).reshape(4, 5) / 100
        file["rainfall_rate"].coordinates = "lat lon"
    write(tmp_path / "a.nc", open_one(path).grid, np.zeros((1, 4, 5), np.uint16))
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file["reflectivity"].coordinates == "lat lon"
        assert file["lat"].shape == (4, 5)
