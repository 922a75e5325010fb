"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nowcast import config, report, run_folder
from nowcast.baselines import BASELINES, available
from nowcast.cases import Selection
from nowcast.config import Experiment
from nowcast.device import pick_device
from nowcast.errors import UsageError
from nowcast.estimate import estimate
from nowcast.evaluation import Evaluation, evaluate
from nowcast.atomic import replacing
from nowcast.forecaster import FileForecaster, open_forecaster
from nowcast.models import num_parameters
from nowcast.netcdf import open_records
from nowcast.planning import check_alike, make_plan
from nowcast.prediction import predict
from nowcast.training import Trainer, resolve, thresholds_for

log = logging.getLogger(__name__)


def train_run(experiment: Experiment, output: Path, *, resume: bool, overwrite: bool, device: str) -> str:
    """Train and leave the run folder complete; returns a line about the result."""
    resolved = resolve(experiment)
    where = pick_device(device)
    plan = make_plan(experiment.data)
    trainer = Trainer(experiment, plan, output, device=where)
    if resume:
        checkpoint = run_folder.resumable(output)
        trainer.restore(checkpoint)
        if trainer.state.step >= checkpoint.facts["num_steps"]:
            return f"{output} is trained to its last step, {trainer.state.step:,}, already: nothing to resume"
    else:
        run_folder.begin(output, config.write(resolved), overwrite=overwrite)
    with _log_file(output / run_folder.LOG):
        for line in plan.account.lines():
            log.info("%s", line)
        trainer.prepare_data()
        try:
            result = trainer.run()
        finally:
            _draw(output)
    return f"{result.output / run_folder.BEST}  (best at step {result.best_step:,} of {result.step:,})"


@contextmanager
def _log_file(path: Path):
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
    if not (output / run_folder.METRICS).is_file():
        return
    try:
        content = report.png(report.draw_training(output / run_folder.METRICS))
        with replacing(output / run_folder.PICTURE) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # a picture never costs the run
        log.warning("no %s: %s", run_folder.PICTURE, error)


def dry_run_facts(experiment: Experiment, device: str) -> dict[str, Any]:
    """What training would do, as one JSON object; nothing is written but the cache, where fields are asked for."""
    plan = make_plan(experiment.data)
    trainer = Trainer(experiment, plan, Path(), device=pick_device(device))
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
        f"memory       {facts['estimated_memory_mb']:,.0f} MB for weights, optimizer and one batch",
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
) -> list[Path]:
    """Open, check, forecast, write; returns the files written."""
    opened = open_forecaster(forecaster, device=pick_device(device))
    if isinstance(opened, FileForecaster):
        raise UsageError(f"{forecaster} is a file of forecasts: nothing can be forecast with it; give a run or a baseline")
    folder = output.endswith("/") or Path(output).is_dir()
    series = open_records(records, variable=variable)
    return predict(opened, series, Path(output), selection=selection, folder=folder, overwrite=overwrite)


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
    where = pick_device(device)
    records = open_records(observations, variable=variable)
    check_alike(records)
    always = [name for name in ("persistence", "extrapolation", "pysteps") if name in available()]
    sources: dict[str, Any] = {}
    for given in [*forecasters, *(name for name in always if name not in forecasters)]:
        opened = open_forecaster(given, device=where)
        name = opened.name if opened.name not in sources and (given in BASELINES or opened.name not in BASELINES) else given
        if name in sources:
            raise UsageError(f"{given} is named twice among the forecasters")
        sources[name] = opened
    levels = thresholds or thresholds_for(records[0].quantity)
    return evaluate(sources, records, selection=selection, thresholds=levels)
