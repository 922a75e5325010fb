"""Implement `nowcast predict`: check the arguments, open forecaster and records, forecast and write."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nowcast.errors import UsageError
from nowcast.forecasters import device_for, open_forecaster
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.netcdf.forecast_layout import names_probabilities
from nowcast.netcdf.index import open_with_index
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict
from nowcast.prediction.watch import watch
from nowcast.runtime import distributed
from nowcast.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    import torch


def predict_files(
    forecaster: str,
    records: Sequence[str],
    output: str,
    selection: Selection,
    *,
    variable: str | None,
    units: str | None = None,
    device: str,
    overwrite: bool,
    probabilities: bool = False,
    thresholds: tuple[float, ...] | None = None,
    sums: tuple[int, ...] = (),
    leads: int | None = None,
    members: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """Forecast records and write forecast files; return the files.

    leads: number of lead times; default: that of the forecaster
    probabilities: whether to add the probabilities of reaching `thresholds`, mm/h; default: those of the forecaster
    sums: intervals, minutes, whose rain sums to add
    members, seed: number of members to write instead of one field, and the seed of their random numbers

    Raises UsageError (exit 2) for one output file from several processes, the
    errors of `prediction.pipeline.predict`, and CheckpointError (exit 4).
    """
    folder = output.endswith("/") or Path(output).is_dir()
    if distributed.size() > 1 and not folder:
        raise UsageError(f"{distributed.size()} processes cannot write one file.\nGive a folder: --output FOLDER/")
    where = distributed.join(device_for([forecaster], device))
    with distributed.in_turn():
        opened = _open(forecaster, where, leads, members, seed)
        levels = _thresholds(opened, thresholds) if probabilities else ()
        series = open_with_index(records, **reading_for([opened], variable, units))
    added = {"thresholds": levels, "sums": sums}
    return predict(opened, series, Path(output), selection=selection, folder=folder, overwrite=overwrite, **added)


def watch_folder(
    forecaster: str,
    folder: str,
    output: str,
    *,
    variable: str | None,
    units: str | None = None,
    device: str,
    probabilities: bool = False,
    thresholds: tuple[float, ...] | None = None,
    sums: tuple[int, ...] = (),
    leads: int | None = None,
    members: int | None = None,
    seed: int = 0,
) -> Iterator[Path]:
    """Forecast from each frame that arrives in a folder until a signal comes; yield each file when it is written.

    Raises UsageError (exit 2) if several processes are started, and the errors of `prediction.watch.watch`.
    """
    if distributed.size() > 1:
        raise UsageError(f"{distributed.size()} processes cannot watch one folder: each would forecast the same; start one")
    opened = _open(forecaster, device_for([forecaster], device), leads, members, seed)
    levels = _thresholds(opened, thresholds) if probabilities else ()
    reading = reading_for([opened], variable, units)
    with stop_on_signals() as stop:
        yield from watch(opened, Path(folder), Path(output), reading=reading, stop=stop, thresholds=levels, sums=sums)
        raise stop.error("stopped watching; all started files are written")


def _open(name: str, device: "torch.device | None", leads: int | None, members: int | None, seed: int) -> Forecaster:
    """Open a forecaster for `leads` lead times; UsageError (exit 2) if it cannot forecast them.

    With `members`, return the ensemble with this number of members.
    """
    opened = open_forecaster(name, device=device)
    if not opened.makes_forecasts:
        raise UsageError(f"{name} is a forecast file, which cannot make new forecasts; give a run or a baseline")
    if leads is not None:
        opened.limit_leads(leads)
    return opened if members is None else Ensemble(opened, members, seed)


def _thresholds(forecaster: Forecaster, asked: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the thresholds (mm/h) of probabilities; UsageError (exit 2) if the forecaster gives no probabilities."""
    if not forecaster.thresholds:
        raise UsageError(
            f"{forecaster.name} gives no probabilities.\nUse extrapolation, or a network that was trained for them."
        )
    return asked or forecaster.thresholds


def reading_for(forecasters: Iterable[Forecaster], variable: str | None, units: str | None = None) -> dict[str, Any]:
    """Return the keyword arguments of `open_records` for these forecasters: those of the first that has any.

    `variable` and `units` replace theirs, except a variable of probabilities, which only forecast files hold.
    """
    reading = next((dict(each.reading) for each in forecasters if each.reading is not None), {"variable": None})
    reading = reading if units is None else {**reading, "units": units}
    return reading if variable is None or names_probabilities(variable) else {**reading, "variable": variable}
