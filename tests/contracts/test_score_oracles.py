"""Scores of fields beside nci/scores, scikit-learn and pysteps, on random fields with missing values."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from makers.pairs import cases, random_case

from nowcast.scores import SCORES
from nowcast.scores.pixels import (
    BALANCED_THRESHOLDS,
    BALANCED_WEIGHTS,
    THRESHOLDS,
    correlation,
    sums,
)

ORACLE_NAMES = {
    "csi": "critical_success_index",
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "pofd": "probability_of_false_detection",
    "frequency_bias": "frequency_bias",
    "hss": "heidke_skill_score",
    "hk": "hanssen_and_kuipers_discriminant",
    "ets": "equitable_threat_score",
    "f1": "f1_score",
    "accuracy": "accuracy",
}


@pytest.mark.slow
@settings(max_examples=25)
@given(cases())
def test_counts_and_scores_agree_with_the_package_scores(case):
    from scores import categorical, continuous

    forecast, observed = (xr.DataArray(field.astype(np.float64), dims=("lead", "y", "x")) for field in case[0])
    s, space = sums(*case[0]), ("y", "x")
    for column, threshold in enumerate(THRESHOLDS):
        operator = categorical.ThresholdEventOperator(default_event_threshold=threshold)
        manager = operator.make_contingency_manager(forecast, observed).transform(preserve_dims="lead")
        for name, theirs in (("hits", "tp_count"), ("misses", "fn_count"), ("false_alarms", "fp_count")):
            assert manager.get_counts()[theirs].values.tolist() == getattr(s, name)[:, column].tolist()
        for name, theirs in ORACLE_NAMES.items():
            assert_close(name, SCORES[name](s)[:, column], getattr(manager, theirs)().values)
    for name, theirs in (("mae", "mae"), ("mse", "mse"), ("rmse", "rmse"), ("bias", "mean_error")):
        assert_close(name, SCORES[name](s), getattr(continuous, theirs)(forecast, observed, reduce_dims=space).values)
    for lead in np.flatnonzero(~np.isnan(correlation(s))):  # theirs warns where ours is NaN
        theirs = continuous.correlation.pearsonr(forecast[lead], observed[lead])
        assert abs(correlation(s)[lead] - theirs.item()) < 1e-9


def assert_close(name, ours, theirs):
    """Equal to 1e-9 where ours is defined; where it is NaN, theirs may be NaN or infinite (x/0), never a number."""
    defined = ~np.isnan(ours)
    np.testing.assert_allclose(ours[defined], theirs[defined], rtol=1e-9, atol=1e-9, err_msg=name)
    assert not np.isfinite(theirs[~defined]).any(), (name, theirs)


@settings(max_examples=25)
@given(cases(), st.sampled_from(THRESHOLDS))
def test_scores_agree_with_scikit_learn(case, threshold):
    from sklearn import metrics

    forecast, observed = (field[:1] for field in case[0])
    known = ~np.isnan(forecast) & ~np.isnan(observed)
    f, o = forecast[known].astype(np.float64), observed[known].astype(np.float64)
    events = o >= threshold, f >= threshold
    weights = np.array(BALANCED_WEIGHTS)[np.searchsorted(BALANCED_THRESHOLDS, o, side="right")]
    assume(events[0].any() and events[1].any() and not (events[0] & events[1]).all())
    s = sums(forecast, observed, thresholds=[threshold])
    theirs = {
        "csi": metrics.jaccard_score(*events),
        "pod": metrics.recall_score(*events),
        "far": 1 - metrics.precision_score(*events),
        "f1": metrics.f1_score(*events),
        "hss": metrics.cohen_kappa_score(*events),
        "accuracy": metrics.accuracy_score(*events),
        "b_mae": metrics.mean_absolute_error(o, f, sample_weight=weights) * weights.mean(),
        "b_mse": metrics.mean_squared_error(o, f, sample_weight=weights) * weights.mean(),
        "mae": metrics.mean_absolute_error(o, f),
        "mse": metrics.mean_squared_error(o, f),
        "rmse": metrics.root_mean_squared_error(o, f),
        "uncentred_correlation": metrics.pairwise.cosine_similarity(o[None], f[None]),
    }
    for name, value in theirs.items():
        np.testing.assert_allclose(SCORES[name](s).item(), np.asarray(value).item(), rtol=1e-9, atol=1e-9, err_msg=name)


def test_scores_agree_with_pysteps_where_no_value_is_missing_or_at_a_threshold():
    pysteps = pytest.importorskip("pysteps.verification", exc_type=ImportError)
    forecast, observed = random_case(np.random.default_rng(5), (1, 40, 40), missing=0, levels=[0, 0.3, 2, 7, 20])
    s = sums(forecast, observed)
    names = {"csi": "CSI", "pod": "POD", "far": "FAR", "pofd": "FA", "frequency_bias": "BIAS", "hss": "HSS",
             "hk": "HK", "ets": "ETS", "f1": "F1", "accuracy": "ACC"}  # fmt: skip
    for column, threshold in enumerate(THRESHOLDS):
        theirs = pysteps.detcatscores.det_cat_fct(forecast[0], observed[0], threshold, scores=list(names.values()))
        for name, key in names.items():
            np.testing.assert_allclose(SCORES[name](s)[0, column], theirs[key], rtol=1e-9, err_msg=name)
    fields = (field[0].astype(np.float64) for field in (forecast, observed))
    theirs = pysteps.detcontscores.det_cont_fct(*fields, scores=["MAE", "MSE", "RMSE", "ME", "corr_p"])
    for name, key in {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "bias": "ME", "correlation": "corr_p"}.items():
        np.testing.assert_allclose(SCORES[name](s)[0], theirs[key], rtol=1e-9, err_msg=name)
