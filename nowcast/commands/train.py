"""Implement `nowcast train`: train, resume, or with --dry-run describe what would be trained."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.dataset.archive import Archive, open_archive
from nowcast.errors import CheckpointError, MemoryLimitError, is_out_of_memory
from nowcast.models import num_parameters
from nowcast.models.checkpoint import BEST, Checkpoint, read_checkpoint
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.libraries import give_back_freed_memory
from nowcast.runtime.outputs import locked, may_write, replacing
from nowcast.training import run_folder
from nowcast.training.compatibility import as_the_run, check_resumable, other_validation, seen_windows, unlike_start
from nowcast.training.experiment import check_grids, check_quantity, check_shares, resolve, with_grid, without_effect
from nowcast.training.learner import Learner
from nowcast.training.logs import LOGGERS, check_installed
from nowcast.training.optimizer import count_steps
from nowcast.training.recorder import Draw
from nowcast.training.step_cost import case_shape, estimate, largest_batch, uncompiled, what_would_fit
from nowcast.training.trainer import Result, Trainer

log = logging.getLogger(__name__)


def draw_curves(output: Path) -> None:
    """Draw the losses and scores of a run's metrics.jsonl into its training.png; where that fails, only warn."""
    if not distributed.is_first() or not (output / run_folder.METRICS).is_file():
        return
    try:
        from nowcast.report import maps, training_curves  # imports matplotlib

        figure = training_curves.draw_training(run_folder.read_events(output / run_folder.METRICS))
        content = maps.png(maps.drawn(figure), exact=True)
        with replacing(output / run_folder.PICTURE) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # a picture that cannot be drawn must not fail a run that is trained
        log.warning("no %s: %s", run_folder.PICTURE, error)


def train_run(
    experiment: Experiment,
    output: Path,
    *,
    resume: bool,
    overwrite: bool,
    device: str,
    write: Callable[[Experiment], str] = config.write,
    draw: Callable[[Path], None] = draw_curves,
) -> str:
    """Train, leave the run folder complete, and return one line about the result.

    write: returns the text of the run folder's config.toml
    draw: draws training.png in the run folder, after the training, also when it fails

    Raises MemoryLimitError (exit 7) where a step does not fit into memory, and what records, run folder and training raise.
    """
    check_installed(experiment.training.loggers)
    own_device = distributed.join(pick_device(device))
    if checkpoint := _checkpoint_to_resume(output, resume=resume):
        experiment = as_the_run(experiment, checkpoint)
    archive = _open_archive(experiment)
    weights = None if checkpoint else starting_checkpoint(experiment, output)
    experiment = with_batch_size(with_grid(experiment, archive), archive, own_device, checkpoint)
    trainer = _make_trainer(experiment, archive, output, own_device, checkpoint, weights)
    if checkpoint and trainer.is_finished:
        trainer.measure_members()  # of an older run, or one that ended before it
        return _why_finished(trainer)
    with ExitStack() as held:
        with distributed.in_turn(), _claimed_run_folder(trainer, write, held, is_resumed=bool(checkpoint), overwrite=overwrite):
            trainer.prepare_data()
        result = _run(trainer, draw, weights, checkpoint)
    if result is None:
        resolved = trainer.learner.experiment
        del trainer  # frees its memory, so that what would fit can be measured
        shape, most = case_shape(resolved.data, archive), archive.num_windows("training")
        advice = what_would_fit(resolved, own_device, shape=shape, most=most)
        raise MemoryLimitError(f"{advice}\nThe checkpoints in {output} are kept.")
    no_gain = "" if result.best_step else f": training did not lower the validation loss of {trainer.learner.start_name}"
    return f"{result.output / BEST}  (best at step {result.best_step:,} of {result.step:,}{no_gain})"


def _why_finished(trainer: Trainer) -> str:
    """Return one line about a run that is already complete: at its last step, beyond the requested step, or stopped early."""
    output, step, last = trainer.output, trainer.state.step, trainer.num_steps
    if step == last:
        return f"{output} is already trained to its last step, {step:,}: nothing to resume"
    if step > last:
        return f"{output} is trained to step {step:,}, beyond the requested {last:,}: nothing to resume"
    more = "--set training.early_stopping=0 trains on"
    return f"{output} was ended by early stopping at step {step:,} of {last:,}: nothing to resume; {more}"


