"""The device that a network computes on, its cores, and how a forward pass computes there."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import cv2
import torch
from torch import nn

from nowcast.errors import UsageError
from nowcast.runtime.threads import threads_kept

log = logging.getLogger(__name__)


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device that `--device` names; a CUDA device becomes torch's current one. "auto": the first of CUDA, MPS, CPU.

    Raises UsageError (exit 2) if there is no such device.
    """
    name = str(name)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_available in available.items() if is_available))
    if not available.get(name.split(":")[0], False):
        usable = ", ".join(kind for kind, is_available in available.items() if is_available)
        raise UsageError(f"--device {name}: there is no such device here; usable: auto, {usable}")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # such as cpu:foo, or the ninth of eight GPUs
        raise UsageError(f"--device {name}: there is no such device here; write cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)  # graphs are captured on the device that is set
    return device


def num_cores() -> int:
    """Return the number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def session_kept() -> Iterator[None]:
    """Leave torch's random numbers and OpenCV's number of threads as they were before a block.

    A training seeds the former; batches in Lagrangian coordinates set the latter to one, since their workers may be forked.
    """
    is_used = torch.cuda.is_initialized()
    before, on_gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all() if is_used else []
    with threads_kept(cv2.getNumThreads, cv2.setNumThreads):
        try:
            yield
        finally:
            torch.set_rng_state(before)
            if is_used:
                torch.cuda.set_rng_state_all(on_gpus)
            else:  # GPUs that no one used have no state yet: their seed is the one that torch had
                torch.cuda.manual_seed_all(torch.initial_seed())


class Compiled:
    """A compiled model. Compiles on the first call and logs the time. If that fails, logs one warning and runs eagerly."""

    def __init__(self, model: nn.Module, *, mode: str | None = None):
        self.model, self.compiled, self.is_new = model, torch.compile(model, mode=mode), True

    def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor:
        if not self.is_new:
            return self.compiled(*arguments, **named)
        began, self.is_new = time.perf_counter(), False
        try:
            out = self.compiled(*arguments, **named)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever dynamo, inductor, triton or a missing compiler raises
            log.warning("torch.compile failed (%s): training goes on without", (str(error).splitlines() or [repr(error)])[0])
            self.compiled = self.model
            return self.model(*arguments, **named)
        log.info("compiled in %.0f s", time.perf_counter() - began)
        return out


def arithmetic(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Return the autocast context of a forward pass; weights, optimizer states and losses stay float32."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
