"""Decide in which precision a network computes: by what the processor has, never by a clock.

| device | "auto" | time of training and of forecasts ÷ that of plain torch in float32 |
| --- | --- | --- |
| x86 with `amx_bf16` | bfloat16 | .11 to .13, .09 to .11 |
| x86 with `avx512_bf16` | bfloat16 | .41 to .44, .39 to .45; in float32 .42 to .61, .36 to .39, with more memory |
| other CPUs | float32 | bfloat16 takes 7.6 times as long without units of its own |
| CUDA, compute capability 8.0 and more | bfloat16 | not measured: has units for it; earlier ones have none |
| MPS | float32 | not measured |

Layers of 64 and 128 channels, kernels of 3 and 5 cells were measured (scripts/benchmarks/engine.md): all are on the same side,
so shapes do not change the choice.
"""

import logging
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

log = logging.getLogger(__name__)
PROCESSOR = Path("/proc/cpuinfo")
CPU_UNITS = frozenset({"amx_bf16", "avx512_bf16"})  # of bfloat16, as Linux calls them
CUDA_UNITS = (8, 0)  # first compute capability with units of bfloat16
NAMES = ("float32", "bfloat16")


def pick_precision(name: str, device: torch.device, *, flags: Collection[str] | None = None) -> torch.dtype:
    """Return the dtype of the network's arithmetic; "auto" is bfloat16 where the device has units for it, else float32.

    flags: what the CPU has, by default this one's `processor_flags`
    """
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device, flags=flags) else torch.float32
    return getattr(torch, name)


def forecasting_precision(
    decided: object, device: torch.device, *, name: str, flags: Collection[str] | None = None
) -> torch.dtype:
    """Return the dtype of a trained network's forecasts: the one that its training decided on, where the device can.

    On a device without units of bfloat16 that is float32, which is said in one line.

    decided: "float32" or "bfloat16"; anything else, as of a run that recorded nothing, decides anew
    name: of the network, for the line
    """
    precision = pick_precision(str(decided) if decided in NAMES else "auto", device, flags=flags)
    if precision == torch.bfloat16 and not has_bfloat16(device, flags=flags):
        log.info("%s was trained in bfloat16, for which this %s has no units: it forecasts in float32", name, _kind(device))
        return torch.float32
    return precision


def check_units(precision: torch.dtype, device: torch.device, *, flags: Collection[str] | None = None) -> None:
    """Warn of a training in bfloat16 on a device without units for it, which takes several times as long."""
    if precision == torch.bfloat16 and not has_bfloat16(device, flags=flags):
        message = "training.precision = bfloat16, for which this %s has no units: float32 would take a fraction of the time"
        log.warning(message, _kind(device))


def has_bfloat16(device: torch.device, *, flags: Collection[str] | None = None) -> bool:
    """Return whether a device has units for bfloat16. flags: as of `pick_precision`."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= CUDA_UNITS
    return device.type == "cpu" and not CPU_UNITS.isdisjoint(processor_flags() if flags is None else flags)


@cache
def processor_flags() -> frozenset[str]:
    """Return what the CPU has by the names of Linux, such as avx2; none on other systems."""
    with suppress(OSError):
        for line in PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, values = line.partition(":")
            if key.strip() == "flags":
                return frozenset(values.split())
    return frozenset()


def _kind(device: torch.device) -> str:
    return {"cpu": "processor", "cuda": "GPU"}.get(device.type, "device")
