"""Calibration: log-odds are counted in their classes, known odds are recovered, and forecast areas equal the newest frame's."""

import numpy as np
import pytest
import torch

from nowcast.config.schema import NamedSection
from nowcast.models import make_model, model_config
from nowcast.models.probabilistic.calibration import (
    BIN_STARTS,
    CENTRES,
    LIMIT,
    PRIOR_STRENGTH,
    WIDTH,
    ReliabilityCalibration,
    between,
    fit_reliability,
    logistic_regression,
)
from nowcast.models.probabilistic.distribution import log_odds
from nowcast.models.probabilistic.matching import MATCHING
from nowcast.models.transform import make_transform

area_share = MATCHING.area_share
LINEAR = make_transform(NamedSection(name="linear", scale=10.0))


def drawn(shift=0.0, factor=1.0, cells=120, seed=0):
    """Outputs (case, lead, 6, y, x) and rain (mm/h) whose log-odds to exceed a value are shift + factor × the outputs'."""
    generator = torch.Generator().manual_seed(seed)
    location = torch.rand(2, 3, cells, cells, generator=generator)
    spread = torch.full_like(location, 0.08)
    uniform = torch.rand(location.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    rain = location + spread / factor * (torch.logit(uniform) + shift)
    return torch.stack([*[location / spread] * 3, *[1 / spread] * 3], dim=2), 10 * rain


def counted(outputs, rain, thresholds=(2.0, 5.0, 8.0), validity=None):
    calibration = ReliabilityCalibration(network(), LINEAR, thresholds)
    calibration.count(outputs, rain, torch.ones_like(rain) if validity is None else validity, [(0, 0)] * len(rain))
    return calibration.counts[0, 0]


def network():
    return make_model(model_config(NamedSection(name="probabilistic", hidden_channels=[4], kernel_sizes=[3])))


def test_every_known_pixel_is_counted_once_for_each_threshold():
    outputs, rain = drawn(cells=20)
    validity = (torch.rand(rain.shape, generator=torch.Generator().manual_seed(1)) > 0.4).float()
    found = counted(outputs, rain, validity=validity)
    reached = sum(((rain >= threshold) & (validity > 0)).sum() for threshold in (2.0, 5.0, 8.0))
    assert found.sum(dim=0).tolist() == [3 * float(validity.sum()) - float(reached), float(reached)]


def test_a_pixel_is_counted_in_the_bin_of_its_odds():
    outputs, rain = torch.zeros(1, 1, 6, 1, 1), torch.full((1, 1, 1, 1), 5.0)
    outputs[:, :, :3], outputs[:, :, 3:] = 0.75, 1.0  # z = 0.75 - 0.5
    found = counted(outputs, rain, thresholds=(5.0,))
    assert found.nonzero().tolist() == [[int((0.25 + LIMIT) / WIDTH), 1]]


def test_counts_of_parts_add_up():
    outputs, rain = drawn(cells=24)
    whole, parts = counted(outputs, rain), [counted(outputs[n : n + 1], rain[n : n + 1]) for n in range(2)]
    assert torch.equal(parts[0] + parts[1], whole)


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1.0), (0.8, 0.6), (-0.5, 1.5)])
def test_reliability_is_what_the_rain_was_drawn_with(shift, factor):
    found = fit_reliability(counted(*drawn(shift, factor)))
    assert found.tolist() == pytest.approx([shift, factor], abs=0.06)


def test_nothing_counted_changes_nothing():
    assert fit_reliability(torch.zeros(len(BIN_STARTS), 2, dtype=torch.float64)).tolist() == pytest.approx([0.0, 1.0])


def test_probabilities_fall_with_the_threshold():
    model, (outputs, _) = network(), drawn(cells=10)
    probabilities = model.exceedance(outputs, (0.1, 0.3, 0.7))
    assert probabilities.shape == (2, 3, 3, 10, 10)
    assert (probabilities.diff(dim=2) < 0).all()
    assert ((probabilities > 0) & (probabilities < 1)).all()


