"""Sums of what is known of probabilities: of ensembles, and of exceedance probabilities.

A probability is that of a value at or above a threshold; of an ensemble it is the share of its members there. It is
counted in classes of one percent, centred on 0, 1, … 100 %: whole percents, and the shares of up to 100 members, each
have a class of their own. A deterministic forecast is an ensemble of one. The scores are in probability_scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.pairs import THRESHOLDS
from nowcast.sums import Additive, Tally, summed

PERCENTS = tuple(range(101))  # the classes of probability
_PAIRS_AT_ONCE = 1 << 15  # bounds the memory beside the members themselves


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


@dataclass(frozen=True, eq=False)
class EnsembleSums(Additive):
    """Members beside the observation. `ranks` may be more than an ensemble has: as many as the largest one it stands beside."""

    axis_facts: ClassVar[Mapping[str, str]] = {"rank": "ranks"}

    ranks: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_members: np.ndarray = field(metadata=summed("lead", dtype=np.int64))  # of all pairs together
    num_tied: np.ndarray = field(metadata=summed("lead", dtype=np.int64))  # pairs whose members all equal the observation
    sum_crps_ecdf: np.ndarray = field(metadata=summed("lead"))
    sum_crps_fair: np.ndarray = field(metadata=summed("lead"))
    sum_variance: np.ndarray = field(metadata=summed("lead"))  # unbiased, of n members, times (n + 1) / n
    sum_mean_sq_error: np.ndarray = field(metadata=summed("lead"))  # of the mean of the members
    num_ranked: np.ndarray = field(metadata=summed("lead", "rank"))  # ties are shared out
    num_tied_ranked: np.ndarray = field(metadata=summed("lead", "rank"))  # those of num_tied

    @classmethod
    def zeros(cls, num_leads: int, *, most_members: int) -> "EnsembleSums":
        """The sums of no case at all."""
        return cls.empty(num_leads, ranks=tuple(range(most_members + 1)))


def ensemble_sums(
    members: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    most_members: int | None = None,
) -> Tally:
    """The sums of one case of an ensemble: members (member, lead, y, x), observed and mask (lead, y, x), in mm/h.

    A pair counts where the mask (default: everywhere) is True and neither the observation nor any member is NaN: an
    ensemble that lacks a member is another ensemble. The order of the members does not matter.
    """
    members, observed = np.asarray(members), np.asarray(observed)
    _require_shape("members", members, observed, mask)
    exceedance = ExceedanceSums.zeros(len(observed), thresholds)
    ensemble = EnsembleSums.zeros(len(observed), most_members=most_members or len(members))
    for lead in range(len(observed)):
        known = _known(members[:, lead], observed[lead], None if mask is None else mask[lead])
        add_members(exceedance, ensemble, lead, members[:, lead], observed[lead], known)
    return Tally({"probabilities": exceedance, "members": ensemble})


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
    _require_shape("probabilities", probabilities, observed, mask)
    columns = range(len(thresholds)) if columns is None else columns
    total = ExceedanceSums.zeros(len(observed), thresholds)
    for lead in range(len(observed)):
        known = _known(probabilities[:, lead], observed[lead], None if mask is None else mask[lead])
        add_probabilities(total, lead, probabilities[:, lead], observed[lead], known, columns)
    return Tally({"probabilities": total})


def _require_shape(name: str, forecast: np.ndarray, observed: np.ndarray, mask: np.ndarray | None) -> None:
    if observed.ndim != 3 or forecast.shape[1:] != observed.shape or (mask is not None and mask.shape != observed.shape):
        raise ValueError(
            f"{name} {forecast.shape} must be (…, lead, y, x) over observed {observed.shape} and mask {np.shape(mask)}"
        )


def _known(forecast: np.ndarray, observed: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    known = ~np.isnan(observed)
    for part in forecast:
        known &= ~np.isnan(part)
    return known if mask is None else known & mask


def add_members(
    exceedance: ExceedanceSums, ensemble: EnsembleSums, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead of one case: members (member, y, x), observed (y, x), and where both are known."""
    num_pairs, n = int(known.sum()), len(members)
    exceedance.num_cases[lead] = ensemble.num_cases[lead] = num_pairs > 0
    ensemble.num_pairs[lead], ensemble.num_members[lead] = num_pairs, num_pairs * n
    ties = np.zeros((n + 1, n + 1), np.int64)  # (members below, members equal)
    for x, y in _parts(members, observed, known):
        ties += _add_sorted(ensemble, lead, np.sort(x, axis=0).astype(np.float64), y.astype(np.float64))
        for column, threshold in enumerate(exceedance.thresholds):
            share = np.count_nonzero(x >= threshold, axis=0) / n
            _add_probability(exceedance, (lead, column), share, y >= threshold)
    _add_ranks(ensemble, lead, ties)


