"""Write records from original files: one for each day, month or file, and for each series.

First every file is scanned for its times. Then each record is written on its own, with one field in memory at a time.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nowcast import __version__
from nowcast.convert.inputs import FoundFiles, Input, Scanned, find_files, in_processes, scan, why_unusable
from nowcast.convert.jobs import Frame, Job, Request, plan
from nowcast.convert.original import DRY_DBZ, FLOAT_FILL
from nowcast.convert.place import cut
from nowcast.convert.sniffing import named
from nowcast.errors import DataError, counted
from nowcast.netcdf.writing.records import ORIGINALS, STATE, Storage, TimedField, attributes_of, write_record
from nowcast.runtime.progress import Progress

log = logging.getLogger(__name__)
_NAMED = 3  # broken files that are listed in warnings


@dataclass(frozen=True)
class Written:
    """A record that was written: its number of frames, and the files that could not be read, with the reasons."""

    path: Path
    num_frames: int
    num_planned: int
    broken: tuple[tuple[Path, str], ...] = ()


@dataclass
class Outcome:
    """The result of a conversion: records written, records that existed already, files that cannot be used."""

    written: list[Path] = field(default_factory=list)
    num_frames: int = 0
    existing: list[Path] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)  # existing records whose original files have changed
    broken: dict[Path, str] = field(default_factory=dict)
    unknown: list[Path] = field(default_factory=list)


def convert(arguments: Sequence[str | Path], output: Path, request: Request) -> Outcome:
    """Convert files, folders and globs to records in a folder.

    Raises UsageError (exit 2) for a path that does not exist or a box without cells, DataError (3) if no file can be used,
    OutputError (5).
    """
    files = find_files(arguments, request.format, without=output)
    if not files.inputs and not files.broken:
        example = f", the first of them {files.unknown[0]}" if files.unknown else ""
        raise DataError(
            f"no radar files of a known format among {counted(len(files.unknown), 'file')}{example}.\n"
            "Expected ODIM or KNMI HDF5, RADOLAN, GRIB, GeoTIFF, images, npz, Zarr or NetCDF; --format names one."
        )
    outcome = convert_inputs(files, output, request)
    if not outcome.written and not outcome.existing:
        multiples = f" at multiples of {request.every:g} minutes" if request.every else ""
        raise DataError(
            f"no frames{multiples} in {counted(len(files.inputs), 'file')}.\nExpected at least one; give another --every."
        )
    return outcome


def convert_inputs(found: FoundFiles, output: Path, request: Request, *, quiet: bool = False) -> Outcome:
    """Convert files to records in a folder. `quiet`: log nothing.

    Raises DataError (exit 3) if no file can be used, OutputError (5), and the errors of `jobs.plan`.
    """
    inputs = found.inputs
    outcome = Outcome(unknown=found.unknown, broken=dict(found.broken))
    planned = plan(_scanned(inputs, request, outcome), output, request, quiet=quiet)
    jobs = [job for job in planned if not _keeps_existing(job, outcome)]
    total = sum(len(job.frames) for job in jobs)
    with Progress("converting", total=total, unit="frame") as progress:
        for done in in_processes(write, jobs, progress, request.processes, weight=lambda done: done.num_planned):
            outcome.broken |= dict(done.broken)
            outcome.num_frames += done.num_frames
            if done.num_frames:
                outcome.written.append(done.path)
    _check_any_used(outcome, len(inputs) + len(found.broken))
    if not quiet:
        _log_outcome(outcome, inputs)
    return outcome


def _scanned(inputs: Sequence[Input], request: Request, outcome: Outcome) -> list[Scanned]:
    with Progress("reading headers", total=len(inputs), unit="file") as progress:
        work = [(source, request.options) for source in inputs]
        results = list(in_processes(scan, work, progress, request.processes))
    outcome.broken |= {result.input.path: result.error for result in results if result.error}
    return [result for result in results if not result.error]


def _keeps_existing(job: Job, outcome: Outcome) -> bool:
    """Return whether a record exists already and is kept; note in `outcome` if its original files have changed."""
    if job.request.overwrite or not job.path.exists():
        return False
    outcome.existing.append(job.path)
    stated = attributes_of(job.path)
    if stated.get(STATE) != job.state and stated.get(ORIGINALS) != job.digest(outcome.broken):  # copies differ in time only
        outcome.changed.append(job.path)
    return True


def write(job: Job) -> Written:
    """Write a record from its original files; files that cannot be read are left out. Raises OutputError (exit 5)."""
    storages = {frame.storage for frame in job.frames}
    storage = storages.pop() if len(storages) == 1 else _float_storage(job.series.storage.reflectivity)
    place = cut(job.series.place, *job.window) if job.request.box else job.series.place
    broken: dict[Path, str] = {}
    attributes = _attributes(job, broken)
    num_frames = write_record(
        job.path, _fields(job, storage, broken), grid=place.grid(), storage=storage, attributes=attributes,
        minutes=job.series.minutes, overwrite=job.request.overwrite,
    )  # fmt: skip
    return Written(job.path, num_frames, len(job.frames), tuple(broken.items()))


def _float_storage(reflectivity: bool) -> Storage:
    """Return float32 storage, for a record whose files pack their values differently."""
    return Storage("f4", fill=FLOAT_FILL, dry=DRY_DBZ if reflectivity else None, reflectivity=reflectivity)


def _fields(job: Job, storage: Storage, broken: dict[Path, str]) -> Iterator[TimedField]:
    """Yield the stored values of each frame with its times. Files that cannot be read are added to `broken`."""
    for source, frames in _runs(job.frames):
        if source.path in broken:
            continue
        try:
            with source.on_disk() as path:
                fields = source.reader.read(path, [frame.number for frame in frames], job.request.options)
                for frame, numbers in zip(frames, fields, strict=True):
                    if numbers.shape != job.series.place.shape:
                        raise DataError(f"{source.path} holds a field of {numbers.shape}.\nExpected {job.series.place.shape}.")
                    yield TimedField(frame.time, _restored(numbers[job.window], frame.storage, storage), frame.span)
        except (DataError, MemoryError, OSError) as error:
            broken[source.path] = why_unusable(error, source.path)


def _restored(numbers: np.ndarray, original: Storage, storage: Storage) -> np.ndarray:
    if original == storage:
        return numbers
    values = original.unpacked(numbers)
    values[np.isneginf(values)] = DRY_DBZ
    return np.where(np.isnan(values), np.float32(storage.fill), values)


def _runs(frames: Sequence[Frame]) -> Iterator[tuple[Input, list[Frame]]]:
    """Yield the frames in order, grouped by file where consecutive frames come from the same file."""
    run: list[Frame] = []
    for frame in frames:
        if run and (frame.input != run[-1].input or frame.number <= run[-1].number):
            yield run[0].input, run
            run = []
        run.append(frame)
    if run:
        yield run[0].input, run


def _attributes(job: Job, broken: dict[Path, str]) -> dict[str, str]:
    """Return the global attributes of a record. Files that cannot be read are added to `broken`."""
    digest = job.digest(broken)
    names = [source.path.name for source in job.inputs if source.path not in broken] or ["none"]
    files = f"{len(names)} original files, from {names[0]} to {names[-1]}" if len(names) > 1 else f"original file {names[0]}"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    attributes = dict(job.series.about)
    attributes["history"] = f"{now} converted by nowcast {__version__} from {files}; values as in the originals, not resampled"
    return attributes | {ORIGINALS: digest, STATE: job.state}


def _check_any_used(outcome: Outcome, num_inputs: int) -> None:
    """Raise DataError (exit 3) if no file could be used."""
    if outcome.broken and not outcome.written and not outcome.existing:
        first = next(iter(outcome.broken.values()))
        said, *advice = first.splitlines()
        advice += [f"(and {len(outcome.broken) - 1} more of {num_inputs} files)"] if len(outcome.broken) > 1 else []
        raise DataError("\n".join(filter(None, [said, " ".join(advice)])))


def _log_outcome(outcome: Outcome, inputs: Sequence[Input]) -> None:
    """Log the numbers of records written and kept, and of files left out."""
    kinds = named(source.format for source in inputs if source.path not in outcome.broken)
    frames, written = counted(outcome.num_frames, "frame"), counted(len(outcome.written), "new record")
    log.info("%s: %s in %s", kinds, frames, written)
    for path, reason in list(outcome.broken.items())[:_NAMED]:
        log.warning("left out %s", reason.splitlines()[0] if str(path) in reason else f"{path}: {reason.splitlines()[0]}")
    if len(outcome.broken) > _NAMED:
        log.warning("left out %d of %d files that cannot be read; the first are listed above", len(outcome.broken), len(inputs))
    if outcome.unknown:
        log.warning(
            "left out %s of an unknown format, the first of them %s", counted(len(outcome.unknown), "file"), outcome.unknown[0]
        )
    if outcome.existing:
        log.info("kept %s, the first of them %s", counted(len(outcome.existing), "existing record"), outcome.existing[0])
    if outcome.changed:
        log.warning(
            "%d of them were converted from other files than the present ones, or with other options, the first of them %s: "
            "convert them again with --overwrite",
            len(outcome.changed), outcome.changed[0],
        )  # fmt: skip


def most_processes() -> int:
    """Return the number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
