"""Find the original files given by arguments, and scan them, in several processes if there are many."""

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

from nowcast.convert.containers import Member, OpenArchive, damage, members
from nowcast.convert.original import Options, Original
from nowcast.convert.sniffing import ARCHIVE, BESIDE, FORMATS, READ_COMPRESSED, format_in, format_of, is_compressed, is_store
from nowcast.errors import DataError, NowcastError, UsageError
from nowcast.netcdf.writing.new_file import writing
from nowcast.runtime.log_lines import standing_for
from nowcast.runtime.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_FEW = 8  # files that one process reads sooner than several processes start
_IN_MEMORY = Path("/dev/shm")  # holds a copy of an archive's member while it is read, if it has enough free space
_OPEN_ARCHIVE = OpenArchive()
atexit.register(_OPEN_ARCHIVE.close)


@dataclass(frozen=True)
class Input:
    """An original file or Zarr store, its format as a key in FORMATS, and its location if it is in an archive."""

    path: Path
    format: str
    member: Member | None = None

    @property
    def reader(self) -> ModuleType:
        """The module in `formats` that reads it."""
        return importlib.import_module(f"nowcast.convert.formats.{FORMATS[self.format].module}")

    @property
    def file(self) -> Path:
        """The file on disk: itself or its archive."""
        return self.member.archive if self.member else self.path

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield the path to read: the file itself, or a temporary copy of a member. Messages name the original."""
        if self.member is None:
            yield self.path
            return
        room = _IN_MEMORY if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 2 * self.member.size else None
        with tempfile.TemporaryDirectory(dir=room) as folder:
            copy = Path(folder) / self.path.name
            with writing(copy), damage(self.path), _OPEN_ARCHIVE.open(self.member) as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                if (size := target.tell()) != self.member.size:
                    raise EOFError(f"{size:,} bytes, where {self.member.size:,} are stated")
            try:
                with standing_for(copy, self.path):
                    yield copy
            except NowcastError as error:
                raise type(error)(str(error).replace(str(copy), str(self.path))) from error

    def state(self) -> str:
        """Return name, size and time of change, a quick test of whether it has changed. Raises OSError."""
        if self.member:
            return f"{self.path.name} {self.member.state}"
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return f"{self.path.name} " + " ".join(f"{file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)

    def digest(self) -> str:
        """Return name and SHA-256 of its content; `state` for members of archives and Zarr stores. Raises OSError."""
        if self.member or self.path.is_dir():
            return self.state()
        with open(self.path, "rb") as content:
            return f"{self.path.name} {hashlib.file_digest(content, 'sha256').hexdigest()}"


@dataclass(frozen=True)
class Scanned:
    """The fields of a file, and its state before it was read; or the reason why it cannot be used."""

    input: Input
    originals: tuple[Original, ...] = ()
    state: str = ""
    error: str = ""


@dataclass
class FoundFiles:
    """Original files, files of an unknown format, and damaged archives with the reasons."""

    inputs: list[Input] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)


def find_files(
    arguments: Sequence[str | Path], wanted: str = "auto", *, without: Path | None = None, known: dict | None = None
) -> FoundFiles:
    """Find original files by paths of files and folders, or globs. Tar and zip files are searched for files inside.

    wanted: key in FORMATS of all files; "auto": detected from the content; without: a folder that is left out
    known: formats of files from an earlier listing, updated here, since a watched folder is listed often

    Raises UsageError (exit 2) for a path that does not exist.
    """
    found, known = FoundFiles(), {} if known is None else known
    paths = dict.fromkeys(itertools.chain.from_iterable(_expanded(argument, without) for argument in arguments))
    for gone in [each for each in known if each[0] not in paths]:
        del known[gone]
    for path in paths:
        name = _look_once(path, format_of, known)
        if name != ARCHIVE or wanted == "meteonet":  # npz is zip
            _add(found, path, name, wanted)
            continue
        members_inside, fault = _look_once(path, _look_into, known) or ([], None)
        for member, name in members_inside:
            _add(found, member.path, name, wanted, member)
        if fault:
            found.broken[path] = fault
    return found


def _look_once(path: Path, look: Callable[[Path], Result], known: dict) -> Result | None:
    """Return the result of `look` for a file, from `known` if its size and time have not changed.

    known: (path, look) -> (size and time of change, result)
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
    """Return the members of an archive with their formats, and an error message if it is damaged, else None."""
    contents = []
    try:
        for each in members(path, format_in):
            contents.append(each)  # one by one, to keep those before the damage
    except DataError as error:
        return contents, str(error)
    return contents, None


def _add(found: FoundFiles, path: Path, name: str | None, wanted: str, member: Member | None = None) -> None:
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
    """Yield a file or Zarr store itself, or the files of a folder and its subfolders in order, without hidden ones."""
    if not path.is_dir() or is_store(path):
        yield path
        return
    if without is not None and without.exists() and path.samefile(without):
        return
    for entry in sorted(path.iterdir()):
        if not entry.name.startswith("."):
            yield from _files(entry, without)


def scan(job: tuple[Input, Options]) -> Scanned:
    """Return times and series of the fields of a file."""
    source, options = job
    try:
        state = source.state()
        with source.on_disk() as path:
            _check_unpacked(source, path)
            return Scanned(source, tuple(source.reader.scan(path, options)), state)
    except (DataError, MemoryError, OSError) as error:
        return Scanned(source, error=why_unusable(error, source.path))


def why_unusable(error: Exception, path: Path) -> str:
    """Return why an original file cannot be used. Raises the error itself if disk or memory is full."""
    if not isinstance(error, OSError):
        return str(error) or "out of memory"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        raise error
    expected = "a readable file"
    if error.errno in {errno.ENOENT, errno.ESTALE}:
        expected = "a file that is not removed during conversion"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        expected = "permission to read it"
    return f"{path} cannot be read ({error.strerror or error}).\nExpected {expected}."


def _check_unpacked(source: Input, path: Path) -> None:
    """Raise DataError (exit 3) for a compressed file of a format that is read only uncompressed."""
    if source.format not in READ_COMPRESSED and path.is_file() and is_compressed(path):
        read = ", ".join(FORMATS[name].title for name in READ_COMPRESSED)
        raise DataError(f"{path} is compressed.\nDecompress it: only {read} can be read from gzip, bzip2 and xz.")


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress,
    processes: int,
    weight: Callable[[Result], int] = lambda _: 1,
) -> Iterator[Result]:
    """Yield the result of a function for each item in order, in `processes`; progress advances by the weight of each result.

    Raises DataError (exit 3) if a process dies, for example for lack of memory.
    """
    if processes < 2 or len(items) < min(_FEW, 2 * processes):
        for item in items:
            result = function(item)
            progress.advance_by(weight(result))
            yield result
        return
    # spawn, not fork: the HDF5 and GRIB libraries may hold locks
    with ProcessPoolExecutor(min(processes, len(items)), mp_context=get_context("spawn")) as pool:
        try:
            size = max(1, min(32, len(items) // (4 * processes)))
            for result in pool.map(function, items, chunksize=size):
                progress.advance_by(weight(result))
                yield result
        except BrokenProcessPool:
            raise DataError(
                "a process that reads original files died: out of memory, or a library failed on a damaged file.\n"
                "Find that file with --processes 1, and leave it out."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
