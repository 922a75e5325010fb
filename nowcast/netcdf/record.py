"""Records: an observed series on one grid, from any CF-like NetCDF files.

Fields are read when they are needed, as float32 mm/h with NaN for missing and row 0 northernmost. A Record holds no open file,
so it can be pickled and sent to other processes. `damage.py` reads frames that are damaged as missing.
"""

import dataclasses
import hashlib
import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nowcast.netcdf.files import OPEN_FILES, unreadable
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.rain.units import Conversion
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.raster import absent_between, nearest, tolerance
from nowcast.quantity import Quantity
from nowcast.runtime.log_lines import is_first

log = logging.getLogger(__name__)
SEQUENCE = "sequence"  # dimension of independent events of equal length, the only one besides time that frames may have
_MOST_READINGS = 4  # largest number of readings of a record that are logged
CHUNK_ROOM = 1 << 28  # bytes: largest chunk cache of a file


@dataclass(frozen=True)
class FrameLayout:
    """How the frames of a file are read; equal files share one object.

    `turned`: whether rows of the file start in the south, and columns in the east. `sequence_length`: number of frames in each
    sequence, 0 if the file has no sequences. Frames are numbered consecutively over all sequences. `may_be_total`: whether the
    interval of an amount is not clearly stated, so that it may be a total since the start of a run.
    """

    field: Field
    conversion: Conversion
    turned: tuple[bool, bool]
    sequence_length: int
    interval_source: str = ""  # where the interval of an amount is stated
    may_be_total: bool = dataclasses.field(default=False, repr=False)  # not in `Record.digest`, as the next one
    mean_seconds: float | None = dataclasses.field(default=None, repr=False)  # the interval of rates that are means, s

    @property
    def interval_seconds(self) -> float | None:
        """The interval of amounts and means, s; None for instants."""
        return self.conversion.interval_seconds or self.mean_seconds

    def selections(self, frame: int, count: int) -> list[dict[str, slice]]:
        """Return the slice of each dimension for `count` frames from `frame` on: one selection, or one per sequence."""
        time = [dim for dim in self.field.frame_dims if dim != SEQUENCE]
        if not self.sequence_length:
            return [{dim: slice(frame, frame + count) for dim in time}]
        selections = []
        while count > 0:
            sequence, first = divmod(frame, self.sequence_length)
            number = min(count, self.sequence_length - first)
            selections.append({SEQUENCE: slice(sequence, sequence + 1)} | {dim: slice(first, first + number) for dim in time})
            frame, count = frame + number, count - number
        return selections


