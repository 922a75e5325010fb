"""Memory that a process uses, keeps and can still get, in bytes: from Linux's /proc, the control group, torch or CUDA."""

import os
import resource
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nowcast.errors import MemoryLimitError

GROUPS, PROCESS_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory() -> int:
    """Return the memory that this process can still allocate, bytes: of the system, or less if a control group limits it.

    Raises MemoryLimitError (exit 7) if neither is known.
    """
    free = []
    with suppress(OSError, StopIteration):
        free.append(_read("/proc/meminfo", "MemAvailable"))
    for group in _control_groups():
        with suppress(OSError, ValueError, StopIteration):  # "max": no limit
            limit, held = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            free.append(limit - held + _reclaimable(group))
    if not free:
        raise MemoryLimitError("the amount of free memory cannot be determined here")
    return max(min(free), 0)


def _control_groups() -> list[Path]:
    """Return the folders of the control groups (version 2) that hold this process, from its own to the outermost."""
    with suppress(OSError, StopIteration):
        lines = PROCESS_GROUPS.read_text(encoding="utf-8").splitlines()
        own = GROUPS / next(line for line in lines if line.startswith("0::")).removeprefix("0::").lstrip("/")
        return [own, *(folder for folder in own.parents if folder.is_relative_to(GROUPS))]
    return []


def _reclaimable(group: Path) -> int:
    """Return the size of inactive file pages, bytes: they count as used, but are freed when memory is needed."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])


def total_memory() -> int:
    """Return the memory that a process could use if it were the only one on this machine, bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max": no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def resident_memory() -> int:
    """Return the memory that this process uses now, bytes."""
    with suppress(OSError, StopIteration):
        return _read("/proc/self/status", "VmRSS")
    return _peak_of_process()


def restart_peak(device: torch.device) -> None:
    """Reset `peak_memory`. Only Linux allows this; elsewhere it stays the peak since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory since `restart_peak`, bytes: of the whole process, or on a GPU that of torch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        return _read("/proc/self/status", "VmHWM")
    return _peak_of_process()


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Measure the peak memory of a call, bytes."""
    if device.type == "cuda":
        run()  # the first run also allocates what later runs reuse
        before = torch.cuda.memory_allocated(device)
        restart_peak(device)
        run()
        return peak_memory(device) - before
    with _Allocations() as allocations:
        run()
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and their peak.

    Needed on the CPU: its allocator keeps no count, and the memory of the process does not grow when freed memory is reused.
    """

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.seen: weakref.WeakSet = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch's compiler, which takes a second

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._free, storage.nbytes())
        return out

    def _free(self, num_bytes: int) -> None:
        self.alive -= num_bytes


def _peak_of_process() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return peak if sys.platform == "darwin" else 1024 * peak


def _read(path: str, key: str) -> int:
    """Read the bytes in a line such as `VmRSS:  123456 kB`."""
    lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
