"""LOSSES: the functions that training minimises, by name.

A loss compares forecast values (network values) with the observed rain (mm/h) where it is known. It returns a sum and the
count to divide it by, so that parts of a batch add up. Errors are masked before they are squared, so that no value of a
missing pixel, not even inf, reaches the loss or its gradient.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nowcast.config.schema import Many, NamedSection, Number, Section, check, lookup
from nowcast.models.engine.entropy import LinearCrossEntropy, library_for
from nowcast.models.model import Distribution
from nowcast.models.transform import Transform
from nowcast.scores.pixels import BALANCED_THRESHOLDS, BALANCED_WEIGHTS


class Loss(Section):
    """What training minimises; its fields are the keys of `[loss]`. A subclass implements `sum_and_count`."""

    takes_distributions: ClassVar[bool] = False  # whether it takes a `Distribution` instead of forecast values
    takes_guidance: ClassVar[bool] = False  # whether it needs a model with guidance
    takes_shares: ClassVar[bool] = False  # whether it takes forecast values from 0 to 1 only

    def sum_and_count(
        self, forecast: "Tensor | Distribution", observed: Tensor, validity: Tensor, transform: Transform
    ) -> tuple[Tensor, Tensor]:
        """Compute the sum of the errors and the number of pixels that it is to be divided by.

        forecast: (case, time, y, x) network values; or a distribution, whose `log_odds(value)` has that shape
        observed: (case, time, y, x) mm/h, any finite number where missing
        validity: (case, time, y, x) 1 known, 0 missing
        returns: two float32 scalars, which add up over parts of a batch
        """
        raise NotImplementedError


Weight = Annotated[Number, Field(ge=0)]


def _check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise ValueError for thresholds, mm/h, that do not ascend, each above the one before it and the first above 0."""
    if any(upper <= lower for lower, upper in pairwise((0, *thresholds))):
        raise ValueError(f"thresholds must ascend, each above the one before it and the first above 0, not {list(thresholds)}")


def _check_weights(weights: Sequence[float]) -> None:
    """Raise ValueError for weights that are all 0: so would be the loss of every forecast."""
    if not any(weights):
        raise ValueError("weights are all 0: every forecast would have the loss 0")


def at_least_one(count: Tensor) -> Tensor:
    """Return the count, a scalar, but at least 1, so that the loss of a batch without a known pixel is 0 and not 0 / 0."""
    return count.clamp(min=1)


def total(errors: Tensor) -> Tensor:
    """Return the sum of errors (..., y, x), added up field by field.

    torch splits a sum over everything among its threads, so that its last bits would depend on their number.
    """
    return errors.flatten(-2).sum(dim=-1).sum()


def _errors(forecast: Tensor, observed: Tensor, validity: Tensor, transform: Transform) -> Tensor:
    """Return forecast - observed in network values, 0 where missing."""
    return torch.where(validity > 0, forecast.float() - transform.encode(observed), 0.0)