def _open_archive(experiment: Experiment) -> Archive:
    """Open the records. Raises UsageError (exit 2), before any data are read, if parts of the config contradict each other."""
    resolve(experiment)
    with distributed.in_turn():
        return open_archive(experiment.data)


def _checkpoint_to_resume(output: Path, *, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to resume from, or None. Set by --resume, or when torchrun restarted this launch's processes.

    Raises CheckpointError (exit 4) where --resume finds none, or where the processes see different run folders.
    """
    checkpoint = run_folder.resumable(output) if resume else None
    launch = distributed.launch()
    if launch and not resume and run_folder.is_resumable(output):
        with suppress(CheckpointError):
            newest = run_folder.resumable(output)
            checkpoint = newest if newest.metadata.get("launch") == launch else None
    steps = distributed.gather(checkpoint and checkpoint.metadata.get("step"))
    if len(set(steps)) > 1:
        raise CheckpointError(f"the processes find different checkpoints in {output}: it must be one folder for all of them")
    return checkpoint


def starting_checkpoint(experiment: Experiment, output: Path | None = None) -> Checkpoint | None:
    """Read the checkpoint that `training.start_from` names; None without one.

    Raises OutputError (exit 5) where a run in the folder `output` would overwrite it.
    """
    if not experiment.training.start_from:
        return None
    checkpoint = read_checkpoint(experiment.training.start_from)
    may_write(run_folder.checkpoints(output) if output else (), overwrite=True, inputs=[checkpoint.path])
    return checkpoint


def with_batch_size(
    experiment: Experiment, archive: Archive, device: torch.device, resumed: Checkpoint | None = None
) -> Experiment:
    """Replace batch_size = "auto" by a number: that of the resumed run, or the largest batch for the memory of this machine.

    Raises MemoryLimitError (exit 7) where not even one case fits.
    """
    if experiment.training.batch_size != "auto":
        return experiment
    if resumed:
        number = resumed.metadata["config"]["training"]["batch_size"]
    else:
        learner = uncompiled(experiment, device)
        check_grids(archive, experiment.data.crop, learner.model)
        shape, most = case_shape(experiment.data, archive), archive.num_windows("training")
        # each process must have the memory for its share
        number = min(distributed.gather(largest_batch(learner, shape=shape, most=most))) * distributed.size()
    training = experiment.training.model_copy(update={"batch_size": number})
    return experiment.model_copy(update={"training": training})


def _make_trainer(
    experiment: Experiment,
    archive: Archive,
    output: Path,
    device: torch.device,
    checkpoint: Checkpoint | None,
    weights: Checkpoint | None,
) -> Trainer:
    """Return a trainer at its first step, or at that of the `checkpoint` to resume; `weights` are those to start with.

    Raises CheckpointError (exit 4) where either does not fit the experiment.
    """
    trainer = Trainer(Learner(experiment, device), archive, output, _case_picture(experiment, archive))
    check_shares(trainer.learner.model, experiment.training.batch_size)
    if checkpoint:
        check_resumable(checkpoint, trainer.learner.experiment, archive)
        trainer.restore(checkpoint)
    if weights:
        trainer.learner.start_from(weights, quantity=archive.quantity)
    return trainer


def _case_picture(experiment: Experiment, archive: Archive) -> Draw | None:
    """Return the function that draws a case for the loggers, which imports matplotlib; None where none takes pictures."""
    if not any(LOGGERS[name].takes_pictures for name in experiment.training.loggers):
        return None
    from nowcast.report.case_picture import draw_case

    return partial(draw_case, quantity=archive.quantity)


@contextmanager
def _claimed_run_folder(
    trainer: Trainer, write: Callable[[Experiment], str], held: ExitStack, *, is_resumed: bool, overwrite: bool
) -> Iterator[None]:
    """Context manager around packing. Fails early if the run folder cannot be written; replaces an old run only after
    packing succeeds.

    held: keeps the run folder from other trainings until it is closed

    Raises OutputError (exit 5).
    """
    output, text = trainer.output, write(trainer.learner.experiment)
    best, last = trainer.snapshots.num_bytes()
    if not distributed.is_first():
        yield
    elif is_resumed:
        held.enter_context(locked(output))
        run_folder.check_room(output, last)
        yield
        run_folder.write_config(output, text)  # [training] may have changed, for example to more steps
        # a validation that was recorded and not saved is made again
        run_folder.forget_after(output / run_folder.METRICS, trainer.state.validated_step)
    else:
        # three times `last`: last, previous, and the temporary file that becomes the next last
        with run_folder.claimed(output, held, overwrite=overwrite, num_bytes=best + 3 * last):
            yield
            run_folder.begin(output, text)


def _run(
    trainer: Trainer, draw: Callable[[Path], None], weights: Checkpoint | None, resumed: Checkpoint | None
) -> Result | None:
    """Run the training with a log file beside it, then draw its curves. Return None where it ran out of memory.

    weights, resumed: the checkpoint that it starts with or resumes
    """
    output = trainer.output
    with _log_file(output / run_folder.LOG):
        for line in trainer.archive.account.lines():
            log.info("%s", line)
        _warn(weights, trainer.learner, trainer.archive, resumed)
        try:
            return trainer.run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            give_back_freed_memory()
            draw(output)


def _warn(weights: Checkpoint | None, learner: Learner, archive: Archive, resumed: Checkpoint | None = None) -> None:
    """Warn of keys without effect, of what the weights of `training.start_from` saw, and of other validations than before."""
    lines = without_effect(learner.experiment, archive)
    if weights:
        name = learner.settings.start_from
        lines += [*unlike_start(weights, name, learner.experiment.data, archive), *seen_windows(weights, name, archive)]
    for line in [*lines, *(other_validation(resumed, learner.settings) if resumed else ())]:
        log.warning("%s", line)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Context manager that also writes the package's log to a file."""
    if not distributed.is_first():
        yield
        return
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("nowcast")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log file that is abandoned, with one warning, if it cannot be written, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        root = logging.getLogger("nowcast")
        if self in root.handlers:
            root.removeHandler(self)
            log.warning("%s cannot be written: training goes on without", self.baseFilename)


def dry_run_summary(experiment: Experiment, device: str) -> dict[str, Any]:
    """Return what training would do and cost, as one JSON object. Writes nothing but the cache of packed frames."""
    # a training ends with a picture, so the memory of matplotlib counts
    from nowcast.report import training_curves  # noqa: F401

    own_device = distributed.join(pick_device(device))
    archive = _open_archive(experiment)
    weights = starting_checkpoint(experiment)
    learner = Learner(with_batch_size(with_grid(experiment, archive), archive, own_device), own_device)
    check_quantity(archive, learner.model.config)
    check_grids(archive, experiment.data.crop, learner.model)
    if weights:
        learner.start_from(weights, quantity=archive.quantity)
    _warn(weights, learner, archive)
    windows = {split: archive.num_windows(split) for split in archive.windows}
    settings, num_steps = learner.settings, count_steps(learner.settings, windows["training"])
    cost = estimate(learner, batch_size=settings.batch_size, shape=case_shape(experiment.data, archive))
    return {
        "num_parameters": num_parameters(learner.model),
        "num_windows": sum(windows.values()),
        "windows": windows,
        "account": archive.account.as_dict(),
        "num_steps": num_steps,
        "device": learner.device.type,
        "precision": learner.precision_name,
        **cost.as_dict(num_steps),
        "records": [record.name for record in archive.records],
        "config": config.as_dict(learner.experiment),
    }


def dry_run_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines of `dry_run_summary` for people: the resolved config as TOML, then a summary."""
    resolved = config.write(config.from_dict(summary["config"], source="config"))
    splits = ", ".join(f"{number:,} {split}" for split, number in summary["windows"].items())
    account = ", ".join(f"{key.removeprefix('num_')} {value:,}" for key, value in summary["account"].items() if value)
    no_choice = "validation   no windows: the newest weights will be taken as the best; see data.splits"
    return [
        resolved.rstrip(),
        "",
        f"records      {', '.join(summary['records'])}",
        f"windows      {splits}  ({account})",
        *([] if summary["windows"]["validation"] else [no_choice]),
        f"parameters   {summary['num_parameters']:,}",
        f"steps        {summary['num_steps']:,} on {summary['device']} in {summary['precision']}",
        f"time         {summary['seconds_per_step']:.3g} s a step, {summary['estimated_hours']:.2g} h in all at this load",
        f"memory       {summary['estimated_memory_mb']:,.0f} MB at the peak of a step",
    ]
