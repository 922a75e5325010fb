"""Records: whatever the file looks like, the same rain comes out, north up, in time order, missing as NaN."""

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
from makers.stored import edit, open_one, read_one, write
from makers.unusual_files import RAIN

from nowcast.errors import DataError
from nowcast.netcdf import record as record_module
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.record import resolved


def readme_rows(shared):
    """(path, [not observed, >= 0.1, >= 1, >= 5 mm/h in %, max], frames, minutes, (ny, nx), y ascends) of each."""
    rows = []
    for line in (shared / "radar" / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 12 and cells[0].endswith(".nc"):
            frames, minutes = re.match(r"(\d+) x (\d+) min", cells[3]).groups()
            shape = tuple(int(n) for n in re.match(r"(\d+) x (\d+),", cells[4]).groups())
            figures = [float(cell) for cell in cells[6:11]]
            rows.append((cells[0], figures, int(frames), int(minutes), shape, "y up" in cells[4]))
    return rows


@pytest.mark.slow
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
        # The description rounds twice (38.849 to 38.85 to 38.9): five thousandths beside the usual half.
        assert found[:3] == pytest.approx([missing, *wet[:2]], abs=0.055), path
        assert found[3] == pytest.approx(wet[2], abs=0.0055), path
        assert observed.max() == pytest.approx(highest, abs=0.51), path


def test_missing_cells_are_those_that_netcdf_masks(shared):
    path = shared / "radar" / "dwd" / "yw_20170816.nc"
    with netCDF4.Dataset(path) as file:
        missing = np.ma.getmaskarray(file["rainfall_rate"][:])
    np.testing.assert_array_equal(np.isnan(read_one(path)), missing[:, ::-1])


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


@given(
    order=st.permutations(["time", "y", "x", "level"]),
    y_ascending=st.booleans(),
    packing=st.sampled_from(["f4", ">f4", "f8", "i2", ">i2", "u2", "u1", "i4"]),
    offset=st.sampled_from([0.0, 20.0]),
    units=st.sampled_from([("mm h-1", 1.0), ("g m-2 s-1", 3.6), ("0.1 mm/5min", 1.2), ("inches/hour", 25.4)]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    write(path, stored, dims=tuple(order), fill=kind.type(fill), units=name, **attributes)
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


def _sum(record):
    return float(record.read(range(len(record))).sum())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_record_that_was_read_is_read_again_in_another_process(tmp_path, method):
    record = open_one(write_record(tmp_path / "a.nc", rain(frames=4)))
    expected = _sum(record)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sum, [record] * 4) == [expected] * 4
    assert _sum(record) == expected


def _num_open(_):
    return len(OPEN_FILES)


def test_a_forked_process_starts_without_the_open_files_of_its_parent(tmp_path):
    open_one(write_record(tmp_path / "a.nc", rain(frames=4))).read([0])
    assert len(OPEN_FILES) > 0
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(_num_open, [None]) == [0]


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
        time = np.datetime64("2020-06-01T00:00") + np.timedelta64(5 * i, "m")
        write_record(tmp_path / f"{i:02}.nc", field[None], times=[time])
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


def test_files_are_resolved_as_one_by_one(tmp_path):
    (tmp_path / "real").mkdir()
    write_record(tmp_path / "real" / "a.nc", np.full((1, 4, 4), 1.0))
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "b.nc").symlink_to(tmp_path / "real" / "a.nc")
    paths = [tmp_path / folder / name for folder in ("real", "linked", "real/../linked") for name in ("a.nc", "b.nc")]
    paths.append(Path(os.path.relpath(paths[0])))
    assert resolved(paths) == [path.resolve() for path in paths]


@pytest.fixture
def small_chunk_cache():
    """The library keeps 4 KiB of what it decompressed, as if files were large."""
    before = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(4096, *before[1:])
    yield
    netCDF4.set_chunk_cache(*before)


def chunked(path, chunks, fields):
    """A compressed record with `chunks` of (time, y, x)."""
    plain = write_record(path.with_suffix(".plain"), fields)
    with netCDF4.Dataset(plain) as old, netCDF4.Dataset(path, "w") as new:
        for name, dim in old.dimensions.items():
            new.createDimension(name, len(dim))
        for name, variable in old.variables.items():
            facts = {key: variable.getncattr(key) for key in variable.ncattrs()}
            options = {"zlib": True, "chunksizes": chunks} if variable.ndim == 3 else {}
            copy = new.createVariable(
                name, variable.dtype, variable.dimensions, fill_value=facts.pop("_FillValue", None), **options
            )
            copy.setncatts(facts)
            copy[...] = variable[...]
    return path


def room(record):
    """Bytes of chunks that the library keeps of the record's first file."""
    return OPEN_FILES.get(record.paths[0])[record.variable].get_var_chunk_cache()[0]


@pytest.mark.usefixtures("small_chunk_cache")
def test_chunks_of_several_frames_stay_for_the_next_frame(tmp_path):
    fields = rain(frames=20, shape=(40, 50))
    record = open_one(chunked(tmp_path / "deep.nc", (16, 16, 32), fields))
    read = np.concatenate([record.read([position]) for position in range(20)])
    np.testing.assert_array_equal(read, fields)
    assert room(record) == 3 * 2 * (16 * 16 * 32 * 4)  # chunks down and across
    flat = open_one(chunked(tmp_path / "flat.nc", (1, 40, 50), fields))
    np.testing.assert_array_equal(flat.read(range(20)), fields)
    assert room(flat) == 4096


@pytest.mark.usefixtures("small_chunk_cache")
def test_chunks_larger_than_memory_can_bear_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "CHUNK_ROOM", 100_000)
    fields = rain(frames=20, shape=(40, 50))
    record = open_one(chunked(tmp_path / "deep.nc", (16, 16, 32), fields))
    np.testing.assert_array_equal(record.read(range(20)), fields)
    assert room(record) == 4096


def test_files_whose_rows_run_differently_are_one_series(tmp_path):
    for number, up in enumerate((True, False, True)):
        write_record(
            tmp_path / f"{number}.nc",
            RAIN[number : number + 1],
            times=[np.datetime64("2020-06-01") + np.timedelta64(300 * number, "s")],
            y_ascending=up,
        )
    np.testing.assert_array_equal(read_one(tmp_path), RAIN)
