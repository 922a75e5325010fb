"""The class of a score: its function, name, range and units."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nowcast.scores.sums import Additive, Tally


@dataclass(frozen=True)
class Score:
    """One score, called with the sums of its kind or with a Tally; returns an array with the score's axes, "lead" first."""

    function: Callable[[Additive], np.ndarray]
    long_name: str
    range: tuple[float, float]
    best: float | None  # None where no value is best by itself
    axes: tuple[str, ...] = ("lead",)
    units: str = "1"  # as CF writes them
    kind: str = "pairs"  # the kind of sums it is computed from: a key of KINDS
    compared: bool = True  # False where differences between forecasters have no meaning

    def __call__(self, s: Additive | Tally) -> np.ndarray:
        return self.function(s[self.kind] if isinstance(s, Tally) else s)

    def pooled(self, s: Additive | Tally) -> np.ndarray:
        """Compute the score (1,) or (1, threshold, …) of the sums over all lead times."""
        return self(s.pooled())

    def mean_over_leads(self, s: Additive | Tally) -> np.ndarray:
        """Compute the mean of the scores of all lead times; NaN if the score of any lead time is NaN.

        returns: () or (threshold, …)

        Not the same as the pooled score.
        """
        return self(s).mean(axis=-len(self.axes))

    @property
    def needs_threshold(self) -> bool:
        """Whether the score depends on a threshold."""
        return "threshold" in self.axes
