"""Implement `nowcast plan`, and the planning of `nowcast train` without a config: make a recipe and write it."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.config.toml import read_text, rewritten
from nowcast.errors import CheckpointError, UsageError
from nowcast.netcdf.files import expand
from nowcast.plan.recipe import Recipe, make_recipe
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import may_write, replacing
from nowcast.training import run_folder

log = logging.getLogger(__name__)


def plan_records(
    records: Sequence[str], *, variable: str = "auto", units: str = "auto", device: str, hours: float | None = None
) -> Recipe:
    """Make the recipe for these records and this device; log the findings, choices and advice.

    hours: time that the training may take; None: the default of the device

    Raises UsageError (exit 2) under torchrun or for hours that are not above 0, and whatever `make_recipe` raises.
    """
    if distributed.size() > 1:  # each process would make a plan of its own
        raise UsageError(
            "a plan is made by one process: nowcast plan RECORD... --output my.toml, then train my.toml with torchrun"
        )
    if hours is not None and not (hours > 0 and math.isfinite(hours)):
        raise UsageError(f"--hours {hours:g}: expected a number of hours above 0, such as 0.5")
    recipe = make_recipe(records, variable=variable, units=units, device=pick_device(device), hours=hours)
    *found, advice = recipe.lines
    for line in found:
        log.info("%s", line)
    log.log(logging.WARNING if recipe.warnings else logging.INFO, "%s", advice)
    return recipe


def planned(
    records: Sequence[str], settings: Sequence[str], *, device: str, hours: float | None = None
) -> tuple[Experiment, Recipe]:
    """Return the experiment to train where no config is given: the recipe, changed by each SECTION.KEY=VALUE of settings."""
    log.info("no CONFIG given: a plan is made from the records")
    changes = dict(
        setting.split("=", 1) for setting in settings if "=" in setting
    )  # anything else is refused below, by with_settings
    reading = {key: changes.get(f"data.{key}", "auto").strip('"') for key in ("variable", "units")}
    recipe = plan_records(records, **reading, device=device, hours=hours)
    return config.with_settings(config.as_toml(recipe.experiment), settings, source="--set"), recipe


def run_config(output: Path, settings: Sequence[str]) -> tuple[Experiment, Callable[[Experiment], str]]:
    """Return the config of the run folder, changed by `settings`, and a function that writes it with its comments.

    Raises CheckpointError (exit 4) where the folder has no config.
    """
    path = output / run_folder.CONFIG
    if not path.is_file():
        raise CheckpointError(f"{output} holds no {run_folder.CONFIG} to resume with")
    return config.read(path, settings), partial(rewritten, read_text(path))


def write(recipe: Recipe, output: Path, *, overwrite: bool = False) -> None:
    """Write the recipe's config, complete or not at all. Raises OutputError (exit 5), also if the file appeared meanwhile."""
    with replacing(output, overwrite=overwrite) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")


def check_output(output: Path, records: Sequence[str], *, overwrite: bool) -> None:
    """Check, before anything is read, that `output` may be written.

    Raises OutputError (exit 5) where it may not, and UsageError (exit 2) for records that do not exist.
    """
    may_write(output, overwrite=overwrite, inputs=(path for argument in records for path in expand(argument)))
