"""An index of archives in the cache, so that files that have not changed need not be opened again.

There is one JSON file for each folder, with a SHA-256 over its text and the code that read the files. An index that is damaged,
or was written by other code, is ignored. Another file holds results of reading samples of frames. Both are removed when they
have not been used for long.
"""

import base64
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.errors import OutputError
from nowcast.netcdf.opening import FileSummary, open_records
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.rain.packing import Packing
from nowcast.netcdf.rain.statements import Doubt
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.intervals import Interval
from nowcast.runtime.cache import INDEX, SAMPLES, cache_folder, mark_used, remove_unused
from nowcast.runtime.log_lines import was_warned
from nowcast.runtime.outputs import remove_stale, replacing

MANY = 20  # fewest files of a folder that is indexed; opening fewer is quick
_MOST_RESULTS = 99  # largest number of stored sample results of a folder
SETTLED = 2_000_000_000  # ns: a younger file could change again within the resolution of its time stamp

log = logging.getLogger(__name__)


class FileIndex:
    """A `netcdf.Index` of files opened with these options: a JSON file in the cache for each folder with MANY files.

    A file is unchanged if its size, inode number and times of change (of content and of inode) are the same. One whose opening
    logs a warning that its folder has not had yet is opened, so that the same is logged as without an index.
    """

    def __init__(self, variable: str | None, units: str | None = None, *, strict: bool = True):
        self.variable, self.units, self.strict = variable, units, strict
        self._folders: dict[Path, _Folder] = {}

    def get(self, path: Path) -> FileSummary | None:
        return self._folder(path).get(path)

    def put(self, summary: FileSummary) -> None:
        self._folder(summary.path).put(summary)

    def recall(self, what: str, paths: Sequence[Path]) -> str | None:
        return self._folder(paths[0]).results.get(_key(what, paths))

    def remember(self, what: str, paths: Sequence[Path], result: str) -> None:
        self._folder(paths[0]).keep(_key(what, paths), result)

    def save(self) -> None:
        for folder in self._folders.values():
            try:
                folder.save()
            except (OSError, OutputError, LookupError, TypeError, ValueError) as error:  # the last three: of another form
                log.debug("no index of %s: %s", folder.folder, error)

    def _folder(self, path: Path) -> "_Folder":
        if path.parent not in self._folders:
            self._folders[path.parent] = _Folder(path.parent.resolve(), f"{self.variable}\n{self.units}\n{self.strict}")
        return self._folders[path.parent]


def open_with_index(
    paths: Sequence[str | Path], *, variable: str | None = None, units: str | None = None, strict: bool = True, **options: Any
) -> list[Record]:
    """Open records as `open_records`, but open files only if they have changed since the last time.

    Without a place for a cache, and for a few files that are named one by one, all are opened.
    """
    reading = {"variable": variable, "units": units, "strict": strict}
    try:
        cache_folder()
        is_few = len(paths) < MANY and all(os.path.isfile(os.path.expanduser(path)) for path in paths)
    except OutputError:
        is_few = True
    return open_records(paths, **reading, **options, index=None if is_few else FileIndex(**reading))


