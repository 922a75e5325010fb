"""Score baselines in a validation, on the same pixels as the network.

The cases of a validation are always the same, so each batch is scored once: estimating the motion of a case takes far longer
than reading it.
"""

from collections.abc import Sequence

import numpy as np

from nowcast.config.schema import Data
from nowcast.dataset.batches import Batch
from nowcast.forecasters.baselines import Extrapolation, Persistence
from nowcast.quantity import Quantity
from nowcast.scores.pixels import Sums, sums

MOST_BYTES = 1 << 28  # memory for masks of batches


class Baselines:
    """The baselines of a validation: the newest frame repeated and, if `extrapolates`, the one moved along its motion.

    thresholds: of events, mm/h
    repeated: name of the baseline that repeats the newest frame
    most_bytes: memory for masks; batches beyond it are scored again in each validation
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

        In Lagrangian coordinates repeating the newest frame is extrapolation, and there is no persistence. On the grid,
        extrapolation is computed only for rain, for which the motion constants were chosen.
        """
        has_motion = data.input_frames >= Extrapolation.input_frames
        if data.coordinates == "lagrangian" and has_motion:
            return cls(quantity.thresholds, repeated=Extrapolation.name)
        return cls(quantity.thresholds, extrapolates=quantity.is_rain and has_motion)

    def score(self, k: int, batch: Batch) -> tuple[np.ndarray, dict[str, Sums]]:
        """Return the pixels of batch `k` that count, and the sums of each baseline over them, by name.

        A pixel counts if it was observed and every baseline has a value there: extrapolation has none for air from outside
        the crop.

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
