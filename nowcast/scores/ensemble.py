"""Scores of ensembles, and the sums they are computed from: CRPS, spread, spread-skill ratio, rank histogram.

A deterministic forecast is an ensemble of one member. An undefined score (0/0) is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.scores.exceedance import ExceedanceSums, add_probability, known_chunks
from nowcast.scores.sums import Additive, ratio, summed


@dataclass(frozen=True, eq=False)
class EnsembleSums(Additive):
    """Sums over pairs of an ensemble's members and an observation, by lead time and by rank of the observation.

    All forecasters of an evaluation have the ranks 0 … n of its largest ensemble; smaller ensembles use the first of them.
    """

    axis_parameters: ClassVar[Mapping[str, str]] = {"rank": "ranks"}

    ranks: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_members: np.ndarray = field(metadata=summed("lead", dtype=np.int64))  # members times pairs
    num_tied: np.ndarray = field(metadata=summed("lead", dtype=np.int64))  # pairs whose members all equal the observation
    sum_crps_ecdf: np.ndarray = field(metadata=summed("lead"))
    sum_crps_fair: np.ndarray = field(metadata=summed("lead"))
    sum_variance: np.ndarray = field(metadata=summed("lead"))  # unbiased variance of n members, times (n + 1) / n
    sum_mean_sq_error: np.ndarray = field(metadata=summed("lead"))  # of the ensemble mean
    num_ranked: np.ndarray = field(metadata=summed("lead", "rank"))  # a tie counts in equal shares in its ranks
    num_tied_ranked: np.ndarray = field(metadata=summed("lead", "rank"))  # the share of num_ranked from num_tied

    @classmethod
    def zeros(cls, num_leads: int, *, most_members: int) -> "EnsembleSums":
        """Return sums over no cases: all arrays zero."""
        return cls.empty(num_leads, ranks=tuple(range(most_members + 1)))


def add_members(
    exceedance: ExceedanceSums, ensemble: EnsembleSums, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead time of one case.

    exceedance, ensemble: the sums to fill in
    members: (member, y, x) mm/h
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count

    The exceedance probability of each threshold is the fraction of the members at or above it.
    """
    num_pairs, n = int(known.sum()), len(members)
    exceedance.num_cases[lead] = ensemble.num_cases[lead] = num_pairs > 0
    ensemble.num_pairs[lead], ensemble.num_members[lead] = num_pairs, num_pairs * n
    ties = np.zeros((n + 1, n + 1), np.int64)  # (members below, members equal)
    for x, y in known_chunks(members, observed, known):
        ties += _add_sorted(ensemble, lead, np.sort(x, axis=0).astype(np.float64), y.astype(np.float64))
        for column, threshold in enumerate(exceedance.thresholds):
            probability = np.count_nonzero(x >= threshold, axis=0) / n
            add_probability(exceedance, (lead, column), probability, y >= threshold)
    _add_ranks(ensemble, lead, ties)


