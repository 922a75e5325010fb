"""The diagrams of probabilities show the points computed from the sums."""

import numpy as np
import pytest
from makers.ensembles import ensemble, ensemble_sums
from matplotlib.colors import to_hex

from nowcast.report import probability_diagrams as diagrams
from nowcast.report.diagrams import forecaster_styles
from nowcast.scores.ensemble import EnsembleSums, add_members, rank_histogram
from nowcast.scores.exceedance import ExceedanceSums, reliability_diagram, roc_curve

HOW = forecaster_styles(["ens", "persistence"])


@pytest.fixture(scope="module")
def sums():
    """An ensemble of four members, and one member alone, at thresholds 1 and 500 mm/h (which never comes)."""
    rng = np.random.default_rng(0)
    observed = rng.gamma(0.5, 4, (30, 40)).astype(np.float32)
    found = {}
    for name, number in (("ens", 4), ("persistence", 1)):
        members = (observed * rng.gamma(4, 0.25, (number, 30, 40))).astype(np.float32)
        exceedance, ensemble = ExceedanceSums.zeros(1, (1.0, 500.0)), EnsembleSums.zeros(1, most_members=4)
        add_members(exceedance, ensemble, 0, members, observed, np.ones(observed.shape, bool))
        found[name] = exceedance, ensemble
    return found


def line(axes, name):
    return next(line.get_xydata() for line in axes.lines if line.get_label() == name)


def test_reliability_is_observed_frequency_over_forecast_probability(sums):
    exceedance = {name: mine for name, (mine, _) in sums.items()}
    upper, lower = diagrams.draw_reliability(exceedance, 0, HOW).axes
    found = reliability_diagram(exceedance["ens"])
    there = found.num_pairs[0, 0] >= diagrams.FEWEST_PAIRS
    drawn = line(upper, "ens")
    np.testing.assert_allclose(drawn[there], np.stack([found.forecast[0, 0], found.observed[0, 0]], axis=-1)[there])
    assert np.isnan(drawn[~there]).all()
    assert there.sum() == 5  # of four members: 0, 25, 50, 75 and 100 %
    np.testing.assert_array_equal(lower.lines[0].get_ydata()[there], found.num_pairs[0, 0][there])
    rate = exceedance["ens"].num_observed[0, 0].sum() / exceedance["ens"].num_pairs[0, 0]
    assert upper.lines[-1].get_ydata()[0] == pytest.approx(rate)
    without = {"persistence": ExceedanceSums.zeros(1, (1.0, 500.0)), "ens": exceedance["ens"]}  # probabilities of 500 alone
    assert diagrams.draw_reliability(without, 0, HOW).axes[0].lines[-1].get_ydata()[0] == pytest.approx(rate)


def test_roc_starts_without_a_warning_and_ends_with_warning_always(sums):
    exceedance = {name: mine for name, (mine, _) in sums.items()}
    (axes,) = diagrams.draw_roc(exceedance, 0, HOW).axes
    drawn = line(axes, "ens")
    np.testing.assert_allclose(drawn.T, [part[0, 0] for part in roc_curve(exceedance["ens"])])
    assert (drawn[0].tolist(), drawn[-1].tolist()) == ([0, 0], [1, 1])


def test_an_event_that_never_comes_gives_an_empty_diagram(sums):
    exceedance = {name: mine for name, (mine, _) in sums.items()}
    assert np.isnan(line(diagrams.draw_roc(exceedance, 1, HOW).axes[0], "ens")).all()
    assert np.isfinite(line(diagrams.draw_reliability(exceedance, 1, HOW).axes[0], "ens")[0]).all()


def test_ranks_are_bars_in_the_forecasters_colour(sums):
    _, ensemble = sums["ens"]
    (axes,) = diagrams.draw_ranks(ensemble, HOW["ens"]).axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], rank_histogram(ensemble, tied=False)[0])
    assert len(axes.patches) == 5
    assert {to_hex(bar.get_facecolor()).upper() for bar in axes.patches} == {HOW["ens"].colour}
    assert axes.lines[0].get_ydata()[0] == pytest.approx(1 / 5)


def test_members_below_the_observation_are_whole_numbers():
    pooled = ensemble_sums(*ensemble(0, (1, 30, 30), members=12, levels=None))["members"]
    (axes,) = diagrams.draw_ranks(pooled, HOW["ens"]).axes
    assert len(axes.patches) == 13
    assert all(float(tick).is_integer() for tick in axes.get_xticks()), axes.get_xticks()
