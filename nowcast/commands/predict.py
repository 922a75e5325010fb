"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nowcast.errors import UsageError
from nowcast.evaluation.evaluate import Source
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.forecasters.forecaster import Forecaster, own_thresholds
from nowcast.forecasters.network import Network
from nowcast.models.checkpoint import PRETRAINED, PRETRAINED_FILE
from nowcast.netcdf.files import expand
from nowcast.netcdf.forecast_layout import names_probabilities
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict
from nowcast.prediction.watch import watch
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import refuse_inputs
from nowcast.runtime.signals import stop_on_signals
from nowcast.training import run_folder


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
        series = open_records(records, **reading_for([opened], variable))
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
    reading = reading_for([opened], variable)
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


def reading_for(sources: Iterable[Source], variable: str | None) -> dict[str, Any]:
    """How to read records for these forecasters: as the first network was trained, but for a variable asked for.

    One of probabilities is a forecast file's: no record holds it.
    """
    found = next((source.reading for source in sources if isinstance(source, Network)), {"variable": None})
    return found if variable is None or names_probabilities(variable) else {**found, "variable": variable}
