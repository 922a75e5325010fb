"""Training learns, stops as it is told, loses nothing, and a resumed run is the straight run."""

import json
import math
import os
import re
import signal

import numpy as np
import pytest
import torch
from makers import rain, tiny_experiment, write_record

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.dataset.archive import open_archive
from nowcast.dataset.batches import Batch, Batches
from nowcast.errors import CheckpointError, DataError, DivergenceError, OutputError, Stopped, UsageError
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint, write_checkpoint
from nowcast.training import run_folder
from nowcast.training.experiment import resolve
from nowcast.training.learner import Learner
from nowcast.training.optimizer import Average, learning_rate, optimizer_tensors
from nowcast.training.run_folder import CONFIG, LOG, METRICS, PICTURE
from nowcast.training.state import TrainingState
from nowcast.training.trainer import Trainer

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]


@pytest.fixture
def record(tmp_path):
    return write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))


def run(experiment, output, *, resume=False, overwrite=False):
    return train_run(experiment, output, resume=resume, overwrite=overwrite, device="cpu")


def trainer(experiment, output):
    output.mkdir(exist_ok=True)
    made = Trainer(Learner(experiment, torch.device("cpu")), open_archive(experiment.data), output)
    made.prepare_data()
    return made


def events(output, split):
    lines = (output / METRICS).read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["split"] == split]


