"""Files of members: what was drawn comes back, by every reader, and nothing is kept in memory."""

import itertools
import shutil
import subprocess
import tracemalloc
import zlib

import netCDF4
import numpy as np
import pytest
import xarray
from makers import rain, write_record
from makers.cf_checker import cf_faults
from makers.places import along, placed
from makers.stored import open_one

from nowcast.errors import OutputError
from nowcast.netcdf.accumulations import accumulations
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.writing.members import most_below, packed, rounded, unpacked, write_members

LEADS = np.array([5, 10, 15, 20], "timedelta64[m]")
START = np.datetime64("2020-06-01T00:15", "s")
HALF_A_COUNT = 0.00501  # mm/h, below 2 mm/h; then .5 %


@pytest.fixture(params=[True, False], ids=["single", "many"])
def single(request):
    return request.param


@pytest.fixture
def record(tmp_path):
    (tmp_path / "records").mkdir()
    return open_one(write_record(tmp_path / "records" / "record.nc", rain(frames=3, shape=(20, 24)), y_ascending=True))


def write(path, record, *, single, members=2, **options):
    cases = 1 if single else 2
    fields = np.stack([rain(frames=4, shape=record.grid.shape, missing=0.1, seed=n) for n in range(members * cases)])
    fields = fields.reshape(cases, members, 4, *record.grid.shape).swapaxes(1, 2)  # case, lead, member
    given = [(START + n * np.timedelta64(300, "s"), iter(case)) for n, case in enumerate(fields)]
    facts = {"lead_times": LEADS, "attributes": {"title": "t"}, "num_members": members}
    write_members(path, given, grid=record.grid, single=single, **facts, **options)
    return fields


def test_members_come_back(tmp_path, record, single):
    fields = write(tmp_path / "f.nc", record, single=single)
    found = read_forecast(tmp_path / "f.nc")
    assert (found.kind, found.num_members, len(found.reference_times)) == ("ensemble", 2, len(fields))
    for case, lead in np.ndindex(fields.shape[:2]):
        np.testing.assert_allclose(found.members(case, lead), fields[case, lead], rtol=0.0051, atol=HALF_A_COUNT)


def test_columns_from_the_east_stay_in_the_order_of_their_coordinate(tmp_path):
    source = open_one(placed(tmp_path / "east.nc", along(), turned=(False, True)))
    (fields,) = write(tmp_path / "f.nc", source, single=True)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert np.diff(file["lon"][:]).max() < 0
        np.testing.assert_allclose(file["precip_intensity"][..., ::-1].filled(np.nan), fields, rtol=0.0051, atol=HALF_A_COUNT)
    np.testing.assert_allclose(read_forecast(tmp_path / "f.nc").members(0, 0), fields[0], rtol=0.0051, atol=HALF_A_COUNT)


def test_members_that_do_not_read_back_leave_no_file(tmp_path, record, monkeypatch):
    numbers = itertools.count()  # of what is written, then of what is read
    monkeypatch.setattr(zlib, "crc32", lambda _: next(numbers))
    with pytest.raises(OutputError, match="read back"):
        write(tmp_path / "f.nc", record, single=True)
    assert not (tmp_path / "f.nc").exists()


def test_xarray_finds_them_by_cf(tmp_path, record):
    (fields,) = write(tmp_path / "f.nc", record, single=True, sums=accumulations((10,), LEADS[0], 4))
    with xarray.open_dataset(tmp_path / "f.nc", engine="netcdf4", decode_coords="all") as found:
        assert found.precip_intensity.dims == ("time", "realization", "y", "x")
        number = found.realization
        assert (number.dtype, number.attrs["standard_name"], number.attrs["units"]) == ("int32", "realization", "1")
        assert found.precip_intensity.encoding["chunksizes"] == (1, 1, *record.grid.shape)
        np.testing.assert_allclose(found.precip_intensity.values[:, :, ::-1], fields, rtol=0.0051, atol=HALF_A_COUNT)
        sums = fields.reshape(2, 2, *fields.shape[1:]).mean(axis=1) / 6
        np.testing.assert_allclose(found.rain_sum_10_min.values[:, :, ::-1], sums, rtol=0.0051, atol=HALF_A_COUNT)


def test_pysteps_reads_them(tmp_path, record):
    nowcast_importers = pytest.importorskip("pysteps.io.nowcast_importers")
    (fields,) = write(tmp_path / "f.nc", record, single=True)
    found, _ = nowcast_importers.import_netcdf_pysteps(str(tmp_path / "f.nc"), onerror="raise")
    np.testing.assert_allclose(found[:, :, ::-1], fields, rtol=0.0051, atol=HALF_A_COUNT)


def test_cdo_reads_them(tmp_path, record):
    if shutil.which("cdo") is None:
        pytest.skip("cdo is not installed")
    write(tmp_path / "f.nc", record, single=True)
    told = subprocess.run(["cdo", "-s", "sinfon", tmp_path / "f.nc"], capture_output=True, text=True, check=True)
    assert "realization" in told.stdout
    assert "Unsupported" not in told.stderr


def test_the_cf_checker_finds_no_error(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single, sums=accumulations((10,), LEADS[0], 4))
    faults, num_checks = cf_faults(tmp_path / "f.nc")
    assert not faults
    assert num_checks > 20


def test_rates_are_rounded_to_about_a_hundredth():
    assert rounded(np.array([0.094, 1.996, 2.044, 7.778, 12.34, 33.33, 66.66, 1e9])).tolist() == [
        9, 200, 204, 780, 1230, 3340, 6650, 32767,
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [0.1, 0.5, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 60.0])
def test_the_most_rain_below_a_rate_is_stored_below_it_and_little_more_is_not(rate):
    most = most_below(rate)
    assert unpacked(packed(np.array([most], np.float32)))[0] < np.float32(rate)
    step = {0.1: 0.01, 0.5: 0.01, 2.0: 0.01, 5.0: 0.02, 10.0: 0.05, 20.0: 0.1, 30.0: 0.2, 50.0: 0.2, 60.0: 0.5}[rate]
    assert unpacked(packed(np.array([most + 0.03 * step], np.float32)))[0] == np.float32(rate)


def test_one_frame_is_in_memory(tmp_path, record):
    def leads():
        for n in range(40):
            yield np.full((4, 20, 24), n, np.float32)

    tracemalloc.start()
    facts = {"lead_times": LEADS[0] * np.arange(1, 41), "attributes": {}, "num_members": 4, "grid": record.grid}
    write_members(tmp_path / "f.nc", [(START, leads())], single=True, **facts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 4 * 20 * 24 * 4 + 200_000
    with netCDF4.Dataset(tmp_path / "f.nc") as found:
        np.testing.assert_allclose(found["precip_intensity"][39], 39, rtol=0.0051)


def test_nothing_is_left_of_a_file_that_failed(tmp_path, record):
    def fails():
        yield np.zeros((2, 20, 24), np.float32)
        raise RuntimeError("the forecast failed")

    facts = {"lead_times": LEADS, "attributes": {}, "num_members": 2, "grid": record.grid, "single": True}
    with pytest.raises(RuntimeError, match="the forecast failed"):
        write_members(tmp_path / "f.nc", [(START, fails())], **facts)
    assert not (tmp_path / "f.nc").exists()
    write(tmp_path / "f.nc", record, single=True)
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "f.nc", record, single=True)
