"""Bootstrap intervals have the right width, draw whole blocks, pair forecasters, and are left out where blocks are too few."""

import time

import numpy as np
import pytest
from makers.intervals import interval

from nowcast.scores import SCORES, Setup, tallies
from nowcast.scores.bootstrap import MIN_BLOCKS, difference_interval, quantiles
from nowcast.scores.pixels import Sums, mae, sums
from nowcast.scores.spatial import fss


def blocks_of(num_blocks, *, seed=0, error=0.0, shape=(2, 12, 12)) -> list[Sums]:
    """Blocks with errors of their own size (gamma), `error` more in each, on the same observations for each seed."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(num_blocks):
        observed = rng.gamma(0.5, 6, shape)
        forecast = observed + rng.gamma(2, 2) + error
        made.append(sums(forecast, observed))
    return made


def test_an_interval_of_fewer_than_five_blocks_is_nan():
    low, high = interval(blocks_of(MIN_BLOCKS - 1), "csi")
    assert low.shape == high.shape == (2, 4)
    assert np.isnan([low, high]).all()
    assert not np.isnan(interval(blocks_of(MIN_BLOCKS), "csi")).any()
    assert np.isnan(interval([], "csi")).all()


@pytest.mark.parametrize("name", sorted(name for name, score in SCORES.items() if score.kind == "pairs"))
def test_an_interval_surrounds_the_pooled_score_and_repeats_with_its_seed(name):
    blocks = blocks_of(30)
    low, high = interval(blocks, name)
    score = SCORES[name](sum(blocks))
    assert low.shape == score.shape
    assert ((low < score) & (score < high) | (low == high)).all()
    np.testing.assert_array_equal(interval(blocks, name, seed=0), (low, high))
    if name == "mae":
        assert (low != interval(blocks, name, seed=1)[0]).any()


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error():
    blocks = blocks_of(200, seed=4, shape=(1, 3, 3))
    means = np.array([mae(block).item() for block in blocks])
    for level, normal_quantile in ((0.95, 1.960), (0.8, 1.2816)):
        low, high = interval(blocks, "mae", num_samples=4000, level=level)
        expected = 2 * normal_quantile * means.std() / np.sqrt(len(means))
        assert abs((high - low).item() / expected - 1) < 0.06
        assert abs((high + low).item() / 2 - means.mean()) < 0.1 * expected


def test_an_interval_is_given_up_to_one_undefined_resample_in_twenty():
    values = np.repeat(np.arange(100.0)[:, None], 2, axis=1)
    values[:5, 0], values[:6, 1] = np.nan, np.nan
    low, high = quantiles(values)
    np.testing.assert_allclose([low, high], [[5 + 0.025 * 94, np.nan], [5 + 0.975 * 94, np.nan]])


def with_undefined(values, most):
    """Make up to `most` values undefined in each column, at the start of it."""
    return np.where(np.arange(len(values))[:, None] < np.arange(values.shape[1]) % (most + 1), np.nan, values)


def test_the_ends_are_the_quantiles_of_what_is_defined():
    values = with_undefined(np.random.default_rng(0).normal(size=(1000, 120)), 50)
    for level in (0.95, 0.8):
        expected = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        np.testing.assert_allclose(quantiles(values, level), expected, rtol=1e-12)
    np.testing.assert_allclose(quantiles(values[:, 7]), np.nanquantile(values[:, 7], [0.025, 0.975]), rtol=1e-12)


def test_undefined_resamples_take_no_more_time_than_others():
    values = np.random.default_rng(0).normal(size=(1000, 300))
    fewest = [np.inf, np.inf]  # s
    for _ in range(5):  # in turn, since the load of the machine changes
        for number, given in enumerate((values, with_undefined(values, 50))):
            began = time.process_time()
            quantiles(given)
            fewest[number] = min(fewest[number], time.process_time() - began)
    assert fewest[1] < 3 * fewest[0], "numpy.nanquantile takes ten times as long"


def test_blocks_that_are_alike_leave_no_doubt():
    low, high = interval(blocks_of(1) * 8, "rmse")
    np.testing.assert_allclose(low, high, rtol=1e-12)


def test_a_resample_holds_as_many_blocks_as_there_are():
    blocks = blocks_of(7)
    np.testing.assert_array_equal(interval(blocks, lambda s: s.num_pairs), [sum(blocks).num_pairs] * 2)


def test_one_resample_has_one_score():
    low, high = interval(blocks_of(9), "mae", num_samples=1)
    assert low.tolist() == high.tolist()
    assert (low != mae(sum(blocks_of(9)))).all()


def test_blocks_without_pairs_are_no_blocks():
    blocks = blocks_of(6)
    np.testing.assert_array_equal(interval([*blocks, Sums.zeros(2)], "ets"), interval(blocks, "ets"))
    assert np.isnan(interval(blocks[:4] + [Sums.zeros(2)] * 4, "ets")).all()


def test_an_interval_is_nan_where_many_resamples_have_no_score():
    rain, dry = np.full((1, 4, 4), 7.0), np.zeros((1, 4, 4))
    rare = [sums(rain, rain)] + [sums(dry, dry)] * 7  # 5 mm/h is absent from a third of the resamples
    low, high = interval(rare, "csi")
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert not np.isnan(interval(rare, "mae")).any()


def test_an_interval_of_the_mean_over_leads_is_that_of_leads_resampled_together():
    blocks = blocks_of(20)
    low, high = interval(blocks, SCORES["csi"].mean_over_leads)
    score = SCORES["csi"].mean_over_leads(sum(blocks))
    assert low.shape == (4,)
    assert ((low < score) & (score < high)).all()


def test_a_paired_difference_is_sharper_than_the_two_intervals():
    ours, theirs = blocks_of(12, error=0.0), blocks_of(12, error=0.5)
    low, high = difference_interval(theirs, ours, SCORES["bias"])
    np.testing.assert_allclose([low, high], 0.5, rtol=1e-9)  # the same on every block, though blocks differ much
    alone = interval(ours, "bias")
    assert (alone[1] - alone[0] > 1).all()
    assert (difference_interval(ours, ours, SCORES["csi"])[0] == 0).all()
    assert (difference_interval(ours, theirs, SCORES["mae"])[1] < 0).all()


def test_a_paired_difference_needs_the_same_pairs():
    blocks = blocks_of(6)
    with pytest.raises(ValueError, match="cannot be paired"):
        difference_interval(blocks, blocks[:5], SCORES["csi"])
    with pytest.raises(ValueError, match="same pairs"):
        difference_interval(blocks, [*blocks[:5], blocks[0] + blocks[5]], SCORES["csi"])
    assert np.isnan(difference_interval(blocks[:4], blocks[:4], SCORES["csi"])).all()


def tally_of(seed, *, holed=False):
    """A day's sums of every kind; `holed`: no window of 3 cells is known."""
    observed, forecast = np.random.default_rng(seed).gamma(0.5, 6, (2, 2, 12, 12))
    known = np.ones(observed.shape, bool)
    known[:, ::2, ::2] = not holed
    return tallies({"x": forecast}, observed, known, Setup((1.0,), (1.0, 1.0), scales_km=(3.0,)))["x"]


