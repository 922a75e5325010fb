"""Forecast records with a forecaster and write forecast files.

Reading, forecasting and writing run at the same time, each in a thread of its own, if two forecasts fit in memory.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nowcast import __version__
from nowcast.errors import DataError, NotEnoughFrames, UsageError, counted
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.seen import as_text
from nowcast.netcdf.accumulations import accumulations
from nowcast.netcdf.attributes import TRAINING_PERIODS
from nowcast.netcdf.forecast_writer import write_forecast
from nowcast.netcdf.record import Record, log_readings, with_own_names
from nowcast.netcdf.writing.members import write_members
from nowcast.prediction.cases import KeptFrames, Selection, listing, read_past, references_of, spans
from nowcast.prediction.running_sums import overlap
from nowcast.runtime import distributed
from nowcast.runtime.log_lines import is_first
from nowcast.runtime.outputs import making_folder, may_write, remove_stale
from nowcast.runtime.progress import Progress
from nowcast.runtime.threads import ahead

log = logging.getLogger(__name__)
# reference time, fields (lead, y, x) and, if they are asked for, probabilities (lead, threshold, y, x); of an ensemble
# reference time and an iterator of the members (member, y, x) of each lead
CaseFields = tuple[np.datetime64, *tuple[np.ndarray, ...]]
BYTES_AHEAD = 1 << 27  # most bytes of forecasts made ahead of writing; if one case has more, none is made ahead


@dataclass(frozen=True)
class Job:
    """The forecasts to make from one record.

    references: reference times, ascending; step: time step
    thresholds: mm/h, of exceedance probabilities to add; sums: minutes of accumulations to add; () for none
    suggests: as of `read_past`
    """

    record: Record
    step: np.timedelta64
    references: tuple[np.datetime64, ...]
    thresholds: tuple[float, ...] = ()
    sums: tuple[int, ...] = ()
    suggests: bool = True


def predict(
    forecaster: Forecaster,
    records: Sequence[Record],
    output: Path,
    *,
    selection: Selection,
    folder: bool,
    thresholds: Sequence[float] = (),
    sums: Sequence[int] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Forecast every record and write one file, or with `folder` one file per reference time; return the files.

    thresholds, sums: mm/h and minutes, ascending, of the probabilities and accumulations to add

    At most a few cases are in memory, or one if cases are large. Several processes share the reference times; each returns all
    files when all are written. Raises NotEnoughFrames (exit 75), DataError (3), UsageError (2), OutputError (5).
    """
    if len(records) > 1 and not folder:
        names = f"{len(records)} series on different grids do not fit in one file: {', '.join(each.name for each in records)}"
        raise UsageError(f"{names}.\nGive a folder: --output FOLDER/")
    records = with_own_names(records)  # files are named by records, and must not replace each other
    with distributed.in_turn():
        jobs = make_jobs(forecaster, records, selection, thresholds, sums)
    inputs = [*forecaster.files, *(path for record in records for path in record.paths)]
    if not folder:
        may_write(output, overwrite=overwrite, inputs=inputs)
        remove_stale(output.parent)
        log_readings(records)
        _write_file(forecaster, jobs[0], output, overwrite=overwrite)
        return [output]
    files = [_files(job, output, prefix=f"{job.record.name}_" if len(records) > 1 else "") for job in jobs]
    paths = list(itertools.chain(*files))
    with distributed.in_turn():
        if distributed.is_first():  # other processes may get here while it is already writing
            may_write(paths, overwrite=overwrite, inputs=inputs, makes_folder=True, instead="another folder")
    log_readings(records)
    with distributed.together():
        _write_share(forecaster, jobs, files, output, overwrite=overwrite)
    return paths


def _log_forecasts(forecaster: Forecaster, jobs: Sequence[Job]) -> None:
    """Log the reference times and lead times of the forecasts of each record."""
    for job in jobs if distributed.is_first() else ():
        first, last, leads = job.references[0], job.references[-1], forecaster.num_leads
        made = f"{len(job.references):,} forecasts from {first}Z to {last}Z" if last != first else f"forecast from {first}Z"
        minutes = job.step / np.timedelta64(60, "s")
        each = f"{counted(leads, 'lead time')}, {minutes:g} to {leads * minutes:g} min"
        log.info("%s: %s, %s (until %sZ)", job.record.name, made, each, last + leads * job.step)


def _write_share(
    forecaster: Forecaster, jobs: Sequence[Job], files: Sequence[list[Path]], output: Path, *, overwrite: bool
) -> None:
    """Write this process's share: for each job its files, one per reference time."""
    shares = list(_share(jobs, files))
    total = sum(len(own) for _, own in shares)
    with making_folder(output), Progress(f"forecasting with {forecaster.name}", total=total, unit="case") as progress:
        remove_stale(output)
        for job, own in shares:
            _write_files(forecaster, job, own, progress, overwrite=overwrite)
    _log_forecasts(forecaster, jobs)


