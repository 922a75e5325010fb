"""Pairs of pixels: their sums, and the scores of counts and errors from those sums.

An event is a value at or above a threshold (`>=`). A pair counts only where the mask says so and both sides are known.
Whatever is undefined (0/0) is NaN, never 0 and never saved by an epsilon. Scores broadcast: sums may have axes before
(lead,) and (lead, threshold), which the bootstrap uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.quantity import RAIN_RATE
from nowcast.scores.sums import Additive, ratio, summed

THRESHOLDS = RAIN_RATE.thresholds  # mm/h
# weight k applies from threshold k - 1 on: Shi et al. (2017), section 4.2
BALANCED_THRESHOLDS = (0.5, 2.0, 5.0, 10.0, 30.0)  # mm/h
BALANCED_WEIGHTS = (1.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, eq=False)
class Sums(Additive):
    """What the scores of pairs need, by lead, and by lead and threshold. f is forecast and o observed, in mm/h."""

    axis_facts: ClassVar[Mapping[str, str]] = {"threshold": "thresholds"}

    thresholds: tuple[float, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    sum_error: np.ndarray = field(metadata=summed("lead"))  # error = f - o
    sum_abs_error: np.ndarray = field(metadata=summed("lead"))
    sum_sq_error: np.ndarray = field(metadata=summed("lead"))
    sum_weighted_abs_error: np.ndarray = field(metadata=summed("lead"))  # by BALANCED_WEIGHTS
    sum_weighted_sq_error: np.ndarray = field(metadata=summed("lead"))
    sum_f: np.ndarray = field(metadata=summed("lead"))
    sum_o: np.ndarray = field(metadata=summed("lead"))
    sum_ff: np.ndarray = field(metadata=summed("lead"))
    sum_oo: np.ndarray = field(metadata=summed("lead"))
    sum_fo: np.ndarray = field(metadata=summed("lead"))
    hits: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))
    misses: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))
    false_alarms: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))
    correct_negatives: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))

    @classmethod
    def zeros(cls, num_leads: int, thresholds: Sequence[float] = THRESHOLDS) -> "Sums":
        """The sums of no case at all."""
        return cls.empty(num_leads, thresholds=tuple(float(threshold) for threshold in thresholds))


def sums(
    forecast: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Sums:
    """The sums of one case: forecast and observed (lead, y, x) in mm/h, NaN missing; mask (lead, y, x) bool.

    A pair counts where the mask (default: everywhere) is True and neither side is NaN. Values are compared with
    thresholds in their own precision, so a float32 0.1 is at the threshold 0.1. Sums are accumulated in float64.
    """
    forecast, observed = np.asarray(forecast), np.asarray(observed)
    if forecast.ndim != 3 or forecast.shape != observed.shape or (mask is not None and mask.shape != forecast.shape):
        raise ValueError(
            f"forecast {forecast.shape}, observed {observed.shape} and mask {np.shape(mask)} must be one (lead, y, x)"
        )
    total = Sums.zeros(len(forecast), thresholds)  # filled lead by lead: temporaries of one frame
    for lead in range(len(forecast)):
        known = ~(np.isnan(forecast[lead]) | np.isnan(observed[lead]))
        if mask is not None:
            known &= mask[lead]
        add_pairs([total], lead, [forecast[lead]], observed[lead], known)
    return total


def add_pairs(
    totals: Sequence[Sums], lead: int, forecasts: Sequence[np.ndarray], observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead of one case, for several forecasts (y, x) of the same observed (y, x); `known` is their mask."""
    o = _values(observed, known)
    wide, events = o.astype(np.float64), [o >= threshold for threshold in totals[0].thresholds]
    for total, forecast in zip(totals, forecasts, strict=True):
        f = _values(forecast, known)
        _count(total, lead, f, events)
        _accumulate(total, lead, f.astype(np.float64), wide)


def _values(field: np.ndarray, known: np.ndarray) -> np.ndarray:
    return field.ravel() if known.all() else np.compress(known.ravel(), field.ravel())  # a fast field[known]


def _count(total: Sums, lead: int, f: np.ndarray, observed_events: Sequence[np.ndarray]) -> None:
    total.num_pairs[lead] = f.size
    total.num_cases[lead] = f.size > 0
    for column, threshold in enumerate(total.thresholds):
        forecast_event, observed_event = f >= threshold, observed_events[column]
        num_forecast, num_observed = np.count_nonzero(forecast_event), np.count_nonzero(observed_event)
        hits = np.count_nonzero(forecast_event & observed_event)
        total.hits[lead, column] = hits
        total.misses[lead, column] = num_observed - hits
        total.false_alarms[lead, column] = num_forecast - hits
        total.correct_negatives[lead, column] = f.size - num_forecast - num_observed + hits


