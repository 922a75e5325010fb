"""The CRPS of a distribution is the integral of its Brier scores over rates, for all kinds of forecasts alike."""

import numpy as np
import pytest

from nowcast.scores import SCORES
from nowcast.scores.distribution import RATES, RateSums, add_distribution, add_ensemble, integral_of_brier

CRPS = SCORES["crps"]
KNOWN = np.ones((1, 1), bool)


def of_members(members, observed):
    total = RateSums.zeros(1)
    add_ensemble(total, 0, np.array(members, np.float32)[:, None, None], np.array([[observed]]), KNOWN)
    return CRPS(total)[0]


def test_the_integral_is_that_of_the_trapezoids():
    # Brier scores .25, .5625 and 0 over 0 to 1.5, 1.5 to 3 and 3 to 4 mm/h
    assert integral_of_brier(np.array([0.25, 0.5625, 0.0]), (1.0, 2.0, 4.0)) == pytest.approx(0.25 * 1.5 + 0.5625 * 1.5)
    assert integral_of_brier(np.array([0.0, 0.0, 1.0]), (1.0, 2.0, 4.0)) == 1.0  # over 3 to 4 mm/h, and nothing above


def test_a_certain_forecast_has_nearly_its_absolute_error():
    assert of_members([2.0], 2.0) == 0
    assert of_members([2.0], 5.0) == of_members([5.0], 2.0) == 3.5  # of 3 and 5 mm/h, 2.5 to 4 and 4 to 6
    rng = np.random.default_rng(0)
    forecast, observed = rng.gamma(0.4, 4, (2, 200, 200)).astype(np.float32)
    total = RateSums.zeros(1)
    add_ensemble(total, 0, forecast[None], observed, np.ones(observed.shape, bool))
    assert CRPS(total)[0] == pytest.approx(np.abs(forecast - observed).mean(), rel=0.05)


def test_an_ensemble_and_its_probabilities_are_the_same():
    rng = np.random.default_rng(1)
    members, observed = rng.gamma(0.4, 4, (5, 20, 30)).astype(np.float32), rng.gamma(0.4, 4, (20, 30)).astype(np.float32)
    known = rng.random(observed.shape) < 0.8
    by_members, by_probability = RateSums.zeros(2), RateSums.zeros(2)
    add_ensemble(by_members, 1, members, observed, known)
    add_distribution(by_probability, 1, np.array([(members >= rate).mean(axis=0) for rate in RATES]), observed, known)
    np.testing.assert_allclose(CRPS(by_members), CRPS(by_probability), rtol=1e-12)
    assert np.isnan(CRPS(by_members)[0])
    assert by_members.num_pairs.tolist() == [0, known.sum()]


def test_a_sharp_distribution_beats_a_wide_one_and_a_wrong_one():
    exceedance = {"sharp": np.array(RATES) < 4, "wide": np.exp(-np.array(RATES) / 4), "wrong": np.array(RATES) < 20}
    crps = {}
    for name, probability in exceedance.items():
        total = RateSums.zeros(1)
        add_distribution(total, 0, probability[:, None, None].astype(np.float32), np.array([[4.0]]), KNOWN)
        crps[name] = CRPS(total)[0]
    assert crps["sharp"] < crps["wide"] < crps["wrong"]


def test_sums_are_pooled_over_lead_times():
    total = RateSums.zeros(2)
    for lead, value in enumerate((2.0, 5.0)):
        add_ensemble(total, lead, np.array([[[2.0]]]), np.array([[value]]), KNOWN)
    assert CRPS(total).tolist() == [0, 3.5]
    assert CRPS.pooled(total).tolist() == [1.75]
