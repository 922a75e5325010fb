"""Several processes that train or score together (distributed.py), as torchrun starts them, against one process."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray
from makers import ROOT, command
from makers.guided import guided_experiment
from makers.processes import Forked, run_torchrun
from safetensors.numpy import load_file

from nowcast import config
from nowcast.errors import UsageError
from nowcast.models import make_model
from nowcast.models.checkpoint import LAST, read_checkpoint
from nowcast.models.many_to_many import ManyToManyConfig
from nowcast.models.next_frame import NextFrameConfig
from nowcast.runtime import distributed
from nowcast.training.experiment import check_shares

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "data" / "synthetic.nc"
# float32: in bfloat16, which "auto" takes where a processor has units for it, sums of other shares are rounded otherwise
SMALL = ("model.hidden_channels=[6]", "model.kernel_sizes=[3]", "training.validation_cases=6", "training.batch_size=3",
         "training.precision=float32")  # fmt: skip


def train_arguments(output, *settings, steps=6, every=3):
    settings = [f'data.records=["{SAMPLE}"]', "data.stride=20", *SMALL, f"training.steps={steps}",
                f"training.validate_every={every}", *settings]  # fmt: skip
    given = [part for setting in settings for part in ("--set", setting)]
    return ["train", str(ROOT / "configs" / "synthetic.toml"), "--output", str(output), "--device", "cpu", *given]


def environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")} | {"OMP_NUM_THREADS": "1"}


def words_of(*program, restarts=0):
    """The words of torchrun that start two processes of a program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ["--nproc-per-node=2", f"--max-restarts={restarts}", "--master-addr=127.0.0.1", f"--master-port={port}", *program]


def torchrun(folder, *arguments, restarts=0):
    """torchrun of two processes of nowcast, each a copy of it; its output is in `folder`."""
    program = ["--start-method=fork", "--run-path", "--", ROOT / "nowcast" / "__main__.py", *arguments]
    return Forked(run_torchrun, words_of(*program, restarts=restarts), env=environment(), folder=folder)


def run(folder, *arguments, restarts=0):
    with torchrun(folder, *arguments, restarts=restarts) as process:
        return process.wait()


def alone(*arguments):
    """What one process prints."""
    code, out, err = command(*arguments)
    assert code == 0, err
    return out


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_training(one, two):
    for mine, theirs in zip(events(one), events(two), strict=True):
        assert (mine["step"], mine["split"]) == (theirs["step"], theirs["split"])
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5, rel=1e-5)
        for key in ("extrapolation_csi", "extrapolation_mae", "persistence_csi", "persistence_mae"):
            assert (key in mine) == (mine["split"] == "validation")
            assert theirs.get(key) == pytest.approx(mine.get(key))
    weights, others = load_file(one / "last.safetensors"), load_file(two / "last.safetensors")
    for name, values in weights.items():
        assert others[name] == pytest.approx(values, abs=1e-5), name


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    alone(*train_arguments(folder))
    return folder


def test_two_processes_with_unequal_shares_train_as_one(one_process, tmp_path):
    words = words_of("-m", "--", "nowcast", *train_arguments(tmp_path / "run"))
    words = [sys.executable, "-m", "torch.distributed.run", *words]  # as README starts them
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best.safetensors") == 1, "one process speaks"
    assert_same_training(one_process, tmp_path / "run")


def test_micro_batches_make_the_same_step_as_the_whole_batch(tmp_path):
    for name, batch, accumulate in (("whole", 4, 1), ("parts", 2, 2)):
        # "each" draws the same cases whatever the batch; flips come from each batch's own numbers
        settings = (
            "data.sampler=each",
            "data.augmentation=[]",
            f"training.batch_size={batch}",
            f"training.accumulate={accumulate}",
        )
        alone(*train_arguments(tmp_path / name, *settings, "data.crop=0", steps=2, every=2))
    weights, others = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    for name, values in weights.items():
        assert others[name] == pytest.approx(values, abs=1e-6), name


