"""A probabilistic network in Lagrangian coordinates: without correction it is the extrapolation; it trains and resumes."""

import numpy as np
import pytest
import torch
from makers import PROBABILISTIC, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.errors import UsageError
from nowcast.forecasters import network as forecasters_network
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.export import export
from nowcast.forecasters.network import Network
from nowcast.models import make_model, model_config
from nowcast.models.checkpoint import Checkpoint, read_checkpoint
from nowcast.models.probabilistic import cascade
from nowcast.models.probabilistic.cascade import CascadeConstants
from nowcast.models.probabilistic.matching import MatchingConstants
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig
from nowcast.training.experiment import resolve

CPU = torch.device("cpu")
MODEL, LOSS = PROBABILISTIC["model"], PROBABILISTIC["loss"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def experiment(records=("x.nc",), *, coordinates="lagrangian", model=MODEL, loss=LOSS, **training):
    tree = config.as_dict(tiny_experiment(records, **training))
    tree["data"]["coordinates"] = coordinates
    return config.from_dict(tree | {"model": model, "loss": loss}, source="test")


def made_checkpoint(weights, **options):
    facts = {"config": config.as_dict(resolve(experiment(**options))), "input_frames": 2, "lead_frames": 3,
             "time_steps": [300], "quantity": "rain_rate", "units": "mm h-1"}  # fmt: skip
    return Checkpoint(facts, {f"model.{name}": value for name, value in weights.items()}, "0" * 64)


def extrapolating(**options):
    """A network that has learnt nothing: of rain that `stands` its distribution lies around the newest frame as it is."""
    model = make_model(model_config(config.NamedSection(**MODEL)))
    with torch.no_grad():
        model.head.weight.zero_()
    return Network(made_checkpoint(model.state_dict(), **options), "network", device=CPU)


def shaken(seed=0):
    torch.manual_seed(seed)
    model = make_model(model_config(config.NamedSection(**MODEL)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.002 if name in ("gain", "width") else 0.05) * torch.randn_like(parameter))
    return Network(made_checkpoint(model.state_dict()), "network", device=CPU)


def past(cases=2, shape=(44, 51)):
    return np.stack([rain(frames=2, shape=shape, motion=(1, -2), missing=0.05, seed=seed) for seed in range(cases)])


def assert_close(forecast, expected):
    """Missing alike, and the same but for the steps in which areas are matched, when their shares are 1."""
    np.testing.assert_array_equal(np.isnan(forecast), np.isnan(expected))
    assert np.nanmean(np.abs(forecast - expected)) < 0.03 * np.nanmean(expected)


@pytest.fixture
def stands(monkeypatch):
    """Rain whose past says nothing of its change, and as much area as there is."""
    monkeypatch.setattr(cascade, "block_correlation", lambda *_: None)
    monkeypatch.setattr(MatchingConstants, "area_share", lambda self, value, lead: 1.0)


@pytest.mark.usefixtures("stands")
def test_without_correction_it_is_the_extrapolation():
    frames = past()
    frames[frames < 0.1] = 0  # what is less is dry to it
    assert_close(extrapolating().forecast(frames, 5), BASELINES["extrapolation"]().forecast(frames, 5))


@pytest.mark.usefixtures("stands")
def test_in_coordinates_of_the_grid_it_is_persistence():
    frames, network = np.nan_to_num(past()), extrapolating(coordinates="grid")
    frames[frames < 0.1] = 0
    assert_close(network.forecast(frames, 2), np.repeat(frames[:, -1:], 2, axis=1))


def test_probabilities_move_with_the_rain_and_fall_with_the_threshold():
    frames, network = past(), extrapolating()
    assert network.thresholds == (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    forecast, probabilities = network.forecast_and_exceedance(frames, 4, (0.5, 2.0, 8.0))
    np.testing.assert_array_equal(forecast, network.forecast(frames, 4))
    assert probabilities.shape == (2, 4, 3, 44, 51)
    np.testing.assert_array_equal(np.isnan(probabilities), np.isnan(forecast)[:, :, None].repeat(3, axis=2))
    known = ~np.isnan(forecast)
    assert (np.diff(probabilities, axis=2)[known[:, :, None].repeat(2, axis=2)] <= 0).all()
    at_two = probabilities[:, :, 1]
    assert at_two[known & (forecast > 4)].mean() > 0.8
    assert at_two[known & (forecast < 1)].mean() < 0.2


def test_what_was_never_seen_has_no_probability_and_a_dry_case_beside_a_wet_one_none_of_rain():
    frames = past()
    frames[0], frames[:, :, :9, :9] = 0, np.nan
    for coordinates in ("grid", "lagrangian"):
        network = Network(made_checkpoint(shaken().model.state_dict(), coordinates=coordinates), "network", device=CPU)
        forecast, probabilities = network.forecast_and_exceedance(frames, 3, (0.5, 2.0))
        np.testing.assert_array_equal(np.isnan(probabilities), np.isnan(forecast)[:, :, None].repeat(2, axis=2))
        assert np.isnan(forecast[:, 0, :5, :5]).all()
        for dry in (forecast[0], probabilities[0]):
            assert (dry[np.isfinite(dry)] == 0).all()
        assert np.nanmax(probabilities[1]) > 0


def test_a_clear_sky_has_no_chance_of_rain():
    for found in shaken().forecast_and_exceedance(np.zeros((1, 2, 20, 20), np.float32), 3, (0.5, 5.0)):
        assert (found == 0).all()


@pytest.mark.slow
def test_tiles_give_what_the_whole_grid_gives(monkeypatch, caplog):
    network, frames = shaken(), past(shape=(1300, 90))
    whole = network.forecast_and_exceedance(frames, 3, (0.5, 2.0))
    monkeypatch.setattr(forecasters_network, "SMALL_GRID", 0)
    monkeypatch.setattr(forecasters_network, "available_bytes", lambda device: 2.5e8)  # three tiles with all that they reach
    tiled = shaken()
    caplog.set_level("INFO", "nowcast")
    for one, other in zip(whole, tiled.forecast_and_exceedance(frames, 3, (0.5, 2.0)), strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        apart = np.abs(one - other) - 1e-3 * one
        assert np.nanmean(apart > 1e-3) < 1e-5, "but for the cell whose odds are those at which rain begins"
        assert np.nanmax(apart) < 0.1
    assert "cells do not fit in memory at once: forecast in " in caplog.text
    again = tiled.forecast(frames, 3)
    assert np.nanmean(np.abs(again - whole[0]) > 1e-3 * (1 + whole[0])) < 1e-5, "and without probabilities"


def test_leads_come_one_by_one_as_they_come_together():
    model = shaken().model
    inputs = torch.rand(1, 2, 2, 70, 90, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one_by_one = torch.cat(list(model.leads(inputs, 4)), dim=1)
        together = model(inputs, 4)
    assert torch.equal(one_by_one, together)
    torch.testing.assert_close(model(inputs, 4), together)  # where gradients are asked for, the forecaster runs over all


def test_the_forecaster_is_told_the_number_of_each_lead_time():
    model, fed = shaken().model, []
    model.forecaster.register_forward_pre_hook(lambda _, arguments: fed.append(arguments[0]))
    model(torch.rand(1, 2, 2, 64, 64, generator=torch.Generator().manual_seed(1)), 5)
    last = torch.cat(fed, dim=1)[0, :, -1].flatten(1)
    assert [last.amin(dim=1).tolist(), last.amax(dim=1).tolist()] == [[0.25, 0.5, 0.75, 1.0, 1.25]] * 2


def growing(frames=4, cells=192):
    """Values (1, time, 2, y, x) of a broad shower that grows on one side, with errors that hide it, and their validity."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, cells), torch.linspace(-1, 1, cells), indexing="ij")
    shower = 0.3 * torch.exp(-3 * (rows**2 + columns**2))
    values = torch.stack([shower * (1 + 0.05 * n * (1 + columns)) for n in range(frames)])
    values = (values * (1 + 0.05 * torch.randn(frames, 3, 3).repeat_interleave(64, 1).repeat_interleave(64, 2))).clamp(min=0)
    return torch.stack([values, torch.ones_like(values)], dim=1)[None]


def test_light_rain_goes_on_changing_for_longer():
    past, found = growing(), {}
    for share in (0.0, 0.4):
        model = Probabilistic(ProbabilisticConfig(**MODEL), cascade_constants=CascadeConstants(error_share=share)).eval()
        model.load_state_dict(extrapolating().model.state_dict())
        with torch.no_grad():
            found[share] = model(past, 6)
    more = found[0.4] - found[0.0]
    assert torch.equal(found[0.4][:, :, 1:], found[0.0][:, :, 1:]), "heavy rain and the slopes are as they were"
    right, left = more[0, :, 0, 64:128, 128:160].mean(dim=(1, 2)), more[0, :, 0, 64:128, 32:64].mean(dim=(1, 2))
    assert (right > left).all()
    assert right[-1] > right[0]


def test_a_part_of_what_is_learnt_forecasts():
    inputs = torch.rand(1, 2, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    found = {}
    for trust in (0.25, 0.5, 1.0):
        model = make_model(model_config(config.NamedSection(**MODEL, trust=trust)))
        model.load_state_dict(shaken().model.state_dict())
        with torch.no_grad():
            found[trust] = model.eval()(inputs, 2)
            torch.testing.assert_close(model.train()(inputs, 2), found.setdefault("learnt", model(inputs, 2)))
    assert torch.equal(found["learnt"], found[1.0]), "all of it is trained"
    slope = [found[trust][:, :, 3:].log() for trust in (0.25, 0.5, 1.0)]
    free = (slope[2] > 0.01) & (slope[2] < 5.9)  # not cut off
    torch.testing.assert_close((slope[1] - slope[0])[free], (slope[2] - slope[1])[free] / 2, atol=0.01, rtol=0.05)
    assert (slope[2] - slope[0]).abs().max() > 0.05


@pytest.mark.slow
def test_training_calibrates_and_a_resumed_run_is_the_straight_one(tmp_path):
    record = write_record(tmp_path / "a.nc", rain(frames=60, shape=(40, 40), motion=(1, 1), missing=0.02))
    whole = experiment([record], steps=6)
    train_run(whole, tmp_path / "straight", resume=False, overwrite=False, device="cpu")
    train_run(experiment([record], steps=6), tmp_path / "resumed", resume=False, overwrite=False, device="cpu")
    (tmp_path / "resumed" / "last.safetensors").unlink()  # goes on from the state before
    train_run(whole, tmp_path / "resumed", resume=True, overwrite=False, device="cpu")
    found = [read_checkpoint(tmp_path / name / "last.safetensors") for name in ("straight", "resumed")]
    for name, value in found[0].tensors.items():
        assert torch.equal(value, found[1].tensors[name]), name
    best = read_checkpoint(tmp_path / "straight").tensors_of("model")
    assert best["reliability"].tolist() != [0.0, 1.0]

    start = str(tmp_path / "straight")  # what validation on a single day cannot show to be better is kept, also after a resume
    for steps in (2, 4):
        following = experiment([record], steps=steps, start_from=start)
        train_run(following, tmp_path / "following", resume=steps == 4, overwrite=False, device="cpu")
        for name in ("best.safetensors", "last.safetensors"):
            found = read_checkpoint(tmp_path / "following" / name)
            assert torch.equal(found.tensors_of("model")["reliability"], best["reliability"]), name
    assert found.metadata["started_from"]["calibrated"] == {"reliability": best["reliability"].tolist()}


@pytest.mark.parametrize(("model", "loss"), [(MODEL, {"name": "mae"}),
                                             ({"name": "encoder_forecaster"}, {"name": "exceedance"})])  # fmt: skip
def test_a_loss_that_is_not_of_what_the_model_gives_is_refused(model, loss):
    with pytest.raises(UsageError, match=r"loss.name = '\w+' takes \w+ but model.name = '\w+' gives \w+") as error:
        resolve(experiment(model=model, loss=loss))
    assert error.value.exit_code == 2


def test_what_follows_the_rain_is_exported_for_one_grid_alone(tmp_path):
    with pytest.raises(UsageError, match=r"is exported for one grid\.\nGive its rows and columns: --grid 640,710"):
        export(extrapolating(), tmp_path / "network.pt2")
    assert not (tmp_path / "network.pt2").exists()
