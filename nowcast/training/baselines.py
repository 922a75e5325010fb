"""Baselines that a validation scores beside the network, on the same pixels.

The cases of a validation are always the same, so each batch is scored once. Finding the motion of a case takes far longer than
reading it.
"""

from collections.abc import Sequence

import numpy as np

from nowcast.config.schema import Data
from nowcast.dataset.batches import Batch
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.quantity import Quantity
from nowcast.scores.pixels import Sums, sums

MOST_BYTES = 1 << 28  # of the masks that are kept in memory


class Baselines:
    """The baselines of a validation: the newest frame repeated and, if `extrapolates`, the one moved along its motion.

    thresholds: of the events, mm/h
    repeated: the name of the newest frame, repeated
    most_bytes: of the masks that are kept; batches beyond are scored anew in each validation
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        *,
        repeated: str = Persistence.name,
        extrapolates: bool = False,
        most_bytes: int = MOST_BYTES,
    ):
        self.thresholds, self.repeated, self.most_bytes, self.num_bytes = tuple(thresholds), repeated, most_bytes, 0
        self.extrapolation = Extrapolation() if extrapolates else None
        self.kept: dict[int, tuple[np.ndarray, dict[str, Sums]]] = {}

    @classmethod
    def suited_to(cls, data: Data, quantity: Quantity) -> "Baselines":
        """Return the baselines for this section `[data]` and quantity.

        In Lagrangian coordinates the newest frame, standing still, is the extrapolation, and persistence cannot be told from
        it. On the grid, extrapolation is found for rain alone: the constants of the motion are those of rain.
        """
        has_motion = data.input_frames >= Extrapolation.input_frames
        if data.coordinates == "lagrangian" and has_motion:
            return cls(quantity.thresholds, repeated=Extrapolation.name)
        return cls(quantity.thresholds, extrapolates=quantity.is_rain and has_motion)

    def score(self, k: int, batch: Batch) -> tuple[np.ndarray, dict[str, Sums]]:
        """Return the pixels of batch `k` that count, and the sums of each baseline over them, by name.

        A pixel counts where it was observed and every baseline knows it: extrapolation does not know what comes into a crop
        from outside.

        returns: (case, lead, y, x) bool, and sums over the cases
        """
        shape = batch.future.shape
        if k in self.kept:
            bits, totals = self.kept[k]
            return np.unpackbits(bits, count=shape.numel()).reshape(shape).view(bool), totals
        known, totals = self._score(batch)
        bits = np.packbits(known)
        if self.num_bytes + bits.nbytes <= self.most_bytes:
            self.kept[k], self.num_bytes = (bits, totals), self.num_bytes + bits.nbytes
        return known, totals

    def _score(self, batch: Batch) -> tuple[np.ndarray, dict[str, Sums]]:
        past, observed = batch.past.numpy(), batch.future.numpy()
        forecasts = {}
        if self.extrapolation:
            forecasts[Extrapolation.name] = self.extrapolation.forecast(past, observed.shape[1])
        forecasts[self.repeated] = np.broadcast_to(past[:, -1:], observed.shape)
        known = np.logical_and.reduce([np.isfinite(fields) for fields in (observed, *forecasts.values())])
        return known, {name: pixel_sums(fields, observed, known, self.thresholds) for name, fields in forecasts.items()}


def pixel_sums(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray, thresholds: Sequence[float]) -> Sums:
    """Return the sums of pixel scores over cases: (case, lead, y, x) mm/h, `known` where pixels count, thresholds in mm/h."""
    return sum(sums(*case, thresholds) for case in zip(forecast, observed, known, strict=True))
