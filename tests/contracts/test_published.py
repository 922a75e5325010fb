"""The published systems: their sizes, what sets them apart from each other, and figures that a test can reach."""

import gzip
import importlib
import json
import sys
from types import SimpleNamespace

import netCDF4
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from makers import ROOT, command, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.config.schema import NamedSection
from nowcast.models import make_model, model_config, num_parameters
from nowcast.models.convgru import TrajGRU, warp
from nowcast.training.run_folder import METRICS

CONFIGS = ROOT / "configs"

import make_beams  # noqa: E402
import make_moving_mnist  # noqa: E402
from sequence_file import write_sequences  # noqa: E402

pytestmark = pytest.mark.usefixtures("cache")


def model(name, **keys):
    torch.manual_seed(0)
    return make_model(model_config(NamedSection(name=name, **keys)))


def frames(*shape, seed=0):
    """(case, time, 2, y, x) of random values, all known."""
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.stack([values, torch.ones_like(values)], dim=2)


def beams(path, number=100, seed=0):
    write_sequences(path, make_beams.sequences(number, seed), title="Moving beams", source="test")
    return path


# ---- sizes

SIZES = {
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


@pytest.mark.parametrize(("name", "published"), SIZES.items())
def test_a_config_has_the_published_number_of_parameters(name, published):
    with torch.device("meta"):
        built = make_model(model_config(config.read(CONFIGS / f"{name}.toml").model))
    assert num_parameters(built) == published


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shi2015_mmnist_3layer", "beams"])
def test_a_dry_run_shows_the_published_number_of_parameters(name, tmp_path):
    size = 24 if name == "beams" else 64
    record, made = tmp_path / "made.nc", np.random.default_rng(0).random((3, 4, size, size))
    write_sequences(record, iter(made), title="", source="")
    # the memory of a step is measured, which is not looked at here: of one case and few frames
    keys = ("training.batch_size=1", "data.input_frames=2", "data.lead_frames=2",
            "data.splits.by=fractions", "data.splits.fractions=[1.0, 0.0, 0.0]")  # fmt: skip
    few = [word for key in keys for word in ("--set", key)]
    code, out, err = command("train", CONFIGS / f"{name}.toml", "--data", record, "--dry-run", "--format", "json", "-q", *few)
    assert code == 0, err
    assert json.loads(out)["num_parameters"] == SIZES[name]


def test_the_contrasts_are_as_large_as_the_synthetic_recipe_within_five_percent():
    sizes = {}
    for name in ("synthetic", "cnn_lstm", "many_to_many"):
        sizes[name] = num_parameters(make_model(model_config(config.read(CONFIGS / f"{name}.toml").model)))
    assert sizes["cnn_lstm"] == pytest.approx(sizes["synthetic"], rel=0.05)
    assert sizes["many_to_many"] == pytest.approx(sizes["synthetic"], rel=0.05)


# ---- beams


def test_the_first_target_lies_where_it_was_published_to_lie():
    rows, columns = np.nonzero(make_beams.beam()[5])
    assert (len(rows), rows.min() >= 6, rows.max() <= 15) == (6, True, True)
    assert (columns.min() >= 10, columns.max() <= 19) == (True, True)


def test_what_no_network_scores_on_the_beams_is_what_was_published():
    """The mean of many draws: one of 100 sequences is some 3 % off."""
    sequences = np.stack(list(make_beams.sequences(2000, 0)))
    assert np.square(sequences[:, 5]).mean() == pytest.approx(0.00863, rel=0.02)
    assert np.square(sequences[:, 5] - sequences[:, 4]).mean() == pytest.approx(0.0178, rel=0.02)


@pytest.mark.slow
def test_the_small_beams_are_learnt_by_epoch_50(tmp_path):
    """Also where there are 40 instead of the published 100, in a batch of all; the validation is not looked at."""
    records = json.dumps([str(beams(tmp_path / "beams.nc", 40))])
    settings = ["training.batch_size=40", "training.validation_cases=1"]
    experiment = config.read(CONFIGS / "beams_small.toml", [f"data.records={records}", *settings])
    train_run(experiment, tmp_path / "run", resume=False, overwrite=False, device="cpu")
    events = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    losses = {event["step"]: event["loss"] for event in events if event["split"] == "training"}
    assert losses[1] > 0.006
    assert losses[50] < 0.002


# ---- a ConvLSTM moves its forecast with its input; vectors do not


def shift_error(network, *, shift, grid=40, margin=14):
    """A blob moves down the grid, and again `shift` cells further down and right. How far the second response is from the
    first one moved: the largest difference, and the root mean square of it relative to that of the response itself.
    """
    rows, columns = torch.meshgrid(torch.arange(grid + shift), torch.arange(grid + shift), indexing="ij")
    blob = torch.stack([torch.exp(-((rows - 18 - t - shift) ** 2 + (columns - 20 - shift) ** 2) / 18) for t in range(3)])

    def response(first):
        values = blob[None, :, first : first + grid, first : first + grid]
        forecast, without = (network(torch.stack([v, torch.ones_like(v)], dim=2), 2) for v in (values, 0 * values))
        return forecast - without

    with torch.no_grad():
        here, moved = response(shift)[..., margin:-margin, margin:-margin], response(0)
    apart = moved[..., margin + shift : grid - margin + shift, margin + shift : grid - margin + shift] - here
    return float(apart.abs().max()), float(apart.square().mean().sqrt() / here.square().mean().sqrt())


@pytest.mark.parametrize("shift", [1, 3, 4])
def test_a_convlstm_forecast_moves_with_its_input_and_that_of_vectors_does_not(shift):
    largest, _ = shift_error(model("encoder_forecaster", hidden_channels=[6, 5], kernel_sizes=[3, 3], patch=1), shift=shift)
    assert largest < 1e-5
    _, relative = shift_error(model("cnn_lstm", grid=[40, 40], channels=[4, 6, 4], hidden=24), shift=shift)
    assert relative > 0.5


@pytest.mark.slow
def test_convlstm_weights_run_on_another_grid_and_those_of_vectors_are_refused(tmp_path):
    trained = write_record(tmp_path / "trained.nc", rain(frames=30, shape=(16, 16)))
    other = write_record(tmp_path / "other.nc", rain(frames=4, shape=(20, 24)))
    vectors = {"name": "cnn_lstm", "grid": [16, 16], "channels": [3, 4], "hidden": 5}
    convlstm = {"name": "encoder_forecaster", "hidden_channels": [4], "kernel_sizes": [3], "patch": 2}
    said = {}
    for keys in (vectors, convlstm):
        experiment = tiny_experiment([trained], steps=1).model_copy(update={"model": NamedSection(**keys)})
        run = tmp_path / keys["name"]
        train_run(experiment, run, resume=False, overwrite=False, device="cpu")
        said[run.name] = command("predict", run, other, "--output", tmp_path / f"{run.name}.nc", "-q")
    code, out, err = said["cnn_lstm"]
    assert (code, out) == (3, "")
    assert err == "error: other has a grid of 20 × 24 cells; 'cnn_lstm' is made for 16 × 16 alone\n"
    assert said["encoder_forecaster"][0] == 0
    with netCDF4.Dataset(tmp_path / "encoder_forecaster.nc") as file:
        assert file["precip_intensity"].shape == (3, 20, 24)


# ---- stacks that forecast the next frame

STACKS = {
    "keras": {"head": "conv3d", "activation": "relu", "output": "sigmoid"},
    "openstl": {"head": "conv2d", "head_kernel": 1, "activation": "tanh", "output": "linear", "patch": 2},
    "beams": {"head": "hidden", "hidden_channels": [4, 1], "activation": "tanh", "output": "linear", "patch": 1},
}


def stack(kind, **keys):
    common = {"hidden_channels": [4, 4], "kernel_sizes": [3, 3], "batch_norm": False, "validity_channel": False}
    return model("next_frame", **common | STACKS[kind] | keys)


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("changed", [1, 4, 7])
def test_with_teacher_forcing_a_forecast_depends_on_earlier_frames_only(kind, changed):
    window = frames(2, 9, 8, 8)
    other = window.clone()
    other[:, changed, 0] = 1 - other[:, changed, 0]
    network = stack(kind)
    first, second = (network(w[:, :5], 4, future=w[:, 5:]) for w in (window, other))
    assert first.shape == (2, 8, 8, 8)  # of frames 1 to 8
    assert torch.equal(first[:, :changed], second[:, :changed])
    assert not torch.equal(first[:, changed], second[:, changed])  # of the frame after the changed one


def test_a_normalised_stack_in_evaluation_mode_depends_on_earlier_frames_only():
    """While it trains, batch normalisation takes its means over all frames; in use it has them."""
    network, window = stack("keras", batch_norm=True).eval(), frames(1, 8, 9, 9)
    other = window.clone()
    other[:, 5, 0] = 0
    (first, _), (second, _) = (network.one_step_ahead(w, None) for w in (window, other))
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5], second[:, 5])


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_rollout_never_reads_the_truth(kind, batch_norm):
    network = stack(kind, batch_norm=batch_norm).eval()
    past = frames(2, 4, 8, 8)
    alone = network(past, 3)
    assert torch.equal(network(past, 3, future=frames(2, 3, 8, 8, seed=1)), alone)
    taught_by_its_rollout = stack(kind, supervise="future")
    assert torch.equal(taught_by_its_rollout(past, 3, future=frames(2, 3, 8, 8, seed=1)), taught_by_its_rollout(past, 3))


