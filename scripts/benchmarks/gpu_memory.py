#!/usr/bin/env python3
"""Count the memory and operations of a training step of any size without running it.

Tensors are torch's fake ones: they have a shape and a dtype but no values. Counted are the bytes of all tensors alive at the
peak of one update (`nowcast.training.step_cost.step_bytes`), those of weights, their average and the optimizer, and the
floating-point operations of convolutions and products. Gates are counted as one kernel, as on a GPU. "Kernels" are the
operations that would start work on a GPU, forward, backward and optimizer: all but views and allocations. With --check the same
peak is counted with real tensors beside it.

    python scripts/benchmarks/gpu_memory.py configs/radar.toml configs/archive.toml
    python scripts/benchmarks/gpu_memory.py configs/radar.toml --shape 1500 1500 --cases 1
"""

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.models import losses
from nowcast.models.engine import layer
from nowcast.models.engine.gates import GateArithmetic
from nowcast.training.learner import Learner
from nowcast.training.step_cost import probe, step_bytes

CPU = torch.device("cpu")  # the memory of a GPU is counted on this device
GPU_BYTES = 80e9  # bytes


class OneKernel(GateArithmetic):
    """Gates that write their results without temporary tensors, as a compiled kernel does."""

    started = 0  # kernels, by all instances together

    def forward(self, *tensors) -> None:
        OneKernel.started += 1

    backward = forward


class Kernels(TorchDispatchMode):
    """Counts the operations that would start work on a GPU."""

    def __init__(self):
        super().__init__()
        self.number = -OneKernel.started

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        allocates = func._schema.name.startswith(("aten::empty", "aten::new_empty"))
        self.number += not (func.is_view or allocates)
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """Return the number of kernels started since creation, including gates."""
        return self.number + OneKernel.started


def one_kernel(activation: str, gate_activation: str, device: str, dtype: torch.dtype) -> OneKernel:
    return OneKernel(activation, gate_activation)


def shape_of(experiment: Experiment, shape: Sequence[int] | None) -> tuple[int, int]:
    """Return the (y, x) cells of a case: `shape`, or the crop, or the grid of a model for one grid; else 64 × 64."""
    grid = experiment.model.model_dump().get("grid")
    if isinstance(grid, (list, tuple)) and all(grid):
        return tuple(grid)
    return tuple(shape) if shape else (experiment.data.crop or 64,) * 2


def read(path: Path, settings: Sequence[str]) -> Experiment:
    """Return the experiment of a config in bfloat16; a grid that depends on the records is replaced by any grid."""
    settings = ['training.precision="bfloat16"', *settings]
    experiment = config.read(path, settings)
    is_open = experiment.model.model_dump().get("grid") == "auto"
    return config.read(path, [*settings, "model.grid=[0,0]"]) if is_open else experiment


def count(
    path: Path, settings: Sequence[str], shape: Sequence[int] | None, cases: int
) -> tuple[int, tuple, int, int, float, int]:
    """Return cases, (y, x) cells, bytes of the step at its peak and of its state, floating-point operations, and kernels."""
    experiment = read(path, settings)
    cells, cases = shape_of(experiment, shape), cases or experiment.training.batch_size
    with FakeTensorMode(allow_non_fake_inputs=True), ExitStack() as changed:
        changed.enter_context(patch.object(layer, "gate_arithmetic", one_kernel))
        # `Module.to` exchanges tensors, which fake tensors do not allow; they are on the right device already
        changed.enter_context(patch.object(torch.nn.Module, "to", lambda module, _: module))
        learner = Learner(experiment, CPU)
        with FlopCounterMode(display=False) as counter:
            probe(learner, cases, cells)  # allocates the state of the optimizer
        with Kernels() as kernels:
            peak = step_bytes(learner, cases, cells)
        state = sum(tensor.nbytes for tensor in learner.state_tensors().values())
    return cases, cells, peak, state, counter.get_total_flops(), kernels.total


def count_real(path: Path, settings: Sequence[str], cells: tuple[int, int], cases: int) -> int:
    """Return the peak memory, bytes, of the same step with real tensors; loss and layers are computed as on a GPU."""
    with patch.object(losses, "library_for", lambda _: None), patch.object(layer, "layer_functions", lambda *_: None):
        learner = Learner(read(path, settings), CPU)
        probe(learner, cases, cells)
        return step_bytes(learner, cases, cells)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--shape", nargs=2, type=int, metavar=("Y", "X"), help="cells of a case (default: the recipe's)")
    parser.add_argument("--cases", type=int, default=0, help="of a step (default: the recipe's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes every config")
    parser.add_argument("--check", action="store_true", help="count with real tensors as well")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)  # hides the warning that this processor does not support bfloat16
    names = ("recipe", "cases", "cells", "peak, GB", "weights and optimizer, GB", "cases on 80 GB", "TFLOP", "kernels",
             "real tensors, GB")  # fmt: skip
    print(f"| {' | '.join(names)} |\n| --- |{' ---: |' * (len(names) - 1)}")
    for path in arguments.configs:
        cases, cells, peak, state, flop, kernels = count(path, arguments.set, arguments.shape, arguments.cases)
        real = f"{count_real(path, arguments.set, cells, cases) / 1e9:.4f}" if arguments.check else ""
        fits = int((GPU_BYTES - state) / (peak / cases))
        print(f"| {path.stem} | {cases} | {cells[0]} × {cells[1]} | {peak / 1e9:.4f} | {state / 1e9:.4f} | {fits:,} | "
              f"{flop / 1e12:.3f} | {kernels:,} | {real} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
