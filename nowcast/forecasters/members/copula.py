"""Noise through the distribution of each cell: standard normal numbers -> chances -> rain.

A cell's distribution is known by its chances of reaching RATES, as the CRPS takes it (scores/distribution.py). Between two
rates the logarithm of the chance is linear in the logarithm of the rate; beyond the last rate it falls on to the largest.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from nowcast.forecasters.members.structure import LARGEST
from nowcast.scores.distribution import RATES

LEAST = 1e-5  # chance of the lowest rate below which a cell is dry in all members
SURE = 1e-6  # of a logarithm: steps over which the chance falls by less are taken as a whole
DROP = 0.05  # least chance of a rate as a share of that of the rate before, between which rain is interpolated


class Distributions:
    """The distributions of all cells at one lead time."""

    def __init__(self, exceedance: np.ndarray, rates: Sequence[float] = RATES, largest: float = LARGEST):
        """Prepare the inverse of the distribution functions.

        exceedance: (rate, y, x) chance of reaching each rate, 0 to 1, NaN missing
        rates: mm/h, ascending
        largest: mm/h, which is not exceeded
        """
        self.missing = np.isnan(exceedance[0])
        self.shape = self.missing.shape
        self.wet = np.flatnonzero(np.nan_to_num(exceedance[0]) > LEAST)
        chances = np.minimum.accumulate(exceedance.reshape(len(rates), -1)[:, self.wet], axis=0)
        self.first = np.log(chances[0])
        self.steps = np.diff(np.log([*rates, largest])).astype(np.float32)
        self.lowest = np.float32(np.log(rates[0]))
        # logarithm of the chance at the lower end of each step, and one over its fall along the step
        self.lower, self.slopes = [], []
        for n in range(len(rates)):
            higher = chances[n + 1] if n + 1 < len(rates) else 0
            floor = np.maximum(higher, np.maximum(chances[n], 1e-12) * DROP)
            lower = np.log(np.maximum(chances[n], 1e-12))
            self.lower.append(lower + np.float32(SURE))
            self.slopes.append(1 / np.maximum(lower - np.log(floor), SURE))

    def rain(self, noise: np.ndarray) -> np.ndarray:
        """Return the rain (y, x), mm/h, float32, of standard normal noise (y, x); NaN missing.

        The larger the noise, the more rain: the chance of at least so much rain is the chance of at least so much noise.
        """
        chance = np.log(np.maximum(ndtr(-noise.ravel()[self.wet]), np.float32(1e-30)))
        rate = np.full(len(chance), self.lowest, np.float32)
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            share = lower - chance
            share *= slope
            np.clip(share, 0, np.float32(0.9999), out=share)
            share *= step
            rate += share
        rain = np.zeros(self.shape, np.float32)
        rain.ravel()[self.wet] = np.where(chance <= self.first, np.exp(rate), 0)
        rain[self.missing] = np.nan
        return rain

    def noise(self, rain: np.ndarray) -> np.ndarray:
        """Return the noise (y, x) that gives this rain (y, x), mm/h; where it is dry the mean of all that would; 0 unknown.

        A cell that is dry in all members has 0 as well: nothing is known of its noise.
        """
        values = rain.ravel()[self.wet]
        rate = np.log(np.maximum(np.nan_to_num(values), np.float32(1e-3)))
        chance, edge = self.first.copy(), self.lowest
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            reached = rate >= edge
            share = np.clip((rate - edge) / step, 0, 1)
            chance = np.where(reached, np.minimum(chance, lower - share / slope), chance)
            edge = edge + step
        least = np.clip(np.exp(self.first), LEAST, 1 - LEAST)
        dry = -np.exp(-(ndtri(1 - least) ** 2) / 2) / np.sqrt(2 * np.pi) / (1 - least)
        wet = -ndtri(np.clip(np.exp(chance), LEAST, 1 - LEAST))
        found = np.zeros(self.shape, np.float32)
        found.ravel()[self.wet] = np.where(np.isnan(values), 0, np.where(rate >= self.lowest, wet, dry))
        return found