def _share(jobs: Sequence[Job], files: Sequence[list[Path]]) -> Iterator[tuple[Job, list[Path]]]:
    """Yield this process's share of each job, with its files; consecutive reference times, because their pasts overlap."""
    total, number, processes = sum(map(len, files)), distributed.rank(), distributed.size()
    first, stop = total * number // processes, total * (number + 1) // processes
    for job, own in zip(jobs, files, strict=True):
        share = slice(max(first, 0), max(stop, 0))
        if own[share]:
            yield replace(job, references=job.references[share]), own[share]
        first, stop = first - len(own), stop - len(own)


def _files(job: Job, folder: Path, *, prefix: str) -> list[Path]:
    return [folder / f"{prefix}{file_name(time)}" for time in job.references]


def file_name(reference: np.datetime64) -> str:
    """Return the file name of a reference time, such as 20160928T150000Z.nc: ISO 8601 without colons, for all file systems."""
    return str(reference.astype("datetime64[s]")).replace("-", "").replace(":", "") + "Z.nc"


def reference_of(name: str) -> np.datetime64 | None:
    """Return the reference time in a name of `file_name`; None for other names."""
    try:
        return np.datetime64(datetime.strptime(name, "%Y%m%dT%H%M%SZ.nc"), "s")
    except ValueError:
        return None


def predict_one(
    forecaster: Forecaster,
    record: Record,
    reference: np.datetime64,
    path: Path,
    thresholds: Sequence[float] = (),
    sums: Sequence[int] = (),
) -> None:
    """Forecast from one reference time into a new file. Raises the errors of `predict`; they suggest no other time."""
    (job,) = make_jobs(forecaster, [record], Selection(listed=(reference,)), thresholds, sums)
    job = replace(job, suggests=False)
    with closing(_forecasts(forecaster, job)) as cases:
        for case in cases:
            _write(forecaster, job, path, [case], single=True, overwrite=False)


def make_jobs(
    forecaster: Forecaster,
    records: Sequence[Record],
    selection: Selection,
    thresholds: Sequence[float] = (),
    sums: Sequence[int] = (),
) -> list[Job]:
    """Return a job for each record that has any of the selected reference times.

    Raises NotEnoughFrames (exit 75) if a listed time is in no record or no time has enough past frames, DataError (3) if
    probabilities or sums are asked for and a record holds another quantity than rain, UsageError (2) for sums that do not fit
    the lead times.
    """
    others = [record for record in records if not record.quantity.is_rain]
    if (thresholds or sums or forecaster.is_ensemble) and (other := next(iter(others), None)):
        asked = "probabilities" if thresholds else "sums" if sums else "members"
        raise DataError(f"{other.name} holds {other.quantity}.\nExpected rain: {asked} are those of a rain rate.")
    jobs = []
    for record in records:
        step = forecaster.time_step(record)
        accumulations(sums, step, forecaster.num_leads)  # raises UsageError for sums that do not fit the lead times
        if sums and (told := overlap(record, step)) and is_first(record.paths[0], told):
            log.warning("%s", told)
        if references := references_of(record, selection, forecaster.input_frames, step, forecaster.max_absent):
            jobs.append(Job(record.with_absent(forecaster.max_absent), step, tuple(references), tuple(thresholds), tuple(sums)))
    listed = np.array(selection.listed, "datetime64[s]")
    absent = [time for time in listed if all(np.isnat(record.frames_at(time[None])).all() for record in records)]
    if absent:
        raise NotEnoughFrames(f"no frame to forecast from at {listing(absent)}.\n{spans(records)}.")
    if not jobs:
        needed = f"the {counted(forecaster.input_frames, 'past frame')} that {forecaster.name} needs"
        raise NotEnoughFrames(f"no reference time in the range has {needed}.\n{spans(records)}.")
    return jobs


def _write_file(forecaster: Forecaster, job: Job, path: Path, *, overwrite: bool) -> None:
    """Write all forecasts of a job into one file."""
    total = len(job.references)
    progress = Progress(f"forecasting {job.record.name}", total=total, unit="case")
    with progress, closing(_forecasts(forecaster, job)) as cases:
        _write(forecaster, job, path, _counted(cases, progress), single=total == 1, overwrite=overwrite)
    _log_forecasts(forecaster, [job])


