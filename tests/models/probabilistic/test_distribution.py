"""The distribution: log-odds of a value, and the value of given log-odds, equal in C and torch and by definition."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nowcast.models.probabilistic import distribution
from nowcast.models.probabilistic.distribution import LEVELS, SOURCE, coefficients, highest_reached, log_odds
from nowcast.models.probabilistic.matching import MATCHING
from nowcast.runtime import compiled

ANCHORS = MATCHING.anchors


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def distributions(cases, leads, y, x, seed=0):
    """(case, lead, 6, y, x) around values that rise from left to right, as a part of a larger grid; the lower half is dry."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(cases, leads, 3, y + 3, x + 5, generator=generator).exp() * 6
    location = torch.linspace(-0.3, 1.3, x + 5).expand(cases, leads, 1, y + 3, x + 5).clone()
    location[..., (y + 3) // 2 :, :] = -5
    shift = torch.randn(slope.shape, generator=generator)
    return torch.cat([slope * location + shift, slope], dim=2)[..., :y, :x]


def cuts_of(cases, leads):
    """Some are never reached: above them nothing is."""
    cuts = torch.linspace(-1, 1, len(ANCHORS)).repeat(cases, leads, 1)
    cuts[0, 0, 5:] = 1e4
    return cuts


def in_torch(outputs, cuts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "load", lambda *_, **__: None)
        return highest_reached(outputs, ANCHORS, cuts)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 300)),
    cases=st.integers(1, 2),
    leads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_values_in_c_equal_those_in_torch(shape, cases, leads, seed):
    assert compiled.load(SOURCE) is not None, "no C compiler here?"
    outputs, cuts = distributions(cases, leads, *shape, seed=seed), cuts_of(cases, leads)
    torch.testing.assert_close(highest_reached(outputs, ANCHORS, cuts), in_torch(outputs, cuts), rtol=1e-5, atol=1e-4)


def test_what_is_not_a_number_is_no_rain():
    """Above an anchor that is reached it stays NaN; where even the first is unknown, nothing is forecast."""
    outputs, cuts = distributions(1, 1, 4, 50), torch.zeros(1, 1, len(ANCHORS))
    outputs[:, :, 2, 0, 48], outputs[:, :, :, 0, 45] = torch.nan, torch.nan
    values, expected = highest_reached(outputs, ANCHORS, cuts), in_torch(outputs, cuts)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-4, equal_nan=True)
    assert values.isnan().nonzero().tolist() == [[0, 0, 0, 48]]
    assert values[0, 0, 0, 45] == 0


def test_columns_that_lie_apart_are_taken_too():
    outputs, cuts = distributions(1, 1, 20, 40), cuts_of(1, 1)
    every_other = outputs[..., ::2]
    torch.testing.assert_close(highest_reached(every_other, ANCHORS, cuts), highest_reached(outputs, ANCHORS, cuts)[..., ::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the second is computed in torch
def test_the_value_lies_between_the_anchors_around_it(dtype):
    outputs, cuts = distributions(2, 2, 30, 200).to(dtype), cuts_of(2, 2).to(dtype)
    values = highest_reached(outputs, ANCHORS, cuts)
    above = torch.stack([log_odds(outputs, anchor) - cuts[..., n, None, None] for n, anchor in enumerate(ANCHORS)])
    num_reached = (above >= 0).long().cumprod(dim=0).sum(dim=0)  # anchors up to the first that is not
    assert set(num_reached.unique().tolist()) == set(range(len(ANCHORS) + 1))
    edges = torch.tensor([0.0, *ANCHORS, torch.inf], dtype=dtype)
    assert (values[num_reached == 0] == 0).all()
    wet, below = values[num_reached > 0], num_reached[num_reached > 0]
    assert ((edges[below] - 1e-5 <= wet) & (wet <= edges[below + 1] + 1e-5)).all()
    assert values.max().item() == pytest.approx(ANCHORS[-2] + distribution.MOST_STEPS * (ANCHORS[-1] - ANCHORS[-2]))


def test_a_straight_line_of_odds_gives_the_value_where_it_meets_the_cut():
    location = torch.linspace(0.01, 0.95, 500, dtype=torch.float32)
    slope = torch.full((1, 1, 3, 1, 500), 20.0)
    outputs = torch.cat([slope * location, slope], dim=2)
    values = highest_reached(outputs, ANCHORS, torch.full((1, 1, len(ANCHORS)), -1.0))[0, 0, 0]
    expected = location + 1 / 20  # z = 20 (location - value) = -1
    torch.testing.assert_close(values, expected.where(expected >= ANCHORS[0], 0), rtol=0, atol=1e-5)


def test_log_odds_are_those_of_the_levels_and_straight_between_them():
    outputs = distributions(1, 1, 4, 5)
    for n, level in enumerate(LEVELS):
        torch.testing.assert_close(log_odds(outputs, level), outputs[:, :, n] - level * outputs[:, :, 3 + n])
    for first, second in pairwise(range(len(LEVELS))):
        middle = (LEVELS[first] + LEVELS[second]) / 2
        scaled, slope = ((outputs[:, :, n + first] + outputs[:, :, n + second]) / 2 for n in (0, 3))
        torch.testing.assert_close(log_odds(outputs, middle), scaled - middle * slope)


@pytest.mark.parametrize(
    ("value", "odds"),
    [(0.1, 1 - 0.2), (0.2, 1 - 0.4), (0.35, 5.5 - 0.35 * 2.5), (0.5, 10 - 1.5), (0.65, 55 - 0.65 * 4), (0.9, 100 - 4.5)],
)
def test_trained_networks_have_levels_of_network_values_0_2_and_0_5_and_0_8(value, odds):
    """Their outputs mean nothing at others; below the first and above the last it is a straight line."""
    outputs = torch.tensor([1.0, 10, 100, 2, 3, 5])
    assert float(log_odds(outputs[None, None, :, None, None], value)) == pytest.approx(odds)
    assert float(outputs @ torch.tensor(coefficients(value))) == pytest.approx(odds)
