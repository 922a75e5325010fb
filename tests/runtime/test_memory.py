"""A training's freed memory is used again, not cleared by the system in every step, and given back at its end."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from nowcast.runtime.memory import give_back_freed_memory, keep_freed_memory, resident_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(6 << 20) for _ in range(3)]  # 24 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(*(faults() for _ in range(30)))
kept = resident_memory()
give_back_freed_memory()
print((kept - resident_memory()) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks the C library in glibc's way")
def test_freed_memory_is_used_again_and_given_back_at_last():
    first, *later, given_back = map(int, subprocess.check_output([sys.executable, "-c", PROGRAM], text=True).split())
    assert sum(later[-10:]) < first  # of ten rounds together; the first ones find places for the blocks
    assert given_back >= 72  # MiB: the three blocks
