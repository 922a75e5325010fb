"""How much memory a process takes and can still take, in bytes: from Linux's /proc, the control group, or CUDA."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from nowcast.errors import MemoryLimitError

GROUPS, PROCESS_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory() -> int:
    """What the process can still take: what the system has available, or less where a control group limits it.

    MemoryLimitError (exit 7) where neither can be found out.
    """
    free = []
    with suppress(OSError, StopIteration):
        free.append(_read("/proc/meminfo", "MemAvailable"))
    for group in _control_groups():
        with suppress(OSError, ValueError, StopIteration):  # "max": no limit
            limit, held = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            free.append(limit - held + _reclaimable(group))
    if not free:
        raise MemoryLimitError("how much memory is free cannot be found out here")
    return max(min(free), 0)


def _control_groups() -> list[Path]:
    """The groups that the process is in, from its own to the outermost (version 2)."""
    with suppress(OSError, StopIteration):
        lines = PROCESS_GROUPS.read_text(encoding="utf-8").splitlines()
        own = GROUPS / next(line for line in lines if line.startswith("0::")).removeprefix("0::").lstrip("/")
        return [own, *(folder for folder in own.parents if folder.is_relative_to(GROUPS))]
    return []


def _reclaimable(group: Path) -> int:
    """Pages of files that nobody uses any more, such as of the cache: they count as held and are given up when asked for."""
    lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])


def total_memory() -> int:
    """What a process could take if it were alone here."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max": no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def resident_memory() -> int:
    """What the process holds now."""
    with suppress(OSError, StopIteration):
        return _read("/proc/self/status", "VmRSS")
    return _most_so_far()


def restart_peak(device: torch.device) -> None:
    """Let `peak_memory` begin anew; on systems other than Linux it stays that of the process so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """The most since `restart_peak`: of the whole process, or on a GPU of what torch held there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        return _read("/proc/self/status", "VmHWM")
    return _most_so_far()


def _most_so_far() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _read(path: str, key: str) -> int:
    """From a line such as `VmRSS:  123456 kB`."""
    lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
