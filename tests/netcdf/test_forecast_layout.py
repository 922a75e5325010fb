"""Percentiles in forecast files are no members, and a single one is named."""

import numpy as np
import pytest
import xarray
from makers import rain, write_record
from makers.stored import open_one

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.quantity import RAIN_RATE

REFERENCE = np.datetime64("2020-06-01T00:15:00")
LEADS = np.array([5, 10], "timedelta64[m]")


@pytest.fixture
def forecast(tmp_path):
    """A forecast file of two lead times as an open Dataset."""
    record = open_one(write_record(tmp_path / "observed.nc", rain(frames=3)))
    facts = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}, "single": True}
    write_forecast(tmp_path / "f.nc", [(REFERENCE, rain(frames=2))], grid=record.grid, **facts)
    with xarray.open_dataset(tmp_path / "f.nc", engine="netcdf4") as dataset:
        yield dataset.load().drop_encoding()


def with_percentiles(forecast, name, values):
    """The forecast with a dimension of percentiles, each of them twice as much rain as the one before."""
    scale = xarray.DataArray(2.0 ** np.arange(len(values)), {name: values}, (name,))
    return forecast.assign(precip_intensity=(forecast.precip_intensity * scale).assign_attrs(forecast.precip_intensity.attrs))


@pytest.mark.parametrize("name", ["percentile", "quantile", "percentile_over_realization"])
def test_percentiles_are_not_scored_together(tmp_path, forecast, name):
    with_percentiles(forecast, name, [10.0, 50.0, 90.0]).to_netcdf(tmp_path / "p.nc")
    with pytest.raises(DataError, match=rf"p\.nc: precip_intensity holds 3 percentiles \({name}\), .*\nExpected one of them"):
        read_forecast(tmp_path / "p.nc")


@pytest.mark.parametrize("kept", ["dimension", "scalar"])
def test_a_single_percentile_is_a_forecast_and_is_said(tmp_path, forecast, caplog, kept):
    one = with_percentiles(forecast, "percentile", [50.0, 90.0]).sel(percentile=[90.0])
    (one if kept == "dimension" else one.squeeze("percentile")).to_netcdf(tmp_path / "p.nc")
    found = read_forecast(tmp_path / "p.nc")
    assert (found.kind, found.num_members) == ("deterministic", 1)
    np.testing.assert_allclose(found.read(0), 2 * forecast.precip_intensity.values, rtol=1e-6)
    assert "precip_intensity is percentile 90 of a distribution, and is taken as a plain forecast" in caplog.text


def test_a_percentile_without_its_value_is_said(tmp_path, forecast, caplog):
    with_percentiles(forecast, "percentile", [50.0]).drop_vars("percentile").to_netcdf(tmp_path / "p.nc")
    read_forecast(tmp_path / "p.nc")
    assert "precip_intensity is one percentile of a distribution" in caplog.text
