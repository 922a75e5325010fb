"""Trainer: one training run, from its first step (or a checkpoint) to its last.

The loop, in reading order: stop if a signal came; validate and save if it is time, first before any update; end after the
last step; read a batch, compute the gradients, check that they are finite, update the weights.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nowcast import config
from nowcast.dataset.archive import Archive
from nowcast.dataset.batches import Batch, Batches
from nowcast.dataset.loader import load
from nowcast.dataset.workers import cores_left_to, count_workers
from nowcast.errors import DivergenceError, LoadingError
from nowcast.forecasters.members.keep import keep_structure
from nowcast.models import num_parameters
from nowcast.models.checkpoint import Checkpoint
from nowcast.netcdf.record import log_readings
from nowcast.runtime import distributed
from nowcast.runtime.device import num_cores
from nowcast.runtime.progress import Progress, Stopwatch
from nowcast.runtime.signals import StopRequest, stop_on_signals
from nowcast.training.baselines import Baselines
from nowcast.training.experiment import check_grids, check_quantity, remarks_on_frames
from nowcast.training.guidance import fit_correction, keep_guidance, use_place
from nowcast.training.learner import Learner, StepOutcome
from nowcast.training.optimizer import count_steps, learning_rate
from nowcast.training.recorder import Draw, Recorder
from nowcast.training.run_folder import METRICS, first_validation
from nowcast.training.snapshots import Snapshots
from nowcast.training.state import TrainingState
from nowcast.training.validation import Kept, Scores, Validation, scores_of_start

log = logging.getLogger(__name__)
VALIDATION_SEED = 1 << 32  # larger than every training seed, so that validation never draws the training's cases


@dataclass(frozen=True)
class Result:
    """How a training ended: its run folder, the steps done, and the step and loss of the best validation."""

    output: Path
    step: int
    best_step: int
    best_loss: float


class Trainer:
    """One training run: updates the learner's weights with the archive's windows and fills the run folder `output`.

    draw: draws a case for the loggers that take pictures

    Raises DataError (exit 3) where the archive's quantity or grids do not fit the model.
    """

    def __init__(self, learner: Learner, archive: Archive, output: Path, draw: Draw | None = None):
        self.learner, self.archive, self.output = learner, archive, output
        self.settings = learner.settings
        check_quantity(archive, learner.model.config)
        check_grids(archive, learner.experiment.data.crop, learner.model)
        self.num_steps = count_steps(self.settings, archive.num_windows("training"))
        self.snapshots = Snapshots(learner, archive, output, num_steps=self.num_steps)
        self.state, self.recorder = TrainingState(), Recorder(output, self.settings.loggers, draw)
        # The outcome of a step is read while a GPU computes the next one, so that the GPU never waits for the host.
        # Before anything is saved all outcomes are read.
        self.unread: list[StepOutcome] = []
        self.most_unread = 1 if learner.device.type == "cuda" else 0
        self.newest_loss = math.nan
        self.stop = StopRequest()
        self.start_scores: dict[str, Scores] = {}  # of the weights before the first step, by their name, for the log

    def prepare_data(self) -> None:
        """Pack records and make batches, with warnings about frames. Raises CheckpointError (exit 4) where a run had others."""
        data = self.learner.experiment.data
        common = {"batch_size": self.settings.batch_size, "crop": data.crop, "sampler": data.sampler,
                  "coordinates": data.coordinates, "share": (distributed.rank(), distributed.size())}  # fmt: skip
        training, validation = self.archive.series("training"), self.archive.series("validation")
        self.snapshots.take_frames([*training, *validation])
        self.batches = Batches(training, seed=self.settings.seed, augmentation=data.augmentation, **common)
        self.validation_batches = None
        if validation:
            if self.judges_whole_grids:
                common |= {"crop": 0, "sampler": "uniform"}
            batches = Batches(validation, seed=VALIDATION_SEED, **common)
            self.validation_batches = Kept(batches) if batches.lagrangian else batches
        if self.learner.model.takes_guidance:
            kept = keep_guidance(self.batches, data.kept_cases, "training", side=data.kept_crop)
            if validation:
                keep_guidance(batches, self.num_validation_batches * self.settings.batch_size, "validation")
            if not self.state.step and not self.settings.start_from:
                fit_correction(self.learner.model, kept)
                self.learner.restart_average()
            use_place(self.learner.model, self.batches, *([batches] if validation else []))
        self.baselines = Baselines.suited_to(data, self.archive.quantity)
        if distributed.is_first():
            for remark in remarks_on_frames(training, validation, self.archive.quantity):
                log.warning("%s", remark)

    @property
    def judges_whole_grids(self) -> bool:
        """Return whether validation uses evenly chosen whole grids, even if training uses crops drawn by their rain.

        A cut that is unbiased in rainy crops is too high elsewhere: on one archive it gave a frequency bias of .76.
        """
        return self.learner.model.takes_guidance and bool(self.learner.model.grid)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a `last` or `previous` checkpoint. Raises CheckpointError (exit 4) where it does not fit the config."""
        self.state = self.snapshots.restore(checkpoint)

    def run(self) -> Result:
        """Train to the last step (or early stopping) and leave the run folder complete.

        Raises DivergenceError (exit 6) when loss, gradient or weights stop being finite, Stopped (exit 130 or 143) after a
        signal and LoadingError (exit 75) where no batch can be read any more, both with the state saved.
        """
        self.learner.model.train()
        with (
            stop_on_signals() as self.stop,
            Progress("training", total=self.num_steps, unit="step", start=self.state.step) as progress,
            # closed here: a worker that outlives this run and dies later would end the next run of this process
            contextlib.closing(self.load_batches()) as batches,
            self.recorder.opened(self.state.validated_step, config.as_dict(self.learner.experiment)),
        ):
            self._announce()
            self.start_scores = scores_of_start(first_validation(self.output / METRICS))
            if not self.state.step:
                self._save_last()  # can be resumed from the start on; and a full disk is found before any work is done
            watch = Stopwatch()
            while True:
                if self.is_asked_to_stop():
                    self._save_and_stop(watch)
                if self._is_validation_due():
                    self.read_outcomes(watch)
                    self._validate_and_save(watch)
                if self.is_finished:
                    break
                try:
                    with self.cores_left():
                        self.update(batches, watch)
                except LoadingError as error:
                    self._save_and_raise(error, watch)
                progress.advance(loss=f"{self.newest_loss:.4g}")
        self.measure_members()
        return Result(self.output, self.state.step, self.state.best_step, self.state.best_loss)

    @property
    def num_validation_batches(self) -> int:
        return math.ceil(self.settings.validation_cases / self.settings.batch_size)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, and validated, or early stopping ended the run."""
        stopped_early = 0 < self.settings.early_stopping <= self.state.validations_since_best
        return self.num_steps <= self.state.step == self.state.validated_step or stopped_early

    def load_batches(self) -> Iterator[Batch]:
        """Return the batches from the present step to the last, in order, read ahead by other processes."""
        accumulate = self.settings.accumulate
        start, stop = self.state.step * accumulate, self.num_steps * accumulate
        return load(self.batches, start, stop, workers=self.num_workers, device=self.learner.device)

    @property
    def num_workers(self) -> int:
        """Return how many processes read batches ahead."""
        return count_workers(
            self.settings.workers, finds_motion=self.batches.lagrangian, device_type=self.learner.device.type,
            cores=num_cores(), processes=distributed.size_here(),
        )  # fmt: skip

    def cores_left(self) -> AbstractContextManager:
        """Return a block in which torch leaves a core to each process that reads ahead, if that is the faster."""
        weights_per_cell = num_parameters(self.learner.model) / self.learner.model.cell_multiple**2
        return cores_left_to(self.num_workers, weights_per_cell=weights_per_cell, cores=num_cores() // distributed.size_here())

    def update(self, batches: Iterator[Batch], watch: Stopwatch) -> None:
        """Make one update of the weights with the next `training.accumulate` batches.

        Raises DivergenceError (exit 6), before the update, where loss or gradient is not finite.
        """
        step = self.state.step
        micro_batches = self._next_batches(batches, watch)
        outcome = self.learner.compute_gradients(micro_batches, step, progress=step / self.num_steps)
        self.unread.append(outcome)
        self.read_outcomes(watch, leave=self.most_unread)
        self.learner.apply_gradients(step, rate=self._learning_rate(step))
        self.state.step += 1

    def _learning_rate(self, step: int) -> float:
        return learning_rate(step, self.num_steps, self.settings, num_plateaus=self.state.num_plateaus)

    def _next_batches(self, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Batch]:
        """Yield the batches of one step; count the time spent waiting for them."""
        for _ in range(self.settings.accumulate):
            with watch.waiting():
                batch = next(batches)
            yield batch

    def read_outcomes(self, watch: Stopwatch, *, leave: int = 0) -> None:
        """Read loss and gradient norm of all steps but the last `leave`.

        Raises DivergenceError (exit 6) where one is not finite.
        """
        while len(self.unread) > leave:
            outcome = self.unread.pop(0)
            loss, norm = outcome.read()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                cases = self._describe_cases(outcome)
                raise self._divergence(outcome.step, f"loss {loss:.4g}, gradient norm {norm:.4g}, cases {cases}")
            self.newest_loss = loss
            self.state.add_loss(loss)
            watch.count(windows=self.settings.accumulate * self.settings.batch_size)

    def _describe_cases(self, outcome: StepOutcome, *, most: int = 4) -> str:
        cases = {self.batches.describe_case(case) for case in outcome.cases}
        return ", ".join(sorted(cases)[:most]) + (", …" if len(cases) > most else "")

    def _divergence(self, step: int, what: str) -> DivergenceError:
        return DivergenceError(
            f"training diverged at step {step}: {what}\n"
            f"the checkpoints in {self.output} are the last good ones; try a smaller training.learning_rate or training.clip"
        )

    def _is_validation_due(self) -> bool:
        step = self.state.step
        if not step and self.validation_batches is None:
            return False  # nothing to report or save yet
        is_due = step % self.settings.validate_every == 0 or step >= self.num_steps
        return is_due and step != self.state.validated_step  # a resumed run has validated this step already

    def _validate_and_save(self, watch: Stopwatch) -> None:
        self._save_last()  # so that a kill during a long validation loses nothing: a resumed run validates this step again
        self.state.validated_step = self.state.step
        if self.state.step:
            speed = watch.read()
            rate = self._learning_rate(self.state.step - 1)
            self._record("training", loss=self.state.take_mean_loss(), **speed, learning_rate=rate)
            log.info("%.3g windows per second, %.1f %% of the time waiting for data",
                     speed["windows_per_second"], 100 * speed["waiting_share"])  # fmt: skip
        if self.validate():
            self.snapshots.save_best(self.state)
        self._save_last()
        watch.restart()

    def validate(self) -> bool:
        """Score the weights on the validation cases and record the scores; return whether they are the best so far.

        Without validation windows the newest weights count as the best. Raises DivergenceError (exit 6) where the loss
        is not finite.
        """
        if self.validation_batches is None:
            self.state.best_step = self.state.step
            return True
        cases = self.validation_batches, self.num_validation_batches
        validation = self.learner.validate(*cases, self.baselines, before_batch=self._end_if_asked)
        if not math.isfinite(validation.loss):
            raise self._divergence(self.state.step, f"validation loss {validation.loss:.4g}")
        is_best = self.state.judge(validation.loss, patience=self.settings.plateau_patience, delta=self.settings.plateau_delta)
        self._report(validation, is_best=is_best)
        self.recorder.show(self.learner, self.validation_batches, self.num_validation_batches, self.state.step)
        return is_best

    def _report(self, validation: Validation, *, is_best: bool) -> None:
        """Record and log a validation; keep the scores of the weights before the first step to show beside later ones."""
        step, name = self.state.step, self.learner.start_name
        weights = {} if step else {"weights": name}
        self._record("validation", **weights, **validation.as_dict(), unit=self.archive.quantity.unit)
        summary = validation.summary(self.start_scores)
        if step:
            log.info("step %d: %s%s", step, summary, " (best)" if is_best else "")
        else:
            log.info("step 0, %s: %s", name, summary)
            self.start_scores = {name: validation.network}

    def measure_members(self) -> None:
        if distributed.is_first() and self.learner.loss.takes_distributions:
            most = self.learner.experiment.training.validation_cases
            keep_structure(self.output, self.archive, self.learner.device, most=most)

    def _save_last(self) -> None:
        if name := self.learner.non_finite_weight():
            raise self._divergence(self.state.step, f"{name} is not finite")
        self.snapshots.save_last(self.state)

    def is_asked_to_stop(self) -> bool:
        """Return whether this or another process has received a signal: all stop after the same step or validation batch."""
        if received := distributed.largest(self.stop.received):  # else nothing is set: a signal may have come meanwhile
            self.stop.received = received
        return bool(received)

    def _end_if_asked(self) -> None:
        """End the run in a validation, before which the state was saved."""
        if self.is_asked_to_stop():
            raise self.stop.error(f"stopped in the validation of step {self.state.step:,}; --resume goes on from there")

    def _save_and_stop(self, watch: Stopwatch) -> None:
        self.read_outcomes(watch)
        self._save_last()
        raise self.stop.error(f"stopped at step {self.state.step:,}, state saved; --resume goes on from there")

    def _save_and_raise(self, error: LoadingError, watch: Stopwatch) -> None:
        """Save and end the run: no batch can be read, perhaps because the signal to stop has ended the workers as well."""
        if self.stop.received:
            self._save_and_stop(watch)
        self.read_outcomes(watch)
        self._save_last()
        raise LoadingError(f"{error}\nStopped at step {self.state.step:,}, state saved; --resume goes on from there.")

    def _record(self, split: str, **values: Any) -> None:
        self.recorder.record({"step": self.state.step, "split": split, **values})

    def _announce(self) -> None:
        log_readings(self.archive.records)
        training, validation = (self.archive.num_windows(split) for split in ("training", "validation"))
        log.info(
            "%s parameters, %s training and %s validation windows, %s steps on %s in %s",
            *(f"{number:,}" for number in (num_parameters(self.learner.model), training, validation, self.num_steps)),
            self.learner.device.type, self.learner.precision_name,
        )  # fmt: skip
        if self.validation_batches is None:
            log.warning("no windows are left for validation: best.safetensors will hold the newest weights (see data.splits)")
