"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nowcast import config, distributed, run_folder
from nowcast.atomic import replacing
from nowcast.baselines import BASELINES, available
from nowcast.cases import Selection
from nowcast.checkpoint import Checkpoint, read_checkpoint
from nowcast.config import Experiment
from nowcast.config_text import rewritten
from nowcast.device import pick_device
from nowcast.errors import CheckpointError, OutputError, UsageError
from nowcast.estimate import estimate, largest_batch
from nowcast.evaluation import Evaluation, Source, evaluate
from nowcast.forecaster import FileForecaster, Network, open_forecaster
from nowcast.models import num_parameters
from nowcast.netcdf import open_records
from nowcast.planning import Plan, make_plan
from nowcast.prediction import predict
from nowcast.recipe import Recipe, make_recipe
from nowcast.training import Trainer, thresholds_for

log = logging.getLogger(__name__)
ALWAYS = ("persistence", "extrapolation", "pysteps")  # beside every evaluation, where they are installed


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
    plan = make_plan(experiment.data)
    if distributed.is_restarted():  # after one of several processes died: as far as the run has come
        resume, overwrite = (output / run_folder.LAST).exists(), True
    checkpoint = run_folder.resumable(output) if resume else None
    weights = None if resume else _starting_checkpoint(experiment)
    experiment = _with_batch_size(experiment, plan, where, checkpoint)
    trainer = Trainer(experiment, plan, output, device=where)
    if checkpoint:
        trainer.restore(checkpoint)
        if trainer.is_finished:
            return f"{output} is trained to its last step, {trainer.state.step:,}, already: nothing to resume"
    if weights:
        trainer.start_from(weights)
    with _run_folder(output, write(trainer.experiment), resumed=resume, overwrite=overwrite):
        trainer.prepare_data()
    with _log_file(output / run_folder.LOG):
        for line in plan.account.lines():
            log.info("%s", line)
        try:
            result = trainer.run()
        finally:
            _draw(output)
    return f"{result.output / run_folder.BEST}  (best at step {result.best_step:,} of {result.step:,})"


def _starting_checkpoint(experiment: Experiment) -> Checkpoint | None:
    return read_checkpoint(experiment.training.start_from) if experiment.training.start_from else None


@contextmanager
def _run_folder(output: Path, text: str, *, resumed: bool, overwrite: bool):
    """Write the config; a run that fails in this block, before it trains, leaves no run folder behind."""
    if not distributed.is_first():
        yield
    elif resumed:
        with replacing(output / run_folder.CONFIG) as temporary:  # it may ask for more steps than before
            temporary.write_text(text, encoding="utf-8")
        yield
    else:
        run_folder.begin(output, text, overwrite=overwrite)
        with _nothing_left(output):
            yield


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
def _nothing_left(output: Path):
    """A run that fails before it trains leaves no run folder behind."""
    try:
        yield
    except BaseException:
        (output / run_folder.CONFIG).unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds something else
            output.rmdir()
        raise


@contextmanager
def _log_file(path: Path):
    if not distributed.is_first():
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("nowcast")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _draw(output: Path) -> None:
    if not distributed.is_first() or not (output / run_folder.METRICS).is_file():
        return
    try:
        from nowcast import report  # matplotlib

        content = report.png(report.draw_training(output / run_folder.METRICS))
        with replacing(output / run_folder.PICTURE) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # a picture never costs the run
        log.warning("no %s: %s", run_folder.PICTURE, error)


def dry_run_facts(experiment: Experiment, device: str) -> dict[str, Any]:
    """What training would do, as one JSON object; nothing is written but the cache, where fields are asked for."""
    from nowcast import report  # noqa: F401  matplotlib's memory counts: a training ends with a picture

    plan, where = make_plan(experiment.data), pick_device(device)
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


def plan_records(records: Sequence[str], *, variable: str = "auto", device: str) -> Recipe:
    """The recipe for these records on that device; what its user should know goes to the log."""
    if distributed.size() > 1:  # each process would measure, and choose, something else
        raise UsageError(
            "a plan is made by one process: nowcast plan RECORD... --output my.toml, then train my.toml with torchrun"
        )
    recipe = make_recipe(records, variable=variable, device=pick_device(device))
    for warning in recipe.warnings:
        log.warning("%s", warning)
    return recipe


