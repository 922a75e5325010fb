"""Plan the records to write: which fields, in which order, under which file names.

The name of a record follows from its series and period only, so that it does not depend on what else is converted.
"""

import hashlib
import itertools
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nowcast.convert.inputs import Input, Scanned, why_unusable
from nowcast.convert.original import Options, Original, Series
from nowcast.convert.place import Box, BoxMissed, Window, window
from nowcast.errors import DataError, counted
from nowcast.netcdf.times.raster import tolerance
from nowcast.netcdf.writing.records import Storage

log = logging.getLogger(__name__)
PERIODS = {"day": "%Y%m%d", "month": "%Y%m", "file": ""}
_RECENT, _CHOSEN = 20, 2000  # frames and multiples that a watch remembers for each series
_MOST_UNKNOWN = np.timedelta64(30, "s")  # largest offset from a multiple while the time step is unknown
_SUFFIXES = r"(\.(gz|bz2|xz|h5|hdf5?|nc|grib2?|grb2?|bin|gif|png|pgm|npz|tiff?|zarr|dat))+$"


class KeptFrames:
    """Frames near multiples of `every` that a watch has seen, so that one per series and multiple is kept across files."""

    def __init__(self) -> None:
        self._recent: dict[tuple, list[np.datetime64]] = defaultdict(list)  # newest times of each series
        self._chosen: dict[tuple, dict[np.datetime64, np.datetime64]] = defaultdict(dict)  # multiple -> time of its frame

    def see(self, series: tuple, time: np.datetime64) -> None:
        """Record the time of a new frame."""
        times = self._recent[series]
        if time not in times:
            times.append(time)
            del times[:-_RECENT]

    def most_off(self, series: tuple) -> np.timedelta64:
        """Return the largest offset at which no later frame can be nearer to a multiple: half the time step, if known."""
        steps = np.diff(np.sort(np.array(self._recent[series])))
        return np.median(steps) / 2 if len(steps) else _MOST_UNKNOWN

    def choose(self, series: tuple, multiple: np.datetime64, time: np.datetime64) -> np.datetime64:
        """Return the time of the frame kept for a multiple: the first one chosen."""
        chosen = self._chosen[series]
        chosen.setdefault(multiple, time)
        if len(chosen) > _CHOSEN:
            del chosen[next(iter(chosen))]
        return chosen.get(multiple, time)


@dataclass(frozen=True)
class Request:
    """What to convert and how.

    per: a key in PERIODS; box: the part of the grid to keep; every: minutes; only frames near multiples are kept
    kept: frames kept by earlier plans, for a watch
    """

    format: str = "auto"
    options: Options = field(default_factory=Options)
    per: str = "day"
    box: Box | None = None
    every: float | None = None
    overwrite: bool = False
    processes: int = 1
    kept: KeptFrames | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Frame:
    """A field to write: valid time, interval of a sum, source file, index in that file, and storage of its values."""

    time: np.datetime64
    span: tuple[np.datetime64, np.datetime64] | None
    input: Input
    number: int
    storage: Storage


@dataclass(frozen=True)
class Job:
    """A record to write. window: rows and columns to keep; state: digest of the sizes and times of its files."""

    path: Path
    series: Series
    frames: tuple[Frame, ...]
    request: Request
    window: Window
    state: str

    @property
    def inputs(self) -> list[Input]:
        """Its original files, without duplicates."""
        return list(dict.fromkeys(frame.input for frame in self.frames))

    def digest(self, broken: dict[Path, str]) -> str:
        """Return a digest of the names and contents of its files. Files that cannot be read are added to `broken`."""
        digests = []
        for source in self.inputs:
            try:
                digests.append(source.digest())
            except OSError as error:  # such as one that was removed meanwhile
                broken[source.path] = why_unusable(error, source.path)
        return _digest(digests, self.request)


