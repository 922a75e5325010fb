"""Files: what is named is found, what is no whole NetCDF file is refused by name."""

import os
import re
import tracemalloc
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.stored import edit, open_one, read_one, write

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.classic_header import check_whole
from nowcast.netcdf.opening import open_records


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
    times = np.datetime64("2020-06-01T00:10") + np.array([0, 5])
    second = write_record(tmp_path / "2.nc", fields[2:], times=times, y_ascending=True)
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
        ("https://host/a.nc", "https://host/a.nc is a URL.\nExpected a file on this machine: download it first."),
        ("s3://bucket/a.nc", "s3://bucket/a.nc is a URL."),
        (Path("http://host/a.nc"), "http:/host/a.nc is a URL."),
        ("/dev/null", "/dev/null is no regular file.\nExpected a NetCDF file, a folder or a glob."),
    ],
)
def test_what_is_no_local_file_is_refused(argument, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        open_records([argument])


@pytest.mark.parametrize(("name", "what"), [("", "a run folder"), ("best.safetensors", "a checkpoint")])
def test_a_network_in_place_of_a_record_is_told_as_what_it_is(tmp_path, name, what):
    (tmp_path / "best.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    path = tmp_path / name
    message = f"{path} is {what}: it holds a network, no record.\nTo forecast with it: nowcast predict {path} RECORD"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        open_records([path])


def test_a_record_in_a_run_folder_is_read(tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"")
    write_record(tmp_path / "radar.nc", np.zeros((2, 4, 4)))
    assert [len(record) for record in open_records([tmp_path])] == [2]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^no NetCDF files in .*\.\nExpected files ending in \.nc, \.nc4, \.nc3"):
        open_records([tmp_path])


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", r"bad.nc is empty \(0 bytes\)\.\nExpected a NetCDF file with at least one frame\."),
        (b"GRIB....", r'bad.nc is not a NetCDF file: it starts with "GRIB"\.\nConvert it to CF NetCDF first\.'),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 99, r"bad.nc is damaged or incomplete \(.*\)\.\nExpected a whole"),
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
        for name in ("time", "y", "x", "rainfall_rate"):
            copy = file.createVariable(name, plain[name].dtype, plain[name].dimensions, fletcher32=True)
            copy.setncatts({key: value for key, value in plain[name].__dict__.items() if key != "_FillValue"})
            copy[:] = plain[name][:]
    contents = bytearray(path.read_bytes())
    contents[contents.find(fields[1, 20].tobytes()) + 5] ^= 4
    path.write_bytes(contents)
    record = open_one(path)
    message = r"a.nc: frame 0 to 2 of rainfall_rate cannot be read \(.*HDF error.*\)\.\nThe file is damaged"
    with pytest.raises(DataError, match=message):
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
        file.createDimension("y", 10**8)
        file.createDimension("x", 2)
        file.createVariable("rr", "f4", ("y", "x"), chunksizes=(10, 2)).units = "mm/h"
        file.createVariable("time", "i4").units = "seconds since 2020-01-01"
        file["time"][...] = 0
    with pytest.raises(DataError, match=r"a.nc: dimension y has 100000000 cells\.\nExpected at most 500000"):
        open_records([tmp_path / "a.nc"])


def test_a_damaged_coordinate_is_named_with_its_file(tmp_path):
    path = tmp_path / "a.nc"
    plain_path = write_record(tmp_path / "plain.nc", rain(frames=2, shape=(8, 64)))
    with netCDF4.Dataset(plain_path) as plain, netCDF4.Dataset(path, "w") as file:
        for name, dim in plain.dimensions.items():
            file.createDimension(name, len(dim))
        for name in ("time", "y", "x", "rainfall_rate"):
            copy = file.createVariable(name, plain[name].dtype, plain[name].dimensions, fletcher32=True)
            copy.setncatts({key: value for key, value in plain[name].__dict__.items() if key != "_FillValue"})
            copy[:] = plain[name][:]
    content = bytearray(path.read_bytes())
    content[content.find((1000 * np.arange(64.0)).tobytes()) + 100] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.nc is damaged \(NetCDF: HDF error\)\.\nExpected a whole NetCDF file\."):
        open_records([path])


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff.nc")
    write_record(tmp_path / "a.nc", rain(frames=2)).rename(path)
    with pytest.raises(DataError, match=r"a\\udcff.nc' has a name that cannot be printed, or is not UTF-8\.\nRename it\."):
        open_records([path])


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("kinds", [("i2",), ("i1", "f4"), ("i1", "i2", "f8")])
@pytest.mark.parametrize("unlimited", [True, False])
def test_the_header_tells_the_last_byte_of_a_classic_file(tmp_path, format, kinds, unlimited):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=format) as file:
        file.createDimension("time", None if unlimited else 5)
        file.createDimension("x", 3)
        for number, kind in enumerate(kinds):
            variable = file.createVariable(f"v{number}", kind, ("time", "x"))
            variable.comment = "é" * number
            variable[0:5] = 1
        file.createVariable("scalar", "f4")[...] = 1
    check_whole(path)
    whole, refused = path.read_bytes(), 0
    for lost in range(1, 9):
        path.write_bytes(whole[:-lost])
        try:
            check_whole(path)
        except DataError:
            refused += 1
    assert refused >= 8 - 3  # all but the padding of the last number
