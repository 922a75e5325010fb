"""Loss and gradients use no operation that makes the host wait for the device. Checked on a CPU, by the operations called."""

import pytest
import torch
from makers import PROBABILISTIC, rain, tiny_experiment, write_record
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.models import losses
from nowcast.models.probabilistic import cascade
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

CONSTANT = ("lift_fresh", "lift_fresh_copy")  # operations that make tensors of Python numbers
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "_unique2",
    "unique_consecutive",
    "repeat_interleave",
)  # operations whose values or sizes the host reads
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
SECTIONS = {"encoder_forecaster": {}, "probabilistic": PROBABILISTIC}


class Device(TorchDispatchMode):
    """Record the operations that would make the host wait for a GPU.

    Tensors made of Python numbers alone count as the host's, and so do results of such tensors; all others as the device's.
    """

    def __init__(self):
        super().__init__()
        self.num_operations, self.waiting = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
        of_host = [getattr(tensor, "of_host", False) for tensor in tensors]
        out = func(*args, **(kwargs or {}))
        if name in CONSTANT or (tensors and all(of_host)):
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    tensor.of_host = True
        elif name in WAITING:
            self.waiting.append(name)
        elif name in INDEXING and (any(of_host) or any(index.dtype == torch.bool for index in tensors[1:])):
            self.waiting.append(name)  # for an index to be copied, or for the True cells of a mask to be counted
        self.num_operations += 1
        return out


@pytest.mark.parametrize("name", SECTIONS)
def test_loss_and_gradients_never_wait_for_the_device(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(losses, "library_for", lambda _: None)  # which is of a CPU alone, as is the next
    monkeypatch.setattr(cascade, "are_for_c", lambda *_: False)
    record = write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    tree = config.as_dict(tiny_experiment([record], steps=6)) | SECTIONS[name]
    experiment = config.from_dict(tree, source="test")
    learner = Learner(experiment, torch.device("cpu"))
    trainer = Trainer(learner, open_archive(experiment.data), tmp_path)
    trainer.prepare_data()
    batch = trainer.batches[0]
    with Device() as device:
        learner.batch_loss(batch).backward()
    assert device.num_operations > 100
    assert device.waiting == []


def test_operations_that_wait_are_noticed():
    values = torch.ones(3)
    with Device() as device:
        values[[0, -1]].sum().item()
        values[values > 0].sum()
        torch.tensor([2.0]).log1p().item()
        values[values > 0] = values.clone()
        values[[0, 1]] = values[:2].clone()
        values.unique()
    assert device.waiting == ["index", "_local_scalar_dense", "index", "index_put_", "index_put_", "_unique2"]
