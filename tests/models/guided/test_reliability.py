"""Probabilities are shifted where validation shows them to be too high or too low, and as far as its days agree on it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from makers.models import build, run
from scipy.special import expit

from nowcast.models.guided.calibration import CENTRES
from nowcast.models.guided.guidance import RATES
from nowcast.models.guided.network import KNOT_VALUES
from nowcast.models.guided.reliability import KNOTS, ShiftCalibration, agreed_shift, intercepts

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
    fitted = intercepts(found)
    assert fitted == pytest.approx(TRUE, abs=0.03)
    expected = (found.sum(axis=2) * expit(CENTRES + fitted[:, None])).sum(axis=1)
    assert expected == pytest.approx(found[..., 1].sum(axis=1), rel=2e-3)


def test_a_few_cells_tell_next_to_nothing():
    found = np.zeros((1, len(CENTRES), 2), np.int64)
    found[0, 100, 0] = 300  # log-odds -7: .3 events are expected, none came
    assert -0.01 < intercepts(found)[0] < 0


def test_what_all_days_agree_on_is_used_whole():
    days = [counts(TRUE, seed=seed) for seed in range(12)]
    assert agreed_shift(days, UNSHIFTED) == pytest.approx(TRUE, abs=0.05)


def test_what_days_disagree_on_is_not_used():
    days = [counts(np.where(seed % 2, 1.5, -1.5) + UNSHIFTED, seed=seed) for seed in range(8)]
    assert np.abs(agreed_shift(days, UNSHIFTED)).max() < 0.05
    one_storm = [counts(UNSHIFTED, seed=seed) for seed in range(7)] + [counts(UNSHIFTED + 2, seed=9)]
    assert np.abs(intercepts(sum(one_storm))).min() > 0.15
    assert np.abs(agreed_shift(one_storm, UNSHIFTED)).max() < 0.1


def test_one_day_alone_changes_nothing():
    start = np.full(len(KNOTS), 0.3)
    assert np.array_equal(agreed_shift([counts(TRUE)], start), start)
    assert np.array_equal(agreed_shift([], start), start)


def test_a_start_that_the_days_confirm_stays():
    start = np.full(len(KNOTS), 0.3)
    assert agreed_shift([counts(start, seed=seed) for seed in range(10)], start) == pytest.approx(start, abs=0.04)


def test_counted_cases_set_the_shift_of_the_network():
    """Rain comes at random with the chances of the log-odds, shifted; missing cells hold none, of any process."""
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


@given(
    shift=st.lists(st.floats(-3, 3), min_size=len(KNOTS), max_size=len(KNOTS)),
    values=st.lists(st.floats(0.01, 1.2), min_size=2, max_size=9),
)
def test_more_rain_is_never_likelier(shift, values):
    model = build("guided").eval()
    with torch.no_grad():
        model.shift.copy_(torch.tensor(shift))
        chances = model.exceedance(run(model, PAST[:1], 2), sorted(values)).nan_to_num(0)
    assert (chances.diff(dim=2) <= 1e-6).all()
    assert ((chances >= 0) & (chances <= 1)).all()
