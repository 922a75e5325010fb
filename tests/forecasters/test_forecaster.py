"""Networks, baselines and forecast files answer the same call, and refuse what they cannot forecast by name."""

import numpy as np
import pytest
import torch
from makers import rain, tiny_experiment, tiny_run, write_record
from makers.models import SMALL, untrained_network

import nowcast.forecasters.network as module
from nowcast.errors import CheckpointError, DataError, UsageError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.forecasters.forecast_files import ForecastFiles
from nowcast.forecasters.network import Network
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint, write_checkpoint
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.opening import open_records
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE

CPU = torch.device("cpu")
START = np.datetime64("2020-06-01T00:00:00")
MINUTES = np.timedelta64(60, "s")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
        return tiny_run(folder / "run", [record])


@pytest.fixture(params=[*available(), "network"])
def forecaster(request, run):
    return open_forecaster(str(run) if request.param == "network" else request.param, device=CPU)


def past(cases=2, frames=4, shape=(40, 44)):
    return np.stack([rain(frames=frames, shape=shape, seed=seed) for seed in range(cases)])


def record(folder, *, name="a", frames=20, shape=(24, 28), **options):
    return open_records([write_record(folder / f"{name}.nc", rain(frames=frames, shape=shape), **options)])[0]


def write_forecasts(path, grid, *, leads=(1, 2, 3), quantity=RAIN_RATE, references=1):
    fields = rain(frames=len(leads), shape=grid.shape)
    cases = [(START + 5 * n * MINUTES, fields + n) for n in range(references)]
    times = np.array(leads) * 5 * MINUTES
    write_forecast(path, cases, grid=grid, lead_times=times, quantity=quantity, attributes={}, single=references == 1)
    return path


def file_of(path, grid, **options):
    return open_forecaster(str(write_forecasts(path, grid, **options)), device=CPU)


def test_every_forecaster_maps_any_past_to_any_number_of_leads(forecaster):
    forecast = forecaster.forecast(past(), 5)
    assert forecast.shape == (2, 5, 40, 44)
    assert forecast.dtype == np.float32
    assert np.nanmin(forecast) >= 0
    assert np.isfinite(forecast).mean() > 0.5


def test_every_forecaster_repeats_itself_case_by_case(forecaster):
    both = forecaster.forecast(past(), 3)
    np.testing.assert_array_equal(both, forecaster.forecast(past(), 3))
    np.testing.assert_allclose(both[1:], forecaster.forecast(past()[1:], 3), rtol=1e-5, atol=1e-5)


def test_every_forecaster_uses_the_newest_frames(forecaster):
    frames = past(frames=7)
    changed = frames.copy()
    changed[:, :3] = 50.0
    np.testing.assert_array_equal(forecaster.forecast(frames, 2), forecaster.forecast(changed, 2))


def test_every_forecaster_works_with_as_few_frames_as_it_says(forecaster):
    frames = past(frames=forecaster.input_frames)
    assert np.isfinite(forecaster.forecast(frames, 2)).any()


def test_what_was_never_seen_stays_missing(forecaster):
    frames = past()
    frames[:, :, :, :20] = np.nan
    forecast = forecaster.forecast(frames, 2)
    assert np.isnan(forecast[..., :10]).all()
    assert np.isfinite(forecast[..., 30:40]).any()


def test_a_dry_past_is_forecast_without_failing(forecaster):
    forecast = forecaster.forecast(np.zeros((1, 4, 40, 44), np.float32), 2)
    assert np.isfinite(forecast).all()
    if forecaster.name in BASELINES:
        assert not forecast.any()


def test_a_forecast_does_not_change_its_past(forecaster):
    frames = past()
    before = frames.copy()
    forecaster.forecast(frames, 2)
    np.testing.assert_array_equal(frames, before)


def test_a_network_forecasts_large_batches_in_parts(run, monkeypatch):
    network = open_forecaster(str(run), device=CPU)
    whole = network.forecast(past(cases=3), 2)
    assert network.cases_at_once((40, 44)) > 3
    monkeypatch.setitem(module.BATCH_CELLS, "cpu", 2 * 40 * 44)
    assert network.cases_at_once((40, 44)) == 2
    assert network.cases_at_once((4000, 4000)) == 1
    np.testing.assert_allclose(network.forecast(past(cases=3), 2), whole, rtol=1e-5, atol=1e-5)


