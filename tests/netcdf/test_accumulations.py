"""Accumulations in forecast files: mm by CF beside the rain rate, of which no reader mistakes one for the other."""

import numpy as np
import pytest
import xarray as xr
from makers import command, expect, write_record
from makers.cf_checker import cf_faults

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.accumulations import accumulations
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.opening import open_records

STEP = np.timedelta64(300, "s")


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Constant rain of 12 mm/h, but for one cell that is never known."""
    monkeypatch.chdir(tmp_path)
    fields = np.full((8, 16, 20), 12, np.float32)
    fields[:, 2, 3] = np.nan
    return write_record(tmp_path / "rain.nc", fields, y_ascending=True)


@pytest.fixture(params=["single", "many"])
def forecast(record, request):
    times = [] if request.param == "single" else ["--start", "2020-06-01T00:20", "--end", "2020-06-01T00:30"]
    assert command("predict", "persistence", record, *times, "--sums", "30,60", "--output", "f.nc")[0] == 0
    return request.param


def test_sums_are_means_times_the_interval():
    half, whole = accumulations((30, 60), STEP, 13)
    assert (half.num_leads, half.num_intervals, half.ends.tolist()) == (6, 2, [1800, 3600])
    assert whole.bounds.tolist() == [[0, 3600]]
    fields = np.zeros((13, 1, 2), np.float32)
    fields[:6, 0, 0] = 12, 0, 6, 6, 12, 0
    fields[6:, 0, 0] = 1
    fields[7, 0, 1] = np.nan
    np.testing.assert_array_equal(half.of(fields)[:, 0], [[3, 0], [0.5, np.nan]])
    np.testing.assert_array_equal(whole.of(fields)[:, 0], [[3.5, np.nan]])
    assert whole.of(fields).dtype == np.float32


@pytest.mark.parametrize("minutes", [7, 65])
def test_intervals_that_the_leads_do_not_hold_are_refused(minutes):
    with pytest.raises(
        UsageError, match=rf"--sums {minutes}: the forecast has leads every 5 minutes up to 60.\nExpected a multiple"
    ):
        accumulations((minutes,), STEP, 12)


def test_a_constant_rain_of_12_mm_h_gives_6_mm_in_half_an_hour(forecast):
    with xr.open_dataset("f.nc") as file:
        for minutes, amount in ((30, 6), (60, 12)):
            sums = file[f"rain_sum_{minutes}_min"]
            values = sums.values.reshape(-1, 16, 20)
            assert np.isnan(values[:, 13, 3]).all()  # the file's rows run from the south
            assert set(np.unique(values[~np.isnan(values)])) == {amount}
            assert (sums.attrs["standard_name"], sums.attrs["units"]) == ("lwe_thickness_of_precipitation_amount", "mm")
            time = f"time_{minutes}_min" if forecast == "single" else "time"  # a dimension, or what the standard name says
            assert sums.attrs["cell_methods"] == f"{time}: sum (comment: over {minutes} minutes)"
            assert sums.attrs["grid_mapping"] == "crs"
            times, bounds = file[f"time_{minutes}_min"], file[f"time_{minutes}_min_bounds"]
            assert times.attrs.get("bounds", times.encoding.get("bounds")) == bounds.name
            lengths = (bounds[..., 1] - bounds[..., 0]).values
            assert (lengths == np.timedelta64(minutes, "m")).all()
            np.testing.assert_array_equal(bounds[..., 1], times)
        first = file["forecast_reference_time"].values.ravel()[0]
        starts = file["time_30_min_bounds"].values.reshape(-1, 2, 2)[0]
        np.testing.assert_array_equal(starts - first, np.array([[0, 30], [30, 60]]).astype("timedelta64[m]"))


def test_the_cf_checker_finds_no_error(forecast):
    faults, num_checks = cf_faults("f.nc")
    assert not faults
    assert num_checks > 30


def test_our_readers_still_find_the_rain_rate(forecast):
    found = read_forecast("f.nc")
    assert found.files[0].layout.field.variable == "precip_intensity"
    assert len(found.lead_times) == 12
    assert np.nanmax(found.read(0)) == 12
    if forecast == "single":
        (as_record,) = open_records(["f.nc"])
        assert (as_record.variable, len(as_record)) == ("precip_intensity", 12)
    else:
        with pytest.raises(DataError, match="more dimensions than time, y and x"):
            open_records(["f.nc"])


def test_sums_are_read_as_amounts_where_they_are_named(forecast):
    found = read_forecast("f.nc", variable="rain_sum_30_min")
    assert found.conversion == "mm per 1800 s -> mm/h"
    assert len(found.lead_times) == 2
    assert set(np.unique(found.read(0)[:, 5])) == {12}


def test_sums_go_with_probabilities_and_are_told_in_the_history(record):
    options = ["--probabilities", "--thresholds", "1", "--sums", "5,20"]
    assert command("predict", "extrapolation", record, *options, "--output", "f.nc")[0] == 0
    assert not cf_faults("f.nc")[0]
    with xr.open_dataset("f.nc") as file:
        assert "--sums 5,20" in file.attrs["history"]
        assert file["rain_sum_20_min"].shape == (3, 16, 20)
        np.testing.assert_allclose(file["rain_sum_5_min"], file["precip_intensity"] / 12, rtol=1e-6)
        assert file["probability_of_rainfall_above_threshold"].shape == (1, 12, 16, 20)
    expect(2, "predict", "persistence", record, "--sums", "7", "--output", "g.nc", says="leads every 5 minutes up to 60")