def add_probabilities(
    total: ExceedanceSums, lead: int, given: np.ndarray, observed: np.ndarray, known: np.ndarray, columns: Sequence[int]
) -> None:
    """Fill in one lead of one case: probabilities (threshold, y, x) of the thresholds at these places, observed (y, x)."""
    total.num_cases[lead] = known.any()
    for p, y in _parts(given, observed, known):
        for probability, column in zip(p, columns, strict=True):
            _add_probability(total, (lead, column), probability.astype(np.float64), y >= total.thresholds[column])


def _parts(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(member or threshold, pair) and (pair,) of the known pixels, a few at a time."""
    known, observed, forecast = np.flatnonzero(known), observed.ravel(), forecast.reshape(len(forecast), -1)
    for first in range(0, len(known), _PAIRS_AT_ONCE):
        chosen = known[first : first + _PAIRS_AT_ONCE]
        yield forecast[:, chosen], observed[chosen]


def _add_sorted(total: EnsembleSums, lead: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add members x (member, pair), sorted, beside y (pair,); returns how many pairs have which ties."""
    n = len(x)
    error = np.abs(x - y).mean(axis=0)
    # half the sum of |x_i - x_j| over all i and j, since x is sorted: Hersbach (2000)
    apart = np.tensordot(2.0 * np.arange(n) - (n - 1), x, axes=1)
    total.sum_crps_ecdf[lead] += (error - apart / n**2).sum()
    total.sum_crps_fair[lead] += (error - apart / (n * max(n - 1, 1))).sum()
    total.sum_mean_sq_error[lead] += ((x.mean(axis=0) - y) ** 2).sum()
    if n > 1:
        total.sum_variance[lead] += (n + 1) / n * x.var(axis=0, ddof=1).sum()
    below, equal = np.count_nonzero(x < y, axis=0), np.count_nonzero(x == y, axis=0)
    return np.bincount(below * (n + 1) + equal, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)


def _add_ranks(total: EnsembleSums, lead: int, ties: np.ndarray) -> None:
    """An observation above b members and equal to e of them has each of the ranks b … b + e in equal shares."""
    for below, equal in np.argwhere(ties):
        total.num_ranked[lead, below : below + equal + 1] += ties[below, equal] / (equal + 1)
    total.num_tied[lead] = ties[0, -1]
    total.num_tied_ranked[lead, : len(ties)] = ties[0, -1] / len(ties)


def _add_probability(total: ExceedanceSums, place: tuple[int, int], probability: np.ndarray, event: np.ndarray) -> None:
    """Add pairs of probability (pair,) and event (pair,) bool at (lead, threshold)."""
    found, most = np.floor(probability * PERCENTS[-1] + 0.5).astype(np.intp), len(PERCENTS)
    total.num_pairs[place] += len(probability)
    total.sum_brier[place] += ((probability - event) ** 2).sum()
    total.num_forecast[place] += np.bincount(found, minlength=most)
    total.num_observed[place] += np.bincount(found[event], minlength=most)
    total.sum_probability[place] += np.bincount(found, weights=probability, minlength=most)
