"""Scores of pairs of pixels (contingency table, errors, correlation) and the sums they are computed from.

An event is a value at or above a threshold (`>=`). A pair of a forecast and an observed pixel counts only where the mask is
True and both values are known. An undefined score (0/0) is NaN, never 0, and no small constant is added to avoid it. The arrays
of sums may have further axes before (lead,) and (lead, threshold), which the bootstrap uses; scores keep them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.quantity import RAIN_RATE
from nowcast.scores.sums import Additive, ratio, summed

THRESHOLDS = RAIN_RATE.thresholds  # mm/h
# B-MAE and B-MSE of Shi et al. (2017), section 4.2: a pair's weight by its observed rain rate. The first weight applies below
# the first threshold, the others each from the corresponding threshold on.
BALANCED_THRESHOLDS = (0.5, 2.0, 5.0, 10.0, 30.0)  # mm/h
BALANCED_WEIGHTS = (1.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, eq=False)
class Sums(Additive):
    """Sums over pairs of pixels: errors by lead time, contingency tables by lead time and threshold.

    f is the forecast and o the observed value, in mm/h.
    """

    axis_parameters: ClassVar[Mapping[str, str]] = {"threshold": "thresholds"}

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
        """Return sums over no cases: all arrays zero."""
        return cls.empty(num_leads, thresholds=tuple(float(threshold) for threshold in thresholds))


def sums(
    forecast: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Sums:
    """Compute the sums of one case.

    forecast, observed: (lead, y, x) mm/h, NaN missing
    mask: (lead, y, x) bool, default True everywhere

    A pair counts where the mask is True and neither value is NaN. Values are compared with thresholds in the values' own
    precision, so a float32 0.1 reaches the threshold 0.1. Sums are accumulated in float64.
    Raises ValueError if the shapes differ.
    """
    forecast, observed = np.asarray(forecast), np.asarray(observed)
    if forecast.ndim != 3 or forecast.shape != observed.shape or (mask is not None and mask.shape != forecast.shape):
        raise ValueError(
            f"forecast {forecast.shape}, observed {observed.shape} and mask {np.shape(mask)} must be one (lead, y, x)"
        )
    total = Sums.zeros(len(forecast), thresholds)  # filled lead by lead, so that temporary arrays hold one frame only
    for lead in range(len(forecast)):
        known = ~(np.isnan(forecast[lead]) | np.isnan(observed[lead]))
        if mask is not None:
            known &= mask[lead]
        add_pairs([total], lead, [forecast[lead]], observed[lead], known)
    return total


def add_pairs(
    totals: Sequence[Sums], lead: int, forecasts: Sequence[np.ndarray], observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead time of one case, for several forecasts of the same observed field.

    totals: the sums to fill in, one for each forecast
    forecasts: fields (y, x) mm/h
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count; all fields must be finite there
    """
    o = _values(observed, known)
    o_float64, events = o.astype(np.float64), [o >= threshold for threshold in totals[0].thresholds]
    for total, forecast in zip(totals, forecasts, strict=True):
        f = _values(forecast, known)
        _count(total, lead, f, events)
        _accumulate(total, lead, f.astype(np.float64), o_float64)