def test_a_run_leaves_the_whole_run_folder(record, tmp_path, drawn):
    result = run(tiny_experiment([record]), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {BEST, LAST, PREVIOUS, CONFIG, METRICS, "metrics.csv", LOG, PICTURE}
    assert "best at step" in result
    assert (tmp_path / "run" / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run" / PICTURE).stat().st_size > 10_000
    assert config.read(tmp_path / "run" / CONFIG) == resolve(tiny_experiment([record]))
    training_validation = events(tmp_path / "run", "validation")
    assert [event["step"] for event in training_validation] == [0, 3, 6]
    baselines = {f"{name}_{score}" for name in ("persistence", "extrapolation") for score in ("csi", "mae")}
    assert set(training_validation[1]) == {"step", "split", "loss", "csi", "mae", "unit"} | baselines
    assert [event["step"] for event in events(tmp_path / "run", "training")] == [3, 6]
    assert set(events(tmp_path / "run", "training")[0]) >= {"loss", "learning_rate", "windows_per_second", "waiting_share"}


def test_a_validation_takes_whole_batches(record, tmp_path):
    """As configs/README.md says: of 3 cases in batches of 2 there are 4, the same as where 4 are asked for."""
    losses = []
    for cases in (2, 3, 4):
        run(tiny_experiment([record], steps=1, validation_cases=cases), tmp_path / str(cases))
        losses.append([event["loss"] for event in events(tmp_path / str(cases), "validation")])
    assert losses[1] == losses[2] != losses[0]


def test_a_run_tells_what_training_is_worth(record, tmp_path, caplog):
    """The scores before the first step and those of the baselines stand beside each validation, also in a resumed run."""
    caplog.set_level("INFO", logger="nowcast")
    run(tiny_experiment([record], steps=3), tmp_path / "run")
    run(tiny_experiment([record], steps=6), tmp_path / "run", resume=True)
    first, *later = events(tmp_path / "run", "validation")
    assert (first["step"], first["weights"], first["unit"]) == (0, "untrained", "mm/h")
    told = [line for line in (tmp_path / "run" / LOG).read_text().splitlines() if "validation loss" in line]
    assert f"step 0, untrained: validation loss {first['loss']:.5g}, {scores(first, ())}" in told[0]
    for event, line in zip(later, told[1:], strict=True):
        assert f"step {event['step']}: validation loss {event['loss']:.5g}, {scores(event, [first])}" in line


def scores(event, before):
    """As the log tells the scores of a validation, beside those of the events `before`."""
    names = ("extrapolation", "persistence")
    csi = [("untrained", e["csi"]) for e in before] + [(name, event[f"{name}_csi"]) for name in names]
    mae = [("untrained", e["mae"]) for e in before] + [(name, event[f"{name}_mae"]) for name in names]
    beside_csi = ", ".join(f"{name} {value['1']:.3f}" for name, value in csi)
    beside_mae = ", ".join(f"{name} {value:.3f}" for name, value in mae)
    return f"CSI at 1: {event['csi']['1']:.3f} ({beside_csi}), MAE {event['mae']:.3f} ({beside_mae})"


def test_a_network_that_training_makes_worse_is_not_kept(record, tmp_path):
    result = run(tiny_experiment([record], optimizer="sgd", learning_rate=100.0, ema=0.0), tmp_path / "run")
    first, *later = events(tmp_path / "run", "validation")
    assert min(event["loss"] for event in later) > first["loss"]
    assert result.endswith("(best at step 0 of 6: training did not lower the validation loss of untrained)")
    kept = read_checkpoint(tmp_path / "run" / BEST)
    assert kept.metadata["step"] == 0
    untrained = Learner(tiny_experiment([record]), torch.device("cpu")).model.state_dict()
    for name, weight in kept.tensors_of("model").items():
        assert torch.equal(weight, untrained[name]), name


def test_the_checkpoint_describes_itself(record, tmp_path):
    run(tiny_experiment([record]), tmp_path / "run")
    facts = read_checkpoint(tmp_path / "run").metadata
    assert facts["input_frames"] == 2
    assert facts["lead_frames"] == 3
    assert facts["time_steps"] == [300]
    assert facts["units"] == "mm h-1"
    assert facts["quantity"] == "rain_rate"
    assert facts["spacing_km"] == [[1.0, 1.0]]
    assert facts["spans"]["training"][0][0] == "rain"
    assert facts["config"]["model"]["hidden_channels"] == [4]


def test_training_learns(record, tmp_path):
    experiment = tiny_experiment([record], steps=60, validate_every=20, batch_size=4, learning_rate=3e-2)
    model = config.NamedSection(name="encoder_forecaster", hidden_channels=[8], kernel_sizes=[3], patch=2)
    run(experiment.model_copy(update={"model": model}), tmp_path / "run")
    losses = [event["loss"] for event in events(tmp_path / "run", "validation")]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_resumed_run_equals_a_straight_one(record, tmp_path, stop_at):
    experiment = tiny_experiment([record])
    run(experiment, tmp_path / "straight")
    first = trainer(experiment, tmp_path / "resumed")
    apply = first.learner.apply_gradients

    def apply_then_signal(step, **rate):
        apply(step, **rate)
        if step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    first.learner.apply_gradients = apply_then_signal
    with pytest.raises(Stopped, match=f"stopped at step {stop_at}, state saved; --resume") as stopped:
        first.run()
    assert stopped.value.exit_code == 143
    run(experiment, tmp_path / "resumed", resume=True)
    straight, resumed = (read_checkpoint(tmp_path / name / LAST) for name in ("straight", "resumed"))
    assert set(straight.tensors) == set(resumed.tensors)
    for name, tensor in straight.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    assert straight.metadata == resumed.metadata
    assert [e["loss"] for e in events(tmp_path / "straight", "validation")] == [
        e["loss"] for e in events(tmp_path / "resumed", "validation")
    ]


def test_a_finished_run_has_nothing_to_resume(record, tmp_path):
    experiment = tiny_experiment([record])
    run(experiment, tmp_path / "run")
    before = (tmp_path / "run" / LAST).read_bytes()
    assert "is already trained to its last step, 6" in run(experiment, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / LAST).read_bytes() == before


def test_resuming_falls_back_to_the_previous_checkpoint(record, tmp_path, caplog):
    experiment = tiny_experiment([record])
    run(experiment, tmp_path / "run")
    content = bytearray((tmp_path / "run" / LAST).read_bytes())
    content[-1] ^= 1
    (tmp_path / "run" / LAST).write_bytes(content)
    checkpoint = run_folder.resumable(tmp_path / "run")
    assert checkpoint.metadata["step"] == 6
    assert checkpoint.metadata["state"]["validated_step"] == 3  # saved before the last validation
    assert "is damaged" in caplog.text
    assert "going on from previous.safetensors" in caplog.text


def test_resuming_nothing_or_another_model_is_a_checkpoint_error(record, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no last\.safetensors to resume from"):
        run(tiny_experiment([record]), tmp_path / "run", resume=True)
    run(tiny_experiment([record]), tmp_path / "run")
    other = tiny_experiment([record]).model_copy(
        update={"model": config.NamedSection(name="encoder_forecaster", hidden_channels=[5], kernel_sizes=[3])}
    )
    with pytest.raises(CheckpointError, match=r"model\.hidden_channels = \[5\] \(before: \[4\]\), model\.patch"):
        run(other, tmp_path / "run", resume=True)


def test_a_run_is_not_overwritten_unasked(record, tmp_path):
    experiment = tiny_experiment([record])
    run(experiment, tmp_path / "run")
    before = (tmp_path / "run" / BEST).read_bytes()
    with pytest.raises(OutputError, match="already holds a run: --resume continues it, --overwrite replaces it"):
        run(experiment, tmp_path / "run")
    assert (tmp_path / "run" / BEST).read_bytes() == before
    run(tiny_experiment([record], seed=5), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / BEST).read_bytes() != before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_before_the_update(record, tmp_path, value):
    made = trainer(tiny_experiment([record]), tmp_path / "run")
    model = made.learner.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made.learner.loss_sum = lambda batch, **_: (sum(p.sum() for p in model.parameters()) * value, torch.ones(()))
    with pytest.raises(DivergenceError, match=r"diverged at step 1: loss .*, cases rain at frame \d+") as caught:
        made.run()
    assert caught.value.exit_code == 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_step_that_is_read_later_is_named_and_nothing_after_it_is_saved(record, tmp_path):
    made = trainer(tiny_experiment([record], validate_every=3), tmp_path / "run")
    made.most_unread, loss_sum = 1, made.learner.loss_sum  # as on a GPU

    def poisoned(batch, **progress):
        loss, count = loss_sum(batch, **progress)
        return loss * (math.nan if made.state.step == 5 else 1), count

    made.learner.loss_sum = poisoned
    with pytest.raises(DivergenceError, match="diverged at step 6: loss nan"):
        made.run()
    assert made.state.step == 6
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == 3


@pytest.mark.parametrize(("rate", "warned"), [(0.0999, True), (0.1, False)])
def test_windows_without_rain_are_told(tmp_path, caplog, rate, warned):
    fields = rain(frames=40, shape=(24, 28))
    fields[:24] = 0
    fields[3, 5, 5] = rate
    trainer(tiny_experiment([write_record(tmp_path / "rain.nc", fields)]), tmp_path / "run")
    said = "the training windows have no cell of 0.1 mm/h or more: nothing can be learnt from them"
    assert (said in caplog.text) == warned
    assert "the validation windows have no" not in caplog.text


@pytest.mark.parametrize(
    ("coordinates", "limit", "read"), [("lagrangian", 1 << 28, 1), ("lagrangian", 0, 3), ("grid", 1 << 28, 3)]
)
def test_validation_finds_the_motion_of_its_cases_once(record, tmp_path, monkeypatch, coordinates, limit, read):
    tree = config.as_dict(tiny_experiment([record], validation_cases=4, batch_size=2))
    tree["data"]["coordinates"] = coordinates
    made, asked = trainer(config.from_dict(tree, source="test"), tmp_path / "run"), []
    made.validation_batches.most_bytes = limit
    read_batch = Batches.__getitem__
    monkeypatch.setattr(Batches, "__getitem__", lambda self, k: asked.append(k) or read_batch(self, k))
    found = [made.learner.validate(made.validation_batches, 2, made.baselines) for _ in range(3)]
    assert len(asked) == 2 * read
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("works", [True, False])
def test_compiling_is_reported_and_goes_on_without_where_it_fails(record, tmp_path, monkeypatch, caplog, works):
    def compiler(model, **_):
        def compiled(*given, **named):
            if not works:
                raise RuntimeError("no working C++ compiler\nwas found")
            return model(*given, **named)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    with caplog.at_level("INFO", logger="nowcast"):
        run(tiny_experiment([record], compile=True), tmp_path / "run")
    told = [message for message in caplog.messages if "compile" in message and ".c in" not in message]  # nor the engine's own
    assert len(told) == 1
    assert (
        re.fullmatch(r"compiled in \d+ s", told[0])
        if works
        else told[0] == ("torch.compile failed (no working C++ compiler): training goes on without")
    )


def test_checkpoint_steps_are_refused_where_nothing_would_follow_them(record, tmp_path):
    experiment = tiny_experiment([record], checkpoint_steps=1)
    layers = {"hidden_channels": [4], "kernel_sizes": [3], "down_channels": [4], "down_kernels": [3], "strides": [2]}
    model = config.NamedSection(name="convgru", **layers, up_kernels=[4])
    with pytest.raises(UsageError, match=r"checkpoint_steps = 1: only ConvLSTM stacks can .*, and this model has none; set 0$"):
        trainer(experiment.model_copy(update={"model": model}), tmp_path / "run")


def test_early_stopping_counts_validations_without_a_better_loss(record, tmp_path):
    experiment = tiny_experiment([record], steps=40, validate_every=2, early_stopping=3, learning_rate=1e-12, ema=0.0)
    made = trainer(experiment, tmp_path / "run")
    result = made.run()
    assert result.step < 40
    assert result.step - result.best_step == 3 * 2


def test_the_best_checkpoint_is_that_of_the_smallest_validation_loss(record, tmp_path):
    run(tiny_experiment([record], steps=12, validate_every=2, learning_rate=0.2), tmp_path / "run")
    training_validation = events(tmp_path / "run", "validation")
    best = min(training_validation, key=lambda event: event["loss"])
    assert read_checkpoint(tmp_path / "run" / BEST).metadata["step"] == best["step"]


def test_without_validation_windows_the_newest_weights_are_kept(record, tmp_path, caplog):
    experiment = tiny_experiment([record])
    splits = experiment.data.splits.model_copy(update={"fractions": (1.0, 0.0, 0.0)})
    experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"splits": splits})})
    run(experiment, tmp_path / "run")
    assert "no windows are left for validation" in (tmp_path / "run" / LOG).read_text()
    assert read_checkpoint(tmp_path / "run" / BEST).metadata["step"] == 6


