"""Exceedance probabilities in forecast files: beside the fields, CF for every reader, the same to 0.0001 when read back."""

import re
import shutil
import subprocess
import tracemalloc

import netCDF4
import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import command, rain, write_record
from makers.cf_checker import cf_faults
from makers.stored import open_one

from nowcast.errors import DataError, OutputError
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.netcdf import forecast_writer
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import PROBABILITY, write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.prediction import pipeline
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict
from nowcast.quantity import RAIN_RATE

pytestmark = pytest.mark.slow  # all of them together take seconds

LEADS = np.array([5, 10, 15], "timedelta64[m]")
START = np.datetime64("2020-06-01T00:15:00")
THRESHOLDS = (1.0, 10.0)
HALF_A_COUNT = 0.5e-4 + 1e-7


class Chancy(Persistence):
    """Persistence with a probability of 1 / threshold as far as it rains; remembers the sizes that it was asked for."""

    name = "chancy"
    thresholds = (2.0, 4.0)
    lead_frames = 3

    def __init__(self):
        self.asked = []

    def forecast_and_exceedance(self, past, num_leads, thresholds):
        self.asked.append((len(past), tuple(thresholds)))
        forecast = self.forecast(past, num_leads)
        fields = forecast[:, :, None]
        chance = np.where(fields > 0, 1 / np.array(thresholds, np.float32)[:, None, None], 0)
        return forecast, np.where(np.isnan(fields), np.nan, chance).astype(np.float32)


@pytest.fixture
def record(tmp_path):
    (tmp_path / "records").mkdir()
    return open_one(write_record(tmp_path / "records" / "record.nc", rain(frames=6, shape=(20, 24)), y_ascending=True))


def made(grid, *, cases=2, thresholds=THRESHOLDS, leads=3, seed=0):
    """Cases of random fields and probabilities (lead, threshold, y, x), some missing."""
    rng = np.random.default_rng(seed)
    for n in range(cases):
        fields = rng.gamma(0.3, 4, (leads, *grid.shape)).astype(np.float32)
        chances = rng.random((leads, len(thresholds), *grid.shape), np.float32)
        chances[rng.random(chances.shape) < 0.1] = np.nan
        yield START + np.timedelta64(300 * n, "s"), fields, chances


def write(path, record, *, single=False, thresholds=THRESHOLDS, **options):
    cases = list(made(record.grid, cases=1 if single else 2, thresholds=thresholds))
    options = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {"title": "t"}} | options
    write_forecast(path, iter(cases), grid=record.grid, single=single, thresholds=thresholds, **options)
    return cases


def given_back(path, case, leads=range(3)):
    """(lead, threshold, y, x)"""
    found = read_forecast(path, variable=PROBABILITY)
    return np.stack([found.probabilities(case, lead, range(len(found.thresholds))) for lead in leads])


# -- the file ---------------------------------------------------------------------------------------------------------