def test_a_network_reads_strided_and_big_endian_frames(run):
    network, frames = open_forecaster(str(run), device=CPU), past()
    flipped = network.forecast(frames[:, :, ::-1].copy(), 2)
    np.testing.assert_array_equal(network.forecast(frames[:, :, ::-1].astype(">f4"), 2), flipped)


def test_a_run_folder_and_its_best_checkpoint_are_one_forecaster(run):
    folder, file = (open_forecaster(str(path), device=CPU) for path in (run, run / BEST))
    assert folder.name == file.name == "run"
    assert folder.digest == file.digest
    np.testing.assert_array_equal(folder.forecast(past(), 2), file.forecast(past(), 2))


def test_the_last_checkpoint_forecasts_with_the_average_of_the_weights(run):
    last = open_forecaster(str(run / LAST), device=CPU)
    average = read_checkpoint(run / LAST).tensors_of("average")
    assert average
    for name, value in last.model.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=0, atol=0)


def test_what_is_no_forecaster_is_refused_by_name(tmp_path, run):
    with pytest.raises(CheckpointError, match=r"no such run .*, forecast file or baseline: extrapolate .*extrapolation"):
        open_forecaster("extrapolate", device=CPU)
    with pytest.raises(CheckpointError, match=r"holds no best\.safetensors"):
        open_forecaster(str(tmp_path), device=CPU)
    text = tmp_path / "model.safetensors"
    text.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="is not a nowcast checkpoint"):
        open_forecaster(str(text), device=CPU)
    observed = write_record(tmp_path / "observed.nc", rain(frames=4))
    with pytest.raises(DataError, match="does not say when its forecast starts"):
        open_forecaster(str(observed), device=CPU)


def test_a_flipped_bit_in_a_checkpoint_is_noticed(run, tmp_path):
    content = bytearray((run / BEST).read_bytes())
    content[-5] ^= 1
    (tmp_path / BEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: its contents do not match its SHA-256"):
        open_forecaster(str(tmp_path), device=CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": {"name": "nothing"}}},
        {"input_frames": "many"},
        {"time_steps": None},
        {"config": None},
        {"config": "wider"},
    ],
)
def test_a_checkpoint_that_does_not_describe_its_tensors_is_refused(run, tmp_path, change):
    checkpoint = read_checkpoint(run)
    facts = {key: value for key, value in checkpoint.metadata.items() if key != "format"} | change
    if change == {"config": "wider"}:
        facts["config"] = tiny_experiment([]).model_dump(mode="json")
        facts["config"]["model"]["hidden_channels"] = [4096]
    write_checkpoint(tmp_path / BEST, facts, checkpoint.tensors)
    with pytest.raises(CheckpointError, match="cannot be used") as caught:
        open_forecaster(str(tmp_path), device=CPU)
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_forecasts_in_the_step_it_was_trained_on(run, tmp_path):
    network = open_forecaster(str(run), device=CPU)
    assert network.time_steps == [300]
    assert network.time_step(record(tmp_path)) == np.timedelta64(300, "s")
    one_minute = record(tmp_path, name="fast", step_minutes=1)
    assert network.time_step(one_minute) == np.timedelta64(300, "s")
    with pytest.raises(DataError, match=r"slow has a time step of 15 min but 'run' was trained on 5 min"):
        network.time_step(record(tmp_path, name="slow", step_minutes=15))


def test_a_network_of_several_steps_takes_all_between_them(run, tmp_path):
    network = open_forecaster(str(run), device=CPU)
    network.time_steps = [300, 600]
    assert network.time_step(record(tmp_path, step_minutes=6)) == np.timedelta64(360, "s")
    with pytest.raises(DataError, match="trained on 5 to 10 min"):
        network.time_step(record(tmp_path, name="slow", step_minutes=15))


