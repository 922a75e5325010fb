"""Learner: a network with its transform, loss and optimizer; it computes one update of the weights.

A Learner knows nothing of records and run folders: it takes batches. Everything random in an update depends only on the
seed and the number of the step, so a resumed run repeats an uninterrupted one.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nowcast.config.schema import Experiment
from nowcast.dataset.batches import Batch, Batches
from nowcast.models import make_model, model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.convlstm import set_checkpoint_steps
from nowcast.models.losses import at_least_one, make_loss
from nowcast.models.transform import make_transform, network_input, split_missing
from nowcast.quantity import Quantity
from nowcast.runtime import distributed
from nowcast.runtime.device import Compiled, arithmetic
from nowcast.runtime.libraries import keep_freed_memory
from nowcast.runtime.precision import NAMES, pick_precision, warn_if_slow
from nowcast.training.baselines import Baselines
from nowcast.training.compatibility import fitting_weights
from nowcast.training.experiment import resolve
from nowcast.training.optimizer import Average, make_optimizer, optimizer_tensors, restore_optimizer
from nowcast.training.validation import Kept, Validation, guidance_of, validate

log = logging.getLogger(__name__)


class StepOutcome:
    """Loss, gradient norm and cases of one step. On a GPU the two numbers are copied to the host in the background."""

    def __init__(self, values: Tensor, step: int, cases: Sequence[tuple[int, int, int, int]]):
        self.step, self.cases, self.values, self.copied = step, cases, values, None
        if values.is_cuda:
            self.values = torch.empty(values.shape, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record(torch.cuda.current_stream(values.device))  # not always that of the current device

    def read(self) -> tuple[float, float]:
        """Return (loss, gradient norm); wait until the step has been computed."""
        if self.copied is not None:
            self.copied.synchronize()
        loss, norm = self.values.tolist()
        return loss, norm


class Learner:
    """A network on a device and everything that changes its weights.

    An update is `compute_gradients`, then `apply_gradients`; between the two the caller can check that loss and gradient
    are finite. Raises UsageError (exit 2) for a config whose parts do not fit together.
    """

    def __init__(self, experiment: Experiment, device: torch.device):
        keep_freed_memory()
        self.experiment, self.settings, self.device = resolve(experiment), experiment.training, device
        torch.manual_seed(self.settings.seed)
        self.transform = make_transform(self.experiment.transform)
        self.loss = make_loss(self.experiment.loss)
        self.model = make_model(model_config(self.experiment.model)).to(device)
        set_checkpoint_steps(self.model, self.settings.checkpoint_steps)
        self.network = self._compiled() if self.settings.compile else self.model
        self.optimizer = make_optimizer(self.model, self.settings)
        self.restart_average()
        self.decides_precision = self.settings.precision == "auto"
        # processes may run on different processors, but all must compute alike
        self._compute_in(distributed.gather(pick_precision(self.settings.precision, device))[0])
        warn_if_slow(self.precision, device)
        # of training.start_from: name and SHA-256 of the checkpoint, its training spans (record, start, end), and calibration
        self.started_from: dict[str, Any] | None = None

    def _compiled(self) -> Compiled:
        # CUDA graphs are launched as a whole; they cannot add up the gradients of several batches
        graphs = self.device.type == "cuda" and self.settings.accumulate == 1
        return Compiled(self.model, mode="reduce-overhead" if graphs else None)

    def _compute_in(self, precision: torch.dtype) -> None:
        """Compute in this precision from now on, and record it in the config of the run."""
        self.precision = precision
        self.settings = self.settings.model_copy(update={"precision": self.precision_name})
        self.experiment = self.experiment.model_copy(update={"training": self.settings})

    @property
    def precision_name(self) -> str:
        """Return "float32" or "bfloat16"."""
        return str(self.precision).removeprefix("torch.")

    def batch_loss(self, batch: Batch) -> Tensor:
        """Compute the mean loss of one batch, a scalar."""
        loss, count = self.loss_sum(batch)
        return loss / at_least_one(count)

    def loss_sum(self, batch: Batch, *, progress: float = 0.0) -> tuple[Tensor, Tensor]:
        """Compute the sum of the errors of a batch and the count of known pixels that it is divided by, two scalars.

        progress: the share of all steps that is done, 0 to 1; scheduled sampling depends on it
        """
        return self.compared(*self.outputs(batch, progress=progress))

    def outputs(self, batch: Batch, *, progress: float = 0.0) -> tuple[Tensor, Tensor]:
        """Compute the outputs (case, lead, …); return them and the frames (case, lead, y, x) that they predict."""
        past, future = batch.past.to(self.device), batch.future.to(self.device)
        with arithmetic(self.device, self.precision):
            further = self._teaching(future, progress) | guidance_of(self.model, batch, self.device)
            outputs = self.network(network_input(past, self.transform), future.shape[1], **further)
        # a model that learns from future frames also predicts past frames, each from those before it
        if further_frames := outputs.shape[1] - future.shape[1]:
            future = torch.cat([past[:, -further_frames:], future], dim=1)
        return outputs, future

    def compared(self, outputs: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the sum of the errors of outputs, and the count of known pixels, two scalars."""
        observed, validity = split_missing(future)
        return self.loss.sum_and_count(self.model.loss_input(outputs), observed, validity, self.transform)

    def _teaching(self, future: Tensor, progress: float) -> dict[str, Any]:
        """Return the additional arguments of a model that learns from future frames."""
        if not self.model.learns_from_future:
            return {}
        return {"future": network_input(future, self.transform), "done": progress}

    def compute_gradients(self, batches: Iterable[Batch], step: int, *, progress: float) -> StepOutcome:
        """Compute the gradients of update `step` (from 0): of the mean loss over all `batches`, then clipped.

        progress: the share of all steps that is done, 0 to 1
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums, cases = torch.zeros(2, device=self.device), []
        for number, batch in enumerate(batches):
            # seeds what a model draws; only after the batch is read, because the loader draws when it starts
            torch.manual_seed(self.settings.seed * 1_000_003 + step * self.settings.accumulate + number)
            cases += batch.cases
            loss, count = self.loss_sum(batch, progress=progress)
            loss.backward()
            sums += torch.stack([loss.detach(), count])
        loss = self._average_gradients(sums)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        return StepOutcome(torch.stack([loss, norm]), step + 1, cases)

    def _average_gradients(self, sums: Tensor) -> Tensor:
        """Divide the gradients of the summed errors by the count of pixels, over all batches and processes.

        sums: (2,) sum of the errors, count of pixels
        returns: scalar, the mean loss
        """
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        distributed.add_up([*gradients, sums])
        loss, count = sums[0], at_least_one(sums[1])
        torch._foreach_div_(gradients, count)
        return loss / count

    def apply_gradients(self, step: int, *, rate: float) -> None:
        """Update the weights and their moving average; `rate` is the learning rate of update `step` (from 0)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, step)

    def validate(
        self, batches: Batches | Kept, num_batches: int, baselines: Baselines, before_batch: Callable[[], None] = lambda: None
    ) -> Validation:
        """Score the forecasting weights on batches 0 to `num_batches` - 1, beside the baselines.

        With a moving average these are the averaged weights; calibrated buffers are then set in both.

        before_batch: called before each batch; may raise to end the validation
        """
        with self._forecasting_weights():
            return validate(
                self.model, batches, num_batches, transform=self.transform, loss=self.loss,
                device=self.device, precision=self.precision, baselines=baselines, start=self.start_calibration,
                before_batch=before_batch,
            )  # fmt: skip

    def forecast(self, batch: Batch) -> np.ndarray:
        """Forecast a batch with the forecasting weights: (case, lead, y, x) mm/h, without NaN."""
        with self._forecasting_weights(), torch.no_grad():
            self.model.eval()
            with arithmetic(self.device, self.precision):
                past = network_input(batch.past.to(self.device), self.transform)
                outputs = self.model(past, batch.future.shape[1], **guidance_of(self.model, batch, self.device))
            forecast = self.transform.decode(self.model.values(outputs, past)).float().cpu().numpy()
            self.model.train()
        return forecast

    @contextmanager
    def _forecasting_weights(self) -> Iterator[None]:
        """Context manager in which the model has its averaged weights; calibrated buffers are then set in both."""
        trained = {name: value.clone() for name, value in self.model.state_dict().items()} if self.average else None
        if self.average:
            self.model.load_state_dict(self.average.weights)
        try:
            yield
        finally:
            if trained:
                for name in self.model.calibrated:
                    trained[name] = self.average.weights[name] = self.model.get_buffer(name).clone()
                self.model.load_state_dict(trained)

    def non_finite_weight(self) -> str | None:
        """Return the name of a weight with a NaN or an infinity, or None: finite gradients can still lead to one."""
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                return name
        return None

    def restart_average(self) -> None:
        """Begin the moving average anew with the present weights."""
        self.average = Average(self.model, self.settings.ema, fixed=self.model.fixed) if self.settings.ema else None

    def forecasting_weights(self) -> Mapping[str, Tensor]:
        """Return the forecasting weights: the moving average, or the weights themselves without one."""
        return self.average.weights if self.average else self.model.state_dict()

    @property
    def start_name(self) -> str:
        """Return the name of the weights that the training begins with: "untrained", or `training.start_from`."""
        return self.started_from["checkpoint"] if self.started_from else "untrained"

    @property
    def start_calibration(self) -> dict[str, Tensor]:
        """Return the calibrated buffers of the checkpoint that the training started from; empty for new weights."""
        calibrated = (self.started_from or {}).get("calibrated", {})
        return {name: torch.tensor(values) for name, values in calibrated.items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a resumed run needs: `model.*`, `average.*` and `optimizer.*`."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.weights.items()}
        return tensors | {f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the `state_tensors` of a checkpoint, and the precision of its run.

        Raises RuntimeError, KeyError, TypeError, ValueError or AttributeError where they do not fit this network.
        """
        self.model.load_state_dict(self.model.completed(checkpoint.tensors_of("model")))
        restore_optimizer(self.optimizer, checkpoint.tensors_of("optimizer"))
        if self.average:
            average = self.model.completed(checkpoint.tensors_of("average"))
            self.average.weights = {name: value.to(self.device) for name, value in average.items()}
        self.started_from = checkpoint.metadata.get("started_from")
        precision = checkpoint.metadata.get("precision")
        if self.decides_precision and precision in NAMES:
            self._compute_in(pick_precision(precision, self.device))  # another processor might choose the other one
            warn_if_slow(self.precision, self.device)

    def start_from(self, checkpoint: Checkpoint, *, quantity: Quantity) -> None:
        """Start with the weights of `training.start_from`, which must be for the same quantity and network.

        Raises CheckpointError (exit 4) where they are not.
        """
        name = self.settings.start_from
        weights = fitting_weights(checkpoint, name, self.model, self.experiment, quantity=quantity)
        self.model.load_state_dict(weights)
        self.restart_average()
        before = checkpoint.metadata.get("started_from") or {}
        spans = checkpoint.metadata.get("stretches") or checkpoint.metadata.get("spans", {})
        seen = [span for split in spans.values() for span in split] + before.get("seen", [])
        calibrated = {name: weights[name].tolist() for name in self.model.calibrated}
        self.started_from = {"checkpoint": name, "sha256": checkpoint.digest, "seen": seen, "calibrated": calibrated}
        log.info("starting with the weights of %s (SHA-256 %s)", name, checkpoint.digest[:12])
