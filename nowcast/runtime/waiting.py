"""Set how OpenMP threads wait for each other. Does not import torch: it must be set before torch is loaded."""

import os
from collections.abc import MutableMapping

SPINS = 1000  # rounds, some 20 microseconds: longer than most waits on idle cores


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make waiting OpenMP threads sleep after SPINS rounds, unless the user has set another policy in the environment.

    By default they spin for milliseconds at the end of each loop. On busy cores this takes time from the thread that they
    wait for. The number of threads, which decides how sums are split and thus their last bits, stays the same.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
