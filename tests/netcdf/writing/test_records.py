"""Records that are written: numbers come back as they were given, with what they mean."""

import itertools
import zlib

import netCDF4
import numpy as np
import pytest
from makers import rain
from makers import write_record as write_plain
from makers.stored import open_one

from nowcast.errors import OutputError
from nowcast.netcdf.writing.records import Storage, TimedField, write_record

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
    np.testing.assert_array_equal(Storage("u1", 0.1, fill=255).unpacked(np.array([[0, 7]], np.uint8)), np.float32([[0, 0.7]]))


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