@pytest.mark.parametrize("kind", STACKS)
def test_a_rollout_is_the_taught_forecast_of_its_own_frames(kind):
    network = stack(kind)
    past = frames(2, 4, 8, 8)
    own = network(past, 3)
    future = torch.stack([own, torch.ones_like(own)], dim=2)
    torch.testing.assert_close(network(past, 3, future=future)[:, 3:], own)


@pytest.mark.parametrize("kind", STACKS)
def test_scheduled_sampling_goes_from_true_frames_to_own_frames(kind):
    past, future = frames(2, 4, 8, 8), frames(2, 3, 8, 8, seed=1)
    scheduled, taught = stack(kind, scheduled_sampling=0.4), stack(kind)
    true = taught(past, 3, future=future)
    torch.testing.assert_close(scheduled(past, 3, future=future, done=0.0), true)
    for done in (0.4, 1.0):
        forecast = scheduled(past, 3, future=future, done=done)
        torch.testing.assert_close(forecast[:, :4], true[:, :4])  # frames of the past are always true ones
        torch.testing.assert_close(forecast[:, 3:], taught(past, 3))


def test_on_the_way_each_case_draws_its_frames_by_the_share_that_is_done():
    past, future = frames(600, 2, 2, 2), frames(600, 2, 2, 2, seed=1)
    scheduled, taught = stack("beams", scheduled_sampling=0.5), stack("beams")
    forecast = scheduled(past, 2, future=future, done=0.1)[:, -1]  # after one frame that is true or the network's own
    is_own = (forecast - taught(past, 2)[:, -1]).abs().amax(dim=(1, 2)) < 1e-6
    is_true = (forecast - taught(past, 2, future=future)[:, -1]).abs().amax(dim=(1, 2)) < 1e-6
    assert (is_own ^ is_true).all()
    assert float(is_own.float().mean()) == pytest.approx(0.2, abs=0.06)


