"""The cascade: bands add up to the frame, and each continues as the autoregression of its past frames."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nowcast.models.probabilistic.cascade import (
    BLOCK,
    CASCADE,
    FAINT,
    NUM_STEPS,
    block_correlation,
    change_of_lasting_rain,
    extrapolate,
    fit_autoregression,
    join_bands,
    split_bands,
    unpredicted_shares,
    with_mean_change,
    without_error,
)
from nowcast.models.probabilistic.upsampling import upsample

pytestmark = pytest.mark.slow  # all of them together take seconds

CELLS = 2 * BLOCK
REACH = CASCADE.correlation_reach


def fields(frames=4, cases=2, missing=0.1, seed=0, shape=(CELLS, 3 * BLOCK)):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(cases, frames, *shape, generator=generator) ** 3
    known = (torch.rand(cases, frames, *shape, generator=generator) >= missing).float()
    return values * known, known


def process(first, second, frames, *, seed=0):
    """A stationary process of second order with these weights in every cell: (1, frame, y, x)."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.zeros(512, 512), torch.zeros(512, 512)]
    for _ in range(300):
        made.append(first * made[-1] + second * made[-2] + torch.randn(512, 512, generator=generator))
    return torch.stack(made[-frames:])[None]


def forecasts_and_shares(band, leads):
    """Of a band whose blocks have BLOCK cells."""
    shares = unpredicted_shares([band], leads)
    return ((forecast, share[:, 0]) for forecast, share in zip(extrapolate(band, BLOCK, leads), shares, strict=True))


# the first example waits for the compiler
@given(missing=st.sampled_from([0.0, 0.1, 0.9, 1.0]), seed=st.integers(0, 9))
def test_the_bands_of_a_frame_add_up_to_it(missing, seed):
    values, known = fields(missing=missing, seed=seed)
    whole = join_bands([band for band, _ in split_bands(values, known)])
    assert ((whole - values) * known).abs().max() < 1e-5
    assert (whole >= -1e-5).all(), "missing cells are as their surroundings"
    assert (whole <= values.max() + 1e-5).all()


def test_each_band_has_half_the_cells_of_the_finer_one_and_its_own_scale():
    bands = [band for band, _ in split_bands(*fields())]
    assert [band.shape[-2] for band in bands] == [CELLS >> n for n in range(NUM_STEPS + 1)]
    even = split_bands(torch.full((1, 1, CELLS, CELLS), 0.3), torch.ones(1, 1, CELLS, CELLS))
    assert all(band.abs().max() < 1e-6 for band, _ in even[:-1]), "what is the same everywhere has no detail"
    assert even[-1][0].numpy() == pytest.approx(0.3)


def test_missing_cells_add_no_detail():
    values, known = fields(frames=1, missing=0.0)
    known[..., : BLOCK + 3, :7] = 0
    finer = split_bands(values * known, known)[:-1]
    assert any((share == 0).any() for _, share in finer)
    for band, share in finer:
        assert (band[share == 0] == 0).all()


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.0), (0.9, 0.0), (0.4, 0.3), (1.1, -0.3)])
def test_weights_are_those_of_the_process_that_made_the_frames(first, second):
    frames = process(first, second, 6)
    band = fit_autoregression(frames, torch.ones_like(frames), BLOCK)
    found = [float(weight[..., REACH:-REACH, REACH:-REACH].mean()) for weight in band.weights]
    assert found == pytest.approx([first, second], abs=0.02)


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.0), (1.1, -0.3)])
def test_the_weights_are_found_under_errors_of_known_share(first, second):
    clean = process(first, second, 6)
    apart = (clean[:, 1:] - clean[:, :-1]).square().mean() / 2
    error = 0.5 * apart  # of what differs between two frames then, a third
    frames = clean + error.sqrt() * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    found = fit_autoregression(frames, torch.ones_like(frames), BLOCK)
    as_is, without = (
        [float(weight[..., REACH:-REACH, REACH:-REACH].mean()) for weight in band.weights]
        for band in (found, without_error(found, float(error / (error + apart))))
    )
    assert without == pytest.approx([first, second], abs=0.03)
    assert abs(as_is[0] - first) > 0.1
    assert without_error(found, 0.0).weights[0] == pytest.approx(found.weights[0])


def test_a_change_that_goes_on_is_steadied_to_itself_and_chance_to_less():
    start, change = torch.rand(2, 8, 8), torch.rand(2, 8, 8)
    frames = torch.stack([start + n * change for n in range(4)], dim=1)
    band = fit_autoregression(frames, torch.ones_like(frames), 2)
    np.testing.assert_allclose(with_mean_change(band, frames).before, frames[:, -2], atol=1e-6)
    chance = frames + torch.randn(frames.shape)
    band = fit_autoregression(chance, torch.ones_like(frames), 2)
    errors = [(band.newest - before - change).std() for before in (band.before, with_mean_change(band, chance).before)]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("frames", [1, 2])
