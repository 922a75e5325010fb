"""Totals since the start of a run are not read as amounts per step: forecasts are differenced, records refused."""

import logging

import netCDF4
import numpy as np
import pytest
from makers import rain
from makers.stored import open_one, write

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.rain.totals import never_falls

RATES = rain(frames=6, shape=(12, 16))  # mm/h, row 0 northernmost
LEADS = np.array([10, 20, 30, 40, 50, 60])  # minutes


def forecast(path, stored, *, leads=LEADS, bounds=None, **attributes):
    """A forecast of amounts, mm ([member,] lead, y, x), from 2020-06-01T12:00; `bounds` are starts of intervals, minutes."""
    with netCDF4.Dataset(path, "w") as file:
        dims = ("member", "time", "y", "x")[-stored.ndim :]
        for dim, size in zip(dims, stored.shape, strict=True):
            file.createDimension(dim, size)
        for dim, step in (("y", -1000.0), ("x", 1000.0)):
            coordinate = file.createVariable(dim, "f8", (dim,))
            coordinate.setncatts({"standard_name": f"projection_{dim}_coordinate", "units": "m"})
            coordinate[:] = step * np.arange(len(file.dimensions[dim]))
        for name, over, values in (("time", ("time",), leads), ("forecast_reference_time", (), 0)):
            variable = file.createVariable(name, "f8", over)
            variable.setncatts({"standard_name": name, "units": "minutes since 2020-06-01 12:00"})
            variable[...] = values
        if bounds is not None:
            file["time"].bounds = "time_bnds"
            file.createDimension("nv", 2)
            file.createVariable("time_bnds", "f8", ("time", "nv"))[:] = np.stack(
                [np.broadcast_to(bounds, len(leads)), leads], 1
            )
        amount = file.createVariable("acc", "f8", dims)
        amount.setncatts({"units": "mm", "standard_name": "rainfall_amount"} | attributes)
        amount[:] = stored
    return path


def totals(rates, leads=LEADS):
    """Totals since the start, mm, of rates (…, lead, y, x) that last from one lead time to the next."""
    hours = np.diff(leads, prepend=0) / 60
    return np.cumsum(rates * hours[:, None, None], axis=-3)


