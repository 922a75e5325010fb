"""Calibrate the probabilities of a network on validation cases, which it was not trained on.

A network that was trained on a few crops of a few events is overconfident elsewhere. Logistic calibration (Platt 1999)
corrects that with two numbers, an intercept and a slope of the log-odds: too few to overfit the validation cases. One event
says little about others, though. A network that started from a checkpoint therefore keeps the calibration of the checkpoint
unless cross-validation over days shows an improvement.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nowcast.models.model import Block, Calibration, DistributionModel
from nowcast.models.transform import Transform

LIMIT, WIDTH = 6.0, 0.25  # log-odds: bins cover -LIMIT to LIMIT (the outermost ones also hold all beyond), and their width
BIN_STARTS = torch.arange(-LIMIT, LIMIT, WIDTH, dtype=torch.float64)
CENTRES = (BIN_STARTS + WIDTH / 2).numpy()
PRIOR_STRENGTH = 3.0  # inverse variance of the Gaussian prior around intercept 0 and slope 1
ITERATIONS = 50  # of Newton's method, which converges in fewer
SHARES = (0.25, 0.5, 0.75, 1.0)  # candidate weights of the calibration of the validation cases, relative to the start's
MOST_FOLDS = 10  # largest number of folds of a cross-validation


class ReliabilityCalibration(Calibration):
    """Sets `model.reliability`, the intercept and slope of the calibrated log-odds, from counted validation cases.

    start: (2,) intercept and slope of the checkpoint that the training started from; None for new weights
    """

    def __init__(
        self, model: DistributionModel, transform: Transform, thresholds: Sequence[float], start: Tensor | None = None
    ):
        self.model, self.transform, self.thresholds, self.start = model, transform, thresholds, start
        self.counts: dict[Block, Tensor] = {}

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor, blocks: Sequence[Block]) -> None:
        """Count pixels by block and bin of log-odds, all lead times and thresholds together: not reached, reached.

        outputs: (case, lead, parameter, y, x)
        observed, validity: (case, lead, y, x), mm/h, and 1 known, 0 missing
        blocks: (case,) record and day
        """
        bins = len(BIN_STARTS)
        for threshold in self.thresholds:
            value = float(self.transform.encode(torch.tensor(float(threshold))))
            odds = self.model.log_odds(outputs.float(), value)
            number = ((odds + LIMIT) / WIDTH).long().clamp(0, bins - 1)
            index = number * 2 + (observed >= threshold)
            for case, block in enumerate(blocks):
                counts = torch.bincount(index[case][validity[case] > 0], minlength=bins * 2).cpu().view(bins, 2)
                self.counts[block] = self.counts.get(block, 0) + counts.double()

    def apply(self, gather: Callable[[Any], list[Any]]) -> None:
        counts = sum_by_block(gather(self.counts))
        if not counts:
            return
        fitted = fit_reliability(sum(counts.values()))
        if self.start is not None:
            fitted = between(self.start.double(), fitted, [of_block.numpy() for _, of_block in sorted(counts.items())])
        self.model.reliability.copy_(fitted)


def sum_by_block(parts: Iterable[Mapping[Block, Any]]) -> dict[Block, Any]:
    """Add up the counts (…, bin, 2), tensors or arrays, of several processes by block."""
    total: dict[Block, Any] = {}
    for counts in parts:
        for block, of_block in counts.items():
            total[block] = total.get(block, 0) + of_block
    return total


def in_groups(counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Add up the counts (…, bin, 2) of blocks, in order of time, in up to MOST_FOLDS groups, none of them empty."""
    parts = np.array_split(np.arange(len(counts)), min(len(counts), MOST_FOLDS))
    return [sum(counts[i] for i in part) for part in parts]


def between(start: Tensor, fitted: Tensor, counts: Sequence[np.ndarray]) -> Tensor:
    """Return the calibration between `start` and `fitted` that is best in cross-validation over blocks.

        start, fitted: (2,) intercept and slope
        counts: (bin, 2) of each block, in order of time
        returns: (2,)

    It has the weight of SHARES with the largest gain in log likelihood, if the gain exceeds its standard error; else it is
    `start`, also for a single block.
    """
    folds = in_groups(counts)
    if len(folds) < 2:
        return start
    before, gains = start.numpy(), np.zeros((len(SHARES), len(folds)))
    for k, left_out in enumerate(folds):
        others = logistic_regression(sum(folds[:k] + folds[k + 1 :]), CENTRES)
        for s, share in enumerate(SHARES):
            gains[s, k] = _likelihood(left_out, before + share * (others - before)) - _likelihood(left_out, before)
    total, error = gains.sum(axis=1), len(folds) ** 0.5 * gains.std(axis=1, ddof=1)
    shown = np.where(total > error, total, 0)
    return start + SHARES[shown.argmax()] * (fitted - start) if shown.any() else start


def _likelihood(counts: np.ndarray, weights: np.ndarray) -> float:
    """Return the log likelihood in nats of counts (bin, 2), by intercept and slope (2,)."""
    odds = weights[0] + weights[1] * CENTRES
    return -float(counts[:, 0] @ np.logaddexp(0, odds) + counts[:, 1] @ np.logaddexp(0, -odds))


def fit_reliability(counts: Tensor) -> Tensor:
    """Fit the intercept a and the slope b of the calibrated log-odds a + b z.

    counts: (bin of log-odds z, 2) pixels that did not reach and that reached the threshold
    returns: (2,) a and b, float64
    """
    return torch.from_numpy(logistic_regression(counts.numpy(), CENTRES))


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
