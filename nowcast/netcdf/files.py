"""NetCDF files on this machine: find them by name, open them, keep a few open.

Only existing, regular, complete local files are opened. The NetCDF library is not safe for threads: whoever calls it, within
this folder alone, holds `OPEN_FILES.lock`, and waits for nothing else meanwhile. Each process has its own `OPEN_FILES`; a
forked child starts with an empty one.
"""

import contextlib
import glob
import itertools
import logging
import os
import re
import shlex
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path

import netCDF4

from nowcast.convert.sniffing import BESIDE, FORMATS, format_of, is_store, named, title_of
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.attributes import attributes
from nowcast.netcdf.classic_header import NoWholeFile, check_whole
from nowcast.runtime.log_lines import is_first

log = logging.getLogger(__name__)
SUFFIXES = (".nc", ".nc4", ".nc3", ".netcdf", ".cdf")
_MOST_SNIFFED = 1000  # files whose format is found from their content, for a message
_CHECKPOINT = ".safetensors"  # ending of the checkpoints of a training
_ORIGINALS = FORMATS.keys() - {"image", "netcdf", "zarr", "bom"}  # pictures may be of anything
_NUM_OPEN = 16  # files kept open


def expand(argument: str | Path) -> list[Path]:
    """Return the files that a path names: the file, the NetCDF files in a folder and its subfolders, or those of a glob.

    Raises UsageError (exit 2) for a URL, for what is not a regular file, and if there are none.
    """
    text = os.path.expanduser(argument)
    path = Path(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UsageError(f"{text} is a URL.\nExpected a file on this machine: download it first.")
    if path.is_dir():
        files = [Path(file) for file in netcdf_files(path)]
        if not files:
            _refuse_networks(path, text)
            inside = (Path(folder, name) for folder, names in _walk(path) for name in sorted(names))
            _refuse_originals([path] if is_store(path) else list(inside), text)
            raise UsageError(f"no NetCDF files in {text}{_others(path)}.\nExpected files ending in {', '.join(SUFFIXES)}.")
        if is_first(path / "originals", "originals"):
            _warn_of_originals(path, text)
        return files
    if path.exists():
        if not path.is_file():
            raise UsageError(f"{text} is no regular file.\nExpected a NetCDF file, a folder or a glob.")
        _refuse_networks(path, text)
        _refuse_originals([path], text)
        return [path]
    matches = (Path(match) for match in sorted(glob.glob(text, recursive=True)))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise UsageError(f"no such file or folder: {text}")
    _refuse_originals(files, text)
    return files


def _refuse_networks(path: Path, argument: str) -> None:
    """Raise UsageError (exit 2) for a checkpoint, and for a run folder, whose pictures would be taken for originals."""
    is_run = path.is_dir() and any(path.glob(f"*{_CHECKPOINT}"))
    if is_run or path.suffix == _CHECKPOINT:
        raise UsageError(
            f"{argument} is {'a run folder' if is_run else 'a checkpoint'}: it holds a network, no record.\n"
            f"To forecast with it: nowcast predict {shlex.quote(argument)} RECORD --output forecast.nc"
        )


def _refuse_originals(files: list[Path], argument: str) -> None:
    """Raise UsageError (exit 2) for files that are all in formats of weather services, which `nowcast convert` reads."""
    # most formats follow from the name; in a folder of thousands a sample is enough
    formats = [format_of(path) for path in files[:_MOST_SNIFFED] if not is_netcdf_name(path.name) or path.is_dir()]
    known = [name for name in formats if name not in (None, "netcdf", BESIDE)]
    if known and "netcdf" not in formats and len(formats) == len(files[:_MOST_SNIFFED]):
        more = len(files) > _MOST_SNIFFED
        is_file = files == [Path(argument)]
        holds = f"is one {title_of(known[0])} file" if is_file else f"holds {named(known)}"
        raise UsageError(
            f"{argument} {holds}{' and more' if more else ''}, not NetCDF.\n"
            f"Convert first: nowcast convert {shlex.quote(argument)} --output archive/"
        )


def _warn_of_originals(folder: Path, argument: str) -> None:
    """Log a warning if files in formats of weather services lie beside NetCDF files: they are not read."""
    beside = (Path(path, name) for path, names in _walk(folder) for name in sorted(names) if not is_netcdf_name(name))
    formats = [name for file in itertools.islice(beside, _MOST_SNIFFED) if (name := format_of(file)) in _ORIGINALS]
    if formats:
        log.warning(
            "%s also holds %s, which are not read: nowcast convert %s --output archive/",
            argument, named(formats), shlex.quote(argument),
        )  # fmt: skip


def netcdf_files(folder: str | Path, *, without: Path | None = None) -> Iterator[str]:
    """Yield the NetCDF files of a folder in order of their names, then those of its subfolders, on all levels.

    Hidden files and folders, and the folder `without`, are left out. Raises OSError if the folder itself cannot be listed.
    """
    for path, names in _walk(folder, without):
        yield from (os.path.join(path, name) for name in sorted(names) if is_netcdf_name(name))


def is_netcdf_name(name: str) -> bool:
    """Return whether a file with this name is taken for NetCDF; upper and lower case count alike."""
    return name.lower().endswith(SUFFIXES)


def _walk(folder: str | Path, without: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder and the names of its regular files. Symbolic links to folders are followed, but not in a circle."""
    waiting, seen = [os.fspath(folder)], set()
    while waiting:
        path = waiting.pop()
        try:
            state = os.stat(path)
            entries = list(os.scandir(path))
        except OSError:
            if path == os.fspath(folder):
                raise
            continue  # a folder that was removed meanwhile, or that may not be read
        if (state.st_dev, state.st_ino) in seen or (without and without.exists() and os.path.samefile(path, without)):
            continue
        seen.add((state.st_dev, state.st_ino))
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        yield path, [entry.name for entry in shown if entry.is_file()]
        waiting += sorted((entry.path for entry in shown if entry.is_dir()), reverse=True)


def _others(folder: Path) -> str:
    """Return what a folder without NetCDF files holds, for a message."""
    endings = Counter("".join(Path(name).suffixes[-2:]) for _, names in _walk(folder) for name in names)
    if not endings:
        return ""
    (ending, number), *more = endings.most_common()
    ends = f"file{'s' if number > 1 else ''} end{'' if number > 1 else 's'} in {ending or 'no ending'}"
    return f", where {number:,} {ends}{' among others' if more else ''}"


def open_dataset(path: Path) -> netCDF4.Dataset:
    """Open a local NetCDF file to read the stored numbers as they are, without scaling or masking.

    Hold `OPEN_FILES.lock`. Raises DataError (exit 3) if it is absent, damaged or no NetCDF file.
    """
    if not path.is_file():
        state = "no regular file" if path.exists() else "not there"
        raise DataError(f"{path} is {state}.\nExpected a NetCDF file on this machine.")
    if "\\" in str(path.absolute()):  # the library would look for another file
        raise DataError(f"{path} has a backslash in its name, which the NetCDF library takes for a folder.\nRename it.")
    if not str(path).isprintable():
        raise DataError(f"{str(path)!r} has a name that cannot be printed, or is not UTF-8.\nRename it.")
    check_whole(path)
    try:
        # absolute, since the library takes a name such as `http:x.nc` for an address
        # weak references to it from its variables, so that it is freed at once and not by the garbage collector: netCDF4 1.7.5
        # prints "Exception ignored in Dataset.__dealloc__" where that happens to run while another exception is handled
        dataset = netCDF4.Dataset(path.absolute(), "r", keepweakref=True)
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise NoWholeFile(f"{path} is damaged or incomplete ({reason(error)}).\nExpected a whole NetCDF file.") from error
    dataset.set_auto_maskandscale(False)
    return dataset


@contextlib.contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Turn errors of the NetCDF library about damaged coordinates and attributes into NoWholeFile (exit 3)."""
    try:
        yield
    except (OSError, RuntimeError, AttributeError, UnicodeError) as error:
        if "NetCDF" not in str(error) and not isinstance(error, UnicodeError):
            raise
        raise NoWholeFile(f"{path} is damaged ({reason(error)}).\nExpected a whole NetCDF file.") from error


def reason(error: Exception) -> str:
    """Return the message of an error of the NetCDF library, without the error number and path that Python adds."""
    return getattr(error, "strerror", None) or str(error)


class FilterError(DataError):
    """Values are compressed by a filter that the NetCDF library here lacks; the file is not damaged."""


def unreadable(error: Exception, what: str, hint: str) -> DataError:
    """Return the error to raise for unreadable values; `what` names them, `hint` says what to do if they are damaged."""
    if "filter" in str(error).lower():
        return FilterError(
            f"{what}: compressed by a filter that is not installed here, such as lzf or zstd.\n"
            "Expected zlib: `nccopy -d 4 IN.nc OUT.nc`, or h5repack, where the filter is; or its plugin in $HDF5_PLUGIN_PATH."
        )
    return DataError(f"{what} ({reason(error)}).\n{hint}")


class OpenFiles:
    """The datasets that this process read most recently, kept open; the least recent is closed first."""

    def __init__(self, limit: int):
        self.limit = limit
        self._inherited = []  # of the parent: kept, since deleting a dataset would close it
        self._forget()
        # a forked child must neither close the files of its parent nor wait for its lock
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._inherited.append(getattr(self, "_datasets", None))
        self._datasets: OrderedDict = OrderedDict()
        self.lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._datasets)

    def close(self) -> None:
        """Close all files, because HDF5 prevents other programs from writing to a file that is open here."""
        with self.lock:
            while self._datasets:
                self._datasets.popitem()[1][1].close()

    def close_one(self, path: Path) -> None:
        """Close a file if it is open and still exists."""
        with self.lock, contextlib.suppress(DataError):
            *_, dataset = self._known(path)
            if dataset is not None:
                dataset.close()

    @contextlib.contextmanager
    def closed_after(self) -> Iterator[None]:
        """Close, after the block, the files that were not open before it.

        A thread that reads one of them meanwhile opens it again.
        """
        with self.lock:
            before = set(self._datasets)
        try:
            yield
        finally:
            with self.lock:
                for key in self._datasets.keys() - before:
                    self._datasets.pop(key)[1].close()

    def get(self, path: Path) -> netCDF4.Dataset:
        """Return the open dataset of a file, opened again if the file was replaced. Hold `lock` while using it."""
        key, state, dataset = self._known(path)
        dataset = dataset or open_dataset(path)
        self._datasets[key] = state, dataset
        while len(self._datasets) > self.limit:
            self._datasets.popitem(last=False)[1][1].close()
        return dataset

    @contextlib.contextmanager
    def briefly(self, path: Path) -> Iterator[netCDF4.Dataset]:
        """Yield the dataset; close it afterwards unless it was open before, so that others can write to it. Hold `lock`."""
        key, state, dataset = self._known(path)
        if dataset is None:
            with open_dataset(path) as dataset:
                yield dataset
        else:
            self._datasets[key] = state, dataset
            yield dataset

    def _known(self, path: Path) -> tuple:
        """Remove a file from the open ones; return its key, its state, and its dataset if the file was open in that state.

        A replaced file is closed first, because the NetCDF library (4.10.1) can crash if a file is open twice.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read any more: {error.strerror}.\nIt was there before.") from error
        key, state = (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
        opened_state, dataset = self._datasets.pop(key, (state, None))
        if opened_state != state:
            dataset.close()
            dataset = None
        return key, state, dataset


OPEN_FILES = OpenFiles(_NUM_OPEN)


def global_attributes(path: Path) -> dict:
    """Return the global attributes of a file by name. Raises DataError (exit 3) if it is no whole NetCDF file."""
    with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
        return attributes(dataset)
