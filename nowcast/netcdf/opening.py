"""Open records: read what each file contains, and join files on equal grids to one series.

Opening reads coordinates only, and a few fields of amounts to see whether they are totals since the start of a model run.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import made_by_nowcast, text
from nowcast.netcdf.damage import without_empty_copies
from nowcast.netcdf.files import OPEN_FILES, expand, library_errors
from nowcast.netcdf.places.comparison import is_same_series
from nowcast.netcdf.places.grid import Grid, carried, read_grid, warn_of_cells
from nowcast.netcdf.rain.statements import Doubt
from nowcast.netcdf.rain.totals import compared, refusal, says_total, total_of
from nowcast.netcdf.rain.units import check_given
from nowcast.netcdf.rain.variable import Field, find_field, named
from nowcast.netcdf.reading import described, make_layouts, own_step, settled, warn_of_other_steps
from nowcast.netcdf.record import SEQUENCE, Record, most_frequent_step, with_own_names
from nowcast.netcdf.times.intervals import STARTS, Interval, at_ends, doubtful_interval, stated_interval
from nowcast.netcdf.times.raster import check_distinct, nominal_times
from nowcast.netcdf.times.values import read_times, read_valid_times
from nowcast.netcdf.times.variables import TimeNames, find_times
from nowcast.runtime.log_lines import is_first, noted_topics
from nowcast.runtime.progress import track

__all__ = ["FileSummary", "Grid", "Index", "Record", "open_records"]

log = logging.getLogger(__name__)
FORECASTS = "forecasts among records"  # topic of a warning that is logged once per folder
MANY = 20  # files from which on progress is shown while they are opened
_DAY = np.timedelta64(86400, "s")


@dataclass(frozen=True)
class FileSummary:
    """The contents of a file without its fields, read once when it is opened.

    interval: of an accumulation; None if not stated
    mean_seconds: the interval of rates that are means over time, s; None for instants, and if it is not stated
    doubt: what may state the interval of an accumulation, but not clearly
    series_key: grid and quantity; files with equal keys are one series
    is_own: whether it holds forecasts that nowcast made
    topics: of the warnings that opening it logs, once per folder
    """

    path: Path
    field: Field
    grid: Grid
    series_key: tuple
    times: np.ndarray
    interval: Interval | None
    institution: str | None
    sequence_length: int
    is_own: bool = False
    doubt: Doubt | None = None
    topics: tuple[str, ...] = ()
    mean_seconds: float | None = None


class OwnOutput(DataError):
    """A file that nowcast made, forecasts or scores, among files of observations."""


class Index(Protocol):
    """A store of FileSummary from one call of `open_records` to the next, since opening a file takes milliseconds."""

    def get(self, path: Path) -> FileSummary | None:
        """Return the summary of a file; None if it is not stored, if it has changed since or if it has a warning to log."""

    def put(self, summary: FileSummary) -> None:
        """Store the summary of a file."""

    def recall(self, what: str, paths: Sequence[Path]) -> str | None:
        """Return the stored result `what` of sampling these files; None if there is none, or if a file has changed."""

    def remember(self, what: str, paths: Sequence[Path], result: str) -> None:
        """Store the result `what` of sampling these files."""

    def save(self) -> None:
        """Write new entries to disk."""


def open_records(
    paths: Sequence[str | Path],
    *,
    variable: str | None = None,
    units: str | None = None,
    zr_a: float = 200.0,
    zr_b: float = 1.6,
    index: Index | None = None,
    forecasts_too: bool = True,
    strict: bool = True,
) -> list[Record]:
    """Open the records in files, folders and globs. Files on equal grids are one series, in time order.

    variable: name of the variable, or several names separated by commas, of which each file has one; None: by CF attributes
    units: units of the variable, for files that state none
    zr_a, zr_b: Z = zr_a R^zr_b, for reflectivity
    index: summaries of files that were opened before, with this variable and these units
    forecasts_too: whether to read a file that is named itself even if it holds forecasts that nowcast made
    strict: whether every file must have the variable; otherwise files without it are searched for rain

    In a folder or glob, unusable files, and forecasts and scores that nowcast made, are left out with a warning. Each record
    has a name of its own, made from the folder that was given. Raises UsageError (exit 2) if there are no
    files, for wrong units and a wrong Z-R relation, DataError (3) if a file named by itself, or every file, cannot be used.
    """
    check_given(units, zr_a, zr_b)
    names: dict[tuple, str] = {}
    groups, shared = {}, {}
    series: dict[tuple, tuple] = {}  # key of a file -> key of the first file on the same grid (up to rounding)
    for argument in map(os.path.expanduser, [paths] if isinstance(paths, str | Path) else paths):
        for file in _inspect_all(argument, variable, index, units=units, forecasts_too=forecasts_too, strict=strict):
            # an archive of 100,000 files has few different fields and grids: keep one object of each
            grid = shared.setdefault((file.series_key, file.grid.turned), file.grid)
            file = replace(file, field=shared.setdefault(file.field, file.field), grid=grid)
            key = series[file.series_key] = series.get(file.series_key) or _key_in(groups, file)
            groups.setdefault(key, []).append(file)
            names[key] = names.get(key) or _name(argument, file.path)
    _save(index)
    records = [_assemble(files, names[key], zr_a, zr_b, index) for key, files in groups.items()]
    _save(index)
    return with_own_names(records)


def _save(index: Index | None) -> None:
    if index is not None:
        index.save()


def _key_in(groups: dict[tuple, list[FileSummary]], file: FileSummary) -> tuple:
    """Return the key of the series on the same grid as a file, up to rounding; its own key if there is none."""
    for key, (first, *_) in groups.items():
        if file.field.quantity == first.field.quantity and is_same_series(file.grid, first.grid):
            return key
    return file.series_key


def _name(argument: str | Path, path: Path) -> str:
    """Return the name of a record: that of the folder that was given, else of the folder of its first file."""
    return Path(argument).resolve().name if Path(argument).is_dir() else path.resolve().parent.name


def _inspect_all(
    argument: str | Path, variable: str | None, index: Index | None, *, units: str | None, forecasts_too: bool, strict: bool
) -> list[FileSummary]:
    paths = expand(argument)
    is_named = forecasts_too and paths == [Path(argument)]
    files, errors, own = [], [], []
    for path in track(paths, f"opening {argument}", unit="file") if len(paths) >= MANY else paths:
        try:
            files.append(_inspect_once(path, variable, index, units=units, own_too=is_named, strict=strict))
        except OwnOutput as error:
            own.append(error)
        except DataError as error:
            errors.append(error)
    if not files:
        raise (errors or own)[0]
    if own:
        log.warning("left out %d of %d files of %s, which nowcast made: forecasts or scores", len(own), len(paths), argument)
    if errors:
        log.warning("left out %d of %d files of %s; the first because: %s", len(errors), len(paths), argument, errors[0])
    return files


def _inspect_once(path: Path, variable: str | None, index: Index | None, **options: Any) -> FileSummary:
    if index is None:
        return _inspect(path, variable, **options)
    summary = index.get(path)
    if summary is None:
        with noted_topics() as topics:
            summary = _inspect(path, variable, **options)
        if not summary.is_own:  # an own file is read only if it is named itself
            index.put(replace(summary, topics=tuple(sorted(topics))))
    return summary


def _inspect(path: Path, variable: str | None, *, units: str | None, own_too: bool, strict: bool) -> FileSummary:
    """Read the summary of a file. Raises DataError (exit 3) if unusable, OwnOutput (3) if nowcast made it, unless `own_too`."""
    with OPEN_FILES.lock, library_errors(path), OPEN_FILES.briefly(path) as dataset:
        is_own = made_by_nowcast(dataset)
        if is_own and not own_too:
            raise OwnOutput(f"{path} holds forecasts or scores that nowcast made.\nExpected observations.")
        there = named(dataset, variable)
        field = find_field(dataset, str(path), there or (variable if strict else None), has_units=units is not None)
        field = field.with_units(units, path)
        field.conversion(interval_seconds=1.0, where=str(path))  # raises for units that cannot be used
        times, covered = _frame_times(dataset, field, path)
        times = np.atleast_1d(times)
        interval = stated_interval(dataset, field, times, str(path)) if field.kind == "amount" else None
        if field.kind == "amount" and interval is None and says_total(dataset.variables[field.variable]):
            raise DataError(refusal(f"{path}: {field.variable}"))
        doubt = doubtful_interval(dataset, field, times) if field.kind == "amount" and interval is None else None
        sequences = len(dataset.dimensions[SEQUENCE]) if SEQUENCE in field.frame_dims else 0
        if sequences:
            times, length = _one_after_the_other(times, sequences), len(times)
        grid, institution = read_grid(dataset, field, str(path)), text(dataset, "institution")
        place = (grid.key, field.quantity)
        return FileSummary(
            path, field, grid, place, times, interval, institution, length if sequences else 0, is_own, doubt,
            mean_seconds=covered if field.kind == "rate" else None,
        )  # fmt: skip


def _one_after_the_other(times: np.ndarray, sequences: int) -> np.ndarray:
    """Return the times of all frames of all sequences; each sequence starts some whole days after the one before."""
    apart = (int((times.max() - times.min()) / _DAY) * 2 + 2) * _DAY
    return (times + np.arange(sequences)[:, None] * apart).ravel()


def _frame_times(dataset, field: Field, path: Path) -> tuple[np.ndarray, float | None]:
    """Read the times of the frames; those of sums and means over time are the ends of their intervals, where these are stated.

        returns: (frame,) datetime64[s], or a scalar; and the length of these intervals, s

    Raises DataError (exit 3) if frames have no times, or dimensions other than time, y and x.
    """
    sizes = {dim: len(dataset.dimensions[dim]) for dim in field.frame_dims if dim != SEQUENCE}
    names = find_times(dataset, field.variable, sizes)
    time_names = [name for name in (names.valid, names.reference, names.period) if name]
    over_time = {dim for name in time_names for dim in dataset.variables[name].dimensions if dim in sizes}
    extra = [f"{dim} ({size})" for dim, size in sizes.items() if dim not in over_time or len(over_time) > 1]
    if len(sizes) > 1 or (time_names and extra):
        is_own = made_by_nowcast(dataset)
        raise DataError(
            f"{path}: {field.variable} has more dimensions than time, y and x: {', '.join(extra)}.\n"
            + ("They are forecasts: nowcast evaluate, inspect, plot and series take them; here observations are expected."
               if is_own else "Select one position of each of these first.")
        )  # fmt: skip
    times = read_valid_times(dataset, names, tuple(sizes), str(path))
    if times is None:
        starts = ", ".join(name for name in STARTS if name in dataset.variables)
        but = f" but those of the start of an interval ({starts})" if starts else ""
        but = f" but those of the start of a forecast ({names.reference})" if names.reference else but
        raise DataError(f"{path}: {field.variable} has no times{but}.\nExpected a time coordinate for every frame.")
    if 0 in sizes.values():
        raise DataError(f"{path}: {field.variable} has no frames.\nExpected at least one.")
    _warn_of_forecasts(dataset, names, times, path)
    times, covered = at_ends(dataset, field, times, str(path), dims=tuple(sizes))
    check_distinct(times, str(path))
    return times, covered


def _warn_of_forecasts(dataset, names: TimeNames, times: np.ndarray, path: Path) -> None:
    """Warn, once per folder, if a file states one reference time and all its frames are later: it holds a forecast."""
    stated = dataset.variables.get(names.reference)
    if stated is None or stated.size != 1 or text(stated, "standard_name") != "forecast_reference_time":
        return
    with suppress(DataError):  # an unreadable reference time does not count
        start = read_times(dataset, names.reference, stated.dimensions, str(path)).ravel()[0]
        if (times > start).all() and is_first(path, FORECASTS):
            log.warning("%s: this is a forecast from %sZ, which is read as if it had been observed", path, start)


def _assemble(files: list[FileSummary], name: str, zr_a: float, zr_b: float, index: Index | None) -> Record:
    """Join files on one grid to a record, with frames in time order; of frames with equal times, the last file counts."""
    times = np.concatenate([file.times for file in files])
    name = files[0].path.stem if len(files) == 1 else name
    file_of = np.repeat(np.arange(len(files)), [len(file.times) for file in files])
    frame_of = np.concatenate([np.arange(len(file.times)) for file in files])
    order = np.argsort(times, kind="stable")
    stamps = times.copy()
    times[order] = _nominal_times(times[order], name)
    kept = order[np.append(times[order][1:] != times[order][:-1], True)]
    step = most_frequent_step(times[kept])
    files = [settled(file, step) for file in files]
    warn_of_cells(files[-1].grid, files[-1].path)
    is_moved = (stamps[kept] != times[kept]).any()
    record = Record(
        name=name,
        times=times[kept],
        grid=carried(files[-1].grid, files[-1].path),
        quantity=files[0].field.quantity,
        variable=files[0].field.variable,
        paths=tuple(file.path for file in files),
        frame_sources=np.stack([file_of, frame_of], axis=1)[kept],
        layouts=make_layouts(files, step, zr_a, zr_b, index),
        institution=next((file.institution for file in files if file.institution), None),
        **({"stamps": stamps[kept]} if is_moved else {}),
    )
    if len(times) > len(kept):
        record = without_empty_copies(record, times, np.stack([file_of, frame_of], axis=1), order, index)
    guessed = np.array([file.field.kind == "amount" and not file.interval and not own_step(file) for file in files])
    if guessed.any():
        of_frames = guessed[record.frame_sources[:, 0]]
        warn_of_other_steps(record.times, of_frames, record.time_step, files[guessed.argmax()].path, record.variable)
    if any(layout.may_be_total for layout in record.layouts):
        _refuse_totals(record, index)
    return record


def _refuse_totals(record: Record, index: Index | None) -> None:
    """Raise DataError (exit 3) for totals: amounts that never decrease, or in one step: those since midnight start again."""
    places = compared(len(record))
    paths, frames = described(record, np.concatenate([record.frame_sources[place] for place in places]))
    what = f"falls {list(map(len, places))} {frames}"
    if index is not None and index.recall(what, paths):
        return
    try:
        with noted_topics() as topics:
            said = total_of(record.read, len(record))
    except DataError:  # a damaged frame is reported where it is used
        return
    if said:
        raise DataError(refusal(f"{record.paths[0]}: {record.variable}, which {said},"))
    if index is not None and not topics:  # what is logged on reading is to be logged the next time too
        index.remember(what, paths, "true")


def _nominal_times(times: np.ndarray, name: str) -> np.ndarray:
    nominal = nominal_times(times)
    if moved := int((nominal != times).sum()):
        furthest = np.abs(nominal - times).max().astype(np.int64)
        log.warning("%s: moved %d of %d times by up to %d s, so that they are evenly spaced", name, moved, len(times), furthest)
    return nominal