def test_a_network_refuses_another_quantity_and_a_grid_too_small(run, tmp_path):
    network = open_forecaster(str(run), device=CPU)
    cloud = {"variable": "cloud", "standard_name": "cloud_area_fraction", "units": "1"}
    share = write_record(tmp_path / "cloud.nc", np.full((4, 24, 28), 0.5), **cloud)
    with pytest.raises(DataError, match="cloud holds dimensionless but 'run' was trained on rain_rate"):
        network.time_step(open_records([share], variable="cloud")[0])
    with pytest.raises(DataError, match="small has a grid of 1 × 28 cells; 'run' needs at least 2 each way"):
        network.time_step(record(tmp_path, name="small", shape=(1, 28)))


def test_a_network_of_one_grid_refuses_every_other(run, tmp_path):
    network = open_forecaster(str(run), device=CPU)
    network.model.grid = (24, 24)
    with pytest.raises(DataError, match="a has a grid of 24 × 28 cells; 'run' is made for 24 × 24 alone"):
        network.time_step(record(tmp_path))


def test_a_forecast_file_gives_back_its_forecasts(tmp_path):
    grid = record(tmp_path).grid
    opened = file_of(tmp_path / "f.nc", grid, references=3)
    assert isinstance(opened, ForecastFiles)
    assert (opened.name, opened.lead_frames) == ("f", 3)
    forecast = opened.forecast_at(START + 10 * MINUTES, np.array([5, 10]) * MINUTES)
    np.testing.assert_allclose(forecast, rain(frames=3, shape=grid.shape)[:2] + 2, rtol=1e-6)


def test_a_forecast_file_may_begin_with_the_analysis(tmp_path):
    a = record(tmp_path)
    opened = file_of(tmp_path / "f.nc", a.grid, leads=(0, 1, 2))
    assert opened.time_step(a) == np.timedelta64(300, "s")
    assert opened.lead_frames == 2
    forecast = opened.forecast_at(START, np.array([5, 10]) * MINUTES)
    np.testing.assert_allclose(forecast, rain(frames=3, shape=a.grid.shape)[1:], rtol=1e-6)


def test_a_forecast_file_must_fit_the_record(tmp_path):
    a = record(tmp_path)
    other = record(tmp_path, name="b", shape=(20, 28))
    with pytest.raises(DataError, match=r"f is not on the grid of a: 20 × 28 cells in place of 24 × 28\.\nRegrid one"):
        file_of(tmp_path / "f.nc", other.grid).time_step(a)
    with pytest.raises(DataError, match="uneven has lead times that are not 1, 2, 3"):
        file_of(tmp_path / "uneven.nc", a.grid, leads=(1, 2, 4)).time_step(a)
    share = write_forecasts(tmp_path / "share.nc", a.grid, quantity=DIMENSIONLESS)
    with pytest.raises(DataError, match="share forecasts dimensionless but a holds rain_rate"):
        ForecastFiles(read_forecast(share, variable="value"), "share").time_step(a)


def test_a_folder_named_like_a_baseline_is_reached_by_its_path(run, tmp_path):
    named = tmp_path / "persistence"
    named.symlink_to(run)
    assert isinstance(open_forecaster(str(named), device=CPU), Network)


@pytest.mark.skipif("pysteps" in available(), reason="pysteps is installed")
def test_a_baseline_that_is_not_installed_says_how_to_install_it():
    with pytest.raises(UsageError, match="pip install pysteps"):
        open_forecaster("pysteps", device=CPU)


# All dry


@pytest.mark.parametrize("name", available())
def test_a_baseline_forecasts_dry_weather_from_dry_weather(name):
    assert_dry(BASELINES[name]())


@pytest.mark.parametrize("name", SMALL)
def test_a_network_forecasts_dry_weather_from_dry_weather(name):
    """Also one that was not trained, which answers zeros with whatever its weights make of them."""
    assert_dry(untrained_network(name))


def assert_dry(forecaster):
    """Also where a part is missing, and where there is less than what counts as rain; what was never seen stays missing."""
    past = np.zeros((3, 4, 12, 12), np.float32)
    past[1, :, 2:4, 5:9] = np.nan
    past[2] = 0.04
    forecast = forecaster.forecast(past, 3)
    assert np.isnan(forecast[1, :, 2:4, 5:9]).all()
    assert np.isfinite(forecast[[0, 2]]).all()
    assert np.isfinite(forecast[1]).sum() == 3 * (144 - 8)
    assert np.nanmax(forecast) <= 0.04 + 1e-6
    assert np.nanmin(forecast) >= 0
