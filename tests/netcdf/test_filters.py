"""What is no damage is not called so: filters that are not installed, files compressed as a whole; large chunks are told."""

import logging

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import open_one, write

from nowcast.errors import DataError
from nowcast.netcdf import record as netcdf_record
from nowcast.netcdf.classic_header import check_whole
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.files import FilterError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.record import keep_chunks

h5py = pytest.importorskip("h5py")
MESSAGE = r"compressed by a filter that is not installed here, such as lzf or zstd\.\nExpected zlib"


def compress_by_lzf(path, name):
    """Store a variable of a NetCDF-4 file anew as HDF5 does it with a filter that the NetCDF library lacks."""
    with h5py.File(path, "a") as file:
        values, attributes = file[name][:], {key: file[name].attrs[key] for key in ("units", "standard_name")}
        dims = [scale[0].name for scale in file[name].dims]
        del file[name]
        stored = file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="lzf")
        stored.attrs.update(attributes)
        for number, dim in enumerate(dims):
            stored.dims[number].attach_scale(file[dim])
    return path


def test_a_record_in_an_unknown_filter_is_not_damaged(tmp_path):
    record = open_one(compress_by_lzf(write_record(tmp_path / "a.nc", rain(frames=3)), "rainfall_rate"))
    with pytest.raises(FilterError, match=rf"a.nc: frame 0 to 2 of rainfall_rate cannot be read: {MESSAGE}"):
        record.read(range(3))
    damage = Damage(record)
    with pytest.raises(FilterError, match=MESSAGE):
        damage.read(0)
    assert damage.lines() == []


def test_a_forecast_in_an_unknown_filter_is_not_damaged(tmp_path):
    path = write_record(tmp_path / "f.nc", rain(frames=3))
    with netCDF4.Dataset(path, "a") as file:
        start = file.createVariable("forecast_reference_time", "i4")
        start.setncatts({"units": "minutes since 2020-05-31 23:55"})
        start[...] = 0
    forecasts = read_forecast(compress_by_lzf(path, "rainfall_rate"))
    with pytest.raises(DataError, match=rf"f.nc: case 0 cannot be read: {MESSAGE}"):
        forecasts.read(0)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"\x1f\x8b\x08\x00", "it starts with the bytes 1f 8b 08 00.\nIt is compressed as a whole: unpack it first"),
        (b"BZh9", 'it starts with "BZh9".\nIt is compressed as a whole: unpack it first'),
        (b"GRIB", 'it starts with "GRIB".\nConvert it to CF NetCDF first.'),
        (b"<htm", 'it starts with "<htm".\nIt is a web page'),
    ],
)
def test_the_first_bytes_are_told_as_text_or_numbers(tmp_path, start, told):
    (tmp_path / "a.nc").write_bytes(start + bytes(99))
    with pytest.raises(DataError) as error:
        check_whole(tmp_path / "a.nc")
    assert told in str(error.value)


def test_chunks_of_many_frames_that_memory_cannot_hold_are_told_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(netcdf_record, "CHUNK_ROOM", 10_000)
    path = write(tmp_path / "a.nc", np.zeros((40, 9, 11), "f4"))
    with netCDF4.Dataset(tmp_path / "b.nc", "w") as file:
        for name, size in (("time", 40), ("y", 9), ("x", 11)):
            file.createDimension(name, size)
        file.createVariable("rr", "f4", ("time", "y", "x"), zlib=True, chunksizes=(40, 3, 11))
    field = open_one(path).layouts[0].field
    with netCDF4.Dataset(tmp_path / "b.nc") as file, caplog.at_level(logging.WARNING):
        file["rr"].set_var_chunk_cache(1000)
        for _ in range(3):
            keep_chunks(file["rr"], field)
    (message,) = (r.getMessage() for r in caplog.records)
    assert "b.nc: rr is stored in chunks of 40 frames" in message
    assert "`nccopy -c rr:1,9,11 IN.nc OUT.nc`" in message
