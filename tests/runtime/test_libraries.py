"""Threads that wait for each other sleep; freed memory is used again, not cleared by the system, and given back at last."""

import platform
import subprocess
import sys

import pytest

from nowcast.runtime.libraries import SPINS, wait_asleep

PROGRAM = """
import resource
import sys
import torch
from nowcast.runtime.libraries import freed_memory_kept
from nowcast.runtime.memory import resident_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(int(sys.argv[1]) << 18) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    print(*(faults() for _ in range(30)))
    kept = resident_memory()
print((kept - resident_memory()) >> 20)
"""


@pytest.mark.parametrize(
    ("given", "then"),
    [({}, {"GOMP_SPINCOUNT": str(SPINS)}), ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
     ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
     ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": str(SPINS)})],
)  # fmt: skip
def test_waits_are_short_unless_the_environment_says_how_to_wait(given, then):
    wait_asleep(given)
    assert given == then


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks the C library in glibc's way")
@pytest.mark.parametrize("size", [24, 96])  # MiB of each of three blocks
def test_freed_memory_is_used_again_and_given_back_at_last(size):
    done = subprocess.check_output([sys.executable, "-c", PROGRAM, str(size)], text=True)
    first, *later, given_back = map(int, done.split())
    assert sum(later[-10:]) < first  # of ten rounds together; the first ones find places for the blocks
    assert given_back >= 3 * size
