"""Members: exact shares, the structure that is asked for, the same for the same seed, missing and dry as they are."""

import cv2
import numpy as np
import pytest
from makers import rain
from scipy.special import ndtri

from nowcast.errors import UsageError
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.forecasters.members.copula import Distributions
from nowcast.forecasters.members.default_structure import DEFAULT
from nowcast.forecasters.members.draw import drawn, members
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.forecasters.members.noise import Noise
from nowcast.forecasters.members.structure import INTENSITY, LARGEST, OCCURRENCE, Structure
from nowcast.netcdf.writing.members import packed, unpacked
from nowcast.scores.distribution import RATES

GRID = (40, 48)


def flat(*chances):
    """Chances of reaching RATES, the same in each cell: those given, for the first rates, then 0."""
    field = np.zeros((len(RATES), *GRID), np.float32)
    field[: len(chances)] = np.array(chances, np.float32)[:, None, None]
    return field


def made(past, exceedance, number, *, seed, structure=DEFAULT):
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
    found_at = {0.9: 0.0, 0.81: 0.0, 0.79: 0.1, 0.1: 0.1}  # chance of more noise of occurrence -> rain, of the least intensity
    for chance, expected in found_at.items():
        np.testing.assert_allclose(distributions.rain(normal(chance), normal(1 - 1e-4), 0.0), expected, rtol=0.01)
    for chance, expected in {0.5: 0.5, 0.25: 1.0}.items():  # chance of more intensity, where it rains: half and a quarter of .8
        np.testing.assert_allclose(distributions.rain(normal(0.7), normal(chance), 0.0), expected, rtol=0.01)
    assert 1 < distributions.rain(normal(0.7), normal(1e-4), 0.0)[0, 0] < 2  # no chance of 2 mm/h
    single = Distributions(np.array([0.3, *[0] * 12], np.float32)[:, None, None])  # log-odds fall to those of a twentieth of .3
    halfway = np.sqrt(0.3 / 0.7 * 0.015 / 0.985)  # odds
    middle = single.rain(normal(0.1), normal(halfway / (1 + halfway) / 0.3), 0.0)
    assert middle[0, 0] == pytest.approx(0.5 * (np.sqrt(1.2 * 1.4) - 1), rel=0.002)
    certain = Distributions(np.ones((len(RATES), 1, 1), np.float32))
    least, most = (certain.rain(np.array([[-6.0]]), np.array([[value]], np.float32), 0.0)[0, 0] for value in (-6, 9))
    assert 49.9 <= least <= most <= LARGEST


def test_rain_is_known_at_the_threshold_and_far_above_it():
    chances = np.zeros((len(RATES), 1, 5000), np.float32)
    chances[0] = np.linspace(2e-5, 1, 5000)
    distributions = Distributions(chances)
    least, most = (distributions.rain(noise, np.zeros((1, 5000), np.float32), 0.5)
                   for noise in (distributions.threshold[None], np.full((1, 5000), 40, np.float32)))  # fmt: skip
    assert np.isfinite(least).all()
    assert (least[0, :4000] < 0.102).all()
    assert ((most >= 0.12) & (most < 0.2)).all()


def test_a_cell_is_wet_as_seldom_as_it_is_likely():
    chances = np.zeros((len(RATES), 1, 400_000), np.float32)
    chances[:3] = np.array([5e-4, 1e-4, 3e-4], np.float32)[:, None, None]  # the third cannot exceed the second
    rng = np.random.default_rng(0)
    drawn = Distributions(chances).rain(*rng.standard_normal((2, 1, 400_000)).astype(np.float32), 0.0)
    assert [int((drawn >= rate).sum()) for rate in RATES[:3]] == [pytest.approx(n, abs=30) for n in (200, 40, 40)]
    chances[:] = 9e-6  # too small for any member
    assert not Distributions(chances).rain(*np.full((2, 1, 400_000), 9, np.float32), 0.0).any()


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_what_is_shared_decides_how_hard_it_rains(shared):
    distributions = Distributions(np.array([0.8, 0.6, 0.4, *[0] * 10], np.float32)[:, None, None])
    found = distributions.rain(
        normal(0.2), normal(0.9), shared
    )  # a quarter of the noise of wet cells is above that of this one
    hard = shared * ndtri(0.75) + np.sqrt(1 - shared**2) * ndtri(0.1)
    assert distributions.noise(found)[1][0, 0] == pytest.approx(hard, abs=0.01)


