"""Members are as rough as the newest frame of their radar, whatever radar the noise was measured on."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nowcast.forecasters.baselines import Extrapolation
from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.default_structure import DEFAULT
from nowcast.forecasters.members.draw import members
from nowcast.forecasters.members.texture import with_texture
from nowcast.motion import trace
from nowcast.scores.distribution import RATES

GRID, KM, MINUTES = (128, 120), 1.0, 5.0
CHANCES = np.array([0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, *[0.01] * 5], np.float32)
EXCEEDANCE = np.broadcast_to(CHANCES[:, None, None], (len(RATES), *GRID))


def frames(sigma, *, seed=0):
    """(4, y, x) mm/h: still rain whose waves are those of white noise smoothed over `sigma` cells."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(GRID), sigma)
    return np.repeat(np.clip(3 * field / field.std(), 0, None)[None], 4, axis=0).astype(np.float32)


def roughness(rain):
    """The mean difference between neighbours, as a share of the standard deviation."""
    return np.abs(np.diff(np.minimum(rain, 10), axis=-1)).mean() / np.minimum(rain, 10).std()


def drawn(past, number=4, **options):
    """(lead, member, y, x) of chances that are the same everywhere."""
    options = {"km": KM, "minutes": MINUTES, "of_this_radar": False} | options
    return np.stack(list(members(past, iter([EXCEEDANCE] * 3), 3, number, 0, DEFAULT, **options)))


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_members_are_as_rough_as_the_newest_frame(sigma):
    past = frames(sigma)
    assert roughness(drawn(past)[0]) == pytest.approx(roughness(past[-1]), rel=0.15)


def test_what_was_measured_on_the_radar_itself_is_kept():
    smooth, rough = (drawn(frames(sigma), of_this_radar=True) for sigma in (4.0, 0.0))
    assert roughness(smooth) == pytest.approx(roughness(rough), rel=0.05)
    assert roughness(drawn(frames(0.0))) > 1.5 * roughness(drawn(frames(4.0)))


def test_the_share_of_members_stays_the_chance():
    shares = [(drawn(frames(4.0), 60) >= rate).mean() for rate in (0.1, 1.0, 10.0)]
    np.testing.assert_allclose(shares, CHANCES[[RATES.index(rate) for rate in (0.1, 1.0, 10.0)]], atol=0.03)


def test_the_first_of_more_are_those_of_fewer():
    past = frames(1.0)
    np.testing.assert_array_equal(drawn(past, 2), drawn(past, 5)[:, :2])


def test_long_waves_and_how_long_noise_lasts_are_kept():
    newest, where = frames(4.0)[-1], next(iter(trace(np.zeros((2, *GRID), np.float32), 1)))
    found = with_texture(DEFAULT, newest, Distributions(EXCEEDANCE), where, (0,), km=KM, minutes=MINUTES)
    change = found.power - DEFAULT.at_lengths(found.km).power
    np.testing.assert_allclose(change[..., found.km >= 32], 0, atol=1e-9)
    assert (change[..., found.km < 8] < -1).all()
    part = (found.km > 12) & (found.km < 32)
    assert ((change[..., part] < 0) & (change[..., part] > change[..., found.km < 8].min())).all()
    np.testing.assert_allclose(change, change[:1, :1] + np.zeros_like(change), atol=1e-9)  # of both noises, at all lead times
    np.testing.assert_array_equal(found.memory, DEFAULT.at_lengths(found.km).memory)


def test_cells_that_are_not_forecast_do_not_keep_others_from_their_texture():
    newest, where = frames(4.0)[-1], next(iter(trace(np.zeros((2, *GRID), np.float32), 1)))
    partly = EXCEEDANCE.copy()
    partly[:, :, :30] = np.nan
    found = with_texture(DEFAULT, newest, Distributions(partly), where, (0,), km=KM, minutes=MINUTES)
    change = found.power - DEFAULT.at_lengths(found.km).power
    assert (change[..., found.km < 8] < -4).all()


@pytest.mark.parametrize("newest", [0.0, np.nan])
def test_a_newest_frame_that_tells_nothing_changes_nothing(newest):
    past = frames(1.0)
    past[-1] = newest
    np.testing.assert_array_equal(drawn(past), drawn(past, of_this_radar=True))


def test_extrapolation_follows_the_texture_of_its_record():
    smooth, rough = (np.stack(list(Extrapolation().members(frames(sigma), 1, 4))) for sigma in (3.0, 0.7))
    assert roughness(rough) > 1.5 * roughness(smooth)
