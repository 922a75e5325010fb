"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nowcast import config, distributed, pooling, run_folder
from nowcast.atomic import refuse_inputs, replacing
from nowcast.baselines import BASELINES, available
from nowcast.cases import Selection, own_thresholds
from nowcast.checkpoint import PRETRAINED, PRETRAINED_FILE, Checkpoint, read_checkpoint
from nowcast.config import Experiment
from nowcast.device import pick_device
from nowcast.errors import CheckpointError, MemoryLimitError, UsageError, is_out_of_memory
from nowcast.estimate import estimate, largest_batch, what_would_fit
from nowcast.evaluation import Evaluation, Source, evaluate
from nowcast.files import expand
from nowcast.forecast_layout import names_probabilities
from nowcast.forecaster import FileForecaster, Forecaster, Network, open_forecaster
from nowcast.models import num_parameters
from nowcast.netcdf import open_records
from nowcast.planning import Plan, make_plan
from nowcast.prediction import predict
from nowcast.probability_cases import given_thresholds
from nowcast.resuming import check_resumable
from nowcast.signals import stop_on_signals
from nowcast.training import Trainer, check_shares, thresholds_for
from nowcast.watching import watch

log = logging.getLogger(__name__)
ALWAYS = ("persistence", "extrapolation", "pysteps", "sprog")  # beside every evaluation, where they are installed


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
        plan = make_plan(experiment.data)
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
    return f"{result.output / run_folder.BEST}  (best at step {result.best_step:,} of {result.step:,})"


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


def _with_batch_size(experiment: Experiment, plan: Plan, device: torch.device, resumed: Checkpoint | None = None) -> Experiment:
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
        from nowcast import pictures, report  # matplotlib

        content = pictures.png(pictures.drawn(report.draw_training(output / run_folder.METRICS)))
        with replacing(output / run_folder.PICTURE) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # a picture never costs the run
        log.warning("no %s: %s", run_folder.PICTURE, error)


def dry_run_facts(experiment: Experiment, device: str) -> dict[str, Any]:
    """What training would do, as one JSON object; nothing is written but the cache, where fields are asked for."""
    from nowcast import report  # noqa: F401  matplotlib's memory counts: a training ends with a picture

    where = distributed.join(pick_device(device))
    with distributed.in_turn():
        plan = make_plan(experiment.data)
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


def predict_files(
    forecaster: str,
    records: Sequence[str],
    output: str,
    selection: Selection,
    *,
    variable: str | None,
    device: str,
    overwrite: bool,
    probabilities: bool = False,
    thresholds: tuple[float, ...] | None = None,
) -> list[Path]:
    """Open, check, forecast, write; returns the files written.

    With `probabilities` they hold those of exceeding `thresholds`, mm/h (default: the forecaster's own), as well.
    """
    folder = output.endswith("/") or Path(output).is_dir()
    if distributed.size() > 1 and not folder:
        raise UsageError(f"{distributed.size()} processes cannot write one file.\nGive a folder: --output FOLDER/")
    where = distributed.join(pick_device(device))
    with distributed.in_turn():
        opened = _open_maker(forecaster, where)
        levels = _levels(opened, thresholds) if probabilities else ()
        series = open_records(records, **_reading([opened], variable))
    refuse_inputs([] if folder else [Path(output)], model_files(forecaster))
    return predict(opened, series, Path(output), selection=selection, folder=folder, thresholds=levels, overwrite=overwrite)


def watch_folder(
    forecaster: str,
    folder: str,
    output: str,
    *,
    variable: str | None,
    device: str,
    probabilities: bool = False,
    thresholds: tuple[float, ...] | None = None,
) -> Iterator[Path]:
    """Forecast from each frame that arrives in a folder, until a signal comes; gives the files as they are written."""
    if distributed.size() > 1:
        raise UsageError(f"{distributed.size()} processes cannot watch one folder: each would forecast the same; start one")
    opened = _open_maker(forecaster, pick_device(device))
    levels = _levels(opened, thresholds) if probabilities else ()
    reading = _reading([opened], variable)
    with stop_on_signals() as stop:
        yield from watch(opened, Path(folder), Path(output), reading=reading, stop=stop, thresholds=levels)
        raise stop.error("stopped watching; what was begun is written")


def _open_maker(name: str, device: torch.device) -> Forecaster:
    opened = open_forecaster(name, device=device)
    if isinstance(opened, FileForecaster):
        raise UsageError(f"{name} is a file of forecasts: nothing can be forecast with it; give a run or a baseline")
    return opened


