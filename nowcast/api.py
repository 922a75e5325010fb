"""nowcast in Python: load and train networks, forecast arrays, score forecasters. The page is data/python.md.

All of it is also in the package itself, imported when it is first used: `import nowcast; nowcast.load("pretrained")`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from nowcast.errors import UsageError, counted, in_words_of_python
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.rain.data_arrays import in_utc
from nowcast.prediction.arrays import Array, Asked, forecast_array
from nowcast.prediction.given import as_path, as_paths, as_thresholds, as_time, as_variable, listed, observed

if TYPE_CHECKING:
    from nowcast.evaluation.result import Evaluation

__all__ = ["Net", "Run", "Scores", "evaluate", "load", "open_records", "train"]
FORECASTERS = 'a run folder, a checkpoint, "pretrained", or a baseline such as "extrapolation"'
CONFIG = "a config file, or its sections as a dict"
Paths = str | os.PathLike | Sequence[str | os.PathLike]


@contextmanager
def _called() -> Iterator[None]:
    """Close the files that a call opened; make its errors name Python arguments instead of options."""
    with in_words_of_python(), OPEN_FILES.closed_after():
        yield


class Net:
    """A forecaster for arrays: a trained network or a baseline. Made by `load`."""

    def __init__(self, forecaster: Forecaster):
        self.forecaster = forecaster

    def __repr__(self) -> str:
        about = self.forecaster.describe()["what"]
        return f"<nowcast.Net {self.name}: {about}; {counted(self.forecaster.input_frames, 'frame')} in, {self.leads} out>"

    @property
    def name(self) -> str:
        """Return its name in scores."""
        return self.forecaster.name

    @property
    def leads(self) -> int:
        """Return the default number of lead times."""
        return self.forecaster.num_leads

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the thresholds (mm/h) of its probabilities; () for a forecaster that gives none."""
        return self.forecaster.thresholds

    def forecast(
        self, rain: Array, leads: int | None = None, *, units: str | None = None, time_step: float | None = None
    ) -> np.ndarray | xr.DataArray:
        """Forecast from the newest frames of a DataArray or a NumPy array.

            rain: (time, y, x), or (case, time, y, x); NaN missing, newest frame last
            leads: number of lead times
            units, time_step: of a NumPy array, if it is not in mm/h, and minutes between its frames
            returns: (time, y, x) or (case, time, y, x) mm/h at the lead times, of the kind of `rain`

        Raises UsageError, DataError and NotEnoughFrames as `prediction.arrays.forecast_array`.
        """
        return forecast_array(self.forecaster, in_utc(rain), Asked(self._leads(leads)), units=units, time_step=time_step)

    def probabilities(
        self,
        rain: Array,
        thresholds: Sequence[float] | float | None = None,
        leads: int | None = None,
        *,
        units: str | None = None,
        time_step: float | None = None,
    ) -> np.ndarray | xr.DataArray:
        """Forecast the probability of reaching each threshold (mm/h; default: the forecaster's own).

            rain, leads, units, time_step: as `forecast`
            returns: (threshold, time, y, x) or (case, threshold, time, y, x) from 0 to 1, of the kind of `rain`

        Raises UsageError (exit 2) for a forecaster that gives no probabilities, and the errors of `forecast`.
        """
        if not self.thresholds:
            raise UsageError(f"{self.name} gives no probabilities.\nUse extrapolation, or a network that was trained for them.")
        rates = as_thresholds(thresholds) or self.thresholds
        return forecast_array(self.forecaster, in_utc(rain), Asked(self._leads(leads), rates), units=units, time_step=time_step)

    def members(
        self,
        rain: Array,
        members: int,
        leads: int | None = None,
        *,
        seed: int = 0,
        units: str | None = None,
        time_step: float | None = None,
    ) -> np.ndarray | xr.DataArray:
        """Draw ensemble members. The same seed gives the same members; the first n are the same for any number.

            rain, leads, units, time_step: as `forecast`
            members: number of members
            returns: (realization, time, y, x) or (case, realization, time, y, x) mm/h, of the kind of `rain`

        Raises UsageError (exit 2) for a forecaster that gives no members, and the errors of `forecast`.
        """
        if not members:
            raise UsageError("members = 0: write the number of members to draw, such as 24")
        asked = Asked(self._leads(leads), members=members, seed=seed)
        return forecast_array(self.forecaster, in_utc(rain), asked, units=units, time_step=time_step)

    def _leads(self, leads: int | None) -> int:
        return self.leads if leads is None else leads


