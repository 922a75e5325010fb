"""Members: exact shares, the radar's spectrum, the same for the same seed, missing and dry as they are."""

import cv2
import numpy as np
import pytest
from makers import rain

from nowcast.errors import UsageError
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.forecasters.members.copula import LARGEST, Distributions
from nowcast.forecasters.members.draw import members
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.forecasters.members.noise import Noise
from nowcast.forecasters.members.structure import autoregression, structure
from nowcast.scores.distribution import RATES

GRID = (40, 48)


def flat(*chances):
    """Chances of reaching RATES, the same in each cell: those given, for the first rates, then 0."""
    field = np.zeros((len(RATES), *GRID), np.float32)
    field[: len(chances)] = np.array(chances, np.float32)[:, None, None]
    return field


@pytest.fixture(scope="module")
def past():
    return rain(frames=4, shape=GRID)


@pytest.fixture(scope="module")
def many(past):
    """(lead, member, y, x) of 200 members of chances that are the same everywhere."""
    return np.stack(list(members(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 200, seed=1)))


def test_the_share_of_members_is_the_chance_to_sampling_error(many):
    shares = [(many >= rate).mean(axis=(1, 2, 3)) for rate in (0.1, 0.2, 0.5, 1.0, 2.0)]
    for share, chance in zip(shares, (0.6, 0.5, 0.3, 0.1, 0.0), strict=True):
        np.testing.assert_allclose(share, chance, atol=0.03)


def test_the_same_seed_gives_the_same_members_and_the_first_of_more(past, many):
    few = np.stack(list(members(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 3, seed=1)))
    np.testing.assert_array_equal(few, many[:, :3])
    other = np.stack(list(members(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 3, seed=2)))
    assert (other != few).mean() > 0.2


def test_number_of_threads_changes_nothing(past):
    found, before = [], cv2.getNumThreads()
    for number in (1, 2):
        cv2.setNumThreads(number)
        found.append(np.stack(list(members(past, [flat(0.5, 0.2)], 2, seed=0))))
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(*found)


def test_members_last_and_are_not_alike(many):
    wet = (many >= 0.1) - 0.6
    assert (wet[0] * wet[1]).mean() > 0.03  # next lead time: what is wet stays wet rather than not
    assert abs((wet[0, :100] * wet[0, 100:]).mean()) < 0.02  # other members: independent


def test_rain_is_found_where_the_distribution_has_it():
    distributions = Distributions(np.array([0.8, 0.4, 0.4, 0.2, *[0] * 9], np.float32)[:, None, None])
    noise = {0.9: 0.0, 0.8: 0.1, 0.4: 0.5, 0.2: 1.0}  # chance of more noise -> rain
    from scipy.special import ndtri

    for chance, expected in noise.items():
        found = distributions.rain(np.array([[ndtri(1 - chance + 1e-4)]], np.float32))
        np.testing.assert_allclose(found, expected, rtol=0.01)
    assert 1 < distributions.rain(np.array([[3.5]], np.float32))[0, 0] < 2  # no chance of 2 mm/h
    certain = Distributions(np.ones((len(RATES), 1, 1), np.float32))
    assert 49.9 <= certain.rain(np.array([[-6.0]], np.float32))[0, 0] <= certain.rain(np.array([[9.0]]))[0, 0] <= LARGEST


def test_noise_is_standard_normal_at_each_lead(past):
    own = structure(past)
    fields, spread = [], own.spread(3)[-1]
    for member in range(60):
        noise = Noise(own, (5, member))
        for _ in range(3):
            noise.advance()
        power = own.power * spread**2 / (own.power * spread**2).sum()
        fields.append(noise.field(np.sqrt(power / np.maximum(own.bands.sizes, 1)) / spread))
    assert abs(np.mean(fields)) < 0.02
    assert np.std(fields) == pytest.approx(1, abs=0.03)


def test_autoregression_has_the_correlations_that_it_is_given():
    (a, b), innovation = autoregression(np.array([0.9, 0.5]), np.array([0.82, 0.3]))
    np.testing.assert_allclose(a + b * np.array([0.9, 0.5]), [0.9, 0.5])  # Yule–Walker, lag 1
    np.testing.assert_allclose(innovation**2, 1 - a * np.array([0.9, 0.5]) - b * (a * np.array([0.9, 0.5]) + b))


def test_missing_stays_missing_and_dry_stays_dry(past):
    chances = flat(0.5, 0.2)
    chances[:, :5] = np.nan
    (drawn,) = members(past, [chances], 2, seed=0)
    assert np.isnan(drawn[:, :5]).all()
    assert np.isfinite(drawn[:, 5:]).all()
    (dry,) = members(np.zeros_like(past), [chances], 2, seed=0)
    assert np.isnan(dry[:, :5]).all()
    assert (dry[:, 5:] == 0).all()


@pytest.mark.slow
def test_members_have_the_spectrum_of_the_rain():
    past = rain(frames=4, shape=(160, 160), motion=(0, 1))
    own = structure(past)
    ensemble = Ensemble(Extrapolation(), 4)
    later = list(ensemble.draw(past, 6))
    inner = slice(20, 140)
    for lead in (2, 5):
        power = [np.abs(np.fft.rfft2(field[inner, inner] - field[inner, inner].mean())) ** 2 for field in later[lead]]
        newest = np.abs(np.fft.rfft2(past[-1, inner, inner] - past[-1, inner, inner].mean())) ** 2
        rings = np.rint(np.hypot(np.fft.fftfreq(120)[:, None], np.fft.rfftfreq(120)) * 120).astype(int)
        for first, last in ((3, 6), (7, 12)):
            chosen = (rings >= first) & (rings <= last)
            assert 0.4 < np.mean(power, axis=0)[chosen].sum() / newest[chosen].sum() < 2.5
    assert own.power.sum() == pytest.approx(1)


def test_an_ensemble_is_its_members(past):
    ensemble = Ensemble(Extrapolation(), 5, seed=3)
    drawn = np.stack(list(ensemble.draw(past, 2)))
    leads, reference = np.array([5, 10], "timedelta64[m]"), np.datetime64("2020-01-01")
    field, none = ensemble.forecast_one(past, reference, leads)
    assert none is None
    for n, lead in enumerate(leads):
        kept = ensemble.members_at(reference, lead)
        np.testing.assert_allclose(kept, drawn[n], atol=0.00501)
        np.testing.assert_allclose(field[n], kept.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.forecast(past[None], 2)[0], drawn.mean(axis=1), rtol=1e-5)
    assert ensemble.num_members == 5
    assert "5 members, seed 3" in ensemble.describe()["what"]


def test_a_forecaster_without_probabilities_has_no_members():
    with pytest.raises(UsageError, match="persistence gives no members"):
        Ensemble(Persistence(), 3)
