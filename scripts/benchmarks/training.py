#!/usr/bin/env python3
"""Measure the steps of trainings by part: reading a batch, forward, loss, backward, optimizer, and some parts alone.

All recipes take their steps in turn in every round. Those that look for the motion of the rain, or keep guidance, train on the
record; all others, made for other records, and all without --data, train on random fields of their own shape. Times are
medians over the rounds, in ms of one step; "÷ first" is the ratio of windows per second to those of the first row, the median
of the ratios in each round. "Motion" is the part of the data that finds the motion of the rain. "Cascade" is the forecast
without the network: a part of forward, or, where guidance is kept, what it takes once for the cases of one step. "Loss"
is the loss with its gradient, of which forward and backward do not contain anything. "Layers alone" is what the network's
layers (recurrent ones, convolutions, products, norms) take, forward and backward, on the inputs that they have in a step; their
share is that of the whole step. The last column names what else takes more than 10 % of it: data, cascade, loss, optimizer, and
as "rest" what is left of forward and backward: all that lies between the layers and around them. What is kept in the cache
(packed frames, guidance) is computed before.

    python scripts/benchmarks/training.py configs/radar.toml configs/archive.toml --data RECORD --set data.crop=64
    python scripts/benchmarks/training.py configs/*.toml --largest-crop 32 --set training.batch_size=1 --rounds 1
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from nowcast.runtime.libraries import wait_asleep

wait_asleep()  # as in nowcast, before torch is imported
if "--processor-time" in sys.argv:  # else waiting threads of other libraries would be counted
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# ruff: noqa: E402
import numpy as np
import torch
from torch import Tensor

from nowcast import config
from nowcast.config.schema import Experiment
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

PARTS = ("data", "motion", "cascade", "forward", "loss", "backward", "optimizer", "layers")
ALONE = ("motion", "cascade", "layers")  # contained in other parts, or computed before the step
WARM_UP = 2  # steps that are not timed
KEPT_CASES = 200  # of recipes that keep cases: enough for the rounds
OTHER_LAYERS = (torch.nn.modules.conv._ConvNd, torch.nn.Linear, torch.nn.modules.batchnorm._BatchNorm)
NAMED_FRACTION = 0.1  # parts of a step above this fraction are named


class Recipe:
    """A recipe whose steps are timed part by part, in seconds."""

    def __init__(self, path: Path, arguments: argparse.Namespace, device: torch.device, threads: int):
        self.name, self.number, self.threads = path.name, 0, threads
        self.clock = time.process_time if arguments.processor_time else time.perf_counter
        experiment = read(path, arguments)
        if arguments.data and follows_rain(experiment):
            archive = open_archive(experiment.data)
            self.learner = Learner(with_grid(experiment, archive), device)
            trainer = Trainer(self.learner, archive, Path("not_written"))
            trainer.prepare_data()
            self.batches = trainer.batches
        else:
            self.learner = Learner(experiment, device)
            self.batches = RandomBatches(self.learner)
        self.recorded = LayerInputs(self.learner.model)

    @property
    def windows(self) -> int:
        return self.learner.settings.batch_size

    @property
    def cascade_in_step(self) -> bool:
        return isinstance(self.learner.model, Probabilistic)

    def step(self) -> dict[str, float]:
        """Make one step; return the seconds of each part."""
        torch.set_num_threads(self.threads)
        learner, seconds = self.learner, {}
        batch = self._timed(seconds, "data", lambda: self.batches[self.number])
        seconds["motion"] = self._motion(batch)
        seconds["cascade"] = self._cascade(batch)
        batch = batch.to(learner.device)
        learner.model.train()
        learner.optimizer.zero_grad(set_to_none=True)
        outputs, future = self._timed(seconds, "forward", lambda: learner.outputs(batch))
        gradient = self._timed(seconds, "loss", lambda: self._gradient(outputs, future))
        self._timed(seconds, "backward", lambda: outputs.backward(gradient))
        self._timed(seconds, "optimizer", lambda: learner.apply_gradients(self.number, rate=1e-4))
        seconds["layers"] = self._layers(batch)
        self.number += 1
        return seconds

    def _motion(self, batch: Batch) -> float:
        """Return the seconds to compute the motion of a batch's cases; 0 if it is not computed in a step."""
        if self.learner.experiment.data.coordinates != "lagrangian":
            return 0.0
        seconds: dict[str, float] = {}
        around = [self._around(case) for case in batch.cases] or list(batch.past.numpy())
        self._timed(seconds, "motion", lambda: [motion(past) for past in around])
        return seconds["motion"]

    def _around(self, case) -> np.ndarray:
        return self.batches.past_around(case, MARGIN)[0]

    def _cascade(self, batch: Batch) -> float:
        """Return the seconds of the cascade's forecast of a batch, without gradients; 0 for a model without it."""
        model, leads, seconds = self.learner.model, batch.future.shape[1], {}
        if isinstance(model, Probabilistic):
            past = network_input(batch.past.to(self.learner.device), self.learner.transform)
            self._timed(seconds, "cascade", lambda: list(model.cascade(past, leads)))
        elif model.takes_guidance:
            self._timed(seconds, "cascade", lambda: [guidance(past, leads) for past in batch.past.numpy()])
        return seconds.get("cascade", 0.0)

    def _gradient(self, outputs: Tensor, future: Tensor) -> Tensor:
        """Return the gradient of the loss of a network's outputs, of their shape: of the sum, as in a training, which divides
        the gradients of the weights by the count."""
        loss, _ = self.learner.compared(outputs, future)
        return torch.autograd.grad(loss, outputs)[0]

    def _layers(self, batch: Batch) -> float:
        """Return the seconds of the layers alone, forward and backward, on the inputs that they have in a step."""
        seconds: dict[str, float] = {}
        calls = self.recorded.during(lambda: self.learner.batch_loss(batch))
        self.learner.optimizer.zero_grad(set_to_none=True)
        with arithmetic(self.learner.device, self.learner.precision):
            hidden = self._timed(seconds, "forward", lambda: [layer for call in calls for layer in call()])
        self._timed(seconds, "backward", lambda: torch.autograd.backward(hidden, [torch.ones_like(layer) for layer in hidden]))
        return sum(seconds.values())

    def _timed(self, seconds: dict[str, float], part: str, function: Callable):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = self.clock()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[part] = self.clock() - start
        return result


