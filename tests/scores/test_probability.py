"""Sums and scores of ensembles and probabilities: equal to values by hand, additive in any order, NaN where undefined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.ensembles import NAN, ensemble, ensemble_sums, ensembles, exceedance_sums, single

from nowcast.scores import SCORES, exceedance
from nowcast.scores.distribution import RateSums
from nowcast.scores.ensemble import EnsembleSums, ensemble_size, rank_histogram
from nowcast.scores.exceedance import PERCENTS, ExceedanceSums, reliability_diagram, roc_curve
from nowcast.scores.pixels import sums
from nowcast.scores.sums import Tally

KINDS = ("probabilities", "members", "distribution")  # of cells; for sums see test_boxes.py
PROBABILITY_SCORES = {name: score for name, score in SCORES.items() if score.kind in KINDS}
brier, brier_reliability, brier_resolution, brier_uncertainty, roc_area, crps_ecdf, crps_fair, spread, spread_skill = (
    SCORES[name]
    for name in (
        *("brier", "brier_reliability", "brier_resolution", "brier_uncertainty", "roc_area"),
        *("crps_ecdf", "crps_fair", "spread", "spread_skill"),
    )
)


def assert_same(a: Tally, b: Tally, *, tolerance=1e-12):
    assert list(a) == list(b)
    for kind in a:
        assert a[kind].parameters == b[kind].parameters
        for name, array in a[kind].arrays().items():
            np.testing.assert_allclose(array, b[kind].arrays()[name], err_msg=name, rtol=tolerance, atol=tolerance)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_scores_of_three_members_by_hand():
    # pair 1: members 0 1 3, observed 2; pair 2: members 0 0 0, observed 0
    s = single([[0, 0], [1, 0], [3, 0]], [2, 0])
    assert s["members"].num_pairs.tolist() == [2]
    assert s["probabilities"].num_pairs.tolist() == [[2]]
    # |x - y|: 2, 1, 1; |x - x'| of the three pairs: 1, 3, 2
    assert crps_ecdf(s) == pytest.approx([(4 / 3 - 6 / 9) / 2])
    assert crps_fair(s) == pytest.approx([(4 / 3 - 6 / 6) / 2])
    # variance of 0 1 3 with n - 1: 7 / 3, times 4 / 3; the mean errs by 2 / 3
    assert spread(s) == pytest.approx([np.sqrt(7 / 3 * 4 / 3 / 2)])
    assert spread_skill(s) == pytest.approx([np.sqrt(7 / 3 * 4 / 3) / (2 / 3)])
    # at 1 mm/h: probability 2 / 3 of an event, and 0 of none
    assert brier(s) == pytest.approx(np.array([[1 / 9 / 2]]))
    assert brier_reliability(s) == pytest.approx(np.array([[1 / 9 / 2]]))
    assert brier_resolution(s) == brier_uncertainty(s) == 0.25
    assert roc_area(s) == 1
    # the first is above two members; the second is tied with all of them
    assert rank_histogram(s["members"]).tolist() == [[1 / 8, 1 / 8, 5 / 8, 1 / 8]]
    assert rank_histogram(s["members"], tied=False).tolist() == [[0, 0, 1, 0]]


def test_an_event_is_at_or_above_the_threshold_on_both_sides():
    s = single([[0.5], [np.nextafter(np.float32(0.5), np.float32(0))]], [0.5], thresholds=(0.5,))
    assert (s["probabilities"].num_observed.sum(), s["probabilities"].sum_probability.sum()) == (1, 0.5)


def test_an_ensemble_lacking_a_member_is_left_out():
    s = single([[1, 1], [NAN, 1]], [1, 1])
    assert s["members"].num_pairs.tolist() == [1]
    assert single([[1, 1], [1, 1]], [1, NAN])["members"].num_pairs.tolist() == [1]


def test_a_case_counts_at_a_lead_time_that_has_a_pair():
    observed = np.array([[[1, NAN]], [[NAN, NAN]]], np.float32)  # (lead, y, x)
    by_member = ensemble_sums(np.ones((2, 2, 1, 2), np.float32), observed)
    by_probability = exceedance_sums(np.ones((1, 2, 1, 2), np.float32), observed, thresholds=[1.0])
    for found in (by_member, by_probability):
        assert {kind: found[kind].num_cases.tolist() for kind in found} == {kind: [1, 0] for kind in found}


def test_probabilities_have_classes_of_one_percent():
    probabilities = np.array([0, 0.004, 0.006, 0.3, 0.996, 1], np.float32).reshape(1, 1, 1, 6)
    s = exceedance_sums(probabilities, np.ones((1, 1, 6), np.float32), thresholds=[1.0])
    assert {k: int(n) for k, n in enumerate(s["probabilities"].num_forecast[0, 0]) if n} == {0: 2, 1: 1, 30: 1, 100: 2}


@pytest.mark.parametrize("members", range(1, 101))
def test_every_share_of_up_to_a_hundred_members_has_a_class_of_its_own(members):
    shares = (np.arange(members + 1) / members).reshape(1, 1, 1, -1)
    s = exceedance_sums(shares, np.ones((1, 1, members + 1)), thresholds=[1.0])
    assert s["probabilities"].num_forecast.max() == 1


def test_a_reliability_diagram_joins_classes_and_keeps_the_mean_forecast():
    probabilities = np.array([0, 0.04, 0.05, 0.14, 0.95, 1], np.float64).reshape(1, 1, 1, 6)
    observed = np.array([0, 0, 2, 0, 2, 2], np.float32).reshape(1, 1, 6)
    diagram = reliability_diagram(exceedance_sums(probabilities, observed, thresholds=[1.0])["probabilities"])
    assert diagram.num_pairs[0, 0].tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    np.testing.assert_allclose(diagram.forecast[0, 0, [0, 1, 10]], [0.02, 0.095, 0.975])
    np.testing.assert_allclose(diagram.observed[0, 0], [0, 0.5, *[NAN] * 8, 1])


def test_a_roc_curve_goes_from_never_to_always():
    s = single([[2, 2, 0, 0], [2, 0, 0, 0]], [2, 0, 2, 0])
    pofd, pod = roc_curve(s["probabilities"])
    assert pofd.shape == (1, 1, len(PERCENTS) + 1)
    assert (pofd[0, 0, [0, 1, 51, -1]].tolist(), pod[0, 0, [0, 1, 51, -1]].tolist()) == ([0, 0, 0.5, 1], [0, 0.5, 0.5, 1])
    assert roc_area(s) == 0.5 * 0.5 + 0.5 * 0.75


# -- properties -------------------------------------------------------------------------------------------------------


def test_every_score_has_its_shape_and_a_docstring_with_range_best_and_nan_rule():
    s = ensemble_sums(*ensemble(0))
    for name, score in PROBABILITY_SCORES.items():
        assert score(s).shape == ((2, 4) if score.needs_threshold else (2,)), name
        assert score.function.__name__ == name
        for word in ("Range", "best", "NaN"):
            assert word in score.function.__doc__, (name, word)


@settings(max_examples=60)
@given(ensembles)
def test_scores_stay_in_their_range(case):
    s = ensemble_sums(*case)
    for name, score in PROBABILITY_SCORES.items():
        values = score(s)
        values = values[~np.isnan(values)]
        assert ((values >= score.range[0] - 1e-12) & (values <= score.range[1] + 1e-12)).all(), name
        assert np.isfinite(values).all(), name


@settings(max_examples=60)
@given(ensembles)
def test_one_member_scores_as_the_forecast_it_is(case):
    (member, *_), observed = case
    s, plain = ensemble_sums(member[None], observed), sums(member, observed)
    for name, same in (("crps_ecdf", "mae"), ("crps_fair", "mae"), ("mean_rmse", "rmse")):
        np.testing.assert_allclose(PROBABILITY_SCORES[name](s), SCORES[same](plain), rtol=1e-12, err_msg=name)
    wrong = plain.misses + plain.false_alarms
    pairs = np.where(plain.num_pairs, plain.num_pairs, NAN)[:, None]
    np.testing.assert_allclose(brier(s), wrong / pairs, rtol=1e-12)
    np.testing.assert_allclose(roc_area(s), (1 + SCORES["hk"](plain)) / 2, rtol=1e-12)
    np.testing.assert_array_equal(spread(s), np.where(plain.num_pairs, 0, NAN))


@settings(max_examples=60)
@given(ensembles)
def test_a_perfect_ensemble_is_perfect(case):
    members, observed = case
    s = ensemble_sums(np.broadcast_to(observed, members.shape), observed)
    for name, score in PROBABILITY_SCORES.items():
        values = score(s)
        if name not in ("brier_resolution", "brier_uncertainty"):
            best = 0 if name == "spread" else score.best
            np.testing.assert_allclose(values[~np.isnan(values)], best, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(brier_resolution(s), brier_uncertainty(s), rtol=1e-12, atol=1e-15)
    assert np.isnan(spread_skill(s)).all()
    assert np.isnan(rank_histogram(s["members"], tied=False)).all()


@settings(max_examples=60)
@given(ensembles)
def test_the_terms_of_the_brier_score_add_up(case):
    s = ensemble_sums(*case)
    np.testing.assert_allclose(brier_reliability(s) - brier_resolution(s) + brier_uncertainty(s), brier(s), atol=1e-12)


@settings(max_examples=60)
@given(ensembles, st.randoms(use_true_random=False))
def test_the_order_of_members_changes_nothing(case, random):
    members, observed = case
    order = random.sample(range(len(members)), len(members))
    assert_same(ensemble_sums(members[order], observed), ensemble_sums(members, observed), tolerance=0)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_permuted_cases_and_shards_add_up_to_the_whole(seeds, random):
    cases = [ensemble(seed) for seed in seeds]
    parts = [ensemble_sums(*case) for case in cases]
    whole = sum(parts)
    random.shuffle(parts)
    assert_same(sum(parts[:1]) + sum(parts[1:]), whole)
    members = np.concatenate([case[0] for case in cases], axis=2)
    observed = np.concatenate([case[1] for case in cases], axis=1)
    side_by_side = ensemble_sums(members, observed)
    for kind in whole:
        side_by_side[kind].num_cases[:] = whole[kind].num_cases
    assert_same(side_by_side, whole)
    zeros = {"members": EnsembleSums.zeros(2, most_members=5), "distribution": RateSums.zeros(2)}
    empty = Tally({"probabilities": ExceedanceSums.zeros(2), **zeros})
    assert_same(empty + whole, whole)


@settings(max_examples=60)
@given(ensembles, st.sampled_from([0.0, 3.0, np.inf, NAN]))
def test_more_missing_pixels_change_nothing(case, anything):
    members, observed = case
    before = ensemble_sums(members, observed)
    padded = np.pad(members, [(0, 0), (0, 0), (2, 1), (0, 3)], constant_values=NAN)
    around = np.pad(observed, [(0, 0), (2, 1), (0, 3)], constant_values=anything)
    assert_same(ensemble_sums(padded, around), before)
    known = np.pad(np.ones(observed.shape, bool), [(0, 0), (2, 1), (0, 3)])
    filled = np.pad(members, [(0, 0), (0, 0), (2, 1), (0, 3)], constant_values=anything)
    assert_same(ensemble_sums(filled, around, known), before)


@settings(max_examples=40)
@given(ensembles)
def test_the_shares_of_an_ensemble_are_exceedance_probabilities(case):
    members, observed = case
    thresholds = (0.25, 1.0, 5.0)
    known = ~np.isnan(members).any(axis=0)
    shares = np.where(known, np.stack([(members >= threshold).mean(axis=0) for threshold in thresholds]), NAN)
    given_shares = exceedance_sums(shares, observed, thresholds=thresholds)
    assert_same(given_shares, Tally({"probabilities": ensemble_sums(members, observed, None, thresholds)["probabilities"]}))


def test_pairs_can_be_counted_in_parts(monkeypatch):
    members, observed = ensemble(3)
    whole = ensemble_sums(members, observed)
    monkeypatch.setattr(exceedance, "PAIRS_AT_ONCE", 5)
    assert_same(ensemble_sums(members, observed), whole)


def test_leads_pool():
    s = ensemble_sums(*ensemble(4))
    pooled, pairs = s.pooled(), s["members"].num_pairs
    assert pooled["probabilities"].num_forecast.shape == (1, 4, len(PERCENTS))
    np.testing.assert_allclose(crps_ecdf(pooled), (crps_ecdf(s) * pairs).sum() / pairs.sum())
    np.testing.assert_allclose(rank_histogram(pooled["members"])[0] * pairs.sum(), s["members"].num_ranked.sum(axis=0))


def test_scores_take_axes_before_the_lead():
    several = [ensemble_sums(*ensemble(seed)) for seed in range(3)]
    stacked = {}
    for kind in several[0]:
        arrays = [s[kind].arrays() for s in several]
        stacked[kind] = several[0][kind].like({name: np.stack([array[name] for array in arrays]) for name in arrays[0]})
    for name, score in PROBABILITY_SCORES.items():
        np.testing.assert_array_equal(score(Tally(stacked)), np.stack([score(s) for s in several]), err_msg=name)
    assert roc_curve(stacked["probabilities"]).pod.shape == (3, 2, 4, len(PERCENTS) + 1)
    assert rank_histogram(stacked["members"]).shape == (3, 2, 6)


def test_a_small_ensemble_beside_a_large_one_has_its_own_ranks():
    members, observed = ensemble(0, members=2)
    wide = ensemble_sums(members, observed, most_members=5)["members"]
    assert wide.coordinates == {"rank": (0, 1, 2, 3, 4, 5)}
    for tied in (True, False):
        expected = rank_histogram(ensemble_sums(members, observed)["members"], tied=tied)
        np.testing.assert_allclose(rank_histogram(wide, tied=tied)[:, :3], expected, rtol=1e-12)
        assert np.isnan(rank_histogram(wide, tied=tied)[:, 3:]).all()
    np.testing.assert_array_equal(ensemble_size(wide), [2, 2])


def test_a_threshold_without_probabilities_is_undefined():
    probabilities, observed = np.full((1, 1, 2, 2), 0.5), np.ones((1, 2, 2), np.float32)
    s = exceedance_sums(probabilities, observed, thresholds=(0.5, 1.0, 5.0), columns=[1])
    np.testing.assert_array_equal(brier(s), [[NAN, 0.25, NAN]])
    assert s["probabilities"].num_pairs.tolist() == [[0, 4, 0]]


def test_no_pair_gives_no_score():
    members, observed = ensemble(0, members=3)
    s = ensemble_sums(members, np.full_like(observed, NAN))
    for name, score in PROBABILITY_SCORES.items():
        assert np.isnan(score(s)).all(), name
    assert np.isnan(rank_histogram(s["members"])).all()
    assert s["members"].num_cases.tolist() == s["probabilities"].num_cases.tolist() == [0, 0]


def test_dry_weather_has_no_roc_and_no_skill():
    s = single([[0, 0], [0, 3]], [0, 0])
    for name in ("roc_area", "brier_skill"):
        assert np.isnan(PROBABILITY_SCORES[name](s)).all(), name
    assert brier(s) == 0.125
    assert np.isnan(roc_curve(s["probabilities"]).pofd).all()


def test_a_reliable_ensemble_looks_reliable():
    rng = np.random.default_rng(0)
    centre = rng.normal(0, 2, (1, 200, 200))
    members, observed = centre + rng.normal(0, 1, (8, 1, 200, 200)), centre + rng.normal(0, 1, (1, 200, 200))
    s = ensemble_sums(members, observed, thresholds=[1.0])
    assert abs(spread_skill(s).item() - 1) < 0.01
    assert np.abs(rank_histogram(s["members"]) - 1 / 9).max() < 0.005
    # the fair CRPS does not depend on the number of members, that of the step function does
    few = ensemble_sums(members[:2], observed, thresholds=[1.0])
    assert abs(crps_fair(few) / crps_fair(s) - 1).item() < 0.01
    assert crps_ecdf(few) / crps_ecdf(s) > 1.2


def test_sums_of_other_thresholds_leads_or_ranks_do_not_add():
    for a, b in (
        (ExceedanceSums.zeros(2), ExceedanceSums.zeros(2, [1, 2])),
        (ExceedanceSums.zeros(2), ExceedanceSums.zeros(1)),
        (EnsembleSums.zeros(2, most_members=3), EnsembleSums.zeros(2, most_members=4)),
    ):
        with pytest.raises(ValueError, match="do not add"):
            a + b
