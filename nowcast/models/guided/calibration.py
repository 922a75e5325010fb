"""Fit the parameters that are not trained by gradients, to counts of observed rain by log-odds.

Counts are (lead, rate, bin, 2): number of cells without and with the rate in each bin of log-odds. Heavy rain is rare, so few
cells are counted for one lead time and rate. Therefore counts of other lead times and of the next rates are added, scaled down
to a number of events. Log-odds are natural logarithms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS
from nowcast.models.model import Block, Calibration
from nowcast.models.probabilistic.calibration import logistic_regression

LIMIT, WIDTH = 12.0, 0.05  # log-odds: range and bin width of the histogram; values beyond it are in the outermost bins
CENTRES = np.arange(-LIMIT, LIMIT, WIDTH) + WIDTH / 2
GUIDANCE_CENTRES = np.arange(-LARGEST, LARGEST + 1) / STEPS  # one bin for each value that guidance can have
# Chosen on 12 days of one archive, each scored with the counts of the others (scripts/skill/archives.md)
LEADS_WORTH, LEAD_RANGE = 1e5, 4.0  # events of all other lead times; number of lead times at which weights fall to 1 / e
RATES_WORTH = 100.0  # events of the next lower and the next higher rate together
NEVER = 1e4  # log-odds that no cell reaches


def count_guidance(coded: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Count cells by their guidance.

    coded: (lead, rate, y, x) int8
    observed: (lead, y, x) mm/h, NaN missing
    returns: (lead, rate, bin of GUIDANCE_CENTRES, 2) int64
    """
    counts = np.zeros((*coded.shape[:2], 2 * LARGEST + 2, 2), np.int64)
    for lead, rate in np.ndindex(coded.shape[:2]):
        known = ~np.isnan(observed[lead])
        bins = coded[lead, rate][known].astype(np.int64) - MISSING
        counts[lead, rate] = cells_by_bin(bins, observed[lead][known] >= RATES[rate], 2 * LARGEST + 2)
    return counts[:, :, 1:]  # the first bin is missing


def count_odds(odds: Tensor, observed: Tensor, validity: Tensor) -> np.ndarray:
    """Count cells by the log-odds of a network.

    odds: (case, lead, rate, y, x), NaN missing
    observed, validity: (case, lead, y, x), mm/h, and 1 known, 0 missing
    returns: (lead, rate, bin of CENTRES, 2) int64
    """
    counts = np.zeros((*odds.shape[1:3], len(CENTRES), 2), np.int64)
    for lead, rate in np.ndindex(counts.shape[:2]):
        z = odds[:, lead, rate]
        known = (validity[:, lead] > 0) & ~z.isnan()
        bins = bins_of(z[known]).cpu().numpy()
        counts[lead, rate] = cells_by_bin(bins, (observed[:, lead][known] >= RATES[rate]).cpu().numpy(), len(CENTRES))
    return counts


def bins_of(odds: Tensor) -> Tensor:
    """Return the bin numbers (of CENTRES) of log-odds of any shape without NaN; values beyond are in the outermost bins."""
    return ((odds + LIMIT) / WIDTH).long().clamp(0, len(CENTRES) - 1)


def cells_by_bin(bins: np.ndarray, reached: np.ndarray, number: int) -> np.ndarray:
    """Count cells by bin, (number, 2): without and with the event; bins, reached: (cell,)."""
    return np.bincount(2 * bins + reached, minlength=2 * number).reshape(-1, 2)


def with_neighbours(counts: np.ndarray) -> np.ndarray:
    """Add the counts of other lead times, then of the next rates, scaled to LEADS_WORTH and RATES_WORTH events at most.

    counts: (lead, rate, bin, 2)
    """
    leads, rates = (np.arange(size) for size in counts.shape[:2])
    weights = np.exp(-abs(leads[:, None] - leads) / LEAD_RANGE) - np.eye(len(leads))
    counts = counts + _at_most(np.einsum("lm,mkbe->lkbe", weights, counts), LEADS_WORTH)
    is_next = abs(rates[:, None] - rates) == 1
    return counts + _at_most(np.einsum("kn,lnbe->lkbe", is_next, counts), RATES_WORTH)


def _at_most(counts: np.ndarray, worth: float) -> np.ndarray:
    """Scale counts (lead, rate, bin, 2) down to that many events."""
    events = counts[..., 1].sum(axis=-1)[..., None, None]
    return counts * np.minimum(worth / np.maximum(events, 1), 1)


def correction(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit intercept and slope of the guidance, (lead, rate, 2), to counts (lead, rate, bin, 2).

    Also return the mean cross entropy, in nats, of the corrected guidance for each rate, (rate,).
    """
    steadied = with_neighbours(counts)
    fitted = np.array([[logistic_regression(c, GUIDANCE_CENTRES) for c in of_lead] for of_lead in steadied])
    odds = fitted[..., :1] + fitted[..., 1:] * GUIDANCE_CENTRES
    entropy = (counts[..., 0] * np.logaddexp(0, odds) + counts[..., 1] * np.logaddexp(0, -odds)).sum(axis=(0, 2))
    return fitted, entropy / np.maximum(counts.sum(axis=(0, 2, 3)), 1)


def unbiased_cut(counts: np.ndarray, centres: np.ndarray) -> float:
    """Return the log-odds above which there are as many cells as events, linear within a bin; NEVER without events.

    counts: (bin, 2)
    centres: (bin,) log-odds
    """
    above = np.concatenate([counts.sum(axis=1)[::-1].cumsum()[::-1], [0]])  # cells from the start of each bin on
    half = (centres[1] - centres[0]) / 2
    events, edges = counts[:, 1].sum(), np.append(centres - half, centres[-1] + half)
    return float(np.interp(events, above[::-1], edges[::-1])) if events > 0 else NEVER


def unbiased_cuts(counts: np.ndarray, centres: np.ndarray = CENTRES) -> np.ndarray:
    """Return the cut of each lead time and rate, (lead, rate), by counts (lead, rate, bin, 2) at `centres` (bin,)."""
    return np.array([[unbiased_cut(c, centres) for c in of_lead] for of_lead in with_neighbours(counts)])


def fill_rows(buffer: Tensor, values: np.ndarray) -> None:
    """Copy values (lead, …) to the rows of a buffer (row, …); further rows repeat the last lead time."""
    rows = values[np.minimum(np.arange(len(buffer)), len(values) - 1)]
    buffer.copy_(torch.from_numpy(rows))


class CutCalibration(Calibration):
    """Sets the cuts of a network so that, over the validation cases, as many cells are forecast as were observed."""

    def __init__(self, cuts: Tensor):
        self.cuts, self.counts = cuts, 0

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor, blocks: Sequence[Block]) -> None:
        self.counts = self.counts + count_odds(outputs, observed, validity)

    def apply(self, gather: Callable[[Any], list[Any]]) -> None:
        fill_rows(self.cuts, unbiased_cuts(sum(gather(self.counts))))