def test_accumulated_batches_equal_one_large_batch(record, tmp_path):
    weights = []
    for name, size, accumulate in (("whole", 4, 1), ("parts", 2, 2)):
        learner = Learner(tiny_experiment([record], batch_size=size, accumulate=accumulate, ema=0.0), torch.device("cpu"))
        cases = trainer(tiny_experiment([record], batch_size=2, ema=0.0), tmp_path / name).batches
        pair = [cases[0], cases[1]]
        if accumulate == 1:
            past, future = (torch.cat([getattr(batch, part) for batch in pair]) for part in ("past", "future"))
            pair = [Batch(past, future, pair[0].cases + pair[1].cases)]
        learner.compute_gradients(pair, 0, progress=0.0)
        learner.apply_gradients(0, rate=1e-2)
        weights.append(learner.model.state_dict())
    # the known pixels of the two halves differ a little, and so do the means over them
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=2e-2, atol=2e-3)


def test_several_grids_train_together(tmp_path):
    records = [
        write_record(tmp_path / "a.nc", rain(frames=20, shape=(24, 28))),
        write_record(tmp_path / "b.nc", rain(frames=20, shape=(12, 40)), y_ascending=True),
    ]
    run(tiny_experiment(records), tmp_path / "run")
    assert {span[0] for span in read_checkpoint(tmp_path / "run").metadata["spans"]["training"]} == {"a", "b"}


