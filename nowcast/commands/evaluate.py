"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nowcast.commands.predict import model_files, reading_for
from nowcast.errors import UsageError
from nowcast.evaluation import pooling
from nowcast.evaluation.evaluate import Source, evaluate
from nowcast.evaluation.probabilities import given_thresholds
from nowcast.evaluation.result import Evaluation
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import refuse_inputs
from nowcast.training.experiment import thresholds_for

log = logging.getLogger(__name__)
ALWAYS = ("persistence", "extrapolation", "pysteps", "sprog")  # beside every evaluation, where they are installed


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
    records = open_records(observations, **reading_for(sources.values(), variable))
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