def _write_files(forecaster: Forecaster, job: Job, paths: Sequence[Path], progress: Progress, *, overwrite: bool) -> None:
    with closing(_forecasts(forecaster, job)) as cases:
        for path, case in zip(paths, cases, strict=True):
            _write(forecaster, job, path, [case], single=True, overwrite=overwrite)
            progress.advance()


def _write(forecaster: Forecaster, job: Job, path: Path, cases: Iterable[CaseFields], *, single: bool, overwrite: bool) -> None:
    options = {
        "grid": job.record.grid,
        "lead_times": np.arange(1, forecaster.num_leads + 1) * job.step,
        "attributes": attributes(forecaster, job.record, thresholds=job.thresholds, sums=job.sums),
        "single": single,
        "sums": accumulations(job.sums, job.step, forecaster.num_leads),
        "overwrite": overwrite,
    }
    if forecaster.is_ensemble:
        write_members(path, cases, num_members=forecaster.num_members, **options)
    else:
        write_forecast(path, cases, quantity=job.record.quantity, thresholds=job.thresholds, **options)


def _counted(cases: Iterator[CaseFields], progress: Progress) -> Iterator[CaseFields]:
    """Yield the cases, and advance the progress bar as each has been written."""
    for case in cases:
        yield case
        progress.advance()


def _forecasts(forecaster: Forecaster, job: Job) -> Iterator[CaseFields]:
    """Yield the forecasts of a job one after the other; several are made in one call if that is faster."""
    num_leads, grid = forecaster.num_leads, job.record.grid.shape
    forecaster = forecaster.on_record(job.record, job.step)
    at_once = forecaster.cases_at_once(grid)
    case_bytes = 4 * num_leads * (1 + len(job.thresholds)) * forecaster.num_members * grid[0] * grid[1]
    at_once = max(min(at_once, BYTES_AHEAD // case_bytes), 1)
    work_ahead = ahead if len(job.references) > 1 and at_once * case_bytes <= BYTES_AHEAD else iter
    pasts = work_ahead(pasts_of(forecaster, job, at_once))
    forecasts = ((times, *_forecast_cases(forecaster, past, num_leads, job)) for times, past in pasts)
    for arrays in work_ahead(forecasts):
        yield from zip(*arrays, strict=True)


def _forecast_cases(forecaster: Forecaster, past: np.ndarray, num_leads: int, job: Job) -> list:
    """Return the fields (case, lead, y, x) and, if thresholds are given, probabilities (case, lead, threshold, y, x).

    For an ensemble, return for each case an iterator of members, which are drawn while they are written.
    """
    if forecaster.is_ensemble:
        return [[forecaster.draw(case, num_leads) for case in past]]
    if job.thresholds:
        return list(forecaster.forecast_and_exceedance(past, num_leads, job.thresholds))
    return [forecaster.forecast(past, num_leads)]


def pasts_of(forecaster: Forecaster, job: Job, at_once: int) -> Iterator[tuple[list[np.datetime64], np.ndarray]]:
    """Yield reference times and their pasts (case, time, y, x): up to `at_once` cases with the same number of frames."""
    times: list[np.datetime64] = []
    pasts: list[np.ndarray] = []
    kept = KeptFrames(job.record)
    try:
        for reference in job.references:
            past = read_past(job.record, reference, forecaster, job.step, kept=kept, suggests=job.suggests)
            if pasts and (len(pasts) == at_once or len(past) != len(pasts[0])):
                yield times, np.stack(pasts)
                times, pasts = [], []
            times.append(reference)
            pasts.append(past)
    except DataError:
        if pasts:  # cases before the error are still forecast
            yield times, np.stack(pasts)
        raise
    yield times, np.stack(pasts)


def attributes(
    forecaster: Forecaster, record: Record, *, thresholds: Sequence[float] = (), sums: Sequence[int] = ()
) -> dict[str, str]:
    """Return the global attributes of a forecast file: institution of the record; source, papers, training periods."""
    options, references = "", [forecaster.citation]
    if thresholds:
        options = f" --probabilities --thresholds {','.join(f'{threshold:g}' for threshold in thresholds)}"
    if forecaster.is_ensemble:
        options = f" --members {forecaster.num_members} --seed {forecaster.seed}"
    if options and forecaster.probability_citation:
        references += [forecaster.probability_citation]
    options += f" --sums {','.join(map(str, sums))}" if sums else ""
    seen = as_text(forecaster)
    return {
        "title": f"Nowcast of {record.quantity.label or record.variable} from {record.name}",
        "institution": record.institution or "not stated in the observations",
        "source": f"{forecaster.source}, nowcast {__version__}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} nowcast predict {forecaster.name} {record.name}{options}",
        "references": "; ".join(references),
        **({TRAINING_PERIODS: seen} if seen else {}),
    }
