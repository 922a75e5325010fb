"""Scores of exceedance probabilities, and the sums they are computed from: Brier score, ROC, reliability diagram.

An exceedance probability is that of a value at or above a threshold; an ensemble's is the fraction of its members there, and a
deterministic forecast is an ensemble of one member. Probabilities are counted in classes of one percent, centred on 0, 1, …
100 %, so whole percents and the fractions of up to 100 members each have a class of their own. An undefined score (0/0) is NaN.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from nowcast.scores.pixels import THRESHOLDS
from nowcast.scores.sums import Additive, ratio, summed

PERCENTS = tuple(range(101))  # centres of the classes of probability, %
DIAGRAM_CLASSES = 11  # classes of the reliability diagram: centred on 0, 10, … 100 %
PAIRS_AT_ONCE = 1 << 15  # pairs processed together, to limit memory


@dataclass(frozen=True, eq=False)
class ExceedanceSums(Additive):
    """Sums over pairs of a probability and an observed event, by lead time, threshold and class of probability.

    A threshold for which a forecast gives no probability has no pairs.
    """

    axis_parameters: ClassVar[Mapping[str, str]] = {"threshold": "thresholds", "class": "percents"}

    thresholds: tuple[float, ...]
    percents: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))
    sum_brier: np.ndarray = field(metadata=summed("lead", "threshold"))
    num_forecast: np.ndarray = field(metadata=summed("lead", "threshold", "class", dtype=np.int64))
    num_observed: np.ndarray = field(metadata=summed("lead", "threshold", "class", dtype=np.int64))  # events among num_forecast
    sum_probability: np.ndarray = field(metadata=summed("lead", "threshold", "class"))

    @classmethod
    def zeros(cls, num_leads: int, thresholds: Sequence[float] = THRESHOLDS) -> "ExceedanceSums":
        """Return sums over no cases: all arrays zero."""
        return cls.empty(num_leads, thresholds=tuple(map(float, thresholds)), percents=PERCENTS)


def add_probabilities(
    total: ExceedanceSums, lead: int, probabilities: np.ndarray, observed: np.ndarray, known: np.ndarray, columns: Sequence[int]
) -> None:
    """Fill in one lead time of one case.

    probabilities: (column, y, x) 0 to 1
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count
    columns: the index into `total.thresholds` of each probability
    """
    total.num_cases[lead] = known.any()
    for chunk, values in known_chunks(probabilities, observed, known):
        for probability, column in zip(chunk, columns, strict=True):
            add_probability(total, (lead, column), probability.astype(np.float64), values >= total.thresholds[column])


def known_chunks(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the known pixels of a forecast (member or threshold, y, x) and of the observation (y, x), some at a time.

    yields: (member or threshold, pair) and (pair,)
    """
    known, observed, forecast = np.flatnonzero(known), observed.ravel(), forecast.reshape(len(forecast), -1)
    for first in range(0, len(known), PAIRS_AT_ONCE):
        chosen = known[first : first + PAIRS_AT_ONCE]
        yield forecast[:, chosen], observed[chosen]


def add_probability(total: ExceedanceSums, place: tuple[int, int], probability: np.ndarray, event: np.ndarray) -> None:
    """Add pairs of a probability (pair,), 0 to 1, and an observed event (pair,), bool, at (lead, threshold)."""
    percent, num_classes = np.floor(probability * PERCENTS[-1] + 0.5).astype(np.intp), len(PERCENTS)
    total.num_pairs[place] += len(probability)
    total.sum_brier[place] += ((probability - event) ** 2).sum()
    total.num_forecast[place] += np.bincount(percent, minlength=num_classes)
    total.num_observed[place] += np.bincount(percent[event], minlength=num_classes)
    total.sum_probability[place] += np.bincount(percent, weights=probability, minlength=num_classes)


def brier(s: ExceedanceSums) -> np.ndarray:
    """Compute the Brier score (lead, threshold): mean of (p - o)^2, where o is 1 for an event, else 0. Range 0 to 1, best 0.

    Half of the score that Brier defined. Computed from the probabilities themselves, not from classes. For a deterministic
    forecast: (misses + false alarms) / all pairs. NaN without pairs at that threshold. Brier (1950).
    """
    return ratio(s.sum_brier, s.num_pairs)


def brier_reliability(s: ExceedanceSums) -> np.ndarray:
    """Compute the reliability term of the Brier score (lead, threshold): sum over classes k of n_k (p_k - o_k)^2 / n.

    Range 0 to 1, best 0. In each class of 1 %, p_k is the mean probability, o_k the observed frequency and n_k the number of
    pairs. The Brier score is reliability - resolution + uncertainty if all probabilities in a class are equal; otherwise a
    small remainder comes from their differences (Stephenson et al., 2008). NaN without pairs at that threshold. Murphy (1973).
    """
    difference = ratio(s.sum_probability - s.num_observed, s.num_forecast)
    return _mean_over_classes(s, difference**2)


