"""The structure of the noise is found again in rain that was drawn with it."""

import itertools

import numpy as np
import pytest
from makers import rain

from nowcast.forecasters.members import measure as measuring
from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.draw import members
from nowcast.forecasters.members.measure import (
    LOG_ERROR,
    MEASURED,
    MEMBERS,
    SHARED,
    Case,
    Waves,
    corrected,
    measure,
    wave_numbers,
)
from nowcast.forecasters.members.structure import INTENSITY, NOISES, OCCURRENCE, Structure
from nowcast.motion import motion, trace

GRID, LEADS = (32, 32), 3


CHANCES = np.array([0.6, 0.5, 0.4, 0.3, 0.1, *[0.01] * 8], np.float32)[:, None, None] * np.ones((1, *GRID), np.float32)


def cases_drawn_with(structure, number, *, moving=(0, 0)):
    """Cases whose outcome is a member of the forecast."""
    for seed in range(number):
        past, exceedance = rain(frames=4, shape=GRID, seed=seed, motion=moving), np.stack([CHANCES] * LEADS)
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


def test_the_first_guess_has_the_scale_of_the_cases():
    past, exceedance = np.zeros((2, *GRID), np.float32), np.zeros((LEADS, 13, *GRID), np.float32)
    observed = np.full((LEADS, *GRID), np.nan, np.float32)
    for heaviest, largest in ((70, 70), (5, 60)):  # of rain of 5 mm/h alone the highest rate is unknown
        observed[1, 2, 3] = heaviest
        case = Case(past, observed, exceedance)
        found = measure(lambda case=case: iter([case]), GRID, LEADS, km=2.0, minutes=10.0, rounds=0)
        assert found.minutes.tolist() == [10, 20, 30]
        assert found.km.tolist() == [4, 8, 16, 32, 64, 128]
        assert found.largest == largest


