"""Intercept, slope and cut are those that the counts were made with; few events lean on their neighbours."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from nowcast.models.guided.calibration import (
    CENTRES,
    GUIDANCE_CENTRES,
    LEAD_RANGE,
    LIMIT,
    NEVER,
    RATES_WORTH,
    WIDTH,
    CutCalibration,
    correction,
    count_guidance,
    count_odds,
    fill_rows,
    logistic_regression,
    unbiased_cut,
    unbiased_cuts,
    with_neighbours,
)
from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS


def counted(intercept, slope, seed=0, cells=400_000):
    """Counts (bin, 2) of guidance whose true log-odds are intercept + slope z."""
    rng = np.random.default_rng(seed)
    codes = np.rint(STEPS * rng.normal(-2, 2, cells)).clip(-LARGEST, LARGEST).astype(int)
    event = rng.random(cells) < expit(intercept + slope * codes / STEPS)
    return np.bincount(2 * (codes + LARGEST) + event, minlength=2 * len(GUIDANCE_CENTRES)).reshape(-1, 2)


def test_the_correction_is_what_the_odds_were_distorted_by():
    assert logistic_regression(counted(-0.5, 0.7), GUIDANCE_CENTRES) == pytest.approx((-0.5, 0.7), abs=0.02)
    assert logistic_regression(counted(0, 1) * 0, GUIDANCE_CENTRES) == pytest.approx((0, 1))


def test_the_entropy_is_that_of_the_corrected_guidance():
    counts = counted(-0.5, 0.7)
    fitted, entropy = correction(counts[None, None])
    assert fitted.shape == (1, 1, 2)
    odds = torch.from_numpy(fitted[0, 0, 0] + fitted[0, 0, 1] * GUIDANCE_CENTRES)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    sums = [cross_entropy(odds, torch.full_like(odds, event), torch.from_numpy(counts[:, event]), reduction="sum")
            for event in (0, 1)]  # fmt: skip
    assert entropy == pytest.approx([float(sum(sums)) / counts.sum()])
    assert correction(counts[None, None] * 0)[1] == pytest.approx([0.0])


def test_as_many_cells_reach_the_cut_as_there_are_events():
    counts = counted(-0.5, 0.7)
    cut = unbiased_cut(counts, GUIDANCE_CENTRES)
    above = counts.sum(axis=1)[cut + 0.5 / STEPS < GUIDANCE_CENTRES].sum()
    within = counts.sum(axis=1)[np.abs(GUIDANCE_CENTRES - cut) <= 0.5 / STEPS].sum()
    assert above <= counts[:, 1].sum() <= above + within
    assert unbiased_cut(counts * [1, 0], GUIDANCE_CENTRES) == NEVER
    cuts = unbiased_cuts(np.stack([counts, counts * [1, 0], counts * 0, counts * [1, 0]])[None], GUIDANCE_CENTRES)
    assert cuts[0, 1] < NEVER, "the next rate lends events"
    assert cuts[0, 3] == NEVER, "the one after it none"


def test_few_events_lean_on_their_neighbours():
    counts = np.zeros((3, 2, len(GUIDANCE_CENTRES), 2))
    counts[0, 0], counts[2, 0] = counted(0, 1, cells=40_000), counted(0, 1, seed=1, cells=40_000)
    events, kept = counts[..., 1].sum(axis=-1), with_neighbours(counts)[..., 1].sum(axis=-1)
    next_lead, lead_after = np.exp(-1 / LEAD_RANGE), np.exp(-2 / LEAD_RANGE)
    assert kept[0, 0] == pytest.approx(events[0, 0] + lead_after * events[2, 0])
    assert kept[1, 0] == pytest.approx(next_lead * (events[0, 0] + events[2, 0]))
    assert kept[:, 1] == pytest.approx([RATES_WORTH] * 3)
    cuts = unbiased_cuts(counts, GUIDANCE_CENTRES)
    assert cuts == pytest.approx(np.full_like(cuts, cuts[0, 0]), abs=0.1)


def test_guidance_is_counted_by_its_code_where_both_are_known():
    coded = np.full((1, len(RATES), 1, 4), -10, np.int8)
    coded[0, :, 0, 2] = MISSING
    counts = count_guidance(coded, np.array([[[0.7, 0.0, 3.0, np.nan]]], np.float32))
    assert counts.sum() == 2 * len(RATES)
    assert GUIDANCE_CENTRES[LARGEST - 10] == -1
    assert counts[0, 1, LARGEST - 10].tolist() == [1, 1]  # 0.7 mm/h reaches 0.5
    assert counts[0, 2, LARGEST - 10].tolist() == [2, 0]
    extreme = count_guidance(np.full((1, len(RATES), 1, 1), LARGEST, np.int8), np.zeros((1, 1, 1), np.float32))
    assert (extreme[0, :, -1, 0] == 1).all()


def test_a_networks_odds_are_counted_in_their_bin_and_the_far_ones_at_the_ends():
    odds = torch.full((2, 1, len(RATES), 1, 3), -1.02)
    odds[1] = torch.tensor([40.0, -40.0, torch.nan])
    observed, validity = torch.tensor([[[[0.7, 0.0, 3.0]]], [[[9.0, 0.0, 0.0]]]]), torch.ones(2, 1, 1, 3)
    validity[0, 0, 0, 2] = 0
    counts = count_odds(odds, observed, validity)
    at = int((LIMIT - 1.02) / WIDTH)
    assert abs(CENTRES[at] + 1.02) <= WIDTH / 2
    assert counts.sum() == 4 * len(RATES)
    assert counts[0, 1, at].tolist() == [1, 1]
    assert counts[0, 0, -1].tolist() == [0, 1]
    assert counts[0, 0, 0].tolist() == [1, 0]


def test_rows_after_the_last_lead_are_those_of_the_last():
    buffer = torch.zeros(5, 2)
    fill_rows(buffer, np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert buffer.tolist() == [[1, 2], [3, 4], [3, 4], [3, 4], [3, 4]]
    fill_rows(buffer[:1], np.array([[7.0, 8.0], [9.0, 9.0]]))
    assert buffer[:2].tolist() == [[7, 8], [3, 4]], "more lead times than rows: the first ones"


def test_cuts_of_validation_forecast_as_many_cells_as_were_observed():
    generator = torch.Generator().manual_seed(0)
    odds = 2 * torch.randn(2, 2, len(RATES), 60, 60, generator=generator) - torch.arange(len(RATES))[:, None, None]
    share = torch.rand(2, 2, 1, 60, 60, generator=generator)
    reached = share < torch.sigmoid(0.7 * odds - 0.5)
    rates = torch.tensor([0.0, *RATES])
    observed = rates[reached.cumprod(dim=2).sum(dim=2)]  # a rate only where all lower ones are
    cuts = torch.zeros(4, len(RATES))
    halves = [CutCalibration(cuts) for _ in range(2)]
    for case, half in enumerate(halves):
        half.count(odds[case : case + 1], observed[case : case + 1], torch.ones(1, 2, 60, 60), [(0, 0)])
    halves[0].apply(lambda counts: [counts, halves[1].counts])
    assert torch.equal(cuts[2], cuts[1])
    for rate in range(4):  # the rarer ones lean on others
        forecast = (odds[:, :, rate] >= cuts[:2, rate, None, None]).float().mean()
        assert forecast == pytest.approx(float((observed >= RATES[rate]).float().mean()), rel=0.05)
