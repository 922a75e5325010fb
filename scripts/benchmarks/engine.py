#!/usr/bin/env python3
"""Measure the speed of the ConvLSTM engine against a plain ConvLSTM, for stacks of layers and for whole recipes.

The plain ConvLSTM is the textbook one: one convolution over input and state joined, gates computed one by one, autograd.
All variants are timed in turn in every round, each for a third of a second or more, in calls that follow one another, and
freed memory is kept for the next call, as in trainings. Ratios are time or memory relative to the plain ConvLSTM in float32, as
median over the rounds (smallest–largest). The ceiling is the rate of the convolutions alone, measured in the same run in
the faster of two memory layouts. Tables are in Markdown.

    python scripts/benchmarks/engine.py
    python scripts/benchmarks/engine.py --stacks 64x3 --grids 128 --batches 1 8 --rounds 9 --peer mymodule:TheirConvLSTM
    python scripts/benchmarks/engine.py --device cuda --stacks 64x3 128x3 256x3 --grids 64 128 --batches 8 32
"""

import argparse
import importlib
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.models import convlstm
from nowcast.runtime.device import pick_device
from nowcast.runtime.libraries import keep_freed_memory
from nowcast.runtime.memory import peak_memory, resident_memory, restart_peak
from nowcast.runtime.precision import pick_precision
from nowcast.runtime.progress import Stopwatch
from nowcast.training.learner import Learner
from nowcast.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
STEPS = 10  # time steps of a sequence
LAYERS = 3
RECIPES = ("synthetic", "radar", "many_to_many", "cnn_lstm")  # configs that can be trained on data/synthetic.nc
LEAST_SECONDS = 0.33  # of one measurement
STRICT = " without TF32"  # suffix of a variant that does not use TF32 on a GPU
Timed = Callable[[], float]


