"""Forecast files of others come back as mm/h at the right times, north up, or are refused by name."""

import shutil

import netCDF4
import numpy as np
import pytest
from makers import rain, write_record
from makers.foreign import improver_file, pysteps_export
from makers.stored import edit, open_one

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.places.grid import Grid
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE

REFERENCE = np.datetime64("2020-06-01T00:15:00")
MINUTES = np.timedelta64(60, "s")
LEADS = np.array([5, 10, 15], "timedelta64[m]").astype("timedelta64[s]")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return open_one(write_record(tmp_path_factory.mktemp("record") / "observed.nc", rain(frames=3)))


def ours(path, record, *, references=(REFERENCE,), leads=LEADS, seed=0, **options):
    """A forecast file of our own; returns the path and the fields (case, lead, y, x)."""
    fields = np.stack([rain(frames=len(leads), seed=seed + n, missing=0.1) for n in range(len(references))])
    options = {"quantity": RAIN_RATE, "attributes": {}, "single": len(references) == 1} | options
    write_forecast(path, zip(references, fields, strict=True), grid=record.grid, lead_times=leads, **options)
    return path, fields


def one_per_lead(folder, fields, *, reference=REFERENCE, first=0, **options):
    """improver writes a file for each lead time; returns the folder."""
    folder.mkdir(exist_ok=True)
    for n, field in enumerate(np.moveaxis(fields, -3, 0)):
        stamp = str(reference).replace(":", "")
        options = {"reference": reference, "lead_minutes": 5 * (first + n + 1)} | options
        improver_file(folder / f"{stamp}-{n}.nc", field, **options)
        del options["lead_minutes"]
    return folder


# -- pysteps ----------------------------------------------------------------------------------------------------------


def test_an_export_of_pysteps_is_a_forecast_and_a_record(tmp_path, record):
    fields = rain(frames=3)
    path = pysteps_export(tmp_path, fields)
    found = read_forecast(path)
    assert found.reference_times.tolist() == [REFERENCE.item()]
    assert found.lead_times.tolist() == LEADS.tolist()
    assert (found.kind, found.quantity, found.num_members) == ("deterministic", RAIN_RATE, 1)
    np.testing.assert_array_equal(found.read(0), fields)
    np.testing.assert_array_equal(open_one(path).read(range(3)), fields)


def test_observations_of_pysteps_begin_at_their_origin_and_are_no_forecast(tmp_path):
    path = pysteps_export(tmp_path, rain(frames=3))
    with netCDF4.Dataset(path, "a") as file:
        file["time"][:] -= file["time"][0]
        del file.title, file.source  # which its model of data does not write
    with pytest.raises(DataError, match="does not say when its forecast starts"):
        read_forecast(path)
    assert len(open_one(path)) == 3


def test_an_ensemble_of_pysteps_has_members_and_a_mean(tmp_path):
    members = np.stack([rain(frames=3, seed=seed) for seed in range(4)])
    members[2, 1, 5, 7] = np.nan
    found = read_forecast(pysteps_export(tmp_path, members))
    assert (found.kind, found.num_members) == ("ensemble", 4)
    for lead in range(3):
        np.testing.assert_array_equal(found.members(0, lead), members[:, lead])
    np.testing.assert_allclose(found.read(0), members.mean(axis=0), rtol=1e-6)
    assert np.isnan(found.read(0)[1, 5, 7])


@pytest.mark.parametrize(
    ("unit", "stored", "expected"),
    [("mm/h", 2.0, 2.0), ("mm", 0.25, 3.0), ("dBZ", 23.0103, 1.0)],  # 0.25 mm in 5 min; 200 mm6 m-3
)
def test_each_unit_of_pysteps_becomes_a_rate(tmp_path, unit, stored, expected):
    found = read_forecast(pysteps_export(tmp_path, np.full((3, 4, 5), stored, np.float32), unit=unit))
    np.testing.assert_allclose(found.read(0), expected, rtol=1e-5)


def test_rows_come_out_north_up_however_pysteps_wrote_them(tmp_path):
    fields = rain(frames=3)
    up = read_forecast(pysteps_export(tmp_path, fields[:, ::-1], name="up", yorigin="lower"))
    np.testing.assert_array_equal(up.read(0), fields)
    assert up.grid.y_ascending


