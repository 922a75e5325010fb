"""Measure the speed of this machine once and keep it in the cache, so that all plans on it use the same value.

On a CPU the processor time of one thread is measured, which other processes hardly affect; SPEED_UP accounts for several
threads. The best of several steps is taken, and rounded coarsely.
"""

import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nowcast.config.schema import Experiment
from nowcast.errors import OutputError
from nowcast.plan.cost import (
    COMPARED,
    READING,
    Cost,
    guidance_operations,
    memory,
    operations,
    validation_memory,
    validation_operations,
)
from nowcast.plan.references import reference_experiment
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.device import num_cores
from nowcast.runtime.outputs import replacing
from nowcast.runtime.threads import one_thread
from nowcast.training.learner import Learner
from nowcast.training.step_cost import probe

log = logging.getLogger(__name__)
FILE, VERSION = "speed.json", 1  # name in the cache folder; version of the measurement
CASES, SIDE = {"cpu": 2, "cuda": 16, "mps": 4}, 96  # of the measured steps: number of cases by device, cells of a side
REPEATS = 4  # number of steps, of which the fastest counts
ROUNDING = math.sqrt(2)  # speeds are powers of this number
SPEED_UP = 0.8  # n threads are n to this power times as fast as one

Measure = Callable[[str, torch.device], float]  # the name of a model -> its operations per second


@dataclass(frozen=True)
class Machine:
    """A device with its threads and its speed.

    measure: measures the operations per second for steps of a model: of one thread, or of a whole GPU
    threads, cores: number that this process may use
    measured: speeds by device and kind of model, used if there is no cache
    """

    device: torch.device
    measure: Measure
    threads: int
    cores: int
    measured: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the device, for comments."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} ({self.threads} thread{'s' if self.threads > 1 else ''})"

    def cost(self, experiment: Experiment, shape: tuple[int, int], grid: tuple[int, int]) -> Cost:
        """Return the cost of a step of the experiment on this machine.

        shape: (y, x) cells of a case; grid: (y, x) cells of the whole grid
        """
        kind, batch_size = experiment.model.name, experiment.training.batch_size
        speed = self._speed(kind, self.device)
        faster = self.threads**SPEED_UP if self.device.type == "cpu" else 1
        step = READING[kind] * operations(experiment, shape, batch_size=batch_size) / (speed * faster)
        held, guidance, each, once = memory(experiment, shape, batch_size=batch_size), 0.0, 0.0, 0.0
        if kind == "guided":  # always made on the CPU, each case by one core
            of_core = self._speed(kind, torch.device("cpu"))
            whole = experiment.data.model_copy(update={"crop": 0})
            guidance = guidance_operations(experiment.data, grid) / (of_core * self.cores)
            once = guidance_operations(whole, grid) / of_core * (1 / self.cores + COMPARED)
            each = validation_operations(experiment, grid) / (speed * faster)
            held = max(held, validation_memory(experiment.data, grid, batch_size=batch_size))
        return Cost(step, held, guidance, each, once)

    def _speed(self, kind: str, device: torch.device) -> float:
        """Return the operations per second for a kind of model, from the cache or measured now."""
        if speed := self.measured.get((kind, device.type)):
            return speed
        path = cache_folder() / FILE
        kept = _read(path)
        machine = f"{_processor(device)}, {self.cores} cores, torch {torch.__version__}, version {VERSION}"
        known = kept.get(machine, {})
        if not _is_speed(known.get(kind)):
            log.info("measuring the speed of this machine, once")
            known = known | {kind: ROUNDING ** round(math.log(self.measure(kind, device), ROUNDING))}
            with suppress(OSError, OutputError):  # without a cache every plan measures anew
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(kept | {machine: known}, indent=1), encoding="utf-8")
        self.measured[kind, device.type] = known[kind]
        return known[kind]


def measure_speed(kind: str, device: torch.device) -> float:
    """Measure the operations per second for steps of a kind of model; on a CPU those of one thread.

    The model is always that of the recipe, so that the speed does not depend on the first plan.
    """
    experiment, cases, shape = reference_experiment(kind), CASES[device.type], (SIDE, SIDE)
    on_cpu = device.type == "cpu"
    with one_thread(torch.get_num_threads, torch.set_num_threads) if on_cpu else nullcontext():
        learner = Learner(experiment, device)
        seconds = [_seconds(learner, cases, shape) for _ in range(1 + REPEATS)][1:]  # the first includes set-up
    return operations(experiment, shape, batch_size=cases) / min(seconds)


def this_machine(device: torch.device, measure: Measure = measure_speed) -> Machine:
    """Return this machine, with as many threads and cores as this process may use."""
    return Machine(device, measure, torch.get_num_threads(), num_cores())


def _seconds(learner: Learner, cases: int, shape: tuple[int, int]) -> float:
    """Return the time of a step, s: processor time on a CPU, elapsed time on a GPU."""
    began = time.process_time()
    passed = probe(learner, cases, shape).seconds
    return time.process_time() - began if learner.device.type == "cpu" else passed


def _read(path: Path) -> dict[str, dict]:
    """Return the speeds by machine and kind of model; none if the file is absent or damaged."""
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and all(isinstance(known, dict) for known in kept.values()):
            return kept
    return {}


def _is_speed(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")) + f" {device.type}"
    return f"{platform.processor() or os.uname().machine} {device.type}"