def plan(scanned: Sequence[Scanned], output: Path, request: Request, *, quiet: bool = False) -> list[Job]:
    """Return the records to write: the fields of each series and period, in order of time.

    Forecasts, and series without a cell in the box, are left out. `quiet`: do not log what `every` leaves out.

    Raises BoxMissed (exit 2) if the box misses all series, DataError (3) if there are only forecasts, or if two files would
    become one record.
    """
    observed = [(result.input, each) for result in _observed(scanned) for each in result.originals]
    windows = _windows({each.series.key: each.series for _, each in observed}, request.box)
    inside = [(source, each) for source, each in observed if each.series.key in windows]
    groups: dict[tuple, dict[np.datetime64, tuple[Input, Original]]] = defaultdict(dict)
    equal = []
    for source, each in _near_multiples(inside, request, quiet=quiet):
        moment = each.time.astype("datetime64[s]").item()
        period_or_path = str(source.path) if request.per == "file" else moment.strftime(PERIODS[request.per])
        fields = groups[period_or_path, each.series.key]
        if each.time in fields:
            equal.append(fields[each.time])
            _check_variants(*fields[each.time], source, each)
        fields[each.time] = source, each
    if equal:
        log.warning(
            "left out %s because another of its series has the same time, the first of them of %s in %s; the last in the order "
            "of files is used",
            counted(len(equal), "field"), equal[0][1].time, equal[0][0].path,
        )  # fmt: skip
    states = {result.input: result.state for result in scanned}
    jobs = [_job(output, groups, group, request, windows, states) for group in groups]
    return _with_different_names(sorted(jobs, key=lambda job: job.path.name))


def _check_variants(source: Input, field: Original, other_source: Input, other: Original) -> None:
    """Raise DataError (exit 3) if two fields of one time are no copies: they are at different levels, or of two members."""
    if field.variant == other.variant:
        return
    own, others = (",".join(part for part in one if part not in two) for one, two in (
        (field.variant, other.variant), (other.variant, field.variant)))  # fmt: skip
    product = field.series.product
    raise DataError(
        f"{source.path} and {other_source.path} have {product} for {field.time}, of {own or 'none'} and {others or 'none'}.\n"
        f"Expected one field for each time: --variable {product.partition('@')[0]}@{own or others} takes one."
    )


def _observed(scanned: Sequence[Scanned]) -> list[Scanned]:
    """Return the files without their forecasts, which are counted in a warning."""
    ahead = [(result.input, each) for result in scanned for each in result.originals if each.forecast is not None]
    if not ahead:
        return list(scanned)
    (first, original), files = ahead[0], len({source.path for source, _ in ahead})
    rest = [replace(each, originals=tuple(one for one in each.originals if one.forecast is None)) for each in scanned]
    are = "is a forecast" if len(ahead) == 1 else "are forecasts"
    fields = f"{counted(len(ahead), 'field')} of {counted(files, 'file')}"
    text = f"{fields} {are}, the first {original.forecast:g} minutes ahead in {first.path}"
    if not any(result.originals for result in rest):
        raise DataError(f"{text}.\nExpected observations or analyses: nowcast trains on observations.")
    log.warning("left out: %s", text)
    return rest


def _windows(series: dict[tuple, Series], box: Box | None) -> dict[tuple, Window]:
    """Return the rows and columns to keep of each series. Series outside the box are left out with a warning."""
    if box is None:
        return dict.fromkeys(series, (slice(None), slice(None)))
    windows, missed = {}, []
    for key, each in series.items():
        try:
            windows[key] = window(each.place, box)
        except BoxMissed as error:
            missed.append((each, error))
    if missed and not windows:
        raise missed[0][1]
    if missed:
        rows, columns = missed[0][0].place.shape
        log.warning(
            "left out %d of %d series with no cell in --box, the first of them %s with %d × %d cells",
            len(missed), len(series), missed[0][0].product, rows, columns,
        )  # fmt: skip
    return windows


