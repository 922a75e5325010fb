"""Frames that are missing as a whole are interpolated in time, and never taken as dry."""

import numpy as np
import pytest
import torch
from makers import rain

from nowcast.models.guided.guidance import guidance
from nowcast.models.probabilistic import cascade
from nowcast.models.probabilistic.cascade import BLOCK, without_gaps
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig


def steady(frames=4, *, seed=0):
    """The same field in each frame (1, frame, 2, y, x), all known."""
    field = torch.rand(1, 1, 1, BLOCK, 2 * BLOCK, generator=torch.Generator().manual_seed(seed)) ** 3
    return torch.cat([field, torch.ones_like(field)], dim=2).repeat(1, frames, 1, 1, 1)


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_frame_is_interpolated_between_those_that_are_there(monkeypatch, shortcut):
    if not shortcut:  # as on a GPU and in exports
        monkeypatch.setattr(cascade, "are_for_c", lambda *_: False)
    frames = steady(5) * torch.tensor([1, 2, 3, 7, 5.0]).view(-1, 1, 1, 1)
    frames[:, :, 1] = 1
    field, missing = frames[0, 0, 0].clone(), torch.cat([frames, frames])
    missing[0, [0, 2, 3]] = 0
    filled = without_gaps(missing)
    for frame, factor in enumerate((2, 2, 3, 4, 5)):
        torch.testing.assert_close(filled[0, frame, 0], factor * field)
    assert (filled[:, :, 1] == 1).all()
    assert torch.equal(filled[1:], frames)
    assert torch.equal(without_gaps(frames), frames)
    missing[:] = 0
    assert torch.equal(without_gaps(missing), missing)


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_frame_that_is_missing_in_part_stays_as_it_is(monkeypatch, shortcut):
    """Where rain comes in, old frames carried along the motion are missing; then skill did not gain on all records."""
    if not shortcut:
        monkeypatch.setattr(cascade, "are_for_c", lambda *_: False)
    frames = steady()
    frames[:, :2, :, :, : BLOCK + 3] = 0
    assert torch.equal(without_gaps(frames), frames)


def test_cells_that_only_one_of_two_frames_knows_are_taken_from_it():
    frames = steady(3)
    frames[:, 1] = 0
    frames[:, 0, :, 0, 0] = frames[:, 2, :, 0, 1] = 0
    frames[:, [0, 2], :, 0, 2] = 0
    filled = without_gaps(frames)[0, 1]
    assert torch.equal(filled[:, 0, 0], frames[0, 2, :, 0, 0])
    assert torch.equal(filled[:, 0, 1], frames[0, 0, :, 0, 1])
    assert torch.equal(filled[:, 0, 2], torch.zeros(2))


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_steady_rain_is_forecast_the_same_without_one_of_its_frames(absent):
    torch.manual_seed(0)
    model = Probabilistic(ProbabilisticConfig(hidden_channels=(3,), kernel_sizes=(3,))).eval()
    frames = steady()
    missing = frames.clone()
    missing[:, absent] = 0
    with torch.inference_mode():
        torch.testing.assert_close(model(missing, 3), model(frames, 3))
        torch.testing.assert_close(*(torch.stack(list(model.cascade(each, 3))) for each in (missing, frames)))


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_guidance_expects_as_much_rain_without_one_of_the_frames(absent):
    past = rain(frames=4, shape=(96, 112), motion=(1, 2))
    holed = past.copy()
    holed[absent] = np.nan
    areas = []
    for each in (past, holed):
        odds = guidance(each, 6)[:, (1, 4)] / 10
        areas.append(np.mean(1 / (1 + np.exp(-odds)), axis=(2, 3), where=odds > -12.8))
    np.testing.assert_allclose(areas[1], areas[0], rtol=0.1)