def test_probabilities_come_back_and_the_fields_are_what_is_read_unless_they_are_named(tmp_path, record, single):
    cases = write(tmp_path / "f.nc", record, single=single)
    plain, chances = read_forecast(tmp_path / "f.nc"), read_forecast(tmp_path / "f.nc", variable=PROBABILITY)
    assert (plain.kind, plain.quantity, plain.thresholds) == ("deterministic", RAIN_RATE, ())
    assert (chances.kind, chances.quantity, chances.thresholds) == ("probability", RAIN_RATE, THRESHOLDS)
    np.testing.assert_array_equal(chances.reference_times, plain.reference_times)
    np.testing.assert_array_equal(chances.lead_times, plain.lead_times)
    for n, (_, fields, given_) in enumerate(cases):
        np.testing.assert_array_equal(plain.read(n), fields)
        np.testing.assert_allclose(given_back(tmp_path / "f.nc", n), given_, rtol=0, atol=HALF_A_COUNT)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    thresholds=st.lists(st.sampled_from([0.1, 0.3, 1.0, 7.5, 20.0]), min_size=1, max_size=4, unique=True).map(sorted),
    num_leads=st.integers(1, 3),
    num_cases=st.integers(1, 3),
    y_ascending=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_cases_leads_thresholds_and_cells_comes_back(
    tmp_path, shape, thresholds, num_leads, num_cases, y_ascending, seed
):
    path, source = tmp_path / "f.nc", tmp_path / "record.nc"
    source.unlink(missing_ok=True)
    grid = open_one(write_record(source, np.zeros((2, *shape)), y_ascending=y_ascending), variable="rainfall_rate").grid
    cases = list(made(grid, cases=num_cases, thresholds=thresholds, leads=num_leads, seed=seed))
    facts = {"grid": grid, "lead_times": LEADS[:num_leads], "quantity": RAIN_RATE, "attributes": {}}
    for single in {False, num_cases == 1}:
        write_forecast(path, iter(cases), single=single, thresholds=thresholds, overwrite=True, **facts)
        plain, found = read_forecast(path), read_forecast(path, variable=PROBABILITY)
        assert found.thresholds == tuple(thresholds)
        for n, (_, fields, chances) in enumerate(cases):
            np.testing.assert_array_equal(plain.read(n), fields)
            given_ = [found.probabilities(n, lead, range(len(thresholds))) for lead in range(num_leads)]
            np.testing.assert_allclose(np.stack(given_), chances, rtol=0, atol=HALF_A_COUNT)


@pytest.mark.parametrize("units", ["mm h-1", "m s-1", "dBZ", "K"])
def test_probabilities_in_units_of_rain_are_refused(tmp_path, record, units):
    """Those in "m s-1" were multiplied by 3,600,000."""
    write(tmp_path / "f.nc", record)
    with netCDF4.Dataset(tmp_path / "f.nc", "a") as file:
        file[PROBABILITY].units = units
    says = rf'f\.nc: {PROBABILITY} has the units "{units}", which are not those of probabilities\.\nExpected "1" for values'
    with pytest.raises(DataError, match=says):
        read_forecast(tmp_path / "f.nc", variable=PROBABILITY)


def test_none_and_certain_are_exact(tmp_path, record):
    chances = np.tile(np.float32([0, 1, np.nan, 1]), (3, 1, 20, 6))
    case = (START, np.zeros((3, 20, 24), np.float32), chances)
    facts = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}}
    write_forecast(tmp_path / "f.nc", [case], grid=record.grid, single=True, thresholds=[1.0], **facts)
    np.testing.assert_array_equal(given_back(tmp_path / "f.nc", 0), chances)


