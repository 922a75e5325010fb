"""Forecast files: CF for every reader, the same fields back, whole or not at all."""

import re
import shutil
import subprocess
import sys
import tracemalloc

import netCDF4
import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import rain, write_record
from makers.cf_checker import cf_faults
from makers.stored import open_one

from nowcast.errors import DataError, OutputError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE

LEADS = np.array([5, 10, 15], "timedelta64[m]")
REFERENCES = np.array(["2020-06-01T00:15", "2020-06-01T00:20"], "datetime64[s]")
ATTRIBUTES = {
    "title": "Radar nowcast",
    "institution": "nowcast",
    "source": "persistence, nowcast 0.1",
    "history": "2020-06-01T00:16Z nowcast predict",
    "references": "none",
}


def forecasts(grid, *, cases=2, missing=0.1):
    """`cases` forecasts of three leads on a grid."""
    fields = rain(frames=cases + len(LEADS), shape=grid.shape, missing=missing)
    times = REFERENCES[0] + np.arange(cases) * np.timedelta64(5, "m")
    return [(time, fields[i : i + len(LEADS)]) for i, time in enumerate(times)]


def write(path, record, *, single=False, cases=None, **options):
    cases = forecasts(record.grid, cases=1 if single else 2) if cases is None else cases
    options = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": ATTRIBUTES} | options
    write_forecast(path, iter(cases), grid=record.grid, single=single, **options)
    return cases


