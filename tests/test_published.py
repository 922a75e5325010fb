"""Each published system is here by name, with its published numbers and behaviour."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import command

from nowcast import config
from nowcast.config import NamedSection
from nowcast.models import make_model, model_config, num_parameters
from nowcast.models.convgru import warp
from nowcast.netcdf import open_records
from nowcast.transform import make_transform, network_input

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import make_beams  # noqa: E402
import make_moving_mnist  # noqa: E402
import make_moving_squares  # noqa: E402
from sequence_file import write_sequences  # noqa: E402

PUBLISHED = {
    "shi2015_mmnist_fc_lstm": 142_667_776,
    "shi2015_mmnist_1layer": 13_524_496,
    "shi2015_mmnist_2layer": 10_042_896,
    "shi2015_mmnist_3layer": 7_585_296,
    "shi2015_mmnist_9x9_2layer": 11_550_224,
    "shi2015_mmnist_9x9_3layer": 8_830_480,
    "keras_next_frame": 746_689,
    "keras_moving_squares": 407_001,
    "beams": 152_360,
}
UNIT = make_transform(NamedSection(name="linear"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def beams(tmp_path):
    path = tmp_path / "beams.nc"
    write_sequences(path, make_beams.sequences(100, 0), title="beams", source="test")
    return path


def from_config(name):
    torch.manual_seed(0)
    return make_model(model_config(config.read(ROOT / "configs" / f"{name}.toml").model))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        assert num_parameters(from_config(name)) == PUBLISHED[name]


def test_the_contrasts_are_as_large_as_the_quickstart():
    convlstm = num_parameters(from_config("quickstart"))
    for name in ("cnn_lstm", "many_to_many"):
        assert num_parameters(from_config(name)) == pytest.approx(convlstm, rel=0.05)


def test_the_exact_beam_and_the_scores_of_doing_nothing(beams):
    exact = make_beams.beam()
    rows, columns = np.nonzero(exact[5])
    assert exact.shape == (6, 24, 24)
    assert 6 <= rows.min() <= rows.max() <= 15
    assert 10 <= columns.min() <= columns.max() <= 19
    (record,) = open_records([beams], variable="intensity")
    frames = record.read(range(600)).reshape(100, 6, 24, 24)
    np.testing.assert_array_equal(frames[0], exact)
    # the published .00863 and .0178 rest on other draws of the 99 shifts
    assert (frames[:, 5] ** 2).mean() == pytest.approx(0.00863, rel=0.1)
    assert ((frames[:, 5] - frames[:, 4]) ** 2).mean() == pytest.approx(0.0178, rel=0.1)


def test_the_small_beams_are_learnt_within_fifty_epochs(beams, tmp_path):
    words = ("train", ROOT / "configs" / "beams_small.toml", "--data", beams, "--output", tmp_path / "run", "-q")
    assert command(*words)[0] == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {event["step"]: event["loss"] for event in events}
    assert losses[50] < 0.002
    assert losses[1] > 0.006


def test_a_quantity_that_is_not_rain_goes_the_whole_way(beams, tmp_path):
    """Trained, forecast and scored by the commands that rain uses; the variable's name is remembered."""
    run, short = tmp_path / "run", ("--set", "training.epochs=2")
    assert command("train", ROOT / "configs" / "beams_small.toml", "--data", beams, "--output", run, *short, "-q")[0] == 0
    assert command("predict", run, beams, "--output", tmp_path / "f.nc", "-q")[0] == 0
    code, out, _ = command("evaluate", run, "--observations", beams, "--format", "json", "-q")
    assert code == 0
    assert json.loads(out)["quantity"] == "dimensionless"
    assert json.loads(out)["num_cases"] > 0


def still(model, frames, leads):
    with torch.no_grad():
        return model.eval()(network_input(frames, UNIT), leads)


def shift_error(model, size, cells):
    """The largest change of a forecast, against its own shift, away from the borders, over the forecast's spread."""
    frames = torch.zeros(1, 4, size, size)
    frames[..., 26:38, 26:38] = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(0))
    forecast, moved = still(model, frames, 2), still(model, torch.roll(frames, (cells, cells), (-2, -1)), 2)
    inner = slice(24, 40)
    a = torch.roll(forecast, (cells, cells), (-2, -1))[..., inner, inner]
    return float((moved[..., inner, inner] - a).abs().max() / forecast[..., inner, inner].std())


