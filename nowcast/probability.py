"""Sums of what is known of probabilities: of ensembles, and of given exceedance probabilities. They add like `Sums`.

A probability is that of a value at or above a threshold; of an ensemble it is the share of its members there. It is
counted in classes of one percent, centred on 0, 1, … 100 %: whole percents, and the shares of up to 100 members, each
have a class of their own. A deterministic forecast is an ensemble of one. The scores are in probability_scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from nowcast.metrics import THRESHOLDS

NUM_CLASSES = 101  # of probability
_PAIRS_AT_ONCE = 1 << 15  # bounds the memory beside the members themselves
# how many axes an array has from the lead on: (lead), (lead, threshold or rank), (lead, threshold, class)
_AXES = {
    **dict.fromkeys(("num_cases", "num_pairs", "num_ranked", "num_tied"), 1),
    **dict.fromkeys(("sum_crps_ecdf", "sum_crps_fair", "sum_variance", "sum_mean_sq_error"), 1),
    **dict.fromkeys(("ranks", "sum_brier"), 2),
    **dict.fromkeys(("num_forecast", "num_observed", "sum_probability"), 3),
}
_COUNTS = ("num_cases", "num_pairs", "num_ranked", "num_tied", "num_forecast", "num_observed")


@dataclass(frozen=True, eq=False)
class ProbabilitySums:
    """Everything the scores of probabilities need. `a + b` is the sums of both sets of cases.

    num_members: of the ensemble; 0 for exceedance probabilities, which have no member to rank. A threshold that a
    forecast gives no probability for has no pair in `num_forecast`.
    """

    thresholds: tuple[float, ...]
    num_members: int
    num_cases: np.ndarray  # int64 (lead,): with at least one pair
    num_pairs: np.ndarray  # int64 (lead,)
    num_ranked: np.ndarray  # int64 (lead,): the pairs with members, all or none
    num_tied: np.ndarray  # int64 (lead,): those whose members all equal the observation
    sum_crps_ecdf: np.ndarray  # float64 (lead,)
    sum_crps_fair: np.ndarray  # float64 (lead,)
    sum_variance: np.ndarray  # float64 (lead,): unbiased, of n members, times (n + 1) / n
    sum_mean_sq_error: np.ndarray  # float64 (lead,): of the mean of the members
    ranks: np.ndarray  # float64 (lead, num_members + 1): ties are shared out
    sum_brier: np.ndarray  # float64 (lead, threshold)
    num_forecast: np.ndarray  # int64 (lead, threshold, class)
    num_observed: np.ndarray  # int64 (lead, threshold, class): events among them
    sum_probability: np.ndarray  # float64 (lead, threshold, class)

    @classmethod
    def zeros(cls, num_leads: int, thresholds: Sequence[float] = THRESHOLDS, *, num_members: int) -> "ProbabilitySums":
        """The sums of no case at all."""
        ends = {1: (), 2: (len(thresholds),), 3: (len(thresholds), NUM_CLASSES)}
        shapes = {name: (num_leads, *ends[axes]) for name, axes in _AXES.items()} | {"ranks": (num_leads, num_members + 1)}
        kinds = {name: np.int64 if name in _COUNTS else np.float64 for name in shapes}
        arrays = {name: np.zeros(shape, kinds[name]) for name, shape in shapes.items()}
        return cls(tuple(map(float, thresholds)), num_members, **arrays)

    @classmethod
    def of_leads(cls, parts: Sequence["ProbabilitySums"]) -> "ProbabilitySums":
        """One after the other in lead time: the leads of a case may be read and counted one by one."""
        arrays = [part.arrays() for part in parts]
        return parts[0].like({name: np.concatenate([part[name] for part in arrays]) for name in _AXES})

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name, for files and for reduction over processes; `like` restores."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name in _AXES}

    def like(self, arrays: dict[str, np.ndarray]) -> "ProbabilitySums":
        """These thresholds and members with other arrays."""
        return replace(self, **arrays)

    def __add__(self, other: "ProbabilitySums") -> "ProbabilitySums":
        if not isinstance(other, ProbabilitySums):
            return NotImplemented
        _require_alike(self, other)
        theirs = other.arrays()
        return self.like({name: array + theirs[name] for name, array in self.arrays().items()})

    def __radd__(self, other: int) -> "ProbabilitySums":
        return self if other == 0 else NotImplemented  # so that sum([...]) works

    def pooled(self) -> "ProbabilitySums":
        """The sums over all leads as one lead: scores of it are pooled over leads, not means over leads."""
        return self.like({name: array.sum(axis=-_AXES[name], keepdims=True) for name, array in self.arrays().items()})


def _require_alike(a: ProbabilitySums, b: ProbabilitySums) -> None:
    if (a.thresholds, a.num_members, a.num_pairs.shape) != (b.thresholds, b.num_members, b.num_pairs.shape):
        raise ValueError(
            f"sums of {a.num_pairs.shape} leads and {a.num_members} members at thresholds {a.thresholds} do not add to "
            f"sums of {b.num_pairs.shape} leads and {b.num_members} members at thresholds {b.thresholds}"
        )


def ensemble_sums(
    members: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> ProbabilitySums:
    """The sums of one case of an ensemble: members (member, lead, y, x), observed and mask (lead, y, x), in mm/h.

    A pair counts where the mask (default: everywhere) is True and neither the observation nor any member is NaN: an
    ensemble that lacks a member is another ensemble. The order of the members does not matter.
    """
    members, observed = np.asarray(members), np.asarray(observed)
    _require_shape("members", members, observed, mask)
    total = ProbabilitySums.zeros(len(observed), thresholds, num_members=len(members))
    for lead in range(len(observed)):
        known = _known(members[:, lead], observed[lead], None if mask is None else mask[lead])
        _start_lead(total, lead, int(known.sum()))
        total.num_ranked[lead] = total.num_pairs[lead]
        ties = np.zeros((len(members) + 1,) * 2, np.int64)  # (members below, members equal)
        for x, y in _parts(members[:, lead], observed[lead], known):
            ties += _add_members(total, lead, np.sort(x, axis=0).astype(np.float64), y.astype(np.float64))
            for column, threshold in enumerate(total.thresholds):
                share = np.count_nonzero(x >= threshold, axis=0) / len(x)
                _add_probabilities(total, (lead, column), share, y >= threshold)
        _add_ranks(total, lead, ties)
    return total


def exceedance_sums(
    probabilities: np.ndarray,
    observed: np.ndarray,
    mask: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    columns: Sequence[int] | None = None,
) -> ProbabilitySums:
    """The sums of one case of probabilities 0 to 1, (threshold, lead, y, x), of an observation at or above a threshold.

    `columns` are the places in `thresholds` of those that probabilities are given for (default: all). A pair counts
    where the mask is True and neither the observation nor any of the probabilities is NaN.
    """
    probabilities, observed = np.asarray(probabilities), np.asarray(observed)
    _require_shape("probabilities", probabilities, observed, mask)
    columns = range(len(thresholds)) if columns is None else columns
    total = ProbabilitySums.zeros(len(observed), thresholds, num_members=0)
    for lead in range(len(observed)):
        known = _known(probabilities[:, lead], observed[lead], None if mask is None else mask[lead])
        _start_lead(total, lead, int(known.sum()))
        for p, y in _parts(probabilities[:, lead], observed[lead], known):
            for given, column in zip(p, columns, strict=True):
                _add_probabilities(total, (lead, column), given.astype(np.float64), y >= total.thresholds[column])
    return total


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


def _start_lead(total: ProbabilitySums, lead: int, num_pairs: int) -> None:
    total.num_pairs[lead] = num_pairs
    total.num_cases[lead] = num_pairs > 0


def _parts(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(member or threshold, pair) and (pair,) of the known pixels, a few at a time."""
    known, observed, forecast = np.flatnonzero(known), observed.ravel(), forecast.reshape(len(forecast), -1)
    for first in range(0, len(known), _PAIRS_AT_ONCE):
        chosen = known[first : first + _PAIRS_AT_ONCE]
        yield forecast[:, chosen], observed[chosen]