def read(path: Path, arguments: argparse.Namespace) -> Experiment:
    """Return the experiment of a config, with the changes of the command line."""
    settings = [f"data.kept_cases={KEPT_CASES}", *arguments.set]
    experiment = config.read(path, settings)
    if arguments.largest_crop and experiment.data.crop > arguments.largest_crop:
        settings.append(f"data.crop={arguments.largest_crop}")
    if arguments.data and follows_rain(experiment):
        settings.append(f'data.records=["{arguments.data}"]')
    elif experiment.model.model_dump().get("grid") == "auto":
        settings.append("model.grid=[0,0]")
    return config.read(path, settings)


def follows_rain(experiment: Experiment) -> bool:
    """Return whether a recipe needs the motion of the rain, in each step or for guidance that it keeps."""
    return experiment.data.coordinates == "lagrangian" or experiment.model.name == "guided"


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
    """Records with what a model calls its layers: recurrent stacks, and convolutions, products and norms outside them."""

    def __init__(self, model: torch.nn.Module):
        self.stacks = [module for module in model.modules() if isinstance(module, (ConvLSTM, ConvGRU))]
        inside = {part for stack in self.stacks for part in stack.modules()}
        self.others = [module for module in model.modules() if isinstance(module, OTHER_LAYERS) and module not in inside]

    def during(self, function: Callable[[], Tensor]) -> list[Callable[[], list[Tensor]]]:
        """Run a function; return, for each call of a layer, a function that repeats it alone and returns its hidden states."""
        calls: list[Callable[[], list[Tensor]]] = []

        def record(layer, arguments, options):
            inputs = [_detached(value) for value in arguments]
            one = layer in self.others
            calls.append(lambda: [layer(*inputs, **options)] if one else layer(*inputs, **options)[0])

        hooks = [stack.register_forward_pre_hook(record, with_kwargs=True) for stack in (*self.stacks, *self.others)]
        try:
            function()
        finally:
            for hook in hooks:
                hook.remove()
        return calls


