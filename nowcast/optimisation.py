"""How the weights move: the optimizer, its learning rate as a function of the step, and the average of the weights."""

import math

import torch
from torch import Tensor, nn

from nowcast.config import Training


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer of `[training]`; RMSProp decays its mean square by betas[1], as `decay` in Shi et al. (2015)."""
    parameters = list(model.parameters())
    rate, decay, betas = training.learning_rate, training.weight_decay, tuple(training.betas)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=decay)
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, betas=betas, weight_decay=decay)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=betas[1], weight_decay=decay)
    return torch.optim.SGD(parameters, rate, momentum=betas[0], weight_decay=decay)


def learning_rate(step: int, num_steps: int, training: Training, *, num_plateaus: int = 0) -> float:
    """The rate of update `step` (from 0): a linear warm-up, then constant, half a cosine to 0, or cut at each plateau."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    if training.schedule == "cosine":
        done = (step - training.warmup_steps) / max(num_steps - training.warmup_steps, 1)
        return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    if training.schedule == "plateau":
        return training.learning_rate * training.plateau_factor**num_plateaus
    return training.learning_rate


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
    return {f"{n}.{key}": torch.as_tensor(value) for n, entry in state.items() for key, value in entry.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
