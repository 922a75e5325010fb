"""How the weights move: the optimizer, its learning rate as a function of the step, and the average of the weights."""

import math

import torch
from torch import Tensor, nn

from nowcast.config.schema import Training


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer of `[training]`; RMSProp and Adadelta decay their mean squares by betas[1]."""
    parameters = list(model.parameters())
    fused = parameters[0].device.type == "cuda" or None  # one kernel for all weights; None: torch's choice
    rate, decay, betas = training.learning_rate, training.weight_decay, tuple(training.betas)
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
    """The rate of update `step` (from 0): a linear warm-up to `learning_rate`, then the schedule.

    "constant"; "cosine": half a cosine down to 0; "onecycle" (Smith & Topin 2018, as torch's defaults): a cosine up from
    1/25 over the first 30 % and one down to 1/250,000; "decay": × decay_factor every decay_every steps; "plateau":
    × plateau_factor at each plateau of the validation loss.
    """
    peak = training.learning_rate
    if step < training.warmup_steps:
        return peak * (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(num_steps - training.warmup_steps, 1)
    if training.schedule == "cosine":
        return _cosine(peak, 0.0, done)
    if training.schedule == "onecycle":
        return _cosine(peak / 25, peak, done / 0.3) if done < 0.3 else _cosine(peak, peak / 250_000, (done - 0.3) / 0.7)
    if training.schedule == "decay":
        return peak * training.decay_factor ** (step // training.decay_every)
    if training.schedule == "plateau":
        return peak * training.plateau_factor**num_plateaus
    return peak


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


class Average:
    """The exponential moving average of a model's weights; its decay rises with the step, min(decay, (1+s)/(10+s))."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors `number.key`, for a checkpoint."""
    state = optimizer.state_dict()["state"]
    flat = {f"{n}.{key}": value for n, entry in state.items() for key, value in entry.items() if value is not None}
    return {name: torch.as_tensor(value) for name, value in flat.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
