"""What members depend on: the newest frame alone for their noise, its motion, and the lead time in the structure."""

import numpy as np
import pytest
from makers import rain

from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.default_structure import DEFAULT
from nowcast.forecasters.members.draw import drawn, members
from nowcast.forecasters.members.structure import Structure
from nowcast.motion import trace
from nowcast.scores.distribution import RATES

GRID = (64, 72)
HALF = np.zeros((len(RATES), *GRID), np.float32)
HALF[:4] = 0.5
SEEDS = [(7, member) for member in range(12)]


def made(past, exceedance=HALF, structure=DEFAULT, **options):
    """(member, y, x) mm/h at the first lead time."""
    return next(iter(members(past, iter([exceedance]), 1, 4, 0, structure, **options)))


def still(field):
    """Four equal frames, whose motion is zero."""
    return np.repeat(field[None], 4, axis=0)


def table(*of_leads):
    """A structure whose power and memory (wave of 2 and of 64 km) at 5, 10 and 15 minutes are given for each lead time."""
    power, memory = (np.array([[lead[part] for lead in of_leads]] * 2) for part in (0, 1))
    return Structure(np.array([5.0, 10.0, 15.0]), np.array([2.0, 64.0]), power, memory, 0.0)


def of_leads(structure, motion=(0, 0)):
    """(lead, member, y, x) whether it rains, half of it by chance, at three lead times of rain that moves evenly (y, x)."""
    flow = np.empty((2, *GRID), np.float32)
    flow[:] = np.reshape(motion, (2, 1, 1))
    leads = drawn([Distributions(HALF)] * 3, trace(flow, 3), SEEDS, structure, km=1.0, minutes=5.0)
    return np.stack([fields > 0 for fields in leads])


def test_other_newest_frames_have_other_noise_and_almost_equal_ones_the_same():
    field = rain(frames=1, shape=GRID)[0].round(1)
    one, other = made(still(field)), made(still(field * 1.5))
    assert (one != other).mean() > 0.2
    np.testing.assert_array_equal(made(still(field + np.float32(0.004))), one)
    older = still(field)
    older[-1] *= 1.5
    assert (made(older) != one).mean() > 0.2


def test_rain_that_is_forecast_after_a_dry_newest_frame_is_drawn():
    past = still(rain(frames=1, shape=GRID)[0])
    past[-1] = 0
    assert (made(past) > 0).mean() == pytest.approx(0.5, abs=0.2)
    least = np.full(past.shape, 0.1, np.float32)
    assert made(least).any()
    assert not made(least - np.float32(0.001)).any()


def test_no_member_exceeds_the_largest_rate_of_the_structure():
    certain = np.ones((len(RATES), *GRID), np.float32)
    largest = made(still(rain(frames=1, shape=GRID)[0]), certain, Structure(**(vars(DEFAULT) | {"largest": 60.0}))).max()
    assert 55 < largest <= 60


def test_drizzle_that_counts_as_dry_is_no_texture():
    field = np.where(rain(frames=1, shape=GRID)[0] > 1, np.float32(2), np.float32(0))
    drizzle = field + np.where(field > 0, 0, np.random.default_rng(0).random(GRID) * 0.004).astype(np.float32)
    options = {"of_this_radar": False, "km": 1.0, "minutes": 5.0}
    np.testing.assert_array_equal(made(still(drizzle), **options), made(still(field), **options))


def test_noise_moves_with_the_rain():
    wet = of_leads(table(*[([0, 3], [1, 1])] * 3), motion=(2, -3))
    for lead in (1, 2):
        moved = np.roll(wet[0], (2 * lead, -3 * lead), axis=(1, 2))[:, 6:-6, 9:-9]
        assert (wet[lead][:, 6:-6, 9:-9] == moved).mean() > 0.98


def test_noise_has_the_wavelengths_and_the_memory_of_its_lead_time():
    wet = of_leads(table(([6, 0], [0, 0]), ([0, 9], [0, 0]), ([0, 9], [1, 1])))
    alike = (wet[..., 1:] == wet[..., :-1]).mean(axis=(1, 2, 3))
    assert alike[0] < 0.55  # short waves
    assert alike[1:].min() > 0.75  # long ones
    assert (wet[0] == wet[1]).mean() == pytest.approx(0.5, abs=0.05)
    assert (wet[1] == wet[2]).mean() > 0.95