@dataclass(frozen=True, eq=False)
class Record:
    """An observed series on one grid. Made by `open_records`.

    times: (frame,) datetime64[s], sorted and unique
    stamps: (frame,) datetime64[s], the times in the files, some seconds early or late; empty if they are the same
    frame_sources: (frame, 2) int64, the index of the file in `paths` and the position of the frame in it; -1: absent
    """

    name: str
    times: np.ndarray
    grid: Grid
    quantity: Quantity
    variable: str
    paths: tuple[Path, ...]
    frame_sources: np.ndarray
    layouts: tuple[FrameLayout, ...]  # one per file
    institution: str | None = None  # the global attribute of the first file that has one
    stamps: np.ndarray = field(default_factory=lambda: np.zeros(0, "datetime64[s]"))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def units(self) -> str:
        return self.quantity.units

    @property
    def readings(self) -> list[str]:
        """Each conversion as text, such as "rr as rain rate: mm per 300 s -> mm/h (the time bounds)"."""
        texts = {layout.conversion.describe: layout.interval_source for layout in self.layouts}
        sources = (f"{said} ({source})" if source else said for said, source in texts.items())
        return [f"{self.variable} as {self.quantity.name.replace('_', ' ')}: {said}" for said in sources]

    @property
    def interval_seconds(self) -> float | None:
        """Return the shortest interval that amounts and means of the record cover, s; None if some frames are instants."""
        return min((each.interval_seconds or 0 for each in self.layouts), default=0) or None

    @property
    def are_amounts(self) -> bool:
        """Return whether frames are amounts, in any of the files."""
        return any(layout.conversion.interval_seconds for layout in self.layouts)

    @property
    def is_reflectivity(self) -> bool:
        """Return whether rates follow from reflectivity, in any of the files, by a Z-R relation."""
        return any(layout.conversion.zr for layout in self.layouts)

    @property
    def is_absent(self) -> np.ndarray:
        """Return a mask (frame,) of the absent frames, which are in no file: `with_absent` inserts them, missing as a whole."""
        return self.frame_sources[:, 0] < 0

    def with_absent(self, most: int) -> "Record":
        """Return the record with absent frames inserted into gaps of up to `most` frames.

        Longer gaps stay gaps.
        """
        absent = absent_between(self.times, self.time_step, most)
        if not len(absent):
            return self
        times = np.concatenate([self.times, absent])
        order = np.argsort(times, kind="stable")
        sources = np.concatenate([self.frame_sources, np.full((len(absent), 2), -1)])
        stamps = np.concatenate([self.stamps, absent])[order] if len(self.stamps) else self.stamps
        return replace(self, times=times[order], frame_sources=sources[order], stamps=stamps)

    @property
    def time_step(self) -> np.timedelta64:
        """The most frequent difference between frames, of equally frequent ones the shortest; NaT for a single frame."""
        return most_frequent_step(self.times)

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """Return the times of the frames for given times: equal to a time in the files, or within the tolerance of a frame.

        times: (time,) datetime64[s]
        returns: (time,) datetime64[s], NaT where there is no frame
        """
        times = np.asarray(times, "datetime64[s]")
        position, off = nearest(self.times, times)
        if len(self.stamps):
            stamp, stamp_off = nearest(self.stamps, times)
            position = np.where(stamp_off < off, stamp, position)
            off = np.minimum(off, stamp_off)
        return np.where(off <= tolerance(self.time_step), self.times[position], np.datetime64("NaT", "s"))

    def is_between(self, start: np.datetime64 | None, end: np.datetime64 | None) -> np.ndarray:
        """Return a mask (frame,) of the frames whose time, or time in the file, is from `start` to `end` (None: no limit)."""
        masks = [
            (times >= (times[0] if start is None else start)) & (times <= (times[-1] if end is None else end))
            for times in (self.times, self.stamps)
            if len(times)
        ]
        return np.logical_or.reduce(masks)

    def read(self, positions: Sequence[int]) -> np.ndarray:
        """Read the frames at these positions, in this order.

            returns: (frame, y, x) float32 mm/h, NaN missing, row 0 northernmost

        Raises DataError (exit 3) for a frame that cannot be read.
        """
        positions = np.asarray(positions, np.int64).ravel()
        if positions.size and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"positions {positions.min()} to {positions.max()} of a record of {len(self)} frames")
        out = np.empty((len(positions), *self.grid.shape), np.float32)
        for first, stop in _runs(self.frame_sources[positions]):
            file, frame = (int(n) for n in self.frame_sources[positions[first]])
            out[first:stop] = self._read_file(file, frame, stop - first) if file >= 0 else np.nan
        return out

    def _read_file(self, file: int, frame: int, count: int) -> np.ndarray:
        path, layout = self.paths[file], self.layouts[file]
        with OPEN_FILES.lock:
            try:
                dataset = OPEN_FILES.get(path)
                keep_chunks(dataset.variables[layout.field.variable], layout.field)
                blocks = [layout.field.read(dataset, selection, layout.conversion, turned=layout.turned)
                          for selection in layout.selections(frame, count)]  # fmt: skip
                frames = np.concatenate([block.reshape(-1, *self.grid.shape) for block in blocks])
                return frames.reshape(count, *self.grid.shape)
            except (OSError, RuntimeError, IndexError, KeyError, ValueError) as error:
                last = f" to {frame + count - 1}" if count > 1 else ""
                what = f"{path}: frame {frame}{last} of {layout.field.variable} cannot be read"
                hint = "The file is damaged or has changed: get it again, or leave it out."
                raise unreadable(error, what, hint) from error

    def source(self, position: int) -> Path:
        """Return the file that holds a frame, for messages."""
        return self.paths[self.frame_sources[position, 0]]

    def digest(self, positions: Sequence[int] | None = None) -> str:
        """Return a SHA-256 (hex) of the source of the frames: files (path, size, modification time), conversions, frames."""
        digest = hashlib.sha256()
        described = {id(layout): repr(layout) for layout in self.layouts}
        for path, layout in zip(resolved(self.paths), self.layouts, strict=True):
            status = path.stat()
            digest.update(f"({str(path)!r}, {status.st_size}, {status.st_mtime_ns}, {described[id(layout)]})".encode())
        digest.update(np.ascontiguousarray(self.frame_sources, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self.times.astype(np.int64), "<i8").tobytes())
        if positions is not None:
            digest.update(np.ascontiguousarray(positions, "<i8").tobytes())
        return digest.hexdigest()


def with_own_names(records: Sequence[Record]) -> list[Record]:
    """Return the records with unique names, by which files, scores and blocks of the bootstrap are distinguished.

    Records with equal names get the subfolders of their files appended, or else the name of their first file, or a number.
    """
    names = [record.name for record in records]
    for name in [name for name, number in Counter(names).items() if number > 1]:
        same = [n for n, record in enumerate(records) if record.name == name]
        for n, ending in zip(same, _endings([records[n].paths[0] for n in same]), strict=True):
            names[n] = f"{name}-{ending}" if ending else name
    return [
        replace(record, name=name) if name != record.name else record
        for record, name in zip(records, _numbered(names), strict=True)
    ]


