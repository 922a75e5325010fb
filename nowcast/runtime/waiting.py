"""How the threads of one computation wait for each other; without torch, because it must be set before torch is loaded."""

import os
from collections.abc import MutableMapping

SPINS = 1000  # rounds, some 20 microseconds: longer than most waits on idle cores


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep while they wait, after SPINS rounds; what the user has set in the environment stays.

    By default they spin for milliseconds at the end of each loop. On busy cores that takes the very time that the thread they
    wait for needs. The number of threads, which decides how sums are split and thus their last bits, stays the same.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