def _near_multiples(wanted: list[tuple[Input, Original]], request: Request, *, quiet: bool) -> list[tuple[Input, Original]]:
    """Return the nearest field of each series to each multiple of `every` minutes of the day; log the number of the others.

    Radar times are some seconds early or late. All fields of that time are kept. A watch keeps the first that can be nearest.
    """
    if request.every is None:
        return wanted
    step, kept, nearest = np.timedelta64(round(request.every * 60), "s"), request.kept, {}
    # two watched subfolders may hold the same series processed in different ways, such as with and without a correction
    series = [(each.series.key, source.file.parent if kept else None) for source, each in wanted]
    if kept:
        for key, (_, each) in zip(series, wanted, strict=True):
            kept.see(key, each.time)
    for key, (_, each) in zip(series, wanted, strict=True):
        multiple = _nearest_multiple(each.time, step)
        off = abs(each.time - multiple)
        if off <= tolerance(step) and (kept is None or off <= kept.most_off(key)):
            nearest[key, multiple] = min(nearest.get((key, multiple), (off, each.time)), (off, each.time))
    times = {(key, kept.choose(key, near, time) if kept else time) for (key, near), (_, time) in nearest.items()}
    chosen = [each for key, each in zip(series, wanted, strict=True) if (key, each[1].time) in times]
    if len(chosen) < len(wanted) and not quiet:
        log.info("--every %g left out %d of %d frames", request.every, len(wanted) - len(chosen), len(wanted))
    return chosen


def _nearest_multiple(time: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """Return the nearest multiple of a step, counted from 00 UTC of the day, or 00 UTC of the next day."""
    day = time.astype("datetime64[D]").astype("datetime64[s]")
    before = time - (time - day) % step
    after = min(before + step, day + np.timedelta64(1, "D"))
    return before if time - before <= after - time else after


def _job(
    output: Path,
    groups: dict,
    group: tuple[str, tuple],
    request: Request,
    windows: dict[tuple, Window],
    states: dict[Input, str],
) -> Job:
    period_or_path, key = group
    fields = [groups[group][time] for time in sorted(groups[group])]
    series = fields[0][1].series
    name_of_series = label(series, windows[key] if request.box else None)
    name = f"{period_or_path}_{name_of_series}"
    if request.per == "file":  # if a file has one series, the record has the name of the file
        stem = re.sub(_SUFFIXES, "", Path(period_or_path).name, flags=re.I)
        name = stem if sum(path == period_or_path for path, _ in groups) == 1 else f"{stem}_{name_of_series}"
    frames = tuple(Frame(each.time, each.span, source, each.number, each.series.storage) for source, each in fields)
    inputs = dict.fromkeys(source for source, _ in fields)
    state = _digest((states[source] for source in inputs), request)
    return Job(output / f"{name}.nc", series, frames, request, windows[key], state)


def label(series: Series, kept: Window | None = None) -> str:
    """Return the part of file names that identifies a series: product, interval, grid size, and a digest of product and grid.

    kept: rows and columns that are kept; None for all
    """
    product = re.sub(r"[^A-Za-z0-9]+", "-", series.product).strip("-")
    interval = "" if series.minutes is None else f"{series.minutes:g}min"
    product += f"-{interval}" if interval not in product else ""
    place = series.place
    grid = place.record_grid and place.record_grid.grid
    record_grid = grid and ((grid.key, grid.turned) if any(grid.turned) else grid.key)
    cells = (place.y, place.x, place.projection, record_grid, *(kept or ()))
    identity = repr((series.product, interval, series.storage.reflectivity, *cells))
    rows, columns = (part.stop - part.start for part in kept) if kept else place.shape
    return f"{product}_{rows}x{columns}_{hashlib.sha256(identity.encode()).hexdigest()[:6]}"


def _digest(texts: Iterable[str], request: Request) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{text}\n".encode("utf-8", "surrogateescape"))
    digest.update(repr((request.box, request.every, request.options)).encode())
    return digest.hexdigest()


def _with_different_names(jobs: list[Job]) -> list[Job]:
    """Check that all records have different names. Raises DataError (exit 3) otherwise."""
    for one, other in itertools.pairwise(jobs):
        if one.path == other.path:
            files = " and ".join(str(job.inputs[0].path) for job in (one, other))
            raise DataError(f"{files} would both become {one.path}.\nConvert them to separate folders, or with --per day.")
    return jobs