def _detached(value):
    """Return copies of tensors, at any depth of lists and tuples, that take gradients, like the states of a stack."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return [_detached(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(recipes: Sequence[Recipe], rounds: Sequence[Sequence[dict[str, float]]]) -> list[str]:
    """Return the table as lines of Markdown; rounds: for each round the seconds of each recipe's step."""
    columns = ["windows / s", "÷ first", "data, ms", *PARTS[1:-1], "layers alone", "their share", "else above 10 %"]
    lines = [f"| recipe | {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)} --- |"]
    speeds = [[recipe.windows / _whole(of) for recipe, of in zip(recipes, each, strict=True)] for each in rounds]
    for n, recipe in enumerate(recipes):
        parts = [f"{1000 * median(each[n][part] for each in rounds):.0f}" for part in PARTS]
        share = median(each[n]["layers"] / _whole(each[n]) for each in rounds)
        ratio = median(each[n] / each[0] for each in speeds)
        speed = median(each[n] for each in speeds)
        name = recipe.name if len({each.threads for each in recipes}) == 1 else f"{recipe.name}, threads: {recipe.threads}"
        others = ", ".join(above_a_tenth([each[n] for each in rounds], cascade_in_step=recipe.cascade_in_step))
        lines.append(f"| {name} | {speed:.1f} | {ratio:.2f} | {' | '.join(parts)} | {100 * share:.0f} % | {others or 'none'} |")
    return lines


def above_a_tenth(steps: Sequence[dict[str, float]], *, cascade_in_step: bool) -> list[str]:
    """Return names and percentages of the parts besides the layers with a median fraction of a step above NAMED_FRACTION."""
    found = []
    for name in ("data", "cascade", "loss", "rest", "optimizer"):
        share = median(_others(seconds, cascade_in_step)[name] / _whole(seconds) for seconds in steps)
        if share > NAMED_FRACTION:
            found.append(f"{name} {100 * share:.0f} %")
    return found


def _others(seconds: dict[str, float], cascade_in_step: bool) -> dict[str, float]:
    cascade = seconds["cascade"] if cascade_in_step else 0.0
    rest = seconds["forward"] + seconds["backward"] - seconds["layers"] - cascade
    return {**seconds, "cascade": cascade, "rest": rest}


def _whole(seconds: dict[str, float]) -> float:
    return sum(seconds[part] for part in PARTS if part not in ALONE)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--data", help="record, or folder, for recipes that follow the rain (default: random fields)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes every config")
    parser.add_argument("--largest-crop", type=int, default=0, metavar="CELLS", help="cut larger crops to this")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="a row for each number")
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads, not the clock: on busy cores, one thread"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    device = pick_device(arguments.device)
    try:
        recipes = [Recipe(path, arguments, device, threads) for path in arguments.configs for threads in arguments.threads]
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    rounds = [[recipe.step() for recipe in recipes] for _ in range(arguments.rounds + WARM_UP)][WARM_UP:]
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{', '.join(map(str, arguments.threads))} threads of a CPU"
    )
    print(f"Steps on {name}, {arguments.rounds} rounds, {arguments.data or 'random fields'}\n")
    print("\n".join(table(recipes, rounds)))


if __name__ == "__main__":
    main()