def test_grids_that_do_not_fit_are_named(tmp_path):
    small = write_record(tmp_path / "small.nc", rain(frames=20, shape=(3, 28)))
    other = write_record(tmp_path / "other.nc", rain(frames=20, shape=(24, 28)))
    experiment = tiny_experiment([small])
    model = config.NamedSection(name="encoder_forecaster", hidden_channels=[4], kernel_sizes=[3], patch=4)
    with pytest.raises(DataError, match="small has a grid of 3 × 28 cells; this model needs at least 4 each way"):
        run(experiment.model_copy(update={"model": model}), tmp_path / "run")
    data = tiny_experiment([small, other]).data.model_copy(update={"crop": 0})
    with pytest.raises(DataError, match=r"different grids \(3 × 28, 24 × 28\); set data\.crop"):
        run(tiny_experiment([]).model_copy(update={"data": data}), tmp_path / "run")


def test_learning_rates_by_hand():
    settings = tiny_experiment([], schedule="cosine", warmup_steps=4).training
    rates = [learning_rate(step, 14, settings) for step in (0, 3, 4, 9, 14)]
    np.testing.assert_allclose(rates, [0.0025, 0.01, 0.01, 0.005, 0], atol=1e-12)
    settings = tiny_experiment([], schedule="plateau", plateau_factor=0.5).training
    assert learning_rate(9, 10, settings, num_plateaus=2) == pytest.approx(0.0025)
    assert learning_rate(9, 10, tiny_experiment([], schedule="constant").training) == 0.01
    settings = tiny_experiment([], schedule="decay", decay_factor=0.7, decay_every=5).training
    np.testing.assert_allclose([learning_rate(step, 20, settings) for step in (0, 4, 5, 14)], [0.01, 0.01, 0.007, 0.0049])


