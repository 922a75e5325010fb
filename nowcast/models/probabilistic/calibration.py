"""What a network's odds are worth, counted on validation cases: what truly followed them.

A network that forecasts a distribution is trained on a few crops of a few events. On cases that it was not trained on it is
surer of itself than it should be. Two numbers correct that, too few to be fitted to the cases by chance.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nowcast.models.probabilistic.distribution import log_odds
from nowcast.models.probabilistic.network import Probabilistic
from nowcast.models.transform import Transform

LIMIT, WIDTH = 6.0, 0.25  # of log-odds: beyond the limits all are alike
BIN_STARTS = torch.arange(-LIMIT, LIMIT, WIDTH, dtype=torch.float64)
FIRM = 3.0  # events that the numbers of a new network are worth, against what is counted
ITERATIONS = 30


def count_odds(
    outputs: Tensor, observed: Tensor, validity: Tensor, transform: Transform, thresholds: Sequence[float]
) -> Tensor:
    """(bin of log-odds, 2): pixels where a threshold was not reached and where it was, of all leads and thresholds together.

    Outputs (case, lead, parameter, y, x) beside observed mm/h and their validity (case, lead, y, x).
    """
    bins = len(BIN_STARTS)
    counts = torch.zeros(bins * 2, dtype=torch.float64)
    for threshold in thresholds:
        value = float(transform.encode(torch.tensor(float(threshold))))
        places = ((log_odds(outputs.float(), value) + LIMIT) / WIDTH).long().clamp(0, bins - 1)
        index = (places * 2 + (observed >= threshold))[validity > 0]
        counts += torch.bincount(index, minlength=bins * 2).cpu()
    return counts.view(bins, 2)


def calibrate(model: Probabilistic, counts: Tensor) -> None:
    """Set `model.reliability` by what `count_odds` found."""
    model.reliability.copy_(fit_reliability(counts))


def fit_reliability(counts: Tensor) -> Tensor:
    """(a, b): the log-odds a + b z have the greatest likelihood where the network has z, by counts (bin, 2).

    Logistic regression (Platt 1999) by Newton's method, with the prior a = 0, b = 1.
    """
    z = (BIN_STARTS + WIDTH / 2)[:, None] ** torch.arange(2, dtype=torch.float64)
    first = torch.tensor([0.0, 1.0], dtype=torch.float64)
    weights, total = first.clone(), counts.sum(dim=1)
    for _ in range(ITERATIONS):
        p = torch.sigmoid(z @ weights)
        slope = z.T @ (counts[:, 1] - total * p) - FIRM * (weights - first)
        curvature = (z * (total * p * (1 - p))[:, None]).T @ z + FIRM * torch.eye(2, dtype=torch.float64)
        weights = weights + torch.linalg.solve(curvature, slope)
    return weights