def _accumulate(total: Sums, lead: int, f: np.ndarray, o: np.ndarray) -> None:
    """Products then a pairwise sum: as fast as one thread's dot product, more accurate, the same on every machine."""
    error = f - o
    work = error * error
    total.sum_error[lead] = error.sum()
    total.sum_sq_error[lead] = work.sum()
    error = np.abs(error, out=error)
    total.sum_abs_error[lead] = error.sum()
    total.sum_weighted_abs_error[lead] = _weighted(error, o, total.sum_abs_error[lead])
    total.sum_weighted_sq_error[lead] = _weighted(work, o, total.sum_sq_error[lead])
    total.sum_f[lead] = f.sum()
    total.sum_o[lead] = o.sum()
    total.sum_ff[lead] = np.multiply(f, f, out=work).sum()
    total.sum_oo[lead] = np.multiply(o, o, out=work).sum()
    total.sum_fo[lead] = np.multiply(f, o, out=work).sum()


def _weighted(errors: np.ndarray, o: np.ndarray, plain_sum: float) -> float:
    """The errors' sum by BALANCED_WEIGHTS: each level adds what it weighs more, over the pairs that reach it, ever fewer."""
    total = BALANCED_WEIGHTS[0] * plain_sum
    for n, threshold in enumerate(BALANCED_THRESHOLDS):
        reached = o >= threshold
        errors, o = np.compress(reached, errors), np.compress(reached, o)
        total += (BALANCED_WEIGHTS[n + 1] - BALANCED_WEIGHTS[n]) * errors.sum()
    return total


def _table(s: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The counts as float64: products of counts overflow int64."""
    return tuple(getattr(s, name).astype(np.float64) for name in ("hits", "misses", "false_alarms", "correct_negatives"))


def csi(s: Sums) -> np.ndarray:
    """Critical success index: hits / (hits + misses + false alarms). Range 0 to 1, best 1.

    Also: threat score, Jaccard index. NaN where there is no event on either side. Gilbert (1884).
    """
    return ratio(s.hits, s.hits + s.misses + s.false_alarms)


def pod(s: Sums) -> np.ndarray:
    """Probability of detection: hits / (hits + misses). Range 0 to 1, best 1.

    Also: hit rate, recall, sensitivity. NaN where nothing was observed. Wilks (2019), ch. 9.
    """
    return ratio(s.hits, s.hits + s.misses)


def far(s: Sums) -> np.ndarray:
    """False alarm ratio: false alarms / (hits + false alarms). Range 0 to 1, best 0.

    Also: 1 - precision; not the false alarm rate (pofd). NaN where nothing was forecast. Wilks (2019), ch. 9.
    """
    return ratio(s.false_alarms, s.hits + s.false_alarms)


def pofd(s: Sums) -> np.ndarray:
    """Probability of false detection: false alarms / (false alarms + correct negatives). Range 0 to 1, best 0.

    Also: false alarm rate. NaN where everything observed was an event. Wilks (2019), ch. 9.
    """
    return ratio(s.false_alarms, s.false_alarms + s.correct_negatives)


def frequency_bias(s: Sums) -> np.ndarray:
    """Events forecast / events observed: (hits + false alarms) / (hits + misses). Range 0 to infinity, best 1.

    NaN where nothing was observed. Wilks (2019), ch. 9.
    """
    return ratio(s.hits + s.false_alarms, s.hits + s.misses)


def hss(s: Sums) -> np.ndarray:
    """Heidke skill score: 2 (ad - bc) / ((a + c)(c + d) + (a + b)(b + d)). Range -1 to 1, best 1.

    a hits, b false alarms, c misses, d correct negatives. Also: Cohen's kappa. NaN where both sides are events
    everywhere or nowhere. Heidke (1926).
    """
    a, c, b, d = _table(s)
    return ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d))


def hk(s: Sums) -> np.ndarray:
    """Hanssen-Kuipers discriminant: pod - pofd. Range -1 to 1, best 1.

    Also: Peirce skill score, true skill statistic. NaN where pod or pofd is. Hanssen & Kuipers (1965).
    """
    return pod(s) - pofd(s)


def ets(s: Sums) -> np.ndarray:
    """Equitable threat score: (hits - r) / (hits + misses + false alarms - r). Range -1/3 to 1, best 1.

    r = (hits + misses)(hits + false alarms) / all pairs, the hits expected by chance. Also: Gilbert skill score. NaN
    where both sides are events everywhere or nowhere. Hogan et al. (2010).
    """
    a, c, b, d = _table(s)
    # multiplied by the number of pairs: (a + b + c) n - (a + c)(a + b) without rounding of the quotient r
    return ratio(a * d - b * c, a * d - b * c + (b + c) * (a + b + c + d))


def accuracy(s: Sums) -> np.ndarray:
    """Share of right answers: (hits + correct negatives) / all pairs. Range 0 to 1, best 1.

    Also: proportion correct. High wherever it rarely rains. NaN without pairs. Finley (1884).
    """
    return ratio(s.hits + s.correct_negatives, s.hits + s.correct_negatives + s.misses + s.false_alarms)


def fss_useful(s: Sums) -> np.ndarray:
    """Where a fractions skill score becomes useful: 0.5 + f0 / 2, f0 the observed share of events. Range 0.5 to 1.

    A line to read `fss` against, with no best value. Also: FSS of a uniform forecast. NaN without pairs. Roberts & Lean (2008).
    """
    events = s.hits + s.misses
    return 0.5 + ratio(events, events + s.false_alarms + s.correct_negatives) / 2


def f1(s: Sums) -> np.ndarray:
    """F1: 2 hits / (2 hits + misses + false alarms). Range 0 to 1, best 1.

    Also: Dice coefficient; 2 csi / (1 + csi). NaN where there is no event on either side. Dice (1945).
    """
    return ratio(2 * s.hits, 2 * s.hits + s.misses + s.false_alarms)


def mae(s: Sums) -> np.ndarray:
    """Mean absolute error, mm/h: mean of |f - o|. Range 0 to infinity, best 0.

    NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_abs_error, s.num_pairs)


