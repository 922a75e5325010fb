"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.dataset.archive import Archive, open_archive
from nowcast.errors import CheckpointError, MemoryLimitError, is_out_of_memory
from nowcast.models import checkpoint as models_checkpoint
from nowcast.models import num_parameters
from nowcast.models.checkpoint import Checkpoint, read_checkpoint
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import replacing
from nowcast.training import run_folder
from nowcast.training.compatibility import check_resumable
from nowcast.training.experiment import check_shares
from nowcast.training.step_cost import estimate, largest_batch, what_would_fit
from nowcast.training.trainer import Trainer

log = logging.getLogger(__name__)


def train_run(
    experiment: Experiment,
    output: Path,
    *,
    resume: bool,
    overwrite: bool,
    device: str,
    write: Callable[[Experiment], str] = config.write,
) -> str:
    """Train and leave the run folder complete; returns a line about the result. `write` gives the text of its config."""
    where = distributed.join(pick_device(device))
    with distributed.in_turn():
        plan = open_archive(experiment.data)
    checkpoint = _checkpoint_of(output, resume=resume)
    resume = checkpoint is not None
    weights = None if resume else _starting_checkpoint(experiment)
    experiment = _with_batch_size(experiment, plan, where, checkpoint)
    trainer = Trainer(experiment, plan, output, device=where)
    check_shares(trainer.model, experiment.training.batch_size)
    if checkpoint:
        check_resumable(checkpoint, trainer.experiment, plan)
        trainer.restore(checkpoint)
        if trainer.is_finished:
            return f"{output} is trained to its last step, {trainer.state.step:,}, already: nothing to resume"
    if weights:
        trainer.start_from(weights)
    with distributed.in_turn(), _run_folder(trainer, write, resumed=resume, overwrite=overwrite):
        trainer.prepare_data()
    with _log_file(output / run_folder.LOG):
        for line in plan.account.lines():
            log.info("%s", line)
        try:
            result = trainer.run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            result = None
        finally:
            _draw(output)
        if result is None:
            settings = trainer.experiment
            del trainer  # and its memory
            raise MemoryLimitError(f"{what_would_fit(settings, plan, where)}\nThe checkpoints in {output} are kept.")
    return f"{result.output / models_checkpoint.BEST}  (best at step {result.best_step:,} of {result.step:,})"


def _starting_checkpoint(experiment: Experiment) -> Checkpoint | None:
    return read_checkpoint(experiment.training.start_from) if experiment.training.start_from else None


def _checkpoint_of(output: Path, *, resume: bool) -> Checkpoint | None:
    """What to go on from: asked for, or since this very launch began the run and torchrun has started its processes anew."""
    found = run_folder.resumable(output) if resume else None
    launch = distributed.launch()
    if launch and not resume and run_folder.is_resumable(output):
        with suppress(CheckpointError):
            left = run_folder.resumable(output)
            found = left if left.facts.get("launch") == launch else None
    steps = distributed.gather(found and found.facts.get("step"))
    if len(set(steps)) > 1:
        raise CheckpointError(f"the processes find different checkpoints in {output}: it must be one folder for all of them")
    return found


@contextmanager
def _run_folder(trainer: Trainer, write: Callable[[Experiment], str], *, resumed: bool, overwrite: bool):
    """Around the packing of the data: what cannot be written is found before it, and an old run gives way after it."""
    output, text = trainer.output, write(trainer.experiment)
    best, last = trainer.checkpoint_bytes()
    if not distributed.is_first():
        yield
    elif resumed:
        run_folder.check_room(output, last)
        yield
        run_folder.write_config(output, text)  # it may ask for more steps than before
        run_folder.forget_after(output / run_folder.METRICS, trainer.state.step)
    else:
        with run_folder.claimed(output, overwrite=overwrite, num_bytes=best + 3 * last):  # last, previous, a temporary
            yield
            run_folder.begin(output, text)


def _with_batch_size(
    experiment: Experiment, plan: Archive, device: torch.device, resumed: Checkpoint | None = None
) -> Experiment:
    """With a number for batch_size = "auto": a resumed run's own, else the largest that fits (into every process)."""
    if experiment.training.batch_size != "auto":
        return experiment
    if resumed:
        number = resumed.facts["config"]["training"]["batch_size"]
    else:
        number = min(distributed.gather(largest_batch(experiment, plan, device))) * distributed.size()
    training = experiment.training.model_copy(update={"batch_size": number})
    return experiment.model_copy(update={"training": training})


@contextmanager
def _log_file(path: Path):
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
    """A log that cannot be written, as on a full disk, is done without."""

    def handleError(self, record: logging.LogRecord) -> None:
        root = logging.getLogger("nowcast")
        if self in root.handlers:
            root.removeHandler(self)
            log.warning("%s cannot be written: training goes on without", self.baseFilename)


def _draw(output: Path) -> None:
    if not distributed.is_first() or not (output / run_folder.METRICS).is_file():
        return
    try:
        from nowcast.report import folder as report_folder
        from nowcast.report import maps  # matplotlib

        content = maps.png(maps.drawn(report_folder.draw_training(run_folder.read_events(output / run_folder.METRICS))))
        with replacing(output / run_folder.PICTURE) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # a picture never costs the run
        log.warning("no %s: %s", run_folder.PICTURE, error)


def dry_run_facts(experiment: Experiment, device: str) -> dict[str, Any]:
    """What training would do, as one JSON object; nothing is written but the cache, where fields are asked for."""
    from nowcast.report import folder as report_folder  # noqa: F401  matplotlib's memory counts: a training ends with a picture

    where = distributed.join(pick_device(device))
    with distributed.in_turn():
        plan = open_archive(experiment.data)
    weights = _starting_checkpoint(experiment)
    trainer = Trainer(_with_batch_size(experiment, plan, where), plan, Path(), device=where)
    if weights:
        trainer.start_from(weights)
    splits = {split: plan.num_windows(split) for split in plan.windows}
    return {
        "num_parameters": num_parameters(trainer.model),
        "num_windows": sum(splits.values()),
        "windows": splits,
        "account": plan.account.as_dict(),
        "num_steps": trainer.num_steps,
        "device": trainer.device.type,
        "precision": str(trainer.precision).removeprefix("torch."),
        **estimate(trainer).as_dict(trainer.num_steps),
        "records": [record.name for record in plan.records],
        "config": config.as_dict(trainer.experiment),
    }


def dry_run_lines(facts: Mapping[str, Any]) -> list[str]:
    """The same for people: the resolved config as TOML, then what it comes to."""
    resolved = config.write(config.from_dict(facts["config"], source="config"))
    splits = ", ".join(f"{number:,} {split}" for split, number in facts["windows"].items())
    account = ", ".join(f"{key.removeprefix('num_')} {value:,}" for key, value in facts["account"].items() if value)
    return [
        resolved.rstrip(),
        "",
        f"records      {', '.join(facts['records'])}",
        f"windows      {splits}  ({account})",
        f"parameters   {facts['num_parameters']:,}",
        f"steps        {facts['num_steps']:,} on {facts['device']} in {facts['precision']}",
        f"time         {facts['seconds_per_step']:.3g} s a step, {facts['estimated_hours']:.2g} h in all",
        f"memory       {facts['estimated_memory_mb']:,.0f} MB at the peak of a step",
    ]
