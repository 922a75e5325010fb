"""How good the network is while it trains: the loss and the scores in mm/h on fixed validation cases."""

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
from nowcast.scores.pixels import THRESHOLDS, csi, mae, sums

MOST_BYTES = 1 << 28  # of validation batches that are kept


@dataclass(frozen=True)
class Validation:
    """`loss` as in training; CSI (pooled over cases and leads) of the network and of persistence by threshold; MAE in mm/h."""

    loss: float
    csi: dict[float, float]
    persistence_csi: dict[float, float]
    mae: float
    persistence_mae: float

    def as_dict(self) -> dict:
        """As JSON values: thresholds become text, undefined scores null."""
        csi = {f"{t:g}": _finite(value) for t, value in self.csi.items()}
        persistence_csi = {f"{t:g}": _finite(value) for t, value in self.persistence_csi.items()}
        maes = {"mae": _finite(self.mae), "persistence_mae": _finite(self.persistence_mae)}
        return {"loss": self.loss, "csi": csi, "persistence_csi": persistence_csi, **maes}


class Kept:
    """Batches that are read once and kept, up to MOST_BYTES: every validation takes the same, and to find motion is slow."""

    def __init__(self, batches: Batches):
        self.batches, self.num_bytes = batches, 0
        self.kept: dict[int, Batch] = {}

    def __getitem__(self, k: int) -> Batch:
        if k in self.kept:
            return self.kept[k]
        batch = self.batches[k]
        num_bytes = batch.past.nbytes + batch.future.nbytes
        if self.num_bytes + num_bytes <= MOST_BYTES:
            self.kept[k], self.num_bytes = batch, self.num_bytes + num_bytes
        return batch


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
    """Forecast batches 0 to `num_batches` - 1, always the same cases, and score them beside persistence.

    Several processes forecast their shares, and all get the scores of the whole. A model that forecasts a distribution is
    calibrated on these cases afterwards.
    """
    model.eval()
    parts, network, persistence = torch.zeros(2, num_batches), [], []
    calibration = model.calibration(transform, thresholds)
    for k in range(num_batches):
        batch = batches[k]
        num_leads = batch.future.shape[1]
        with arithmetic(device, precision):
            past = network_input(batch.past.to(device), transform)
            outputs = model(past, num_leads)
        observed, validity = split_missing(batch.future.to(device))
        parts[:, k] = torch.stack(loss.parts(model.loss_input(outputs), observed, validity, transform)).cpu()
        calibration.count(outputs, observed, validity)
        forecast, observed = transform.decode(model.values(outputs, past)).cpu().numpy(), batch.future.numpy()
        last = np.repeat(batch.past.numpy()[:, -1:], num_leads, axis=1)
        known = np.isfinite(observed) & np.isfinite(last)
        for case in range(len(observed)):
            network.append(sums(forecast[case], observed[case], known[case], thresholds))
            persistence.append(sums(last[case], observed[case], known[case], thresholds))
    model.train()
    (losses, counts), found = _of_all(parts), distributed.gather((sum(network), sum(persistence)))
    network, persistence = (sum(part).pooled() for part in zip(*found, strict=True))
    calibration.apply(_of_all)
    return Validation(
        loss=float((losses / at_least_one(counts)).mean()),
        csi=dict(zip(thresholds, csi(network)[0].tolist(), strict=True)),
        persistence_csi=dict(zip(thresholds, csi(persistence)[0].tolist(), strict=True)),
        mae=float(mae(network)[0]),
        persistence_mae=float(mae(persistence)[0]),
    )


def _of_all(parts: torch.Tensor) -> torch.Tensor:
    return sum(distributed.gather(parts))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