def brier_resolution(s: ExceedanceSums) -> np.ndarray:
    """Compute the resolution term of the Brier score (lead, threshold): sum over classes k of n_k (o_k - o)^2 / n.

    Range 0 to 0.25, best 0.25. o_k is the observed frequency in a class of 1 %, o that over all pairs. At most the uncertainty
    term, reached when each class holds either events only or none. NaN without pairs at that threshold. Murphy (1973).
    """
    frequency = ratio(s.num_observed, s.num_forecast)
    return _mean_over_classes(s, (frequency - _base_rate(s)[..., None]) ** 2)


def brier_uncertainty(s: ExceedanceSums) -> np.ndarray:
    """Compute the uncertainty term of the Brier score (lead, threshold): o (1 - o), o the observed frequency.

    Range 0 to 0.25, no best value. Also called: Brier score of the sample climatology. The same for all forecasts of the same
    pairs. NaN without pairs at that threshold. Murphy (1973).
    """
    return _base_rate(s) * (1 - _base_rate(s))


def brier_skill(s: ExceedanceSums) -> np.ndarray:
    """Compute the Brier skill score (lead, threshold): 1 - brier / uncertainty. Range -infinity to 1, best 1.

    The reference is the climatology of the sample itself. NaN where every observation or none was an event. Wilks (2019),
    ch. 9.
    """
    return 1 - ratio(brier(s), brier_uncertainty(s))


def _base_rate(s: ExceedanceSums) -> np.ndarray:
    return ratio(s.num_observed.sum(axis=-1), s.num_pairs)


def _mean_over_classes(s: ExceedanceSums, values: np.ndarray) -> np.ndarray:
    """Return the mean of the values (…, class), weighted by the number of pairs in each class."""
    return ratio(np.nansum(s.num_forecast * values, axis=-1), s.num_pairs)


class Roc(NamedTuple):
    """Points of the ROC curve from (0, 0) to (1, 1), each array (…, threshold, 102).

    The warnings are given: never, at 100 %, from 99 % on, … from 0 % on (always).
    """

    pofd: np.ndarray
    pod: np.ndarray


def roc_curve(s: ExceedanceSums) -> Roc:
    """Compute the probability of detection and of false detection of warnings given from each probability on.

    Also called: receiver (relative) operating characteristic. NaN where every observation or none was an event. Mason (1982).
    """
    rates = []
    for counts in (s.num_forecast - s.num_observed, s.num_observed):
        warned = np.cumsum(counts[..., ::-1], axis=-1)
        warned = np.concatenate([np.zeros_like(warned[..., :1]), warned], axis=-1)
        rates.append(ratio(warned, np.broadcast_to(warned[..., -1:], warned.shape)))
    undefined = np.isnan(rates[0]) | np.isnan(rates[1])
    return Roc(*(np.where(undefined, np.nan, rate) for rate in rates))


def roc_area(s: ExceedanceSums) -> np.ndarray:
    """Compute the area under the ROC curve (lead, threshold) by the trapezoidal rule.

    Range 0 to 1, best 1; 0.5 means no discrimination. Also called: AUC. The chance that an event had a higher probability (in
    classes of 1 %) than a non-event; equal ones count half. For a deterministic forecast: (1 + hk) / 2. NaN where every
    observation or none was an event. Mason & Graham (2002).
    """
    pofd, pod = roc_curve(s)
    return np.trapezoid(pod, pofd, axis=-1)


class Reliability(NamedTuple):
    """A reliability diagram: mean forecast probability, observed frequency and number of pairs in each class (NaN: empty)."""

    forecast: np.ndarray
    observed: np.ndarray
    num_pairs: np.ndarray


def reliability_diagram(s: ExceedanceSums, num_classes: int = DIAGRAM_CLASSES) -> Reliability:
    """Compute the reliability diagram in classes centred on 0, 1 / (num_classes - 1), …, 1.

    returns: arrays (…, threshold, class)

    The first and last class are half as wide as the others. Each class joins whole classes of one percent; a one-percent class
    on the boundary belongs to the higher class. Also called: attributes diagram. As in Bröcker & Smith (2007), the mean
    probability of a class is used, not its centre.
    """
    highest = PERCENTS[-1]
    wide_class = (2 * np.array(PERCENTS) * (num_classes - 1) + highest) // (2 * highest)
    starts = np.searchsorted(wide_class, np.arange(num_classes))
    arrays = (s.sum_probability, s.num_observed, s.num_forecast)
    probability, observed, count = (np.add.reduceat(array, starts, axis=-1) for array in arrays)
    return Reliability(ratio(probability, count), ratio(observed, count), count)