def _levels(forecaster: Forecaster, asked: tuple[float, ...] | None) -> tuple[float, ...]:
    """The thresholds to give probabilities of; UsageError where a forecaster gives none."""
    own = own_thresholds(forecaster)
    if not own:
        raise UsageError(
            f"{forecaster.name} gives no probabilities.\nRight would be extrapolation, or a network that was trained for them."
        )
    return asked or own


def model_files(forecaster: str) -> list[Path]:
    """The files that a forecaster is read from, which no output may replace: checkpoints, or forecast files."""
    path = Path(forecaster)
    if forecaster in BASELINES:
        return []
    if forecaster == PRETRAINED:
        return [PRETRAINED_FILE]
    if path.is_dir() and run_folder.checkpoints(path):
        return run_folder.checkpoints(path)
    return [path] if path.is_file() else expand(forecaster)


def export_run(run: str, output: Path, *, overwrite: bool) -> str:
    """Write a trained network for use without nowcast; returns the Python expression that calls it."""
    from nowcast import export

    export.check_output(output, overwrite=overwrite)
    opened = None if run in BASELINES else open_forecaster(run, device=torch.device("cpu"))
    if not isinstance(opened, Network):
        raise UsageError(f"{run} is no trained network: export takes a run folder or a checkpoint")
    refuse_inputs([output], model_files(run))
    return export.export(opened, output)


def _reading(sources: Iterable[Source], variable: str | None) -> dict[str, Any]:
    """How to read records for these forecasters: as the first network was trained, but for a variable asked for.

    One of probabilities is a forecast file's: no record holds it.
    """
    found = next((source.reading for source in sources if isinstance(source, Network)), {"variable": None})
    return found if variable is None or names_probabilities(variable) else {**found, "variable": variable}


def evaluate_forecasters(
    forecasters: Sequence[str],
    observations: Sequence[str],
    selection: Selection,
    *,
    thresholds: tuple[float, ...] | None,
    variable: str | None,
    device: str,
    examples: bool = False,
    outputs: Sequence[Path] = (),
) -> Evaluation:
    """Score the forecasters, and always the baselines that are installed, on the same cases.

    outputs: the files that will be written; OutputError (exit 5) where one of them is an input.
    """
    where = distributed.join(pick_device(device))
    sources = open_sources(forecasters, device=where, variable=variable)
    records = open_records(observations, **_reading(sources.values(), variable))
    files = [path for record in records for path in record.paths]
    refuse_inputs(outputs, [*files, *(path for forecaster in forecasters for path in model_files(forecaster))])
    levels = thresholds or given_thresholds(sources) or thresholds_for(records[0].quantity)
    return evaluate(sources, records, selection=selection, thresholds=levels, examples=examples)


def pooled_scores(names: Sequence[str], options: Mapping[str, object], *, outputs: Sequence[Path] = ()) -> Evaluation | None:
    """The evaluation that earlier scores.nc files add up to; None where the names are forecasters.

    `options` are those that say what to score, with what was given for them: UsageError if anything was. OutputError where
    one of the `outputs` is among the files.
    """
    found = [name for name in names if pooling.is_scores_file(name)]
    if not found:
        return None
    if others := [name for name in names if name not in found]:
        raise UsageError(f"{found[0]} holds scores and {others[0]} does not: pool scores.nc files alone")
    if given := [option for option, value in options.items() if value]:
        raise UsageError(f"{given[0]} cannot be given with scores.nc files: they hold what was scored")
    if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise UsageError(f"{twice} is named twice: its cases would count twice")
    refuse_inputs(outputs, map(Path, names))
    return pooling.pool(names)


def open_sources(forecasters: Sequence[str], *, device: torch.device, variable: str | None = None) -> dict[str, Source]:
    """The forecasters by the names that scores give them: first those asked for, then the baselines of every evaluation.

    A run or file that is named like another, or like a baseline, goes by its path.
    """
    sources: dict[str, Source] = {}
    for given in [*forecasters, *(name for name in ALWAYS if name in available() and name not in forecasters)]:
        opened = open_forecaster(given, device=device, variable=variable)
        taken = opened.name in sources or (opened.name in BASELINES and given not in BASELINES)
        name = given if taken else opened.name
        if name in sources:
            raise UsageError(f"{given} is named twice among the forecasters")
        sources[name] = opened
    return sources
