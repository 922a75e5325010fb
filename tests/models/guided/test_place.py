"""The correction of each place: what is wrong at a place again and again is found, what happens once is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS
from nowcast.models.guided.place import SOURCE, Place, PlaceSums
from nowcast.runtime import compiled

GRID, LEADS, CASES = (20, 24), 4, 120
UNCORRECTED = np.stack([np.zeros((LEADS, len(RATES))), np.ones((LEADS, len(RATES)))], axis=-1)


def case(true_shift, rng):
    """Guidance, and rain whose log-odds are those of the guidance plus the shift (y, x) of its place."""
    coded = rng.integers(-30, 10, (LEADS, len(RATES), *GRID)).astype(np.int8)
    coded = np.sort(coded, axis=1)[:, ::-1]  # heavier rain is less likely
    chance = expit(coded / STEPS + true_shift)
    rain = np.zeros((LEADS, *GRID), np.float32)
    drawn = rng.random((LEADS, 1, *GRID)) < chance
    for number, rate in enumerate(RATES):
        rain[drawn[:, : number + 1].all(axis=1)] = rate
    return coded, rain


def fitted(true_shift, seed=0):
    rng, sums = np.random.default_rng(seed), PlaceSums(GRID, UNCORRECTED)
    for number in range(CASES):
        sums.add(*case(true_shift, rng), half=number % 2, top=0, left=0)
    return sums.fitted()


def test_a_place_that_is_always_drier_is_found():
    true = np.zeros(GRID)
    true[:, :8] = -1.0  # a mountain in the west
    place = fitted(true)
    lowest = place.weight[:, 0].mean() * place.shift[0] / STEPS
    assert lowest[:, 1:6].mean() == pytest.approx(-1.0, abs=0.3)  # one step of Newton's method, not the end of it
    assert abs(lowest[:, 12:].mean()) < 0.1


def test_where_nothing_is_wrong_hardly_anything_is_added():
    place = fitted(np.zeros(GRID))
    added = place.weight[:, 0].mean() * place.shift[0] / STEPS
    assert np.abs(added).max() < 0.25
    assert np.abs(added).mean() < 0.05


def test_one_storm_is_not_a_property_of_its_place():
    """All that is unexpected happens on the days of one half, so the other half does not confirm it."""
    rng, sums, storm = np.random.default_rng(0), PlaceSums(GRID, UNCORRECTED), np.zeros(GRID)
    storm[5:10, 5:10] = 2.0
    for number in range(40):
        half = number % 2
        sums.add(*case(storm if half else -storm, rng), half=half, top=0, left=0)
    place = sums.fitted()
    assert np.abs(place.weight[:, 0]).max() * np.abs(place.shift[0]).max() / STEPS < 0.3


def test_the_correction_is_added_in_steps_of_the_guidance():
    shift = np.zeros((len(RATES), 3, 4), np.float32)
    shift[:, 1, 2] = 7.4
    weight = np.array([[1.0] * len(RATES), [0.5] * len(RATES)], np.float32)
    coded = np.full((3, len(RATES), 2, 3), -20, np.int8)
    coded[:, :, 0, 1] = LARGEST
    coded[:, 0, 1, 1] = MISSING
    before = coded.copy()
    out = Place(shift, weight).apply(coded, top=1, left=2)  # its first cell is row 1, column 2 of the grid
    assert out[0, 3, 0, 0] == -13
    assert out[1, 3, 0, 0] == -16
    assert out[2, 3, 0, 0] == -16  # the weight of the last lead time that has one
    assert out[0, 3, 1, 0] == -20
    assert out[0, 3, 0, 2] == -20  # beyond the grid
    assert (out[:, 0, 1, 1] == MISSING).all()
    assert np.array_equal(coded, before)
    out = Place(np.full((len(RATES), 2, 3), 50, np.float32), weight).apply(coded)
    assert (out[:, :, 0, 1] == LARGEST).all()


@settings(max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    corner=st.tuples(st.integers(0, 45), st.integers(0, 75)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 50)),
    seed=st.integers(0, 99),
)
def test_the_compiled_code_gives_what_numpy_gives(grid, corner, size, seed):
    if compiled.load(SOURCE) is None:
        pytest.skip("no C compiler")
    rng = np.random.default_rng(seed)
    shift = rng.integers(-2000, 2000, (len(RATES), *grid)) / 16  # products and sums are exact
    shift = shift if seed % 2 else shift.astype(np.float32)
    place = Place(shift, (rng.integers(0, 8, (len(RATES), 2)) / 4).astype(np.float32).T)
    coded = rng.integers(MISSING, LARGEST + 1, (3, len(RATES), *size)).astype(np.int8 if seed % 3 else np.int16)
    coded = coded if seed % 5 else coded[..., ::-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "load", lambda *_: None)
        expected = place.apply(coded, *corner)
    assert np.array_equal(place.apply(coded, *corner), expected)


def test_guidance_of_other_rates_is_refused():
    place = Place(np.zeros((len(RATES), 3, 4), np.float32), np.ones((2, len(RATES)), np.float32))
    with pytest.raises(ValueError, match=r"guidance of 3 rates; the correction has 8"):
        place.apply(np.zeros((2, 3, 3, 4), np.int8))


def test_cells_without_guidance_or_rain_count_for_nothing():
    sums = PlaceSums(GRID, UNCORRECTED)
    coded, rain = case(np.zeros(GRID), np.random.default_rng(0))
    coded[..., 0, 0], rain[..., 1, 1] = MISSING, np.nan
    sums.add(coded, rain, half=0, top=0, left=0)
    for cell in ((0, 0), (1, 1)):
        assert not sums.variance[(..., *cell)].any()
        assert not sums.difference[(..., *cell)].any()
    assert sums.variance[0, :, 0, 2, 2].all()
    assert not sums.variance[1].any()


def test_a_part_of_the_grid_is_counted_at_its_place():
    sums = PlaceSums(GRID, UNCORRECTED)
    coded, rain = case(np.zeros(GRID), np.random.default_rng(0))
    sums.add(coded[..., :6, :6], rain[..., :6, :6], half=1, top=17, left=5)  # three of its rows lie beyond the grid
    counted = sums.variance[1, 0, 0] > 0
    assert counted[17:, 5:11].all()
    assert counted.sum() == 3 * 6
    expected = expit(coded[0, 0, 0, 0] / STEPS)
    assert logit(expected) == pytest.approx(coded[0, 0, 0, 0] / STEPS)
    assert sums.variance[1, 0, 0, 17, 5] == pytest.approx(expected * (1 - expected), rel=1e-5)