def test_two_processes_correct_guidance_as_one(tmp_path):
    path = tmp_path / "guided.toml"
    path.write_text(config.write(guided_experiment([SAMPLE], data={"stride": 20}, model={"grid": "auto"}, batch_size=3)))
    alone("train", str(path), "--output", str(tmp_path / "one"), "--device", "cpu")
    done = run(tmp_path, "train", str(path), "--output", str(tmp_path / "two"), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best.safetensors") == 1, "one process speaks"
    assert_same_training(tmp_path / "one", tmp_path / "two")


def test_two_processes_score_as_one(one_process, tmp_path):
    cases = ["--observations", str(SAMPLE), "--start", "2021-07-02", "--every", "60", "--thresholds", "1,5"]
    arguments = ["evaluate", str(one_process), *cases]
    told = alone(*arguments, "--format", "json")
    shared = run(tmp_path, *arguments, "--format", "json", "--output", str(tmp_path / "scores"))
    assert shared.returncode == 0, shared.stderr
    assert (tmp_path / "scores" / "report.html").is_file()
    rows, others = ({key(row): row for row in json.loads(text)["scores"]} for text in (told, shared.stdout))
    assert rows.keys() == others.keys()
    for name, row in rows.items():
        close = (
            1e-6 if row["score"] == "effective_resolution" else 1e-9
        )  # where a curve crosses a line: sums add in another order
        for part in ("value", "low", "high", "num_cases", "num_pairs"):
            assert others[name][part] == (row[part] and pytest.approx(row[part], rel=close, abs=1e-12)), (name, part)


def test_two_processes_share_the_forecasts_of_an_archive(one_process, tmp_path):
    asked = ["predict", str(one_process), str(SAMPLE), "--start", "2021-07-02", "--every", "45"]
    told = alone(*asked, "--output", f"{tmp_path}/alone/")
    shared = run(tmp_path, *asked, "--output", f"{tmp_path}/shared/")
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout == told.replace("/alone/", "/shared/"), "one process names all files"
    files = sorted((tmp_path / "alone").iterdir())
    assert len(files) > 2
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == [path.name for path in files]
    for path in files:
        with xarray.open_dataset(path) as expected, xarray.open_dataset(tmp_path / "shared" / path.name) as found:
            xarray.testing.assert_allclose(found, expected, atol=1e-5)
    again = run(tmp_path, *asked, "--output", f"{tmp_path}/shared/")
    assert again.returncode != 0
    assert again.stderr.count("exists already") == 1, "one process speaks"


@pytest.mark.parametrize("blocked", [0, -1])
def test_where_one_process_cannot_write_the_others_end_without_a_word(blocked, tmp_path, tmp_path_factory):
    asked = ["predict", "persistence", str(SAMPLE), "--start", "2021-07-02", "--every", "90", "--overwrite"]
    files = alone(*asked, "--output", f"{tmp_path}/").split()
    Path(files[blocked]).unlink()
    (Path(files[blocked]) / "in the way").mkdir(parents=True)
    done = run(tmp_path_factory.mktemp("torchrun"), *asked, "--output", f"{tmp_path}/")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert "exitcode  : 5" in done.stderr
    assert "RuntimeError" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output one.nc", "error: 2 processes cannot write one file.\nGive a folder: --output FOLDER/\n"),
        ("--output many/ --watch",
         "error: 2 processes cannot watch one folder: each would forecast the same; start one\n"),
    ],
)  # fmt: skip
def test_what_several_processes_cannot_forecast_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "join", lambda device: device)
    assert command("predict", "extrapolation", str(SAMPLE), *arguments.split()) == (2, "", message)
    assert not list(tmp_path.iterdir())


def key(row):
    return tuple(row[column] for column in ("forecaster", "against", "score", "lead_minutes", "threshold", "scale_km"))


def test_a_run_whose_process_was_killed_ends_with_the_same_weights(tmp_path):
    settings = {"steps": 30, "every": 3}
    alone(*train_arguments(tmp_path / "straight", **settings))
    folder = tmp_path / "killed"
    with torchrun(tmp_path, *train_arguments(folder, **settings), restarts=1) as process:
        wait_until(lambda: (folder / "metrics.jsonl").exists() and len(events(folder)) > 3, process)
        os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
        done = process.wait()
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "straight", folder)


def test_a_restart_does_not_replace_a_run_that_was_there(one_process, tmp_path):
    folder = shutil.copytree(one_process, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run(tmp_path, *train_arguments(folder, "training.seed=5"), restarts=1)
    assert done.returncode != 0
    assert done.stderr.count("already holds a run") == 2, "once in each attempt"
    assert "RuntimeError" not in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_automatic_batch_is_shared_by_the_processes(tmp_path):
    given = train_arguments(tmp_path / "run", 'training.batch_size="auto"', "data.stride=60")
    done = run(tmp_path, *given, "--dry-run", "--format", "json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)  # one process speaks
    assert facts["config"]["training"]["batch_size"] % 2 == 0


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    folder = tmp_path / "run"
    with torchrun(tmp_path, *train_arguments(folder, steps=600, every=20)) as process:
        wait_until(lambda: (folder / "last.safetensors").exists(), process)
        os.kill(worker_of(process.pid, rank=1), signal.SIGTERM)
        done = process.wait(100)
    assert done.returncode != 0
    said = r"stopped (?:at|in the validation of) step ([\d,]+)(?:, state saved)?; --resume goes on"
    (step,) = set(re.findall(said, done.stderr))
    assert read_checkpoint(folder / LAST).metadata["step"] == int(step.replace(",", ""))


def wait_until(true, process):
    deadline = time.monotonic() + 100
    while not true():
        assert process.is_running(), process.stderr.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def worker_of(launcher, *, rank):
    """Of the launcher's children, which it starts in the order of their ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = re.search(r"PPid:\s+(\d+)", (folder / "status").read_text())
            except OSError:
                continue
            if int(parent[1]) == launcher:
                found.append(int(folder.name))
    assert len(found) == 2
    return sorted(found)[rank]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("training.batch_size=1",), "training.batch_size = 1 cannot be shared by 2 processes: give at least as many"),
        (("model.batch_norm=true",), "batch normalisation over 2 processes would see a part of each batch alone"),
        (("model.scheduled_sampling=0.5",), "scheduled sampling over 2 processes would draw other numbers than one does"),
    ],
)
def test_what_several_processes_cannot_train_is_refused(settings, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    layers = {"hidden_channels": (2,), "kernel_sizes": (3,)}
    model = make_model(ManyToManyConfig(**layers, batch_norm="norm" in settings[0]))
    if "sampling" in settings[0]:
        model = make_model(NextFrameConfig(**layers, batch_norm=False, scheduled_sampling=0.5))
    with pytest.raises(UsageError, match=re.escape(message)):
        check_shares(model, 1 if "size" in settings[0] else 2)


def test_a_launch_has_a_name_that_outlives_its_processes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert distributed.launch() == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job 7")
    assert distributed.launch() == "job 7"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun's own, where it is given none
    assert str(os.getppid()) in distributed.launch()


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.size(), distributed.is_first()) == (0, 1, True)
    assert distributed.gather("all") == ["all"]
    assert distributed.largest(7) == 7
    with distributed.in_turn():
        pass
    distributed.leave()
