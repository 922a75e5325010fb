"""Forecaster + records -> forecast files: which reference times, their past frames, and the files they go to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nowcast import __version__
from nowcast.cases import Selection, listing, num_leads, read_past, references_of, time_step
from nowcast.errors import NotEnoughFrames, OutputError, UsageError
from nowcast.forecast_file import write_forecast
from nowcast.forecaster import Forecaster, Network
from nowcast.netcdf import Record
from nowcast.progress import track

REFERENCES = {  # of baselines and of models
    "extrapolation": "Kroeger et al. (2016), arXiv 1603.03590 (the motion)",
    "pysteps": "Pulkkinen et al. (2019), doi 10.5194/gmd-12-4185-2019",
    "sprog": "Seed (2003); Pulkkinen et al. (2019), doi 10.5194/gmd-12-4185-2019",
    "encoder_forecaster": "Shi et al. (2015), arXiv 1506.04214",
    "multiscale": "Shi et al. (2017), arXiv 1706.03458",
}


@dataclass(frozen=True)
class Job:
    """What is forecast from one record: `references` one time step apart or more, in time order."""

    record: Record
    step: np.timedelta64
    references: tuple[np.datetime64, ...]


def predict(
    forecaster: Forecaster,
    records: Sequence[Record],
    output: Path,
    *,
    selection: Selection,
    folder: bool,
    overwrite: bool = False,
) -> list[Path]:
    """Forecast every record and write one file, or with `folder` one per reference time; returns the files.

    Memory is bounded by one case. Raises NotEnoughFrames (exit 75), DataError (3), UsageError (2), OutputError (5).
    """
    if len(records) > 1 and not folder:
        names = ", ".join(record.name for record in records)
        raise UsageError(
            f"{len(records)} series on different grids do not fit in one file: {names}.\nGive a folder: --output FOLDER/"
        )
    jobs = plan_jobs(forecaster, records, selection)
    if not folder:
        _write(forecaster, jobs[0], output, overwrite=overwrite)
        return [output]
    jobs = [Job(job.record, job.step, (reference,)) for job in jobs for reference in job.references]
    paths = [output / f"{f'{job.record.name}_' if len(records) > 1 else ''}{_stamp(job.references[0])}.nc" for job in jobs]
    _check_free(paths, overwrite)
    with _folder(output):
        for job, path in zip(track(jobs, f"forecasting with {forecaster.name}", unit="case"), paths, strict=True):
            _write(forecaster, job, path, overwrite=overwrite)
    return paths


def plan_jobs(forecaster: Forecaster, records: Sequence[Record], selection: Selection) -> list[Job]:
    """One job for each record of which something is asked; NotEnoughFrames for a time that is in none of them."""
    jobs = []
    for record in records:
        step = time_step(forecaster, record)
        if references := references_of(record, selection, forecaster.input_frames, step):
            jobs.append(Job(record, step, tuple(references)))
    absent = set(selection.listed).difference(*(job.references for job in jobs))
    if absent:
        raise NotEnoughFrames(f"no frame to forecast from at {listing(list(absent))}.\n{_spans(records)}.")
    if not jobs:
        needed = f"the {forecaster.input_frames} past frames that {forecaster.name} needs"
        raise NotEnoughFrames(f"no reference time in the range has {needed}.\n{_spans(records)}.")
    return jobs


def _spans(records: Sequence[Record]) -> str:
    spans = [f"{record.name} goes from {record.times[0]}Z to {record.times[-1]}Z" for record in records[:3]]
    return "; ".join(spans) + ("; …" if len(records) > 3 else "")


def _write(forecaster: Forecaster, job: Job, path: Path, *, overwrite: bool) -> None:
    leads = num_leads(forecaster)
    write_forecast(
        path,
        _cases(forecaster, job, leads),
        grid=job.record.grid,
        lead_times=np.arange(1, leads + 1) * job.step,
        quantity=job.record.quantity,
        attributes=attributes(forecaster, job.record),
        single=len(job.references) == 1,
        overwrite=overwrite,
    )


def _cases(forecaster: Forecaster, job: Job, leads: int) -> Iterator[tuple[np.datetime64, np.ndarray]]:
    shown = len(job.references) > 1  # else whoever asks for many files shows the progress
    for reference in track(job.references, f"forecasting {job.record.name}", unit="case") if shown else job.references:
        past = read_past(job.record, reference, forecaster, job.step)
        yield reference, forecaster.forecast(past[None], leads)[0]


def attributes(forecaster: Forecaster, record: Record) -> dict[str, str]:
    """The global attributes of a forecast file: the institution is the record's, the source is the forecaster."""
    model, checkpoint, references = forecaster.name, "", "none"
    if isinstance(forecaster, Network):
        model, references = forecaster.experiment.model.name, REFERENCES["encoder_forecaster"]
        checkpoint = f" (checkpoint SHA-256 {forecaster.digest})"
    return {
        "title": f"Nowcast of {'rain rate' if record.quantity == 'rain_rate' else record.variable} from {record.name}",
        "institution": record.institution or "not stated in the observations",
        "source": f"{model}{checkpoint}, nowcast {__version__}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} nowcast predict {forecaster.name} {record.name}",
        "references": REFERENCES.get(model, references),
    }


def _check_free(paths: Sequence[Path], overwrite: bool) -> None:
    """All names are looked at before the first forecast is made."""
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        more = f", and so do {len(existing) - 1} others" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]} exists already{more}.\nChoose another folder, or replace with --overwrite.")


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make the folder; where the block fails before anything is in it, it is taken away again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from None
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def _stamp(time: np.datetime64) -> str:
    """As in 20160928T150000Z: ISO 8601 without the colons that some file systems refuse."""
    return str(time.astype("datetime64[s]")).replace("-", "").replace(":", "") + "Z"
