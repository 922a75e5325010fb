#!/usr/bin/env python3
"""Measure the steps of trainings by part: reading a batch, forward and loss, backward, optimizer, and some parts alone.

All recipes train on the same record and take their steps in turn in every round. Times are medians over the rounds, in ms of
one step; "÷ first" is the ratio of windows per second to those of the first recipe, the median of the ratios in each round.
"Motion" is the part of the data that finds the motion of the rain. "Cascade" is the forecast without the network: a part of
forward, or, where guidance is kept, what it takes once for the cases of one step. "Layers alone" is what the recurrent layers
take, forward and backward, on the inputs that they have in a step; their share is that of the whole step. What is kept in the
cache (packed frames, guidance) is computed before. Without --data, cases are random fields of the recipe's shape.

    python scripts/benchmarks/training.py configs/radar.toml configs/archive.toml --data RECORD --set data.crop=64
    python scripts/benchmarks/training.py configs/*.toml --set training.batch_size=1
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.dataset.batches import Batch
from nowcast.errors import NowcastError
from nowcast.models.convgru import ConvGRU
from nowcast.models.convlstm import ConvLSTM
from nowcast.models.guided.guidance import guidance
from nowcast.models.probabilistic.network import Probabilistic
from nowcast.models.transform import network_input
from nowcast.motion import MARGIN, motion
from nowcast.runtime.device import arithmetic, pick_device
from nowcast.training.experiment import with_grid
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

PARTS = ("data", "motion", "cascade", "forward", "backward", "optimizer", "layers")
ALONE = ("motion", "cascade", "layers")  # contained in other parts, or computed before
WARM_UP = 2  # steps before the first that counts
KEPT_CASES = 200  # of recipes that keep cases: enough for the rounds


class Recipe:
    """A recipe whose steps are timed part by part, in seconds."""

    def __init__(self, path: Path, settings: Sequence[str], data: str | None, device: torch.device):
        self.name, self.number = path.name, 0
        if data:
            experiment = config.read(path, [*settings, f'data.records=["{data}"]', f"data.kept_cases={KEPT_CASES}"])
            archive = open_archive(experiment.data)
            self.learner = Learner(with_grid(experiment, archive), device)
            trainer = Trainer(self.learner, archive, Path("not_written"))
            trainer.prepare_data()
            self.batches = trainer.batches
        else:
            experiment = config.read(path, settings)
            if experiment.model.model_dump().get("grid") == "auto":
                experiment = config.read(path, [*settings, "model.grid=[0,0]"])
            self.learner = Learner(experiment, device)
            self.batches = RandomBatches(self.learner)
        self.recorded = LayerInputs(self.learner.model)

    @property
    def windows(self) -> int:
        return self.learner.settings.batch_size

    def step(self) -> dict[str, float]:
        """Make one step; return the seconds of each part."""
        learner, seconds = self.learner, {}
        batch = _timed(seconds, "data", lambda: self.batches[self.number])
        seconds["motion"] = self._motion(batch)
        seconds["cascade"] = self._cascade(batch)
        batch = batch.to(learner.device)
        learner.model.train()
        learner.optimizer.zero_grad(set_to_none=True)
        loss = _timed(seconds, "forward", lambda: learner.batch_loss(batch))
        _timed(seconds, "backward", loss.backward)
        _timed(seconds, "optimizer", lambda: learner.apply_gradients(self.number, rate=1e-4))
        seconds["layers"] = self._layers(batch)
        self.number += 1
        return seconds

    def _motion(self, batch: Batch) -> float:
        """Return the seconds in which the motion of a batch's cases is found; 0 where it is not looked for in a step."""
        if self.learner.experiment.data.coordinates != "lagrangian":
            return 0.0
        seconds: dict[str, float] = {}
        around = [self._around(case) for case in batch.cases] or list(batch.past.numpy())
        _timed(seconds, "motion", lambda: [motion(past) for past in around])
        return seconds["motion"]

    def _around(self, case) -> np.ndarray:
        return self.batches.past_around(case, MARGIN)[0]

    def _cascade(self, batch: Batch) -> float:
        """Return the seconds of the cascade's forecast of a batch, without gradients; 0 for a model without it."""
        model, leads, seconds = self.learner.model, batch.future.shape[1], {}
        if isinstance(model, Probabilistic):
            past = network_input(batch.past.to(self.learner.device), self.learner.transform)
            _timed(seconds, "cascade", lambda: list(model.cascade(past, leads)))
        elif model.takes_guidance:
            _timed(seconds, "cascade", lambda: [guidance(past, leads) for past in batch.past.numpy()])
        return seconds.get("cascade", 0.0)

    def _layers(self, batch: Batch) -> float:
        """Return the seconds of the recurrent layers alone, forward and backward, on the inputs that they have in a step."""
        seconds: dict[str, float] = {}
        calls = self.recorded.during(lambda: self.learner.batch_loss(batch))
        self.learner.optimizer.zero_grad(set_to_none=True)
        with arithmetic(self.learner.device, self.learner.precision):
            hidden = _timed(seconds, "forward", lambda: [layer for call in calls for layer in call()])
        _timed(seconds, "backward", lambda: torch.autograd.backward(hidden, [torch.ones_like(layer) for layer in hidden]))
        return sum(seconds.values())