def mse(s: Sums) -> np.ndarray:
    """Mean squared error, (mm/h)^2: mean of (f - o)^2. Range 0 to infinity, best 0.

    The "Rainfall-MSE" of Shi et al. (2015). NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_sq_error, s.num_pairs)


def rmse(s: Sums) -> np.ndarray:
    """Root mean squared error, mm/h: the root of mse over all pairs. Range 0 to infinity, best 0.

    Not a mean of the roots of cases. NaN without pairs. Wilks (2019), ch. 9.
    """
    return np.sqrt(mse(s))


def b_mae(s: Sums) -> np.ndarray:
    """Balanced mean absolute error, mm/h: mean of w |f - o|. Range 0 to infinity, best 0.

    w is 1, 1, 2, 5, 10, 30 by the observed rain, from 0, 0.5, 2, 5, 10, 30 mm/h on. The paper adds up the pixels of a frame:
    multiply by their number to compare. NaN without pairs. Shi et al. (2017), section 4.2.
    """
    return ratio(s.sum_weighted_abs_error, s.num_pairs)


def b_mse(s: Sums) -> np.ndarray:
    """Balanced mean squared error, (mm/h)^2: mean of w (f - o)^2, w as in `b_mae`. Range 0 to infinity, best 0.

    NaN without pairs. Shi et al. (2017), section 4.2.
    """
    return ratio(s.sum_weighted_sq_error, s.num_pairs)


def bias(s: Sums) -> np.ndarray:
    """Mean error, mm/h: mean of f - o, positive where too much is forecast. Range all numbers, best 0.

    Also: additive bias; not frequency_bias. NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_error, s.num_pairs)


def correlation(s: Sums) -> np.ndarray:
    """Pearson correlation over all pairs. Range -1 to 1, best 1. NaN without pairs or where a side is constant.

    A variance under 1e-12 of the mean square is the rounding of a constant: float32 data cannot vary by less.
    Pearson (1895).
    """
    num_pairs = np.float64(s.num_pairs)
    covariance = s.sum_fo - ratio(s.sum_f * s.sum_o, num_pairs)
    variances = []
    for total, squares in ((s.sum_f, s.sum_ff), (s.sum_o, s.sum_oo)):
        variance = squares - ratio(total * total, num_pairs)
        variances.append(np.where(variance > 1e-12 * squares, variance, 0))
    return np.clip(ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1])), -1, 1)


def uncentred_correlation(s: Sums) -> np.ndarray:
    """sum(fo) / sqrt(sum(ff) sum(oo)), the "correlation" of Shi et al. (2015). Range -1 to 1 (rain: from 0), best 1.

    Also: cosine similarity. NaN where a side is 0 everywhere.
    """
    return np.clip(ratio(s.sum_fo, np.sqrt(s.sum_ff) * np.sqrt(s.sum_oo)), -1, 1)
