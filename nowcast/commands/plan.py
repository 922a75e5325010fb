"""What `nowcast plan` does, and `nowcast train` where no config is given: the recipe, its file, its training."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.config.toml import rewritten
from nowcast.errors import CheckpointError, UsageError
from nowcast.netcdf.files import expand
from nowcast.plan.recipe import Recipe, make_recipe
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import may_write, replacing
from nowcast.training import run_folder

log = logging.getLogger(__name__)


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


def write(recipe: Recipe, output: Path) -> None:
    """Write the recipe's config, whole or not at all."""
    with replacing(output) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")


def check_output(output: Path, records: Sequence[str], *, overwrite: bool) -> None:
    """OutputError (exit 5) for what cannot or must not be written, before anything is read; UsageError for no records."""
    may_write(output, overwrite=overwrite, inputs=(path for given in records for path in expand(given)))
