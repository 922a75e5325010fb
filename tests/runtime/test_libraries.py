"""Threads that wait for each other sleep, unless the user wants otherwise."""

import pytest

from nowcast.runtime.libraries import SPINS, wait_asleep


@pytest.mark.parametrize(
    ("given", "then"),
    [({}, {"GOMP_SPINCOUNT": str(SPINS)}), ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
     ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
     ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": str(SPINS)})],
)  # fmt: skip
def test_waits_are_short_unless_the_environment_says_how_to_wait(given, then):
    wait_asleep(given)
    assert given == then
