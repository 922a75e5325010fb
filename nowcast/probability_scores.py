"""Scores of probabilities as functions of their sums, and what diagrams of them show.

Like the scores of `metrics` they use the last axes of the sums, and what is undefined (0/0) is NaN. Classes of
probability are those of `probability`, one percent wide.
"""

from typing import NamedTuple

import numpy as np

from nowcast.metrics import Score
from nowcast.probability import PERCENTS, EnsembleSums, ExceedanceSums
from nowcast.sums import ratio

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


def crps_ecdf(s: EnsembleSums) -> np.ndarray:
    """CRPS of the members' step function, mm/h: mean of E|x - y| - E|x - x'| / 2. Range 0 to infinity, best 0.

    Continuous ranked probability score; the means E are over all n members and n^2 pairs of members, so that a small
    ensemble is penalised for being small. One member: mae. NaN without members. Hersbach (2000).
    """
    return ratio(s.sum_crps_ecdf, s.num_pairs)


def crps_fair(s: EnsembleSums) -> np.ndarray:
    """Fair CRPS, mm/h: as crps_ecdf, but E|x - x'| over the n (n - 1) pairs of different members. Range all numbers, best 0.

    The CRPS to expect of infinitely many members like these; single cases can fall below 0. One member is no sample but a
    statement without spread: mae (others: NaN). NaN without members. Ferro (2014).
    """
    return ratio(s.sum_crps_fair, s.num_pairs)


def spread(s: EnsembleSums) -> np.ndarray:
    """Spread of n members, mm/h: root of the mean of (n + 1) / n times their unbiased variance. Range 0 to infinity.

    With the factor it is, for a reliable ensemble, the RMSE of the mean: there is no best by itself, see spread_skill. One
    member: 0. NaN without members. Fortin et al. (2014).
    """
    return np.sqrt(ratio(s.sum_variance, s.num_pairs))


def mean_rmse(s: EnsembleSums) -> np.ndarray:
    """RMSE of the mean of the members, mm/h. Range 0 to infinity, best 0. One member: rmse. NaN without members."""
    return np.sqrt(ratio(s.sum_mean_sq_error, s.num_pairs))


def spread_skill(s: EnsembleSums) -> np.ndarray:
    """spread / RMSE of the mean. Range 0 to infinity, best 1; below it the ensemble is too sure, above not sure enough.

    Also: spread-error ratio. One member: 0. NaN without members or where the mean is perfect. Fortin et al. (2014).
    """
    return ratio(spread(s), mean_rmse(s))


def rank_histogram(s: EnsembleSums, *, tied: bool = True) -> np.ndarray:
    """Shares of the pairs (lead, rank) whose observation is above 0, 1, … n members; flat for a reliable ensemble.

    Also: Talagrand diagram. An observation equal to e members is shared out evenly over e + 1 ranks, no dice being thrown.
    Without `tied`, pairs whose members all equal the observation are left out: dry everywhere, they only flatten. NaN
    without pairs, and for ranks that the ensemble does not have. Hamill (2001).
    """
    ranked = s.num_ranked if tied else s.num_ranked - s.num_tied_ranked
    num_pairs = s.num_pairs if tied else s.num_pairs - s.num_tied
    shares = ratio(ranked, np.broadcast_to(num_pairs[..., None], ranked.shape))
    return np.where(np.array(s.ranks) <= ensemble_size(s)[..., None], shares, np.nan)


def ensemble_size(s: EnsembleSums) -> np.ndarray:
    """The number of members (lead,), NaN without pairs."""
    return ratio(s.num_members, s.num_pairs)


_INF = float("inf")
_BY_THRESHOLD = {"axes": ("lead", "threshold"), "kind": "probabilities"}
_OF_MEMBERS = {"kind": "members"}
_RATE = {"kind": "members", "units": "mm h-1"}
PROBABILITY_SCORES = {
    "brier": Score(brier, "Brier score", (0, 1), 0, **_BY_THRESHOLD),
    "brier_reliability": Score(brier_reliability, "reliability term of the Brier score", (0, 1), 0, **_BY_THRESHOLD),
    "brier_resolution": Score(brier_resolution, "resolution term of the Brier score", (0, 0.25), 0.25, **_BY_THRESHOLD),
    "brier_uncertainty": Score(brier_uncertainty, "uncertainty term of the Brier score", (0, 0.25), None, **_BY_THRESHOLD,
                               compared=False),
    "brier_skill": Score(brier_skill, "Brier skill score", (-_INF, 1), 1, **_BY_THRESHOLD),
    "roc_area": Score(roc_area, "area under the ROC curve", (0, 1), 1, **_BY_THRESHOLD),
    "crps_ecdf": Score(crps_ecdf, "continuous ranked probability score", (0, _INF), 0, **_RATE),
    "crps_fair": Score(crps_fair, "fair continuous ranked probability score", (-_INF, _INF), 0, **_RATE),
    "spread": Score(spread, "ensemble spread", (0, _INF), None, **_RATE, compared=False),
    "mean_rmse": Score(mean_rmse, "RMSE of the ensemble mean", (0, _INF), 0, **_RATE),
    "spread_skill": Score(spread_skill, "spread / RMSE of the mean", (0, _INF), 1, **_OF_MEMBERS),
}  # fmt: skip