@pytest.fixture
def record(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    return open_one(write_record(folder / "record.nc", rain(frames=3), y_ascending=True))


# -- contents ---------------------------------------------------------------------------------------------------------


def test_forecasts_come_back_as_they_were(tmp_path, record, single):
    cases = write(tmp_path / "f.nc", record, single=single)
    found = read_forecast(tmp_path / "f.nc")
    assert found.reference_times.dtype == "datetime64[s]"
    assert found.reference_times.tolist() == [time.item() for time, _ in cases]
    assert found.lead_times.tolist() == LEADS.tolist()
    assert found.quantity == RAIN_RATE
    assert found.grid.key == record.grid.key
    for i, (_, fields) in enumerate(cases):
        np.testing.assert_array_equal(found.read(i), fields)
    with pytest.raises(IndexError, match=f"case {len(cases)} of {len(cases)}"):
        found.read(len(cases))


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    # even, as leads of forecasts are: reading moves others by some seconds, with a warning (test_forecast_reader.py)
    leads=st.builds(lambda step, number: [step * n for n in range(1, number + 1)], st.integers(1, 7200), st.integers(1, 4)),
    num_cases=st.integers(1, 3),
    y_ascending=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_cases_leads_and_cells_comes_back(tmp_path, shape, leads, num_cases, y_ascending, seed):
    path, source = tmp_path / "f.nc", tmp_path / "record.nc"
    source.unlink(missing_ok=True)
    record = open_one(write_record(source, np.zeros((2, *shape)), y_ascending=y_ascending), variable="rainfall_rate")
    rng = np.random.default_rng(seed)
    fields = rng.choice(np.float32([0, 0.1, 55, np.nan]), (num_cases, len(leads), *shape))
    cases = [(REFERENCES[0] + np.timedelta64(300 * i, "s"), fields[i]) for i in range(num_cases)]
    for single in {False, num_cases == 1}:
        write(path, record, single=single, cases=cases, lead_times=np.array(leads, "timedelta64[s]"), overwrite=True)
        found = read_forecast(path, variable="precip_intensity")
        np.testing.assert_array_equal(found.reference_times, [time for time, _ in cases])
        np.testing.assert_array_equal(found.lead_times, np.array(leads, "timedelta64[s]"))
        np.testing.assert_array_equal(np.stack([found.read(i) for i in range(num_cases)]), fields)


def test_coordinates_and_projection_are_carried_through_untouched(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    with netCDF4.Dataset(record.paths[0]) as before, netCDF4.Dataset(tmp_path / "f.nc") as after:
        for name in ("y", "x", "crs"):
            assert after[name].__dict__ == before[name].__dict__
            assert after[name].dimensions == before[name].dimensions
        np.testing.assert_array_equal(after["y"][:], before["y"][:])
        np.testing.assert_array_equal(after["x"][:], before["x"][:])
        assert after["precip_intensity"].grid_mapping == "crs"


def test_rows_follow_y_in_either_order(tmp_path):
    fields = rain(frames=3)
    for up in (False, True):
        record = open_one(write_record(tmp_path / f"{up}.nc", fields, y_ascending=up))
        write(tmp_path / f"f{up}.nc", record, single=True, cases=[(REFERENCES[0], fields)])
    with xarray.open_dataset(tmp_path / "fFalse.nc") as down, xarray.open_dataset(tmp_path / "fTrue.nc") as up:
        assert (down.y.values == up.y.values[::-1]).all()
        xarray.testing.assert_equal(down.precip_intensity, up.precip_intensity.sortby("y", ascending=False))


def test_fields_are_checked_compressed_and_chunked_by_frame(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        variable = file["precip_intensity"]
        assert variable.chunking() == ([1] if single else [1, 1]) + [48, 56]
        filters = variable.filters()
        assert (filters["zlib"], filters["complevel"], filters["fletcher32"]) == (True, 4, True)
        assert variable.dtype == np.float32
        assert np.isfinite(variable._FillValue)
        assert (variable.standard_name, variable.units) == ("rainfall_rate", "mm h-1")
        assert file.data_model == "NETCDF4"


def test_times_are_int32_seconds_since_the_reference_time(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        for name in ("time", "forecast_reference_time", "forecast_period"):
            assert file[name].dtype == np.int32
            assert "_FillValue" not in file[name].ncattrs()
            assert file[name].standard_name == name
        assert file["time"].units == file["forecast_reference_time"].units == "seconds since 2020-06-01 00:15:00"
        assert file["forecast_period"].units == "s"
        assert file["forecast_period"][:].tolist() == [300, 600, 900]
        if single:
            assert file["precip_intensity"].dimensions == ("time", "y", "x")
            assert (file["forecast_reference_time"].shape, file["forecast_reference_time"][...]) == ((), 0)
            assert file["time"][:].tolist() == [300, 600, 900]
        else:
            assert file["precip_intensity"].dimensions == ("forecast_reference_time", "forecast_period", "y", "x")
            assert file["time"][:].tolist() == [[300, 600, 900], [600, 900, 1200]]


def test_global_attributes_are_those_given_and_the_conventions(tmp_path, record):
    write(tmp_path / "f.nc", record)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file.__dict__ == {"Conventions": "CF-1.11"} | ATTRIBUTES


def test_what_is_no_rain_is_not_called_so(tmp_path, record):
    cases = write(tmp_path / "f.nc", record, quantity=DIMENSIONLESS)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert "precip_intensity" not in file.variables
        assert file["value"].units == "1"
        assert "standard_name" not in file["value"].ncattrs()
    found = read_forecast(tmp_path / "f.nc", variable="value")
    assert found.quantity == DIMENSIONLESS
    np.testing.assert_array_equal(found.read(1), cases[1][1])


@pytest.mark.slow
def test_cases_are_written_one_at_a_time(tmp_path, record):
    def cases(num):
        for i in range(num):
            yield REFERENCES[0] + np.timedelta64(300 * i, "s"), np.full((3, 48, 56), i, np.float32)

    tracemalloc.start()
    write(tmp_path / "f.nc", record, cases=cases(200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 3 * 48 * 56 * 4
    assert read_forecast(tmp_path / "f.nc").read(199).max() == 199


# -- other readers ----------------------------------------------------------------------------------------------------


def run(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def test_xarray_reads_times_leads_and_missing(tmp_path, record, single):
    cases = write(tmp_path / "f.nc", record, single=single)
    with xarray.open_dataset(tmp_path / "f.nc", engine="netcdf4") as found:
        field = found.precip_intensity[0] if not single else found.precip_intensity
        np.testing.assert_array_equal(field.values[:, ::-1], cases[0][1])
        np.testing.assert_array_equal(field.time.values, REFERENCES[0] + LEADS)
        assert field.forecast_reference_time.values == REFERENCES[0]
        assert field.forecast_period.values.tolist() == [300, 600, 900]
        assert found.precip_intensity.attrs["grid_mapping"] == "crs"


def test_ncdump_shows_the_layout(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    dims = "time, y, x" if single else "forecast_reference_time, forecast_period, y, x"
    assert f"float precip_intensity({dims}) ;" in run("ncdump", "-h", tmp_path / "f.nc")


def test_cdo_finds_times_and_grid(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    text = run("cdo", "-s", "sinfon", tmp_path / "f.nc")
    assert "azimuthal_equidistant" in text
    assert "x : 0 to 55000 by 1000 m" in text
    assert "y : 0 to 47000 by 1000 m" in text
    times = ["2020-06-01 00:20:00", "2020-06-01 00:30:00"] if single else ["2020-06-01 00:15:00", "2020-06-01 00:20:00"]
    assert all(time in text for time in times)


def test_gdal_finds_projection_and_cells(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    text = run("gdalinfo", f'NETCDF:"{tmp_path / "f.nc"}":precip_intensity')
    assert "Size is 56, 48" in text
    assert "Azimuthal Equidistant" in text
    assert "Origin = (-500.000000000000000,47500.000000000000000)" in text
    assert f"Band {3 if single else 6} " in text


SOURCES = ["record", "bom/melbourne_20180616.nc", "mrms/20190610_southeast.nc", "raw/bom_netcdf"]


@pytest.mark.parametrize("source", SOURCES)
def test_the_cf_checker_finds_no_error(tmp_path, record, single, source, request):
    if source != "record":
        (record,) = open_records([request.getfixturevalue("shared") / "radar" / source])
    write(tmp_path / "f.nc", record, single=single)
    faults, num_checks = cf_faults(tmp_path / "f.nc")
    assert not faults
    assert num_checks > 20


def test_pysteps_reads_it(tmp_path, record):
    nowcast_importers = pytest.importorskip("pysteps.io.nowcast_importers")
    cases = write(tmp_path / "f.nc", record, single=True)
    fields, metadata = nowcast_importers.import_netcdf_pysteps(str(tmp_path / "f.nc"), onerror="raise")
    np.testing.assert_array_equal(fields[:, ::-1], cases[0][1])
    assert list(metadata["leadtimes"]) == [5, 10, 15]
    assert metadata["unit"] == "mm/h"


def test_pysteps_finds_the_projection_of_a_record_that_has_it(tmp_path, shared):
    record = open_one(shared / "radar" / "knmi" / "20100826.nc")
    write(tmp_path / "f.nc", record, single=True)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file.projection == record.grid.mapping_attributes["proj4"]


def test_one_forecast_is_a_record_and_many_are_not(tmp_path, record):
    ((_, fields),) = write(tmp_path / "one.nc", record, single=True)
    again = open_one(tmp_path / "one.nc")
    np.testing.assert_array_equal(again.times, REFERENCES[0] + LEADS)
    np.testing.assert_array_equal(again.read(range(3)), fields)
    write(tmp_path / "many.nc", record)
    with pytest.raises(DataError, match=r"more dimensions than time, y and x: forecast_reference_time \(2\), fore"):
        open_records([tmp_path / "many.nc"])


def test_a_flipped_bit_is_noticed(tmp_path, record):
    path = tmp_path / "f.nc"
    noise = np.random.default_rng(0).random((3, 48, 56), np.float32)
    write(path, record, single=True, cases=[(REFERENCES[0], noise)])
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    with pytest.raises(DataError, match=r"f.nc: case 0 cannot be read \(.*HDF error.*\)\.\nThe file is damaged\."):
        read_forecast(path).read(0)


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_an_existing_file_is_kept_without_overwrite(tmp_path, record):
    path = tmp_path / "f.nc"
    path.write_text("precious")
    message = rf"^{path} exists already\.\nChoose another name, or replace it with --overwrite\.$"
    with pytest.raises(OutputError, match=message):
        write(path, record)
    assert path.read_text() == "precious"
    write(path, record, overwrite=True)
    assert len(read_forecast(path).reference_times) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.nc", "records"]


def test_a_folder_that_is_not_there_is_named(tmp_path, record):
    with pytest.raises(OutputError, match=r"f.nc cannot be written: there is no folder .*/none\.$"):
        write(tmp_path / "none" / "f.nc", record)
    with pytest.raises(OutputError, match=r"records cannot be written: it is a folder\.$"):
        write(tmp_path / "records", record, overwrite=True)


@pytest.mark.parametrize("error", [DataError("a frame went missing"), KeyboardInterrupt("ctrl-c"), MemoryError("big")])
def test_a_forecast_that_fails_leaves_nothing_and_says_why(tmp_path, record, error):
    def cases():
        yield forecasts(record.grid)[0]
        raise error

    (tmp_path / "f.nc").write_text("precious")
    with pytest.raises(type(error), match=f"^{error}$"):
        write(tmp_path / "f.nc", record, cases=cases(), overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.nc", "records"]
    assert (tmp_path / "f.nc").read_text() == "precious"


FULL_DISK = """
import resource, sys
import numpy as np
from nowcast.errors import OutputError
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import RAIN_RATE
(record,) = open_records([sys.argv[1]])
noise = np.random.default_rng(0).random((20, 3, *record.grid.shape), np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
cases = [(np.datetime64("2020-06-01") + 300 * i, fields) for i, fields in enumerate(noise)]
leads = np.array([5, 10, 15], "timedelta64[m]")
try:
    write_forecast(
        sys.argv[2], cases, grid=record.grid, lead_times=leads, quantity=RAIN_RATE, attributes={}, single=False
    )
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_an_output_error_that_leaves_nothing(tmp_path, record):
    pytest.importorskip("resource")
    path = tmp_path / "f.nc"
    text = run(sys.executable, "-c", FULL_DISK, record.paths[0], path)
    assert re.match(rf"{path} cannot be written: .*\.\nIs the disk full \(free: [\d.]+ .B\), or the folder read-only\?\n", text)
    assert [p.name for p in tmp_path.iterdir()] == ["records"]
