"""Scores of probabilities beside nci/scores, pysteps and scikit-learn; where they disagree, a test states ours."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from makers.ensembles import ensemble, ensemble_sums, ensembles, exceedance_sums, single

from nowcast.scores import SCORES
from nowcast.scores.ensemble import rank_histogram
from nowcast.scores.exceedance import reliability_diagram, roc_curve

brier, roc_area, crps_ecdf, crps_fair, spread = (
    SCORES[name] for name in ("brier", "roc_area", "crps_ecdf", "crps_fair", "spread")
)

THRESHOLDS = (0.25, 1.0, 5.0)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
continuous = st.builds(
    ensemble,
    st.integers(0, 2**32),
    st.tuples(st.just(1), st.integers(2, 6), st.integers(2, 6)),
    members=st.integers(2, 7),
    missing=st.sampled_from([0.0, 0.1]),
    levels=st.none(),
)


def whole_pairs(members, observed):
    """float64 with every member missing where one is, as ours counts; xarray over (member, lead, y, x)."""
    members = np.where(np.isnan(members).any(axis=0), np.nan, members.astype(np.float64))
    dims = ("lead", "y", "x")
    return xr.DataArray(members, dims=("member", *dims)), xr.DataArray(observed.astype(np.float64), dims=dims)


def shares(members, threshold):
    return np.where(np.isnan(members).any(axis=0), np.nan, (members >= threshold).mean(axis=0))


# -- nci/scores -------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(ensembles)
def test_crps_agrees_with_the_package_scores(case):
    oracle = pytest.importorskip("scores.probability").crps_for_ensemble
    s, (forecast, observed) = ensemble_sums(*case), whole_pairs(*case)
    for ours, method in ((crps_ecdf, "ecdf"), (crps_fair, "fair")):
        if method == "ecdf" or len(forecast) > 1:
            expected = oracle(forecast, observed, "member", method=method, preserve_dims="lead")
            np.testing.assert_allclose(ours(s), expected, **CLOSE)


def test_one_member_has_a_fair_crps_here_and_none_in_the_package_scores():
    oracle = pytest.importorskip("scores.probability").crps_for_ensemble
    members, observed = np.full((1, 1, 1, 2), 3.0), np.full((1, 1, 2), 1.0)
    assert crps_fair(ensemble_sums(members, observed)) == 2
    assert np.isnan(oracle(*whole_pairs(members, observed), "member", method="fair"))


def test_a_missing_member_drops_the_pair_here_and_shrinks_the_ensemble_in_the_package_scores():
    oracle = pytest.importorskip("scores.probability").crps_for_ensemble
    members, observed = np.array([[1.0, 0.0], [3.0, np.nan]]).reshape(2, 1, 1, 2), np.ones((1, 1, 2))
    forecast = xr.DataArray(members, dims=("member", "lead", "y", "x"))
    theirs = oracle(forecast, whole_pairs(members, observed)[1], "member")
    assert crps_ecdf(ensemble_sums(members, observed)) == 0.5  # of the first pair: 1 - 0.5
    assert theirs == (0.5 + 1) / 2


@pytest.mark.slow
@settings(max_examples=25)
@given(ensembles)
def test_brier_and_roc_agree_with_the_package_scores(case):
    oracle = pytest.importorskip("scores.probability")
    s, (forecast, observed) = ensemble_sums(*case, thresholds=THRESHOLDS), whole_pairs(*case)
    for column, threshold in enumerate(THRESHOLDS):
        probability = xr.DataArray(shares(case[0], threshold), dims=("lead", "y", "x"))
        event = (observed >= threshold).where(observed.notnull())
        np.testing.assert_allclose(brier(s)[:, column], oracle.brier_score(probability, event, preserve_dims="lead"), **CLOSE)
        whole = oracle.brier_score_for_ensemble(
            forecast, observed, "member", threshold, preserve_dims="lead", fair_correction=False
        )
        np.testing.assert_allclose(brier(s)[:, column], whole.squeeze("threshold"), **CLOSE)
        np.testing.assert_allclose(roc_area(s)[:, column], oracle.roc_auc(probability, event, preserve_dims="lead"), **CLOSE)


def test_roc_points_are_those_of_the_package_scores():
    roc_curve_data = pytest.importorskip("scores.probability").roc_curve_data
    members, observed = ensemble(1, (1, 12, 12), members=10, missing=0)
    probability, event = shares(members, 1.0)[0], (observed[0] >= 1).astype(float)
    pofd, pod = roc_curve(ensemble_sums(members, observed, thresholds=[1.0])["probabilities"])
    theirs = roc_curve_data(
        *(xr.DataArray(side, dims=("y", "x")) for side in (probability, event)), thresholds=np.arange(11) / 10
    )
    np.testing.assert_allclose(pod[0, 0, 1::10], theirs.POD[-2::-1], **CLOSE)
    np.testing.assert_allclose(pofd[0, 0, 1::10], theirs.POFD[-2::-1], **CLOSE)


@pytest.mark.filterwarnings("ignore:Encountered a NaN in `fcst`")
@settings(max_examples=25)
@given(ensembles)
def test_rank_histogram_agrees_with_the_package_scores(case):
    oracle = pytest.importorskip("scores.probability").rank_histogram
    expected = oracle(*whole_pairs(*case), "member", preserve_dims="lead")
    np.testing.assert_allclose(rank_histogram(ensemble_sums(*case)["members"]), expected.transpose("lead", "rank"), **CLOSE)


# -- scikit-learn -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(ensembles)
def test_brier_and_roc_area_agree_with_scikit_learn(case):
    oracle = pytest.importorskip("sklearn.metrics")
    members, observed = (side[..., :1, :, :] for side in case)  # the first lead
    s = ensemble_sums(members, observed, thresholds=[0.5])
    probability = shares(members, 0.5)
    known = ~np.isnan(probability) & ~np.isnan(observed)
    event = observed[known] >= 0.5
    assume(event.any() and not event.all())
    assert abs(brier(s).item() - oracle.brier_score_loss(event, probability[known])) < 1e-9
    assert abs(roc_area(s).item() - oracle.roc_auc_score(event, probability[known])) < 1e-9


def test_probabilities_finer_than_a_percent_have_the_roc_area_of_their_classes():
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    rng = np.random.default_rng(0)
    probability = rng.random((1, 1, 50, 50))
    observed = (rng.random((1, 50, 50)) < probability[0]) * 2.0
    area = roc_area(exceedance_sums(probability, observed, thresholds=[1.0])).item()
    event = observed.ravel() >= 1
    classes = np.floor(probability.ravel() * 100 + 0.5)
    assert abs(area - roc_auc_score(event, classes)) < 1e-9
    assert 1e-9 < abs(area - roc_auc_score(event, probability.ravel())) < 1e-3


# -- pysteps ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(continuous)
def test_crps_ranks_and_spread_agree_with_pysteps_where_nothing_is_tied(case):
    probscores = pytest.importorskip("pysteps.verification.probscores")
    ensscores = pytest.importorskip("pysteps.verification.ensscores")
    members, observed = (side.astype(np.float64) for side in case)
    s = ensemble_sums(members, observed)
    assume(s["members"].num_pairs[0])
    assert abs(crps_ecdf(s).item() - probscores.CRPS(members[:, 0], observed[0])) < 1e-9
    np.testing.assert_allclose(rank_histogram(s["members"])[0], ensscores.rankhist(members[:, 0], observed[0]), **CLOSE)
    if not np.isnan(members).any() and not np.isnan(observed).any():
        n = len(members)
        # the mean square of the difference of two members is twice their variance
        expected = np.sqrt((n + 1) / n * ensscores.ensemble_spread(members[:, 0], "MSE") / 2)
        assert abs(spread(s).item() - expected) < 1e-9


def test_pysteps_loses_an_interval_where_the_observation_equals_a_member():
    crps = pytest.importorskip("pysteps.verification.probscores").CRPS
    members, observed = np.array([0.0, 1.0, 2.0]).reshape(3, 1, 1), np.zeros((1, 1))
    ours = crps_ecdf(single([[0], [1], [2]], [0])).item()
    assert abs(ours - (1 - 4 / 9)) < 1e-12  # mean of |x - y| less half the mean of |x - x'|
    assert abs(crps(members, observed) - 1 / 9) < 1e-12  # of the interval from 1 to 2 alone


def test_pysteps_throws_dice_over_ties_that_are_shared_out_here():
    rankhist = pytest.importorskip("pysteps.verification.ensscores").rankhist
    members, observed = np.zeros((3, 4, 5)), np.zeros((4, 5))
    assert rank_histogram(ensemble_sums(members[:, None], observed[None])["members"]).tolist() == [[0.25] * 4]
    assert set(rankhist(members, observed) * 20 % 1) == {0}


@settings(max_examples=25)
@given(ensembles.filter(lambda case: len(case[0]) in (1, 2, 4, 5)))
def test_the_roc_curve_agrees_with_pysteps(case):
    oracle = pytest.importorskip("pysteps.verification.probscores").ROC_curve
    members, observed = (side[..., :1, :, :] for side in case)
    s, probability = ensemble_sums(members, observed, thresholds=[1.0]), shares(members, 1.0)[0]
    assume(not np.isnan(roc_area(s)))
    # a hair less than the share, since its probability thresholds are rounded
    pofd, pod, area = oracle(probability + 1e-9, observed[0], 1.0, n_prob_thrs=101, compute_area=True)
    np.testing.assert_allclose(roc_curve(s["probabilities"]).pod[0, 0, 1:], pod[::-1], **CLOSE)
    np.testing.assert_allclose(roc_curve(s["probabilities"]).pofd[0, 0, 1:], pofd[::-1], **CLOSE)
    assert abs(roc_area(s).item() - area) < 1e-9


def test_ten_members_have_eleven_classes_here_and_ten_in_the_diagram_of_pysteps():
    reldiag = pytest.importorskip("pysteps.verification.probscores").reldiag
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 11, (1, 1, 60, 60)) / 10
    observed = (rng.random((1, 60, 60)) < probability[0]) * 2.0
    ours = reliability_diagram(exceedance_sums(probability, observed, thresholds=[1.0])["probabilities"])
    np.testing.assert_allclose(ours.forecast[0, 0], np.arange(11) / 10, **CLOSE)
    forecast, _ = reldiag(probability[0, 0], observed[0], 1.0, min_count=1)
    mixed = np.abs(forecast * 10 - np.rint(forecast * 10)) > 1e-3
    assert (len(forecast), mixed.sum()) == (10, 1)  # five of ten share a class with four or six of ten


def test_the_reliability_diagram_agrees_with_pysteps_within_its_classes():
    reldiag = pytest.importorskip("pysteps.verification.probscores").reldiag
    rng = np.random.default_rng(1)
    probability = 0.05 + rng.integers(0, 10, (1, 1, 60, 60)) / 10  # the middle of its classes
    observed = (rng.random((1, 60, 60)) < probability[0]) * 2.0
    probability[0, 0, :3], observed[0, :, :4] = np.nan, np.nan
    ours = reliability_diagram(exceedance_sums(probability, observed, thresholds=[1.0])["probabilities"], num_classes=101)
    forecast, frequency = reldiag(probability[0, 0], observed[0], 1.0, min_count=1)
    np.testing.assert_allclose(ours.forecast[0, 0, 5::10], forecast, **CLOSE)
    np.testing.assert_allclose(ours.observed[0, 0, 5::10], frequency, **CLOSE)
