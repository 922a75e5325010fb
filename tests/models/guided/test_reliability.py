"""Probabilities are shifted where validation shows them to be too high or too low, and as far as its days agree on it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.models import build, run
from scipy.special import expit

from nowcast.models.guided.calibration import CENTRES
from nowcast.models.guided.guidance import RATES
from nowcast.models.guided.network import KNOT_VALUES
from nowcast.models.guided.reliability import KNOTS, ShiftCalibration, agreed_shift, intercepts
from nowcast.scores.distribution import RATES as CRPS_RATES

TRUE = np.linspace(-0.5, 0.4, len(KNOTS))
UNSHIFTED = np.zeros(len(KNOTS))
PAST = torch.rand(2, 2, 2, 9, 10, generator=torch.Generator().manual_seed(0))


def counts(shift, *, cells=4000, seed=0):
    """Cells (knot, bin, 2) of one day whose rain is shifted (knot,) from their log-odds."""
    drawn = np.random.default_rng(seed)
    odds = drawn.integers(200, 300, cells)  # numbers of bins, log-odds -2 to 3
    reached = drawn.random((len(KNOTS), cells)) < expit(CENTRES[odds] + np.reshape(shift, (-1, 1)))
    found = np.zeros((len(KNOTS), len(CENTRES), 2), np.int64)
    for knot, of_knot in enumerate(reached):
        np.add.at(found[knot], (odds, of_knot.astype(int)), 1)
    return found


def test_the_intercept_makes_as_many_events_likely_as_were_counted():
    found = counts(TRUE, cells=100_000)
    fitted = intercepts(found, UNSHIFTED)
    assert fitted == pytest.approx(TRUE, abs=0.03)
    expected = (found.sum(axis=2) * expit(CENTRES + fitted[:, None])).sum(axis=1)
    assert expected == pytest.approx(found[..., 1].sum(axis=1), rel=2e-3)


def test_a_few_cells_tell_next_to_nothing():
    found = np.zeros((1, len(CENTRES), 2), np.int64)
    found[0, 100, 0] = 300  # log-odds -7: .3 events are expected, none came
    assert -0.01 < intercepts(found, np.zeros(1))[0] < 0
    assert 0.28 < intercepts(found, np.full(1, 0.3))[0] < 0.3


def test_what_all_days_agree_on_is_used_whole():
    days = [counts(TRUE, seed=seed) for seed in range(12)]
    assert agreed_shift(days, UNSHIFTED) == pytest.approx(TRUE, abs=0.05)


def test_what_days_disagree_on_is_not_used():
    days = [counts(np.where(seed % 2, 1.5, -1.5) + UNSHIFTED, seed=seed) for seed in range(8)]
    assert np.abs(agreed_shift(days, UNSHIFTED)).max() < 0.05
    one_storm = [counts(UNSHIFTED, seed=seed) for seed in range(7)] + [counts(UNSHIFTED + 2, seed=9)]
    assert np.abs(intercepts(sum(one_storm), UNSHIFTED)).min() > 0.15
    assert np.abs(agreed_shift(one_storm, UNSHIFTED)).max() < 0.1


@pytest.mark.parametrize("days", [0, 1, 3])
def test_a_few_days_change_nothing(days):
    start = np.full(len(KNOTS), 0.3)
    assert np.array_equal(agreed_shift([counts(TRUE, seed=seed) for seed in range(days)], start), start)


def test_where_no_rain_came_on_most_days_the_start_stays():
    """That no storm came on ten days tells nothing of the next one; nor do days on which nothing was counted."""
    none = counts(UNSHIFTED - 50)
    assert not none[..., 1].any()
    start = np.full(len(KNOTS), 0.3)
    for days in ([none] * 10, [none] * 8 + [counts(UNSHIFTED, seed=seed) for seed in range(2)], [np.zeros_like(none)] * 10):
        assert np.array_equal(agreed_shift(days, start), start)
    rare = [np.where(np.arange(len(KNOTS))[:, None, None] < 5, counts(TRUE, seed=seed), none) for seed in range(10)]
    found = agreed_shift(rare, UNSHIFTED)
    assert np.all(found[5:] == 0)
    assert found[:4] == pytest.approx(TRUE[:4], abs=0.06)


def test_a_start_that_the_days_confirm_stays():
    start = np.full(len(KNOTS), 0.3)
    assert agreed_shift([counts(start, seed=seed) for seed in range(10)], start) == pytest.approx(start, abs=0.04)


def test_counted_cases_set_the_shift_of_the_network():
    """Rain comes at random with the chances of the log-odds, shifted; two processes count, and missing cells do not."""
    model = build("guided").eval()
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(16, 2, len(RATES), 40, 40, generator=generator) / 4 - torch.arange(8.0).view(8, 1, 1) / 2
    outputs[..., 0] = torch.nan
    knots = torch.stack(model.knots(outputs), dim=2)
    reached = torch.rand(16, 2, 1, 40, 40, generator=generator) < torch.sigmoid(knots - 0.5)
    observed = torch.tensor([0.0, *KNOTS])[reached.cumprod(dim=2).sum(dim=2)]
    validity = torch.ones_like(observed)
    observed[..., 1], validity[..., 1] = 99.0, 0
    halves = [ShiftCalibration(model.shift, model.knots) for _ in range(2)]
    for half, cases in zip(halves, (slice(8), slice(8, 16)), strict=True):
        half.count(outputs[cases], observed[cases], validity[cases], [(0, day) for day in range(16)[cases]])
    halves[0].apply(lambda counts: [counts, halves[1].counts])
    assert model.shift.tolist() == pytest.approx([-0.5] * len(KNOTS), abs=0.15)
    chances = model.exceedance(outputs[..., 2:], KNOT_VALUES)
    for knot, rate in enumerate(KNOTS):
        assert float(chances[:, :, knot].mean()) == pytest.approx(float((observed[..., 2:] >= rate).float().mean()), rel=0.06)


def test_the_shift_is_added_to_the_log_odds_of_each_rate():
    model = build("guided").eval()
    with torch.no_grad():
        outputs = run(model, PAST, 3)
        before = model.exceedance(outputs, KNOT_VALUES)
        model.shift -= 0.25
        after = model.exceedance(outputs, KNOT_VALUES)
    known = ~before.isnan()
    torch.testing.assert_close(torch.logit(after[known]), torch.logit(before[known]) - 0.25, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(before, torch.sigmoid(torch.stack(model.knots(outputs), dim=2)), equal_nan=True)


def test_beyond_the_rates_the_shift_is_that_of_the_nearest():
    model = build("guided").eval()
    odds = torch.linspace(1.0, -2.5, len(RATES)).view(1, 1, -1, 1, 1).expand(1, 1, -1, 2, 2)
    values = [0.0, KNOT_VALUES[0] / 2, KNOT_VALUES[-1] * 1.1, KNOT_VALUES[-1] * 1.3]
    before = torch.logit(model.exceedance(odds, values))
    with torch.no_grad():
        model.shift.copy_(torch.linspace(-0.4, 0.3, len(KNOTS)))
    changes = (torch.logit(model.exceedance(odds, values)) - before)[0, 0, :, 0, 0]
    assert changes.tolist() == pytest.approx([-0.4, -0.4, 0.3, 0.3], abs=1e-3)


@pytest.mark.parametrize("values", [[0.05], [0.3, 0.2], [0.9, 0.1, 1.1]])
def test_what_else_is_asked_for_changes_no_probability(values):
    model = build("guided").eval()
    with torch.no_grad():
        model.shift.copy_(torch.linspace(-0.4, 0.3, len(KNOTS)))
        outputs = run(model, PAST, 2)
        alone = torch.cat([model.exceedance(outputs, [value]) for value in values], dim=2)
        torch.testing.assert_close(model.exceedance(outputs, values), alone, rtol=0, atol=0, equal_nan=True)
        whole = model.exceedance(outputs, [*values, *KNOT_VALUES])[:, :, : len(values)]
    torch.testing.assert_close(whole, alone, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_a_network_of_any_grid_is_not_shifted():
    """It is validated on rainy crops, which say that rain is too unlikely."""
    one_grid, any_grid = build("guided", grid=[9, 10]), build("guided")
    parts = [model.calibration(None, ()).parts for model in (one_grid, any_grid)]
    assert [len(each) for each in parts] == [2, 1]


def test_the_rates_are_those_of_the_crps():
    assert KNOTS == CRPS_RATES


@settings(max_examples=40)
@given(
    shift=st.lists(st.floats(-3, 3), min_size=len(KNOTS), max_size=len(KNOTS)),
    values=st.lists(st.floats(0.0, 1.3), min_size=2, max_size=9),
)
def test_more_rain_is_never_likelier(shift, values):
    model = build("guided").eval()
    with torch.no_grad():
        model.shift.copy_(torch.tensor(shift))
        chances = model.exceedance(run(model, PAST[:1], 2), sorted(values)).nan_to_num(0)
    assert (chances.diff(dim=2) <= 1e-6).all()
    assert ((chances >= 0) & (chances <= 1)).all()
