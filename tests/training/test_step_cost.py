"""What a training step costs in seconds and memory, and the largest batch that fits."""

import json
import logging
import math
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from makers import ROOT
from makers.processes import run_beside

from nowcast import config
from nowcast.commands.train import train_run, with_batch_size
from nowcast.dataset.archive import Archive, open_archive
from nowcast.errors import MemoryLimitError
from nowcast.runtime import memory
from nowcast.runtime.libraries import give_back_freed_memory
from nowcast.training import step_cost
from nowcast.training.learner import Learner
from nowcast.training.step_cost import GPU_MEMORY_SHARE, MEMORY_SHARE, case_shape, largest_batch, uncompiled

pytestmark = pytest.mark.slow  # all of them together take seconds

SYNTHETIC = ROOT / "configs" / "synthetic.toml"
RECORD = f'data.records=["{ROOT / "data" / "synthetic.nc"}"]'


def experiment(*settings):
    return config.read(SYNTHETIC, [RECORD, *settings])


WITH_PEAK = """
import sys
from pathlib import Path
from nowcast.cli import main
*words, status = sys.argv[1:]
try:
    main(words)
finally:
    Path(status).write_text(Path("/proc/self/status").read_text())
"""


def nowcast(folder, *arguments):
    """The command in a process of its own: its stdout, and the most memory that it has taken.

    As the process itself tells it: what wait4 tells a parent is no less than the parent's own.
    """
    done = run_beside(__file__, WITH_PEAK, *arguments, folder / "status")
    assert done.returncode == 0, done.stderr
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())
    return done.stdout, 1024 * int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told by Linux alone")
def test_the_predicted_memory_is_within_a_fifth_of_the_measured(tmp_path):
    # few channels and many cases: the same memory takes a fraction of the arithmetic
    settings = [RECORD, "model.hidden_channels=[24, 24]", "model.patch=2", "training.batch_size=32", "training.steps=1"]
    given = [str(SYNTHETIC), *(part for setting in settings for part in ("--set", setting))]
    told, _ = nowcast(tmp_path, "train", *given, "--dry-run", "--format", "json")
    predicted = 1e6 * json.loads(told)["estimated_memory_mb"]
    _, measured = nowcast(tmp_path, "train", *given, "--output", str(tmp_path / "run"), "--set", "training.validation_cases=1")
    assert predicted > 0.7e9, "activations should dominate here"
    assert predicted == pytest.approx(measured, rel=0.2)


def linear_probe(monkeypatch, *, base, per_case, usable, free=1e18):
    """Stand-ins for a machine of known memory, of which `usable` bytes may be taken; return the batches that were tried."""
    tried = []

    def step_bytes(learner, cases, shape):
        tried.append(cases)
        return per_case * cases

    monkeypatch.setattr(step_cost, "step_bytes", step_bytes)
    monkeypatch.setattr(step_cost, "PROCESS_BYTES", base)
    monkeypatch.setattr(Learner, "state_tensors", lambda learner: {})
    monkeypatch.setattr(step_cost, "resident_memory", lambda: 0)
    monkeypatch.setattr(step_cost, "free_memory", lambda: free)
    monkeypatch.setattr(step_cost, "total_memory", lambda: usable / MEMORY_SHARE)
    return tried


def largest(experiment, archive: Archive):
    """The largest batch of the experiment on a CPU."""
    learner = uncompiled(experiment, torch.device("cpu"))
    return largest_batch(learner, shape=case_shape(experiment.data, archive), most=archive.num_windows("training"))


@pytest.mark.parametrize("fitting", [1, 2, 3, 4, 5, 17, 63, 64])
def test_an_automatic_batch_is_the_largest_that_fits(fitting, monkeypatch):
    tried = linear_probe(monkeypatch, base=1000, per_case=100, usable=1000 + 100 * fitting + 50)
    wanted = experiment("training.batch_size=auto")
    archive = open_archive(wanted.data)
    assert archive.num_windows("training") > 64
    assert largest(wanted, archive) == fitting
    assert max(tried) == 4  # larger ones could end the process


def test_an_automatic_batch_has_no_more_cases_than_there_are_windows(monkeypatch):
    linear_probe(monkeypatch, base=1000, per_case=1, usable=10**9)
    wanted = experiment("training.batch_size=auto", "data.stride=40")
    archive = open_archive(wanted.data)
    assert largest(wanted, archive) == archive.num_windows("training")


def test_one_case_that_does_not_fit_is_an_error_with_a_cure(monkeypatch):
    linear_probe(monkeypatch, base=1e9, per_case=3e9, usable=1.8e9)
    wanted = experiment("training.batch_size=auto")
    with pytest.raises(MemoryLimitError, match=r"one case takes 4\.0 GB in a step but 1\.8 GB may be used"):
        largest(wanted, open_archive(wanted.data))


def test_an_automatic_batch_is_the_same_or_an_error_whatever_is_free(monkeypatch):
    wanted = experiment("training.batch_size=auto")
    for free in (4.2e9, 1e12):
        linear_probe(monkeypatch, base=1e9, per_case=1e8, usable=4.25e9, free=free)
        assert largest(wanted, open_archive(wanted.data)) == 32
    linear_probe(monkeypatch, base=1e9, per_case=1e8, usable=4.25e9, free=4.1e9)
    with pytest.raises(MemoryLimitError, match=r"batch_size = 32, .* takes 4\.2 GB but 4\.1 GB are free now\.\nEnd other"):
        largest(wanted, open_archive(wanted.data))


