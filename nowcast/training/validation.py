"""Validation: the loss and the scores, in mm/h, of a network on fixed cases while it trains."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nowcast.dataset.batches import Batch, Batches
from nowcast.errors import DataError
from nowcast.models.losses import Loss
from nowcast.models.model import NO_START, Block, Model
from nowcast.models.transform import Transform, network_input, split_missing
from nowcast.runtime import distributed
from nowcast.runtime.device import arithmetic
from nowcast.scores.pixels import Sums, csi, mae
from nowcast.training.baselines import Baselines, pixel_sums

MOST_BYTES = 1 << 28  # memory for validation batches
NETWORK = "network"


@dataclass(frozen=True)
class Scores:
    """Scores of one forecaster on the validation cases, pooled over cases and lead times.

    csi: threshold (mm/h) -> critical success index
    mae: mean absolute error, mm/h
    """

    csi: dict[float, float]
    mae: float

    @classmethod
    def from_sums(cls, pooled: Sums) -> "Scores":
        """Compute the scores from sums that are pooled over cases and lead times."""
        return cls(dict(zip(pooled.thresholds, csi(pooled)[0].tolist(), strict=True)), float(mae(pooled)[0]))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scores":
        """Return the scores of an `as_dict`. Raises KeyError, TypeError, ValueError or AttributeError where one is missing."""
        csi = {float(threshold): _or_nan(value) for threshold, value in values["csi"].items()}
        return cls(csi, _or_nan(values["mae"]))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: thresholds as text, undefined scores as null."""
        return {"csi": {f"{t:g}": _finite(value) for t, value in self.csi.items()}, "mae": _finite(self.mae)}


@dataclass(frozen=True)
class Validation:
    """The loss as in training over all cases, the scores of the network, and those of each baseline by name."""

    loss: float
    network: Scores
    baselines: dict[str, Scores]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; the scores of a baseline begin with its name, as in `persistence_csi`."""
        baselines = {f"{name}_{key}": value for name, of in self.baselines.items() for key, value in of.as_dict().items()}
        return {"loss": self.loss, **self.network.as_dict(), **baselines}

    def summary(self, start: Mapping[str, Scores]) -> str:
        """Return `validation loss 0.021, CSI at 1: 0.52 (untrained 0.45, extrapolation 0.47), MAE 0.41 (…)`, for example.

        start: the scores of the weights that the training began with, by their name; may be empty
        """
        others, parts = {**start, **self.baselines}, []
        for threshold, value in self.network.csi.items():
            if threshold == 1 or len(self.network.csi) == 1:
                beside = _beside({name: of.csi.get(threshold, math.nan) for name, of in others.items()})
                parts.append(f"CSI at {threshold:g}: {value:.3f}{beside}")
        parts.append(f"MAE {self.network.mae:.3f}{_beside({name: of.mae for name, of in others.items()})}")
        return f"validation loss {self.loss:.5g}, {', '.join(parts)}"


def scores_of_start(event: Mapping[str, Any]) -> dict[str, Scores]:
    """Return the scores before the first step, by the name of the weights; empty where `event` does not tell them."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        return {event["weights"]: Scores.from_dict(event)}
    return {}


class Kept:
    """Batches that are read once and then kept in memory, up to `most_bytes`.

    Every validation uses the same batches, and estimating the motion of their cases is slow.
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

    def blocks(self, batch: Batch) -> list[Block]:
        """Return the record and day of each case of a batch."""
        return self.batches.blocks(batch)


def guidance_of(model: Model, batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the argument `guidance` (case, lead, rate, y, x) int8 of a model that takes it; {} for others."""
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
    baselines: Baselines,
    start: Mapping[str, Tensor] = NO_START,
    before_batch: Callable[[], None] = lambda: None,
) -> Validation:
    """Forecast batches 0 to `num_batches` - 1 and score the forecasts beside `baselines`, at their thresholds.

    Each of several processes forecasts its share of the cases; all return the scores of all cases. Afterwards a model that
    forecasts distributions is calibrated on these cases; `start`: calibrated buffers of the checkpoint it started from.
    `before_batch` is called before each batch, and may raise to end the validation.
    Raises DataError (exit 3) if nothing was observed in any of them: their loss would be 0, better than any other.
    """
    model.eval()
    loss_sums = torch.zeros(2, num_batches)  # of errors, and count of pixels, so that cases count by their known pixels
    totals: dict[str, list[Sums]] = {}  # by forecaster, per batch
    calibration = model.calibration(transform, baselines.thresholds, start=start)
    for k in range(num_batches):
        before_batch()
        batch = batches[k]
        past, outputs = _outputs(model, batch, transform, device, precision)
        observed, validity = split_missing(batch.future.to(device))
        loss_sums[:, k] = torch.stack(loss.sum_and_count(model.loss_input(outputs), observed, validity, transform)).cpu()
        calibration.count(outputs, observed, validity, batches.blocks(batch))
        forecast = transform.decode(model.values(outputs, past)).cpu().numpy()
        known, beside = baselines.score(k, batch)
        own = pixel_sums(forecast, batch.future.numpy(), known, baselines.thresholds)
        for name, of_batch in {NETWORK: own, **beside}.items():
            totals.setdefault(name, []).append(of_batch)
    model.train()
    mean, scores = _mean_loss(_sum_over_processes(loss_sums)), _scores(totals)
    calibration.apply(distributed.gather)
    return Validation(mean, scores.pop(NETWORK), scores)


def _outputs(
    model: Model, batch: Batch, transform: Transform, device: torch.device, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the input of a network, (case, time, 2, y, x), and its outputs (case, lead, …)."""
    with arithmetic(device, precision):
        past = network_input(batch.past.to(device), transform)
        return past, model(past, batch.future.shape[1], **guidance_of(model, batch, device))


def _mean_loss(sums: Tensor) -> float:
    """Return the mean of (sum of errors, count of pixels) (2, batch). Raises DataError (exit 3) for a count of 0."""
    errors, count = sums.sum(dim=1).tolist()
    if not count:
        raise DataError(
            "no validation case has a known cell in its future.\nExpected observations: choose other days or records."
        )
    return errors / count


def _scores(totals: Mapping[str, list[Sums]]) -> dict[str, Scores]:
    """Compute the scores of each forecaster from the sums of all batches in all processes."""
    gathered = distributed.gather({name: sum(of_batches) for name, of_batches in totals.items()})
    return {name: Scores.from_sums(sum(of_process[name] for of_process in gathered).pooled()) for name in totals}


def _sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    return sum(distributed.gather(values))


def _beside(values: Mapping[str, float]) -> str:
    """Return, for example, ` (untrained 0.450, persistence 0.440)`; nothing without values."""
    listed = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f" ({listed})" if listed else ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