def test_leads_that_pysteps_was_given_as_a_list_are_kept(tmp_path):
    found = read_forecast(pysteps_export(tmp_path, rain(frames=2), leads=[2, 6]))
    assert found.lead_times.tolist() == (np.array([10, 30]) * MINUTES).tolist()


# -- CF files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["rainfall_rate", "lwe_precipitation_rate"])
def test_a_file_for_each_lead_time_is_one_case(tmp_path, variable):
    fields = rain(frames=3, missing=0.1)
    found = read_forecast(one_per_lead(tmp_path / "fc", fields, variable=variable))
    assert found.reference_times.tolist() == [REFERENCE.item()]
    assert found.lead_times.tolist() == LEADS.tolist()
    assert found.conversion == "m s-1 -> mm/h"
    np.testing.assert_allclose(found.read(0), fields, rtol=1e-5)


def test_realizations_are_members(tmp_path):
    members = np.stack([rain(frames=2, seed=seed) for seed in range(3)])
    found = read_forecast(one_per_lead(tmp_path / "fc", members))
    assert (found.kind, found.num_members) == ("ensemble", 3)
    np.testing.assert_allclose(found.members(0, 1), members[:, 1], rtol=1e-5)


@pytest.mark.parametrize(("units", "scale"), [("1", 1), ("%", 0.01)])
@pytest.mark.parametrize(
    "variable", ["probability_of_rainfall_rate_above_threshold", "probability_of_lwe_precipitation_rate_above_threshold"]
)
def test_exceedance_probabilities_come_with_their_thresholds(tmp_path, units, scale, variable):
    probabilities = np.random.default_rng(0).random((3, 2, 6, 7)).astype(np.float32)
    probabilities[0, 0, 2, 3] = np.nan
    options = {"variable": variable, "units": units, "scale": scale, "thresholds": (0.03, 0.1, 1.0)}
    found = read_forecast(one_per_lead(tmp_path / "fc", probabilities, **options))
    assert (found.kind, found.quantity, found.thresholds) == ("probability", RAIN_RATE, (0.03, 0.1, 1.0))
    np.testing.assert_allclose(found.probabilities(0, 1, [0, 2]), probabilities[[0, 2], 1], rtol=1e-5)
    assert np.isnan(found.probabilities(0, 0, [0])[0, 2, 3])
    with pytest.raises(TypeError, match="no rain rates"):
        found.read(0)


def test_a_single_threshold_may_be_a_scalar(tmp_path):
    path = tmp_path / "p.nc"
    options = {"reference": REFERENCE, "lead_minutes": 5, "units": "1", "scale": 1}
    improver_file(path, np.full((6, 7), 0.4), variable="probability_of_rainfall_above_threshold", **options)
    with edit(path) as file:
        file["probability_of_rainfall_above_threshold"].delncattr("standard_name")
        file.createVariable("threshold", "f8").units = "mm h-1"
        file["threshold"][...] = 0.5
    found = read_forecast(path)
    assert found.thresholds == (0.5,)
    np.testing.assert_allclose(found.probabilities(0, 0, [0]), np.full((1, 6, 7), 0.4))


@pytest.mark.parametrize(
    ("units", "scale", "stored"), [("1", 1, "60"), ("1", 1, "-0.05"), ("%", 0.01, "-5"), ("%", 0.01, "150")]
)
def test_probabilities_that_cannot_be_are_refused_as_they_are_stored(tmp_path, units, scale, stored):
    options = {"variable": "probability_of_rainfall_rate_above_threshold", "units": units, "scale": scale, "thresholds": (1.0,)}
    found = read_forecast(one_per_lead(tmp_path / "fc", np.full((1, 1, 4, 5), float(stored) * scale), **options))
    with pytest.raises(DataError, match=rf'_threshold goes to {stored} in units "{units}"\.\nExpected probabilities from'):
        found.probabilities(0, 0, [0])


