"""A resumed run is the straight run, bit for bit, wherever and however it was stopped; and only the same run is resumed."""

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import command, rain, tiny_experiment, write_record
from makers.processes import run_beside
from makers.runs import assert_same, events, straight_run, train

from nowcast import config
from nowcast.commands.train import draw_curves
from nowcast.config.schema import NamedSection
from nowcast.dataset import batches, loader
from nowcast.dataset.archive import open_archive
from nowcast.errors import CheckpointError, DivergenceError, LoadingError, OutputError, Stopped
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint
from nowcast.report import training_curves
from nowcast.runtime import outputs
from nowcast.training.baselines import Baselines
from nowcast.training.learner import Learner
from nowcast.training.run_folder import CONFIG, METRICS
from nowcast.training.snapshots import Snapshots

pytestmark = pytest.mark.slow  # all of them together take seconds

STEPS = 9


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A record, the cache, and `straight`: a run that nothing disturbed."""
    return straight_run(tmp_path_factory.mktemp("resuming"), tiny_with_state)


@pytest.fixture(autouse=True)
def cache(place, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(place / "cache"))


def experiment(place, **training):
    return tiny_with_state([place / "rain.nc"], **training)


def tiny_with_state(records, **training):
    """Everything that has a state: an average, momenta, plateaus, a learning rate that falls with them."""
    keys = {"steps": STEPS, "validate_every": 4, "schedule": "plateau", "plateau_patience": 1, "warmup_steps": 2, "clip": 1.0}
    return tiny_experiment(records, **{**keys, **training})


def after_update(step, act):
    """Learner.apply_gradients that calls `act` with the learner at the end of that step (the first is 1)."""
    apply = Learner.apply_gradients

    def apply_then_act(self, number, **rate):
        apply(self, number, **rate)
        if number + 1 == step:
            act(self)

    return apply_then_act


def signal_after(step, number):
    """Learner.apply_gradients that sends its own process a signal at the end of that step."""
    return after_update(step, lambda _: os.kill(os.getpid(), number))


STOPS = [(step, (signal.SIGTERM, signal.SIGINT)[step % 2], 0) for step in range(1, STEPS)]


@pytest.mark.parametrize(("step", "number", "workers"), [*STOPS, (3, signal.SIGTERM, 2), (6, signal.SIGINT, 1)])
def test_a_run_stopped_by_a_signal_and_resumed_is_the_straight_one(place, tmp_path, monkeypatch, step, number, workers):
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", signal_after(step, number))
        with pytest.raises(Stopped, match=f"stopped at step {step}, state saved; --resume") as stopped:
            train(experiment(place, workers=workers), tmp_path / "run")
    assert stopped.value.exit_code == 128 + number
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == step
    train(experiment(place, workers=workers), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


@pytest.mark.parametrize("step", [0, 4, STEPS])
def test_a_signal_during_a_validation_ends_it_at_once_and_loses_nothing(place, tmp_path, monkeypatch, step):
    score, scored = Baselines.score, []

    def score_then_signal(self, k, batch):
        scored.append(k)
        if len(scored) == 2 * {0: 0, 4: 1, STEPS: 3}[step] + 1:  # the first of two batches
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self, k, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Baselines, "score", score_then_signal)
        with pytest.raises(Stopped, match=f"stopped in the validation of step {step}; --resume goes on from there") as stopped:
            train(experiment(place), tmp_path / "run")
    assert stopped.value.exit_code == 143
    assert scored[-2:] != [0, 1]
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == step
    train(experiment(place), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


def killed_until_done(place, output, seed, workers):
    """Children that train on from where the last was killed, at random steps and at random times; counts them."""
    draw, kills = random.Random(seed), 0
    wanted = experiment(place, workers=workers)
    train(wanted, output.with_name("warm"))  # what is loaded now, no child needs to load
    while True:
        child = os.fork()
        if not child:
            if draw.random() < 0.5:
                Learner.apply_gradients = signal_after(draw.randrange(STEPS), signal.SIGKILL)
            else:  # SIGALRM kills as SIGKILL does: in the middle of anything
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.01, 0.1 * (1 + kills)))
            resume = (output / LAST).exists() or (output / PREVIOUS).exists()
            train(wanted, output, resume=resume, overwrite=True)
            os._exit(0)
        draw.random(), draw.random()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return kills
        assert code in (-signal.SIGKILL, -signal.SIGALRM), code
        kills += 1


@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 2)])
def test_a_run_killed_at_random_and_resumed_is_the_straight_one(place, tmp_path, seed, workers):
    program = "import pathlib, sys, test_resuming as t; a = sys.argv; "
    program += "print(t.killed_until_done(pathlib.Path(a[1]), pathlib.Path(a[2]), int(a[3]), int(a[4])))"
    done = run_beside(__file__, program, place, tmp_path / "run", seed, workers)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "it was never killed"
    assert_same(place / "straight", tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.endswith(".partial")]


@pytest.mark.parametrize("name", [LAST, PREVIOUS])
def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(place, tmp_path, monkeypatch, caplog, name):
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", signal_after(6, signal.SIGTERM))
        with pytest.raises(Stopped):
            train(experiment(place), output)
    content = bytearray((output / name).read_bytes())
    content[len(content) // 2] ^= 16
    (output / name).write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", signal_after(7, signal.SIGTERM))
        with pytest.raises(Stopped):
            train(experiment(place), output, resume=True)
    if name == LAST:
        assert "is damaged" in caplog.text
        assert "going on from previous.safetensors" in caplog.text
        assert read_checkpoint(output / PREVIOUS).metadata["step"] == 4
    assert read_checkpoint(output / LAST).metadata["step"] == 7
    train(experiment(place), output, resume=True)
    assert_same(place / "straight", output)


def test_a_line_of_metrics_that_was_cut_off_costs_nothing(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", signal_after(6, signal.SIGTERM))
        with pytest.raises(Stopped):
            train(experiment(place), tmp_path / "run")
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write('{"step": 4, "split": "vali')
    train(experiment(place), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


@pytest.mark.parametrize("how", ["killed", "hanging"])
def test_a_worker_that_dies_or_hangs_ends_training_with_its_state_saved(place, tmp_path, monkeypatch, how):
    read = batches.Batches.__getitem__

    def fail_in_worker(self, k):
        if k == 5 and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL) if how == "killed" else signal.pause()
        return read(self, k)

    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "__getitem__", fail_in_worker)
        patch.setattr(loader, "WORKER_TIMEOUT", 1)
        says = {"killed": "a process that reads training data failed", "hanging": "timed out after 1 seconds"}[how]
        with pytest.raises(LoadingError, match=rf"{says}[\s\S]*state saved; --resume goes on from there") as ended:
            train(experiment(place, workers=1), tmp_path / "run")
    assert ended.value.exit_code == 75
    # a worker reads ahead, and dies while it does
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] <= 5
    assert loader.WORKER_TIMEOUT <= 50
    train(experiment(place, workers=1), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


@pytest.mark.parametrize("dies_late", [False, True])
def test_a_signal_to_the_whole_group_stops_training_although_it_kills_the_workers(place, tmp_path, monkeypatch, dies_late):
    """A service manager terminates all processes of a service at once; the next run is not told of the deaths of this one."""
    read, resumed = batches.Batches.__getitem__, tmp_path / "resumed"

    def terminate_all(self, k):
        if k == 5 and torch.utils.data.get_worker_info():
            os.kill(os.getppid(), signal.SIGTERM)
            until = time.monotonic() + 3
            while dies_late and not resumed.exists() and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        return read(self, k)

    def read_slowly(self, k):
        resumed.touch()
        time.sleep(0.2)
        return read(self, k)

    with monkeypatch.context() as patch:
        patch.setattr(batches.Batches, "__getitem__", terminate_all)
        with pytest.raises(Stopped, match="state saved") as stopped:
            train(experiment(place, workers=1), tmp_path / "run")
    assert stopped.value.exit_code == 143
    monkeypatch.setattr(batches.Batches, "__getitem__", read_slowly)
    train(experiment(place, workers=1), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_model_draws_at_random_is_the_same_in_a_resumed_run(place, tmp_path, monkeypatch, workers):
    """Also in its first step, in which a loader begins that draws from the same generator."""
    loss_sum, drawn = Learner.loss_sum, []

    def draw(self, batch, **progress):
        drawn.append(float(torch.rand(())))
        if len(drawn) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_sum(self, batch, **progress)

    monkeypatch.setattr(Learner, "loss_sum", draw)
    run, stop_at = experiment(place, workers=workers, accumulate=2, steps=6), None
    train(run, tmp_path / "straight")
    straight = [*drawn]
    assert len(set(straight)) == len(straight)
    drawn.clear()
    stop_at = 5
    with pytest.raises(Stopped):
        train(run, tmp_path / "run")
    assert len(drawn) == 6  # both batches of the third step
    train(run, tmp_path / "run", resume=True)
    assert drawn == straight


# Only the same run is resumed


def snapshot(run):
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in run.iterdir()}


def test_resuming_a_finished_run_is_reported_and_changes_nothing(place):
    before = snapshot(place / "straight")
    assert f"is already trained to its last step, {STEPS}" in train(experiment(place), place / "straight", resume=True)
    assert snapshot(place / "straight") == before


def changed(experiment, section, **keys):
    return experiment.model_copy(update={section: getattr(experiment, section).model_copy(update=keys)})


@pytest.mark.parametrize(
    ("section", "keys", "says"),
    [
        ("data", {"input_frames": 3}, r"data\.input_frames = 3 \(before: 2\)"),
        ("data", {"lead_frames": 2}, r"data\.lead_frames = 2 \(before: 3\)"),
        (
            "data",
            {"crop": 12, "sampler": "uniform"},
            r"data\.crop = 12 \(before: 16\), data\.sampler = uniform",
        ),
        ("data", {"augmentation": ()}, r"data\.augmentation = \[\] \(before: \['flips'\]\)"),
        ("transform", NamedSection(name="dbz"), r"transform\.name = dbz \(before: log\)"),
        ("loss", NamedSection(name="mse"), r"loss\.name = mse \(before: mae\)"),
        ("model", NamedSection(name="encoder_forecaster", hidden_channels=[5], kernel_sizes=[3], patch=2), "hidden_channels"),
        ("training", {"optimizer": "adam"}, r"training\.optimizer = adam \(before: adamw\)"),
        ("training", {"ema": 0.0}, r"training\.ema = 0\.0 \(before: 0\.9\)"),
    ],
)
def test_another_run_is_not_resumed(place, section, keys, says):
    before, wanted = snapshot(place / "straight"), experiment(place, steps=12)
    other = wanted.model_copy(update={section: keys}) if isinstance(keys, NamedSection) else changed(wanted, section, **keys)
    with pytest.raises(CheckpointError, match=says) as error:
        train(other, place / "straight", resume=True)
    assert error.value.exit_code == 4
    assert str(place / "straight" / LAST) in str(error.value)
    assert snapshot(place / "straight") == before


def test_most_of_training_may_change_and_records_may_move(place, tmp_path):
    train(experiment(place), tmp_path / "run")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "rain.nc").write_bytes((place / "rain.nc").read_bytes())
    other = experiment(tmp_path / "moved", steps=12, batch_size=3, learning_rate=1e-3, validate_every=2, schedule="cosine")
    assert "of 12" in train(other, tmp_path / "run", resume=True)
    assert [event["step"] for event in events(tmp_path / "run")][-4:] == [10, 10, 12, 12]


def test_records_that_hold_other_windows_are_refused(place, tmp_path):
    before = snapshot(place / "straight")
    longer = write_record(tmp_path / "rain.nc", rain(frames=50, shape=(24, 28)))
    other = changed(experiment(place, steps=12), "data", records=(str(longer),))
    with pytest.raises(
        CheckpointError, match=r"data\.records = .*rain\.nc.* \(before: .*\), training windows = 26 \(before: 20\)"
    ):
        train(other, place / "straight", resume=True)
    assert snapshot(place / "straight") == before


# Beginning and replacing


@pytest.fixture
def toml(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(config.write(experiment(place)))
    return "tiny.toml"


def test_an_old_run_stays_until_the_data_of_the_new_one_are_known_to_be_good(place, toml, tmp_path, monkeypatch):
    train(experiment(place, steps=2), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    short = write_record(tmp_path / "short.nc", rain(frames=3, shape=(24, 28)))
    assert command("train", toml, "--output", "run", "--overwrite", "--data", short)[0] == 75
    assert command("train", toml, "--output", "run", "--overwrite", "--data", "absent.nc")[0] == 2
    with monkeypatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(short / "cache"))
        assert command("train", toml, "--output", "run", "--overwrite")[0] == 5
    assert snapshot(tmp_path / "run") == before
    assert command("train", toml, "--output", "run", "--overwrite")[0] == 0
    assert not set(snapshot(tmp_path / "run").values()) & set(before.values())


def test_a_folder_with_only_a_config_has_nothing_to_resume(toml, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text("# mine\n")
    code, _, err = command("train", toml, "--output", "run")
    assert code == 5
    assert err == "error: run holds a config.toml but no checkpoint to resume from: --overwrite starts it again\n"
    code, _, err = command("train", toml, "--output", "run", "--resume")
    assert code == 4
    assert "run holds no last.safetensors to resume from; it was stopped before its first checkpoint: start it again" in err
    assert (tmp_path / "run" / CONFIG).read_text() == "# mine\n"
    assert command("train", toml, "--output", "run", "--overwrite")[0] == 0


def test_a_run_can_be_resumed_from_its_first_step_on(place, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "compute_gradients", die)
        with pytest.raises(Killed):
            train(experiment(place), tmp_path / "run")
    train(experiment(place), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


def test_a_disk_without_room_is_found_before_training(place, toml, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: usage)
    code, _, err = command("train", toml, "--output", "deep/run")
    assert code == 5
    assert err.startswith("error: the checkpoints in deep/run take ")
    assert "more and its disk has 1 kB free.\nMake room" in err
    assert not Path("deep").exists()


def test_the_room_asked_for_is_what_the_checkpoints_take(place, tmp_path):
    output = place / "straight"
    archive, learner = open_archive(experiment(place).data), Learner(experiment(place), torch.device("cpu"))
    expected = Snapshots(learner, archive, output, num_steps=STEPS).num_bytes()
    for name, num_bytes in zip((BEST, LAST), expected, strict=True):
        tensors = sum(tensor.nbytes for tensor in read_checkpoint(output / name).tensors.values())
        assert num_bytes == pytest.approx(tensors, rel=0.01)


def test_a_disk_that_fills_up_ends_training_with_the_last_state_kept(place, tmp_path, monkeypatch):
    write = os.write

    def full(handle, content):
        if b'"step\\":8' in bytes(content[:20000]):
            raise OSError(28, "No space left on device")
        return write(handle, content)

    with monkeypatch.context() as patch:
        patch.setattr(outputs.os, "write", full)
        with pytest.raises(OutputError, match=r"safetensors: No space left on device; [\d.]+ kB are needed, .* are free"):
            train(experiment(place), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == 4
    train(experiment(place), tmp_path / "run", resume=True)
    assert_same(place / "straight", tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_metrics_and_a_log_that_cannot_be_written_never_cost_the_run(place, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", signal_after(2, signal.SIGTERM))
        with pytest.raises(Stopped):
            train(experiment(place), tmp_path / "run")
    for name in (METRICS, "log.txt"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to("/dev/full")
    train(experiment(place), tmp_path / "run", resume=True)
    says = "metrics.jsonl cannot be written (No space left on device): training goes on without"
    assert caplog.text.count(says) == 1
    assert caplog.text.count("log.txt cannot be written: training goes on without") == 1
    for key, tensor in read_checkpoint(place / "straight" / LAST).tensors.items():
        assert torch.equal(tensor, read_checkpoint(tmp_path / "run" / LAST).tensors[key])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), ValueError("a bug")])
def test_a_picture_that_cannot_be_drawn_never_costs_the_run(place, tmp_path, monkeypatch, caplog, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(training_curves, "draw_training", fail)
    train(experiment(place), tmp_path / "run", draw=draw_curves)
    assert f"no training.png: {error}" in caplog.text
    assert_same(place / "straight", tmp_path / "run")


def test_weights_that_are_not_finite_are_never_saved(place, tmp_path, monkeypatch):
    def spoil(learner):
        with torch.no_grad():
            next(learner.model.parameters()).fill_(np.inf)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "apply_gradients", after_update(8, spoil))
        with pytest.raises(DivergenceError, match=r"diverged at step 8: .* is not finite[\s\S]*are the last good ones"):
            train(experiment(place), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == 4
    assert read_checkpoint(tmp_path / "run" / BEST).metadata["step"] == 4
