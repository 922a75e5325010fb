"""Sums of what is known of probabilities: of ensembles, and of exceedance probabilities.

A probability is that of a value at or above a threshold; of an ensemble it is the share of its members there. It is
counted in classes of one percent, centred on 0, 1, … 100 %: whole percents, and the shares of up to 100 members, each
have a class of their own. A deterministic forecast is an ensemble of one. The scores are in probability_scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from nowcast.scores.pixels import THRESHOLDS
from nowcast.scores.sums import Additive, Tally, ratio, summed

PERCENTS = tuple(range(101))  # the classes of probability
PAIRS_AT_ONCE = 1 << 15  # bounds the memory beside the members themselves


@dataclass(frozen=True, eq=False)
class ExceedanceSums(Additive):
    """Probabilities of a value at or above each threshold, and whether it was observed there.

    A threshold that a forecast gives no probability for has no pairs.
    """

    axis_facts: ClassVar[Mapping[str, str]] = {"threshold": "thresholds", "class": "percents"}

    thresholds: tuple[float, ...]
    percents: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", "threshold", dtype=np.int64))
    sum_brier: np.ndarray = field(metadata=summed("lead", "threshold"))
    num_forecast: np.ndarray = field(metadata=summed("lead", "threshold", "class", dtype=np.int64))
    num_observed: np.ndarray = field(metadata=summed("lead", "threshold", "class", dtype=np.int64))  # events among them
    sum_probability: np.ndarray = field(metadata=summed("lead", "threshold", "class"))

    @classmethod
    def zeros(cls, num_leads: int, thresholds: Sequence[float] = THRESHOLDS) -> "ExceedanceSums":
        """The sums of no case at all."""
        return cls.empty(num_leads, thresholds=tuple(map(float, thresholds)), percents=PERCENTS)


def exceedance_sums(
    probabilities: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    columns: Sequence[int] | None = None,
) -> Tally:
    """The sums of one case of probabilities 0 to 1, (threshold, lead, y, x), of an observation at or above a threshold.

    `columns` are the places in `thresholds` of those that probabilities are given for (default: all). A pair counts
    where the mask is True and neither the observation nor any of the probabilities is NaN.
    """
    probabilities, observed = np.asarray(probabilities), np.asarray(observed)
    require_shape("probabilities", probabilities, observed, mask)
    columns = range(len(thresholds)) if columns is None else columns
    total = ExceedanceSums.zeros(len(observed), thresholds)
    for lead in range(len(observed)):
        known = known_pairs(probabilities[:, lead], observed[lead], None if mask is None else mask[lead])
        add_probabilities(total, lead, probabilities[:, lead], observed[lead], known, columns)
    return Tally({"probabilities": total})


def require_shape(name: str, forecast: np.ndarray, observed: np.ndarray, mask: np.ndarray | None) -> None:
    if observed.ndim != 3 or forecast.shape[1:] != observed.shape or (mask is not None and mask.shape != observed.shape):
        raise ValueError(
            f"{name} {forecast.shape} must be (…, lead, y, x) over observed {observed.shape} and mask {np.shape(mask)}"
        )


def known_pairs(forecast: np.ndarray, observed: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    known = ~np.isnan(observed)
    for part in forecast:
        known &= ~np.isnan(part)
    return known if mask is None else known & mask


def add_probabilities(
    total: ExceedanceSums, lead: int, given: np.ndarray, observed: np.ndarray, known: np.ndarray, columns: Sequence[int]
) -> None:
    """Fill in one lead of one case: probabilities (threshold, y, x) of the thresholds at these places, observed (y, x)."""
    total.num_cases[lead] = known.any()
    for p, y in known_parts(given, observed, known):
        for probability, column in zip(p, columns, strict=True):
            add_probability(total, (lead, column), probability.astype(np.float64), y >= total.thresholds[column])


def known_parts(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(member or threshold, pair) and (pair,) of the known pixels, a few at a time."""
    known, observed, forecast = np.flatnonzero(known), observed.ravel(), forecast.reshape(len(forecast), -1)
    for first in range(0, len(known), PAIRS_AT_ONCE):
        chosen = known[first : first + PAIRS_AT_ONCE]
        yield forecast[:, chosen], observed[chosen]


def add_probability(total: ExceedanceSums, place: tuple[int, int], probability: np.ndarray, event: np.ndarray) -> None:
    """Add pairs of probability (pair,) and event (pair,) bool at (lead, threshold)."""
    found, most = np.floor(probability * PERCENTS[-1] + 0.5).astype(np.intp), len(PERCENTS)
    total.num_pairs[place] += len(probability)
    total.sum_brier[place] += ((probability - event) ** 2).sum()
    total.num_forecast[place] += np.bincount(found, minlength=most)
    total.num_observed[place] += np.bincount(found[event], minlength=most)
    total.sum_probability[place] += np.bincount(found, weights=probability, minlength=most)


DIAGRAM_CLASSES = 11  # of the reliability diagram: centred on 0, 10, … 100 %


