"""The expected area of each rate goes towards that of the newest frame, and no further than the share of its value."""

import math

import pytest
import torch

from nowcast.config.schema import NamedSection
from nowcast.models import make_model, model_config
from nowcast.models.probabilistic.matching import MATCHING, shift_at, shift_to_areas

CELLS = 10_000
ANCHORS = {rate: number for number, rate in enumerate(MATCHING.rates)}


def made(area_by_rate, chance=0.1):
    """Log-odds of one chance everywhere (1, 1, anchor, cell), and a newest frame in which each rate has its area in cells."""
    odds = torch.full((1, 1, len(ANCHORS), CELLS), math.log(chance / (1 - chance)))
    newest = torch.zeros(1, CELLS)
    for rate, area in area_by_rate.items():
        newest[0, :area] = MATCHING.anchors[ANCHORS[rate]] + 1e-6
    return odds, newest, torch.ones(1, CELLS)


def log_odds_of(area):
    prior = MATCHING.shift_prior
    return math.log((area + prior) / (CELLS - area + prior))


@pytest.mark.parametrize(("rate", "share"), [(0.1, 0.5), (1.0, 0.5), (5.0, 0.5), (10.0, 0.75), (20.0, 1.0), (50.0, 1.0)])
def test_the_expected_area_goes_a_share_of_the_way(rate, share):
    shifts = shift_to_areas(*made({rate: 200}), MATCHING)[0, 0]
    assert shifts[ANCHORS[rate]] == pytest.approx(share * (log_odds_of(200) - log_odds_of(1000)), rel=0.02)


def test_probabilities_that_expect_the_area_of_the_newest_frame_stay():
    shifts = shift_to_areas(*made({50.0: 1000}), MATCHING)
    assert shifts.abs().max() < 1e-5


def test_a_rate_that_is_not_there_gets_rarer_from_anchor_to_anchor():
    odds, newest, validity = made({5.0: 400}, chance=0.01)
    shifts = shift_to_areas(odds, newest, validity, MATCHING)[0, 0]
    expected = CELLS * torch.sigmoid(odds[0, 0, :, 0] + shifts)
    assert [float(expected[ANCHORS[rate]]) for rate in (20.0, 50.0)] == pytest.approx([0.3, 0.03], rel=0.1)
    dry = shift_to_areas(odds, torch.zeros_like(newest), validity, MATCHING)[0, 0]
    assert torch.isfinite(dry).all()
    assert (dry < 0).all()


def test_missing_cells_count_in_neither_area():
    odds, newest, validity = made({1.0: 400})
    half = torch.zeros_like(validity)
    half[:, : CELLS // 2] = 1
    odds_of_missing = odds.clone()
    odds_of_missing[..., CELLS // 2 :] = 9.0
    newest[:, CELLS // 2 :] = 1.0
    found = shift_to_areas(odds_of_missing, newest, half, MATCHING)
    alone = shift_to_areas(*(each[..., : CELLS // 2] for each in (odds, newest, half)), MATCHING)
    torch.testing.assert_close(found, alone)


def test_chances_of_a_higher_rate_count_at_most_as_those_of_lower_ones():
    odds, *frame = made({0.2: 500})
    odds[:, :, ANCHORS[1.0]] = 3.0
    falling = odds.clone()
    falling[:, :, ANCHORS[1.0]] = falling[:, :, ANCHORS[0.5]]
    assert torch.equal(shift_to_areas(odds, *frame, MATCHING), shift_to_areas(falling, *frame, MATCHING))


def test_a_shift_is_linear_between_anchors_and_stays_beyond_them():
    shifts = torch.arange(9.0)[None, None]
    assert [float(shift_at(shifts, anchor, MATCHING.anchors)) for anchor in MATCHING.anchors] == pytest.approx(range(9))
    first, second, *_, last = MATCHING.anchors
    assert float(shift_at(shifts, (first + second) / 2, MATCHING.anchors)) == pytest.approx(0.5)
    beyond = [float(shift_at(shifts, value, MATCHING.anchors)) for value in (0.0, last + 0.1)]
    assert beyond == [0, 8]


def test_probabilities_have_their_shift_and_never_increase_with_the_value():
    model = make_model(model_config(NamedSection(name="probabilistic", hidden_channels=[4], kernel_sizes=[3])))
    outputs = torch.rand(1, 2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    matched = torch.zeros(1, 2, 2, len(ANCHORS))
    matched[:, :, 1, ANCHORS[1.0] :] = -1.5
    values = [MATCHING.anchors[ANCHORS[rate]] for rate in (0.1, 1.0, 20.0)]
    plain, shifted = model.exceedance(outputs, values), model.exceedance(outputs, values, matched)
    torch.testing.assert_close(shifted[:, :, 0], plain[:, :, 0])
    torch.testing.assert_close(torch.logit(shifted[:, :, 1]), torch.logit(plain[:, :, 1]) - 1.5, rtol=1e-4, atol=1e-4)
    matched[:, :, 1, ANCHORS[20.0] :] = 9.0
    assert (model.exceedance(outputs, values, matched).diff(dim=2) <= 0).all()