def normal(chance):
    """A field of one cell whose noise is exceeded with this chance, by a little."""
    return np.array([[ndtri(1 - chance + 1e-4 * chance)]], np.float32)


def test_the_noise_of_rain_is_that_which_gives_it():
    chances = np.array([0.8, 0.7, 0.4, 0.2, 0.1, *[0.01] * 8], np.float32)[:, None, None]
    distributions, noise = Distributions(np.broadcast_to(chances, (13, 1, 5))), np.array([[-1.6, -0.3, 0.7, 1.2, 2.0]])
    occurrence, intensity = distributions.noise(distributions.rain(np.zeros((1, 5)), noise, 0.0))
    np.testing.assert_allclose(intensity, noise, atol=0.02)
    wet = np.exp(-(ndtri(0.2) ** 2) / 2) / np.sqrt(2 * np.pi) / 0.8  # mean of the upper four fifths of a normal distribution
    np.testing.assert_allclose(occurrence, wet, rtol=1e-4)
    dry = Distributions(np.full((13, 1, 1), 0.8, np.float32)).noise(np.zeros((1, 1), np.float32))
    assert dry[0][0, 0] == pytest.approx(-4 * wet, abs=1e-3)  # mean of the lower fifth
    assert dry[1][0, 0] == 0
    never = Distributions(np.zeros((13, 1, 1), np.float32)).noise(np.full((1, 1), np.nan))
    assert never[0][0, 0] == never[1][0, 0] == 0


def test_what_is_expected_is_the_mean_of_what_is_drawn():
    chances = np.array([0.9, 0.85, 0.7, 0.5, 0.3, 0.2, 0.1, 0.08, 0.05, 0.02, 0.01, 0.004, 0.001], np.float32)
    cells = np.broadcast_to(chances[:, None, None], (13, 1, 60_000))
    distributions, rng = Distributions(cells), np.random.default_rng(0)
    rain = distributions.rain(*(rng.standard_normal((1, 60_000)).astype(np.float32) for _ in range(2)), 0.5)
    for value in (lambda r: r, lambda r: np.minimum(r, 10), lambda r: np.log1p(r / 0.5)):
        expected = distributions.expected(value)
        assert expected == pytest.approx(np.full((1, 60_000), value(rain).mean()), rel=0.03)
    few = Distributions(np.where([True, False, False], chances[:, None, None], np.array([np.nan, 0.0])[[0, 0, 1]]))
    assert np.isnan(few.expected(np.log1p)).tolist() == [[False, True, False]]
    assert few.expected(np.log1p)[0, 2] == 0


def test_how_hard_it_rains_varies_over_shorter_distances_than_where_it_rains(past):
    lengths, leads = np.array([2.0, 200.0]), np.array([5.0])
    power, memory = np.array([[[0.0, 20.0]], [[0.0, 0.0]]]), np.zeros((2, 1, 2))
    (drawn,) = made(past, [flat(0.5, 0.5, 0.5, 0.5, 0.25)], 30, seed=2, structure=Structure(leads, lengths, power, memory, 0.0))

    def alike(fields):
        """Correlation of neighbours along x."""
        one, other = fields[:, :, 1:], fields[:, :, :-1]
        both = np.isfinite(one) & np.isfinite(other)
        return np.corrcoef(one[both], other[both])[0, 1]

    assert alike((drawn >= 0.1).astype(float)) > 0.7
    assert alike(np.where(drawn >= 0.1, drawn >= 2, np.nan)) < 0.2


