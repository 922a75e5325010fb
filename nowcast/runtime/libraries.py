"""Settings of C libraries: how OpenMP's threads wait, and what glibc keeps of freed memory. Imports neither NumPy nor torch."""

import ctypes
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress

SPINS = 1000  # rounds, some 20 microseconds: longer than most waits on idle cores
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt
MOST_KEPT, MOST_IN_HEAP = 1 << 30, 1 << 30  # bytes: freed memory kept at the end of the heap; largest block in the heap
OLD_MOST_IN_HEAP = 32 << 20  # bytes, the limit of older versions of glibc


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make waiting OpenMP threads sleep after SPINS rounds, unless the user has set another policy in the environment.

    To be called before torch is imported. By default threads spin for milliseconds at the end of each loop. On busy cores this
    takes time from the thread that they wait for. The number of threads, which decides how sums are split and thus their last
    bits, stays the same.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to MOST_IN_HEAP bytes for reuse; other C libraries are left as they are.

    By default glibc returns large blocks to the system, which clears each page again when it is next used: in every training
    step, and for every case that is scored. Up to MOST_KEPT bytes stay at the end of the heap, and more while later blocks are
    in use, until `give_back_freed_memory`.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(M_MMAP_THRESHOLD, MOST_IN_HEAP):
            mallopt(M_MMAP_THRESHOLD, OLD_MOST_IN_HEAP)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def give_back_freed_memory() -> None:
    """Return the freed memory of this process to the system, if the C library is glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for reuse within a block, or as a decorator within a function, and give it back at its end."""
    keep_freed_memory()
    try:
        yield
    finally:
        give_back_freed_memory()