def test_a_shifted_input_shifts_the_forecast_of_a_convlstm_and_not_of_a_cnn_lstm():
    torch.manual_seed(0)
    keys = {"hidden_channels": [8, 8], "kernel_sizes": [3, 3], "patch": 1}
    convlstm = make_model(model_config(NamedSection(name="encoder_forecaster", **keys)))
    assert shift_error(convlstm, 64, 3) < 1e-4
    assert shift_error(from_config("cnn_lstm"), 64, 3) > 0.1


def test_convlstm_weights_run_on_another_grid_and_cnn_lstm_weights_do_not():
    assert still(from_config("quickstart"), torch.rand(1, 4, 80, 48), 2).shape == (1, 2, 80, 48)
    with pytest.raises(RuntimeError):
        still(from_config("cnn_lstm"), torch.rand(1, 4, 80, 48), 2)


def next_frame(**keys):
    torch.manual_seed(0)
    small = {"hidden_channels": [4, 4], "kernel_sizes": [3, 3]}
    return make_model(model_config(NamedSection(name="next_frame", **small | keys)))


def test_a_next_frame_forecast_never_sees_the_frame_it_forecasts():
    model, window = next_frame().eval(), network_input(torch.rand(1, 8, 9, 9), UNIT)
    with torch.no_grad():
        first, _ = model._run(window, None)
        changed = window.clone()
        changed[:, 5] = 0
        second, _ = model._run(changed, None)
    # output n is the forecast of frame n + 1 from frames 0 to n
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5], second[:, 5])


def test_scheduled_sampling_goes_from_true_frames_to_own_ones():
    keys = {"batch_norm": False, "activation": "tanh", "output": "linear"}
    sampled, forced = next_frame(scheduled_sampling=0.5, **keys), next_frame(**keys)
    forced.load_state_dict(sampled.state_dict())
    past, future = (network_input(torch.rand(2, n, 9, 9), UNIT) for n in (3, 4))
    with torch.no_grad():
        torch.testing.assert_close(sampled(past, 4, future=future, done=0.0), forced(past, 4, future=future))
        own = sampled(past, 4, future=future, done=0.5)[:, -4:]
        torch.testing.assert_close(own, sampled(past, 4))
        torch.testing.assert_close(own, sampled(past, 4, future=torch.zeros_like(future), done=1.0)[:, -4:])


def test_warping_by_no_flow_is_the_field_and_by_whole_cells_its_shift():
    field = torch.rand(1, 2, 6, 7)
    torch.testing.assert_close(warp(field, torch.zeros(1, 2, 6, 7)), field, rtol=1e-5, atol=1e-5)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    torch.testing.assert_close(warp(field, flow)[..., :4, 1:], field[..., 2:, :6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rules", make_moving_mnist.RULES)
def test_digits_stay_in_the_frame_and_keep_their_speed_between_walls(rules):
    rng = np.random.default_rng(0)
    for _ in range(200):
        corners = make_moving_mnist.RULES[rules](rng)
        assert corners.min() >= 0
        assert corners.max() <= make_moving_mnist.ROOM
        steps = np.hypot(*np.diff(corners, axis=0).T)
        free = np.median(steps)
        assert (steps <= free + 1e-9).sum() >= 10
        assert 3 <= steps.max() < 5 if rules == "2015" else steps.max() == pytest.approx(3.6)


def test_moving_mnist_has_the_published_error_of_saying_nothing(shared, tmp_path):
    digits = make_moving_mnist.read_digits(shared / "mnist", "test")
    frames = np.stack(list(make_moving_mnist.sequences(digits, 300, "fixed", 0)))[:, 10:]
    assert (frames**2).sum((2, 3)).mean() == pytest.approx(173.9, rel=0.03)
    assert frames.sum((2, 3)).mean() == pytest.approx(202.0, rel=0.03)
    training, validation = (make_moving_mnist.read_digits(shared / "mnist", name) for name in ("training", "validation"))
    assert (len(training), len(validation), len(digits)) == (50_000, 10_000, 10_000)


def test_squares_lie_in_the_unit_interval_and_move(tmp_path):
    path = tmp_path / "squares.nc"
    write_sequences(path, make_moving_squares.sequences(4, 0, noise=True), title="squares", source="test")
    (record,) = open_records([path], variable="intensity")
    frames = record.read(range(60)).reshape(4, 15, 40, 40)
    assert frames.min() >= 0
    assert frames.max() == 1
    assert (frames[:, 0] != frames[:, -1]).any(axis=(1, 2)).all()
    np.testing.assert_allclose(frames, np.stack(list(make_moving_squares.sequences(4, 0, noise=True))), atol=1 / 255)