@cache
def _constants(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a cached tensor of constants: creating it in every step would wait for the GPU."""
    return torch.tensor(values, device=device, dtype=dtype)


class MeanSquaredError(Loss):
    """Mean over known pixels of (forecast - observed)² in network values."""

    name: Literal["mse"] = "mse"

    def sum_and_count(self, forecast, observed, validity, transform):
        return total(_errors(forecast, observed, validity, transform).square()), validity.sum()


class MeanAbsoluteError(Loss):
    """Mean over known pixels of |forecast - observed| in network values."""

    name: Literal["mae"] = "mae"

    def sum_and_count(self, forecast, observed, validity, transform):
        return total(_errors(forecast, observed, validity, transform).abs()), validity.sum()


class Balanced(Loss):
    """Squared and absolute errors weighted by the observed rain: B-MSE and B-MAE of Shi et al. (2017), section 4.2.

    The first weight applies below the first threshold, weight k + 1 from threshold k up (by default weights 1, 1, 2, 5, 10, 30
    from 0, 0.5, 2, 5, 10, 30 mm/h). `mse` and `mae` are the factors of the two errors. `space = "values"` takes errors in
    network values, "rain_rate" in mm/h. arXiv 1706.03458.
    """

    name: Literal["balanced"] = "balanced"
    thresholds: Many[Number] = BALANCED_THRESHOLDS  # mm/h
    weights: Many[Weight] = BALANCED_WEIGHTS
    mse: Number = Field(1.0, ge=0)
    mae: Number = Field(1.0, ge=0)
    space: Literal["values", "rain_rate"] = "values"

    @model_validator(mode="after")
    def _match(self) -> "Balanced":
        if len(self.weights) != len(self.thresholds) + 1:
            raise ValueError(f"{len(self.thresholds)} thresholds need {len(self.thresholds) + 1} weights")
        _check_thresholds(self.thresholds)
        _check_weights(self.weights)
        if not (self.mse or self.mae):
            raise ValueError("mse and mae are both 0: every forecast would have the loss 0")
        return self

    def sum_and_count(self, forecast, observed, validity, transform):
        observed = torch.where(validity > 0, observed, 0.0)
        bounds = _constants(self.thresholds, observed.device, observed.dtype)
        # right=True: a rate equal to a threshold counts as above it
        level = torch.bucketize(observed, bounds, right=True)
        weight = _constants(self.weights, observed.device, torch.float32)[level]
        if self.space == "values":
            error = _errors(forecast, observed, validity, transform)
        else:
            error = torch.where(validity > 0, transform.decode(forecast.float()) - observed, 0.0)
        return total(weight * (self.mse * error.square() + self.mae * error.abs())), validity.sum()


class BinaryCrossEntropy(Loss):
    """Binary cross entropy -o ln f - (1 - o) ln(1 - f), in nats, of outputs f in (0, 1) and observed network values o.

    `reduction = "mean"` averages over known pixels; "sum" adds up pixels and frames and averages over cases, as in the tables
    of Shi et al. (2015), arXiv 1506.04214.
    """

    takes_shares: ClassVar[bool] = True
    name: Literal["bce"] = "bce"
    reduction: Literal["mean", "sum"] = "mean"

    def sum_and_count(self, forecast, observed, validity, transform):
        target = transform.encode(torch.where(validity > 0, observed, 0.0)).clamp(0, 1)
        forecast = torch.where(validity > 0, forecast.float(), target)
        entropy = torch.nn.functional.binary_cross_entropy(forecast, target, weight=validity, reduction="sum")
        return entropy, validity.new_full((), len(forecast)) if self.reduction == "sum" else validity.sum()


class Exceedance(Loss):
    """Cross entropy, in nats, of the forecast probabilities of reaching each threshold, added up with weights.

    A proper score, so blurring the forecast does not lower it. For models that forecast a distribution. Cells without a
    forecast, because a model that takes guidance has none there, count as missing.
    """

    takes_distributions: ClassVar[bool] = True
    name: Literal["exceedance"] = "exceedance"
    thresholds: Many[Number] = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # mm/h
    weights: Many[Weight] = (0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0)

    @model_validator(mode="after")
    def _match(self) -> "Exceedance":
        if len(self.weights) != len(self.thresholds) or not self.thresholds:
            raise ValueError(f"{len(self.thresholds)} thresholds need as many weights, and at least one")
        _check_thresholds(self.thresholds)
        _check_weights(self.weights)
        return self

    def sum_and_count(self, forecast, observed, validity, transform):
        known = validity.bool()
        if forecast.model.takes_guidance:  # the only models that leave out cells, which takes a pass over memory to find
            known = known & forecast.known
        entropy = weighted_entropy(forecast, observed, known, transform, self.thresholds, self.weights)
        return entropy, known.count_nonzero().float()


class RelativeExceedance(Loss):
    """Mean over thresholds of the cross entropy of the forecast probabilities, divided by that of the guidance.

    1 is no better than the guidance (models/guided), .9 a tenth better. For models that take guidance. Cells without guidance
    count as missing.
    """

    takes_distributions: ClassVar[bool] = True
    takes_guidance: ClassVar[bool] = True
    name: Literal["relative_exceedance"] = "relative_exceedance"
    thresholds: Many[Number] = Field((0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0), min_length=1)  # mm/h

    @model_validator(mode="after")
    def _ascend(self) -> "RelativeExceedance":
        _check_thresholds(self.thresholds)
        return self

    def sum_and_count(self, forecast, observed, validity, transform):
        values, known = _encoded(self.thresholds, transform), validity.bool() & forecast.known
        reference = torch.stack([forecast.reference_entropy(value) for value in values])
        weights = 1 / (reference * len(values))
        return weighted_entropy(forecast, observed, known, transform, self.thresholds, weights), known.count_nonzero().float()


def _encoded(thresholds: Sequence[float], transform: Transform) -> list[float]:
    return [float(transform.encode(torch.tensor(threshold))) for threshold in thresholds]


def weighted_entropy(
    forecast: Distribution, observed: Tensor, known: Tensor, transform: Transform, thresholds: Sequence[float],
    weights: Sequence[float] | Tensor,
) -> Tensor:  # fmt: skip
    """Return the cross entropy of reaching each threshold, summed over the known cells and, with weights, over thresholds.

    observed: (case, lead, y, x) mm/h
    known: (case, lead, y, x) bool
    thresholds: mm/h
    weights: (threshold)
    returns: a scalar
    """
    values = _encoded(thresholds, transform)
    coefficients, library = forecast.coefficients(values), library_for(forecast.outputs)
    if coefficients and library:
        return LinearCrossEntropy.apply(forecast.outputs, observed, known, coefficients, thresholds, weights, library)
    entropies = torch.zeros((), device=observed.device)
    for value, threshold, weight in zip(values, thresholds, weights, strict=True):
        entropies = entropies + weight * CrossEntropy.apply(forecast.log_odds(value), observed >= threshold, known)
    return entropies


class CrossEntropy(torch.autograd.Function):
    """Sum of the cross entropy of log-odds, with its gradient computed in the same pass over the cells."""

    @staticmethod
    def forward(ctx, odds: Tensor, reached: Tensor, known: Tensor) -> Tensor:
        """Sum ln(1 + exp(z)), or ln(1 + exp(-z)) where the event is observed, over the known cells.

        odds, reached, known: of one shape (..., y, x)
        returns: a scalar
        """
        sign = 1.0 - 2.0 * reached
        signed = (odds * sign).masked_fill_(~known, -torch.inf)
        ctx.save_for_backward(torch.sigmoid(signed).mul_(sign))
        return total(torch.nn.functional.softplus(signed))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (saved,) = ctx.saved_tensors
        return saved * gradient, None, None


LOSSES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "balanced": Balanced,
    "bce": BinaryCrossEntropy,
    "exceedance": Exceedance,
    "relative_exceedance": RelativeExceedance,
}


def make_loss(section: NamedSection) -> Loss:
    """Return the loss that the config's `[loss]` describes; UsageError (exit 2) for an unknown name or key."""
    kind = lookup(LOSSES, section.name, where="loss.name")
    return check(kind, section.model_dump(), where="loss")
