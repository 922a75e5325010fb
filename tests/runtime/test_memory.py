"""A training's freed memory is used again, not cleared by the system in every step, and given back at its end."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import torch
from nowcast.runtime.libraries import give_back_freed_memory, keep_freed_memory
from nowcast.runtime.memory import resident_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(int(sys.argv[1]) << 18) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(*(faults() for _ in range(30)))
kept = resident_memory()
give_back_freed_memory()
print((kept - resident_memory()) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks the C library in glibc's way")
@pytest.mark.parametrize("size", [24, 96])  # MiB of each of three blocks
def test_freed_memory_is_used_again_and_given_back_at_last(size):
    done = subprocess.check_output([sys.executable, "-c", PROGRAM, str(size)], text=True)
    first, *later, given_back = map(int, done.split())
    assert sum(later[-10:]) < first  # of ten rounds together; the first ones find places for the blocks
    assert given_back >= 3 * size