@_called()
def load(forecaster: str | os.PathLike, *, device: str = "auto") -> Net:
    """Load a forecaster: a run folder, a checkpoint, "pretrained", or a baseline such as "extrapolation".

    device: auto, cpu, cuda, cuda:0, … or mps

    Raises CheckpointError (exit 4) if there is no such forecaster, UsageError (2) for a forecast file or an absent device.
    """
    from nowcast.forecasters import device_for, open_forecaster

    name = as_path(forecaster, "forecaster", expected=FORECASTERS)
    opened = open_forecaster(name, device=device_for([name], device))
    if not opened.makes_forecasts:
        raise UsageError(f"{name} is a forecast file, which cannot make new forecasts; give a run or a baseline")
    return Net(opened)


@dataclass(frozen=True)
class Run:
    """A run folder of a training. Made by `train`."""

    folder: Path

    def load(self, *, device: str = "auto") -> Net:
        """Load the best network of the run. Raises CheckpointError (exit 4) if it has none."""
        return load(self.folder, device=device)

    def __fspath__(self) -> str:
        return str(self.folder)

    def events(self) -> list[dict[str, Any]]:
        """Return the events of metrics.jsonl: losses and scores, by step."""
        from nowcast.training.run_folder import METRICS, read_events

        return read_events(Path(self.folder) / METRICS)


@contextmanager
def _session_kept() -> Iterator[None]:
    """Leave a session's random numbers and threads as they were before a training."""
    from nowcast.runtime.device import session_kept  # imports torch

    with session_kept():
        yield


@_called()
@_session_kept()
def train(
    config: str | os.PathLike | Mapping[str, Any] | None = None,
    data: Paths | None = None,
    output: str | os.PathLike | None = None,
    set: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Run:
    """Train a network, as `nowcast train` does; return the run.

    config: a config file, its sections as a dict, or None to have one planned for the data
    data: records, in place of those of the config
    output: run folder; by default runs/ and the name of the config
    resume: continue the run in `output`, with its own config unless one is given
    set: values by dotted key, such as {"training.steps": 500}

    Raises UsageError (exit 2) for neither config nor data, and the errors of `nowcast train`: see `commands.train.train_run`.
    """
    from nowcast import config as configs
    from nowcast.commands.choose_config import choose_config
    from nowcast.commands.train import train_run

    if config is None and data is None and not resume:
        raise UsageError("nothing to train: give a config, or data to have one planned")
    records, settings = [] if data is None else as_paths(data, "data"), configs.as_settings(set)
    name = None if config is None or isinstance(config, Mapping) else as_path(config, "config", expected=CONFIG)
    usual = Path(name).stem if name else "planned" if config is None else "trained"
    run = Path(as_path(output, "output", expected="a folder")) if output else Path("runs") / usual
    if isinstance(config, Mapping):
        experiment, write = configs.with_settings(configs.plain(config), settings, source="config"), configs.write
        if records:
            experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"records": tuple(records)})})
    else:
        experiment, write = choose_config(
            name, records, settings, run=run, resume=resume, overwrite=overwrite, device=device, dry_run=False
        )
    train_run(experiment, run, resume=resume, overwrite=overwrite, device=device, write=write)
    return Run(run)


