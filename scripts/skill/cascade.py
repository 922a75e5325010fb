"""The cascade: the probabilistic network's forecast before anything is learnt, with odds corrected on validation days.

It is the strongest forecast without learning, and so what a trained network is compared with (archives.py). The log-odds that
the rain rate reaches a threshold are those of the untrained model (nowcast/models/probabilistic), carried along the motion.
For each lead and threshold they are corrected by a calibration intercept and slope (logistic regression), and rain is forecast
where they reach a cut that gives as many rainy cells as were observed: frequency bias 1 on the validation days.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nowcast import config
from nowcast.forecasters.forecaster import Forecaster
from nowcast.models import make_model, model_config
from nowcast.models.probabilistic.distribution import log_odds
from nowcast.models.transform import make_transform, network_input
from nowcast.motion import from_lagrangian, motion, past_to_lagrangian

THRESHOLDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # mm/h
PAST, LEADS = 4, 12  # frames
REFERENCE = Path(__file__).resolve().parents[2] / "configs" / "radar.toml"
UNUSED = "model.hidden_channels=[4, 4]"  # the ConvLSTM contributes nothing: as narrow as can be
LIMIT, WIDTH = 12.0, 0.05  # of the histogram of log-odds: beyond the limits all are alike
CENTRES = np.arange(-LIMIT, LIMIT, WIDTH) + WIDTH / 2
# Few days have heavy rain, and say little about a lead and threshold by themselves. So the counts of other leads, and then of
# the next thresholds, are added, scaled down to these numbers of observed events (cells) at most. Chosen on 12 days of taasrad,
# each scored with the counts of the others: CSI at 1, 5, 10 and 20 mm/h is .212, .095, .062 and .039 without neighbours, .214,
# .097, .066 and .043 with leads over a range of 2, .215, .098, .068 and .045 over 4. Thresholds worth 100 events bring the
# frequency bias at 20 mm/h from 1.39 to 1.14 and at 50 mm/h from 2.8 to .9; worth 3000, the bias at 5 mm/h falls to .6.
LEADS_WORTH, LEAD_RANGE = 1e5, 4.0  # events; leads at which a neighbour's weight falls to 1 / e
THRESHOLDS_WORTH = 100.0  # events, of the next lower and the next higher threshold
PRIOR = 3.0  # events that the intercept 0 and the slope 1 are worth
ITERATIONS = 50  # of Newton's method


class Odds:
    """Log-odds of the untrained probabilistic model, in the coordinates of the grid."""

    def __init__(self):
        experiment = config.read(REFERENCE, [UNUSED])
        self.transform = make_transform(experiment.transform)
        self.model = make_model(model_config(experiment.model)).eval()
        torch.nn.init.zeros_(self.model.head.weight)
        self.values = self.transform.encode(torch.tensor(THRESHOLDS)).tolist()

    @torch.inference_mode()
    def __call__(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Return the log-odds that the rain rate reaches each of THRESHOLDS.

        past: (time, y, x) mm/h, NaN missing
        returns: (lead, threshold, y, x) float32, NaN for air from outside the grid or from a missing cell
        """
        flow = motion(past)
        still = torch.from_numpy(past_to_lagrangian(past, flow))[None]
        leads = self.model.leads(network_input(still, self.transform), num_leads)
        odds = torch.cat([torch.stack([log_odds(lead, v)[0] for v in self.values], dim=1) for lead in leads])
        odds = odds.clamp(-LIMIT, LIMIT).numpy()
        odds[..., np.isnan(past[-1])] = np.nan
        return from_lagrangian(odds, flow)