def test_noise_has_the_variance_and_the_correlation_of_its_structure():
    power = np.array([[[0.0, 3.0]] * 2] * 2)
    structure = Structure(np.array([5.0, 10.0]), np.array([2.0, 64.0]), power, np.full(power.shape, 0.8), 0.0)
    first, later = [], []
    for member in range(60):
        noise = Noise((5, member), GRID)
        for fields, lead_minutes in ((first, 5), (later, 10)):
            noise.advance(structure.correlations(INTENSITY, GRID, 1.0, lead_minutes, 5.0))
            fields.append(noise.field(structure.amplitudes(INTENSITY, GRID, 1.0, lead_minutes)))
    assert abs(np.mean(later)) < 0.05
    assert np.std(first) == pytest.approx(1, abs=0.04)
    assert np.std(later) == pytest.approx(1, abs=0.04)
    assert np.mean(np.multiply(first, later)) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("width", [8, 9])
def test_each_wave_of_white_noise_has_the_same_variance(width):
    """A column of Fourier coefficients has two waves, but the first, and of an even width the last, has one."""
    ones, variances = np.ones((16, width // 2 + 1), np.float32), []
    noises = [Noise((3, member), (16, width)) for member in range(150)]
    for noise in noises:
        noise.advance(ones)
    for column in range(ones.shape[1]):
        amplitude = np.zeros_like(ones)
        amplitude[:, column] = 1
        variances.append(np.mean([noise.field(amplitude).var() for noise in noises]))
    num_waves = [1, 2, 2, 2, 1] if width == 8 else [1, 2, 2, 2, 2]
    assert np.array(variances) / sum(variances) == pytest.approx(np.array(num_waves) / width, rel=0.1)


@pytest.mark.parametrize("memory", [0.0, 0.8, 1.0])
def test_what_is_wet_stays_wet_as_the_memory_of_the_noise_says(memory):
    """Two standard normal numbers of correlation r exceed 0 together with the chance 1/4 + arcsin(r) / 2π."""
    power = np.zeros((2, 2, 2))
    structure = Structure(np.array([5.0, 20.0]), np.array([2.0, 64.0]), power, np.full(power.shape, memory), 0.0)
    standing = [np.indices(GRID)[::-1].astype(np.float32)] * 3
    seeds = [(7, member) for member in range(20)]
    leads = drawn([Distributions(flat(0.5))] * 3, standing, seeds, structure, km=1.0, minutes=5.0)
    wet = np.stack([fields > 0 for fields in leads])
    for apart in (1, 2):
        expected = 0.25 + np.arcsin(memory**apart) / (2 * np.pi)
        assert (wet[apart:] & wet[:-apart]).mean() == pytest.approx(expected, abs=0.01)


def test_a_structure_serves_other_cells_and_time_steps():
    tables = np.array([[[0.0, 1.0, 2.0]] * 2] * 2), np.array([[[0.64] * 3] * 2] * 2)
    structure = Structure(np.array([10.0, 20.0]), np.array([2.0, 4.0, 8.0]), *tables, 0.0)
    half_the_time = structure.correlations(OCCURRENCE, (8, 8), 1.0, 10.0, step=5.0)
    assert half_the_time[1, 1] == pytest.approx(0.8)  # the root
    fine, coarse = (structure.amplitudes(OCCURRENCE, (n, n), 16 / n, 10.0) for n in (16, 8))
    np.testing.assert_allclose(fine[0, 1:4] / fine[0, 1], coarse[0, 1:4] / coarse[0, 1], rtol=1e-5)  # the same km


def test_a_structure_is_kept_and_nothing_else_taken_for_one():
    kept = Structure.from_dict(DEFAULT.as_dict())
    np.testing.assert_allclose(kept.power, DEFAULT.power, atol=0.0006)
    one_wrong = {}
    for name, value in (("power", 200.0), ("memory", 1.5)):
        table = np.array(DEFAULT.as_dict()[name])
        table[1, 2, 3] = value
        one_wrong[name] = table.tolist()
    wrongs = {"power": [[0.0]], "km": kept.km[::-1].tolist(), "largest": 3.0, "shared": 1.2}
    for wrong in ({name: value} for told in (wrongs, one_wrong) for name, value in told.items()):
        with pytest.raises(ValueError, match="no structure of noise"):
            Structure.from_dict(DEFAULT.as_dict() | wrong)


def test_the_one_noise_of_an_older_checkpoint_is_shared_as_a_whole():
    told = DEFAULT.as_dict()
    del (known := dict(told))["shared"]
    older = Structure.from_dict(known | {name: told[name][OCCURRENCE] for name in ("power", "memory")})
    assert older.shared == 1
    for noise in (OCCURRENCE, INTENSITY):
        np.testing.assert_array_equal(older.power[noise], told["power"][OCCURRENCE])
        np.testing.assert_array_equal(older.memory[noise], told["memory"][OCCURRENCE])


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
        np.testing.assert_allclose(kept, drawn[n], atol=0.00501, rtol=0.011)
        np.testing.assert_allclose(field[n], kept.mean(axis=0), rtol=1e-6)
        assert (np.abs(kept[np.abs(kept - 0.1) < 0.001]) >= 0.1).all()
    np.testing.assert_allclose(ensemble.forecast(past[None], 2)[0], drawn.mean(axis=1), rtol=1e-5)
    assert ensemble.num_members == 5
    assert "5 members, seed 3" in ensemble.describe()["what"]


def test_a_forecaster_without_probabilities_has_no_members():
    with pytest.raises(UsageError, match="persistence gives no members"):
        Ensemble(Persistence(), 3)


@pytest.mark.parametrize(("centre", "width"), [(1.0, 0.2), (0.3, 0.2), (8.0, 0.4)])
def test_between_the_rates_log_odds_are_as_those_of_networks(centre, width):
    def chance(rate):
        return 1 / (1 + np.exp((np.log1p(rate / 0.5) - np.log1p(centre / 0.5)) / width))

    cells = np.broadcast_to(chance(np.array(RATES))[:, None, None], (len(RATES), 1, 200_000)).astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = Distributions(cells).rain(*(rng.standard_normal((1, 200_000)).astype(np.float32) for _ in range(2)), 0.5)
    between = np.sqrt(np.multiply(RATES[:-1], RATES[1:]))
    np.testing.assert_allclose([(drawn >= rate).mean() for rate in between], chance(between), atol=0.005)
    fine = np.linspace(0.1, 60, 60_000)
    mean = 0.1 * chance(0.1) + np.trapezoid(chance(fine), fine)
    assert drawn.mean() == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize("chances", [(0.8, 0.8, 0.7, 0.6), (0.5, 0.4, 0.3, 0.2, 0.1, 0.001, 0.0005), (0.9,) * 12, (0.3,)])
def test_a_rate_is_reached_as_often_as_it_is_likely_also_in_files(chances):
    expected = np.zeros(len(RATES), np.float32)
    expected[: len(chances)] = chances
    distributions = Distributions(np.broadcast_to(expected[:, None, None], (len(RATES), 1, 400_000)))
    rng = np.random.default_rng(0)
    drawn = distributions.rain(*(rng.standard_normal((1, 400_000)).astype(np.float32) for _ in range(2)), 0.5)
    for values in (drawn, unpacked(packed(drawn))):
        reached = np.array([(values >= np.float32(rate)).mean() for rate in RATES])
        np.testing.assert_allclose(reached, expected, atol=0.003)
        np.testing.assert_allclose(reached[expected < 0.003], expected[expected < 0.003], atol=1e-4)


def test_the_least_rain_of_a_member_reaches_the_lowest_rate():
    drawn = Distributions(np.full((len(RATES), 40, 40), 0.999, np.float32) * np.array([1, *[1e-6] * 12])[:, None, None])
    rng = np.random.default_rng(0)
    found = drawn.rain(*(rng.standard_normal((40, 40)).astype(np.float32) for _ in range(2)), 0.5)
    assert found[found > 0].min() >= np.float32(0.1)
