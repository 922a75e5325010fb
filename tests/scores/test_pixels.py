"""Scores of fields equal hand-computed tables; sums add; masked values never matter; undefined is NaN."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.pairs import cases, random_case

from nowcast.scores import FIELD_KINDS, SCORES, Setup, tallies
from nowcast.scores.pixels import (
    THRESHOLDS,
    Sums,
    bias,
    correlation,
    csi,
    hss,
    mae,
    mse,
    sums,
)
from nowcast.scores.spectra import WAVELENGTHS_KM
from nowcast.scores.sums import Tally

FIELD_SCORES = {name: score for name, score in SCORES.items() if score.kind in FIELD_KINDS}
NAN = np.nan


def assert_same(a: Sums, b: Sums):
    assert a.thresholds == b.thresholds
    for name, array in a.arrays().items():
        np.testing.assert_array_equal(array, b.arrays()[name], err_msg=name)


def table(hits, misses, false_alarms, correct_negatives) -> Sums:
    """One lead and the threshold 1 mm/h, made of pixels."""
    pairs = [(2, 2)] * hits + [(0, 2)] * misses + [(2, 0)] * false_alarms + [(0, 0)] * correct_negatives
    pairs = np.array(pairs, np.float32).reshape(1, -1, 1, 2)
    return sums(pairs[..., 0], pairs[..., 1], thresholds=[1])


KNOWN = {"csi": 0.57343, "pod": 0.78095, "far": 0.31667, "frequency_bias": 1.14286, "pofd": 0.14615, "hss": 0.60887,
         "hk": 0.6348, "ets": 0.43768, "f1": 0.72889, "accuracy": 304 / 365}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_table_scores_as_published(name):
    score = SCORES[name](table(82, 23, 38, 222))
    assert score.shape == (1, 1)
    assert abs(score.item() - KNOWN[name]) < 5e-6


# 4 x 4 by hand, threshold 1 mm/h: of 16 pairs one is masked and two are missing on either side, so 13 count
FORECAST = np.array([[[0, 0, 1, 2], [0, 1, 5, 3], [0, 0, 0, NAN], [9, 0, 0, 4]]], np.float32)
OBSERVED = np.array([[[0, 1, 1, 0], [0, 0, 7, 3], [0, NAN, 2, 2], [9, 0, 0, 0]]], np.float32)
MASK = np.ones((1, 4, 4), bool)
MASK[0, 3, 0] = False


def test_sums_of_a_four_by_four_field_by_hand():
    s = sums(FORECAST, OBSERVED, MASK, thresholds=(1, 5))
    by_lead = {name: array.tolist() for name, array in s.arrays().items()}
    assert by_lead == {
        "num_cases": [1],
        "num_pairs": [13],
        "sum_error": [-1 + 2 + 1 - 2 - 2 + 4],
        "sum_abs_error": [1 + 2 + 1 + 2 + 2 + 4],
        "sum_sq_error": [1 + 4 + 1 + 4 + 4 + 16],
        "sum_weighted_abs_error": [1 + 2 + 1 + 5 * 2 + 2 * 2 + 4],  # errors of 2 where 7 and 2 mm/h were observed
        "sum_weighted_sq_error": [1 + 4 + 1 + 5 * 4 + 2 * 4 + 16],
        "sum_f": [1 + 2 + 1 + 5 + 3 + 4],
        "sum_o": [1 + 1 + 7 + 3 + 2],
        "sum_ff": [1 + 4 + 1 + 25 + 9 + 16],
        "sum_oo": [1 + 1 + 49 + 9 + 4],
        "sum_fo": [1 + 35 + 9],
        "hits": [[3, 1]],
        "misses": [[2, 0]],
        "false_alarms": [[3, 0]],
        "correct_negatives": [[5, 12]],
    }


def test_scores_of_a_four_by_four_field_by_hand():
    s = sums(FORECAST, OBSERVED, MASK, thresholds=(1, 5))
    by_hand = {
        "csi": [3 / 8, 1],
        "pod": [3 / 5, 1],
        "far": [3 / 6, 0],
        "pofd": [3 / 8, 0],
        "frequency_bias": [6 / 5, 1],
        "f1": [6 / 11, 1],
        "hk": [3 / 5 - 3 / 8, 1],
        "hss": [2 * (15 - 6) / (5 * 7 + 6 * 8), 1],
        "ets": [(3 - 30 / 13) / (8 - 30 / 13), 1],
    }
    for name, expected in by_hand.items():
        np.testing.assert_allclose(SCORES[name](s)[0], expected, rtol=1e-14, err_msg=name)
    assert mae(s) == 12 / 13
    assert mse(s) == 30 / 13
    assert bias(s) == 2 / 13


def tally(forecast, observed, **setup) -> Tally:
    """The sums of every kind of one case on cells of 1 km, with windows of 1 and 3 cells."""
    known = np.isfinite(forecast) & np.isfinite(observed)
    setup = Setup(**{"spacing_km": (1.0, 1.0), "scales_km": (1.0, 3.0)} | setup)
    return tallies({"x": forecast}, observed, known, setup)["x"]


def test_every_score_has_its_shape_and_a_docstring_with_range_best_and_nan_rule():
    s = tally(*random_case(np.random.default_rng(0), (3, 16, 16), missing=0))
    sizes = {"lead": 3, "threshold": len(THRESHOLDS), "scale": 2, "wavelength": len(WAVELENGTHS_KM)}
    for name, score in FIELD_SCORES.items():
        assert score(s).shape == tuple(sizes[axis] for axis in score.axes), name
        assert np.isfinite(score(s)).any(), name
        assert score.pooled(s).shape == (1, *score(s).shape[1:]), name
        assert score.mean_over_leads(s).shape == score(s).shape[1:], name
        assert score.function.__name__ == name
        for word in ("Range", "best", "NaN"):
            assert word in score.function.__doc__, (name, word)


def test_an_event_is_at_or_above_the_threshold():
    at = np.array([[THRESHOLDS]], np.float32)
    just_below = np.nextafter(at, np.float32(0))
    hit = sums(at, at)
    missed = sums(just_below, at)
    assert hit.hits.tolist() == [[4, 3, 2, 1]]
    assert missed.hits.tolist() == [[3, 2, 1, 0]]
    assert missed.misses.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 1.1])
def test_a_float32_value_equals_the_threshold_it_was_made_from(threshold):
    field = np.full((1, 2, 2), threshold, np.float32)
    for given_as in (threshold, np.float64(threshold)):
        assert sums(field, field.astype(np.float64).astype(np.float32), thresholds=[given_as]).hits.item() == 4
    assert sums(np.full((1, 2, 2), threshold), field, thresholds=[threshold]).hits.item() == 4


@settings(max_examples=60)
@given(cases())
def test_a_perfect_forecast_is_perfect(case):
    _, observed = case[0]
    s = tally(observed, observed)
    for name, score in FIELD_SCORES.items():
        values = score(s)
        if score.best is not None:
            np.testing.assert_allclose(values[~np.isnan(values)], score.best, rtol=1e-12, err_msg=name)
    s = s["pairs"]
    has_event, has_dry = s.hits > 0, s.correct_negatives > 0
    np.testing.assert_array_equal(csi(s) == 1, has_event)
    np.testing.assert_array_equal(hss(s) == 1, has_event & has_dry)
    np.testing.assert_array_equal(mae(s) == 0, s.num_pairs > 0)


@settings(max_examples=100)
@given(cases())
def test_scores_stay_in_their_range_and_are_never_infinite(case):
    s = tally(*case[0])
    for name, score in FIELD_SCORES.items():
        values = score(s)
        values = values[~np.isnan(values)]
        low, high = score.range
        assert np.isfinite(values).all(), name
        assert ((values >= low - 1e-12) & (values <= high + 1e-12)).all(), name


OF_PAIRS = {name for name, score in SCORES.items() if score.kind == "pairs"}
NO_EVENT = {"csi", "pod", "far", "frequency_bias", "hss", "hk", "ets", "f1"}


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        ((0, 0, 0, 0), OF_PAIRS),
        ((0, 0, 0, 9), NO_EVENT | {"correlation", "uncentred_correlation"}),
        ((9, 0, 0, 0), {"pofd", "hss", "hk", "ets", "correlation"}),
        ((0, 4, 0, 5), {"far", "correlation", "uncentred_correlation"}),
        ((0, 0, 4, 5), {"pod", "frequency_bias", "hk", "correlation", "uncentred_correlation"}),
        ((0, 4, 0, 0), {"far", "pofd", "hk", "correlation", "uncentred_correlation"}),
        ((1, 1, 1, 1), set()),
    ],
)
def test_undefined_is_nan_and_nothing_else_is(counts, undefined):
    s = table(*counts)
    assert {name for name in OF_PAIRS if np.isnan(SCORES[name](s)).all()} == undefined


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 99.9])
def test_correlation_with_a_constant_side_is_nan_whatever_its_rounding(value):
    rng = np.random.default_rng(0)
    constant, varied = np.full((1, 50, 50), value), rng.gamma(0.5, 2, (1, 50, 50))
    assert np.isnan(correlation(sums(constant, varied)))
    assert np.isnan(correlation(sums(varied, constant)))
    assert np.isnan(correlation(sum([sums(constant, varied)] * 37)))


ANYTHING = st.sampled_from([0.0, 3.0, 1e30, np.inf, -np.inf, NAN])


@settings(max_examples=60)
@given(cases(), st.integers(0, 2**32), ANYTHING, ANYTHING)
def test_values_under_the_mask_never_matter(case, seed, in_forecast, in_observed):
    forecast, observed = case[0]
    mask = np.random.default_rng(seed).random(forecast.shape) < 0.6
    before = sums(forecast, observed, mask)
    changed = np.where(mask, forecast, np.float32(in_forecast)), np.where(mask, observed, np.float32(in_observed))
    assert_same(sums(*changed, mask), before)
    assert before.num_pairs.sum() == (mask & ~np.isnan(forecast) & ~np.isnan(observed)).sum()


@settings(max_examples=60)
@given(cases())
def test_missing_is_as_masked(case):
    forecast, observed = case[0]
    known = ~np.isnan(forecast) & ~np.isnan(observed)
    filled = np.nan_to_num(forecast, nan=20), np.nan_to_num(observed, nan=0)
    assert_same(sums(forecast, observed), sums(*filled, known))
    assert_same(sums(forecast, observed, np.ones_like(known)), sums(*filled, known))


def test_the_caller_keeps_its_arrays():
    forecast, observed = random_case(np.random.default_rng(1), (2, 5, 5))
    mask = np.random.default_rng(2).random(forecast.shape) < 0.5
    copies = forecast.copy(), observed.copy(), mask.copy()
    sums(forecast, observed, mask)
    for array, copy in zip((forecast, observed, mask), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@settings(max_examples=60)
@given(cases(num_cases=6), st.permutations(range(6)), st.integers(1, 5))
def test_permuted_cases_and_shards_add_up_to_the_whole(several, order, cut):
    whole = sum(sums(f, o) for f, o in several)
    shuffled = [sums(*several[i]) for i in order]
    assert_same(sum(shuffled[:cut]) + sum(shuffled[cut:]), whole)
    # a case beside another in y is one field with both
    side_by_side = sums(*(np.concatenate([case[side] for case in several], axis=1) for side in (0, 1)))
    assert_same(dataclasses.replace(side_by_side, num_cases=whole.num_cases), whole)


@settings(max_examples=40)
@given(cases(num_cases=2))
def test_no_case_adds_nothing_and_leads_pool(pair):
    s = sums(*pair[0]) + sums(*pair[1])
    assert_same(Sums.zeros(s.num_pairs.size) + s, s)
    assert_same(Sums(s.thresholds, **s.arrays()), s)
    pooled = s.pooled()
    assert pooled.hits.shape == (1, 4)
    np.testing.assert_array_equal(pooled.hits[0], s.hits.sum(axis=0))
    as_one_lead = [sums(*(side.reshape(1, -1, side.shape[2]) for side in case)) for case in pair]
    as_one_lead = dataclasses.replace(sum(as_one_lead), num_cases=pooled.num_cases)
    assert_same(as_one_lead, pooled)


@pytest.mark.parametrize("shapes", [((4, 4),) * 2, ((2, 3, 4), (1, 3, 4)), ((1, 3, 4), (1, 3, 4), (1, 1, 4))])
def test_fields_and_masks_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"^forecast \(.*\), observed \(.*\) and mask \(.*\) must be one \(lead, y, x\)$"):
        sums(*(np.ones(shape, bool) for shape in shapes))


def test_a_case_counts_only_at_leads_that_have_pairs():
    forecast, observed = np.ones((2, 3, 3, 3), np.float32)
    observed[1] = NAN
    assert (sums(forecast, observed) + sums(forecast, forecast)).num_cases.tolist() == [2, 1, 2]


def test_the_mean_over_leads_is_not_the_pooled_score():
    counts = np.array([[[1, 1, 0, 0, 0]], [[1, 1, 1, 1, 0]]], np.float32)  # (lead, y, x): 1 of 2 and 3 of 4 found
    observed = np.array([[[1, 1, 0, 0, 0]], [[1, 1, 1, 0, 0]]], np.float32)
    s = sums(counts, observed, thresholds=[1])
    assert csi(s)[:, 0].tolist() == [1, 3 / 4]
    assert SCORES["csi"].mean_over_leads(s).tolist() == [7 / 8]
    assert csi(s.pooled()).tolist() == [[5 / 6]]
    assert SCORES["mae"].mean_over_leads(s) == (0 + 1 / 5) / 2


def test_a_lead_without_a_score_leaves_the_mean_over_leads_undefined():
    observed = np.array([[[1, 0]], [[0, 0]]], np.float32)
    assert np.isnan(SCORES["csi"].mean_over_leads(sums(observed, observed, thresholds=[1])))


@pytest.mark.parametrize("shapes", [((2, 3, 3), (2, 3, 4), (2, 3, 3)), ((2, 3, 3), (2, 3, 3), (3, 3)), ((3, 3),) * 3])
def test_fields_that_do_not_fit_are_refused(shapes):
    forecast, observed, mask = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="must be one"):
        sums(forecast, observed, mask.astype(bool))


def test_sums_at_other_thresholds_or_leads_do_not_add():
    with pytest.raises(ValueError, match="do not add"):
        Sums.zeros(3) + Sums.zeros(3, [1, 2])
    with pytest.raises(ValueError, match="do not add"):
        Sums.zeros(3) + Sums.zeros(2)


def test_counts_of_a_long_archive_do_not_overflow():
    counts = {"hits": 3 * 10**11, "misses": 10**11, "false_alarms": 2 * 10**11, "correct_negatives": 9 * 10**12}
    arrays = Sums.zeros(1, [1]).arrays() | {name: np.array([[n]]) for name, n in counts.items()}
    a, c, b, d = counts.values()
    exact = Fraction(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d))
    assert abs(hss(Sums((1.0,), **arrays)).item() - float(exact)) < 1e-14


def test_correlation_of_much_rain_is_exact_to_nine_digits():
    rng = np.random.default_rng(3)
    observed = rng.gamma(0.3, 3, (1, 300, 300)).astype(np.float32) + np.float32(50)
    forecast = observed + rng.normal(0, 1, observed.shape).astype(np.float32)
    expected = np.corrcoef(forecast.ravel().astype(np.float64), observed.ravel().astype(np.float64))[0, 1]
    assert abs(correlation(sums(forecast, observed)).item() - expected) < 1e-9