def count(odds: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Count the cells without and with an event in each bin of log-odds.

    odds: (lead, threshold, y, x)
    observed: (lead, y, x) mm/h, NaN missing
    returns: (lead, threshold, bin, 2) int64
    """
    counts = np.zeros((*odds.shape[:2], len(CENTRES), 2), np.int64)
    for lead, threshold in np.ndindex(odds.shape[:2]):
        z, rain = odds[lead, threshold], observed[lead]
        known = ~(np.isnan(z) | np.isnan(rain))
        bins = ((z[known] + LIMIT) / WIDTH).astype(np.int64).clip(0, len(CENTRES) - 1)
        index = 2 * bins + (rain[known] >= THRESHOLDS[threshold])
        counts[lead, threshold] = np.bincount(index, minlength=2 * len(CENTRES)).reshape(-1, 2)
    return counts


@dataclass(frozen=True)
class Calibration:
    """Per lead and threshold, (lead, threshold): intercept and slope of the calibrated log-odds, and the log-odds cut."""

    intercept: np.ndarray
    slope: np.ndarray
    cut: np.ndarray


def calibrate(counts: np.ndarray) -> Calibration:
    """Fit the correction and the cut of each lead and threshold to counts (lead, threshold, bin, 2)."""
    steadied = with_neighbours(counts)
    parts = np.array([[(*logistic_regression(c), unbiased_cut(c)) for c in of_lead] for of_lead in steadied])
    return Calibration(*np.moveaxis(parts, -1, 0))


def with_neighbours(counts: np.ndarray) -> np.ndarray:
    """Add the counts of other leads, then of the next thresholds, scaled to LEADS_WORTH and THRESHOLDS_WORTH events at most."""
    leads, thresholds = (np.arange(size) for size in counts.shape[:2])
    weights = np.exp(-abs(leads[:, None] - leads) / LEAD_RANGE) - np.eye(len(leads))
    counts = counts + _at_most(np.einsum("lm,mkbe->lkbe", weights, counts), LEADS_WORTH)
    is_next = abs(thresholds[:, None] - thresholds) == 1
    return counts + _at_most(np.einsum("kn,lnbe->lkbe", is_next, counts), THRESHOLDS_WORTH)


def _at_most(counts: np.ndarray, worth: float) -> np.ndarray:
    """Scale counts (lead, threshold, bin, 2) down to that many events."""
    events = counts[..., 1].sum(axis=-1)[..., None, None]
    return counts * np.minimum(worth / np.maximum(events, 1), 1)


def logistic_regression(counts: np.ndarray) -> tuple[float, float]:
    """Return (a, b) for which the log-odds a + b z are the likeliest, by counts (bin, 2); Newton's method, Platt (1999)."""
    first = np.array([0.0, 1.0])
    z, total = CENTRES[:, None] ** np.arange(2), counts.sum(axis=1)
    weights = first
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-(z @ weights).clip(-50, 50)))
        gradient = z.T @ (counts[:, 1] - total * p) - PRIOR * (weights - first)
        curvature = (z * (total * p * (1 - p))[:, None]).T @ z + PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-9))  # a whole step may overshoot
    return tuple(weights)


def unbiased_cut(counts: np.ndarray) -> float:
    """Return the log-odds above which there are as many cells as events, linear within a bin; counts (bin, 2)."""
    above = np.concatenate([counts.sum(axis=1)[::-1].cumsum()[::-1], [0]])  # cells from the start of each bin on
    events, edges = counts[:, 1].sum(), np.append(CENTRES - WIDTH / 2, LIMIT)
    return float(np.interp(events, above[::-1], edges[::-1])) if events > 0 else 2 * LIMIT


class Cascade(Forecaster):
    """Calibrated odds, and the field that they give. With `reference_times` only those cases are evaluated."""

    name = "cascade"
    description = "the untrained probabilistic model with its odds corrected and cut on validation days"
    input_frames, lead_frames = PAST, LEADS
    thresholds, is_probabilistic = THRESHOLDS, True

    def __init__(self, odds: Odds, calibration: Calibration, reference_times: np.ndarray | None = None):
        self.odds, self.calibration, self.reference_times = odds, calibration, reference_times

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return self.forecast_and_exceedance(past, num_leads, THRESHOLDS)[0]

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        past, columns = self.check_past(past)[:, -PAST:], [THRESHOLDS.index(threshold) for threshold in thresholds]
        odds = np.stack([self.odds(case, num_leads) for case in past])
        intercept, slope, cut = (
            part[:num_leads, :, None, None].astype(np.float32)
            for part in (self.calibration.intercept, self.calibration.slope, self.calibration.cut)
        )
        chances = np.minimum.accumulate(1 / (1 + np.exp(-intercept - slope * odds)), axis=2)
        return rain_rate(odds - cut), chances[:, :, columns]


def rain_rate(margins: np.ndarray) -> np.ndarray:
    """Return the highest rate that is reached, linear between thresholds; 0 below the lowest.

    margins: (..., threshold, y, x) log-odds above the cut
    returns: (..., y, x) mm/h float32, NaN as in `margins`
    """
    reached = np.minimum.accumulate(margins, axis=-3)  # a rate is reached only where all lower ones are
    rate = np.where(np.isnan(reached[..., 0, :, :]), np.nan, 0).astype(np.float32)
    for number, threshold in enumerate(THRESHOLDS):
        this, following = reached[..., number, :, :], reached[..., min(number + 1, len(THRESHOLDS) - 1), :, :]
        higher = THRESHOLDS[min(number + 1, len(THRESHOLDS) - 1)]
        share = this / np.maximum(this - following, 1e-6)
        between = np.minimum(threshold + (higher - threshold) * share.clip(0, 1), np.nextafter(np.float32(higher), 0))
        rate = np.where(this >= 0, np.maximum(between, np.float32(threshold)), rate)
    return rate.astype(np.float32)
