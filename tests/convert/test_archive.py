"""Archives: a record a day, month or file; what is there is left; broken files are named and left out."""

import gzip
import os
import re

import netCDF4
import numpy as np
import pytest
from makers import ROOT, command, expect
from makers.cf_checker import cf_faults
from makers.originals import START, counts, stamp, write_fmi, write_knmi, write_odim
from makers.stored import edit, write

from nowcast.convert.place import Axis, Place, window
from nowcast.netcdf.opening import open_records

pytestmark = pytest.mark.usefixtures("cache")
pytest.importorskip("pyproj")
pytest.importorskip("h5py")
DAY = 1440


def odim_files(folder, minutes, **options):
    folder.mkdir(exist_ok=True)
    return [write_odim(folder / f"{n:06d}.h5", counts(seed=n), minutes=n, **options) for n in minutes]


def convert(*argv):
    """Run `nowcast convert ARGV` in one process: several, for four files or more, take seconds to start."""
    return command("convert", *argv, "--processes", 1)


def names(folder):
    """The files in a folder, without the digest of the series in their names."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(re.sub(r"_[0-9a-f]{6}\.nc$", ".nc", name) for name in found)


@pytest.mark.parametrize(("per", "expected"), [("day", [f"2020{day}_RATE_12x14.nc" for day in ("0601", "0602", "0701")]),
                                               ("month", ["202006_RATE_12x14.nc", "202007_RATE_12x14.nc"]),
                                               ("file", ["000000.nc", "000005.nc", "001440.nc", "043200.nc"])])  # fmt: skip
def test_a_record_holds_a_day_a_month_or_a_file(tmp_path, per, expected):
    odim_files(tmp_path / "in", (0, 5, DAY, 30 * DAY))
    code, out, _ = convert(tmp_path / "in", "--output", tmp_path / "out", "--per", per)
    assert code == 0
    assert out.split() == sorted(str(path) for path in (tmp_path / "out").iterdir())
    assert names(tmp_path / "out") == expected
    (record,) = open_records([tmp_path / "out"])
    assert len(record) == 4


def test_a_record_is_a_valid_cf_file_that_tells_its_origin(tmp_path):
    odim_files(tmp_path / "in", (5, 10), quantity="ACRR")
    code, out, _ = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    faults, checks = cf_faults(out.strip())
    assert (code, faults, checks > 10) == (0, [], True)
    with netCDF4.Dataset(out.strip()) as file:
        assert "2 original files, from 000005.h5 to 000010.h5" in file.history
        assert file.Conventions == "CF-1.11"
        assert file["rainfall_rate"].chunking() == [1, 12, 14]
        assert file["rainfall_rate"].cell_methods == "time: mean (comment: of sums over 5 minutes)"
        assert file["time"].bounds == "time_bnds"
        np.testing.assert_array_equal(file["time_bnds"][:], file["time"][:][:, None] + [-300, 0])


def test_what_is_there_is_left_and_what_has_changed_is_told(tmp_path):
    odim_files(tmp_path / "in", (0, DAY))
    folders = (tmp_path / "in", "--output", tmp_path / "out")
    assert convert(*folders)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    odim_files(tmp_path / "in", (5, 2 * DAY))
    code, out, err = convert(*folders)
    assert (code, len(out.split()), "20200603_RATE" in out) == (0, 1, True)
    assert "kept 2 existing records" in err
    assert "1 of them were converted from other files than the present ones" in err
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    anew = convert(*folders, "--overwrite")[1].split()
    assert len(anew) == 3
    assert len(open_records(anew[:1])[0]) == 2


def test_another_content_of_the_same_size_is_told_and_a_copy_is_not(tmp_path):
    (path,) = odim_files(tmp_path / "in", (0,))
    one = (path, "--output", tmp_path / "out")
    assert convert(*one)[0] == 0
    os.utime(path, (1e9, 1e9))
    assert "other files" not in convert(*one)[2]
    size = path.stat().st_size
    write_odim(path, counts(seed=9))
    assert path.stat().st_size == size
    assert "1 of them were converted from other files than the present ones" in convert(*one)[2]


def test_broken_files_are_named_and_counted(tmp_path):
    _, cut, empty = odim_files(tmp_path / "in", (0, 5, 10))
    cut.write_bytes(cut.read_bytes()[:4000])
    empty.write_bytes(b"")
    code, out, err = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0
    assert f"left out {cut}" in err
    assert f"left out 1 file of an unknown format, the first of them {empty}" in err
    (record,) = open_records(out.split())
    np.testing.assert_allclose(record.read([0])[0], counts(seed=0) * 0.1, rtol=1e-6)
    assert len(record) == 1


def test_if_every_file_is_broken_there_is_no_record(workplace):
    path = write_odim(workplace / "a.h5", counts())
    path.write_bytes(path.read_bytes()[:4000])
    expect(3, "convert", "a.h5", "--output", "out", says=r"a\.h5 is damaged or incomplete")


def test_frames_are_chosen_and_the_grid_is_cut(tmp_path):
    odim_files(tmp_path / "in", (0, 5, 10, 15, 20))
    write_odim(tmp_path / "whole.h5", counts(seed=0))
    place = open_records(command("convert", tmp_path / "whole.h5", "--output", tmp_path / "whole")[1].split())[0].grid
    import pyproj

    to_degrees = pyproj.Proj(place.mapping_attributes["proj4"])
    west, north = to_degrees(place.x[3], place.y[2], inverse=True)
    east, south = to_degrees(place.x[8], place.y[7], inverse=True)
    box = ",".join(f"{edge:.6f}" for edge in (west - 0.001, south - 0.001, east + 0.001, north + 0.001))
    options = ("--every", "10", "--box", box)
    assert convert(tmp_path / "in", "--output", tmp_path / "out", *options)[0] == 0
    (record,) = open_records([tmp_path / "out"])
    assert (record.times - START).astype(int).tolist() == [0, 600, 1200]
    ends = (place.y, record.grid.y[0]), (place.x, record.grid.x[0])
    rows, columns = (int(np.flatnonzero(centres == first)[0]) for centres, first in ends)
    assert rows <= 2
    assert columns <= 3
    part = np.s_[rows : rows + record.grid.shape[0], columns : columns + record.grid.shape[1]]
    np.testing.assert_allclose(record.read([1])[0], counts(seed=10)[part] * 0.1, rtol=1e-6)
    assert names(tmp_path / "out") == [f"20200601_RATE_{'x'.join(map(str, record.grid.shape))}.nc"]
    code, _, err = command("convert", tmp_path / "in", "--output", tmp_path / "no", "--box", "100,10,110,20")
    assert (code, "contains no cell: the grid extends from" in err) == (2, True)


def test_another_box_is_another_record(tmp_path):
    """It was left out as if it were there, under the name of the whole grid."""
    write_odim(tmp_path / "a.h5", counts())
    whole = open_records(command("convert", tmp_path / "a.h5", "--output", tmp_path / "out")[1].split())[0].grid
    (west, south), (east, north) = (edges_of(whole, *corner) for corner in ((-1, 0), (0, -1)))
    for half in (f"{(west + east) / 2},{south},{east},{north}", f"{west},{south},{(west + east) / 2},{north}"):
        assert command("convert", tmp_path / "a.h5", "--output", tmp_path / "out", "--box", half)[0] == 0
    assert len(names(tmp_path / "out")) == 3


def test_files_whose_rows_run_differently_become_records_of_one_series(tmp_path):
    fields = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    (tmp_path / "in").mkdir()
    for number, step in enumerate((1, -1)):
        path = write(tmp_path / f"in/{number}.nc", fields[number : number + 1, ::step], times=[1_600_000_200 + 300 * number])
        with edit(path) as file:
            file["y"][:] = file["y"][::step]
    code, _, err = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0, err
    (record,) = open_records([tmp_path / "out"])
    np.testing.assert_array_equal(record.read([0, 1]), fields)


def edges_of(grid, row, column):
    import pyproj

    return pyproj.Proj(grid.mapping_attributes["proj4"])(grid.x[column], grid.y[row], inverse=True)


@pytest.mark.parametrize("dims", [("row", "column"), ("column", "row")], ids=str)
def test_a_box_cuts_a_record_with_latitudes_over_the_grid(tmp_path, dims):
    latitudes, longitudes = np.meshgrid(50.0 + np.arange(6), 5.0 + np.arange(8), indexing="ij")  # from the south
    fields = np.arange(48, dtype=np.float32).reshape(1, 6, 8)
    write(tmp_path / "a.nc", fields, dims=("time", "row", "column"))
    with edit(tmp_path / "a.nc") as file:
        for name, values, units in (("lat", latitudes, "degrees_north"), ("lon", longitudes, "degrees_east")):
            file.createVariable(name, "f8", dims).units = units
            file[name][:] = values if dims[0] == "row" else values.T
    code, _, err = command("convert", tmp_path / "a.nc", "--output", tmp_path / "out", "--box", "6.5,50.5,9.5,53.5")
    assert code == 0, err
    (record,) = open_records([tmp_path / "out"])
    np.testing.assert_array_equal(record.read([0])[0], fields[0, 1:4, 2:5][::-1])
    np.testing.assert_allclose(record.grid.places[:, 0, 0], [53, 7])


def test_a_box_may_go_all_the_way_round():
    place = Place(Axis(60.0, -1.0, 20), Axis(-30.0, 1.0, 60))
    assert window(place, (-180, 50, 180, 55)) == (slice(5, 11), slice(0, 60))
    assert window(place, (350, 50, 5, 55)) == (slice(5, 11), slice(20, 36))


@pytest.mark.parametrize(("minutes", "every", "expected"), [
    ((0, 5.5, 10.5, 15, 19.5, 30), 10, (0, 10.5, 19.5, 30)),
    ((0, 9, 10, 11, 19.25, 20.5, 30), 10, (0, 10, 20.5, 30)),  # of several near a multiple, the nearest
    ((0, 8.5, 11.5, 28.25, 31.75), 10, (0, 8.5)),  # up to 90 s
    ((0, 1.25, 3.5, 5, 6.5, 8.5), 5, (0, 5)),  # up to 75 s, a quarter of the step
    ((DAY - 15, DAY - 0.5, DAY + 10), 10, (DAY - 0.5, DAY + 10)),
    ((DAY - 14, DAY - 5, DAY - 0.5, DAY + 7), 7, (DAY - 5, DAY - 0.5, DAY + 7)),  # each day begins anew
])  # fmt: skip
def test_frames_some_seconds_off_a_multiple_are_kept_and_the_others_counted(tmp_path, minutes, every, expected):
    (tmp_path / "in").mkdir()
    for number, each in enumerate(minutes):
        write_odim(tmp_path / f"in/{number}.h5", counts(seed=number), minutes=each)
    code, out, err = convert(tmp_path / "in", "--output", tmp_path / "out", "--every", every)
    assert code == 0, err
    found, values = [], []
    for path in out.split():
        with netCDF4.Dataset(path) as file:
            since = netCDF4.num2date(file["time"][:], file["time"].units, only_use_cftime_datetimes=False)
            found += [(np.datetime64(time, "s") - START).astype(int) / 60 for time in since.tolist()]
            values += list(file["rainfall_rate"][:])
    assert found == list(expected)
    wanted = [counts(seed=minutes.index(each)) * 0.1 for each in expected]
    np.testing.assert_allclose(np.ma.stack(values), wanted, rtol=1e-6)
    assert f"--every {every} left out {len(minutes) - len(expected)} of {len(minutes)} frames" in err


def test_no_frame_at_a_multiple_is_told(tmp_path):
    odim_files(tmp_path / "in", (3, 8))
    code, _, err = command("convert", tmp_path / "in", "--output", tmp_path / "out", "--every", "5")
    assert (code, "no frames at multiples of 5 minutes in 2 files" in err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_files_that_are_compressed_are_told_to_be_unpacked(tmp_path):
    path = write_odim(tmp_path / "a.h5", counts())
    (tmp_path / "a.h5.gz").write_bytes(gzip.compress(path.read_bytes()))
    code, _, err = command("convert", tmp_path / "a.h5.gz", "--output", tmp_path / "out")
    assert (code, "a.h5.gz is compressed.\nDecompress it" in err) == (3, True)


def test_files_packed_in_different_ways_become_one_record_of_values(tmp_path):
    (tmp_path / "in").mkdir()
    write_odim(tmp_path / "in/a.h5", counts(), gain=0.1)
    write_odim(tmp_path / "in/b.h5", counts(), gain=0.01, minutes=5)
    assert command("convert", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    (record,) = open_records([tmp_path / "out"])
    np.testing.assert_allclose(record.read([0, 1]), counts() * np.array([0.1, 0.01])[:, None, None], rtol=1e-6)


def test_two_series_get_a_record_each(tmp_path):
    odim_files(tmp_path / "in", (0,))
    write_knmi(tmp_path / "in/knmi.h5", counts(shape=(9, 8)))
    write_fmi(tmp_path / "in/fmi.pgm.gz", counts(shape=(9, 8)))
    code, _, err = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0
    assert "1 ODIM HDF5 file, 1 FMI PGM file and 1 KNMI HDF5 file: 3 frames in 3 new records" in err
    expected = ["20200601_CAPPI-LOWEST_9x8.nc", "20200601_RAD-TEST-5min_9x8.nc", "20200601_RATE_12x14.nc"]
    assert names(tmp_path / "out") == expected
    assert len(open_records([tmp_path / "out"])) == 3
    code, out, err = command("convert", tmp_path / "in/knmi.h5", "--output", tmp_path / "out")  # alone: the same name
    assert (code, out, "kept 1 existing record," in err) == (0, "", True)


def test_sums_of_several_intervals_are_several_series(tmp_path):
    odim_files(tmp_path / "in", (60, 65), quantity="ACRR")
    write_odim(tmp_path / "in/hour.h5", counts(seed=1), minutes=60, quantity="ACRR", sums=60)
    both = write_odim(tmp_path / "in/both.h5", counts(seed=2), minutes=120, quantity="ACRR")
    add_sum(both, counts(seed=3), minutes=120, over=60)
    code, out, err = convert(tmp_path / "in", "--output", tmp_path / "out")
    assert (code, "left out" in err) == (0, False)
    assert names(tmp_path / "out") == ["20200601_ACRR-5min_12x14.nc", "20200601_ACRR-60min_12x14.nc"]
    short, long = (open_records([path])[0] for path in out.split())
    np.testing.assert_allclose(short.read([2])[0], counts(seed=2) * 0.1 * 12, rtol=1e-6)
    np.testing.assert_allclose(long.read([0, 1]), np.stack([counts(seed=1), counts(seed=3)]) * 0.1, rtol=1e-6)
    with netCDF4.Dataset(out.split()[1]) as file:
        assert np.diff(file["time_bnds"][:]).ravel().tolist() == [3600, 3600]


def add_sum(path, field, *, minutes, over):
    """Add a second dataset to an ODIM file: a sum over so many minutes."""
    h5py = pytest.importorskip("h5py")
    start = stamp(minutes - over)
    with h5py.File(path, "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/data"][...] = field
        file["dataset2/what"].attrs.update({"startdate": f"{start:%Y%m%d}", "starttime": f"{start:%H%M%S}"})


def test_a_box_that_misses_a_series_leaves_it_out(tmp_path):
    odim_files(tmp_path / "in", (0,))
    write_knmi(tmp_path / "in/knmi.h5", counts(shape=(9, 8)))
    code, out, err = command("convert", tmp_path / "in", "--output", tmp_path / "out", "--box", "-45,60,-30,70")
    assert (code, len(out.split()), "RATE" in out) == (0, 1, True)
    assert "left out 1 of 2 series with no cell in --box, the first of them RAD_TEST_5min with 9 × 8 cells" in err
    code, out, err = command("convert", tmp_path / "in", "--output", tmp_path / "no", "--box", "100,10,110,20")
    assert (code, "contains no cell: the grid extends from" in err) == (2, True)


def test_forecasts_are_left_out_and_told(tmp_path):
    odim_files(tmp_path / "in", (0, 5), quantity="ACRR")
    ahead = write_odim(tmp_path / "in/ahead.h5", counts(), minutes=60, quantity="ACRR")
    set_nominal(ahead, 0)
    code, out, err = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert (code, len(open_records(out.split())[0])) == (0, 2)
    assert f"left out: 1 field of 1 file is a forecast, the first 60 minutes ahead in {ahead}" in err
    code, _, err = command("convert", ahead, "--output", tmp_path / "no")
    assert (code, "1 field of 1 file is a forecast" in err, "Expected observations or analyses" in err) == (3, True, True)


def set_nominal(path, minutes):
    h5py = pytest.importorskip("h5py")
    time = stamp(minutes)
    with h5py.File(path, "a") as file:
        file["what"].attrs.update({"date": f"{time:%Y%m%d}", "time": f"{time:%H%M%S}"})


def test_files_of_one_name_do_not_become_one_record(tmp_path):
    for folder in ("a", "b"):
        odim_files(tmp_path / folder, (0,))
    code, _, err = command("convert", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out", "--per", "file")
    assert (code, "would both become" in err) == (3, True)


def test_of_two_files_of_one_time_the_last_counts(tmp_path):
    write_odim(tmp_path / "a.h5", counts(seed=0))
    write_odim(tmp_path / "b.h5", counts(seed=1))
    code, out, err = command("convert", tmp_path / "a.h5", tmp_path / "b.h5", "--output", tmp_path / "out")
    assert code == 0
    assert "left out 1 field because another of its series has the same time" in err
    np.testing.assert_allclose(open_records(out.split())[0].read([0])[0], counts(seed=1) * 0.1, rtol=1e-6)


@pytest.mark.slow
def test_several_processes_write_what_one_does(tmp_path):
    odim_files(tmp_path / "in", range(0, 10 * DAY, DAY))
    assert command("convert", tmp_path / "in", "--output", tmp_path / "one", "--processes", 1)[0] == 0
    assert command("convert", tmp_path / "in", "--output", tmp_path / "two", "--processes", 2)[0] == 0
    assert names(tmp_path / "one") == names(tmp_path / "two")
    (one,), (two,) = open_records([tmp_path / "one"]), open_records([tmp_path / "two"])
    np.testing.assert_array_equal(one.read(range(10)), two.read(range(10)))


def test_a_folder_of_originals_says_what_to_do(workplace):
    odim_files(workplace / "radar", (0, 5))
    hint = r"radar holds 2 ODIM HDF5 files, not NetCDF\.\nConvert first: nowcast convert radar --output archive/\n"
    expect(2, "inspect", "radar", says=hint)
    expect(2, "predict", "persistence", "radar", "--output", "f.nc", says=hint)
    expect(2, "train", ROOT / "configs/quickstart.toml", "--data", "radar", "--output", "run", says=hint)
    expect(2, "inspect", "radar/000000.h5", says=r"is one ODIM HDF5 file, not NetCDF\.\nConvert first: nowcast")
    expect(2, "plan", "radar", "--output", "p.toml", says=hint)
    expect(2, "evaluate", "persistence", "--observations", "radar", "--output", "scores", says=hint)
    expect(2, "plot", "radar", "--output", "a.png", says=hint)
    expect(2, "series", "radar", "--at", "52,5", "--output", "s.csv", says=hint)
    line = command("inspect", "radar")[2].split("nowcast ")[1].split()
    assert command(*line)[0] == 0
    assert len(open_records(["archive"])[0]) == 2


def test_originals_beside_netcdf_are_told(workplace):
    odim_files(workplace / "in", (0, 5))
    assert command("convert", "in", "--output", "radar")[0] == 0
    odim_files(workplace / "radar", (10,))
    code, _, err = command("inspect", "radar")
    told = "radar also holds 1 ODIM HDF5 file, which are not read: nowcast convert radar --output archive/"
    assert (code, told in err) == (0, True)
    code, out, err = command(*told.split("nowcast ")[1].split())
    assert (code, len(out.split())) == (0, 2), err
    assert [len(record) for record in open_records(["archive"])] == [3]  # on one grid, thus one series


def test_options_that_do_not_fit_are_refused(workplace):
    write_odim("a.h5", counts())
    expect(2, "convert", "a.h5", "--output", "-", says="cannot go to stdout")
    expect(2, "convert", "no.h5", "--output", "out", says=r"no such file or folder: no\.h5")
    expect(2, "convert", "a.h5", "--output", "out", "--box", "1,2,3", says="write west,south,east,north")
    for box in ("5,48,11,46", "5,46,5,48", "5,46,11,91", "5,46,nan,48"):
        expect(2, "convert", "a.h5", "--output", "out", "--box", box, says="in degrees, with south below north")
    expect(2, "convert", "a.h5", "--output", "out", "--every", "0", says="write minutes above 0")
    expect(2, "convert", "a.h5", "--output", "out", "--processes", "0", says="write a number from 1 on")
    expect(2, "convert", "a.h5", "--output", "out", "--watch", "--per", "month", says="--watch takes one folder")
    expect(5, "convert", "a.h5", "--output", "a.h5", says=r"a\.h5 is a file\.\nGive a folder")
    (workplace / "notes.txt").write_text("nothing")
    expect(3, "convert", "notes.txt", "--output", "out", says=r"no radar files of a known format among 1 file, ")
