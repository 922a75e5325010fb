"""Members: exact shares, the structure that is asked for, the same for the same seed, missing and dry as they are."""

import cv2
import numpy as np
import pytest
from makers import rain

from nowcast.errors import UsageError
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.draw import members
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.forecasters.members.noise import Noise
from nowcast.forecasters.members.structure import LARGEST, Structure
from nowcast.forecasters.members.usual import USUAL
from nowcast.scores.distribution import RATES

GRID = (40, 48)


def flat(*chances):
    """Chances of reaching RATES, the same in each cell: those given, for the first rates, then 0."""
    field = np.zeros((len(RATES), *GRID), np.float32)
    field[: len(chances)] = np.array(chances, np.float32)[:, None, None]
    return field


def made(past, exceedance, number, *, seed, structure=USUAL):
    """(lead, member, y, x) members of chances (lead, rate, y, x)."""
    return np.stack(list(members(past, exceedance, len(exceedance), number, seed, structure)))


@pytest.fixture(scope="module")
def past():
    return rain(frames=4, shape=GRID)


@pytest.fixture(scope="module")
def many(past):
    """(lead, member, y, x) of 200 members of chances that are the same everywhere."""
    return made(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 200, seed=1)


def test_the_share_of_members_is_the_chance_to_sampling_error(many):
    shares = [(many >= rate).mean(axis=(1, 2, 3)) for rate in (0.1, 0.2, 0.5, 1.0, 2.0)]
    for share, chance in zip(shares, (0.6, 0.5, 0.3, 0.1, 0.0), strict=True):
        np.testing.assert_allclose(share, chance, atol=0.03)


def test_the_same_seed_gives_the_same_members_and_the_first_of_more(past, many):
    few = made(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 3, seed=1)
    np.testing.assert_array_equal(few, many[:, :3])
    other = made(past, [flat(0.6, 0.5, 0.3, 0.1)] * 2, 3, seed=2)
    assert (other != few).mean() > 0.2


def test_number_of_threads_changes_nothing(past):
    found, before = [], cv2.getNumThreads()
    for number in (1, 2):
        cv2.setNumThreads(number)
        found.append(made(past, [flat(0.5, 0.2)], 2, seed=0))
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


def test_the_noise_of_rain_is_that_which_gives_it():
    chances = np.array([0.8, 0.7, 0.4, 0.2, 0.1, *[0.01] * 8], np.float32)[:, None, None]
    distributions, noise = Distributions(np.broadcast_to(chances, (13, 1, 5))), np.array([[-0.6, 0.0, 0.7, 1.2, 2.9]])
    np.testing.assert_allclose(distributions.noise(distributions.rain(noise)), noise, atol=0.02)
    dry = Distributions(np.full((13, 1, 1), 0.5, np.float32)).noise(np.zeros((1, 1), np.float32))
    assert dry[0, 0] == pytest.approx(-np.sqrt(2 / np.pi), abs=1e-3)  # mean of the lower half of a normal distribution
    never = Distributions(np.zeros((13, 1, 1), np.float32)).noise(np.full((1, 1), np.nan))
    assert never[0, 0] == 0


def test_noise_has_the_variance_and_the_correlation_of_its_structure():
    structure = Structure(np.array([5.0, 10.0]), np.array([2.0, 64.0]), np.array([[0.0, 3.0]] * 2), np.full((2, 2), 0.8))
    first, later = [], []
    for member in range(60):
        noise = Noise((5, member), GRID)
        for fields, lead_minutes in ((first, 5), (later, 10)):
            noise.advance(structure.correlations(GRID, 1.0, lead_minutes, 5.0))
            fields.append(noise.field(structure.amplitudes(GRID, 1.0, lead_minutes)))
    assert abs(np.mean(later)) < 0.05
    assert np.std(first) == pytest.approx(1, abs=0.04)
    assert np.std(later) == pytest.approx(1, abs=0.04)
    assert np.mean(np.multiply(first, later)) == pytest.approx(0.8, abs=0.04)


def test_a_structure_serves_other_cells_and_time_steps():
    tables = np.array([[0.0, 1.0, 2.0]] * 2), np.array([[0.64] * 3] * 2)
    structure = Structure(np.array([10.0, 20.0]), np.array([2.0, 4.0, 8.0]), *tables)
    assert structure.correlations((8, 8), 1.0, 10.0, step=5.0)[1, 1] == pytest.approx(0.8)  # half the time: the root
    fine, coarse = structure.amplitudes((16, 16), 1.0, 10.0), structure.amplitudes((8, 8), 2.0, 10.0)
    np.testing.assert_allclose(fine[0, 1:4] / fine[0, 1], coarse[0, 1:4] / coarse[0, 1], rtol=1e-5)  # the same km


def test_a_structure_is_kept_and_nothing_else_taken_for_one():
    kept = Structure.from_dict(USUAL.as_dict())
    np.testing.assert_allclose(kept.power, USUAL.power, atol=0.0006)
    for wrong in ({"power": [[0.0]]}, {"km": kept.km[::-1].tolist()}, {"largest": 3.0}):
        with pytest.raises(ValueError, match="no structure of noise"):
            Structure.from_dict(USUAL.as_dict() | wrong)


def test_missing_stays_missing_and_dry_stays_dry(past):
    chances = flat(0.5, 0.2)
    chances[:, :5] = np.nan
    (drawn,) = made(past, [chances], 2, seed=0)
    assert np.isnan(drawn[:, :5]).all()
    assert np.isfinite(drawn[:, 5:]).all()
    (dry,) = made(np.zeros_like(past), [chances], 2, seed=0)
    assert np.isnan(dry[:, :5]).all()
    assert (dry[:, 5:] == 0).all()


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
