"""The loop, in reading order: validate and save -> stop after the last step -> batch -> loss -> check -> update.

Everything that a step does is a function of the seed and the step's number, so a resumed run repeats a straight one.
"""

import contextlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nowcast import __version__, config
from nowcast.config.schema import Experiment
from nowcast.dataset.archive import Archive
from nowcast.dataset.batches import Batch, Batches
from nowcast.dataset.loader import load
from nowcast.errors import CheckpointError, DivergenceError, LoadingError
from nowcast.models import make_model, model_config, num_parameters
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, write_checkpoint
from nowcast.models.convlstm import set_checkpoint_steps
from nowcast.models.losses import at_least_one, make_loss
from nowcast.models.transform import make_transform, network_input, split_missing
from nowcast.netcdf.record import Record
from nowcast.runtime import distributed
from nowcast.runtime.device import Compiled, arithmetic, num_cores, pick_precision
from nowcast.runtime.progress import Progress, Stopwatch
from nowcast.runtime.signals import StopRequest, stop_on_signals
from nowcast.training.compatibility import fitting_weights
from nowcast.training.experiment import check_grids, resolve
from nowcast.training.optimizer import Average, learning_rate, make_optimizer, optimizer_tensors, restore_optimizer
from nowcast.training.run_folder import METRICS, append_event
from nowcast.training.state import State
from nowcast.training.validation import Kept, Validation, validate

log = logging.getLogger(__name__)
FEW_WORKERS, MOST_WORKERS = 4, 12  # beside a GPU
VALIDATION_SEED = 1 << 32  # above every seed of training, so that the two never draw the same cases