class PlainConvLSTM(nn.Module):
    """The textbook ConvLSTM. Takes (case, time, channel, y, x), returns the last layer's hidden states at all times."""

    def __init__(self, in_channels: int, hidden_channels: Sequence[int], kernel_sizes: Sequence[int]):
        super().__init__()
        self.hidden_channels = hidden_channels
        inputs = [in_channels, *hidden_channels[:-1]]
        layers = zip(inputs, hidden_channels, kernel_sizes, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(i + h, 4 * h, k, padding=k // 2) for i, h, k in layers)

    def forward(self, frames: Tensor) -> Tensor:
        for convolution, channels in zip(self.convolutions, self.hidden_channels, strict=True):
            hidden = cell = frames.new_zeros(len(frames), channels, *frames.shape[-2:])
            outputs = []
            for time_index in range(frames.shape[1]):
                gates = convolution(torch.cat([frames[:, time_index], hidden], dim=1))
                i, f, o, g = torch.split(gates, channels, dim=1)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                hidden = torch.sigmoid(o) * torch.tanh(cell)
                outputs.append(hidden)
            frames = torch.stack(outputs, dim=1)
        return frames


@dataclass(frozen=True)
class Stack:
    """A stack of equal layers on a square grid."""

    hidden: int
    kernel: int
    grid: int
    batch: int

    def __str__(self) -> str:
        return f"{LAYERS} × {self.hidden}, {self.kernel}×{self.kernel}, {self.grid}², batch {self.batch}"

    def make(self, kind: str) -> nn.Module:
        shape = (1, [self.hidden] * LAYERS, [self.kernel] * LAYERS)
        if kind == "plain":
            return PlainConvLSTM(*shape)
        if kind == "ours":
            return convlstm.ConvLSTM(*shape)
        module, name = kind.split(":")
        return getattr(importlib.import_module(module), name)(*shape)

    def frames(self, device: torch.device) -> Tensor:
        return torch.rand(self.batch, STEPS, 1, self.grid, self.grid, device=device)

    def forward_flop(self) -> float:
        """Return the operations of the plain ConvLSTM's convolutions: two for each weight, cell, case and time step."""
        inputs = 1 + self.hidden + (LAYERS - 1) * 2 * self.hidden
        return 2.0 * inputs * 4 * self.hidden * self.kernel**2 * self.grid**2 * self.batch * STEPS


def last_hidden(output: object) -> Tensor:
    """Return the last layer's hidden states from the output of a stack; ours is (hidden states of all layers, last states)."""
    while not isinstance(output, Tensor):
        output = output[0] if isinstance(output, tuple) else output[-1]
    return output


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, including its work on the GPU."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def training_and_forward(
    stack: Stack, kind: str, device: torch.device, precision: torch.dtype
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return two functions: forward and backward, and forward without gradients.

    The gradient of the last layer's hidden states is given, so that no time is a loss's.
    """
    net, frames = stack.make(kind.removesuffix(STRICT)).to(device), stack.frames(device)
    cast = torch.autocast(device.type, precision) if precision != torch.float32 else nullcontext()

    def forward() -> Tensor:
        torch.backends.cudnn.allow_tf32 = not kind.endswith(STRICT)  # also holds for the backward pass after it
        with cast:
            return last_hidden(net(frames))

    with torch.no_grad():
        gradient = torch.ones_like(forward())

    def train() -> None:
        net.zero_grad(set_to_none=True)
        forward().backward(gradient)

    def only_forward() -> None:
        with torch.inference_mode():
            forward()

    return train, only_forward


def seconds_of_call(run: Callable[[], object], device: torch.device) -> float:
    """Return the mean seconds of a call, over calls of LEAST_SECONDS in total, after a warm-up call."""
    run()
    seconds: list[float] = []
    while sum(seconds) < LEAST_SECONDS:
        seconds.append(timed(run, device))
    return statistics.mean(seconds)


def interleaved(runs: Sequence[Timed], rounds: int) -> list[list[float]]:
    """Call all runs in turn in every round, after a warm-up round; return the seconds of each run by round."""
    for run in runs:
        run()
    seconds = [[run() for run in runs] for _ in range(rounds)]
    return [list(column) for column in zip(*seconds, strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the ratios of each round as text: median (smallest–largest)."""
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def convolution_rates(stack: Stack, device: torch.device, precision: torch.dtype) -> tuple[float, float]:
    """Measure the FLOP per second of the stack's convolution alone: forward, and forward with both gradients."""
    fastest, times = {}, 20 if device.type == "cuda" else 1  # on a GPU, a launch takes as long as a small convolution
    for layout, part in product((torch.contiguous_format, torch.channels_last), range(3)):
        run = repeated(_convolution(stack, device, precision, layout, part), times)
        fastest[part] = min(fastest.get(part, float("inf")), *(timed(run, device) / times for _ in range(4)))
    flop = 2.0 * 2 * stack.hidden * 4 * stack.hidden * stack.kernel**2 * stack.grid**2 * stack.batch
    return flop / fastest[0], 3 * flop / sum(fastest.values())


def repeated(run: Callable[[], object], times: int) -> Callable[[], None]:
    def runs() -> None:
        for _ in range(times):
            run()

    return runs


def _convolution(stack: Stack, device: torch.device, precision: torch.dtype, layout: torch.memory_format, part: int):
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(precision, memory_format=layout)

    n, h, k, g = stack.batch, stack.hidden, stack.kernel, stack.grid
    values, kernel, out, pad = draw(n, 2 * h, g, g), draw(4 * h, 2 * h, k, k), draw(n, 4 * h, g, g), [k // 2, k // 2]
    if part == 0:
        return lambda: torch.nn.functional.conv2d(values, kernel, padding=pad)
    wanted = (part == 1, part == 2, False)
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(out, values, kernel, None, [1, 1], pad, [1, 1], False, [0, 0], 1, wanted)


def peak_of(stack: Stack, kind: str, device: str, precision: torch.dtype) -> int:
    """Measure the bytes that a training step needs at its peak, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (stack, kind, device, precision))


def _peak(stack: Stack, kind: str, name: str, precision: torch.dtype) -> int:
    device = torch.device(name)
    tiny = Stack(8, stack.kernel, 8, 1)
    training_and_forward(tiny, kind, device, precision)[0]()  # loads libraries, whose memory is not counted
    train, _ = training_and_forward(stack, kind, device, precision)
    before = resident_memory() if device.type == "cpu" else torch.cuda.memory_allocated(device)
    restart_peak(device)
    train()
    return peak_memory(device) - before


def stack_rows(args: argparse.Namespace, device: torch.device, precision: torch.dtype) -> Iterator[str]:
    """Yield the rows of the table: for each stack the plain ConvLSTM, the engine, and each peer."""
    same = str(precision).removeprefix("torch.")
    product_rate = matrix_product_rate(device) if device.type == "cuda" else None
    shown = " of the matrix product |" if product_rate else ""
    yield (
        "| stack | what | training ÷ plain | forward ÷ plain | ms training, forward | cases/s in training | TFLOP/s "
        f"| of ceiling |{shown} memory, MB | ÷ plain |"
    )
    yield f"| --- | --- {'| ---: ' * (9 if shown else 8)}|"
    for (hidden, kernel), grid, batch in product(args.stacks, args.grids, args.batches):
        stack = Stack(hidden, kernel, grid, batch)
        variants = [("plain", torch.float32, "plain float32"), ("ours", precision, f"engine {same}")]
        if precision != torch.float32:
            variants.insert(1, ("plain", precision, f"plain {same}"))
        if device.type == "cuda":
            variants[0] = ("plain" + STRICT, torch.float32, "plain float32")
            variants.insert(1, ("plain", torch.float32, "plain TF32"))
        variants += [(peer, torch.float32, peer) for peer in args.peer]
        pairs = [training_and_forward(stack, kind, device, dtype) for kind, dtype, _ in variants]
        training, forward = (
            interleaved([partial(seconds_of_call, run, device) for run in runs], args.rounds)
            for runs in zip(*pairs, strict=True)
        )
        memories = [peak_of(stack, kind, str(device), dtype) for kind, dtype, _ in variants]
        for n, (kind, dtype, name) in enumerate(variants):
            torch.backends.cudnn.allow_tf32 = not kind.endswith(STRICT)
            forward_rate, all_rate = convolution_rates(stack, device, dtype)
            t, f = statistics.median(training[n]), statistics.median(forward[n])
            rates = (3 * stack.forward_flop() / t, stack.forward_flop() / f)
            of_product = f"| {rates[0] / product_rate:.0%}, {rates[1] / product_rate:.0%} " if product_rate else ""
            yield (
                f"| {stack} | {name} | {ratio(training[n], training[0])} | {ratio(forward[n], forward[0])} "
                f"| {1e3 * t:.0f}, {1e3 * f:.0f} | {stack.batch / t:.1f} | {rates[0] / 1e12:.3f}, {rates[1] / 1e12:.3f} "
                f"| {rates[0] / all_rate:.0%}, {rates[1] / forward_rate:.0%} {of_product}"
                f"| {memories[n] / 1e6:,.0f} | {memories[n] / memories[0] if memories[0] else math.nan:.2f} |"
            )


def recipe_rows(args: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """Yield a row for each recipe: whole training steps with data, with the engine and with the cells step by step."""
    yield "| recipe | ms per step | ÷ step by step | windows per second | waiting for data |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in args.recipes:
        with tempfile.TemporaryDirectory() as folder:
            ours, plain, waiting, cases = _steps(_trainer(name, Path(folder), device), args.rounds, device)
        seconds = statistics.median(ours)
        yield f"| {name} | {1e3 * seconds:.0f} | {ratio(ours, plain)} | {cases / seconds:.1f} | {waiting:.1%} |"


def _steps(trainer: Trainer, rounds: int, device: torch.device) -> tuple[list[float], list[float], float, int]:
    """Return the seconds of steps with and without the engine, the fraction spent waiting for data, and the cases of a step."""
    watch, other, batches = Stopwatch(), Stopwatch(), trainer.load_batches()
    engine = lambda: timed(lambda: trainer.update(batches, watch), device)  # noqa: E731
    engine()
    other.waited, watch.waited = 0.0, 0.0
    step = lambda: timed(lambda: trainer.update(batches, other), device)  # noqa: E731
    plain = lambda: _without_engine(trainer.learner.model, step)  # noqa: E731
    plain()
    seconds = [(engine(), plain()) for _ in range(rounds)]
    ours, theirs = (list(column) for column in zip(*seconds, strict=True))
    return ours, theirs, watch.waited / sum(ours), trainer.settings.batch_size * trainer.settings.accumulate


def _trainer(name: str, folder: Path, device: torch.device) -> Trainer:
    record = f'data.records=["{ROOT / "data" / "synthetic.nc"}"]'
    experiment = config.read(ROOT / "configs" / f"{name}.toml", [record, "data.crop=64"])
    trainer = Trainer(Learner(experiment, device), open_archive(experiment.data), folder)
    trainer.prepare_data()
    trainer.learner.model.train()
    return trainer


def _without_engine(model: nn.Module, run: Timed) -> float:
    """Call `run` while the ConvLSTM stacks of a model compute their cells step by step."""
    stacks = [module for module in model.modules() if isinstance(module, convlstm.ConvLSTM)]
    for stack in stacks:
        stack.use_engine = False
    try:
        return run()
    finally:
        for stack in stacks:
            stack.use_engine = True


def matrix_product_rate(device: torch.device) -> float:
    """Measure the FLOP per second of a large matrix product in bfloat16."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    return 2 * 8192**3 / min(timed(lambda: a @ a, device) for _ in range(10))


def gpu_ceilings(device: torch.device) -> str:
    """Measure the rates of a large matrix product and of a large copy, the upper limits of all others."""
    product_rate = matrix_product_rate(device)
    big = torch.empty(1 << 30, device=device, dtype=torch.uint8)
    copy_rate = 2 * big.numel() / min(timed(lambda: big.clone(), device) for _ in range(10))
    return f"Matrix product in bfloat16 {product_rate / 1e12:.0f} TFLOP/s, copy {copy_rate / 1e12:.2f} TB/s."


def stack_shape(text: str) -> tuple[int, int]:
    hidden, kernel = text.split("x")
    return int(hidden), int(kernel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--stacks", type=stack_shape, nargs="*", default=[(64, 3), (64, 5), (128, 3)], metavar="HIDDENxKERNEL")
    parser.add_argument("--grids", type=int, nargs="+", default=[64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="MODULE:CLASS", help="called as (channels, hidden, kernels)"
    )
    args = parser.parse_args()
    keep_freed_memory()
    device = pick_device(args.device)
    precision = pick_precision(args.precision, device)
    print(
        f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, {precision}, {STEPS} steps\n", flush=True
    )
    if device.type == "cuda":
        print(gpu_ceilings(device), flush=True)
    tables = [stack_rows(args, device, precision)] if args.stacks else []
    for rows in [*tables, *([recipe_rows(args, device)] if args.recipes else [])]:
        for row in rows:
            print(row, flush=True)
        print()


if __name__ == "__main__":
    main()