class _Folder:
    """The index of one folder.

    `files` maps a file's name to [state, positions in `shared`, times in s from 1970]. `shared` holds, as JSON texts, what many
    files of an archive have in common: grids, and fields with the rest. `results` holds results of sampling frames, by `_key`.
    """

    def __init__(self, folder: Path, options: str):
        self.folder, self.is_new = folder, False
        # surrogates stand for bytes of names that are not UTF-8
        name = hashlib.sha256(f"{folder}\n{options}".encode(errors="surrogatepass")).hexdigest()
        self.path = cache_folder() / INDEX / f"{name}.json"
        self.files, self.shared = read_checked(self.path)
        self.results_path, self.has_new_results = cache_folder() / SAMPLES / f"{name}.json", False
        self.results, _ = read_checked(self.results_path)
        self._numbers = {text: number for number, text in enumerate(self.shared)}
        self._states: dict[str, list[int]] = {}
        self._decoded: dict[tuple[int, ...], FileSummary] = {}

    def get(self, path: Path) -> FileSummary | None:
        try:
            # taken before the file is opened: if the file changes meanwhile, it is opened again the next time
            self._states[path.name] = state = _state(path)
            indexed_state, (rest, grid), seconds = self.files[path.name]
            if indexed_state != state:
                return None
            if (rest, grid) not in self._decoded:
                self._decoded[rest, grid] = _decode_shared(self.shared[rest], self.shared[grid])
            known = self._decoded[rest, grid]
            if not all(was_warned(path, topic) for topic in known.topics):
                return None
            return replace(known, path=path, times=np.array(seconds, np.int64).astype("datetime64[s]"))
        except (OSError, ArithmeticError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
            return None  # no such file, or JSON of another form

    def put(self, summary: FileSummary) -> None:
        state = self._states.get(summary.path.name)
        if state is None or time.time_ns() - state[2] < SETTLED:
            return
        try:
            numbers = [self._number(text) for text in _encode_shared(summary)]
        except TypeError:  # an attribute that is neither text nor numbers
            return
        entry = [state, numbers, summary.times.astype(np.int64).tolist()]
        self.is_new |= self.files.get(summary.path.name) != entry  # a file with a warning is opened though it is known
        self.files[summary.path.name] = entry

    def _number(self, text: str) -> int:
        """Return the position of a text in `shared`, where it is added if it is new."""
        if text not in self._numbers:
            self._numbers[text] = len(self.shared)
            self.shared.append(text)
        return self._numbers[text]

    def keep(self, key: str | None, result: str) -> None:
        """Store the result of a sample; the oldest results are dropped."""
        if key is not None:
            self.results = dict(list(self.results.items())[-_MOST_RESULTS:]) | {key: result}
            self.has_new_results = True

    def save(self) -> None:
        if self.has_new_results and len(self.files) >= MANY:
            _write(self.results_path, self.results, [])
            self.has_new_results = False
        if self.is_new and len(self.files) >= MANY:
            present = {entry.name for entry in os.scandir(self.folder)}
            _write(self.path, *_in_use({name: entry for name, entry in self.files.items() if name in present}, self.shared))
        self.is_new = False


def _in_use(files: dict, shared: list[str]) -> tuple[dict, list[str]]:
    """Return the files, and the shared texts without those of files that are no more."""
    places: dict[int, int] = {}
    kept = {
        name: [state, [places.setdefault(number, len(places)) for number in numbers], seconds]
        for name, (state, numbers, seconds) in files.items()
    }
    return kept, [shared[number] for number in places]


def _write(path: Path, files: dict, shared: list[str]) -> None:
    """Write a file of the cache as `write_checked`; a new one in place of those that nothing has used for long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent)
    if not path.exists():
        remove_unused()
    write_checked(path, files, shared)


def read_checked(path: Path) -> tuple[dict, list[str]]:
    """Read `files` and `shared` as written by `write_checked`; both empty if the file is damaged or of other code.

    A file that is read counts as used.
    """
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        files, shared = json.loads(text) if digest == _digest(text) else ({}, [])
        if isinstance(files, dict) and isinstance(shared, list) and all(isinstance(text, str) for text in shared):
            mark_used(path)
            return files, shared
    except (OSError, TypeError, ValueError, RecursionError):
        pass
    return {}, []


def write_checked(path: Path, files: dict, shared: list[str]) -> None:
    """Write `files` and `shared` with their checksum."""
    text = json.dumps([files, shared], separators=(",", ":")).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(_digest(text) + b"\n" + text)


def _digest(text: bytes) -> bytes:
    """Return the SHA-256 (hex) of the text and of the code that read the files."""
    return hashlib.sha256(reading_code() + text).hexdigest().encode()


@cache
def reading_code() -> bytes:
    """Return the code that reads files, of this folder and what it uses: an index is valid only for the same code."""
    folder = Path(__file__).parent
    paths = [*sorted(folder.rglob("*.py")), folder.parent / "quantity.py", folder.parent / "convert" / "sniffing.py"]
    return b"".join(path.read_bytes() for path in paths)


def _key(what: str, paths: Sequence[Path]) -> str | None:
    """Return the key of a result for these files in their present state; None for files that have just been written."""
    try:
        states = [_state(path) for path in paths]
    except OSError:
        return None
    if any(time.time_ns() - state[2] < SETTLED for state in states):
        return None
    return hashlib.sha256(json.dumps([what, [str(path.resolve()) for path in paths], states]).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _encode_shared(summary: FileSummary) -> tuple[str, str]:
    """Return what a file shares with others, as JSON: its grid apart, since files on one grid may differ in their packing."""
    values = {name: getattr(summary, name) for name in ("institution", "sequence_length", "topics", "mean_seconds")}
    values |= {name: (value := getattr(summary, name)) and list(value) for name in ("interval", "doubt")}
    grid = {each.name: getattr(summary.grid, each.name) for each in fields(Grid)}
    return tuple(json.dumps(part, default=_encode_numbers) for part in (values | {"field": asdict(summary.field)}, grid))


def _decode_shared(rest: str, grid: str) -> FileSummary:
    """Return a summary from the JSON of `_encode_shared`; its path and times are empty."""
    values, grid = (json.loads(text, object_hook=_decode_numbers) for text in (rest, grid))
    packing = values["field"]["packing"]
    tuples = {name: tuple(packing[name]) for name in ("missing", "dry")} | {"unclear": tuple(map(tuple, packing["unclear"]))}
    packing = Packing(**packing | tuples)
    dims, zr = tuple(values["field"]["frame_dims"]), values["field"]["stated_zr"]
    field = Field(**values["field"] | {"frame_dims": dims, "stated_zr": zr and tuple(zr), "packing": packing})
    grid = Grid(**grid | {"others": tuple(grid["others"]), "carried": ()})
    series_key, no_times = (grid.key, field.quantity), np.zeros(0, "datetime64[s]")
    interval, doubt = values["interval"] and Interval(*values["interval"]), values["doubt"] and Doubt(*values["doubt"])
    known = {"path": Path(), "field": field, "grid": grid, "series_key": series_key, "times": no_times}
    known |= {"interval": interval, "doubt": doubt, "topics": tuple(values["topics"])}
    return FileSummary(**values | known)


def _encode_numbers(values) -> dict:
    """Encode NumPy values exactly and with their type, which attributes keep if a forecast is written on the same grid."""
    if not isinstance(values, np.ndarray | np.generic) or values.dtype.kind not in "iufb":
        raise TypeError(f"{type(values)} is not kept")
    return {"__numpy__": values.dtype.str, "shape": values.shape, "data": base64.b64encode(values.tobytes()).decode()}


def _decode_numbers(values: dict):
    if "__numpy__" not in values:
        return values
    data = np.frombuffer(base64.b64decode(values["data"]), np.dtype(values["__numpy__"]))
    return data.reshape(values["shape"]).copy()[()]  # [()]: a scalar if it was one