def test_a_total_since_the_start_of_a_forecast_is_differenced(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = read_forecast(forecast(tmp_path / "f.nc", totals(RATES)))
    assert "f.nc: acc is taken as the total since the start of the forecast; rates are differences" in caplog.text
    np.testing.assert_allclose(found.read(0), RATES, atol=1e-4)
    np.testing.assert_allclose(found.read(0, [4, 2]), RATES[[4, 2]], atol=1e-4)


def test_amounts_per_step_are_not(tmp_path):
    np.testing.assert_allclose(read_forecast(forecast(tmp_path / "f.nc", RATES / 6)).read(0), RATES, atol=1e-4)
    same = np.repeat(RATES[:1], 6, axis=0)  # persistence: nothing falls, but nothing rises
    np.testing.assert_allclose(read_forecast(forecast(tmp_path / "p.nc", same / 6)).read(0), same, atol=1e-4)


def test_a_stated_interval_may_be_shorter_than_the_time_between_lead_times(tmp_path):
    path = forecast(tmp_path / "f.nc", RATES / 6, leads=2 * LEADS, cell_methods="time: sum (interval: 10 minutes)")
    np.testing.assert_allclose(read_forecast(path).read(0), RATES, atol=1e-4)


def test_members_are_differenced_each(tmp_path):
    members = np.stack([RATES, 2 * RATES[::-1]])
    found = read_forecast(forecast(tmp_path / "f.nc", totals(members)))
    for lead in range(6):
        np.testing.assert_allclose(found.members(0, lead), members[:, lead], atol=1e-4)


def test_steps_of_the_lead_times_may_differ_and_packing_may_round(tmp_path):
    leads = np.array([10, 20, 30, 40, 60, 90])
    rounded = np.round(totals(RATES, leads), 3)
    np.testing.assert_allclose(read_forecast(forecast(tmp_path / "f.nc", rounded, leads=leads)).read(0), RATES, atol=0.01)


def test_missing_stays_missing_and_a_lead_time_of_0_has_no_rate(tmp_path):
    stored = np.concatenate([np.zeros((1, 12, 16)), totals(RATES)])
    stored[3:, 2, 5] = np.nan
    rates = read_forecast(forecast(tmp_path / "f.nc", stored, leads=np.append(0, LEADS))).read(0)
    assert np.isnan(rates[0]).all()
    assert np.isnan(rates[3:, 2, 5]).all()
    np.testing.assert_allclose(rates[1:3], RATES[:2], atol=1e-4)


@pytest.mark.parametrize(
    ("bounds", "attributes"),
    [(0, {}), (None, {"long_name": "ACCUMULATED TOTAL GRID SCALE PRECIPITATION"}), (None, {"comment": "rain since start"})],
)
def test_a_file_may_say_that_it_holds_totals(tmp_path, bounds, attributes):
    found = read_forecast(forecast(tmp_path / "f.nc", totals(RATES)[:2], leads=LEADS[:2], bounds=bounds, **attributes))
    np.testing.assert_allclose(found.read(0), RATES[:2], atol=1e-4)


def test_stated_intervals_count_more_than_numbers_that_never_fall(tmp_path):
    growing = np.cumsum(RATES, axis=0)
    found = read_forecast(forecast(tmp_path / "f.nc", growing / 6, bounds=LEADS - 10))
    np.testing.assert_allclose(found.read(0), growing, atol=1e-4)


@pytest.mark.parametrize(
    ("bounds", "attributes"),
    [
        (0, {}),
        (None, {}),
        (None, {"comment": "rain since start"}),
        (None, {"cell_methods": "time: sum (interval: 10 minutes)"}),
    ],
    ids=["bounds", "numbers", "text", "the interval of what was summed"],
)
def test_totals_in_a_file_for_each_lead_time_are_differenced(tmp_path, bounds, attributes):
    for lead, field in zip(LEADS, totals(RATES), strict=True):
        forecast(tmp_path / f"{lead}.nc", field[None], leads=[lead], bounds=bounds, **attributes)
    found = read_forecast(tmp_path)
    np.testing.assert_allclose(found.read(0), RATES, atol=1e-4)
    assert found.conversion == "mm per 600 s -> mm/h"


@pytest.mark.parametrize("since", [10, None])
def test_amounts_per_step_in_a_file_for_each_lead_time_are_not(tmp_path, since):
    for lead, field in zip(LEADS, RATES / 6, strict=True):
        forecast(tmp_path / f"{lead}.nc", field[None], leads=[lead], bounds=since and lead - since)
    np.testing.assert_allclose(read_forecast(tmp_path).read(0), RATES, atol=1e-4)


@pytest.mark.parametrize("leads", [[90], [0, 90]])
def test_one_total_since_the_start_is_divided_by_its_lead_time(tmp_path, leads):
    stored = np.concatenate([np.zeros((1, 12, 16)), totals(RATES[:1], [90])])[-len(leads) :]
    path = forecast(tmp_path / "f.nc", stored, leads=leads, comment="rain since start")
    np.testing.assert_allclose(read_forecast(path).read(0)[-1], RATES[0], atol=1e-4)


def test_one_amount_over_the_whole_lead_time_is_its_rate(tmp_path):
    path = forecast(tmp_path / "f.nc", totals(RATES, [60] * 6)[:1], leads=[60], bounds=0)
    np.testing.assert_allclose(read_forecast(path).read(0), RATES[:1], atol=1e-4)
    path = forecast(tmp_path / "g.nc", RATES[:1], leads=[60])
    with pytest.raises(DataError, match=r'g.nc: acc is an accumulation \("mm"\) over an unknown interval'):
        read_forecast(path)


def test_files_of_different_intervals_are_refused(tmp_path):
    for lead, since in ((10, 0), (20, 10), (30, 0)):
        forecast(tmp_path / f"{lead}.nc", RATES[:1], leads=[lead], bounds=since)
    message = r"30.nc holds amounts in mm per 1800 s -> mm/h but .*10.nc holds amounts in mm per 600 s -> mm/h\.\nExpected one"
    with pytest.raises(DataError, match=message):
        read_forecast(tmp_path)


def test_a_record_of_totals_is_refused(tmp_path):
    amounts = RATES / 12
    path = write(tmp_path / "a.nc", np.cumsum(amounts, axis=0), units="mm")
    with pytest.raises(
        DataError, match=r"a.nc: rr, which never falls, is a total since the start of a run\.\nExpected amounts"
    ):
        open_one(path)
    path = write(tmp_path / "b.nc", amounts, units="mm", description="ACCUMULATED TOTAL CUMULUS PRECIPITATION")
    with pytest.raises(DataError, match=r"b.nc: rr is a total since the start of a run\.\nExpected amounts of each time step"):
        open_one(path)
    for since in ("midnight", "00 UTC", "0600Z"):
        path = write(tmp_path / "c.nc", amounts, units="mm", long_name=f"precipitation since {since}")
        with pytest.raises(DataError, match=r"c.nc: rr is a total"):
            open_one(path)
    with pytest.raises(DataError, match=r"e.nc: rain_since_midnight is a total"):
        open_one(write(tmp_path / "e.nc", amounts, units="mm", name="rain_since_midnight"))
    methods = "time: sum (interval: 5 minutes)"  # strictly, the interval of what was summed
    with pytest.raises(DataError, match=r"d.nc: rr, which never falls, is a total"):
        open_one(write(tmp_path / "d.nc", np.cumsum(amounts, axis=0), units="mm", cell_methods=methods))
    np.testing.assert_allclose(open_one(write(tmp_path / "c.nc", amounts, units="mm")).read(range(6)), RATES, rtol=1e-5)


def test_a_record_of_totals_that_start_again_is_refused(tmp_path):
    amounts = rain(frames=8, shape=(12, 16)) / 12
    begun_again = np.concatenate([np.cumsum(amounts[:5], axis=0), np.cumsum(amounts[5:], axis=0)])
    with pytest.raises(DataError, match=r"a.nc: rr, which falls in one step alone, is a total since the start"):
        open_one(write(tmp_path / "a.nc", begun_again, units="mm"))
    waning = np.concatenate([np.cumsum(amounts[:5], axis=0), np.cumsum(amounts[:3], axis=0)[::-1]])
    np.testing.assert_allclose(open_one(write(tmp_path / "b.nc", waning, units="mm")).read([6]), 12 * waning[6:7], rtol=1e-5)


def test_totals_since_midnight_are_found_in_spite_of_dry_evenings(tmp_path):
    """Nothing changes in the middle and at the end, where the totals of dry evenings stay as they are."""
    day = np.concatenate([np.zeros((5, 12, 16)), rain(frames=8, shape=(12, 16)), np.zeros((11, 12, 16))])
    since_midnight = np.concatenate([np.cumsum(day, axis=0)] * 2)
    with pytest.raises(DataError, match=r"a.nc: rr, which never falls, is a total since the start"):
        open_one(write(tmp_path / "a.nc", since_midnight, units="mm"))
    amounts = np.concatenate([day] * 2)
    record = open_one(write(tmp_path / "b.nc", amounts, units="mm"))
    np.testing.assert_allclose(record.read([30])[0], 12 * amounts[30], rtol=1e-5)


def test_rain_that_sets_in_is_no_total(tmp_path):
    """Amounts that rise in three steps of a dry record, as rain enters the grid."""
    amounts = np.zeros((60, 12, 16))
    for n in range(4):
        amounts[24 + n, :, : n + 1] = 0.5  # among frames 20 to 27
    assert open_one(write(tmp_path / "a.nc", amounts, units="mm")).read([27]).max() == 6


def test_one_shower_that_decays_at_once_is_no_total(tmp_path):
    amounts = np.zeros((10, 16, 16), np.float32)
    amounts[:, 8, 8] = [0, 0, 0.1, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.1]
    assert open_one(write(tmp_path / "a.nc", amounts, units="mm")).read([5])[0, 8, 8] == pytest.approx(0.4 * 12)


def test_growing_and_falling():
    assert never_falls(np.cumsum(RATES, axis=0))
    assert not never_falls(RATES)
    assert not never_falls(np.zeros((6, 3, 3)))
    assert not never_falls(np.cumsum(RATES, axis=0), least=6)
    assert not never_falls(RATES[:1])
