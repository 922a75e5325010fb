"""Choose the precision in which a network computes, from the hardware alone: never from measured times, which vary.

| device | "auto" | time of training and of forecasts ÷ that of plain torch in float32 |
| --- | --- | --- |
| x86 with `amx_bf16` | bfloat16 | .11 to .13, .09 to .11 |
| x86 with `avx512_bf16` | bfloat16 | .41 to .44, .39 to .45; in float32 .42 to .61, .36 to .39, with more memory |
| other CPUs | float32 | bfloat16 takes 7.6 times as long without hardware support |
| CUDA, compute capability 8.0 and more | bfloat16 | not measured: has hardware support; earlier ones have none |
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
CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})  # of processors that support bfloat16, by their names in Linux
CUDA_CAPABILITY = (8, 0)  # first compute capability that supports bfloat16
NAMES = ("float32", "bfloat16")


def pick_precision(name: str, device: torch.device, *, flags: Collection[str] | None = None) -> torch.dtype:
    """Return the dtype of the network's arithmetic; "auto": bfloat16 if the hardware supports it, else float32.

    flags: the features of the CPU; default: `processor_flags`
    """
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device, flags=flags) else torch.float32
    return getattr(torch, name)


def forecasting_precision(
    decided: object, device: torch.device, *, name: str, flags: Collection[str] | None = None
) -> torch.dtype:
    """Return the dtype of a trained network's forecasts: that of its training, if the device supports it.

    A device without support for bfloat16 forecasts in float32, and one line is logged.

    decided: "float32" or "bfloat16", as the run recorded it; anything else is treated as "auto"
    name: name of the network, for the log
    """
    precision = pick_precision(str(decided) if decided in NAMES else "auto", device, flags=flags)
    if precision == torch.bfloat16 and not has_bfloat16(device, flags=flags):
        log.info(
            "%s was trained in bfloat16, which this %s does not support in hardware: it forecasts in float32",
            name,
            _kind(device),
        )
        return torch.float32
    return precision


def warn_if_slow(precision: torch.dtype, device: torch.device, *, flags: Collection[str] | None = None) -> None:
    """Log a warning if training in bfloat16 on a device without hardware support, which takes several times as long."""
    if precision == torch.bfloat16 and not has_bfloat16(device, flags=flags):
        message = "training.precision = bfloat16, but this %s has no hardware support for it: float32 is several times faster"
        log.warning(message, _kind(device))


def has_bfloat16(device: torch.device, *, flags: Collection[str] | None = None) -> bool:
    """Return whether a device supports bfloat16 in hardware. flags: see `pick_precision`."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= CUDA_CAPABILITY
    return device.type == "cpu" and not CPU_FLAGS.isdisjoint(processor_flags() if flags is None else flags)


@cache
def processor_flags() -> frozenset[str]:
    """Return the features of the CPU by their names in Linux, such as avx2; an empty set on other systems."""
    with suppress(OSError):
        for line in PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, values = line.partition(":")
            if key.strip() == "flags":
                return frozenset(values.split())
    return frozenset()


def _kind(device: torch.device) -> str:
    return {"cpu": "processor", "cuda": "GPU"}.get(device.type, "device")
