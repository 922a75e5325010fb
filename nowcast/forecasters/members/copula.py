"""Convert noise to rain by the distribution of each cell: standard normal numbers -> probabilities -> rain (a Gaussian copula).

There are two noise fields. The noise of occurrence decides where it rains: a cell is wet if it exceeds a threshold set by the
probability of rain. The intensity in wet cells follows from the distribution of wet cells, in part by the excess over that
threshold and in part by the noise of intensity. With a single noise, whole regions would have their heaviest rain at once.

The distribution of a cell is given by its probabilities of reaching RATES, as in the CRPS (scores/distribution.py). Between two
rates the log-odds are linear in ln(1 + rate / OFFSET), as in networks; beyond the last rate they decrease to the largest rate.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_expit, ndtr, ndtri

from nowcast.forecasters.members.structure import LARGEST
from nowcast.netcdf.writing.members import most_below
from nowcast.scores.distribution import RATES

OFFSET = 0.5  # mm/h, as in the transform of networks
LEAST = 1e-5  # probability of the lowest rate; below it a cell is dry in all members
LEAST_FALL = 1e-4  # smallest decrease of log-odds over a step between two rates, to avoid division by 0
NOISE_RANGE = np.float32(1e-7), np.float32(1 - 1e-6)  # probabilities with finite normal quantiles
ODDS_RANGE = np.float32(1e-30), np.float32(1 - 1e-6)  # probabilities with finite log-odds
PARTS = 4  # substeps of a step between two rates, in the sum for an expected value
LEAST_RATIO = 0.05  # smallest ratio of the probabilities of two neighbouring rates, for the interpolation between them
MOST_FRACTION = 0.9999  # of the last step, so that the largest rate is not exceeded


class Distributions:
    """The distributions of all cells at one lead time."""

    def __init__(self, exceedance: np.ndarray, largest: float = LARGEST):
        """Prepare the inverse distribution functions.

        exceedance: (rate, y, x) probability of reaching each of RATES, 0 to 1, NaN missing
        largest: mm/h, never exceeded
        """
        self.missing = np.isnan(exceedance[0])
        self.shape = self.missing.shape
        self.wet = np.flatnonzero(np.nan_to_num(exceedance[0]) > LEAST)
        probabilities = np.minimum.accumulate(exceedance.reshape(len(RATES), -1)[:, self.wet], axis=0)
        self.probability, self.log_probability = probabilities[0], np.log(probabilities[0])
        self.threshold = -ndtri(probabilities[0])  # a cell is wet if its noise of occurrence is above it
        self.lowest_rate = np.float32(RATES[0])
        self.steps = np.diff(np.log1p(np.array([*RATES, largest]) / OFFSET)).astype(np.float32)
        # largest fraction of each step that a packed file does not round up to the next rate
        tops = np.log1p(np.array([most_below(rate) for rate in RATES[1:]]) / OFFSET)
        below = (tops - np.log1p(np.array(RATES[:-1]) / OFFSET)) / self.steps[:-1]
        self.most = np.array([*np.maximum(below, 0), MOST_FRACTION], np.float32)
        self.lowest_log = np.float32(np.log1p(RATES[0] / OFFSET))
        # log-odds at the lower end of each step, and the reciprocal of their decrease over the step
        self.lower, self.slopes = [], []
        for n in range(len(RATES)):
            higher = probabilities[n + 1] if n + 1 < len(RATES) else 0
            floor = np.maximum(higher, np.maximum(probabilities[n], 1e-12) * LEAST_RATIO)
            lower = _log_odds(probabilities[n])
            self.lower.append(lower + np.float32(LEAST_FALL))
            self.slopes.append(1 / np.maximum(lower - _log_odds(floor), LEAST_FALL))

    def rain(self, occurrence: np.ndarray, intensity: np.ndarray, shared: float) -> np.ndarray:
        """Return the rain (y, x), mm/h, float32, for two fields of standard normal noise (y, x); NaN missing.

        shared: correlation of intensity with the excess of `occurrence` over its threshold; 1: `intensity` has no effect
        """
        noise = occurrence.ravel()[self.wet]
        at = np.flatnonzero(noise >= self.threshold)
        wet_probability, second = self.probability[at], np.float32(np.sqrt(1 - shared**2)) * intensity.ravel()[self.wet[at]]
        if shared:  # the probability of higher noise, given that it is above the threshold
            rank = np.clip(ndtr(-noise[at]) / wet_probability, *NOISE_RANGE)
            second -= np.float32(shared) * ndtri(rank)
        odds = _log_odds(wet_probability * ndtr(-second))
        rate = np.full(len(at), self.lowest_log, np.float32)  # ln(1 + rate / OFFSET)
        excess = self.lower[0][at] - odds
        for step, slope, most, following in zip(self.steps, self.slopes, self.most, [*self.lower[1:], None], strict=True):
            fraction = excess * slope[at]
            np.clip(fraction, 0, most, out=fraction)
            if following is not None:
                excess = following[at] - odds
                fraction[excess > 0] = 1  # its probability alone decides which cells reach the next rate
            fraction *= step
            rate += fraction
        rain = np.zeros(self.shape, np.float32)
        rain.ravel()[self.wet[at]] = np.maximum(np.float32(OFFSET) * (np.exp(rate) - 1), self.lowest_rate)
        rain[self.missing] = np.nan
        return rain

    def expected(self, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the expected value (y, x) of an increasing function of rain, mm/h, that is 0 for no rain; NaN missing."""
        log_rate = self.lowest_log
        total = float(value(self.lowest_rate)) * np.exp(self.log_probability)
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            rises = np.diff(
                value(np.float32(OFFSET) * np.expm1(log_rate + step * np.linspace(0, 1, PARTS + 1, dtype=np.float32)))
            )
            for substep, rise in enumerate(rises):
                total += rise * expit(lower - np.float32((substep + 0.5) / PARTS) / slope)
            log_rate = log_rate + step
        expected = np.zeros(self.shape, np.float32)
        expected.ravel()[self.wet] = total
        expected[self.missing] = np.nan
        return expected

    def noise(self, rain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate the noise of occurrence and of intensity, (y, x) each, from rain (y, x), mm/h.

        Occurrence: the conditional mean, given wet or dry. Intensity: the noise that gives this rain if it decides alone,
        without the noise of occurrence; 0 in dry cells. Both are 0 in cells that are missing, or dry in all members.
        """
        values = rain.ravel()[self.wet]
        known, rate = ~np.isnan(values), np.log1p(np.nan_to_num(values) / np.float32(OFFSET))
        is_wet = rate >= self.lowest_log
        probability = np.clip(np.exp(self.log_probability), LEAST, 1 - LEAST)
        density = np.exp(-(ndtri(probability) ** 2) / 2) / np.sqrt(2 * np.pi)
        occurrence = np.where(is_wet, density / probability, -density / (1 - probability))
        intensity = -ndtri(np.clip(np.exp(self._log_probability(rate) - self.log_probability), LEAST, 1 - LEAST))
        fields = np.zeros((2, *self.shape), np.float32)
        for field, values_of_noise, is_known in zip(fields, (occurrence, intensity), (known, known & is_wet), strict=True):
            field.ravel()[self.wet] = np.where(is_known, values_of_noise, 0)
        return fields[0], fields[1]

    def _log_probability(self, rate: np.ndarray) -> np.ndarray:
        """Return the logarithm of the probability of reaching a rate, as ln(1 + rate / OFFSET), for each cell of `wet`."""
        probability, log_rate = self.log_probability.copy(), self.lowest_log
        for step, lower, slope in zip(self.steps, self.lower, self.slopes, strict=True):
            fraction = np.clip((rate - log_rate) / step, 0, 1)
            probability = np.where(rate >= log_rate, np.minimum(probability, log_expit(lower - fraction / slope)), probability)
            log_rate = log_rate + step
        return probability


def _log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities of any shape."""
    likely = np.clip(probability, *ODDS_RANGE)
    return np.log(likely / (1 - likely))