def _endings(paths: Sequence[Path]) -> list[str]:
    """Return the shortest paths of subfolders that distinguish files, else their stems; all subfolders if neither does."""
    parents = [Path(os.path.abspath(path)).parent for path in paths]
    folders, shared = [parent.parts for parent in parents], len(Path(os.path.commonpath(parents)).parts)
    depths = range(shared + 1, max(map(len, folders)) + 1)
    by_folder = [["-".join(folder[shared:depth]) for folder in folders] for depth in depths]
    ways = [*by_folder, [path.stem for path in paths]]
    return next((way for way in ways if len(set(way)) == len(way)), by_folder[-1] if by_folder else [""] * len(paths))


def _numbered(names: Sequence[str]) -> list[str]:
    """Return unique names: equal ones get the numbers 1, 2, … appended, without repeating another name."""
    own, numbers, taken = [], Counter(names), set(names)
    for name in names:
        if numbers[name] > 1:
            name = next(each for n in itertools.count(1) if (each := f"{name}-{n}") not in taken)
            taken.add(name)
        own.append(name)
    return own


_LOGGED: set[str] = set()  # readings that have been logged


def log_readings(records: Sequence[Record]) -> None:
    """Log how records are read, each reading once: variable, quantity, units, conversion, interval."""
    names: dict[str, list[str]] = {}
    for record in records:
        for reading in record.readings[:_MOST_READINGS]:
            names.setdefault(reading, []).append(record.name)
    for reading in [each for each in names if each not in _LOGGED]:
        more = ", …" if len(names[reading]) > _MOST_READINGS else ""
        log.info("%s%s: %s", ", ".join(names[reading][:_MOST_READINGS]), more, reading)
    _LOGGED.update(names)


def resolved(paths: Sequence[Path]) -> list[Path]:
    """Resolve the paths of many files in few folders; each folder is resolved once."""
    folders = {folder: folder.resolve() for folder in {path.parent for path in paths}}
    return [path.resolve() if path.is_symlink() else folders[path.parent] / path.name for path in paths]


def keep_chunks(variable, field: Field, *, also: str | None = None) -> None:
    """Set the chunk cache of an open variable so that every chunk of a frame fits, if chunks hold several frames.

    Otherwise the next frame would decompress the same chunks again, which takes a hundred times longer for files with the
    library's default chunks. Chunks of one frame are read only once, and get a smaller cache: the default of 64 MiB for each
    open file adds up to a gigabyte. `also`: another dimension that is read as a whole. Hold the lock of the library.
    """
    chunks = variable.chunking()
    if not isinstance(chunks, list):
        return  # not chunked: a classic or contiguous file
    sizes = dict(zip(variable.dimensions, zip(variable.shape, chunks, strict=True), strict=True))
    across = math.prod(math.ceil(sizes[dim][0] / sizes[dim][1]) for dim in (field.y_dim, field.x_dim, also) if dim)
    needed = across * math.prod(chunks) * variable.dtype.itemsize
    room, slots, preemption = variable.get_var_chunk_cache()
    if all(sizes[dim][1] == 1 for dim in field.frame_dims):
        wanted = min(room, needed)
    else:
        wanted = needed if room < needed <= CHUNK_ROOM else room
        if needed > CHUNK_ROOM:
            _warn_of_chunks(Path(variable.group().filepath()), variable, field, needed)
    if wanted != room:
        variable.set_var_chunk_cache(wanted, max(slots, 2 * across), preemption)


def _warn_of_chunks(file: Path, variable, field: Field, needed: int) -> None:
    """Log a warning, once per folder, that reading a frame decompresses many others."""
    if not is_first(file, f"chunks of {variable.name}"):
        return
    frames = math.prod(
        size for dim, size in zip(variable.dimensions, variable.chunking(), strict=True) if dim in field.frame_dims
    )
    sizes = ",".join(
        str(size if dim in (field.y_dim, field.x_dim) else 1)
        for dim, size in zip(variable.dimensions, variable.shape, strict=True)
    )
    log.warning(
        "%s: %s is stored in chunks of %d frames, %.1f GB per grid, all decompressed again for every frame: this is slow.\n"
        "Expected chunks of one frame: `nccopy -c %s:%s IN.nc OUT.nc`.",
        file, variable.name, frames, needed / 1e9, variable.name, sizes,
    )  # fmt: skip


def most_frequent_step(times: np.ndarray) -> np.timedelta64:
    """Return the most frequent difference of sorted times (time,), the shortest if several are; NaT for fewer than two."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[np.argmax(counts)] if len(steps) else np.timedelta64("NaT", "s")


def _runs(sources: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, stop) of runs of consecutive frames of one file, each of which is one read."""
    if not len(sources):
        return []
    breaks = np.flatnonzero((np.diff(sources, axis=0) != (0, 1)).any(axis=1)) + 1
    ends = [0, *breaks.tolist(), len(sources)]
    return list(itertools.pairwise(ends))