@pytest.mark.parametrize(("units", "scale"), [("1", 1), ("%", 0.01)])
def test_undeclared_codes_among_probabilities_are_missing_and_rounding_errors_are_not(tmp_path, units, scale):
    stored = np.array([[[[-1, -999, -99], [0.5, -1e-6, 0]]]])
    options = {"variable": "probability_of_rainfall_rate_above_threshold", "units": units, "scale": scale, "thresholds": (1.0,)}
    found = read_forecast(one_per_lead(tmp_path / "fc", stored * scale, **options)).probabilities(0, 0, [0])[0]
    np.testing.assert_allclose(found, [[np.nan] * 3, [0.5 * scale, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "relation"), [("below", "less_than"), ("below", "greater_than"), ("above", "less_than_or_equal_to")]
)
def test_probabilities_of_values_below_a_threshold_are_not_taken_for_exceedance(tmp_path, side, relation):
    variable = f"probability_of_rainfall_rate_{side}_threshold"
    options = {"variable": variable, "units": "1", "scale": 1, "thresholds": (1.0,)}
    folder = one_per_lead(tmp_path / "fc", np.full((1, 1, 4, 5), 0.6), **options)
    for path in folder.iterdir():
        with edit(path) as file:
            file["threshold"].spp__relative_to_threshold = relation
    with pytest.raises(DataError, match=rf"{variable} holds probabilities of values below the threshold\.\nExpected those of"):
        read_forecast(folder)


def test_of_probabilities_on_both_sides_those_above_are_read(tmp_path):
    options = {"variable": "probability_of_rainfall_rate_above_threshold", "units": "1", "scale": 1, "thresholds": (1.0,)}
    folder = one_per_lead(tmp_path / "fc", np.full((1, 1, 4, 5), 0.6), **options)
    for path in folder.iterdir():
        with edit(path) as file:
            above = file[options["variable"]]
            below = file.createVariable("probability_of_rainfall_rate_below_threshold", "f4", above.dimensions)
            below.setncatts({"units": "1", "coordinates": above.coordinates})
            below[:] = 0.4
    np.testing.assert_allclose(read_forecast(folder).probabilities(0, 0, [0]), 0.6, rtol=1e-6)


def test_probabilities_without_a_threshold_are_refused(tmp_path):
    options = {"reference": REFERENCE, "lead_minutes": 5, "units": "1"}
    path = improver_file(tmp_path / "p.nc", np.zeros((4, 5)), variable="probability_of_rain_above_threshold", **options)
    with edit(path) as file:
        file["probability_of_rain_above_threshold"].delncattr("standard_name")
    with pytest.raises(DataError, match=r"probability_of_rain_above_threshold has no threshold\.\nExpected a coord"):
        read_forecast(path)


def reshaped(path, record, *, dims, times, sizes):
    """precip_intensity over (dims, y, x) with these (name or standard name = name, dims, values, units) of times."""
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip((*dims, "y", "x"), (*sizes, *record.grid.shape), strict=True):
            file.createDimension(dim, size)
        for dim, values in (("y", record.grid.y), ("x", record.grid.x)):
            file.createVariable(dim, "f8", (dim,)).setncatts({"standard_name": f"projection_{dim}_coordinate", "units": "m"})
            file[dim][:] = values
        for names, own, values, units in times:
            standard_name, name = names.split(" = ")[0], names.split(" = ")[-1]
            file.createVariable(name, "i4", own).setncatts({"standard_name": standard_name, "units": units})
            file[name][...] = values
        file.createVariable("precip_intensity", "f4", (*dims, "y", "x")).units = "mm h-1"
        file["precip_intensity"][:] = np.arange(np.prod(sizes, dtype=int)).reshape(*sizes, 1, 1)
    return path


SINCE = "minutes since 2020-06-01"
CF_LAYOUTS = {
    "reference and period, without a time": (
        ("forecast_reference_time", "forecast_period"), (2, 3),
        [("forecast_reference_time", ("forecast_reference_time",), [15, 20], SINCE),
         ("forecast_period", ("forecast_period",), [5, 10, 15], "minutes")],
        [[0, 1, 2], [3, 4, 5]],
    ),
    "lead before reference": (
        ("forecast_period", "forecast_reference_time"), (3, 2),
        [("forecast_reference_time", ("forecast_reference_time",), [15, 20], SINCE),
         ("forecast_period", ("forecast_period",), [5, 10, 15], "minutes")],
        [[0, 2, 4], [1, 3, 5]],
    ),
    "one series of one lead time": (
        ("time",), (2,),
        [("time", ("time",), [20, 25], SINCE), ("forecast_period", (), 5, "minutes")],
        [[0], [1]],
    ),
    "both times along one dimension": (
        ("time",), (4,),
        [("time", ("time",), [20, 25, 25, 30], SINCE), ("forecast_reference_time", ("time",), [15, 15, 20, 20], SINCE)],
        [[0, 1], [2, 3]],
    ),
    "as cfgrib names them": (
        ("step",), (3,),
        [("forecast_reference_time = time", (), 15, SINCE), ("forecast_period = step", ("step",), [300, 600, 900], "s"),
         ("time = valid_time", ("step",), [20, 25, 30], SINCE)],
        [[0, 1, 2]],
    ),
    "leads backwards, no reference": (
        ("time",), (3,),
        [("time", ("time",), [30, 25, 20], SINCE), ("forecast_period", ("time",), [900, 600, 300], "s")],
        [[2, 1, 0]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CF_LAYOUTS)
def test_cases_and_leads_are_found_in_any_layout(tmp_path, record, name):
    dims, sizes, times, expected = CF_LAYOUTS[name]
    found = read_forecast(reshaped(tmp_path / "f.nc", record, dims=dims, sizes=sizes, times=times))
    cases = REFERENCE + np.arange(len(expected)) * 5 * MINUTES
    np.testing.assert_array_equal(found.reference_times, cases)
    np.testing.assert_array_equal(found.lead_times, (np.arange(len(expected[0])) + 1) * 5 * MINUTES)
    for case, values in enumerate(expected):
        assert found.read(case)[:, 0, 0].tolist() == values
        assert found.read(case, [len(values) - 1])[:, 0, 0].tolist() == values[-1:]


def test_an_inferred_reference_time_is_logged_once_for_each_file(tmp_path, record, caplog):
    caplog.set_level("INFO", logger="nowcast")
    dims, sizes, times, _ = CF_LAYOUTS["one series of one lead time"]
    for name in ("f.nc", "g.nc", "f.nc"):
        read_forecast(reshaped(tmp_path / name, record, dims=dims, sizes=sizes, times=times))
    for name in ("f.nc", "g.nc"):
        said = f"{name}: no forecast_reference_time is stated; it is taken from the time less the forecast_period"
        assert caplog.text.count(said) == 1


def test_a_reference_time_that_could_be_any_is_refused(tmp_path, record):
    path = write_record(tmp_path / "observed.nc", rain(frames=3))
    with pytest.raises(DataError, match=r"observed.nc does not say when its forecast starts\.\nExpected a fo"):
        read_forecast(path)
    # counted from the day on: nothing says that the day is what is forecast from
    path = reshaped(tmp_path / "day.nc", record, dims=("time",), sizes=(2,), times=[("time", ("time",), [20, 25], SINCE)])
    with pytest.raises(DataError, match=r"day.nc does not say when its forecast starts"):
        read_forecast(path)


def test_a_dimension_that_is_no_time_is_named(tmp_path, record):
    times = [("time", ("time",), [20, 25], SINCE), ("forecast_reference_time", (), 15, SINCE)]
    path = reshaped(tmp_path / "f.nc", record, dims=("height", "time"), sizes=(3, 2), times=times)
    with pytest.raises(DataError, match=r"f.nc: precip_intensity has dimensions height, time, y and x\.\nExpected \(t"):
        read_forecast(path)


def test_what_is_no_rain_is_found_by_its_name_or_ours(tmp_path, record):
    path, fields = ours(tmp_path / "f.nc", record, quantity=DIMENSIONLESS)
    for options in ({}, {"variable": "value"}, {"variable": "cloud_area_fraction", "strict": False}):
        found = read_forecast(path, **options)
        assert found.quantity == DIMENSIONLESS
        np.testing.assert_array_equal(found.read(0), fields[0])
    with pytest.raises(DataError, match=r'f.nc has no variable "cloud_area_fraction"\.\nIt has '):
        read_forecast(path, variable="cloud_area_fraction")


# -- several files ----------------------------------------------------------------------------------------------------


def test_a_folder_or_glob_of_files_is_one_forecaster(tmp_path, record):
    (tmp_path / "fc").mkdir()
    written = [ours(tmp_path / "fc" / f"{n}.nc", record, references=[REFERENCE - 5 * n * MINUTES], seed=n) for n in range(3)]
    for where in (tmp_path / "fc", f"{tmp_path}/fc/*.nc"):
        found = read_forecast(where)
        np.testing.assert_array_equal(found.reference_times, REFERENCE - np.array([10, 5, 0]) * MINUTES)
        for case in range(3):
            np.testing.assert_array_equal(found.read(case), written[2 - case][1][0])
    with pytest.raises(UsageError, match="no such file or folder"):
        read_forecast(f"{tmp_path}/fc/*.grib")


def test_files_may_run_north_or_south(tmp_path, record):
    (tmp_path / "fc").mkdir()
    other = open_one(write_record(tmp_path / "up.nc", rain(frames=3), y_ascending=True))
    _, first = ours(tmp_path / "fc" / "a.nc", record)
    _, second = ours(tmp_path / "fc" / "b.nc", other, references=[REFERENCE + 5 * MINUTES], seed=1)
    found = read_forecast(tmp_path / "fc")
    np.testing.assert_array_equal(found.read(0), first[0])
    np.testing.assert_array_equal(found.read(1), second[0])


def test_an_unusable_file_of_a_folder_is_left_out_and_reported(tmp_path, record, caplog):
    (tmp_path / "fc").mkdir()
    ours(tmp_path / "fc" / "a.nc", record)
    (tmp_path / "fc" / "b.nc").write_text("")
    assert len(read_forecast(tmp_path / "fc").reference_times) == 1
    assert "left out 1 of 2 files" in caplog.text
    (tmp_path / "fc" / "a.nc").unlink()
    with pytest.raises(DataError, match=r"b\.nc is empty"):
        read_forecast(tmp_path / "fc")


def test_files_that_are_not_alike_are_refused(tmp_path, record):
    (tmp_path / "fc").mkdir()
    ours(tmp_path / "fc" / "a.nc", record)
    small = open_one(write_record(tmp_path / "small.nc", rain(frames=3, shape=(20, 56))))
    fields = rain(frames=3, shape=(20, 56))
    later = REFERENCE + 5 * MINUTES
    options = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}, "single": True}
    write_forecast(tmp_path / "fc" / "b.nc", [(later, fields)], grid=small.grid, **options)
    with pytest.raises(DataError, match=r"b.nc is not on the grid of .*a.nc: 20 × 56 cells in place of 48 × 56\.\nExpected"):
        read_forecast(tmp_path / "fc")
    shutil.copy(pysteps_export(tmp_path, np.stack([rain(frames=3)] * 2), reference=str(later)), tmp_path / "fc" / "b.nc")
    with pytest.raises(DataError, match=r"b.nc holds 2 members but .*a.nc holds one forecast\.\nExpected one forecaster's"):
        read_forecast(tmp_path / "fc")


def test_leads_that_differ_between_cases_are_refused(tmp_path, record):
    (tmp_path / "fc").mkdir()
    ours(tmp_path / "fc" / "a.nc", record)
    ours(tmp_path / "fc" / "b.nc", record, references=[REFERENCE + 5 * MINUTES], leads=LEADS[:2])
    expected = (
        r"fc: lead times differ between reference times\.\n3 to 15 min from 2020-06-01T00:15:00Z \(a.nc\), 2 to 10 min from"
    )
    with pytest.raises(DataError, match=expected):
        read_forecast(tmp_path / "fc")
    path, _ = ours(tmp_path / "f.nc", record, references=[REFERENCE, REFERENCE + 5 * MINUTES])
    with edit(path) as file:
        file["time"][1, 0] = 750
    with pytest.raises(DataError, match=r"f.nc: time is up to 2.5 min from forecast_reference_time plus forecast_period\.\n"):
        read_forecast(path)


def test_a_valid_time_twice_is_refused(tmp_path, record):
    path, _ = ours(tmp_path / "f.nc", record)
    with edit(path) as file:
        file["time"][1] = file["forecast_period"][1] = 300
    expected = r"f.nc: the forecast from 2020-06-01T00:15:00Z has the valid time 2020-06-01T00:20:00Z twice\.\nExpected"
    with pytest.raises(DataError, match=expected):
        read_forecast(path)


def test_a_reference_time_in_two_files_is_refused(tmp_path, record):
    (tmp_path / "fc").mkdir()
    for name in ("a.nc", "b.nc"):
        ours(tmp_path / "fc" / name, record)
    expected = r"the forecast from 2020-06-01T00:15:00Z for 2020-06-01T00:20:00Z is in two files, .*a.nc and .*b.nc\.\nExpected"
    with pytest.raises(DataError, match=expected):
        read_forecast(tmp_path / "fc")


def test_more_forecasts_than_can_be_are_refused_by_arithmetic(tmp_path):
    with netCDF4.Dataset(tmp_path / "many.nc", "w") as file:
        for dim, size in (("forecast_reference_time", 200_000), ("forecast_period", 2000), ("y", 2000), ("x", 2000)):
            file.createDimension(dim, size)
        file.createVariable("forecast_reference_time", "i4", ("forecast_reference_time",)).units = SINCE
        file.createVariable("forecast_period", "i4", ("forecast_period",)).units = "s"
        chunks = (1, 1, 2000, 2000)
        dims = ("forecast_reference_time", "forecast_period", "y", "x")
        file.createVariable("precip_intensity", "f4", dims, chunksizes=chunks).units = "mm h-1"
        file["forecast_reference_time"][:] = np.arange(200_000)
        file["forecast_period"][:] = np.arange(2000)
    with pytest.raises(DataError, match=r"many.nc declares 400000000 forecast fields\.\nExpected at most"):
        read_forecast(tmp_path / "many.nc")


# -- grids ------------------------------------------------------------------------------------------------------------


def grid_of(path):
    return read_forecast(path).grid


def test_the_same_grid_is_known_by_its_place(tmp_path, record):
    fields = rain(frames=1)
    for n, changed in enumerate(
        [{}, {"yorigin": "lower"}, {"cartesian_unit": "km", "x1": -0.5, "x2": 55.5, "y1": -0.5, "y2": 47.5}]
    ):
        assert difference(grid_of(pysteps_export(tmp_path, fields, name=str(n), **changed)), record.grid) is None
    assert difference(grid_of(one_per_lead(tmp_path / "fc", fields)), record.grid) is None


def test_the_message_about_another_grid_names_what_differs(tmp_path, record):
    fields, stere = rain(frames=1), "+proj=stere +lat_0=90 +lon_0=5 +lat_ts=60 +x_0=0 +y_0=0"
    changes = [
        ({"x1": 500.0, "x2": 56500.0}, "x from 1000 to 56000 m in place of 0 to 55000"),
        ({"y2": 95500.0}, "y from 500 to 94500 m in place of 0 to 47000"),
        ({"cartesian_unit": "degrees"}, "y in degrees in place of m"),
        ({"projection": stere}, "projection polar_stereographic in place of azimuthal_equidistant"),
    ]
    for n, (changed, expected) in enumerate(changes):
        assert difference(grid_of(pysteps_export(tmp_path, fields, name=str(n), **changed)), record.grid) == expected
    folder = one_per_lead(tmp_path / "fc", fields)
    with edit(next(folder.iterdir())) as file:
        file["azimuthal_equidistant"].latitude_of_projection_origin = 51.0
    assert difference(grid_of(folder), record.grid) == "latitude_of_projection_origin 51.0 in place of 50.0"


def test_longitudes_may_run_from_0_or_from_180_west():
    units = [{"units": "degrees_north"}, {"units": "degrees_east"}]
    y, x = np.array([50.0, 51.0]), np.array([-10.0, -9.0, -8.0])
    west, east, other = (Grid(y, x + turn, "lat", "lon", *units) for turn in (0, 360, 359))
    assert difference(west, east) is None
    assert difference(other, west) == "x from 349 to 351 degrees_east in place of -10 to -8"
