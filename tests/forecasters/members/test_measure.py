"""The structure of the noise is found again in rain that was drawn with it."""

import numpy as np
import pytest
from makers import rain

from nowcast.forecasters.members.draw import members
from nowcast.forecasters.members.measure import SHARED, Case, measure, wave_numbers
from nowcast.forecasters.members.structure import INTENSITY, OCCURRENCE, Structure

GRID, LEADS = (32, 32), 3


def cases_drawn_with(structure, number):
    """Cases whose outcome is a member of the forecast."""
    chances = np.array([0.6, 0.5, 0.4, 0.3, 0.1, *[0.01] * 8], np.float32)[:, None, None] * np.ones((1, *GRID), np.float32)
    for seed in range(number):
        past, exceedance = rain(frames=4, shape=GRID, seed=seed, motion=(0, 0)), np.stack([chances] * LEADS)
        drawn = members(past, exceedance, LEADS, 1, 1000 + seed, structure, km=2.0, minutes=10.0)
        yield Case(past, np.concatenate(list(drawn)), exceedance)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.5, 1.5])
def test_the_structure_of_rain_is_found(slope):
    lengths = np.array([4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
    # where it rains, and how hard: the latter in waves of its own that last less long
    power = np.stack([np.tile(each * np.log(lengths), (LEADS, 1)) for each in (1.5, slope)])
    lasting = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9], [0.2, 0.4, 0.6, 0.8, 0.9, 0.9]
    memory = np.stack([np.tile(values, (LEADS, 1)) for values in lasting])
    true = Structure(10.0 * np.arange(1, LEADS + 1), lengths, power, memory, SHARED)
    cases = list(cases_drawn_with(true, 24))
    found = measure(lambda: iter(cases), GRID, LEADS, km=2.0, minutes=10.0)
    np.testing.assert_allclose(found.km, lengths)
    known = slice(0, 3)  # of longer waves the cases hold few
    for noise, compared in ((OCCURRENCE, known), (INTENSITY, slice(0, 2))):
        rises = (np.diff(each)[noise, :, compared] for each in (found.power, power))
        np.testing.assert_allclose(*rises, atol=0.5)
    np.testing.assert_allclose(found.memory[OCCURRENCE, 1:, known], memory[OCCURRENCE, 1:, known], atol=0.15)
    np.testing.assert_allclose(found.memory[INTENSITY, 1:, known], memory[INTENSITY, 1:, known], atol=0.3)  # in part hidden
    assert found.largest == pytest.approx(max(float(case.observed.max()) for case in cases))


def test_waves_are_numbered_by_octaves_of_cells():
    number = wave_numbers((32, 32))
    assert number[0, 16] == 0  # 2 cells
    assert (number[0, 8], number[0, 4], number[0, 1]) == (1, 2, 4)  # 4, 8 and 32 cells
    assert number[0, 0] == 5  # the mean
