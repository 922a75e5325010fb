"""Plan the records to write from what files hold: which fields, in which order, under which names.

The name of a record follows from its series and period alone, so that it is found again whatever else is converted beside it.
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

from nowcast.convert.inputs import Input, Scanned, why_not
from nowcast.convert.original import Options, Original, Series
from nowcast.convert.place import Box, BoxMissed, Window, window
from nowcast.errors import DataError
from nowcast.netcdf.times.raster import tolerance
from nowcast.netcdf.writing.records import Storage

log = logging.getLogger(__name__)
PERIODS = {"day": "%Y%m%d", "month": "%Y%m", "file": ""}
_RECENT, _CHOSEN = 20, 2000  # frames and multiples of each series that a watch remembers
_MOST_UNKNOWN = np.timedelta64(30, "s")  # that frames of an unknown time step may be early or late
_SUFFIXES = r"(\.(gz|bz2|xz|h5|hdf5?|nc|grib2?|grb2?|bin|gif|png|pgm|npz|tiff?|zarr))+$"


class Kept:
    """What a watch, which plans each file by itself, remembers of the frames near multiples: one of each series is kept."""

    def __init__(self) -> None:
        self._recent: dict[tuple, list[np.datetime64]] = defaultdict(list)  # of each series the times that came last
        self._chosen: dict[tuple, dict[np.datetime64, np.datetime64]] = defaultdict(dict)  # by multiples

    def see(self, series: tuple, time: np.datetime64) -> None:
        """Note that a frame has come."""
        times = self._recent[series]
        if time not in times:
            times.append(time)
            del times[:-_RECENT]

    def most_off(self, series: tuple) -> np.timedelta64:
        """Return how far a frame may be from a multiple so that none that comes later is nearer: half the step, if known."""
        steps = np.diff(np.sort(np.array(self._recent[series])))
        return np.median(steps) / 2 if len(steps) else _MOST_UNKNOWN

    def choose(self, series: tuple, multiple: np.datetime64, time: np.datetime64) -> np.datetime64:
        """Return the time of the frame that is kept: the one given, unless another was before."""
        chosen = self._chosen[series]
        chosen.setdefault(multiple, time)
        if len(chosen) > _CHOSEN:
            del chosen[next(iter(chosen))]
        return chosen.get(multiple, time)


@dataclass(frozen=True)
class Request:
    """What to convert and how.

    per: a key in PERIODS; box: the part of the grid to keep; every: minutes near whose multiples frames are kept
    kept: what earlier plans have kept of them, for a watch
    """

    format: str = "auto"
    options: Options = field(default_factory=Options)
    per: str = "day"
    box: Box | None = None
    every: float | None = None
    overwrite: bool = False
    processes: int = 1
    kept: Kept | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Frame:
    """A field to write: its valid time, the interval of a sum, where it is read, and how its numbers are stored there."""

    time: np.datetime64
    span: tuple[np.datetime64, np.datetime64] | None
    input: Input
    number: int
    storage: Storage


@dataclass(frozen=True)
class Job:
    """A record to write. window: the rows and columns to keep; state: what tells quickly whether its files have changed"""

    path: Path
    series: Series
    frames: tuple[Frame, ...]
    request: Request
    window: Window
    state: str

    @property
    def inputs(self) -> list[Input]:
        """The files that it is made from, each once."""
        return list(dict.fromkeys(frame.input for frame in self.frames))

    def digest(self, broken: dict[Path, str]) -> str:
        """Return a digest of the names and contents of its files; of those that cannot be read, the reasons into `broken`."""
        found = []
        for source in self.inputs:
            try:
                found.append(source.digest())
            except OSError as error:  # such as one that was removed meanwhile
                broken[source.path] = why_not(error, source.path)
        return _digest(found, self.request)


def plan(scanned: Sequence[Scanned], output: Path, request: Request, *, quiet: bool = False) -> list[Job]:
    """Return the records to write: the fields of each series and period, in order of their times.

    Forecasts are left out, and series that no cell of which is in the box. `quiet`: do not tell what `every` leaves out.

    Raises BoxMissed (exit 2) if the box misses all series, DataError (3) if there are forecasts alone, or if two files would
    become one record.
    """
    observed = [(result.input, each) for result in _observed(scanned) for each in result.originals]
    windows = _windows({each.series.key: each.series for _, each in observed}, request.box)
    inside = [(source, each) for source, each in observed if each.series.key in windows]
    groups: dict[tuple, dict[np.datetime64, tuple[Input, Original]]] = defaultdict(dict)
    num_equal = 0
    for source, each in _near_multiples(inside, request, quiet=quiet):
        moment = each.time.astype("datetime64[s]").item()
        whole = str(source.path) if request.per == "file" else moment.strftime(PERIODS[request.per])
        fields = groups[whole, each.series.key]
        num_equal += each.time in fields
        fields[each.time] = source, each
    if num_equal:
        log.warning("left out %d fields whose time another file has too; the last file in order counts", num_equal)
    states = {result.input: result.state for result in scanned}
    jobs = [_job(output, groups, group, request, windows, states) for group in groups]
    return _apart(sorted(jobs, key=lambda job: job.path.name))


def _observed(scanned: Sequence[Scanned]) -> list[Scanned]:
    """Return what files hold but for forecasts, which are counted and told."""
    ahead = [(result.input, each) for result in scanned for each in result.originals if each.forecast is not None]
    if not ahead:
        return list(scanned)
    (first, original), files = ahead[0], len({source.path for source, _ in ahead})
    rest = [replace(each, originals=tuple(one for one in each.originals if one.forecast is None)) for each in scanned]
    told = f"{len(ahead)} fields of {files} files are forecasts, the first {original.forecast:g} minutes ahead in {first.path}"
    if not any(result.originals for result in rest):
        raise DataError(f"{told}.\nExpected observations or analyses: nowcast learns from what was measured.")
    log.warning("left out: %s", told)
    return rest


def _windows(series: dict[tuple, Series], box: Box | None) -> dict[tuple, Window]:
    """Return the rows and columns to keep of each series; those that the box misses are told and left out."""
    if box is None:
        return dict.fromkeys(series, (slice(None), slice(None)))
    found, missed = {}, []
    for key, each in series.items():
        try:
            found[key] = window(each.place, box)
        except BoxMissed as error:
            missed.append((each, error))
    if missed and not found:
        raise missed[0][1]
    if missed:
        rows, columns = missed[0][0].place.shape
        log.warning(
            "left out %d of %d series of which --box holds no cell, the first of them %s of %d × %d cells",
            len(missed), len(series), missed[0][0].product, rows, columns,
        )  # fmt: skip
    return found


def _near_multiples(wanted: list[tuple[Input, Original]], request: Request, *, quiet: bool) -> list[tuple[Input, Original]]:
    """Return the fields near multiples of `every` minutes of a day, of each series the nearest; the others are counted.

    Radars are some seconds early or late. Fields of one time all stay. In a watch the first that can be the nearest stays.
    """
    if request.every is None:
        return wanted
    step, kept, found = np.timedelta64(round(request.every * 60), "s"), request.kept, {}
    # two folders that are watched may hold one series each way, such as with and without a correction
    series = [(each.series.key, source.file.parent if kept else None) for source, each in wanted]
    if kept:
        for key, (_, each) in zip(series, wanted, strict=True):
            kept.see(key, each.time)
    for key, (_, each) in zip(series, wanted, strict=True):
        multiple = _nearest_multiple(each.time, step)
        off = abs(each.time - multiple)
        if off <= tolerance(step) and (kept is None or off <= kept.most_off(key)):
            found[key, multiple] = min(found.get((key, multiple), (off, each.time)), (off, each.time))
    times = {(key, kept.choose(key, near, time) if kept else time) for (key, near), (_, time) in found.items()}
    chosen = [each for key, each in zip(series, wanted, strict=True) if (key, each[1].time) in times]
    if len(chosen) < len(wanted) and not quiet:
        log.info("--every %g left out %d of %d frames", request.every, len(wanted) - len(chosen), len(wanted))
    return chosen


def _nearest_multiple(time: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """Return the nearest time of whole steps since the beginning of a day; the next day begins anew."""
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
    whole, key = group
    fields = [groups[group][time] for time in sorted(groups[group])]
    series = fields[0][1].series
    told = label(series, windows[key] if request.box else None)
    name = f"{whole}_{told}"
    if request.per == "file":  # a file of one series gives the record its name alone
        stem = re.sub(_SUFFIXES, "", Path(whole).name, flags=re.I)
        name = stem if sum(path == whole for path, _ in groups) == 1 else f"{stem}_{told}"
    frames = tuple(Frame(each.time, each.span, source, each.number, each.series.storage) for source, each in fields)
    inputs = dict.fromkeys(source for source, _ in fields)
    state = _digest((states[source] for source in inputs), request)
    return Job(output / f"{name}.nc", series, frames, request, windows[key], state)


def label(series: Series, kept: Window | None = None) -> str:
    """Return a part of file names that no other series has: product, interval, size, and a digest of product and place.

    kept: the rows and columns that are kept, whose number is the size; None for all
    """
    product = re.sub(r"[^A-Za-z0-9]+", "-", series.product).strip("-")
    interval = "" if series.minutes is None else f"{series.minutes:g}min"
    product += f"-{interval}" if interval not in product else ""
    place = series.place
    grid = place.given and place.given.grid
    given = grid and ((grid.key, grid.turned) if any(grid.turned) else grid.key)
    cells = (place.y, place.x, place.projection, given, *(kept or ()))
    told = repr((series.product, interval, series.storage.reflectivity, *cells))
    rows, columns = (part.stop - part.start for part in kept) if kept else place.shape
    return f"{product}_{rows}x{columns}_{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def _digest(told: Iterable[str], request: Request) -> str:
    digest = hashlib.sha256()
    for text in told:
        digest.update(f"{text}\n".encode("utf-8", "surrogateescape"))
    digest.update(repr((request.box, request.every, request.options)).encode())
    return digest.hexdigest()


def _apart(jobs: list[Job]) -> list[Job]:
    """Return records of different names. Raises DataError (exit 3) if two have one."""
    for one, other in itertools.pairwise(jobs):
        if one.path == other.path:
            files = " and ".join(str(job.inputs[0].path) for job in (one, other))
            raise DataError(f"{files} would both become {one.path}.\nConvert them to folders of their own, or with --per day.")
    return jobs