def _values(field: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return field[known], (pair,), in a faster way."""
    return field.ravel() if known.all() else np.compress(known.ravel(), field.ravel())


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
    """Add up errors and products of the pairs.

    Products, then NumPy's pairwise sum: as fast as a dot product in one thread, more accurate, and the same on every machine.
    """
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
    """Return the sum of the errors, each times its weight from BALANCED_WEIGHTS.

    Each threshold adds the increase of the weight there, times the sum over the pairs that reach it: fewer pairs each time.
    """
    total = BALANCED_WEIGHTS[0] * plain_sum
    for level, threshold in enumerate(BALANCED_THRESHOLDS):
        reached = o >= threshold
        errors, o = np.compress(reached, errors), np.compress(reached, o)
        total += (BALANCED_WEIGHTS[level + 1] - BALANCED_WEIGHTS[level]) * errors.sum()
    return total


def _contingency_table(s: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return hits, misses, false alarms and correct negatives as float64: products of counts overflow int64."""
    return tuple(getattr(s, name).astype(np.float64) for name in ("hits", "misses", "false_alarms", "correct_negatives"))


def csi(s: Sums) -> np.ndarray:
    """Compute the critical success index (lead, threshold): hits / (hits + misses + false alarms). Range 0 to 1, best 1.

    Also called: threat score, Jaccard index. NaN where no event was forecast or observed. Gilbert (1884).
    """
    return ratio(s.hits, s.hits + s.misses + s.false_alarms)


def pod(s: Sums) -> np.ndarray:
    """Compute the probability of detection (lead, threshold): hits / (hits + misses). Range 0 to 1, best 1.

    Also called: hit rate, recall, sensitivity. NaN where no event was observed. Wilks (2019), ch. 9.
    """
    return ratio(s.hits, s.hits + s.misses)


def far(s: Sums) -> np.ndarray:
    """Compute the false alarm ratio (lead, threshold): false alarms / (hits + false alarms). Range 0 to 1, best 0.

    Also called: 1 - precision. Not the false alarm rate, which is `pofd`. NaN where no event was forecast. Wilks (2019), ch. 9.
    """
    return ratio(s.false_alarms, s.hits + s.false_alarms)


def pofd(s: Sums) -> np.ndarray:
    """Compute the probability of false detection (lead, threshold): false alarms / (false alarms + correct negatives).

    Range 0 to 1, best 0. Also called: false alarm rate. NaN where every observed pixel was an event. Wilks (2019), ch. 9.
    """
    return ratio(s.false_alarms, s.false_alarms + s.correct_negatives)


def frequency_bias(s: Sums) -> np.ndarray:
    """Compute the frequency bias (lead, threshold): (hits + false alarms) / (hits + misses). Range 0 to infinity, best 1.

    The number of forecast events over the number of observed ones. NaN where no event was observed. Wilks (2019), ch. 9.
    """
    return ratio(s.hits + s.false_alarms, s.hits + s.misses)


def hss(s: Sums) -> np.ndarray:
    """Compute the Heidke skill score (lead, threshold): 2 (ad - bc) / ((a + c)(c + d) + (a + b)(b + d)). Range -1 to 1, best 1.

    a: hits, b: false alarms, c: misses, d: correct negatives. Also called: Cohen's kappa. NaN where forecast and observation
    are both events everywhere or both nowhere. Heidke (1926).
    """
    a, c, b, d = _contingency_table(s)
    return ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d))


def hk(s: Sums) -> np.ndarray:
    """Compute the Hanssen-Kuipers discriminant (lead, threshold): pod - pofd. Range -1 to 1, best 1.

    Also called: Peirce skill score, true skill statistic. NaN where `pod` or `pofd` is NaN. Hanssen & Kuipers (1965).
    """
    return pod(s) - pofd(s)


def ets(s: Sums) -> np.ndarray:
    """Compute the equitable threat score (lead, threshold): (hits - r) / (hits + misses + false alarms - r).

    Range -1/3 to 1, best 1. r = (hits + misses)(hits + false alarms) / all pairs: the hits expected by chance. Also called:
    Gilbert skill score. NaN where forecast and observation are both events everywhere or both nowhere. Hogan et al. (2010).
    """
    a, c, b, d = _contingency_table(s)
    # numerator and denominator are multiplied by the number of pairs, so that r is not rounded
    return ratio(a * d - b * c, a * d - b * c + (b + c) * (a + b + c + d))


def accuracy(s: Sums) -> np.ndarray:
    """Compute the accuracy (lead, threshold): (hits + correct negatives) / all pairs. Range 0 to 1, best 1.

    Also called: proportion correct. High wherever it rarely rains. NaN without pairs. Finley (1884).
    """
    return ratio(s.hits + s.correct_negatives, s.hits + s.correct_negatives + s.misses + s.false_alarms)


def fss_useful(s: Sums) -> np.ndarray:
    """Compute the fractions skill score from which on a forecast is useful (lead, threshold): 0.5 + f0 / 2.

    Range 0.5 to 1, no best value. f0 is the observed area fraction with an event (base rate). A reference line to read `fss`
    against. Also called: FSS of a uniform forecast. NaN without pairs. Roberts & Lean (2008).
    """
    events = s.hits + s.misses
    return 0.5 + ratio(events, events + s.false_alarms + s.correct_negatives) / 2


