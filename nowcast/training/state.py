"""TrainingState: the state of a training besides the weights; decides on best checkpoints, plateaus and early stopping."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingState:
    """Counters and losses of a training, saved in `last.safetensors` as JSON. A "cut" lowers the learning rate."""

    step: int = 0
    validated_step: int = -1  # -1: not even the weights before the first step
    best_loss: float = math.inf
    best_step: int = 0
    validations_since_best: int = 0
    plateau_loss: float = math.inf
    validations_since_cut: int = 0
    num_plateaus: int = 0
    loss_sum: float = 0.0  # of the losses of all steps since the last validation
    num_losses: int = 0

    def as_dict(self) -> dict[str, int | float | None]:
        """Return JSON values; a loss that is not known yet is null."""
        return {key: None if value == math.inf else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingState":
        """Return the state of an `as_dict`. Raises TypeError where a value is not a number."""
        if wrong := [key for key, value in values.items() if value is not None and type(value) not in (int, float)]:
            raise TypeError(f"{wrong[0]} is {values[wrong[0]]!r}")
        return cls(**{key: math.inf if value is None else value for key, value in values.items()})

    def add_loss(self, loss: float) -> None:
        """Add the loss of one step to the mean."""
        self.loss_sum, self.num_losses = self.loss_sum + loss, self.num_losses + 1

    def take_mean_loss(self) -> float:
        """Return the mean loss of the steps since the last call, and start a new mean."""
        mean = self.loss_sum / max(self.num_losses, 1)
        self.loss_sum, self.num_losses = 0.0, 0
        return mean

    def judge(self, loss: float, *, patience: int, delta: float) -> bool:
        """Record a validation loss; return whether it is the best so far.

        After `patience` validations without an improvement by more than `delta`, a plateau is counted, as in Keras, and the
        schedule "plateau" lowers the learning rate.
        """
        # The weights before the first step can be the best: a network that training makes worse is never kept, and early
        # stopping ends a training that in so many validations has not beaten them. They are no part of a plateau, though:
        # in Keras, and so in the published recipes, the first loss that a plateau is measured from is that of the first epoch.
        if self.step:
            self._count_plateau(loss, patience, delta)
        self.validations_since_best += 1
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.validations_since_best = loss, self.step, 0
        return not self.validations_since_best

    def _count_plateau(self, loss: float, patience: int, delta: float) -> None:
        self.validations_since_cut += 1
        if loss < self.plateau_loss - delta:
            self.plateau_loss, self.validations_since_cut = loss, 0
        elif self.validations_since_cut >= patience:
            self.num_plateaus, self.validations_since_cut = self.num_plateaus + 1, 0
