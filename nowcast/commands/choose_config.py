"""Choose the config of a training: a file, the config of a run to resume, or one planned for the records."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nowcast import config as configs
from nowcast.commands.plan import planned, run_config
from nowcast.config.schema import Experiment
from nowcast.errors import UsageError
from nowcast.training.run_folder import check_free


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
        raise UsageError("--hours belongs to a plan: a config says by itself how long it trains, in training.steps")
    if path is not None:
        experiment = configs.read(path, settings)
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
