"""Valid times of forecasts of sums and means are the ends of their intervals, wherever in these the file has its times."""

import logging

import numpy as np
import pytest
from makers import rain, write_record
from makers.foreign import improver_file
from makers.stored import edit, open_one

from nowcast.forecasters.forecast_files import unlike
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.quantity import RAIN_RATE

REFERENCES = np.array(["2020-06-01T00:15:00", "2020-06-01T01:00:00"], "datetime64[s]")
LEADS = np.array([900, 1800, 2700], "timedelta64[s]")  # ends of the intervals
FIELDS = rain(frames=6).reshape(2, 3, *rain(frames=1).shape[1:])
SUM, MEAN = ("mm", ""), ("mm h-1", "area: mean time: mean")


def with_bounds(path, before, units, methods):
    """State intervals of 15 minutes, and times that lie `before` minutes before their ends."""
    with edit(path) as file:
        name = next(name for name in ("precip_intensity", "rainfall_rate") if name in file.variables)
        file.renameVariable(name, "rain")
        file["rain"].delncattr("standard_name")
        file["rain"].setncatts({"units": units, "cell_methods": methods})
        file.createDimension("nv", 2)
        time = file["time"]
        time.bounds = "time_bnds"
        ends = np.asarray(time[...], np.int64)
        file.createVariable("time_bnds", "i8", (*time.dimensions, "nv"))[...] = np.stack([ends - 900, ends], axis=-1)
        for name in ("time", "forecast_period"):
            file[name][...] = np.asarray(file[name][...]) - round(60 * before)
    return path


def one_file(folder, **stated):
    """All reference times and lead times in one file, with two-dimensional valid times."""
    grid = open_one(write_record(folder / "observed.nc", rain(frames=3))).grid
    facts = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}, "single": False}
    write_forecast(folder / "f.nc", list(zip(REFERENCES, FIELDS, strict=True)), grid=grid, **facts)
    return with_bounds(folder / "f.nc", **stated)


def file_for_each_lead(folder, **stated):
    (folder / "f").mkdir()
    for reference, fields in zip(REFERENCES, FIELDS, strict=True):
        for lead, field in zip(LEADS, fields, strict=True):
            minutes = int(lead.astype(int)) // 60
            path = folder / "f" / f"{reference.astype(int)}_{minutes}.nc"
            improver_file(path, field, reference=reference, lead_minutes=minutes, units="mm h-1", scale=1)
            with_bounds(path, **stated)
    return folder / "f"


@pytest.mark.parametrize("layout", [one_file, file_for_each_lead])
@pytest.mark.parametrize(("units", "methods"), [SUM, MEAN], ids=["sums", "means"])
@pytest.mark.parametrize("before", [0, 7.5, 15])
def test_sums_and_means_are_valid_at_the_ends_of_their_intervals(tmp_path, caplog, layout, units, methods, before):
    with caplog.at_level(logging.WARNING):
        found = read_forecast(layout(tmp_path, units=units, methods=methods, before=before))
    assert found.reference_times.tolist() == REFERENCES.tolist()
    assert found.lead_times.tolist() == LEADS.tolist()
    rates = FIELDS * (4 if units == "mm" else 1)
    for case in range(2):
        np.testing.assert_allclose(found.read(case), rates[case], rtol=1e-5)
    said = f"the times of rain are up to {before:g} min before the ends of its intervals (time bounds)"
    assert (said in caplog.text) == (before > 0), caplog.text


def test_rates_of_an_instant_stay_where_they_are(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = read_forecast(one_file(tmp_path, units="mm h-1", methods="area: mean time: point", before=5))
    assert found.lead_times.tolist() == (LEADS - np.timedelta64(5, "m")).tolist()
    assert not caplog.text


@pytest.mark.parametrize(("units", "methods", "what"), [(*SUM, "amounts"), (*MEAN, "means")], ids=["sums", "means"])
def test_intervals_longer_than_the_time_step_of_a_record_are_told(tmp_path, units, methods, what):
    found = read_forecast(one_file(tmp_path, units=units, methods=methods, before=0))
    said = unlike(found, open_one(tmp_path / "observed.nc"))
    assert f"rain holds {what} over 15 min, but each is compared with a single frame of observed" in said
    slow = write_record(tmp_path / "slow.nc", rain(frames=3), step_minutes=15)
    assert unlike(found, open_one(slow)) is None


def test_bounds_may_have_the_dimensions_in_another_order(tmp_path):
    path = one_file(tmp_path, units=MEAN[0], methods=MEAN[1], before=7.5)
    with edit(path) as file:
        bounds, dims = np.asarray(file["time_bnds"][:]), file["time"].dimensions
        file.createVariable("turned", "i8", (*dims[::-1], "nv"))[:] = bounds.swapaxes(0, 1)
        file["time"].bounds = "turned"
    found = read_forecast(path)
    assert found.lead_times.tolist() == LEADS.tolist()
    np.testing.assert_allclose(found.read(1), FIELDS[1], rtol=1e-5)


@pytest.mark.parametrize("minutes", [[0, 0, 0], [10, 15, 15]])
def test_means_over_no_or_several_intervals_are_of_no_one_length(tmp_path, minutes):
    path = one_file(tmp_path, units=MEAN[0], methods=MEAN[1], before=0)
    with edit(path) as file:
        ends = np.asarray(file["time"][:])
        file["time_bnds"][:] = np.stack([ends - 60 * np.array(minutes), ends], axis=-1)
    found = read_forecast(path)
    assert found.lead_times.tolist() == LEADS.tolist()
    assert unlike(found, open_one(tmp_path / "observed.nc")) is None


def test_sums_over_more_than_the_time_between_lead_times_are_told_by_their_interval(tmp_path):
    hourly = one_file(tmp_path, units="mm", methods="time: sum over 60 minutes", before=0)
    with edit(hourly) as file:
        file.renameVariable("time_bnds", "unused")
        file["time"].delncattr("bounds")
    said = unlike(read_forecast(hourly), open_one(write_record(tmp_path / "slow.nc", rain(frames=3), step_minutes=15)))
    assert "rain holds amounts over 60 min" in said
