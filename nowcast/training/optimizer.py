"""The optimizer, its learning rate as a function of the step, and the moving average of the weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nowcast.config.schema import Training


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer of `[training]`.

    betas[0] is also the momentum of SGD, and betas[1] the decay of the mean squares in RMSProp and Adadelta.
    """
    parameters = list(model.parameters())
    fused = parameters[0].device.type == "cuda" or None  # on a GPU one kernel for all weights; None: torch decides
    rate, decay, betas = training.learning_rate, training.weight_decay, tuple(map(float, training.betas))
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=decay, fused=fused)
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, betas=betas, weight_decay=decay, fused=fused)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=betas[1], weight_decay=decay)
    if training.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, rate, rho=betas[1], weight_decay=decay)
    return torch.optim.SGD(parameters, rate, momentum=betas[0], weight_decay=decay, fused=fused)


def count_steps(training: Training, num_windows: int) -> int:
    """Return the number of steps of a whole training: `training.steps`, or that of `training.epochs` over the windows."""
    steps_per_epoch = math.ceil(num_windows / (training.batch_size * training.accumulate))
    return training.steps or training.epochs * steps_per_epoch


def learning_rate(step: int, num_steps: int, training: Training, *, num_plateaus: int = 0) -> float:
    """Compute the learning rate of update `step` (from 0): a linear warm-up to `training.learning_rate`, then the schedule.

    "constant": unchanged
    "cosine": falls to 0 along half a cosine
    "onecycle": rises from 1/25 of the rate over the first 30 % of the steps, then falls to 1/250,000, both along a cosine
        (Smith & Topin 2018, with torch's defaults)
    "decay": multiplied by decay_factor every decay_every steps
    "plateau": multiplied by plateau_factor at each plateau of the validation loss
    """
    peak = training.learning_rate
    if step < training.warmup_steps:
        return peak * (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(num_steps - training.warmup_steps, 1)
    if training.schedule == "cosine":
        return _cosine(peak, 0.0, progress)
    if training.schedule == "onecycle":
        is_rising = progress < 0.3
        return _cosine(peak / 25, peak, progress / 0.3) if is_rising else _cosine(peak, peak / 250_000, (progress - 0.3) / 0.7)
    if training.schedule == "decay":
        return peak * training.decay_factor ** (step // training.decay_every)
    if training.schedule == "plateau":
        return peak * training.plateau_factor**num_plateaus
    return peak


def _cosine(start: float, end: float, progress: float) -> float:
    """Interpolate along half a cosine; progress from 0 (start) to 1 (end)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


class Average:
    """The exponential moving average of a model's weights. Its decay at step s is min(decay, (1 + s) / (10 + s)).

    Buffers named in `fixed`, which never change, stay as they were when it began: they may be as large as a radar's grid.
    """

    def __init__(self, model: nn.Module, decay: float, *, fixed: Sequence[str] = ()):
        self.decay, self.fixed = decay, fixed
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights of that step; counters and other whole numbers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if name in self.fixed:
                continue
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors `number.key`, where number is that of the parameter, for a checkpoint."""
    state = optimizer.state_dict()["state"]
    flat = {f"{n}.{key}": value for n, entry in state.items() for key, value in entry.items() if value is not None}
    return {name: torch.as_tensor(value) for name, value in flat.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give the optimizer the state that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
