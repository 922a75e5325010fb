"""Differences from other packages: one test for each, which states our convention and theirs.

Those of windows and spectra are in tests/scores; agreement is tested in test_score_oracles.py.
"""

import warnings

import numpy as np
import pytest
import xarray as xr

from nowcast.scores import SCORES
from nowcast.scores.pixels import sums

NAN = np.nan


def scored(name, forecast, observed, threshold=1.0):
    return SCORES[name](sums(np.array([[forecast]]), np.array([[observed]]), thresholds=[threshold])).item()


def pysteps_categories(forecast, observed, threshold=1.0):
    detcatscores = pytest.importorskip("pysteps.verification.detcatscores", exc_type=ImportError)
    contingency = detcatscores.det_cat_fct_init(threshold)
    detcatscores.det_cat_fct_accum(contingency, np.array(forecast), np.array(observed))
    return contingency


def test_a_missing_pixel_is_no_pair_where_pysteps_counts_it_as_dry():
    forecast, observed = [2.0, NAN, 2.0, NAN], [2.0, 2.0, NAN, NAN]
    theirs = pysteps_categories(forecast, observed)
    assert [int(theirs[name]) for name in ("hits", "misses", "false_alarms", "correct_negatives")] == [1, 1, 1, 1]
    ours = sums(np.array([[forecast]]), np.array([[observed]]), thresholds=[1])
    assert [getattr(ours, n).item() for n in ("hits", "misses", "false_alarms", "correct_negatives")] == [1, 0, 0, 0]


def test_an_event_is_at_the_threshold_or_above_where_pysteps_takes_what_is_above():
    theirs = pysteps_categories([1.0, 1.0], [1.0, 2.0])
    assert (int(theirs["hits"]), int(theirs["misses"])) == (0, 1)
    assert scored("pod", [1.0, 1.0], [1.0, 2.0]) == 1


def test_no_event_is_nan_where_scikit_learn_says_0_with_a_warning():
    from sklearn import metrics

    for name, function in (("pod", metrics.recall_score), ("csi", metrics.jaccard_score), ("f1", metrics.f1_score)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert function([False, False], [False, False]) == 0
        assert said
        assert np.isnan(scored(name, [0.0, 0.0], [0.0, 0.0]))


def test_no_event_is_nan_in_pysteps_too_but_with_warnings():
    detcatscores = pytest.importorskip("pysteps.verification.detcatscores", exc_type=ImportError)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        theirs = detcatscores.det_cat_fct(np.zeros(4), np.zeros(4), 1.0, scores=["CSI", "POD"])
    assert np.isnan([theirs["CSI"], theirs["POD"]]).all()
    assert any("invalid value" in str(warning.message) for warning in said)
    assert np.isnan(scored("csi", [0.0] * 4, [0.0] * 4))  # and ours warns of nothing: a warning would be an error here


def test_a_ratio_over_nothing_is_nan_where_the_package_scores_says_infinity():
    from scores.categorical import ThresholdEventOperator

    fields = [xr.DataArray(values, dims="x") for values in ([2.0, 0.0], [0.0, 0.0])]
    manager = ThresholdEventOperator(default_event_threshold=1).make_contingency_manager(*fields)
    assert np.isinf(manager.transform().frequency_bias().item())
    assert np.isnan(scored("frequency_bias", [2.0, 0.0], [0.0, 0.0]))


def test_far_is_the_ratio_and_pofd_the_rate_which_pysteps_calls_fa():
    detcatscores = pytest.importorskip("pysteps.verification.detcatscores", exc_type=ImportError)
    forecast, observed = [2.0, 2.0, 2.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]
    theirs = detcatscores.det_cat_fct(np.array(forecast), np.array(observed), 1.0, scores=["FAR", "FA"])
    assert scored("far", forecast, observed) == pytest.approx(theirs["FAR"]) == 2 / 3
    assert scored("pofd", forecast, observed) == pytest.approx(theirs["FA"]) == 1 / 2


def test_the_rmse_of_cases_is_pooled_where_a_mean_of_their_roots_would_be_smaller():
    cases = [(np.full((1, 1, 4), error), np.zeros((1, 1, 4))) for error in (1.0, 7.0)]
    pooled = SCORES["rmse"](sum(sums(*case) for case in cases)).item()
    assert pooled == pytest.approx(5.0)
    assert pooled > np.mean([SCORES["rmse"](sums(*case)).item() for case in cases])
