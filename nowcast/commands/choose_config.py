"""Choose the config of a training: a file, the config of a run to resume, or one planned for the records."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nowcast import config as configs
from nowcast.commands.plan import planned, run_config
from nowcast.config.schema import Experiment
from nowcast.errors import UsageError
from nowcast.training.compatibility import check_same
from nowcast.training.run_folder import CONFIG, check_free, is_resumable

log = logging.getLogger(__name__)


def choose_config(
    path: str | None,
    data: Sequence[str],
    settings: Sequence[str],
    *,
    run: Path,
    resume: bool,
    overwrite: bool,
    device: str,
    dry_run: bool,
    hours: float | None = None,
) -> tuple[Experiment, Callable[[Experiment], str]]:
    """Return the config to train, and the function that writes it as text into the run folder.

    `path` is the config file, or None; `data` are records that replace those of the config, `settings` hold
    SECTION.KEY=VALUE, and `hours` is the time that a planned training may take. Raises UsageError (exit 2) for a wrong config
    and for hours beside a config, CheckpointError (exit 4) for a run to resume that does not exist, and OutputError (exit 5)
    for a run folder that must not be written.
    """
    write = configs.write
    if hours is not None and (path is not None or resume):
        raise UsageError("--hours is for planned trainings: the length of this one is set by training.steps in the config")
    if path is not None:
        experiment, write = _from_file(path, settings, run=run if resume else None)
    elif resume:
        experiment, write = run_config(run, settings)
    else:
        if not dry_run:
            check_free(run, overwrite=overwrite)  # before the plan, which reads a sample of the frames
        experiment, recipe = planned(data, settings, device=device, hours=hours)
        write = recipe.text
    if data:
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"records": tuple(data)})})
    return experiment, write


def _from_file(path: str, settings: Sequence[str], *, run: Path | None) -> tuple[Experiment, Callable[[Experiment], str]]:
    """Return the config in a file, or that of the `run` to resume if they agree; and the function that writes it.

    Raises CheckpointError (exit 4) if the file differs from the config of the run.
    """
    config_path = configs.find(path)
    if str(config_path) != str(path):
        log.info("config: %s", config_path)
    experiment = configs.read(config_path, settings)
    if run is None or not ((run / CONFIG).is_file() and is_resumable(run)):
        return experiment, partial(configs.rewritten, configs.read_text(config_path))
    before, _ = run_config(run, ())
    check_same(experiment, before, source=str(config_path), output=run, settings=settings)
    return run_config(run, settings)