def planned(records: Sequence[str], settings: Sequence[str], *, device: str) -> tuple[Experiment, Recipe]:
    """What to train on records without a config: their recipe with each SECTION.KEY=VALUE of `settings` applied."""
    log.info("no CONFIG given: a plan is made from the records")
    asked = dict(setting.split("=", 1) for setting in settings if "=" in setting)  # what is no setting is refused below
    recipe = plan_records(records, variable=asked.get("data.variable", "auto").strip('"'), device=device)
    for line in recipe.lines():
        log.info("  %s", line)
    return config.with_settings(config.as_toml(recipe.experiment), settings, source="--set"), recipe


def run_config(output: Path, settings: Sequence[str]) -> tuple[Experiment, Callable[[Experiment], str]]:
    """The config that a run began with, changed by `settings`, and how to write it again with its comments.

    Raises CheckpointError (exit 4) where there is no run.
    """
    path = output / run_folder.CONFIG
    if not path.is_file():
        raise CheckpointError(f"{output} holds no {run_folder.CONFIG} to resume with")
    return config.read(path, settings), partial(rewritten, path.read_text(encoding="utf-8"))


def write_plan(recipe: Recipe, output: Path) -> None:
    """Write the recipe's config, whole or not at all."""
    with replacing(output) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")


def check_plan_output(output: Path, *, overwrite: bool) -> None:
    """OutputError (exit 5) for what cannot or must not be written, before anything is read."""
    if output.is_dir() or not output.parent.is_dir():
        reason = "it is a folder" if output.is_dir() else f"there is no folder {output.parent}"
        raise OutputError(f"{output} cannot be written: {reason}.")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already.\nChoose another name, or replace it with --overwrite.")


def predict_files(
    forecaster: str,
    records: Sequence[str],
    output: str,
    selection: Selection,
    *,
    variable: str | None,
    device: str,
    overwrite: bool,
) -> list[Path]:
    """Open, check, forecast, write; returns the files written."""
    opened = open_forecaster(forecaster, device=pick_device(device))
    if isinstance(opened, FileForecaster):
        raise UsageError(f"{forecaster} is a file of forecasts: nothing can be forecast with it; give a run or a baseline")
    folder = output.endswith("/") or Path(output).is_dir()
    series = open_records(records, **_reading([opened], variable))
    return predict(opened, series, Path(output), selection=selection, folder=folder, overwrite=overwrite)


def export_run(run: str, output: Path, *, overwrite: bool) -> str:
    """Write a trained network for use without nowcast; returns the Python expression that calls it."""
    from nowcast import export

    export.check_output(output, overwrite=overwrite)
    opened = None if run in BASELINES else open_forecaster(run, device=torch.device("cpu"))
    if not isinstance(opened, Network):
        raise UsageError(f"{run} is no trained network: export takes a run folder or a checkpoint")
    return export.export(opened, output)


def _reading(sources: Iterable[Source], variable: str | None) -> dict[str, Any]:
    """How to read records for these forecasters: as the first network was trained, but for a variable asked for."""
    found = next((source.reading for source in sources if isinstance(source, Network)), {"variable": None})
    return found if variable is None else {**found, "variable": variable}


def evaluate_forecasters(
    forecasters: Sequence[str],
    observations: Sequence[str],
    selection: Selection,
    *,
    thresholds: tuple[float, ...] | None,
    variable: str | None,
    device: str,
) -> Evaluation:
    """Score the forecasters, and always the baselines that are installed, on the same cases."""
    where = distributed.join(pick_device(device))
    sources = open_sources(forecasters, device=where)
    records = open_records(observations, **_reading(sources.values(), variable))
    levels = thresholds or thresholds_for(records[0].quantity)
    return evaluate(sources, records, selection=selection, thresholds=levels)


def open_sources(forecasters: Sequence[str], *, device: torch.device) -> dict[str, Source]:
    """The forecasters by the names that scores give them: first those asked for, then the baselines of every evaluation.

    A run or file that is named like another, or like a baseline, goes by its path.
    """
    sources: dict[str, Source] = {}
    for given in [*forecasters, *(name for name in ALWAYS if name in available() and name not in forecasters)]:
        opened = open_forecaster(given, device=device)
        taken = opened.name in sources or (opened.name in BASELINES and given not in BASELINES)
        name = given if taken else opened.name
        if name in sources:
            raise UsageError(f"{given} is named twice among the forecasters")
        sources[name] = opened
    return sources