def test_the_interval_of_a_tally_is_that_of_its_kind():
    blocks = [tally_of(seed) for seed in range(7)]
    for name in ("fss", "csi", "ssim", "spectrum_ratio"):
        alone = [block[SCORES[name].kind] for block in blocks]
        np.testing.assert_array_equal(interval(blocks, name), interval(alone, name))
    low, high = interval(blocks, "fss")
    value = fss(sum(blocks)["windows"])
    assert low.shape == value.shape == (2, 1, 1)
    assert ((low < value) & (value < high)).all()


def test_a_kind_with_pairs_in_too_few_blocks_has_no_interval():
    blocks = [tally_of(seed, holed=seed >= MIN_BLOCKS - 1) for seed in range(8)]
    assert np.isnan(interval(blocks, "fss")).all()
    assert not np.isnan(interval(blocks, "csi")).any()
    assert not np.isnan(interval([tally_of(seed, holed=seed >= MIN_BLOCKS) for seed in range(8)], "fss")[0]).any()


@pytest.mark.slow
def test_the_interval_of_a_paired_difference_holds_the_truth_as_often_as_it_says():
    """120 archives of 30 days: the true difference of 0.3 lies in 80 % of the 80 % intervals."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(120):
        sides = [], []
        for _ in range(30):
            observed = rng.gamma(0.5, 6, (1, 4, 4))
            error = rng.gamma(2, 2)
            for side, more in zip(sides, (0.3 + rng.normal(0, 0.5), 0.0), strict=True):
                side.append(sums(observed + error + more, observed))
        low, high = difference_interval(*sides, SCORES["bias"], num_samples=400, level=0.8)
        held += bool(low[0] <= 0.3 <= high[0])
    assert 0.68 < held / 120 < 0.9
