"""Choose the config of a training: a file, the config of a run to resume, or one planned for the records."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nowcast import config as configs
from nowcast.commands.plan import planned, run_config
from nowcast.config.schema import Experiment
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
) -> tuple[Experiment, Callable[[Experiment], str]]:
    """Return the config to train, and the function that writes it as text into the run folder.

    `path` is the config file, or None; `data` are records that replace those of the config, and `settings` hold
    SECTION.KEY=VALUE. Raises UsageError (exit 2) for a wrong config, CheckpointError (exit 4) for a run to resume that does
    not exist, and OutputError (exit 5) for a run folder that must not be written.
    """
    write = configs.write
    if path is not None:
        experiment = configs.read(path, settings)
    elif resume:
        experiment, write = run_config(run, settings)
    else:
        if not dry_run:
            check_free(run, overwrite=overwrite)  # before the plan, which takes a minute
        experiment, recipe = planned(data, settings, device=device)
        write = recipe.text
    if data:
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"records": tuple(data)})})
    return experiment, write
