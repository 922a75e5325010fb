"""Find the original files that arguments name, and read what each holds, in several processes where there are many."""

import atexit
import contextlib
import errno
import glob
import hashlib
import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from nowcast.convert.containers import Member, Opened, damage, members
from nowcast.convert.original import Options, Original
from nowcast.convert.sniffing import ARCHIVE, BESIDE, FORMATS, READ_COMPRESSED, format_in, format_of, is_compressed, is_store
from nowcast.errors import DataError, NowcastError, UsageError
from nowcast.runtime.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_FEW = 8  # pieces of work that one process does sooner than several begin
_MEMORY = Path("/dev/shm")  # where a member of an archive is while it is read, if there is room
_OPENED = Opened()
atexit.register(_OPENED.close)


@dataclass(frozen=True)
class Input:
    """An original file or Zarr store, and the key of its format in FORMATS. member: its place, if it is in an archive."""

    path: Path
    format: str
    member: Member | None = None

    @property
    def reader(self) -> ModuleType:
        """The module that reads it."""
        return importlib.import_module(f"nowcast.convert.formats.{FORMATS[self.format].module}")

    @property
    def file(self) -> Path:
        """The file on disk that holds it."""
        return self.member.archive if self.member else self.path

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a file to read: itself, or a copy of a member of an archive for the time being. Errors name the original."""
        if self.member is None:
            yield self.path
            return
        room = _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * self.member.size else None
        with tempfile.TemporaryDirectory(dir=room) as folder:
            copy = Path(folder) / self.path.name
            with damage(self.path), _OPENED.open(self.member) as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            try:
                yield copy
            except NowcastError as error:
                raise type(error)(str(error).replace(str(copy), str(self.path))) from error

    def state(self) -> str:
        """Return what tells quickly whether it has changed: name, size and time of change. Raises OSError."""
        if self.member:
            return f"{self.path.name} {self.member.state}"
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return f"{self.path.name} " + " ".join(f"{file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)

    def digest(self) -> str:
        """Return a digest of its name and content; of members of archives, and of stores, as `state`. Raises OSError."""
        if self.member or self.path.is_dir():
            return self.state()
        with open(self.path, "rb") as content:
            return f"{self.path.name} {hashlib.file_digest(content, 'sha256').hexdigest()}"


@dataclass(frozen=True)
class Scanned:
    """What a file holds, and its state before it was read; or, if it cannot be used, why."""

    input: Input
    originals: tuple[Original, ...] = ()
    state: str = ""
    error: str = ""


@dataclass
class Found:
    """The original files that arguments name, the files of no format that is known, and the archives that are damaged."""

    inputs: list[Input] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)


def find(
    arguments: Sequence[str | Path], wanted: str = "auto", *, without: Path | None = None, known: dict | None = None
) -> Found:
    """Find the original files that arguments name, files, folders or globs; tar and zip files count for what they hold.

    wanted: a key in FORMATS that all files have; "auto": found by their content; without: a folder that is left out
    known: what files told when they were listed before, which is brought up to date: a watched folder is listed often

    Raises UsageError (exit 2) for an argument that names nothing.
    """
    found, known = Found(), {} if known is None else known
    paths = dict.fromkeys(itertools.chain.from_iterable(_expanded(argument, without) for argument in arguments))
    for gone in [each for each in known if each[0] not in paths]:
        del known[gone]
    for path in paths:
        name = _unless_known(path, format_of, known)
        if name != ARCHIVE or wanted == "meteonet":  # npz is zip
            _add(found, path, name, wanted)
            continue
        inside, fault = _unless_known(path, _look_into, known) or ([], None)
        for member, name in inside:
            _add(found, member.path, name, wanted, member)
        if fault:
            found.broken[path] = fault
    return found


def _unless_known(path: Path, look: Callable[[Path], Result], known: dict) -> Result | None:
    """Return what a look at a file tells; once, until its size or time changes.

    known: path and look -> size and time of change, and what it told
    """
    try:
        status = path.stat()
    except OSError:
        return None
    state = (status.st_size, status.st_mtime_ns)
    if path.is_dir() or known.get((path, look), (None,))[0] != state:
        known[path, look] = state, look(path)
    return known[path, look][1]


def _look_into(path: Path) -> tuple[list[tuple[Member, str | None]], str | None]:
    """Return the members of an archive with their formats, and what is wrong with it, if anything is."""
    found = []
    try:
        for each in members(path, format_in):
            found.append(each)  # one by one: those before the damage count
    except DataError as error:
        return found, str(error)
    return found, None


def _add(found: Found, path: Path, name: str | None, wanted: str, member: Member | None = None) -> None:
    if wanted != "auto" and name != BESIDE:
        name = wanted
    if name is None or name == ARCHIVE:
        found.unknown.append(path)
    elif name != BESIDE:
        found.inputs.append(Input(path, name, member))


def _expanded(argument: str | Path, without: Path | None) -> list[Path]:
    text = os.path.expanduser(argument)
    paths = [Path(text)] if os.path.exists(text) else [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    if not paths:
        raise UsageError(f"no such file or folder: {text}")
    return [file for path in paths for file in _files(path, without)]


def _files(path: Path, without: Path | None) -> Iterator[Path]:
    """Yield a file or store itself; of another folder the files on all levels in order, but for hidden ones."""
    if not path.is_dir() or is_store(path):
        yield path
        return
    if without is not None and without.exists() and path.samefile(without):
        return
    for entry in sorted(path.iterdir()):
        if not entry.name.startswith("."):
            yield from _files(entry, without)


def scan(job: tuple[Input, Options]) -> Scanned:
    """Return what a file holds, without its fields."""
    source, options = job
    try:
        state = source.state()
        with source.on_disk() as path:
            _check_unpacked(source, path)
            return Scanned(source, tuple(source.reader.scan(path, options)), state)
    except (DataError, MemoryError, OSError) as error:
        return Scanned(source, error=why_not(error, source.path))


def why_not(error: Exception, path: Path) -> str:
    """Return why an original cannot be used; raise an OSError that is not of the original but of a full disk or memory."""
    if not isinstance(error, OSError):
        return str(error) or "out of memory"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        raise error
    expected = "a file that can be read whole"
    if error.errno in {errno.ENOENT, errno.ESTALE}:
        expected = "it to stay while it is converted"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        expected = "a file that you may read"
    return f"{path} cannot be read ({error.strerror or error}).\nExpected {expected}."


def _check_unpacked(source: Input, path: Path) -> None:
    """Raise DataError (exit 3) for a compressed file of a format that is not read so."""
    if source.format not in READ_COMPRESSED and path.is_file() and is_compressed(path):
        read = ", ".join(FORMATS[name].title for name in READ_COMPRESSED)
        raise DataError(f"{path} is compressed.\nExpected it unpacked: only {read} are read from gzip, bzip2 and xz.")


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress,
    processes: int,
    weight: Callable[[Result], int] = lambda _: 1,
) -> Iterator[Result]:
    """Yield a function of each item in order, computed in so many processes; progress advances by the weight of each result.

    Raises DataError (exit 3) if a process dies, as one without memory does.
    """
    if processes < 2 or len(items) < min(_FEW, 2 * processes):
        for item in items:
            result = function(item)
            progress.advance_by(weight(result))
            yield result
        return
    # not forked: libraries of HDF5 and GRIB may hold locks
    with ProcessPoolExecutor(min(processes, len(items)), mp_context=get_context("spawn")) as pool:
        try:
            size = max(1, min(32, len(items) // (4 * processes)))
            for result in pool.map(function, items, chunksize=size):
                progress.advance_by(weight(result))
                yield result
        except BrokenProcessPool:
            raise DataError(
                "a process that reads original files died: out of memory, or a library failed on a damaged file.\n"
                "Find the file with --processes 1, and leave it out."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