def brier(s: ExceedanceSums) -> np.ndarray:
    """Brier score: mean of (p - o)^2, where o is 1 for an event and else 0. Range 0 to 1, best 0.

    Also: half of Brier's own score. Of probabilities as they are, not of classes. A deterministic forecast's is its share
    of misses and false alarms. NaN without pairs at that threshold. Brier (1950).
    """
    return ratio(s.sum_brier, s.num_pairs)


def brier_reliability(s: ExceedanceSums) -> np.ndarray:
    """Reliability term of the Brier score: sum of n_k (p_k - o_k)^2 / n over classes k of 1 %. Range 0 to 1, best 0.

    p_k is the mean probability in a class, o_k the observed frequency, n_k the number of pairs. brier = reliability -
    resolution + uncertainty where probabilities do not differ within a class; else the small rest is what they differ by
    (Stephenson et al., 2008). NaN without pairs at that threshold. Murphy (1973).
    """
    difference = ratio(s.sum_probability - s.num_observed, s.num_forecast)
    return _weighted(s, difference**2)


def brier_resolution(s: ExceedanceSums) -> np.ndarray:
    """Resolution term of the Brier score: sum of n_k (o_k - o)^2 / n over classes k of 1 %. Range 0 to 0.25, best 0.25.

    o_k is the observed frequency in a class, o over all. Its best is the uncertainty, reached when every class is all
    events or none. NaN without pairs at that threshold. Murphy (1973).
    """
    frequency = ratio(s.num_observed, s.num_forecast)
    return _weighted(s, (frequency - _base_rate(s)[..., None]) ** 2)


def brier_uncertainty(s: ExceedanceSums) -> np.ndarray:
    """Uncertainty term of the Brier score: o (1 - o) of the observed frequency o. Range 0 to 0.25, without a best.

    The same for all forecasts of the same pairs: the Brier score of the sample's climatology. NaN without pairs at that
    threshold. Murphy (1973).
    """
    return _base_rate(s) * (1 - _base_rate(s))


def brier_skill(s: ExceedanceSums) -> np.ndarray:
    """Brier skill score: 1 - brier / uncertainty, against the sample's own climatology. Range -infinity to 1, best 1.

    NaN where the event was observed always or never. Wilks (2019), ch. 9.
    """
    return 1 - ratio(brier(s), brier_uncertainty(s))


def _base_rate(s: ExceedanceSums) -> np.ndarray:
    return ratio(s.num_observed.sum(axis=-1), s.num_pairs)


def _weighted(s: ExceedanceSums, of_class: np.ndarray) -> np.ndarray:
    """The mean of a value of each class, by its number of pairs."""
    return ratio(np.nansum(s.num_forecast * of_class, axis=-1), s.num_pairs)


class Roc(NamedTuple):
    """Points of the ROC curve from (0, 0) to (1, 1), each (…, threshold, 102): a warning never, at 100 %, from 99 %, … 0 %."""

    pofd: np.ndarray
    pod: np.ndarray


def roc_curve(s: ExceedanceSums) -> Roc:
    """Probability of detection against that of false detection, when it is warned from some probability on.

    Also: receiver (relative) operating characteristic. NaN where the event was observed always or never. Mason (1982).
    """
    rates = []
    for counts in (s.num_forecast - s.num_observed, s.num_observed):
        warned = np.cumsum(counts[..., ::-1], axis=-1)
        warned = np.concatenate([np.zeros_like(warned[..., :1]), warned], axis=-1)
        rates.append(ratio(warned, np.broadcast_to(warned[..., -1:], warned.shape)))
    either = np.isnan(rates[0]) | np.isnan(rates[1])
    return Roc(*(np.where(either, np.nan, rate) for rate in rates))


def roc_area(s: ExceedanceSums) -> np.ndarray:
    """Area under the ROC curve of one-percent classes, by trapezoids. Range 0 to 1, best 1; 0.5 knows nothing.

    Also: AUC; the chance that an event had a higher probability than a non-event, equal ones counting half. A
    deterministic forecast's is (1 + hk) / 2. NaN where the event was observed always or never. Mason & Graham (2002).
    """
    pofd, pod = roc_curve(s)
    return np.trapezoid(pod, pofd, axis=-1)


class Reliability(NamedTuple):
    """A reliability diagram: in each class of probability the mean forecast, the observed frequency (NaN: empty), the count."""

    forecast: np.ndarray
    observed: np.ndarray
    num_pairs: np.ndarray


def reliability_diagram(s: ExceedanceSums, num_classes: int = DIAGRAM_CLASSES) -> Reliability:
    """(…, threshold, class) of classes centred on 0, 1 / (num_classes - 1), …, 1, the outer two half as wide.

    Also: attributes diagram. Each class joins whole classes of one percent; of a probability between two it is the higher.
    Bröcker & Smith (2007), who plot the mean forecast of a class and not its centre.
    """
    fine = PERCENTS[-1]
    joined = (2 * np.array(PERCENTS) * (num_classes - 1) + fine) // (2 * fine)
    starts = np.searchsorted(joined, np.arange(num_classes))
    arrays = (s.sum_probability, s.num_observed, s.num_forecast)
    probability, observed, count = (np.add.reduceat(array, starts, axis=-1) for array in arrays)
    return Reliability(ratio(probability, count), ratio(observed, count), count)
