"""The CRPS of a forecast distribution: the integral of the Brier score over rates, and the sums it is computed from.

A distribution is known by its exceedance probabilities at RATES. A deterministic forecast is certain of its value, and an
ensemble's probabilities are the fractions of its members, so that all forecasts have the same score, comparable in pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.scores.exceedance import known_chunks
from nowcast.scores.sums import Additive, ratio, summed

RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0)  # mm/h


@dataclass(frozen=True, eq=False)
class RateSums(Additive):
    """Sums of squared errors of exceedance probabilities, by lead time and rate."""

    axis_parameters: ClassVar[Mapping[str, str]] = {"rate": "rates"}

    rates: tuple[float, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    sum_brier: np.ndarray = field(metadata=summed("lead", "rate"))

    @classmethod
    def zeros(cls, num_leads: int, rates: Sequence[float] = RATES) -> "RateSums":
        """Return sums over no cases: all arrays zero."""
        return cls.empty(num_leads, rates=tuple(map(float, rates)))


def add_distribution(total: RateSums, lead: int, exceedance: np.ndarray, observed: np.ndarray, known: np.ndarray) -> None:
    """Fill in one lead time of one case.

    exceedance: (rate, y, x) probabilities of reaching each rate, 0 to 1
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count
    """
    _count(total, lead, known)
    rates = np.array(total.rates)[:, None]
    for probability, values in known_chunks(exceedance, observed, known):
        total.sum_brier[lead] += ((probability - (values >= rates)) ** 2).sum(axis=1, dtype=np.float64)


def add_ensemble(total: RateSums, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray) -> None:
    """Fill in one lead time of one case with the fractions of members (member, y, x), mm/h, that reach each rate."""
    _count(total, lead, known)
    for values_of_members, values in known_chunks(members, observed, known):
        for n, rate in enumerate(total.rates):
            probability = np.count_nonzero(values_of_members >= rate, axis=0) / len(members)
            total.sum_brier[lead, n] += ((probability - (values >= rate)) ** 2).sum()


def _count(total: RateSums, lead: int, known: np.ndarray) -> None:
    total.num_pairs[lead] = np.count_nonzero(known)
    total.num_cases[lead] = total.num_pairs[lead] > 0


def integral_of_brier(brier: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Compute the integral of Brier scores (…, rate) over rates, mm/h, by the trapezoidal rule from rate to rate.

    Below the lowest rate the Brier score is taken to be the lowest one's; above the highest rate nothing is added.
    """
    rates = np.asarray(rates, np.float64)
    edges = np.concatenate([[-rates[0]], rates, [rates[-1]]])
    return (brier * (edges[2:] - edges[:-2]) / 2).sum(axis=-1)


def crps(s: RateSums) -> np.ndarray:
    """Compute the continuous ranked probability score (lead,), mm/h: the integral over rates of the Brier score at each rate.

    Range 0 to infinity, best 0. Of a network that forecasts a distribution it is that of the distribution, of an ensemble that
    of the fractions of its members, and of a deterministic forecast nearly its MAE. The integral is approximated from RATES,
    0.1 to 50 mm/h. NaN without pairs. Hersbach (2000).
    """
    num_pairs = np.broadcast_to(np.asarray(s.num_pairs)[..., None], np.shape(s.sum_brier))
    return integral_of_brier(ratio(s.sum_brier, num_pairs), s.rates)
