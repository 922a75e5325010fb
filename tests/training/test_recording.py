"""A run that is killed around a validation loses no step, and metrics.jsonl has each validation once."""

import json
import os
import signal

import pytest
from makers import rain, tiny_experiment, write_record

from nowcast.commands.train import train_run
from nowcast.errors import Stopped
from nowcast.training.learner import Learner
from nowcast.training.run_folder import METRICS
from nowcast.training.snapshots import Snapshots

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.slow]


class Killed(BaseException):
    pass


def run(record, output, *, resume=False):
    train_run(
        tiny_experiment([record], schedule="cosine"), output, resume=resume, overwrite=False, device="cpu", draw=lambda _: None
    )


def losses(output):
    """(step, split, loss) of each event."""
    lines = (output / METRICS).read_text(encoding="utf-8").splitlines()
    return [(event["step"], event["split"], event["loss"]) for event in map(json.loads, lines)]


def rates(output):
    """The learning rate of each event; None of validations."""
    return [json.loads(line).get("learning_rate") for line in (output / METRICS).read_text(encoding="utf-8").splitlines()]


def killed_while_saving(monkeypatch, num_saved):
    """Let the run die as it saves its state once more than that."""
    save, saved = Snapshots.save_last, []

    def die(self, state):
        if len(saved) == num_saved:
            raise Killed
        saved.append(state.step)
        save(self, state)

    monkeypatch.setattr(Snapshots, "save_last", die)


def test_a_validation_that_was_recorded_but_not_saved_is_recorded_once(tmp_path, monkeypatch):
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    run(record, tmp_path / "straight")
    with monkeypatch.context() as patch:
        killed_while_saving(patch, num_saved=2)  # before the first step and its validation
        with pytest.raises(Killed):
            run(record, tmp_path / "run")
    assert [event[:2] for event in losses(tmp_path / "run")] == [(0, "validation")]
    apply = Learner.apply_gradients

    def apply_then_signal(self, step, **rate):
        apply(self, step, **rate)
        if step + 1 == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", apply_then_signal)
        with pytest.raises(Stopped):  # saved at a step of a validation, before it
            run(record, tmp_path / "run", resume=True)
    with monkeypatch.context() as patch:
        killed_while_saving(patch, num_saved=1)  # before the validation
        with pytest.raises(Killed):
            run(record, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run")[-1][:2] == (3, "validation")
    run(record, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


@pytest.mark.parametrize("step", [3, 6])  # 6: the last
def test_a_kill_during_a_validation_loses_no_step(tmp_path, monkeypatch, step):
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
    run(record, tmp_path / "straight")
    validate, steps, applied = Learner.validate, [], Learner.apply_gradients

    def die(self, *args, **options):
        if len(steps) == step:
            raise Killed
        return validate(self, *args, **options)

    def count(self, step, **rate):
        steps.append(step)
        applied(self, step, **rate)

    monkeypatch.setattr(Learner, "apply_gradients", count)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "validate", die)
        with pytest.raises(Killed):
            run(record, tmp_path / "run")
    run(record, tmp_path / "run", resume=True)
    assert steps == [0, 1, 2, 3, 4, 5]  # none of them twice
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert rates(tmp_path / "run") == rates(tmp_path / "straight")