def f1(s: Sums) -> np.ndarray:
    """Compute the F1 score (lead, threshold): 2 hits / (2 hits + misses + false alarms). Range 0 to 1, best 1.

    Also called: Dice coefficient. Equal to 2 csi / (1 + csi). NaN where no event was forecast or observed. Dice (1945).
    """
    return ratio(2 * s.hits, 2 * s.hits + s.misses + s.false_alarms)


def mae(s: Sums) -> np.ndarray:
    """Compute the mean absolute error (lead,), mm/h: mean of |f - o|. Range 0 to infinity, best 0.

    NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_abs_error, s.num_pairs)


def mse(s: Sums) -> np.ndarray:
    """Compute the mean squared error (lead,), (mm/h)^2: mean of (f - o)^2. Range 0 to infinity, best 0.

    Also called: "Rainfall-MSE" by Shi et al. (2015). NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_sq_error, s.num_pairs)


def rmse(s: Sums) -> np.ndarray:
    """Compute the root mean squared error (lead,), mm/h: square root of the MSE over all pairs. Range 0 to infinity, best 0.

    Not the mean of the RMSE of each case. NaN without pairs. Wilks (2019), ch. 9.
    """
    return np.sqrt(mse(s))


def b_mae(s: Sums) -> np.ndarray:
    """Compute the balanced mean absolute error, B-MAE (lead,), mm/h: mean of w |f - o|. Range 0 to infinity, best 0.

    The weight w is 1, 1, 2, 5, 10, 30 for observed rain rates from 0, 0.5, 2, 5, 10, 30 mm/h on. The paper takes the sum over
    the pixels of a frame instead of the mean: to compare, multiply by the number of pixels. NaN without pairs. Shi et al.
    (2017), section 4.2.
    """
    return ratio(s.sum_weighted_abs_error, s.num_pairs)


def b_mse(s: Sums) -> np.ndarray:
    """Compute the balanced mean squared error, B-MSE (lead,), (mm/h)^2: mean of w (f - o)^2. Range 0 to infinity, best 0.

    The weight w is that of `b_mae`. NaN without pairs. Shi et al. (2017), section 4.2.
    """
    return ratio(s.sum_weighted_sq_error, s.num_pairs)


def bias(s: Sums) -> np.ndarray:
    """Compute the mean error (lead,), mm/h: mean of f - o, positive where too much is forecast. Range all numbers, best 0.

    Also called: additive bias. Not the frequency bias. NaN without pairs. Wilks (2019), ch. 9.
    """
    return ratio(s.sum_error, s.num_pairs)


def correlation(s: Sums) -> np.ndarray:
    """Compute the Pearson correlation (lead,) over all pairs. Range -1 to 1, best 1.

    NaN without pairs, and where the forecast or the observation is constant. A variance under 1e-12 of the mean square counts
    as constant: it is rounding error, as float32 data cannot vary by less. Pearson (1895).
    """
    num_pairs = s.num_pairs.astype(np.float64)
    covariance = s.sum_fo - ratio(s.sum_f * s.sum_o, num_pairs)
    variances = []
    for total, squares in ((s.sum_f, s.sum_ff), (s.sum_o, s.sum_oo)):
        variance = squares - ratio(total * total, num_pairs)
        variances.append(np.where(variance > 1e-12 * squares, variance, 0))
    return np.clip(ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1])), -1, 1)


def uncentred_correlation(s: Sums) -> np.ndarray:
    """Compute the uncentred correlation (lead,): sum(fo) / sqrt(sum(ff) sum(oo)). Range -1 to 1 (0 to 1 for rain), best 1.

    Also called: cosine similarity; "correlation" by Shi et al. (2015). NaN where the forecast or the observation is 0
    everywhere.
    """
    return np.clip(ratio(s.sum_fo, np.sqrt(s.sum_ff) * np.sqrt(s.sum_oo)), -1, 1)
