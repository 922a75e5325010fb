"""Validation: the loss and the scores, in mm/h, of a network on fixed cases while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nowcast.dataset.batches import Batch, Batches
from nowcast.models.losses import Loss, at_least_one
from nowcast.models.model import Model
from nowcast.models.transform import Transform, network_input, split_missing
from nowcast.runtime import distributed
from nowcast.runtime.device import arithmetic
from nowcast.scores.pixels import THRESHOLDS, Sums, csi, mae, sums

MOST_BYTES = 1 << 28  # of the validation batches that are kept in memory


@dataclass(frozen=True)
class Validation:
    """Scores of the network and of persistence on the validation cases.

    loss: as in training
    csi, persistence_csi: threshold (mm/h) -> critical success index, pooled over cases and lead times
    mae, persistence_mae: mean absolute error, mm/h
    """

    loss: float
    csi: dict[float, float]
    persistence_csi: dict[float, float]
    mae: float
    persistence_mae: float

    def as_dict(self) -> dict:
        """Return JSON values: thresholds as text, undefined scores as null."""
        csi = {f"{t:g}": _finite(value) for t, value in self.csi.items()}
        persistence_csi = {f"{t:g}": _finite(value) for t, value in self.persistence_csi.items()}
        maes = {"mae": _finite(self.mae), "persistence_mae": _finite(self.persistence_mae)}
        return {"loss": self.loss, "csi": csi, "persistence_csi": persistence_csi, **maes}

    def summary(self) -> str:
        """Return, for example, `validation loss 0.021, CSI at 1: 0.52 (persistence 0.44), MAE 0.41 (0.52)`."""
        scores = [
            f"CSI at {threshold:g}: {value:.3f} (persistence {self.persistence_csi[threshold]:.3f})"
            for threshold, value in self.csi.items()
            if threshold == 1 or len(self.csi) == 1
        ]
        mae = f"MAE {self.mae:.3f} ({self.persistence_mae:.3f})"
        return f"validation loss {self.loss:.5g}, {', '.join([*scores, mae])}"


class Kept:
    """Batches that are read once and then kept in memory, up to `most_bytes`.

    Every validation uses the same batches, and finding the motion of their cases is slow.
    """

    def __init__(self, batches: Batches, *, most_bytes: int = MOST_BYTES):
        self.batches, self.most_bytes, self.num_bytes = batches, most_bytes, 0
        self.kept: dict[int, Batch] = {}

    def __getitem__(self, k: int) -> Batch:
        if k in self.kept:
            return self.kept[k]
        batch = self.batches[k]
        num_bytes = batch.past.nbytes + batch.future.nbytes
        if self.num_bytes + num_bytes <= self.most_bytes:
            self.kept[k], self.num_bytes = batch, self.num_bytes + num_bytes
        return batch


def guidance_of(model: Model, batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the further argument of a model that takes guidance."""
    return {"guidance": batch.guidance.to(device)} if model.takes_guidance else {}


@torch.no_grad()
def validate(
    model: Model,
    batches: Batches | Kept,
    num_batches: int,
    *,
    transform: Transform,
    loss: Loss,
    device: torch.device,
    precision: torch.dtype,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Validation:
    """Forecast batches 0 to `num_batches` - 1 and score the forecasts beside persistence; thresholds in mm/h.

    Each of several processes forecasts its share of the cases; all return the scores of all cases. Afterwards a model that
    forecasts distributions is calibrated on these cases.
    """
    model.eval()
    loss_sums, network, persistence = (
        torch.zeros(2, num_batches),
        [],
        [],
    )  # loss_sums: (sum of errors, count of pixels) per batch
    calibration = model.calibration(transform, thresholds)
    for k in range(num_batches):
        batch = batches[k]
        with arithmetic(device, precision):
            past = network_input(batch.past.to(device), transform)
            outputs = model(past, batch.future.shape[1], **guidance_of(model, batch, device))
        observed, validity = split_missing(batch.future.to(device))
        loss_sums[:, k] = torch.stack(loss.sum_and_count(model.loss_input(outputs), observed, validity, transform)).cpu()
        calibration.count(outputs, observed, validity)
        forecast = transform.decode(model.values(outputs, past)).cpu().numpy()
        network_sums, persistence_sums = _pixel_sums(forecast, batch, thresholds)
        network += network_sums
        persistence += persistence_sums
    model.train()
    (losses, counts), gathered = _sum_over_processes(loss_sums), distributed.gather((sum(network), sum(persistence)))
    pooled = (sum(sums_of_processes).pooled() for sums_of_processes in zip(*gathered, strict=True))
    calibration.apply(_sum_over_processes)
    return _scores(float((losses / at_least_one(counts)).mean()), *pooled, thresholds)


def _scores(loss: float, network: Sums, persistence: Sums, thresholds: Sequence[float]) -> Validation:
    """Compute the scores from sums over all cases and lead times."""
    return Validation(
        loss=loss,
        csi=dict(zip(thresholds, csi(network)[0].tolist(), strict=True)),
        persistence_csi=dict(zip(thresholds, csi(persistence)[0].tolist(), strict=True)),
        mae=float(mae(network)[0]),
        persistence_mae=float(mae(persistence)[0]),
    )


def _pixel_sums(forecast: np.ndarray, batch: Batch, thresholds: Sequence[float]) -> tuple[list[Sums], list[Sums]]:
    """Return the sums of pixel scores for each case, of the forecast (case, lead, y, x) mm/h and of persistence."""
    observed = batch.future.numpy()
    last = np.repeat(batch.past.numpy()[:, -1:], observed.shape[1], axis=1)
    known = np.isfinite(observed) & np.isfinite(last)
    return _sums_by_case(forecast, observed, known, thresholds), _sums_by_case(last, observed, known, thresholds)


def _sums_by_case(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray, thresholds: Sequence[float]) -> list[Sums]:
    """Return the sums of pixel scores for each case of (case, lead, y, x)."""
    return [sums(*case, thresholds) for case in zip(forecast, observed, known, strict=True)]


def _sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    return sum(distributed.gather(values))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
