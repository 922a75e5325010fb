"""nowcast in Python: arrays in, arrays out, as files are; what does not fit is refused in words of rain, not of tensors."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from makers import command, rain, tiny_experiment, write_record

import nowcast
from nowcast import config
from nowcast.commands.predict import predict_files
from nowcast.errors import CheckpointError, DataError, NotEnoughFrames, OutputError, UsageError
from nowcast.prediction.cases import Selection


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("api") / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))


@pytest.fixture(scope="module")
def observed(record):
    with xr.open_dataset(record, decode_coords="all") as dataset:
        yield dataset.rainfall_rate.isel(time=slice(0, 6)).load()


@pytest.fixture(scope="module")
def run(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        tree = config.as_dict(tiny_experiment(["absent.nc"]))
        return nowcast.train(tree, data=record, output=folder / "run", set={"training.steps": 2}, device="cpu")


@pytest.fixture(scope="module")
def net(run):
    return run.load(device="cpu")


def test_import_is_light_and_names_are_known():
    program = "import sys, nowcast; print([n for n in ('numpy', 'torch', 'xarray') if n in sys.modules], dir(nowcast))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    assert all(f"'{name}'" in done.stdout for name in nowcast.__all__)
    assert all(getattr(nowcast, name) is not None for name in nowcast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = nowcast.laod


def test_members_are_those_of_the_file(tmp_path):
    path = write_record(tmp_path / "rain.nc", rain(frames=6, shape=(24, 28)), y_ascending=True)
    predict_files("extrapolation", [path], str(tmp_path / "f.nc"), Selection(), variable=None, device="cpu", overwrite=False,
                  leads=3, members=2, seed=4)  # fmt: skip
    written = xr.open_dataset(tmp_path / "f.nc", decode_coords="all").precip_intensity
    given, net = xr.open_dataset(path, decode_coords="all").rainfall_rate, nowcast.load("extrapolation")
    drawn = net.members(given, 2, leads=3, seed=4)
    assert drawn.dims == ("realization", "time", "y", "x")
    assert drawn.realization.attrs == {"standard_name": "realization", "units": "1"}
    np.testing.assert_allclose(drawn.transpose(*written.dims), written, rtol=0.0051, atol=0.00501)
    with pytest.raises(UsageError, match="persistence gives no members"):
        nowcast.load("persistence").members(given, 2)
    with pytest.raises(UsageError, match="members = -1"):
        net.members(given, -1)


@pytest.mark.parametrize("y_ascending", [False, True])
def test_a_data_array_is_forecast_as_its_file_is(tmp_path, y_ascending):
    path = write_record(tmp_path / "rain.nc", rain(frames=6, shape=(24, 28)), y_ascending=y_ascending)
    predict_files("extrapolation", [path], str(tmp_path / "f.nc"), Selection(), variable=None, device="cpu", overwrite=False,
                  probabilities=True, thresholds=(1.0, 5.0))  # fmt: skip
    written = xr.open_dataset(tmp_path / "f.nc", decode_coords="all")
    given = xr.open_dataset(path, decode_coords="all").rainfall_rate
    net = nowcast.load("extrapolation")
    forecast = net.forecast(given)
    assert (forecast.name, forecast.dims, forecast.units) == ("precip_intensity", ("time", "y", "x"), "mm h-1")
    np.testing.assert_array_equal(forecast, written.precip_intensity)
    for name in ("time", "y", "x", "forecast_reference_time"):
        np.testing.assert_array_equal(forecast[name], written[name])
    assert forecast.crs.attrs == given.crs.attrs
    assert forecast.grid_mapping == "crs"
    chances = net.probabilities(given, thresholds=[1, 5])
    assert chances.dims == ("threshold", "time", "y", "x")
    np.testing.assert_allclose(chances, written.probability_of_rainfall_above_threshold, atol=1e-4)
    forecast.to_netcdf(tmp_path / "again.nc")
    (again,) = nowcast.open_records(tmp_path / "again.nc")
    np.testing.assert_array_equal(again, forecast[:, :: -1 if y_ascending else 1])
    assert again.crs.attrs["grid_mapping_name"] == "azimuthal_equidistant"


def test_units_are_converted_as_those_of_files_are(observed):
    net = nowcast.load("persistence")
    expected = net.forecast(observed.clip(min=0.1))
    per_second = (observed.clip(min=0.1) / 3600).assign_attrs(units="kg m-2 s-1", standard_name="rainfall_flux")
    np.testing.assert_allclose(net.forecast(per_second), expected, rtol=1e-5)
    reflectivity = (10 * np.log10(200 * observed.clip(min=0.1) ** 1.6)).assign_attrs(units="dBZ", standard_name="")
    np.testing.assert_allclose(net.forecast(reflectivity), expected, rtol=1e-4)
    np.testing.assert_allclose(net.forecast(reflectivity.values, units="dBZ"), expected, rtol=1e-4)
    amounts = (observed.clip(min=0.1) / 12).assign_attrs(units="mm", standard_name="rainfall_amount")
    np.testing.assert_allclose(net.forecast(amounts), expected, rtol=1e-5)
    np.testing.assert_allclose(net.forecast(amounts.values / 2, units="mm", time_step=2.5), expected, rtol=1e-5)


def test_numpy_gives_numpy_for_one_case_and_for_many(net, observed):
    one = net.forecast(observed.values, leads=2)
    assert (type(one), one.shape, one.dtype) == (np.ndarray, (2, 24, 28), np.float32)
    np.testing.assert_array_equal(one, net.forecast(observed, leads=2).values)
    many = net.forecast(np.stack([observed.values[:3], observed.values[3:]]), leads=2)
    np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=1e-6)
    chances = nowcast.load("extrapolation").probabilities(np.stack([observed.values] * 2), thresholds=1.0, leads=2)
    assert chances.shape == (2, 1, 2, 24, 28)


def test_what_is_like_an_array_is_taken_as_one(net, observed):
    known = observed.fillna(0).values
    expected = net.forecast(known, leads=2)
    for array in (torch.from_numpy(known).requires_grad_(), known.tolist(), known.astype(">f8"), known[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(net.forecast(array, leads=2), expected)
    assert net.forecast(torch.from_numpy(known).bfloat16(), leads=2).shape == expected.shape
    masked = np.ma.masked_array(known.copy(), np.zeros(known.shape, bool))
    masked[:, 3:9, 4:12] = np.ma.masked
    masked.data[:, 3:9, 4:12] = -9999
    np.testing.assert_array_equal(net.forecast(masked, leads=2), net.forecast(masked.filled(np.nan), leads=2))
    assert nowcast.scores.mae(masked, known) == 0
    at_a_height = observed.expand_dims(height=[2.0]).transpose("time", "height", "y", "x")
    np.testing.assert_array_equal(net.forecast(at_a_height, leads=2), net.forecast(observed, leads=2))


def test_many_cases_of_a_data_array_keep_their_coordinates(net, observed):
    cases = xr.concat([observed[:3], observed[:3]], dim=xr.DataArray([7, 9], dims="event", name="event"))
    forecast = net.forecast(cases, leads=2)
    assert forecast.dims == ("event", "time", "y", "x")
    assert forecast.event.values.tolist() == [7, 9]
    np.testing.assert_array_equal(forecast[1].time, observed.time.values[2] + np.array([5, 10], "timedelta64[m]"))
    np.testing.assert_array_equal(forecast[1], net.forecast(observed[:3], leads=2))
    fields = np.stack([observed.values[:3], observed.values[2:5]])
    times = ("event", "frame"), np.stack([observed.time.values[:3], observed.time.values[2:5]])
    at_two_times = xr.DataArray(fields, {"time": times}, ("event", "frame", "y", "x"), attrs=observed.attrs)
    forecast = net.forecast(at_two_times, leads=2)
    assert forecast.dims == ("event", "forecast_period", "y", "x")
    np.testing.assert_array_equal(forecast.time[:, 0], observed.time.values[[3, 5]])
    by_reference = at_two_times.rename(event="start").assign_coords(start=observed.time.values[[2, 4]])
    np.testing.assert_array_equal(net.forecast(by_reference, leads=2), forecast)


def test_older_frames_that_are_missing_are_left_out_of_a_numpy_past():
    past = rain(frames=5, shape=(24, 28), missing=0)
    holed = past.copy()
    holed[1] = np.nan
    for name in ("extrapolation", "persistence"):
        forecaster = nowcast.load(name)
        np.testing.assert_array_equal(forecaster.forecast(holed, 2), forecaster.forecast(past[2:], 2))
        both = forecaster.forecast(np.stack([holed, past]), 2)
        np.testing.assert_array_equal(both[0], forecaster.forecast(past[2:], 2))
        np.testing.assert_array_equal(both[1], forecaster.forecast(past, 2))
    holed[-2] = np.nan
    with pytest.raises(
        NotEnoughFrames, match=r"extrapolation needs 2 frames .*\nIn case 1 these are missing as a whole: -4, -2"
    ):
        nowcast.load("extrapolation").forecast(np.stack([past, holed]), 2)


@pytest.mark.parametrize("name", ["run", "extrapolation"])
def test_rounding_errors_below_0_in_numpy_arrays_are_dry_as_in_records(net, observed, name):
    forecaster, past = net if name == "run" else nowcast.load(name), observed.values
    below = np.where(past == 0, np.float32(-0.009), past)
    assert (below < 0).any()
    given = below.copy()
    np.testing.assert_array_equal(forecaster.forecast(below, 2), forecaster.forecast(past, 2))
    np.testing.assert_array_equal(below, given)
    np.testing.assert_array_equal(forecaster.forecast(below, 2), forecaster.forecast(observed.copy(data=below), 2))


def test_a_height_is_left_out_wherever_it_is(net, observed):
    at_a_height = observed.expand_dims(height=[2.0]).transpose("y", "x", "time", "height")
    np.testing.assert_array_equal(net.forecast(at_a_height, leads=2), net.forecast(observed, leads=2))


def later(array, minutes):
    return array.assign_coords(time=array.time[0].values + np.arange(len(array)) * np.timedelta64(minutes * 60, "s"))


REFUSED = {
    "a map": (lambda a: a[0], UsageError, r"rainfall_rate has the dimensions \(y 24, x 28\): run takes \(time, y, x\)"),
    "a NumPy map": (lambda a: a.values[0], UsageError, r"rain has the shape \(24, 28\): run takes \(time, y, x\)"),
    "five dimensions": (lambda a: a.values[None, None], UsageError, r"rain has the shape \(1, 1, 6, 24, 28\)"),
    "no cells": (lambda a: a.values[:, :0], UsageError, "and so no cells"),
    "text": (lambda a: a.values.astype(str), UsageError, "run takes numbers"),
    "one frame": (lambda a: a.values[:1], UsageError, "run needs 2 past frames but got 1"),
    "one frame with its time": (lambda a: a[:1], NotEnoughFrames, "has a single frame: 'run' needs 2 frames"),
    "a gap": (lambda a: a.isel(time=[0, 1, 2, 5]), NotEnoughFrames, r"Absent: 2020-06-01T00:20:00Z"),
    "sentinels": (lambda a: np.nan_to_num(a.values, nan=-9999), UsageError, "numbers below 0, down to -9999"),
    "a fill value": (lambda a: np.nan_to_num(a.values, nan=9.97e36), UsageError, r"above 10,000, up to 9\.97e\+36"),
    "a code for missing": (lambda a: np.nan_to_num(a.values, nan=9999), UsageError, "up to 9,999, a usual code for missing"),
    "lists of different lengths": (lambda a: [[1.0, 2.0], [3.0]], UsageError, "rain is not an array: its lists"),
    "times in place of cases": (lambda a: a.expand_dims(height=2).transpose("time", ...), UsageError, r"dimensions \(time 6, "),
    "no units": (lambda a: a.drop_attrs(), DataError, 'no units attribute.\nSet its attribute "units": a rate'),
    "two variables": (lambda a: xr.Dataset({"a": a, "b": a}), DataError, "a, b.\nGive one of them, as a DataArray"),
    "kelvin": (lambda a: a.assign_attrs(units="K"), DataError, 'units "K", which is no measure of rain'),
    "no times": (lambda a: a.drop_vars("time"), DataError, "has no times"),
    "another step": (lambda a: later(a, 20), DataError, "time step of 20 min but 'run' was trained on 5 min"),
    "an uneven grid": (lambda a: a.isel(x=[0, 1, 2, 9]), DataError, "coordinate x is uneven"),
    "nothing observed": (lambda a: a.where(False), NotEnoughFrames, "needs 2 frames with something observed"),
    "rows in place of cases": (
        lambda a: a.expand_dims(event=2).transpose("y", "x", "time", "event"), UsageError, r"dimensions \(y 24, x 28, time 6,",
    ),
    "a time that is none": (
        lambda a: a.assign_coords(time=[*a.time.values[:-1], np.datetime64("NaT", "ns")]), DataError, "time has missing times",
    ),
    "nothing observed in NumPy": (lambda a: a.values * np.nan, NotEnoughFrames, "no known cell in the newest frame of case 0"),
    "another quantity": (lambda a: a.assign_attrs(units="1", standard_name=""), DataError, "rain"),
}  # fmt: skip


@pytest.mark.parametrize("units", ["mm", "kg m-2"])
def test_amounts_of_an_unknown_interval_are_refused(net, observed, units):
    with pytest.raises(UsageError, match=f'units = "{units}" is an amount, of an unknown interval: give time_step, in minutes'):
        net.forecast(observed.values / 12, units=units)
    fields = [net.forecast(observed.values / 12, units=units, time_step=5), net.forecast(observed.values)]
    np.testing.assert_allclose(*fields, atol=1e-4)


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_words_of_rain(net, observed, case):
    change, error, says = REFUSED[case]
    with pytest.raises(error, match=says) as told:
        net.forecast(change(observed))
    assert "nowcast-" not in str(told.value)
    assert str(told.value).count("\n") <= 2


def test_wrong_arguments_are_refused(net, observed):
    with pytest.raises(UsageError, match="leads = 0: write how many lead times"):
        net.forecast(observed, leads=0)
    with pytest.raises(UsageError, match="leads = True: write how many lead times"):
        net.forecast(observed, leads=True)
    for minutes in (0, "5min", np.nan):
        with pytest.raises(UsageError, match=f"time_step = {minutes!r}: write the minutes between two frames"):
            net.forecast(observed.values, time_step=minutes)
    with pytest.raises(UsageError, match="'1,5' is not a number"):
        nowcast.load("extrapolation").probabilities(observed, thresholds="1,5")
    with pytest.raises(UsageError, match="units and time_step belong to NumPy arrays"):
        net.forecast(observed, units="dBZ")
    with pytest.raises(UsageError, match=r"run gives no probabilities"):
        net.probabilities(observed)
    with pytest.raises(UsageError, match=r"thresholds = \[5, 1\]: write ascending numbers"):
        nowcast.load("extrapolation").probabilities(observed, thresholds=[5, 1])
    with pytest.raises(CheckpointError, match="no such run folder, checkpoint, forecast file or baseline: runs/absent"):
        nowcast.load("runs/absent")
    with pytest.raises(UsageError, match="nothing to train"):
        nowcast.train()


def test_the_users_array_stays_as_it_is(net, observed):
    array = observed.drop_vars("crs").assign_attrs(grid_mapping="crs")
    array.encoding = {"scale_factor": 0.1, "dtype": "int16"}
    before = array.copy(deep=True)
    net.forecast(array)
    assert array.identical(before)
    assert array.encoding == {"scale_factor": 0.1, "dtype": "int16"}


def test_records_are_read_when_they_are_used(record):
    (array,) = nowcast.open_records(record)
    assert array.shape == (40, 24, 28)
    assert not array.variable._in_memory
    with xr.open_dataset(record) as dataset:
        np.testing.assert_array_equal(array[3:5, 2:9:3, -1].values, dataset.rainfall_rate[3:5, 2:9:3, -1].values)
        np.testing.assert_array_equal(array.sel(time="2020-06-01T00:35").values, dataset.rainfall_rate[7].values)
        np.testing.assert_array_equal(array.isel(time=[5, 1], y=[3, 2]).values, dataset.rainfall_rate[[5, 1], [3, 2]].values)
        assert array.crs.attrs == dataset.crs.attrs
    assert array.units == "mm h-1"


@pytest.mark.slow
def test_a_network_is_trained_and_scored(run, net, record, observed, tmp_path, undrawn):
    assert {event["split"] for event in run.events()} == {"training", "validation"}
    assert run.events()[-1]["step"] == 2
    scores = nowcast.evaluate([run, "persistence"], observations=record, thresholds=[1], start="2020-06-01T02:00", device="cpu")
    assert isinstance(scores, xr.Dataset)
    assert scores.forecaster.values.tolist()[:2] == ["run", "persistence"]
    assert "extrapolation" in scores.forecaster
    assert 0 < scores.csi.sel(forecaster="run", threshold=1, lead_minutes=5) <= 1
    assert "persistence" in scores.table()
    page = scores.report(tmp_path / "scores")
    assert page.name == "report.html"
    assert (tmp_path / "scores" / "scores.nc").exists()
    with pytest.raises(UsageError, match="a selection or copy of the scores"):
        scores.isel(forecaster=0).table()
    with xr.open_dataset(record, decode_coords="all") as dataset:
        options = {"thresholds": [1], "start": "2020-06-01T02:00", "device": "cpu"}
        again = nowcast.evaluate(net, observations=dataset.rainfall_rate, **options)
    np.testing.assert_array_equal(again.csi.sel(forecaster="run"), scores.csi.sel(forecaster="run"))


def test_a_run_that_is_named_as_a_baseline_is_scored_beside_it(run, record, tmp_path, undrawn):
    own = shutil.copytree(run, tmp_path / "extrapolation")
    scores = nowcast.evaluate(nowcast.load(own), record, thresholds=[1], start="2020-06-01T02:30", device="cpu")
    assert scores.forecaster.values.tolist()[:2] == [str(own / "best.safetensors"), "persistence"]
    assert "extrapolation" in scores.forecaster


def test_members_are_scored_as_by_the_command(record, tmp_path, undrawn):
    options = {"start": "2020-06-01T02:15", "end": "2020-06-01T02:15", "leads": 3, "thresholds": 1, "device": "cpu"}
    words = [word for name, value in (options | {"members": 3, "seed": 4}).items() for word in (f"--{name}", value)]
    command("evaluate", "extrapolation", "--observations", record, *words, "--output", tmp_path / "e")
    found = [nowcast.evaluate("extrapolation", record, members=3, seed=seed, **options).crps_fair for seed in (4, 5)]
    with xr.open_dataset(tmp_path / "e" / "scores.nc") as expected:
        xr.testing.assert_equal(found[0], expected.crps_fair)
    assert found[0].sizes["lead_minutes"] == 3
    assert not found[1].equals(found[0])
    for name, wrong in (("members", -1), ("leads", 0), ("seed", 0.5)):
        with pytest.raises(UsageError, match=f"{name} = {wrong}"):
            nowcast.evaluate("extrapolation", record, **{name: wrong})


def test_a_report_overwrites_no_input(record, tmp_path, monkeypatch, undrawn):
    observations = shutil.copy(record, tmp_path / "scores.nc")
    scores = nowcast.evaluate("persistence", observations, thresholds=[1], start="2020-06-01T02:15", device="cpu")
    with pytest.raises(OutputError, match=r"scores\.nc is an input .*, and no input is overwritten"):
        scores.report(tmp_path, overwrite=True)
    assert nowcast.open_records(observations)[0].sizes["time"] == 40
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert scores.report("~/scores") == tmp_path / "home" / "scores" / "report.html"


def test_the_time_step_of_an_array_tells_how_far_rain_goes_astray(observed):
    array, net = observed.values, nowcast.load("extrapolation")
    few, many = (net.probabilities(array, thresholds=[1], leads=2, time_step=minutes) for minutes in (5, 15))
    spread = [np.nanmean(chances * (1 - chances)) for chances in (few, many)]
    assert spread[1] > 1.2 * spread[0]


def test_the_end_of_an_evaluation_may_be_a_day(record):
    def csi(**options):
        return nowcast.evaluate("persistence", record, thresholds=[1], start="2020-06-01T02:00", device="cpu", **options).csi

    np.testing.assert_array_equal(csi(end="2020-06-01"), csi())
    np.testing.assert_array_equal(csi(end=np.datetime64("2020-06-01T02:10")), csi(end="2020-06-01T04:10+02:00"))
    with pytest.raises(UsageError, match="end tomorrow: not a time"):
        csi(end="tomorrow")