def newest_frame(cells=60, seed=5):
    """Network input of one case of 3 frames, a tenth of it missing."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(1, 3, cells, cells, generator=generator) ** 2
    validity = (torch.rand(1, 3, cells, cells, generator=generator) > 0.1).float()
    return torch.stack([values * validity, validity], dim=2)


def test_a_forecast_has_about_the_areas_of_the_newest_frame_where_they_are_likeliest():
    past, (outputs, _) = newest_frame(), drawn(cells=60)
    outputs = outputs[:1]
    forecast = network().values(outputs, past)
    newest, known = past[0, -1, 0], past[0, -1, 1] > 0
    for anchor in MATCHING.anchors[::3]:
        area = ((newest >= anchor) & known).sum()
        for lead in range(3):
            reached = (forecast[0, lead] >= anchor - 1e-6) & known
            assert abs(int(reached.sum()) - area * area_share(anchor, lead + 1)) <= 1
            odds = log_odds(outputs, anchor)[0, lead]
            assert odds[reached].min() >= odds[known & ~reached].max() - 1e-3
    assert (forecast >= 0).all()


def test_light_rain_gains_area_with_the_lead_and_heavy_rain_loses():
    gained = [area_share(0.3, lead) for lead in (1, 4, 12, 24)]
    assert gained == pytest.approx([1 + 0.05 / 12, 1 + 0.05 / 3, 1.05, 1.05])
    assert all(area_share(value, 12) == 1.05 for value in (0.1, 0.45))
    assert area_share(0.8, 12) < area_share(0.6, 12) < area_share(0.6, 1) < 1
    assert area_share(0.8, 12) / area_share(0.3, 12) == pytest.approx(1 - 2.3 * 0.35)
    assert area_share(0.8, 4) / area_share(0.3, 4) == pytest.approx(1 - 2.3 * 0.35), "all of it from the fourth lead on"
    assert all(area_share(value / 20, lead) > 0 for value in range(40) for lead in (1, 4, 100))


def test_of_a_dry_newest_frame_no_rain_is_forecast():
    past, (outputs, _) = newest_frame(), drawn(cells=60)
    past[:, -1, 0] = 0.03
    assert (network().values(outputs[:1], past) == 0).all()


def test_calibration_is_put_into_the_network():
    model = network()
    outputs, rain = drawn(0.5, 0.7)
    calibration = model.calibration(LINEAR, (2.0, 5.0, 8.0))
    for n in range(2):
        calibration.count(outputs[n : n + 1], rain[n : n + 1], torch.ones_like(rain[:1]), [(0, n)])
    calibration.apply(lambda counts: [counts])
    assert model.reliability.tolist() == pytest.approx([0.5, 0.7], abs=0.06)


def of_days(*truths, start=(-0.25, 0.9), thresholds=(2.0, 5.0, 8.0)):
    """The calibration after a start, of days whose rain has the intercepts and slopes `truths`; two processes share them."""
    model = network()
    halves = [model.calibration(LINEAR, thresholds, start={"reliability": torch.tensor(start)}) for _ in range(2)]
    for day, truth in enumerate(truths):
        outputs, rain = drawn(*truth, cells=60, seed=day)
        halves[day % 2].count(outputs[:1], rain[:1], torch.ones_like(rain[:1]), [(0, day)])
    halves[0].apply(lambda counts: [counts, halves[1].counts])
    return model.reliability.tolist()


def test_one_day_leaves_a_network_the_calibration_that_it_started_with():
    assert of_days((0.8, 1.1)) == pytest.approx([-0.25, 0.9])


@pytest.mark.parametrize("num_days", [2, 4, 13])
def test_days_that_agree_calibrate_anew(num_days):
    assert of_days(*[(0.8, 1.1)] * num_days) == pytest.approx([0.8, 1.1], abs=0.1)


def test_days_that_differ_leave_the_calibration_or_a_part_of_it():
    """Where one day's rain grows and the other's decays, neither tells what the next day's will do."""
    assert of_days((0.8, 0.9), (-1.3, 0.9)) == pytest.approx([-0.25, 0.9])
    assert of_days((0.8, 0.9), (-0.9, 0.9), (0.3, 0.9), (-0.4, 0.9), (0.6, 0.9), (-1.9, 0.9)) == pytest.approx([-0.25, 0.9])
    found = of_days((0.1, 0.9), (1.3, 0.9), (0.3, 0.9), (0.9, 0.9))
    assert -0.25 < found[0] < 0.7, "most of what the four days have in common"


def test_new_weights_are_calibrated_on_what_there_is():
    model, (outputs, rain) = network(), drawn(0.8, 1.1)
    calibration = model.calibration(LINEAR, (2.0, 5.0, 8.0))
    calibration.apply(lambda counts: [counts])
    assert model.reliability.tolist() == [0.0, 1.0], "nothing was counted"
    calibration.count(outputs, rain, torch.ones_like(rain), [(0, 0)] * 2)
    calibration.apply(lambda counts: [counts])
    assert model.reliability.tolist() == pytest.approx([0.8, 1.1], abs=0.06)


def of_one_bin(intercept, cells):
    """Counts (bin, 2) of cells with log-odds of 0.125, of which as many have the event as an intercept makes expected."""
    counts, position = np.zeros((len(CENTRES), 2)), int(LIMIT / WIDTH)
    probability = 1 / (1 + np.exp(-(CENTRES[position] + intercept)))
    counts[position] = cells * (1 - probability), cells * probability
    return counts


@pytest.mark.parametrize(("second", "share"), [(0.097, 0.0), (0.107, 0.25), (0.3, 0.75), (0.8, 1.0)])
def test_a_gain_counts_if_it_exceeds_its_standard_error(second, share):
    """Of two days that is so if both gain: the second where the first's 0.8, times the share, is nearer to it than 0 is."""
    start, fitted = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.5, 1.2], dtype=torch.float64)
    found = between(start, fitted, [of_one_bin(0.8, 1e6), of_one_bin(second, 1e6)])
    assert found.tolist() == pytest.approx([0.5 * share, 1 + 0.2 * share])


@pytest.mark.parametrize("position", [-6.0, -4.0, 4.0])
@pytest.mark.parametrize("cells", [1e3, 1e7])
def test_the_fit_is_the_likeliest_where_whole_steps_would_overshoot(position, cells):
    """All cells are of one bin, far from its log-odds: the gradients of likelihood and prior cancel."""
    counts = np.array([[1.0, cells], [cells, 1.0]])[int(position > 0)][None]
    intercept, slope = logistic_regression(counts, np.array([position]))
    expected = counts.sum() / (1 + np.exp(-(intercept + slope * position)))
    pull = counts[0, 1] - expected
    assert [PRIOR_STRENGTH * intercept, PRIOR_STRENGTH * (slope - 1)] == pytest.approx([pull, position * pull], rel=1e-4)