def test_members_that_are_as_observed_leave_the_structure_as_it_is(monkeypatch):
    """Cells that are not observed do not count, and both are compared with the same distributions."""
    first, *others = cases_drawn_with(first_guess(), 3, moving=(1, 2))
    covered = np.stack([first.observed, *(other.observed for other in others)])
    covered[1, :, 8:20, 5:] = np.nan
    covered[0, 1, 3, 4] = 140.0  # the largest rate
    cases = [Case(case.past, seen, case.exceedance) for case, seen in zip((first, *others), covered, strict=True)]
    drawn = []

    def as_observed(distributions, places, seeds, structure, *, km, minutes):
        case = cases[len(drawn)]
        for place, expected in zip(places, trace(motion(case.past), LEADS), strict=True):
            np.testing.assert_array_equal(place, expected)
        drawn.append((seeds, structure.largest, km, minutes))
        for observed in case.observed:
            yield np.stack([np.nan_to_num(observed, nan=50.0)] * len(seeds))

    monkeypatch.setattr(measuring, "drawn", as_observed)
    found = measure(lambda: iter(cases), GRID, LEADS, km=2.0, minutes=10.0, rounds=1)
    assert drawn == [([(case, member) for member in range(MEMBERS)], 140, 2, 10) for case in range(3)]
    guess = first_guess()
    np.testing.assert_allclose(found.power, guess.power - guess.power.max(axis=-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(found.memory, guess.memory, atol=1e-4)


def test_waves_are_summed_over_the_whole_transform(monkeypatch):
    """Sums over half of the coefficients are those over all of them, of both noises and of the logarithm of rain."""
    observed, drawn = (rain(frames=LEADS, shape=GRID, seed=seed, motion=(1, seed)) for seed in (1, 2))
    case = Case(np.zeros((2, *GRID), np.float32), observed, np.stack([CHANCES] * LEADS))
    monkeypatch.setattr(measuring, "drawn", lambda *_, **__: (np.stack([lead] * MEMBERS) for lead in drawn))
    found = measure(lambda: iter([case]), GRID, LEADS, km=2.0, minutes=10.0, rounds=1)
    expected = corrected(first_guess(), whole_sums(observed), whole_sums(drawn))
    np.testing.assert_allclose(found.power, expected.power, atol=2e-3)
    np.testing.assert_allclose(found.memory, expected.memory, atol=2e-3)


def whole_sums(fields):
    """Return the Waves of each of MEASURED, of rain (lead, y, x)."""
    number, distribution = wave_numbers(GRID), Distributions(CHANCES, 60.0)
    number = np.concatenate([number, np.roll(number[::-1], 1, axis=0)[:, -2:0:-1]], axis=1)  # of negative frequencies
    of_log = [np.log1p(2 * field) - distribution.expected(lambda rate: np.log1p(2 * rate)) for field in fields]
    noises = zip(*map(distribution.noise, fields), strict=True)
    found = []
    for leads in (*noises, of_log):
        waves = np.fft.fft2(np.array(leads, np.float64))
        power = [np.bincount(number.ravel(), (np.abs(wave) ** 2).ravel()) for wave in waves]
        product = [
            np.bincount(number.ravel(), (after * before.conj()).real.ravel()) for before, after in itertools.pairwise(waves)
        ]
        found.append(Waves(np.array(power), np.array(product)))
    return found


def first_guess():
    return measure(lambda: iter([]), GRID, LEADS, km=2.0, minutes=10.0, rounds=0)


def waves(*, power=None, correlation=None):
    """Waves of 3 lead times and 2 wavelengths, of power 1 but where it is given by its logarithm, (lead, wave)."""
    power = np.exp(np.zeros((3, 2)) if power is None else np.array(power, float))
    scale = np.sqrt(power[1:] * power[:-1])
    return Waves(power, scale * np.array(np.zeros((2, 2)) if correlation is None else correlation))


def test_a_correction_by_hand():
    """Four fifths of each difference, a quarter of it at the neighbouring lead times; the strongest wave has the power 1."""
    structure = Structure(np.array([10, 20, 30]), np.array([4, 8]), np.zeros((2, 3, 2)), np.full((2, 3, 2), 0.5), SHARED)
    observed, drawn = [waves() for _ in MEASURED], [waves() for _ in MEASURED]
    observed[OCCURRENCE] = waves(power=[[1, 0], [0, 0], [0, 0]], correlation=[[np.tanh(1), 0], [0, 0.9999]])
    drawn[OCCURRENCE] = waves(correlation=[[np.tanh(0.5), 0], [0, 0.998]])  # .998 is the limit of both
    observed[INTENSITY] = waves(power=[[9, 0], [9, 0], [9, 0]], correlation=[[0, 0], [np.tanh(-0.4), 0]])
    observed[LOG_ERROR] = waves(power=[[0, 0], [0, 0], [0, 2]])  # gives the power of the intensity
    drawn[LOG_ERROR].power[0, 1] = 0  # no member has this wave: nothing to compare with
    found = corrected(structure, observed, drawn)
    np.testing.assert_allclose(found.power[OCCURRENCE], [[0, -0.6], [0, -0.2], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(found.power[INTENSITY], [[0, 0], [-0.4, 0], [-1.2, 0]], atol=1e-12)
    state = np.arctanh(found.memory) - np.arctanh(0.5)
    np.testing.assert_allclose(state[OCCURRENCE], [[0.3, 0], [0.3, 0], [0.1, 0]], atol=1e-12)
    np.testing.assert_allclose(state[INTENSITY], [[-0.08, 0], [-0.08, 0], [-0.24, 0]], atol=1e-12)


def test_a_correction_stays_within_limits():
    structure = Structure(np.array([10, 20, 30]), np.array([4, 8]), np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), SHARED)
    structure.memory[OCCURRENCE] = 1
    drawn = [waves() for _ in MEASURED]
    observed = [waves(power=[[99, 0]] * 3, correlation=np.full((2, 2), 0.9 * (-1) ** each)) for each in MEASURED]
    found = corrected(structure, observed, drawn)
    np.testing.assert_allclose(found.power, np.broadcast_to([0.0, -20.0], (len(NOISES), 3, 2)))
    np.testing.assert_allclose(found.memory[OCCURRENCE], np.tanh(4))
    np.testing.assert_allclose(found.memory[INTENSITY], 0)
    assert waves(correlation=np.ones((2, 2))).correlation().tolist() == [[0.998] * 2] * 2
