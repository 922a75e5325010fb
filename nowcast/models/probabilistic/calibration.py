"""Calibrate the probabilities of a network on validation cases, which it was not trained on.

A network that was trained on a few crops of a few events is overconfident elsewhere. Logistic calibration (Platt 1999)
corrects that with two numbers, an intercept and a slope of the log-odds: too few to overfit the validation cases.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nowcast.models.model import Calibration, DistributionModel
from nowcast.models.transform import Transform

LIMIT, WIDTH = 6.0, 0.25  # log-odds: bins cover -LIMIT to LIMIT (the outermost ones also hold all beyond), and their width
BIN_STARTS = torch.arange(-LIMIT, LIMIT, WIDTH, dtype=torch.float64)
PRIOR_STRENGTH = 3.0  # inverse variance of the Gaussian prior around intercept 0 and slope 1
ITERATIONS = 50  # of Newton's method, which converges in fewer


class ReliabilityCalibration(Calibration):
    """Sets `model.reliability`, the intercept and slope of the calibrated log-odds, from counted validation cases."""

    def __init__(self, model: DistributionModel, transform: Transform, thresholds: Sequence[float]):
        self.model, self.transform, self.thresholds = model, transform, thresholds
        self.counts = torch.zeros(len(BIN_STARTS), 2, dtype=torch.float64)

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor) -> None:
        """Count pixels by bin of log-odds, all lead times and thresholds together: not reached, reached.

        outputs: (case, lead, parameter, y, x)
        observed, validity: (case, lead, y, x), mm/h, and 1 known, 0 missing
        """
        bins = len(BIN_STARTS)
        for threshold in self.thresholds:
            value = float(self.transform.encode(torch.tensor(float(threshold))))
            odds = self.model.log_odds(outputs.float(), value)
            number = ((odds + LIMIT) / WIDTH).long().clamp(0, bins - 1)
            index = (number * 2 + (observed >= threshold))[validity > 0]
            self.counts += torch.bincount(index, minlength=bins * 2).cpu().view(bins, 2)

    def apply(self, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.model.reliability.copy_(fit_reliability(sum_over_processes(self.counts)))


def fit_reliability(counts: Tensor) -> Tensor:
    """Fit the intercept a and the slope b of the calibrated log-odds a + b z.

    counts: (bin of log-odds z, 2) pixels that did not reach and that reached the threshold
    returns: (2,) a and b, float64
    """
    return torch.from_numpy(logistic_regression(counts.numpy(), (BIN_STARTS + WIDTH / 2).numpy()))


def logistic_regression(counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Fit the intercept a and the slope b of the calibrated log-odds a + b z by maximum likelihood.

        counts: (bin, 2) cells without and with the event
        centres: (bin,) log-odds z
        returns: (2,) a and b

    Logistic regression (Platt 1999) by Newton's method, with a Gaussian prior around a = 0, b = 1.
    """
    first = np.array([0.0, 1.0])
    z, total = centres[:, None] ** np.arange(2), counts.sum(axis=1)
    weights = first
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-(z @ weights).clip(-50, 50)))
        gradient = z.T @ (counts[:, 1] - total * p) - PRIOR_STRENGTH * (weights - first)
        curvature = (z * (total * p * (1 - p))[:, None]).T @ z + PRIOR_STRENGTH * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-9))  # a whole step may overshoot
    return weights