@pytest.mark.parametrize("number", [1, 2])
def test_the_bytes_of_a_step_are_counted_the_same_each_time(number):
    learner = uncompiled(experiment(), torch.device("cpu"))
    step_cost.step_bytes(learner, 1, (64, 64))  # allocates the state of the optimizer
    counted = [step_cost.step_bytes(learner, number, (64, 64)) for _ in range(3)]
    assert counted[0] == counted[1] == counted[2]
    assert counted[0] > number * 4 * 64 * 64 * 12  # float32 of past and future frames, at the least
    assert step_cost.step_bytes(learner, number + 1, (64, 64)) > counted[0]


def test_an_automatic_batch_is_a_number_in_the_run(monkeypatch, caplog):
    monkeypatch.setattr(step_cost, "MOST_CASES", 3)
    wanted = experiment("training.batch_size=auto")
    with caplog.at_level(logging.INFO, "nowcast"):
        found = with_batch_size(wanted, open_archive(wanted.data), torch.device("cpu"))
    assert found.training.batch_size == 3
    assert "batch_size = 3: the largest whose step fits into memory on cpu" in caplog.text


def test_a_resumed_run_keeps_the_batch_that_it_began_with(tmp_path, monkeypatch):
    given = ("training.batch_size=auto", "training.steps=1", "training.validation_cases=1", "data.stride=20")
    monkeypatch.setattr(step_cost, "MOST_CASES", 3)
    train_run(experiment(*given), tmp_path / "run", resume=False, overwrite=False, device="cpu")
    monkeypatch.setattr(step_cost, "MOST_CASES", 2)
    train_run(experiment(*given, "training.steps=2"), tmp_path / "run", resume=True, overwrite=False, device="cpu")
    assert "batch_size = 3" in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")


def test_peak_memory_sees_what_was_freed_and_begins_anew():
    device = torch.device("cpu")
    memory.restart_peak(device)
    before = memory.peak_memory(device)
    torch.ones(64 << 20)  # 256 MB
    assert memory.peak_memory(device) - before > 200e6
    give_back_freed_memory()  # which a training or scores before, in this process, make glibc keep
    memory.restart_peak(device)
    assert memory.peak_memory(device) - before < 200e6


def test_free_memory_is_within_the_machine():
    assert 0 < memory.free_memory() < 1 << 50


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


OUT_OF_MEMORY = [(8, 3, ": 3 would fit"), (8, 20, ": 7 would fit"), (1, 1, ", the smallest\\.\nChoose a data.crop below 64")]


@pytest.mark.parametrize(("batch", "fitting", "says"), OUT_OF_MEMORY)
def test_a_training_that_runs_out_of_memory_names_the_batch_that_fits(tmp_path, monkeypatch, batch, fitting, says):
    linear_probe(monkeypatch, base=1000, per_case=100, usable=1000 + 100 * fitting + 50)
    monkeypatch.setattr(Learner, "compute_gradients", out_of_memory)
    wanted = experiment(f"training.batch_size={batch}", "data.stride=4", "training.validation_cases=1")
    with pytest.raises(MemoryLimitError, match=rf"out of memory with training\.batch_size = {batch}{says}") as error:
        train_run(wanted, tmp_path / "run", resume=False, overwrite=False, device="cpu")
    assert error.value.exit_code == 7
    assert f"The checkpoints in {tmp_path / 'run'} are kept" in str(error.value)
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_a_training_of_which_not_one_case_fits_names_the_crop_that_does(tmp_path, monkeypatch):
    linear_probe(monkeypatch, base=1e9, per_case=4e9, usable=2e9)
    monkeypatch.setattr(Learner, "compute_gradients", out_of_memory)
    wanted = experiment("training.batch_size=2", "data.crop=64", "data.stride=4", "training.validation_cases=1")
    with pytest.raises(MemoryLimitError, match=r"one case takes 5\.0 GB .*2\.0 GB may be used\.\ndata\.crop = 32 would fit"):
        train_run(wanted, tmp_path / "run", resume=False, overwrite=False, device="cpu")


def test_memory_is_limited_by_the_tightest_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "PROCESS_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("1:name=x:/\n0::/job/step\n")
    for name, limit, held, files in (("job", "9000000", 5000000, 1000000), ("job/step", "max", 3000000, 0), (".", "", 0, 0)):
        group = tmp_path / name
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(limit)
        (group / "memory.current").write_text(str(held))
        (group / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")
    assert memory.free_memory() == 5_000_000  # what files hold is given up when asked for


@pytest.fixture
def largest_on_gpu(monkeypatch):
    """A function: the largest batch on a GPU of so many bytes, of which a step takes 100 MB and 50 MB for each case."""
    learner = uncompiled(experiment(), torch.device("cpu"))
    learner.device = torch.device("cuda", 0)

    def found(total, most=10_000):
        def probe(learner, cases, shape):
            needed = 100_000_000 + 50_000_000 * math.prod(shape) / 64**2 * cases
            if needed > total:
                raise torch.OutOfMemoryError
            return step_cost.Probe(cases, 1.0, int(needed))

        monkeypatch.setattr(step_cost, "probe", probe)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total))
        return largest_batch(learner, shape=(64, 64), most=most)

    return found


def test_an_automatic_batch_follows_the_memory_of_the_gpu(largest_on_gpu):
    for total in (1e9, 8e9, 24e9, 80e9):
        fitting = (GPU_MEMORY_SHARE * total - 100e6) // 50e6
        assert 0.87 * fitting - 1 <= largest_on_gpu(int(total)) <= fitting
    assert largest_on_gpu(80_000_000_000, most=37) == 37, "no more than there are windows"


def test_one_case_that_does_not_fit_on_the_gpu_names_a_crop_that_does(largest_on_gpu):
    with pytest.raises(MemoryLimitError, match=r"one case does not fit into the 0\.1 GB of the GPU.\n.*32"):
        largest_on_gpu(int(125_000_000 / GPU_MEMORY_SHARE))