def test_plateaus_and_early_stopping_mean_what_they_mean_in_keras(monkeypatch):
    """Keras's own callbacks as the oracle, over losses that fall, stall and rise."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    from nowcast.training.optimizer import learning_rate
    from nowcast.training.state import TrainingState

    rng = np.random.default_rng(0)
    settings = config.Training(epochs=1, learning_rate=1e-3, schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    num_cuts = num_stops = 0
    for _ in range(30):
        losses = np.round(1 + np.cumsum(rng.choice([-0.1, -5e-5, 0, 0.05], 20)), 6).tolist()
        state, stub = TrainingState(), SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1e-3), stop_training=False)
        plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2, min_delta=1e-4)
        stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=4)
        for callback in (plateau, stopping):
            callback.set_model(stub)
            callback.on_train_begin()
        for epoch, loss in enumerate(losses):
            for callback in (plateau, stopping):
                callback.on_epoch_end(epoch, {"loss": loss})
            state.step = epoch + 1
            state.judge(loss, patience=2, delta=1e-4)
            rate = learning_rate(epoch, 20, settings, num_plateaus=state.num_plateaus)
            assert rate == pytest.approx(float(stub.optimizer.learning_rate))
            assert (state.validations_since_best >= 4) == stub.stop_training
            if stub.stop_training:
                break
        num_cuts, num_stops = num_cuts + state.num_plateaus, num_stops + stub.stop_training
    assert num_cuts > 10
    assert 5 < num_stops < 30


# ---- the blank-padded stack


@pytest.mark.parametrize("leads", [1, 3])
def test_blank_frames_follow_the_past_and_their_outputs_are_the_forecast(leads):
    network = model("many_to_many", hidden_channels=[4, 4], kernel_sizes=[3, 3])
    seen = []
    network.stack.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    features = []
    network.stack.register_forward_hook(lambda *values: features.append(values[2][0]))
    past = frames(2, 4, 6, 7)
    forecast = network(past, leads)
    assert forecast.shape == (2, leads, 6, 7)
    assert seen[0].shape == (2, 4 + leads, 2, 6, 7)
    assert torch.equal(seen[0][:, :4], past)
    assert not seen[0][:, 4:].any()  # value 0 and validity 0: not the same as dry, which has validity 1
    assert features[0].shape[1] == 4 + leads
    by_cell = network.head(features[0][:, 4:].transpose(1, 2))[:, 0]
    torch.testing.assert_close(forecast, by_cell)


# ---- TrajGRU's flows


def test_a_flow_of_zero_reads_a_field_where_it_is():
    field = torch.randn(2, 3, 7, 9)
    torch.testing.assert_close(warp(field, torch.zeros(2, 1, 2, 7, 9))[:, :, 0], field)


@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (2, 0), (-1, -3), (3, -2)])
def test_a_flow_of_whole_cells_reads_that_many_cells_away_and_zero_outside(dy, dx):
    field = torch.randn(1, 2, 7, 9)
    flows = torch.tensor([[dx, dy], [dy, dx]], dtype=torch.float32).view(1, 2, 2, 1, 1).expand(1, 2, 2, 7, 9)
    expected = torch.zeros_like(field)
    for y in range(7):
        for x in range(9):
            if 0 <= y + dy < 7 and 0 <= x + dx < 9:
                expected[..., y, x] = field[..., y + dy, x + dx]
    read = warp(field, flows)  # along two flows; the first one does not change what is read along the second
    assert read.shape == (1, 2, 2, 7, 9)
    torch.testing.assert_close(read[:, :, 1], expected, rtol=1e-4, atol=1e-5)


def test_all_links_are_read_in_one_call_so_that_an_exported_network_stays_small(monkeypatch):
    calls, read = [], F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *given, **keys: calls.append(given) or read(*given, **keys))
    torch.manual_seed(0)
    layer, hidden, frame = TrajGRU(3, 4, 3, links=5), torch.randn(2, 4, 7, 9), torch.randn(2, 3, 7, 9)
    found = layer.look_back(frame, hidden)
    assert len(calls) == 1
    flows = layer.flows(F.leaky_relu(layer.flow_from_state(hidden) + layer.flow_from_input(frame), 0.2))
    one_by_one = [warp(hidden, flow[:, None])[:, :, 0] for flow in flows.split(2, dim=1)]
    torch.testing.assert_close(found, layer.from_state(torch.cat(one_by_one, dim=1)))  # weights are link by link


# ---- a quantity that is no rain


@pytest.mark.slow
def test_what_is_no_rain_trains_forecasts_and_is_scored_with_the_same_commands(tmp_path):
    record, run = beams(tmp_path / "beams.nc", 12), tmp_path / "run"
    changes = ["model.hidden_channels=[4, 1]", "training.epochs=2", "data.splits.fractions=[0.5, 0.5, 0]"]
    setting = [word for change in changes for word in ("--set", change)]
    code, out, err = command("train", CONFIGS / "beams_small.toml", "--data", record, *setting, "--output", run, "-q")
    assert code == 0, err
    code, out, err = command("predict", run, record, "--output", tmp_path / "forecast.nc", "-q")
    assert code == 0, err
    with netCDF4.Dataset(tmp_path / "forecast.nc") as file:
        assert file["value"].units == "1"
        assert "standard_name" not in file["value"].ncattrs()
        assert file["value"].shape == (1, 24, 24)
        assert ((file["value"][:] >= 0) & (file["value"][:] <= 1)).all()
    code, out, err = command("evaluate", run, "--observations", record, "--format", "json", "-q")
    assert code == 0, err
    scored = json.loads(out)["scores"]
    assert {"run", "persistence", "extrapolation"} <= {row["forecaster"] for row in scored}
    assert {row["threshold"] for row in scored if row["score"] == "csi"} == {0.5}


# ---- Moving MNIST


@pytest.mark.slow
def test_moving_mnist_has_the_published_error_of_saying_nothing(shared):
    digits = make_moving_mnist.read_digits(shared / "mnist", "test")
    made = np.stack(list(make_moving_mnist.sequences(digits, 300, "fixed", 0)))[:, 10:]
    assert (made**2).sum((2, 3)).mean() == pytest.approx(173.9, rel=0.03)
    assert made.sum((2, 3)).mean() == pytest.approx(202.0, rel=0.03)


# ---- the table of 2015


@pytest.mark.slow
def test_the_script_of_the_2015_table_counts_nats_as_the_paper_does_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """With digits made up, a network of a few weights and a few sequences."""
    digits = tmp_path / "mnist"
    digits.mkdir()
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 8:20, 8:20] = 200
        content = gzip.compress(b"\0" * 16 + images.tobytes(), compresslevel=1)
        (digits / f"{name}-images-idx3-ubyte.gz").write_bytes(content)
    script = importlib.import_module("shi2015")
    words = ["shi2015.py", "--work", tmp_path / "work", "--digits", digits, "--sequences", 10, "--device", "cpu"]
    words += ["--set", "model.hidden_channels=[2, 2, 2]", "--set", "training.batch_size=2", "--steps"]
    tables = []
    for steps in (2, 3):
        monkeypatch.setattr(sys, "argv", [str(word) for word in [*words, steps]])
        script.main()
        tables.append(_cells(capsys.readouterr().out))
    assert [table["shi2015_mmnist_3layer"][2] for table in tables] == ["2 of 2", "3 of 3"]
    assert tables[0]["shi2015_mmnist_3layer"][-1] == "3670.85"

    test = np.stack(list(make_moving_mnist.sequences(make_moving_mnist.read_digits(digits, "test"), 3, "2015", 2)))
    observed = torch.from_numpy(test[:, 10:].reshape(3, -1))
    grey = torch.where((observed > 0) & (observed < 1), observed, 0.5)
    entropy = -(grey * grey.log() + (1 - grey) * (1 - grey).log())
    perfect = float(torch.where((observed > 0) & (observed < 1), entropy, 0.0).sum(dim=1).mean())
    constant = observed.mean()
    mean = float(-(constant * constant.log() + (1 - constant) * (1 - constant).log()) * 10 * 64 * 64)
    assert float(tables[0]["perfect"][4]) == pytest.approx(perfect, abs=0.01)
    assert float(tables[0]["mean"][4]) == pytest.approx(mean, abs=0.01)
    network = script.open_forecaster(
        str(tmp_path / "work" / "10_sequences" / "shi2015_mmnist_3layer"), device=torch.device("cpu")
    )
    forecast = torch.from_numpy(network.forecast(test[:, :10], 10)).reshape(3, -1).double()
    loss = torch.nn.functional.binary_cross_entropy(forecast, observed, reduction="sum") / 3
    assert float(tables[1]["shi2015_mmnist_3layer"][4]) == pytest.approx(float(loss), rel=1e-5)


def _cells(printed):
    """Rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line.startswith("|")]
    return {row[0]: row for row in rows}