class Scores(xr.Dataset):
    """The scores of an evaluation: what scores.nc holds (`csi`, `csi_pooled`, `csi_low`, … by forecaster, lead and threshold).

    Tables and report are those of the whole evaluation: a selection of the Dataset has none.
    """

    __slots__ = ("_evaluation", "_rows")

    @classmethod
    def of(cls, evaluation: "Evaluation") -> "Scores":
        """Return the scores of an evaluation."""
        from nowcast.evaluation.score_files import as_dataset

        rows = evaluation.rows()
        dataset = as_dataset(evaluation, rows)
        scores = cls(dataset.data_vars, dataset.coords, dataset.attrs)
        scores._evaluation, scores._rows = evaluation, rows
        return scores

    @property
    def evaluation(self) -> "Evaluation":
        """Return the evaluation. Raises UsageError (exit 2) for a selection of the Dataset, which has none."""
        if not hasattr(self, "_evaluation"):
            raise UsageError("a selection or copy of the scores has no table and no report: use those that evaluate returned")
        return self._evaluation

    def table(self) -> str:
        """Return the tables that `nowcast evaluate` prints, as text."""
        from nowcast.report.table import table

        return table(self.evaluation)

    @_called()
    def report(self, folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write report.html, scores.nc, scores.csv, scores.json and pictures to a folder; return the path of report.html.

        Raises OutputError (exit 5) if a file exists already, is an input of the evaluation or cannot be written.
        """
        from nowcast.report import folder as report_folder

        arguments = self.evaluation, self._rows, Path(folder).expanduser()
        return report_folder.write(*arguments, command="nowcast.evaluate", overwrite=overwrite)[0]


@_called()
def evaluate(
    forecasters: "Forecaster | Net | Run | str | Sequence",
    observations: "Paths | xr.DataArray | xr.Dataset | Sequence[xr.DataArray | xr.Dataset]",
    *,
    start: Any = None,
    end: Any = None,
    every: float | None = None,
    leads: int | None = None,
    members: int | None = None,
    seed: int = 0,
    thresholds: Sequence[float] | float | None = None,
    variable: str | None = None,
    device: str = "auto",
) -> Scores:
    """Score forecasters, and persistence and extrapolation beside them, on the same cases, as `nowcast evaluate` does.

    forecasters: one or several that `load` returned, runs, or names that `load` or `nowcast evaluate` takes
    observations: records, or one or several DataArrays (time, y, x)
    start, end: first and last reference time (UTC), the last a time, text or a date (a whole day); every: minutes between them
    leads: number of lead times; members, seed: number of ensemble members that are scored, and seed of their random numbers
    thresholds: one or several, mm/h

    Raises UsageError (exit 2) for wrong arguments, and the errors of `commands.evaluate.evaluate_forecasters`.
    """
    from nowcast.commands.evaluate import evaluate_forecasters
    from nowcast.prediction.cases import Selection

    given = [_forecaster(each) for each in listed(forecasters, str)]
    selection = Selection((), _time(start, "start"), _time(end, "end", whole_day=True), every)
    asked = Asked(1 if leads is None else leads, members=members or 0, seed=seed)
    drawn = {"leads": leads, "members": asked.members or None, "seed": asked.seed}
    reading = {"thresholds": as_thresholds(thresholds), "variable": as_variable(variable), "device": device}
    with observed(observations) as paths:
        return Scores.of(evaluate_forecasters(given, paths, selection, examples=True, **drawn, **reading))


def _time(given: Any, name: str, *, whole_day: bool = False) -> np.datetime64 | None:
    """Return a time in UTC; None for None. Text is parsed as on the command line; whole_day: as for --end."""
    from nowcast.commands.arguments import parse_time

    return (parse_time if given is None or isinstance(given, str) else as_time)(given, name, whole_day=whole_day)


def _forecaster(given: Any) -> "str | Forecaster":
    """Return a forecaster for an evaluation: a baseline by its name."""
    from nowcast.forecasters.baselines import BASELINES

    opened = given.forecaster if isinstance(given, Net) else given
    if isinstance(opened, Forecaster):
        return opened.name if type(opened) is BASELINES.get(opened.name) else opened  # a run may have the same name
    return as_path(opened, "forecasters", expected=FORECASTERS)


@_called()
def open_records(records: Paths, *, variable: str | None = None, zr_a: float = 200.0, zr_b: float = 1.6) -> list[xr.DataArray]:
    """Open records as DataArrays (time, y, x) in mm/h, one for each series; fields are read when they are used.

    Files stay open after a read, and cannot be written, until `close` of their DataArray is called.

    records: NetCDF files, folders or globs
    variable: name of the variable; None: found by CF attributes
    zr_a, zr_b: Z = zr_a R^zr_b, for reflectivity

    Raises UsageError (exit 2) if there are no files or for a wrong Z-R relation, DataError (3) for files that cannot be used.
    """
    from nowcast.netcdf.index import open_with_index
    from nowcast.netcdf.rain.data_arrays import as_data_array

    opened = open_with_index(as_paths(records, "records"), variable=as_variable(variable), zr_a=zr_a, zr_b=zr_b)
    return [as_data_array(record) for record in opened]