def test_the_layout_is_cf_and_what_improver_goes_by(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        variable, threshold = file[PROBABILITY], file["threshold"]
        times = ("threshold", "time") if single else ("forecast_reference_time", "threshold", "forecast_period")
        assert variable.dimensions == (*times, "y", "x")
        assert variable.chunking() == [1] * len(times) + [20, 24]
        filters = variable.filters()
        assert (filters["zlib"], filters["shuffle"], filters["fletcher32"]) == (True, True, True)
        assert (variable.units, variable.dtype, variable.scale_factor) == ("1", np.int16, 1e-4)
        assert variable.long_name == "probability_of_rainfall_rate_above_threshold"
        assert variable.coordinates == file["precip_intensity"].coordinates
        assert variable.grid_mapping == "crs"
        assert threshold[:].tolist() == list(THRESHOLDS)
        assert (threshold.standard_name, threshold.units) == ("rainfall_rate", "mm h-1")
        assert threshold.spp__relative_to_threshold == "greater_than_or_equal_to"
        assert file["precip_intensity"].dimensions == (*(dim for dim in times if dim != "threshold"), "y", "x")


def test_xarray_unpacks_and_turns_them(tmp_path, record):
    ((_, _, chances),) = write(tmp_path / "f.nc", record, single=True)
    with xarray.open_dataset(tmp_path / "f.nc", engine="netcdf4") as found:
        field = found[PROBABILITY].sel(threshold=10.0)
        np.testing.assert_allclose(field.values[:, ::-1], chances[:, 1], rtol=0, atol=HALF_A_COUNT)
        np.testing.assert_array_equal(field.time.values, START + LEADS)
        assert field.attrs["grid_mapping"] == "crs"


def test_pysteps_reads_the_fields_beside_them(tmp_path, record):
    nowcast_importers = pytest.importorskip("pysteps.io.nowcast_importers")
    ((_, fields, _),) = write(tmp_path / "f.nc", record, single=True)
    found, _ = nowcast_importers.import_netcdf_pysteps(str(tmp_path / "f.nc"), onerror="raise")
    np.testing.assert_array_equal(found[:, ::-1], fields)


def test_cdo_reads_the_fields_beside_them(tmp_path, record, single):
    if shutil.which("cdo") is None:
        pytest.skip("cdo is not installed")
    write(tmp_path / "f.nc", record, single=single)
    told = subprocess.run(["cdo", "-s", "sinfon", tmp_path / "f.nc"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"v instant +{1 if single else 3} .*F32z +: precip_intensity", told)


def test_the_cf_checker_finds_no_error(tmp_path, record, single):
    write(tmp_path / "f.nc", record, single=single)
    faults, num_checks = cf_faults(tmp_path / "f.nc")
    assert not faults
    assert num_checks > 20


def test_one_forecast_with_probabilities_is_still_a_record(tmp_path, record):
    ((_, fields, _),) = write(tmp_path / "one.nc", record, single=True)
    np.testing.assert_array_equal(open_one(tmp_path / "one.nc").read(range(3)), fields)


def test_cases_are_written_one_at_a_time(tmp_path, record):
    def cases(num):
        for i in range(num):
            fields, chances = np.zeros((3, 20, 24), np.float32), np.full((3, 2, 20, 24), i / num, np.float32)
            yield START + np.timedelta64(300 * i, "s"), fields, chances

    facts = {"lead_times": LEADS, "quantity": RAIN_RATE, "attributes": {}}
    tracemalloc.start()
    write_forecast(tmp_path / "f.nc", cases(200), grid=record.grid, single=False, thresholds=THRESHOLDS, **facts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 3 * 3 * 20 * 24 * 4
    np.testing.assert_allclose(given_back(tmp_path / "f.nc", 199), 199 / 200, rtol=0, atol=HALF_A_COUNT)


def test_probabilities_that_do_not_read_back_are_an_output_error(tmp_path, record, monkeypatch):
    create = forecast_writer.create_variable

    def scaling(dataset, grid, name, *rest):
        variable = create(dataset, grid, name, *rest)
        variable.set_auto_maskandscale(name == PROBABILITY)  # the library would scale what is packed already
        return variable

    monkeypatch.setattr(forecast_writer, "create_variable", scaling)
    with pytest.raises(OutputError, match=r"f.nc cannot be written: it does not read back as it was written\."):
        write(tmp_path / "f.nc", record)
    assert not (tmp_path / "f.nc").exists()


# -- the command ------------------------------------------------------------------------------------------------------


def run(record, output, *, forecaster=None, folder=False, thresholds=THRESHOLDS, **selection):
    forecaster, selection = forecaster or Chancy(), Selection(**selection)
    return predict(forecaster, [record], output, selection=selection, folder=folder, thresholds=thresholds)


def test_one_time_many_and_a_folder_hold_the_same_probabilities(tmp_path, record):
    times = record.times[2:5]
    run(record, tmp_path / "many.nc", start=times[0], end=times[-1])
    run(record, tmp_path / "one.nc", listed=(times[1],))
    files = run(record, tmp_path / "out", folder=True, start=times[0], end=times[-1])
    _, (expected,) = Chancy().forecast_and_exceedance(record.read([3])[None], 3, THRESHOLDS)
    np.testing.assert_allclose(given_back(tmp_path / "one.nc", 0), expected, rtol=0, atol=HALF_A_COUNT)
    np.testing.assert_array_equal(given_back(tmp_path / "many.nc", 1), given_back(tmp_path / "one.nc", 0))
    np.testing.assert_array_equal(given_back(files[1], 0), given_back(tmp_path / "one.nc", 0))


def test_a_case_with_probabilities_counts_as_so_many_fields(tmp_path, record, monkeypatch):
    monkeypatch.setattr(Chancy, "cases_at_once", lambda self, grid: 8)
    monkeypatch.setattr(pipeline, "BYTES_AHEAD", 2 * (3 * 3 * 20 * 24 * 4))  # two cases of three fields at each lead
    forecaster = Chancy()
    run(record, tmp_path / "f.nc", forecaster=forecaster, start=record.times[0])
    assert forecaster.asked == [(2, THRESHOLDS)] * 3


def test_the_file_says_what_was_asked_and_by_which_method(tmp_path, record):
    run(record, tmp_path / "f.nc", forecaster=Extrapolation(), thresholds=(0.5, 2.0))
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file.history.endswith("nowcast predict extrapolation record --probabilities --thresholds 0.5,2")
        assert file.references.endswith("; Germann & Zawadzki (2004), J. Appl. Meteor. 43 (the probabilities)")
    run(record, tmp_path / "g.nc", forecaster=Extrapolation(), thresholds=())
    with netCDF4.Dataset(tmp_path / "g.nc") as file:
        assert file.history.endswith("nowcast predict extrapolation record")
        assert file.references.endswith("(the motion)")
        assert PROBABILITY not in file.variables
        assert "threshold" not in file.dimensions


def test_what_is_no_rain_has_no_probabilities(tmp_path):
    path = write_record(
        tmp_path / "c.nc", rain(frames=6) / 100, variable="cloud", standard_name="cloud_area_fraction", units="1"
    )
    (record,) = open_records([path], variable="cloud")
    with pytest.raises(DataError, match=r"^c holds dimensionless\.\nExpected rain: probabilities are those of a rain rate"):
        run(record, tmp_path / "f.nc")
    assert not (tmp_path / "f.nc").exists()


@pytest.fixture
def observed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_record("observed.nc", rain(frames=20, shape=(20, 24), missing=0.02))


# the rain of the newest frame has left the grid
LEFT = "nothing is scored at 1 of 12 lead times (60 min): no pixel is known there in the observation and all forecasts\n"


def test_the_command_forecasts_and_scores_probabilities(observed):
    code, _, err = command("predict", "extrapolation", "observed.nc", "--probabilities", "--output", "f.nc", "-q", *span())
    assert (code, err) == (0, "")
    assert read_forecast("f.nc", variable=PROBABILITY).thresholds == Extrapolation.thresholds
    named = ["f.nc", "--observations", "observed.nc", "--variable", PROBABILITY]
    code, out, err = command("evaluate", *named, "-q")
    assert (code, err) == (0, LEFT)
    assert "'f' gives only probabilities: it has no scores of a single field, such as CSI and MAE.\n" in out
    lines = [line.split() for line in out[out.index("probabilities, pooled over leads") :].splitlines()]
    rows = {}
    for name, *values in filter(None, lines):
        rows.setdefault(name, values)
    assert rows["f"][:8] == rows["extrapolation"][:8]  # the same by way of a file
    code, out, err = command("evaluate", "f.nc", "--observations", "observed.nc", "-q")
    assert (code, err) == (0, LEFT)
    assert "probabilities" not in out


def span():
    return "--start", "2020-06-01T00:15", "--end", "2020-06-01T00:25"


def test_the_thresholds_can_be_chosen(observed):
    asked = ["--probabilities", "--thresholds", "0.2,3"]
    assert command("predict", "extrapolation", "observed.nc", *asked, "--output", "f.nc", "-q")[0] == 0
    assert read_forecast("f.nc", variable=PROBABILITY).thresholds == (0.2, 3.0)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["persistence", "observed.nc", "--probabilities"],
            ("error: persistence gives no probabilities.\nUse extrapolation, or a network that was trained for them.\n"),
        ),
        (
            ["extrapolation", "observed.nc", "--thresholds", "1"],
            "error: --thresholds belongs to --probabilities: a forecast in mm/h has none\n",
        ),
        (
            ["extrapolation", "observed.nc", "--probabilities", "--thresholds", "5,1"],
            "error: --thresholds 5,1: write ascending numbers above 0 with commas, such as 0.5,1,5,10\n",
        ),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(observed, argv, says):
    assert command("predict", *argv, "--output", "f.nc") == (2, "", says)
