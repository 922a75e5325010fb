"""What a training would cost, found by one step on made-up rain of the real shape: nothing is read or written."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nowcast.config import Experiment
from nowcast.dataset import Batch
from nowcast.training import Trainer


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step and bytes at its peak, the batch's activations kept for the backward pass included."""

    seconds_per_step: float
    memory_bytes: int

    def as_dict(self, num_steps: int) -> dict[str, Any]:
        return {
            "seconds_per_step": round(self.seconds_per_step, 4),
            "estimated_hours": round(self.seconds_per_step * num_steps / 3600, 3),
            "estimated_memory_mb": round(self.memory_bytes / 1e6, 1),
        }


def estimate(trainer: Trainer) -> Estimate:
    """Run forward and backward on random rain of the batch's shape, time it and count what it keeps.

    On a CPU one case stands for the batch, whose cases follow one another there; a GPU gets the whole batch.
    """
    cases = trainer.settings.batch_size
    sample = 1 if trainer.device.type == "cpu" else cases
    batch = _made_up(trainer.experiment, trainer.plan.records[0].grid.shape, sample)
    seconds, kept = _measure(trainer, batch)
    if seconds < 1:  # the first run paid for set-up
        seconds, kept = _measure(trainer, batch)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainer.model.parameters())
    # weights, their gradients, the optimizer's moments and the average
    copies = 2 + {"sgd": 1, "rmsprop": 1}.get(trainer.settings.optimizer, 2) + bool(trainer.average)
    scale = cases / sample
    return Estimate(seconds * scale * trainer.settings.accumulate, round(weights * copies + kept * scale))


def _measure(trainer: Trainer, batch: Batch) -> tuple[float, int]:
    """Seconds of forward and backward, and the bytes that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        start = time.perf_counter()
        _forward_backward(trainer, batch)
        seconds = time.perf_counter() - start
    trainer.optimizer.zero_grad(set_to_none=True)
    for parameter in trainer.model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)  # weights are counted apart
    return seconds, sum(kept.values())


def _made_up(experiment: Experiment, grid: tuple[int, int], cases: int) -> Batch:
    data = experiment.data
    shape = (data.crop, data.crop) if data.crop else grid
    frames = torch.rand(cases, data.input_frames + data.lead_frames, *shape)
    return Batch(frames[:, : data.input_frames], frames[:, data.input_frames :], ())


def _forward_backward(trainer: Trainer, batch: Batch) -> None:
    trainer._loss(batch).backward()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
