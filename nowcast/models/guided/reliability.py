"""Shift the log-odds of a network where validation shows that its probabilities are too high or too low.

A network learns from crops with much rain, and its log-odds are linear between the rates that it learns; so, over whole grids
and many days, it can expect light rain too often and heavy rain too seldom. One number for each of KNOTS corrects that: the
intercept that makes as many cells rain as were observed. It is shrunk according to its
sampling error over days (Thompson 1968), because the result of a single storm is not a property of the network.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nowcast.models.guided.calibration import CENTRES, bins_of, cells_by_bin
from nowcast.models.model import Block, Calibration
from nowcast.models.probabilistic.calibration import in_groups, sum_by_block

KNOTS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0)  # mm/h, those by which the CRPS is computed
PRIOR = 100.0  # inverse variance of the Gaussian prior around the start: a few cells with the event are not significant
ITERATIONS = 30  # of Newton's method
MOST_STEP = 1.0  # log-odds of one iteration
FEWEST_GROUPS = 4  # groups of days with the event that are needed to estimate the sampling error
SAMPLE_CELLS = 1 << 13  # approximate number of cells of a grid that are counted: neighbours are correlated


class ShiftCalibration(Calibration):
    """Sets the shift (knot,) of a network's log-odds from counted validation cases.

    knots: returns the log-odds (case, lead, y, x) of each of KNOTS, without a shift, of outputs
    start: (knot,) shift of the checkpoint that the training started from, 0 for new weights
    """

    def __init__(self, shift: Tensor, knots: Callable[[Tensor], Sequence[Tensor]], start: Tensor | None = None):
        self.shift, self.knots = shift, knots
        self.start = np.zeros(len(KNOTS)) if start is None else start.double().numpy()
        self.counts: dict[Block, np.ndarray] = {}

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor, blocks: Sequence[Block]) -> None:
        stride = max(isqrt(outputs.shape[-2] * outputs.shape[-1] // SAMPLE_CELLS), 1)
        outputs, observed, validity = (field[..., ::stride, ::stride] for field in (outputs, observed, validity))
        outputs, observed, validity = (field.cpu() for field in (outputs, observed, validity))
        known = (validity > 0) & ~outputs[:, :, 0].isnan()
        for knot, odds in enumerate(self.knots(outputs)):
            bins, reached = bins_of(odds.nan_to_num(0)), observed >= KNOTS[knot]
            for case, block in enumerate(blocks):
                found = self.counts.setdefault(block, np.zeros((len(KNOTS), len(CENTRES), 2), np.int64))
                chosen = (field[case][known[case]].numpy() for field in (bins, reached))
                found[knot] += cells_by_bin(*chosen, len(CENTRES))

    def apply(self, gather: Callable[[Any], list[Any]]) -> None:
        counts = sum_by_block(gather(self.counts))
        self.shift.copy_(torch.from_numpy(agreed_shift([counts[block] for block in sorted(counts)], self.start)))


def agreed_shift(counts: Sequence[np.ndarray], start: np.ndarray) -> np.ndarray:
    """Return the shift (knot,): `start` plus the fitted change, shrunk by its sampling error over blocks.

    counts: (knot, bin, 2) of each block, in order of time
    start: (knot,)

    The change d is multiplied by max(0, 1 - s² / d²), where s² is the jackknife variance over groups of blocks; both are
    averaged with the next knots, which share most cells. With fewer than FEWEST_GROUPS groups with the event, the shift
    is `start`.
    """
    if len(counts) < FEWEST_GROUPS:
        return start
    groups = in_groups(counts)
    total = sum(groups)
    others = np.array([intercepts(total - group, start) for group in groups])
    variance = (len(groups) - 1) * others.var(axis=0)
    change = intercepts(total, start) - start
    share = (1 - with_next(variance) / np.maximum(with_next(change**2), 1e-12)).clip(0)
    is_enough = sum(group[..., 1].any(axis=1) for group in groups) >= FEWEST_GROUPS
    return start + np.where(is_enough, share * change, 0)


def with_next(values: np.ndarray) -> np.ndarray:
    """Return the mean (knot,) of values with those of the next lower and the next higher knot."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def intercepts(counts: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit the intercepts (knot,) for which the expected number of events equals the counted one, by Newton's method.

    counts: (knot, bin of CENTRES, 2) cells without and with the event
    start: (knot,), the first guess and the mean of the prior
    """
    cells, events = counts.sum(axis=2), counts[..., 1].sum(axis=1)
    found = np.array(start, np.float64)
    for _ in range(ITERATIONS):
        chance = 1 / (1 + np.exp(-(CENTRES + found[:, None])))
        slope = events - (cells * chance).sum(axis=1) - PRIOR * (found - start)
        curvature = (cells * chance * (1 - chance)).sum(axis=1) + PRIOR
        found += (slope / curvature).clip(-MOST_STEP, MOST_STEP)
    return found
