"""Windows and corners of crops are drawn with the probabilities that are promised, compared with a count by brute force."""

from types import SimpleNamespace

import numpy as np
import pytest
from makers.slots import FIVE, times_at

from nowcast.dataset.draws import UNIFORM_SHARE, Series, Weights, uniform_corner
from nowcast.dataset.packed import BLOCK
from nowcast.dataset.windows import find_windows

DRAWS = 2000


def series(rain, shape):
    """A series of 2 past frames and 1 future frame, with this rain (time, block of y, block of x) in a grid of this shape."""
    times = times_at(range(len(rain)))
    frames = SimpleNamespace(rain=rain.mean(axis=(1, 2)), rain_blocks=lambda: rain, shape=(len(rain), *shape))
    return Series("a", frames, find_windows(times, input_frames=2, lead_frames=1, time_step=FIVE))


def corners(weights, **options):
    rng = np.random.default_rng(0)
    return np.array([weights.corner(0, 1, rng, **options) for _ in range(DRAWS)])


@pytest.mark.parametrize(
    ("by_past", "rain_of_windows"),
    [(False, (0.0, 0.4, 0.2)), (True, (0.3, 0.1, 0.2))],  # of the last frame, or the mean of the first two
)
def test_a_window_is_drawn_by_its_rain_and_the_area_of_its_grid(by_past, rain_of_windows):
    rain = np.repeat([[0.4, 0.2, 0.0, 0.4, 0.2]], 12, axis=0).T.reshape(5, 3, 4)
    dry = series(np.zeros((3, 1, 1)), (16, 16))  # one window
    weights = Weights([series(rain, (48, 64)), series(rain, (48, 128)), dry], 32, by_past=by_past)
    areas = np.repeat([48 * 64, 48 * 128, 16 * 16], (3, 3, 1))
    weighted = areas * np.array([*rain_of_windows, *rain_of_windows, 0.0])
    expected = UNIFORM_SHARE / 7 + (1 - UNIFORM_SHARE) * weighted / weighted.sum()
    np.testing.assert_allclose(np.diff(weights.cumulative, prepend=0), expected)
    rng = np.random.default_rng(0)
    drawn = [weights.draw(rng)[:2] for _ in range(DRAWS)]
    cases = [(number, window) for number, count in enumerate((3, 3, 1)) for window in range(count)]
    np.testing.assert_allclose([drawn.count(case) / DRAWS for case in cases], expected, atol=0.03)


@pytest.mark.parametrize("everywhere", [0.0, 0.3])
def test_where_rain_is_the_same_windows_and_crops_are_drawn_with_equal_chance(everywhere):
    weights = Weights([series(np.full((6, 6, 7), everywhere), (96, 112))], 32)
    np.testing.assert_allclose(weights.cumulative, [0.25, 0.5, 0.75, 1])
    found = corners(weights)
    assert ((found >= 0) & (found <= (64, 80))).all()
    np.testing.assert_allclose(found.mean(axis=0), (32, 40), atol=1.5)


def test_a_corner_is_drawn_by_the_rain_below_the_crop():
    rain = np.zeros((4, 6, 7))
    rain[3, 3, 1], rain[3, 1, 4] = 0.6, 0.3  # in the future frame of window 1
    rain[2, 5, 6] = 1.0  # in that of window 0
    found = corners(Weights([series(rain, (96, 112))], 2 * BLOCK))
    expected = np.zeros((65, 81))
    blocks = [(y, x) for y in range(5) for x in range(6)]
    sums = {(y, x): rain[3, y : y + 2, x : x + 2].sum() for y, x in blocks}
    shifts = np.arange(-BLOCK // 2, BLOCK // 2 + 1)
    for (y, x), of_block in sums.items():
        chance = UNIFORM_SHARE / len(blocks) + (1 - UNIFORM_SHARE) * of_block / sum(sums.values())
        for row in np.clip(y * BLOCK + shifts, 0, 64):
            np.add.at(expected, (row, np.clip(x * BLOCK + shifts, 0, 80)), chance / len(shifts) ** 2)
    for axis, size in enumerate(expected.shape):
        counts = np.bincount(found[:, axis], minlength=size) / DRAWS
        np.testing.assert_allclose(np.cumsum(counts), np.cumsum(expected.sum(axis=1 - axis)), atol=0.03)


def test_a_corner_within_a_part_of_a_grid_is_drawn_by_the_rain_in_it():
    rain = np.zeros((4, 6, 7))
    rain[:, 4, 2], rain[:, 0, 0], rain[:, 5, 5] = 0.1, 1.0, 1.0  # the latter two outside
    found = corners(Weights([series(rain, (96, 112))], BLOCK), within=(40, 24, 80, 112))
    around = (np.abs(found - (64, 32)) <= BLOCK // 2).all(axis=1)
    assert around.mean() == pytest.approx(1 - UNIFORM_SHARE * (1 - 1 / 18), abs=0.02)  # 3 by 6 blocks lie in the part


def test_crops_of_a_dry_part_beside_rain_are_drawn_with_equal_chance():
    rain = np.zeros((15, 40, 48))  # 12 past frames and, of window 1, one future frame
    rain[:, :, :20] = np.random.default_rng(1).random((15, 40, 20)) ** 4
    found = corners(Weights([series(rain, (640, 768))], 8 * BLOCK), within=(0, 384, 640, 768))
    counts = np.bincount((found[:, 0] + BLOCK // 2) // BLOCK, minlength=33) / DRAWS
    np.testing.assert_allclose(counts[1:-1], 1 / 33, atol=0.02)


def test_a_corner_within_a_part_of_a_grid_reaches_all_of_it():
    rain = np.ones((4, 6, 7))
    found = corners(Weights([series(rain, (96, 112))], 20), within=(18, 5, 60, 107))
    assert (found.min(axis=0).tolist(), found.max(axis=0).tolist()) == ([18, 5], [40, 87])
    narrow = corners(Weights([series(rain, (96, 112))], 48), within=(18, 5, 60, 107))  # higher than the part
    assert (narrow.min(axis=0).tolist(), narrow.max(axis=0).tolist()) == ([18, 5], [18, 59])


def test_a_uniform_corner_has_equal_chances():
    rng = np.random.default_rng(0)
    found = np.array([uniform_corner((20, 40), 32, rng) for _ in range(DRAWS)])
    assert (found[:, 0] == 0).all()  # a crop is larger than the grid
    np.testing.assert_allclose(np.bincount(found[:, 1]) / DRAWS, np.full(9, 1 / 9), atol=0.02)
    assert uniform_corner((20, 40), 0, rng) == (0, 0)
