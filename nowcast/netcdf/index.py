"""What opening the files of an archive found out, kept in the cache: unchanged files are not opened again to plan.

One JSON file for each folder, with a SHA-256 over its text and over the code that read the files: what is damaged
or stale is as good as none.
"""

import base64
import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np

from nowcast.errors import OutputError
from nowcast.netcdf.grid import Grid
from nowcast.netcdf.opening import FileFacts
from nowcast.netcdf.packing import Packing
from nowcast.netcdf.rain_variable import Field
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.outputs import replacing

MANY = 20  # files in a folder, below which opening them is quick
SETTLED = 2_000_000_000  # ns: what changed later than this could change again within a tick of the file system's clock

log = logging.getLogger(__name__)


class FileIndex:
    """A `netcdf.Index` of files opened as `variable`: a JSON file in the cache for each folder that holds MANY of them.

    A file counts as unchanged while its size, its inode and its times of change (of content and of inode) are. An index
    that is damaged, or that another version of the reading code wrote, is as good as none.
    """

    def __init__(self, variable: str | None):
        self.variable = variable
        self._folders: dict[Path, _Folder] = {}

    def get(self, path: Path) -> FileFacts | None:
        return self._folder(path).get(path)

    def put(self, facts: FileFacts) -> None:
        self._folder(facts.path).put(facts)

    def save(self) -> None:
        for folder in self._folders.values():
            try:
                folder.save()
            except (OSError, OutputError) as error:  # it only saves time: one that cannot be written is done without
                log.debug("no index of %s: %s", folder.folder, error)

    def _folder(self, path: Path) -> "_Folder":
        if path.parent not in self._folders:
            self._folders[path.parent] = _Folder(path.parent.resolve(), self.variable)
        return self._folders[path.parent]


class _Folder:
    """The index of one folder: `files` maps a name to [state of the file, number of what it shares, times].

    `shared` holds, as JSON texts, what many files of an archive have in common: field and grid.
    """

    def __init__(self, folder: Path, variable: str | None):
        self.folder, self.is_new = folder, False
        name = hashlib.sha256(f"{folder}\n{variable}".encode()).hexdigest()
        self.path = cache_folder() / "index" / f"{name}.json"
        self.files, self.shared = read_checked(self.path)
        self._numbers = {text: number for number, text in enumerate(self.shared)}
        self._states: dict[str, list[int]] = {}
        self._decoded: dict[int, FileFacts] = {}

    def get(self, path: Path) -> FileFacts | None:
        try:
            # taken before the file is opened: should it change meanwhile, it will be opened again the next time
            self._states[path.name] = state = _state(path)
            known, number, seconds = self.files[path.name]
            if known != state:
                return None
            if number not in self._decoded:
                self._decoded[number] = _decode_shared(self.shared[number])
            return replace(self._decoded[number], path=path, times=np.array(seconds, np.int64).astype("datetime64[s]"))
        except (OSError, ArithmeticError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
            return None  # no such file, or somebody else's JSON

    def put(self, facts: FileFacts) -> None:
        state = self._states.get(facts.path.name)
        if state is None or time.time_ns() - state[2] < SETTLED:
            return
        try:
            text = _encode_shared(facts)
        except TypeError:  # an attribute that is neither text nor numbers
            return
        if text not in self._numbers:
            self._numbers[text] = len(self.shared)
            self.shared.append(text)
        self.files[facts.path.name] = [state, self._numbers[text], facts.times.astype(np.int64).tolist()]
        self.is_new = True

    def save(self) -> None:
        if self.is_new and len(self.files) >= MANY:
            present = {entry.name for entry in os.scandir(self.folder)}
            kept = {name: entry for name, entry in self.files.items() if name in present}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_checked(self.path, kept, self.shared)
        self.is_new = False


def read_checked(path: Path) -> tuple[dict, list[str]]:
    """`files` and `shared` as `write_checked` wrote them; empty ones if it is not exactly that."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        files, shared = json.loads(text) if digest == _digest(text) else ({}, [])
        if isinstance(files, dict) and isinstance(shared, list) and all(isinstance(text, str) for text in shared):
            return files, shared
    except (OSError, TypeError, ValueError, RecursionError):
        pass
    return {}, []


def write_checked(path: Path, files: dict, shared: list[str]) -> None:
    text = json.dumps([files, shared], separators=(",", ":")).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(_digest(text) + b"\n" + text)


def _digest(text: bytes) -> bytes:
    """Of the text and of the code that found out what it says."""
    return hashlib.sha256(reading_code() + text).hexdigest().encode()


@cache
def reading_code() -> bytes:
    """The code of this folder, which found out what an index says."""
    return b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


def _state(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns]


def _encode_shared(facts: FileFacts) -> str:
    own = {name: getattr(facts, name) for name in ("interval", "institution", "sequence_length")}
    return json.dumps(own | {"field": asdict(facts.field), "grid": vars(facts.grid)}, default=_encode_numbers)


def _decode_shared(text: str) -> FileFacts:
    """The inverse of `_encode_shared`, without path and times."""
    values = json.loads(text, object_hook=_decode_numbers)
    packing = values["field"]["packing"]
    packing = Packing(**packing | {"missing": tuple(packing["missing"])})
    field = Field(**values["field"] | {"frame_dims": tuple(values["field"]["frame_dims"]), "packing": packing})
    grid = Grid(**values["grid"])
    place, nothing = (grid.key, field.quantity), np.zeros(0, "datetime64[s]")
    return FileFacts(**values | {"path": Path(), "field": field, "grid": grid, "place": place, "times": nothing})


def _encode_numbers(values) -> dict:
    """Exactly and with their type, which attributes keep when a forecast is written on the same grid."""
    if not isinstance(values, np.ndarray | np.generic) or values.dtype.kind not in "iufb":
        raise TypeError(f"{type(values)} is not kept")
    return {"__numpy__": values.dtype.str, "shape": values.shape, "data": base64.b64encode(values.tobytes()).decode()}


def _decode_numbers(values: dict):
    if "__numpy__" not in values:
        return values
    data = np.frombuffer(base64.b64decode(values["data"]), np.dtype(values["__numpy__"]))
    return data.reshape(values["shape"]).copy()[()]  # a scalar where it was one