def test_onecycle_is_torchs():
    settings = tiny_experiment([], schedule="onecycle").training
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=1001)
    for step in range(1000):
        assert learning_rate(step, 1000, settings) == pytest.approx(torchs.get_last_lr()[0], rel=0.02), step
        optimizer.step()
        torchs.step()


def test_a_plateau_is_patience_validations_without_a_better_loss():
    state = TrainingState(step=1)
    best = [state.judge(loss, patience=2, delta=0.0) for loss in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 1.0)]
    assert best == [True, True, False, False, False, False, True]
    assert state.num_plateaus == 2
    assert state.best_loss == 1.0
    assert state.validations_since_best == 0
    assert TrainingState.from_dict(state.as_dict()) == state
    assert TrainingState.from_dict(TrainingState().as_dict()) == TrainingState()


def test_a_gain_no_larger_than_delta_is_a_plateau_but_still_the_best():
    state = TrainingState(step=1)
    best = [state.judge(loss, patience=2, delta=0.1) for loss in (1.0, 0.95, 0.92, 0.5)]
    assert best == [True] * 4
    assert state.num_plateaus == 1


def test_the_weights_before_the_first_step_can_be_the_best_but_are_no_part_of_a_plateau():
    state = TrainingState()
    assert state.judge(1.0, patience=1, delta=0.0)
    found = []
    for state.step, loss in enumerate((3.0, 2.0, 1.5), 1):
        found.append((state.judge(loss, patience=1, delta=0.0), state.validations_since_best, state.num_plateaus))
    assert found == [(False, 1, 0), (False, 2, 0), (False, 3, 0)]
    assert (state.best_step, state.best_loss) == (0, 1.0)


def test_the_average_follows_the_weights():
    model = torch.nn.Linear(2, 1)
    average = Average(model, 0.5)
    start = average.weights["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    average.update(model, step=1000)
    torch.testing.assert_close(average.weights["weight"], start + 0.5)


def test_the_average_leaves_alone_what_is_fixed():
    model = torch.nn.BatchNorm1d(1, affine=False)
    average = Average(model, 0.5, fixed=("running_mean",))
    with torch.no_grad():
        model.running_mean += 1
        model.running_var += 1
    average.update(model, step=1000)
    assert [average.weights[name].item() for name in ("running_mean", "running_var")] == [0, 1.5]


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop", "adadelta", "sgd"])
def test_every_optimizer_trains_and_resumes(record, tmp_path, name):
    experiment = tiny_experiment([record], optimizer=name, steps=3, validate_every=3)
    run(experiment, tmp_path / "run")
    checkpoint = read_checkpoint(tmp_path / "run" / LAST)
    made = trainer(experiment, tmp_path / "run")
    made.restore(checkpoint)
    again = made.output / "again"
    write_checkpoint(again, {}, {f"optimizer.{n}": t for n, t in optimizer_tensors(made.learner.optimizer).items()})
    for tensor_name, tensor in read_checkpoint(again).tensors_of("optimizer").items():
        assert torch.equal(tensor, checkpoint.tensors_of("optimizer")[tensor_name])