def _add_sorted(total: EnsembleSums, lead: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add pairs of sorted members and observations; return how many pairs have which ties.

    x: members (member, pair), sorted along the first axis
    y: observations (pair,)
    returns: (members below y, members equal to y) number of pairs
    """
    n = len(x)
    error = np.abs(x - y).mean(axis=0)
    # half the sum of |x_i - x_j| over all i and j, in closed form because x is sorted: Hersbach (2000)
    half_differences = np.tensordot(2.0 * np.arange(n) - (n - 1), x, axes=1)
    total.sum_crps_ecdf[lead] += (error - half_differences / n**2).sum()
    total.sum_crps_fair[lead] += (error - half_differences / (n * max(n - 1, 1))).sum()
    total.sum_mean_sq_error[lead] += ((x.mean(axis=0) - y) ** 2).sum()
    if n > 1:
        total.sum_variance[lead] += (n + 1) / n * x.var(axis=0, ddof=1).sum()
    below, equal = np.count_nonzero(x < y, axis=0), np.count_nonzero(x == y, axis=0)
    return np.bincount(below * (n + 1) + equal, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)


def _add_ranks(total: EnsembleSums, lead: int, ties: np.ndarray) -> None:
    """Count ranks: an observation above b members and equal to e of them counts in equal shares in the ranks b … b + e."""
    for below, equal in np.argwhere(ties):
        total.num_ranked[lead, below : below + equal + 1] += ties[below, equal] / (equal + 1)
    total.num_tied[lead] = ties[0, -1]
    total.num_tied_ranked[lead, : len(ties)] = ties[0, -1] / len(ties)


def crps_ecdf(s: EnsembleSums) -> np.ndarray:
    """Compute the continuous ranked probability score, CRPS (lead,), mm/h: mean of E|x - y| - E|x - x'| / 2.

    Range 0 to infinity, best 0. x and x' are members, y the observation. The means E are over all n members and all n^2 pairs
    of members: the CRPS of the ensemble's empirical distribution, which penalises small ensembles. For one member it is the
    MAE. NaN without members. Hersbach (2000).
    """
    return ratio(s.sum_crps_ecdf, s.num_pairs)


def crps_fair(s: EnsembleSums) -> np.ndarray:
    """Compute the fair CRPS (lead,), mm/h: as `crps_ecdf`, but E|x - x'| is over the n (n - 1) pairs of different members.

    Range all numbers, best 0. An estimate of the CRPS of an infinitely large ensemble of the same kind; for a single case it
    can be negative. For one member it is the MAE here (some packages return NaN). NaN without members. Ferro (2014).
    """
    return ratio(s.sum_crps_fair, s.num_pairs)


def spread(s: EnsembleSums) -> np.ndarray:
    """Compute the ensemble spread (lead,), mm/h: root of the mean of (n + 1) / n times the unbiased variance of n members.

    Range 0 to infinity, no best value. With the factor (n + 1) / n, the spread of a reliable ensemble equals the RMSE of its
    mean, see `spread_skill`. For one member it is 0. NaN without members. Fortin et al. (2014).
    """
    return np.sqrt(ratio(s.sum_variance, s.num_pairs))


def mean_rmse(s: EnsembleSums) -> np.ndarray:
    """Compute the RMSE of the ensemble mean (lead,), mm/h: root of the mean of (x mean - y)^2. Range 0 to infinity, best 0.

    For one member it is the RMSE. NaN without members. Wilks (2019), ch. 9.
    """
    return np.sqrt(ratio(s.sum_mean_sq_error, s.num_pairs))


def spread_skill(s: EnsembleSums) -> np.ndarray:
    """Compute the spread-skill ratio (lead,): spread / RMSE of the ensemble mean. Range 0 to infinity, best 1.

    Below 1 the ensemble is underdispersive (overconfident), above 1 overdispersive. Also called: spread-error ratio. For one
    member it is 0. NaN without members, and where the ensemble mean has no error. Fortin et al. (2014).
    """
    return ratio(spread(s), mean_rmse(s))


def rank_histogram(s: EnsembleSums, *, tied: bool = True) -> np.ndarray:
    """Compute the rank histogram: the fractions of pairs whose observation is above 0, 1, … n members.

    returns: (lead, rank) 0 to 1

    Flat for a reliable ensemble. Also called: Talagrand diagram. An observation equal to e members counts in equal shares in
    e + 1 ranks, instead of in a random one of them. With `tied=False`, pairs whose members all equal the observation are left
    out: most are dry in all members, and they only flatten the histogram. NaN without pairs, and for ranks that the ensemble
    does not have. Hamill (2001).
    """
    ranked = s.num_ranked if tied else s.num_ranked - s.num_tied_ranked
    num_pairs = s.num_pairs if tied else s.num_pairs - s.num_tied
    fractions = ratio(ranked, np.broadcast_to(num_pairs[..., None], ranked.shape))
    return np.where(np.array(s.ranks) <= ensemble_size(s)[..., None], fractions, np.nan)


def ensemble_size(s: EnsembleSums) -> np.ndarray:
    """Return the number of members (lead,), NaN without pairs."""
    return ratio(s.num_members, s.num_pairs)