def test_with_fewer_frames_the_last_change_is_all_there_is(frames):
    values, known = fields(frames=frames)
    band = fit_autoregression(values, known, BLOCK)
    np.testing.assert_allclose(with_mean_change(band, values).before, values[:, 0], atol=1e-6)
    assert (without_error(band, 0.5).weights[1] == 0).all()


def test_what_lasts_is_the_change_that_goes_on_for_longer():
    start, change = torch.rand(1, 12, 12), 0.02 * torch.randn(1, 12, 12)
    frames = torch.stack([start + n * change + 0.01 * torch.randn(1, 12, 12) for n in range(4)], dim=1)
    parts = (frames, 2), (frames[..., ::2, ::2], 1)
    fine, whole = (fit_autoregression(part, torch.ones_like(part), block) for part, block in parts)
    assert all((more == 0).all() for more in change_of_lasting_rain([fine, whole], 0.0, 3)), "without errors nothing is added"
    *_, more = change_of_lasting_rain([fine, whole], 0.4, 12)
    assert more.shape == (1, 1, 12, 12)
    both = change + upsample(change[:, None, ::2, ::2])[:, 0]
    assert np.corrcoef(more.flatten(), both.flatten())[0, 1] > 0.6


def test_what_is_not_foreseen_is_the_error_that_the_forecast_has():
    frames = process(0.4, 0.3, 10)
    band = fit_autoregression(frames[:, :6], torch.ones_like(frames[:, :6]), BLOCK)
    variance = float(frames.var())
    for lead, (forecast, share) in enumerate(forecasts_and_shares(band, 4)):
        error = float((forecast - frames[:, 6 + lead]).square().mean())
        assert error == pytest.approx(variance * float(share.mean()), rel=0.03)


def test_what_only_stands_goes_on_standing():
    values, _ = fields(frames=1, missing=0.0)
    frames = values.repeat(1, 4, 1, 1)
    *_, (forecast, share) = forecasts_and_shares(fit_autoregression(frames, torch.ones_like(frames), BLOCK), 12)
    np.testing.assert_allclose(forecast, frames[:, -1], atol=0.01)
    assert share.max() < 0.01


def test_noise_is_gone_at_the_first_lead():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 4, 512, 512, generator=generator)
    forecast, share = next(forecasts_and_shares(fit_autoregression(frames, torch.ones_like(frames), BLOCK), 1))
    assert forecast.std() < 0.02
    assert share.min() > 0.98


@pytest.mark.parametrize("frames", [1, 2])
def test_a_short_past_is_of_lower_order(frames):
    values, known = fields(frames=frames)
    band = fit_autoregression(values, known, BLOCK)
    assert (band.weights[1] == 0).all()
    assert ((band.weights[0] > 0.999) == (frames == 1)).all()


def test_no_past_makes_it_grow_without_end():
    for seed in range(20):
        values, known = fields(seed=seed, missing=0.3)
        values[:, -1] *= 1 + 5 * seed
        *_, (forecast, share) = forecasts_and_shares(fit_autoregression(values, known, BLOCK), 100)
        assert forecast.abs().max() <= 3 * values.max()
        assert ((share >= 0) & (share <= 1)).all()


def test_nothing_to_go_on_is_nothing():
    frames = torch.zeros(1, 3, CELLS, CELLS)
    for known in (torch.zeros_like(frames), torch.ones_like(frames)):
        for band, share in split_bands(frames, known):
            block = BLOCK * band.shape[-1] // CELLS
            for forecast in extrapolate(fit_autoregression(band, share, block), block, 3):
                assert (forecast == 0).all()


def test_the_correlation_of_a_faint_band_is_lower():
    """Of frames that are alike it is half at a mean square of FAINT, and nearly 1 far above it."""
    frames = FAINT**0.5 * torch.tensor([1.0, 100.0])[:, None, None, None].expand(2, 2, 8, 8)
    found = block_correlation(frames, torch.ones_like(frames), 2, 1, 0)
    assert found.numpy() == pytest.approx(np.broadcast_to([[[0.5]], [[1e4 / (1e4 + 1)]]], (2, 4, 4)))


def test_widening_keeps_the_mean_within():
    field = torch.rand(1, 1, 4, 4)
    wide = upsample(field, 8)
    assert wide.shape == (1, 1, 32, 32)
    assert field.min() - 1e-6 <= wide.min()
    assert wide.max() <= field.max() + 1e-6
    assert wide.mean() == pytest.approx(float(field.mean()), rel=0.1)
    assert upsample(field, 1) is field


def test_shares_of_several_bands_are_those_of_each():
    frames = process(0.4, 0.3, 4)[..., :CELLS, :CELLS]
    bands = [fit_autoregression(part, torch.ones_like(part), BLOCK) for part in (frames, frames.square())]
    together = torch.stack(list(unpredicted_shares(bands, 3)))
    alone = torch.cat([torch.stack(list(unpredicted_shares([band], 3))) for band in bands], dim=2)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
