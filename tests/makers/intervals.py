"""Confidence intervals of single scores, computed as in an evaluation: resample, score, take quantiles."""

import numpy as np

from nowcast.scores import SCORES
from nowcast.scores.bootstrap import LEVEL, NUM_SAMPLES, SEED, quantiles, resample


def interval(blocks, score, *, num_samples=NUM_SAMPLES, seed=SEED, level=LEVEL):
    """Return (low, high) of a score, given by name or as a function of sums; NaN with too few blocks."""
    function = SCORES[score] if isinstance(score, str) else score
    resampled = resample(blocks, num_samples=num_samples, seed=seed)
    if resampled is None:
        missing = np.full(np.shape(function(blocks[0])) if len(blocks) else (), np.nan)
        return missing, missing
    return quantiles(function(resampled), level)
