"""Guidance is the cascade's log-odds, carried along the motion of the rain, in eight bits."""

from functools import cache

import cv2
import numpy as np
import pytest
import torch
from makers import rain

from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS, TRANSFORM, VALUES, guidance
from nowcast.models.probabilistic.distribution import log_odds
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig
from nowcast.models.transform import network_input
from nowcast.motion import motion, past_to_lagrangian, trace

LEADS = 3


@cache
def past():
    """Four frames of rain that moves by (1, 2) cells a frame, with missing cells here and there, and a missing block."""
    frames = rain(frames=4, shape=(40, 48), missing=0.02)
    frames[:, 20:28, 12:20] = np.nan
    return frames


@cache
def coded():
    return guidance(past(), LEADS)


@torch.no_grad()
def carried(frames, num_leads):
    """The log-odds (lead, rate, y, x) of a probabilistic network that has learnt nothing, read where the air comes from."""
    flow, model = motion(frames), Probabilistic(ProbabilisticConfig(hidden_channels=(2,), kernel_sizes=(3,))).eval()
    torch.nn.init.zeros_(model.head.weight)
    still = torch.from_numpy(past_to_lagrangian(frames, flow))[None]
    outputs = model(network_input(still, TRANSFORM), num_leads)
    odds = torch.stack([log_odds(outputs, value)[0] for value in VALUES], dim=1).numpy()
    known = ~np.isnan(frames[-1])
    found = []
    for lead, places in enumerate(trace(flow, num_leads)):
        share, *read = (
            cv2.remap(np.where(known, field, 0).astype(np.float32), *places, cv2.INTER_LINEAR, borderValue=0)
            for field in (known, *odds[lead])
        )
        found.append(np.where(share >= 0.5, np.stack(read) / np.maximum(share, 0.5), np.nan))
    return np.stack(found)


def test_it_is_the_cascades_own_within_half_a_step():
    expected = carried(past(), LEADS)
    np.testing.assert_array_equal(coded() == MISSING, np.isnan(expected))
    known = coded() != MISSING
    cut_off = np.clip(expected, -LARGEST / STEPS, LARGEST / STEPS)
    assert np.abs(coded() / STEPS - cut_off)[known].max() <= 0.5 / STEPS + 1e-4
    assert (np.abs(expected[known]) < LARGEST / STEPS).mean() > 0.3, "much of it is not cut off"


def test_values_are_those_of_the_rates():
    assert TRANSFORM.decode(torch.tensor(VALUES)).tolist() == pytest.approx(RATES, rel=1e-5)


def test_a_part_is_that_part_of_the_whole():
    cells = slice(5, 30), slice(9, 48)
    np.testing.assert_array_equal(guidance(past(), LEADS, cells), coded()[(..., *cells)])


def test_air_from_outside_and_from_missing_cells_has_none():
    frames = rain(frames=4, shape=(40, 48))
    frames[-1, 20:28, 20:28] = np.nan
    missing = guidance(frames, 4) == MISSING
    assert (missing == missing[:, :1]).all(), "of all rates alike"
    last = missing[-1, 0]
    assert last[:2].all(), "the rain comes from the upper left, by one row and two columns a frame"
    assert last[:, :6].all()
    assert last[26:30, 30:34].all(), "the block has moved on"
    assert not last[8:18, 12:].any()


def test_a_dry_past_has_low_odds_everywhere_and_large_ones_are_cut_off():
    dry = guidance(np.zeros((4, 20, 24), np.float32), 2)
    assert (dry != MISSING).all()
    assert (dry < 0).all()
    assert (dry[:, -1] == -LARGEST).all()
    wet = guidance(np.full((4, 20, 24), 90.0, np.float32), 1)
    assert (wet[:, 0] == LARGEST).all()
    assert dry.dtype == wet.dtype == np.int8


@pytest.mark.parametrize("shape", [(1, 20, 24), (4, 1, 40), (4, 40, 1)], ids=["one frame", "one row", "one column"])
def test_short_pasts_and_narrow_grids_have_guidance(shape):
    frames = np.full(shape, 2.0, np.float32)
    frames[-1, ..., :1] = 4.0
    found = guidance(frames, 2)
    assert found.shape == (2, len(RATES), *shape[1:])
    assert (found != MISSING).mean() > 0.9
    assert (np.diff(found.astype(int), axis=1) <= 0).all(), "a higher rate is not likelier"