def _add_members(total: ProbabilitySums, lead: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add what is counted of members x (member, pair), sorted, beside y (pair,); returns how many pairs have which ties."""
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
    total.num_tied[lead] += np.count_nonzero(equal == n)
    return np.bincount(below * (n + 1) + equal, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)


def _add_ranks(total: ProbabilitySums, lead: int, ties: np.ndarray) -> None:
    """An observation above b members and equal to e of them has each of the ranks b … b + e in equal shares."""
    for below, equal in np.argwhere(ties):
        total.ranks[lead, below : below + equal + 1] += ties[below, equal] / (equal + 1)


def _add_probabilities(total: ProbabilitySums, place: tuple[int, int], probability: np.ndarray, event: np.ndarray) -> None:
    """Add pairs of probability (pair,) and event (pair,) bool at (lead, threshold)."""
    found = np.floor(probability * (NUM_CLASSES - 1) + 0.5).astype(np.intp)
    total.sum_brier[place] += ((probability - event) ** 2).sum()
    total.num_forecast[place] += np.bincount(found, minlength=NUM_CLASSES)
    total.num_observed[place] += np.bincount(found[event], minlength=NUM_CLASSES)
    total.sum_probability[place] += np.bincount(found, weights=probability, minlength=NUM_CLASSES)