class RandomBatches:
    """Batches of random fields of the shape that a recipe trains on: its crop, the grid of its model, or 64 × 64 cells."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.shape = learner.model.grid or (learner.experiment.data.crop or 64,) * 2

    def __getitem__(self, number: int) -> Batch:
        learner, data = self.learner, self.learner.experiment.data
        cases = learner.settings.batch_size
        frames = torch.rand(cases, data.input_frames + data.lead_frames, *self.shape)
        blank = learner.model.blank_inputs(cases, data.lead_frames, self.shape).get("guidance")
        past, future = frames[:, : data.input_frames], frames[:, data.input_frames :]
        return Batch(past, future, (), None if blank is None else blank.cpu())


class LayerInputs:
    """Records with what a model calls its stacks of recurrent layers."""

    def __init__(self, model: torch.nn.Module):
        self.stacks = [module for module in model.modules() if isinstance(module, (ConvLSTM, ConvGRU))]

    def during(self, function: Callable[[], Tensor]) -> list[Callable[[], list[Tensor]]]:
        """Run a function; return, for each call of a stack, a function that repeats it alone and returns its hidden states."""
        calls: list[Callable[[], list[Tensor]]] = []

        def record(stack, arguments, options):
            frames, states, *_ = (_detached(value) for value in (*arguments, None, None))
            calls.append(lambda: stack(frames, states, **options)[0])

        hooks = [stack.register_forward_pre_hook(record, with_kwargs=True) for stack in self.stacks]
        try:
            function()
        finally:
            for hook in hooks:
                hook.remove()
        return calls


def _detached(value):
    """Return tensors, at any depth of lists and tuples, that take gradients of their own, as the states of a stack do."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return [_detached(item) for item in value] if isinstance(value, (list, tuple)) else value


def _timed(seconds: dict[str, float], part: str, function: Callable):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[part] = time.perf_counter() - start
    return result


def table(recipes: Sequence[Recipe], rounds: Sequence[Sequence[dict[str, float]]]) -> list[str]:
    """Return the table as lines of Markdown; rounds: for each round the seconds of each recipe's step."""
    columns = ["windows / s", "÷ first", "data, ms", *PARTS[1:-1], "layers alone", "their share"]
    lines = [f"| recipe | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    speeds = [[recipe.windows / _whole(of) for recipe, of in zip(recipes, each, strict=True)] for each in rounds]
    for n, recipe in enumerate(recipes):
        parts = [f"{1000 * median(each[n][part] for each in rounds):.0f}" for part in PARTS]
        share = median(each[n]["layers"] / _whole(each[n]) for each in rounds)
        ratio = median(each[n] / each[0] for each in speeds)
        speed = median(each[n] for each in speeds)
        lines.append(f"| {recipe.name} | {speed:.1f} | {ratio:.2f} | {' | '.join(parts)} | {100 * share:.0f} % |")
    return lines


def _whole(seconds: dict[str, float]) -> float:
    return sum(seconds[part] for part in PARTS if part not in ALONE)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--data", help="record, or folder, that all train on (default: random fields)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes every config")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    device = pick_device(given.device)
    try:
        recipes = [Recipe(path, given.set, given.data, device) for path in given.configs]
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    rounds = [[recipe.step() for recipe in recipes] for _ in range(given.rounds + WARM_UP)][WARM_UP:]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    print(f"Steps on {name}, {given.rounds} rounds, {given.data or 'random fields'}\n")
    print("\n".join(table(recipes, rounds)))


if __name__ == "__main__":
    main()
