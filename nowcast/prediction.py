"""Forecaster + record -> forecast file: which reference times, their past frames, and the files they go to."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nowcast import __version__
from nowcast.cases import Selection, num_leads, read_past, references_of, time_step
from nowcast.errors import UsageError
from nowcast.forecast_file import write_forecast
from nowcast.forecaster import Forecaster, Network
from nowcast.netcdf import Record
from nowcast.progress import track


def predict(
    forecaster: Forecaster, records: Sequence[Record], output: Path, *, selection: Selection, folder: bool, overwrite: bool = False
) -> list[Path]:
    """Forecast every record and write one file, or with `folder` one per reference time; returns the files.

    Memory is bounded by one case. Raises NotEnoughFrames (exit 75), DataError (3), UsageError (2), OutputError (5).
    """
    if len(records) > 1 and not folder:
        names = ", ".join(record.name for record in records)
        raise UsageError(f"{len(records)} series on different grids ({names}) do not fit in one file: give --output FOLDER/")
    jobs = []
    for record in records:
        step = time_step(forecaster, record)
        jobs.append((record, step, references_of(record, selection, forecaster.input_frames, step)))
    written = []
    for record, step, references in jobs:
        prefix = f"{record.name}_" if len(records) > 1 else ""
        paths = [output / f"{prefix}{_stamp(t)}.nc" for t in references] if folder else [output]
        groups = [[t] for t in references] if folder else [references]
        if folder:
            output.mkdir(parents=True, exist_ok=True)
        for path, group in zip(track(paths, f"forecasting {record.name}", unit="file"), groups, strict=True):
            _write(forecaster, record, path, group, step, overwrite=overwrite)
            written.append(path)
    return written


def _write(
    forecaster: Forecaster,
    record: Record,
    path: Path,
    references: Sequence[np.datetime64],
    step: np.timedelta64,
    *,
    overwrite: bool,
) -> None:
    leads = num_leads(forecaster)
    write_forecast(
        path,
        _cases(forecaster, record, references, step, leads),
        grid=record.grid,
        lead_times=np.arange(1, leads + 1) * step,
        quantity=record.quantity,
        attributes=attributes(forecaster, record),
        single=len(references) == 1,
        overwrite=overwrite,
    )


def _cases(
    forecaster: Forecaster, record: Record, references: Sequence[np.datetime64], step: np.timedelta64, leads: int
) -> Iterator[tuple[np.datetime64, np.ndarray]]:
    for reference in references:
        past = read_past(record, reference, forecaster.input_frames, step)
        yield reference, forecaster.forecast(past[None], leads)[0]


def attributes(forecaster: Forecaster, record: Record) -> dict[str, str]:
    """The global attributes of a forecast file."""
    model = f"{forecaster.name}, nowcast {__version__}"
    if isinstance(forecaster, Network):
        model = f"{forecaster.experiment.model.name}, checkpoint SHA-256 {forecaster.digest}, nowcast {__version__}"
    return {
        "title": f"Nowcast of {'rain rate' if record.quantity == 'rain_rate' else record.variable} from {record.name}",
        "institution": "not stated",
        "source": model,
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} nowcast predict {forecaster.name} {record.name}",
        "references": "Shi et al. (2015), arXiv 1506.04214" if isinstance(forecaster, Network) else forecaster.references,
    }


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("-", "").replace(":", "") + "Z"