class Outcome:
    """Loss and gradient norm of one step and its cases, on their way from the device; the host need not wait for them."""

    def __init__(self, values: torch.Tensor, step: int, seen: list[tuple[int, int, int, int]]):
        self.step, self.seen, self.values, self.copied = step, seen, values, None
        if values.is_cuda:
            self.values = torch.empty(values.shape, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record(torch.cuda.current_stream(values.device))  # which need not be that of the current device

    def read(self) -> tuple[float, float]:
        """Loss and norm, once the step is done."""
        if self.copied is not None:
            self.copied.synchronize()
        loss, norm = self.values.tolist()
        return loss, norm


@dataclass(frozen=True)
class Result:
    """How a training ended: the run folder, the steps done, the best validation."""

    output: Path
    step: int
    best_step: int
    best_loss: float


class Trainer:
    """One training run. `run()` does it; the methods below it are its steps, in order."""

    def __init__(self, experiment: Experiment, plan: Archive, output: Path, *, device: torch.device):
        self.experiment, self.settings = resolve(experiment), experiment.training
        self.plan, self.output, self.device = plan, output, device
        torch.manual_seed(self.settings.seed)
        self.transform = make_transform(self.experiment.transform)
        self.loss = make_loss(self.experiment.loss)
        self.model = make_model(model_config(self.experiment.model)).to(device)
        set_checkpoint_steps(self.model, self.settings.checkpoint_steps)
        self.network = self.model
        if self.settings.compile:
            # CUDA graphs are launched as a whole; they cannot add up the gradients of several batches
            graphs = device.type == "cuda" and self.settings.accumulate == 1
            self.network = Compiled(self.model, mode="reduce-overhead" if graphs else None)
        check_grids(plan, self.experiment.data.crop, self.model)
        self.optimizer = make_optimizer(self.model, self.settings)
        self.average = Average(self.model, self.settings.ema) if self.settings.ema else None
        self.precision = distributed.gather(pick_precision(self.settings.precision, device))[0]  # one for all
        self.launch = distributed.launch()
        self.state, self.last_is_damaged, self.records_metrics = State(), False, True
        self.started_from = None
        # a GPU is asked how the step before went, so that it is never idle; nothing is saved before all is read
        self.unread, self.most_unread = [], 1 if device.type == "cuda" else 0
        self.newest_loss = math.nan
        windows_per_step = self.settings.batch_size * self.settings.accumulate
        steps_per_epoch = math.ceil(plan.num_windows("training") / windows_per_step)
        self.num_steps = self.settings.steps or self.settings.epochs * steps_per_epoch

    def prepare_data(self) -> None:
        """Pack the records and draw up the batches of training and validation."""
        data, share = self.experiment.data, (distributed.rank(), distributed.size())
        common = {"batch_size": self.settings.batch_size, "crop": data.crop, "sampler": data.sampler, "share": share,
                  "coordinates": data.coordinates}  # fmt: skip
        training = self.plan.series("training")
        self.batches = Batches(training, seed=self.settings.seed, augmentation=data.augmentation, **common)
        self.validation_batches, validation = None, self.plan.series("validation")
        if validation:
            batches = Batches(validation, seed=VALIDATION_SEED, **common)
            self.validation_batches = Kept(batches) if batches.lagrangian else batches
        if distributed.is_first():
            for line in dict.fromkeys(line for part in [*training, *validation] for line in part.frames.damaged):
                log.warning("%s", line)

    def run(self) -> Result:
        """Train to the last step (or early stopping) and leave the run folder complete.

        Raises DivergenceError (exit 6) when loss or gradient stop being finite, Stopped (130, 143) after a signal, with
        the state saved.
        """
        self.model.train()
        with (
            stop_on_signals() as stop,
            Progress("training", total=self.num_steps, unit="step", start=self.state.step) as progress,
            contextlib.closing(self._load()) as batches,  # or a worker that outlives a stop dies in the next run's name
        ):
            log.info("%s", self.describe())
            if self.validation_batches is None:
                log.warning("no window is left for validation: best.safetensors will be the newest weights (see data.splits)")
            if not self.state.step:
                self._save_state()  # so that a run can be resumed, and a disk that takes no checkpoint is found, from the start
            watch = Stopwatch()
            while True:
                if received := distributed.largest(stop.received):  # all stop after the same step
                    stop.received = received
                    self._settle(watch)
                    self._stop(stop)
                if self._is_due():
                    self._settle(watch)
                    self._validate_and_save(watch)
                if self.is_finished:
                    break
                try:
                    self._update(batches, watch)
                except LoadingError as error:
                    self._settle(watch)
                    self._leave(stop, error)
                progress.advance(loss=f"{self.newest_loss:.4g}")
        return Result(self.output, self.state.step, self.state.best_step, self.state.best_loss)

    @property
    def is_finished(self) -> bool:
        """All steps are done, or early stopping ended the run."""
        stopped_early = 0 < self.settings.early_stopping <= self.state.validations_since_best
        return self.state.step >= self.num_steps or stopped_early

    def describe(self) -> str:
        training, validation = (self.plan.num_windows(split) for split in ("training", "validation"))
        windows = f"{training:,} training and {validation:,} validation windows"
        return (
            f"{num_parameters(self.model):,} parameters, {windows}, {self.num_steps:,} steps "
            f"on {self.device.type} in {str(self.precision).removeprefix('torch.')}"
        )

    def _load(self):
        start = self.state.step * self.settings.accumulate
        stop = self.num_steps * self.settings.accumulate
        return load(self.batches, start, stop, workers=self._workers(), device=self.device)

    def _workers(self) -> int:
        """Processes that read ahead: more where each case's motion has to be found, and only there beside a CPU's own work."""
        if self.settings.workers != "auto":
            return self.settings.workers
        cores, processes = num_cores(), distributed.size_here()
        if self.device.type == "cpu":
            return int(self.batches.lagrangian and cores > processes)
        return min(max(cores // processes - 1, FEW_WORKERS), MOST_WORKERS) if self.batches.lagrangian else FEW_WORKERS

    def _update(self, batches, watch: Stopwatch) -> None:
        step, accumulate = self.state.step, self.settings.accumulate
        rate = learning_rate(step, self.num_steps, self.settings, num_plateaus=self.state.num_plateaus)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums, seen = torch.zeros(2, device=self.device), []
        for part in range(accumulate):
            with watch.waiting():
                batch = next(batches)
            # for whatever a model draws; after the first batch, as a loader that begins draws as well
            torch.manual_seed(self.settings.seed * 1_000_003 + step * accumulate + part)
            seen += batch.cases
            loss, count = self._loss_parts(batch)
            loss.backward()
            sums += torch.stack([loss.detach(), count])
        loss = self._average_gradients(sums)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        self.unread.append(Outcome(torch.stack([loss, norm]), step + 1, seen))
        self._settle(watch, leave=self.most_unread)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, step)
        self.state.step += 1

    def _settle(self, watch: Stopwatch, *, leave: int = 0) -> None:
        """Read what came out of all steps but the last `leave`; DivergenceError where it is not finite."""
        while len(self.unread) > leave:
            outcome = self.unread.pop(0)
            loss, norm = outcome.read()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergenceError(self._divergence(outcome, loss, norm))
            self.newest_loss = loss
            self.state.add_loss(loss)
            watch.count(windows=self.settings.accumulate * self.settings.batch_size)

    def _average_gradients(self, sums: torch.Tensor) -> torch.Tensor:
        """Divide the gradients of the summed errors by the count; the loss. Both sums are over micro-batches and processes."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        distributed.add_up([*gradients, sums])
        loss, count = sums[0], at_least_one(sums[1])
        torch._foreach_div_(gradients, count)
        return loss / count

    def batch_loss(self, batch: Batch) -> torch.Tensor:
        """The loss of one batch by itself."""
        loss, count = self._loss_parts(batch)
        return loss / at_least_one(count)

    def _loss_parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        past, future = batch.past.to(self.device), batch.future.to(self.device)
        with arithmetic(self.device, self.precision):
            values = self.network(network_input(past, self.transform), future.shape[1], **self._teaching(future))
        # a model that is taught every next frame answers for frames of the past as well
        observed, validity = split_missing(torch.cat([past, future], dim=1)[:, -values.shape[1] :])
        return self.loss.parts(self.model.loss_input(values), observed, validity, self.transform)

    def _teaching(self, future: torch.Tensor) -> dict[str, Any]:
        if not self.model.learns_from_future:
            return {}
        return {"future": network_input(future, self.transform), "done": self.state.step / self.num_steps}

    def _divergence(self, outcome: Outcome, loss: float, norm: float) -> str:
        cases = {self.batches.describe_case(case) for case in outcome.seen}
        shown = ", ".join(sorted(cases)[:4]) + (", …" if len(cases) > 4 else "")
        return self._diverged(outcome.step, f"loss {loss:.4g}, gradient norm {norm:.4g}, cases {shown}")

    def _diverged(self, step: int, what: str) -> str:
        return (
            f"training diverged at step {step}: {what}\n"
            f"the checkpoints in {self.output} are the last good ones; try a smaller training.learning_rate or training.clip"
        )

    def _check_finite(self) -> None:
        """A loss and a gradient that are finite can still make weights that are not."""
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise DivergenceError(self._diverged(self.state.step, f"{name} is not finite"))

    def _is_due(self) -> bool:
        step = self.state.step
        due = step % self.settings.validate_every == 0 or step >= self.num_steps
        return due and step != self.state.validated_step  # a resumed run has validated this step already

    def _validate_and_save(self, watch: Stopwatch) -> None:
        settings, is_best = self.settings, True
        self._check_finite()
        self.state.validated_step = self.state.step
        speed = watch.read()
        self._record("training", loss=self.state.take_mean_loss(), **speed, learning_rate=self.optimizer.param_groups[0]["lr"])
        log.info("%.3g windows per second, %.1f %% of the time waiting for data",
                 speed["windows_per_second"], 100 * speed["waiting_share"])  # fmt: skip
        if self.validation_batches is not None:
            validation = self._validate()
            if not math.isfinite(validation.loss):
                raise DivergenceError(self._diverged(self.state.step, f"validation loss {validation.loss:.4g}"))
            is_best = self.state.judge(validation.loss, patience=settings.plateau_patience, delta=settings.plateau_delta)
            self._record("validation", **validation.as_dict())
            log.info("step %d: %s%s", self.state.step, describe(validation), " (best)" if is_best else "")
        else:
            self.state.best_step = self.state.step
        if is_best and distributed.is_first():
            weights = self._best_weights()
            write_checkpoint(self.output / BEST, self._facts(), {f"model.{name}": value for name, value in weights.items()})
        self._save_state()
        watch.restart()

    def _validate(self) -> Validation:
        num_batches = math.ceil(self.settings.validation_cases / self.settings.batch_size)
        trained = {name: value.clone() for name, value in self.model.state_dict().items()} if self.average else None
        if self.average:
            self.model.load_state_dict(self.average.weights)
        try:
            return validate(
                self.model, self.validation_batches, num_batches, transform=self.transform, loss=self.loss,
                device=self.device, precision=self.precision, thresholds=self.plan.quantity.thresholds,
            )  # fmt: skip
        finally:
            if trained:
                for name in self.model.calibrated:  # belongs to both
                    trained[name] = self.average.weights[name] = self.model.get_buffer(name).clone()
                self.model.load_state_dict(trained)

    def _best_weights(self) -> Mapping[str, torch.Tensor]:
        return self.average.weights if self.average else self.model.state_dict()

    def _facts(self) -> dict[str, Any]:
        data, plan = self.experiment.data, self.plan
        return {
            "version": __version__,
            "torch": str(torch.__version__),
            "config": config.as_dict(self.experiment),
            "quantity": plan.quantity.name,
            "units": plan.quantity.units,
            "input_frames": data.input_frames,
            "lead_frames": data.lead_frames,
            "time_steps": plan.time_steps(),
            "spacing_km": sorted({_spacing(record) for record in plan.records}),
            "spans": {split: plan.spans(split) for split in ("training", "validation")},
            "windows": {split: plan.num_windows(split) for split in ("training", "validation")},
            "windows_sha256": plan.digest,
            "precision": str(self.precision).removeprefix("torch."),
            "step": self.state.step,
            "best_loss": self.state.as_dict()["best_loss"],
            **({"started_from": self.started_from} if self.started_from else {}),
        }

    def _save_state(self) -> None:
        self._check_finite()
        if not distributed.is_first():
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.weights.items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        facts = self._facts() | {"state": self.state.as_dict(), "num_steps": self.num_steps, "launch": self.launch}
        keep = None if self.last_is_damaged else self.output / PREVIOUS
        write_checkpoint(self.output / LAST, facts, tensors, keep=keep)
        self.last_is_damaged = False

    def checkpoint_bytes(self) -> tuple[int, int]:
        """About what `best` and `last` take on disk."""
        weights = sum(value.nbytes for value in self.model.state_dict().values())
        copies = {"adamw": 2, "adam": 2, "adadelta": 2, "rmsprop": 1, "sgd": 1}[self.settings.optimizer]  # that it keeps
        return weights, weights * (1 + copies + bool(self.average))

    def _leave(self, stop: StopRequest, error: LoadingError) -> None:
        """Save and end: the data do not come any more, maybe since the same signal ended the workers."""
        if stop.received:
            self._stop(stop)
        self._save_state()
        raise LoadingError(f"{error}\nStopped at step {self.state.step:,}, state saved; --resume goes on from there.")

    def _stop(self, stop: StopRequest) -> None:
        self._save_state()
        raise stop.error(f"stopped at step {self.state.step:,}, state saved; --resume goes on from there")

    def _record(self, split: str, **facts: Any) -> None:
        if not distributed.is_first():
            return
        try:
            append_event(self.output / METRICS, {"step": self.state.step, "split": split, **facts})
        except OSError as error:
            if self.records_metrics:
                log.warning("%s cannot be written (%s): training goes on without", self.output / METRICS, error.strerror)
            self.records_metrics = False

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take the weights of `training.start_from`; CheckpointError where they do not fit this training."""
        name = self.settings.start_from
        weights = fitting_weights(checkpoint, name, self.model, self.experiment, quantity=self.plan.quantity)
        self.model.load_state_dict(weights)
        if self.average:
            self.average = Average(self.model, self.settings.ema)
        self.started_from = {"checkpoint": name, "sha256": checkpoint.digest}
        log.info("the weights of %s to start from (SHA-256 %s)", name, checkpoint.digest[:12])

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a `last` or `previous` checkpoint; CheckpointError if it does not fit this config."""
        facts = checkpoint.facts
        try:
            self.model.load_state_dict(checkpoint.part("model"))
            restore_optimizer(self.optimizer, checkpoint.part("optimizer"))
            if self.average:
                self.average.weights = {n: t.to(self.device) for n, t in checkpoint.part("average").items()}
            self.state, self.started_from = State.from_dict(facts["state"]), facts.get("started_from")
            if self.settings.precision == "auto" and facts.get("precision") in ("float32", "bfloat16"):
                self.precision = getattr(torch, facts["precision"])  # the probe might choose otherwise today
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            message = str(error).splitlines()[0]
            raise CheckpointError(f"the checkpoint in {self.output} does not fit the config: {message}") from None
        self.last_is_damaged = checkpoint.path.name == PREVIOUS  # which then must not take the place of the good one


def _spacing(record: Record) -> tuple[float, ...]:
    return tuple(round(float(km), 4) if math.isfinite(km) else 0.0 for km in record.grid.spacing_km)


def describe(validation: Validation) -> str:
    """For example `validation loss 0.021, CSI at 1: 0.52 (persistence 0.44), MAE 0.41 (0.52)`."""
    scores = [
        f"CSI at {t:g}: {value:.3f} (persistence {validation.persistence_csi[t]:.3f})"
        for t, value in validation.csi.items()
        if t == 1 or len(validation.csi) == 1
    ]
    mae = f"MAE {validation.mae:.3f} ({validation.persistence_mae:.3f})"
    return f"validation loss {validation.loss:.5g}, {', '.join([*scores, mae])}"
