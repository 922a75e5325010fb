"""What only a GPU does: batches copied ahead, steps that never wait, fused gates. Skipped without a GPU."""

import pytest
import torch
from makers import PROBABILISTIC, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.dataset.loader import load
from nowcast.models.checkpoint import LAST, read_checkpoint
from nowcast.models.convlstm import ConvLSTM
from nowcast.runtime.progress import Stopwatch
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    return tiny_experiment([record], steps=6, validate_every=3)


@pytest.fixture
def probabilistic(experiment):
    """The recipe's model and loss, in Lagrangian coordinates."""
    tree = config.as_dict(experiment) | PROBABILISTIC
    tree["data"]["coordinates"] = "lagrangian"
    return config.from_dict(tree, source="test")


def trainer(experiment, output, device="cuda"):
    output.mkdir()
    made = Trainer(Learner(experiment, torch.device(device)), open_archive(experiment.data), output)
    made.prepare_data()
    return made


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_unchanged(experiment, tmp_path, workers):
    batches = trainer(experiment, tmp_path / "run").batches
    there = list(load(batches, 2, 8, workers=workers, device=torch.device("cuda")))
    for k, batch in enumerate(there):
        assert batch.past.is_cuda
        assert batch.cases == batches[2 + k].cases
        torch.testing.assert_close(batch.past.cpu(), batches[2 + k].past, equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(batch.future.cpu(), batches[2 + k].future, equal_nan=True, rtol=0, atol=0)
    assert len(there) == 6


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # is a prototype
@pytest.mark.parametrize("kind", ["experiment", "probabilistic"])
def test_a_step_never_waits_for_the_device(kind, tmp_path, request):
    made, watch = trainer(request.getfixturevalue(kind), tmp_path / "run"), Stopwatch()
    batches = made.load_batches()
    for _ in range(2):  # compiles, allocates
        made.update(batches, watch)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            made.update(batches, watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_is_about_that_of_a_cpu(experiment, tmp_path):
    for device in ("cpu", "cuda"):
        trainer(experiment, tmp_path / device, device).run()
    tensors = [read_checkpoint(tmp_path / device / LAST).tensors_of("model") for device in ("cpu", "cuda")]
    for name, weight in tensors[0].items():
        torch.testing.assert_close(weight, tensors[1][name], rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "CUDA graphs"])
def test_a_run_ends_with_its_state_saved(experiment, tmp_path, compiled):
    training = experiment.training.model_copy(update={"compile": compiled})
    made = trainer(experiment.model_copy(update={"training": training}), tmp_path / "run")
    assert made.run().step == 6
    assert read_checkpoint(tmp_path / "run" / LAST).metadata["step"] == 6


def test_the_engine_equals_the_cells_step_by_step():
    stack, frames = ConvLSTM(3, [8, 8], [3, 5]).cuda(), torch.randn(2, 5, 3, 20, 24, device="cuda")
    found = []
    for use_engine in (True, False):
        stack.use_engine = use_engine
        stack.zero_grad()
        hidden, _ = stack(frames)
        hidden[-1].square().sum().backward()
        found.append([hidden[-1].detach(), *(parameter.grad.clone() for parameter in stack.parameters())])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2e-2, atol=2e-2)  # TF32
