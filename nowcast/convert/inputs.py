"""Find the original files that arguments name, and read what each holds, in several processes where there are many."""

import glob
import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from nowcast.convert.original import Options, Original
from nowcast.convert.sniffing import BESIDE, FORMATS, READ_COMPRESSED, format_of, is_compressed, is_store
from nowcast.errors import DataError, UsageError
from nowcast.runtime.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_FEW = 8  # pieces of work that one process does sooner than several begin


@dataclass(frozen=True)
class Input:
    """An original file or Zarr store, and the key of its format in FORMATS."""

    path: Path
    format: str

    @property
    def reader(self) -> ModuleType:
        """The module that reads it."""
        return importlib.import_module(f"nowcast.convert.formats.{FORMATS[self.format].module}")


@dataclass(frozen=True)
class Scanned:
    """What a file holds; or, if it cannot be used, why."""

    input: Input
    originals: tuple[Original, ...] = ()
    error: str = ""


def find(
    arguments: Sequence[str | Path], wanted: str = "auto", *, without: Path | None = None
) -> tuple[list[Input], list[Path]]:
    """Return the original files that arguments name, files, folders or globs, and the files of no format that is known.

    wanted: a key in FORMATS that all files have; "auto": found by their content; without: a folder that is left out

    Raises UsageError (exit 2) for an argument that names nothing.
    """
    inputs, unknown = {}, []
    for path in itertools.chain.from_iterable(_expanded(argument, without) for argument in arguments):
        name = format_of(path)
        if wanted != "auto" and name != BESIDE:
            name = wanted
        if name is None:
            unknown.append(path)
        elif name != BESIDE:
            inputs[path] = Input(path, name)
    return list(inputs.values()), unknown


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
        _check_unpacked(source)
        return Scanned(source, tuple(source.reader.scan(source.path, options)))
    except (DataError, MemoryError) as error:
        return Scanned(source, error=str(error) or "out of memory")


def _check_unpacked(source: Input) -> None:
    """Raise DataError (exit 3) for a compressed file of a format that is not read so."""
    if source.format not in READ_COMPRESSED and source.path.is_file() and is_compressed(source.path):
        read = ", ".join(FORMATS[name].title for name in READ_COMPRESSED)
        raise DataError(f"{source.path} is compressed.\nExpected it unpacked: only {read} are read from gzip and bzip2.")


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
