#!/usr/bin/env python3
"""Measure the steps of trainings by part: reading a batch, forward and loss, backward, optimizer, and the layers alone.

All recipes train on the same record and take their steps in turn in every round. Times are medians over the rounds, in ms of
one step; "÷ first" is the ratio of windows per second to those of the first recipe, the median of the ratios in each round.
"Layers alone" is what the recurrent layers of encoder and forecaster take, forward and backward, on the inputs that they have
in a step, and their share is that of the whole step. What is kept in the cache (packed frames, guidance) is computed before.

    python scripts/benchmarks/training.py configs/radar.toml configs/archive.toml --data RECORD --set data.crop=64
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.dataset.batches import Batch
from nowcast.errors import NowcastError
from nowcast.runtime.device import arithmetic, pick_device
from nowcast.training.experiment import with_grid
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

PARTS = ("data", "forward", "backward", "optimizer", "layers")
WARM_UP = 2  # steps before the first that counts
KEPT_CASES = 200  # of recipes that keep cases: enough for the rounds


class Recipe:
    """A recipe whose steps are timed part by part, in seconds."""

    def __init__(self, path: Path, settings: Sequence[str], data: str, device: torch.device):
        experiment = config.read(path, [*settings, f'data.records=["{data}"]', f"data.kept_cases={KEPT_CASES}"])
        archive = open_archive(experiment.data)
        self.name, self.learner = path.name, Learner(with_grid(experiment, archive), device)
        trainer = Trainer(self.learner, archive, Path("not_written"))
        trainer.prepare_data()
        self.batches, self.number = trainer.batches, 0
        self.recorded = LayerInputs(self.learner.model)

    @property
    def windows(self) -> int:
        return self.learner.settings.batch_size

    def step(self) -> dict[str, float]:
        """Make one step; return the seconds of each part."""
        learner, seconds = self.learner, {}
        batch = _timed(seconds, "data", lambda: self.batches[self.number])
        learner.model.train()
        learner.optimizer.zero_grad(set_to_none=True)
        loss = _timed(seconds, "forward", lambda: learner.batch_loss(batch))
        _timed(seconds, "backward", loss.backward)
        _timed(seconds, "optimizer", lambda: learner.apply_gradients(self.number, rate=1e-4))
        seconds["layers"] = self._layers(batch)
        self.number += 1
        return seconds

    def _layers(self, batch: Batch) -> float:
        """Return the seconds of the recurrent layers alone, forward and backward, on the inputs that they have in a step."""
        seconds: dict[str, float] = {}
        calls = self.recorded.during(lambda: self.learner.batch_loss(batch))
        self.learner.optimizer.zero_grad(set_to_none=True)
        with arithmetic(self.learner.device, self.learner.precision):
            hidden = _timed(seconds, "forward", lambda: [layer for call in calls for layer in call()])
        _timed(seconds, "backward", lambda: torch.autograd.backward(hidden, [torch.ones_like(layer) for layer in hidden]))
        return sum(seconds.values())


class LayerInputs:
    """Records with what a model calls its stacks of recurrent layers."""

    def __init__(self, model: torch.nn.Module):
        self.stacks = [model.get_submodule(name) for name in ("encoder", "forecaster")]

    def during(self, function: Callable[[], Tensor]) -> list[Callable[[], list[Tensor]]]:
        """Run a function; return, for each call of a stack, a function that repeats it alone and returns its hidden states."""
        calls: list[Callable[[], list[Tensor]]] = []

        def record(stack, arguments, options):
            frames, states = (_detached(value) for value in (*arguments, None)[:2])
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
    lines = ["| recipe | windows / s | ÷ first | data, ms | forward | backward | optimizer | layers alone | their share |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    speeds = [[recipe.windows / _whole(of) for recipe, of in zip(recipes, each, strict=True)] for each in rounds]
    for n, recipe in enumerate(recipes):
        parts = [f"{1000 * median(each[n][part] for each in rounds):.0f}" for part in PARTS]
        share = median(each[n]["layers"] / _whole(each[n]) for each in rounds)
        ratio = median(each[n] / each[0] for each in speeds)
        speed = median(each[n] for each in speeds)
        lines.append(f"| {recipe.name} | {speed:.1f} | {ratio:.2f} | {' | '.join(parts)} | {100 * share:.0f} % |")
    return lines


def _whole(seconds: dict[str, float]) -> float:
    return sum(seconds[part] for part in PARTS if part != "layers")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--data", required=True, help="record, or folder, that all train on")
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
    print(f"Steps on {name}, {given.rounds} rounds, {given.data}\n")
    print("\n".join(table(recipes, rounds)))


if __name__ == "__main__":
    main()
