"""Which device computes, and in which precision."""

import time
from contextlib import AbstractContextManager

import torch

from nowcast.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device that `--device` names; "auto" is the first of CUDA, MPS and CPU that is there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there.get(name.split(":")[0], False):
        usable = ", ".join(kind for kind, available in there.items() if available)
        raise UsageError(f"--device {name}: there is no such device here; usable: auto, {usable}")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # such as cpu:foo, or the ninth of eight GPUs
        raise UsageError(f"--device {name}: there is no such device here; write cpu, cuda or cuda:0") from None


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic; "auto" takes bfloat16 where a short probe finds its convolutions faster."""
    if name == "auto":
        return torch.bfloat16 if device.type != "mps" and _bfloat16_is_faster(device) else torch.float32
    return getattr(torch, name)


def arithmetic(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """The autocast context of a forward pass; weights, states of the optimizer and losses stay float32."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


@torch.no_grad()
def _bfloat16_is_faster(device: torch.device) -> bool:
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        # small: a processor without bfloat16 units takes a hundred times as long
        frames = torch.ones(1, 64, 32, 32, device=device, dtype=dtype)
        weight = torch.ones(64, 64, 3, 3, device=device, dtype=dtype)
        seconds[dtype] = min(_time(frames, weight, device) for _ in range(3))  # the first pays for the set-up
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


def _time(frames: torch.Tensor, weight: torch.Tensor, device: torch.device) -> float:
    start = time.perf_counter()
    torch.nn.functional.conv2d(frames, weight, padding=1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
