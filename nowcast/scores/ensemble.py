"""Sums of what is known of probabilities: of ensembles, and of exceedance probabilities.

A probability is that of a value at or above a threshold; of an ensemble it is the share of its members there. It is
counted in classes of one percent, centred on 0, 1, … 100 %: whole percents, and the shares of up to 100 members, each
have a class of their own. A deterministic forecast is an ensemble of one. The scores are in probability_scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.scores.exceedance import ExceedanceSums, add_probability, known_pairs, known_parts, require_shape
from nowcast.scores.pixels import THRESHOLDS
from nowcast.scores.sums import Additive, Tally, ratio, summed


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
    require_shape("members", members, observed, mask)
    exceedance = ExceedanceSums.zeros(len(observed), thresholds)
    ensemble = EnsembleSums.zeros(len(observed), most_members=most_members or len(members))
    for lead in range(len(observed)):
        known = known_pairs(members[:, lead], observed[lead], None if mask is None else mask[lead])
        add_members(exceedance, ensemble, lead, members[:, lead], observed[lead], known)
    return Tally({"probabilities": exceedance, "members": ensemble})


def add_members(
    exceedance: ExceedanceSums, ensemble: EnsembleSums, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead of one case: members (member, y, x), observed (y, x), and where both are known."""
    num_pairs, n = int(known.sum()), len(members)
    exceedance.num_cases[lead] = ensemble.num_cases[lead] = num_pairs > 0
    ensemble.num_pairs[lead], ensemble.num_members[lead] = num_pairs, num_pairs * n
    ties = np.zeros((n + 1, n + 1), np.int64)  # (members below, members equal)
    for x, y in known_parts(members, observed, known):
        ties += _add_sorted(ensemble, lead, np.sort(x, axis=0).astype(np.float64), y.astype(np.float64))
        for column, threshold in enumerate(exceedance.thresholds):
            share = np.count_nonzero(x >= threshold, axis=0) / n
            add_probability(exceedance, (lead, column), share, y >= threshold)
    _add_ranks(ensemble, lead, ties)


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
