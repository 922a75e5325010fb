"""Noise through the distribution of each cell: standard normal numbers -> chances -> rain.

Two noises make the rain. One decides where it rains: a cell is wet where its noise is above an edge that its chance of rain
sets. How hard it rains there is decided by the distribution of a wet cell, and in part by how far that noise is above the edge,
in part by the other noise: one noise for both would give whole regions the heaviest of their rain at once.

A cell's distribution is known by its chances of reaching RATES, as the CRPS takes it (scores/distribution.py). Between two
rates the log-odds are linear in ln(1 + rate / OFFSET), as those of networks are; beyond the last rate they fall on to the
largest.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit, log_expit, ndtr, ndtri

from nowcast.forecasters.members.structure import LARGEST
from nowcast.netcdf.writing.members import most_below
from nowcast.scores.distribution import RATES

OFFSET = 0.5  # mm/h, as in the transform of networks
LEAST = 1e-5  # chance of the lowest rate below which a cell is dry in all members
SURE = 1e-4  # of log-odds: steps over which they fall by less are taken as a whole
WITHIN = np.float32(1e-7), np.float32(1 - 1e-6)  # chances that give finite noise
LIKELY = np.float32(1e-30), np.float32(1 - 1e-6)  # chances that give finite log-odds
PARTS = 4  # of a step between two rates, over which expected values are added up
DROP = 0.05  # least chance of a rate as a share of that of the rate before, between which rain is interpolated
MOST_SHARE = 0.9999  # of the last step, so that the largest rain is not exceeded


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
        self.chance, self.first = chances[0], np.log(chances[0])
        self.edge = -ndtri(chances[0])  # a cell is wet where the noise is above it
        self.least = np.float32(rates[0])
        self.steps = np.diff(np.log1p(np.array([*rates, largest]) / OFFSET)).astype(np.float32)
        # the share of a step up to which a file keeps rain below the next rate: it must not round more cells up to it
        tops = np.log1p(np.array([most_below(rate) for rate in rates[1:]]) / OFFSET)
        below = (tops - np.log1p(np.array(rates[:-1]) / OFFSET)) / self.steps[:-1]
        self.most = np.array([*np.maximum(below, 0), MOST_SHARE], np.float32)
        self.lowest = np.float32(np.log1p(rates[0] / OFFSET))
        # log-odds at the lower end of each step, and one over their fall along the step
        self.lower, self.slopes = [], []
        for n in range(len(rates)):
            higher = chances[n + 1] if n + 1 < len(rates) else 0
            floor = np.maximum(higher, np.maximum(chances[n], 1e-12) * DROP)
            lower = _log_odds(chances[n])
            self.lower.append(lower + np.float32(SURE))
            self.slopes.append(1 / np.maximum(lower - _log_odds(floor), SURE))

    def rain(self, occurrence: np.ndarray, intensity: np.ndarray, shared: float) -> np.ndarray:
        """Return the rain (y, x), mm/h, float32, of two fields of standard normal noise (y, x); NaN missing.

        shared: correlation of how hard it rains with how far `occurrence` is above its edge; 1: nothing else decides
        """
        above = occurrence.ravel()[self.wet]
        at = np.flatnonzero(above >= self.edge)
        first, hard = self.chance[at], np.float32(np.sqrt(1 - shared**2)) * intensity.ravel()[self.wet[at]]
        if shared:  # the chance of more noise than there is, among that above the edge
            rest = np.clip(ndtr(-above[at]) / first, *WITHIN)
            hard -= np.float32(shared) * ndtri(rest)
        odds = _log_odds(first * ndtr(-hard))
        rate = np.full(len(at), self.lowest, np.float32)  # ln(1 + rate / OFFSET)
        over = self.lower[0][at] - odds
        for step, slope, most, following in zip(self.steps, self.slopes, self.most, [*self.lower[1:], None], strict=True):
            share = over * slope[at]
            np.clip(share, 0, most, out=share)
            if following is not None:
                over = following[at] - odds
                share[over > 0] = 1  # only its chance decides which cells reach the next rate
            share *= step
            rate += share
        rain = np.zeros(self.shape, np.float32)
        rain.ravel()[self.wet[at]] = np.maximum(np.float32(OFFSET) * (np.exp(rate) - 1), self.least)
        rain[self.missing] = np.nan
        return rain

    def expected(self, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the expected value (y, x) of a rising function of the rain, mm/h, that is 0 for none; NaN missing."""
        edge = self.lowest
        found = float(value(self.least)) * np.exp(self.first)
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            rises = np.diff(value(np.float32(OFFSET) * np.expm1(edge + step * np.linspace(0, 1, PARTS + 1, dtype=np.float32))))
            for part, rise in enumerate(rises):
                found += rise * expit(lower - np.float32((part + 0.5) / PARTS) / slope)
            edge = edge + step
        expected = np.zeros(self.shape, np.float32)
        expected.ravel()[self.wet] = found
        expected[self.missing] = np.nan
        return expected

    def noise(self, rain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what this rain (y, x), mm/h, tells of the noise (y, x): of occurrence, and of how hard it rains.

        Of occurrence it is the mean of all that would give it, since only wet or dry is known. How hard it rains is told as
        the noise that would decide it alone, whatever part the noise of occurrence had in it; 0 where it is dry. A cell that
        is unknown, or dry in all members, has 0 of both.
        """
        values = rain.ravel()[self.wet]
        known, rate = ~np.isnan(values), np.log1p(np.nan_to_num(values) / np.float32(OFFSET))
        is_wet = rate >= self.lowest
        share = np.clip(np.exp(self.first), LEAST, 1 - LEAST)
        density = np.exp(-(ndtri(share) ** 2) / 2) / np.sqrt(2 * np.pi)
        occurrence = np.where(is_wet, density / share, -density / (1 - share))
        intensity = -ndtri(np.clip(np.exp(self._log_chance(rate) - self.first), LEAST, 1 - LEAST))
        fields = np.zeros((2, *self.shape), np.float32)
        for field, found, told in zip(fields, (occurrence, intensity), (known, known & is_wet), strict=True):
            field.ravel()[self.wet] = np.where(told, found, 0)
        return fields[0], fields[1]

    def _log_chance(self, rate: np.ndarray) -> np.ndarray:
        """Return the logarithm of the chance of reaching a rate, given as ln(1 + rate / OFFSET), of each cell of `wet`."""
        chance, edge = self.first.copy(), self.lowest
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            share = np.clip((rate - edge) / step, 0, 1)
            chance = np.where(rate >= edge, np.minimum(chance, log_expit(lower - share / slope)), chance)
            edge = edge + step
        return chance


def _log_odds(chance: np.ndarray) -> np.ndarray:
    """Return the log-odds of chances of any shape."""
    likely = np.clip(chance, *LIKELY)
    return np.log(likely / (1 - likely))
