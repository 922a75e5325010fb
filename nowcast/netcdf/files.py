"""NetCDF files on this machine: naming them, opening them, keeping a few open.

Only existing local regular files are opened, and only whole ones. Each process has its own `OPEN_FILES`, of which a
forked child starts anew; its lock keeps threads out of the NetCDF library, which cannot bear two at once.
"""

import contextlib
import glob
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import netCDF4

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.classic_header import check_whole

_SUFFIXES = (".nc", ".nc4", ".cdf")
_NUM_OPEN = 16


def expand(argument: str | Path) -> list[Path]:
    """The files that an argument names: itself, the NetCDF files of a folder (or of its subfolders), or a glob's.

    Raises UsageError for a URL, for what is no file, and for what is not there.
    """
    text, path = str(argument), Path(argument)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UsageError(f"{text} is a URL.\nRight would be a file on this machine: download it first.")
    if path.is_dir():
        found = _netcdf_files(path) or [file for folder in sorted(path.iterdir()) for file in _netcdf_files(folder)]
        if not found:
            raise UsageError(f"no NetCDF files in {text}.\nRight would be files ending in {', '.join(_SUFFIXES)}.")
        return found
    if path.exists():
        if not path.is_file():
            raise UsageError(f"{text} is no regular file.\nRight would be a NetCDF file, a folder or a glob.")
        return [path]
    matches = (Path(match) for match in sorted(glob.glob(text, recursive=True)))
    found = [match for match in matches if match.is_file()]
    if not found:
        raise UsageError(f"no such file or folder: {text}")
    return found


def _netcdf_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if _is_netcdf_name(file) and file.is_file())


def _is_netcdf_name(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")


def open_dataset(path: Path) -> netCDF4.Dataset:
    """An existing local NetCDF file, opened for reading stored numbers as they are. DataError if it is none."""
    if not path.is_file():
        said = "no regular file" if path.exists() else "not there"
        raise DataError(f"{path} is {said}.\nRight would be a NetCDF file on this machine.")
    if "\\" in str(path.absolute()):  # the library would look for another file
        raise DataError(f"{path} has a backslash in its name, which the NetCDF library takes for a folder.\nRename it.")
    if not str(path).isprintable():
        raise DataError(f"{str(path)!r} has a name that cannot be printed, or is not UTF-8.\nRename it.")
    check_whole(path)
    try:
        # absolute, since the library takes a name such as `http:x.nc` for an address
        dataset = netCDF4.Dataset(path.absolute(), "r")
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged or incomplete ({error}).\nRight would be a whole NetCDF file.") from error
    dataset.set_auto_maskandscale(False)
    return dataset


@contextlib.contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """What the NetCDF library raises about damaged coordinates and attributes, as a DataError."""
    try:
        yield
    except (OSError, RuntimeError, AttributeError, UnicodeError) as error:
        if "NetCDF" not in str(error) and not isinstance(error, UnicodeError):
            raise
        raise DataError(f"{path} is damaged ({error}).\nRight would be a whole NetCDF file.") from error


class OpenFiles:
    """The datasets most recently read by this process, oldest closed first."""

    def __init__(self, limit: int):
        self.limit = limit
        self._inherited = []
        self._forget()
        # A child must neither close nor wait for what its parent holds.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._inherited.append(getattr(self, "_datasets", None))
        self._datasets: OrderedDict = OrderedDict()
        self.lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._datasets)

    def close(self) -> None:
        """Close them all: HDF5 lets nobody write to a file that another process reads."""
        with self.lock:
            while self._datasets:
                self._datasets.popitem()[1][1].close()

    def get(self, path: Path) -> netCDF4.Dataset:
        """The open dataset; a file that has been replaced since is opened anew. Hold `lock` while using it."""
        key, state, dataset = self._known(path)
        dataset = dataset or open_dataset(path)
        self._datasets[key] = state, dataset
        while len(self._datasets) > self.limit:
            self._datasets.popitem(last=False)[1][1].close()
        return dataset

    @contextlib.contextmanager
    def briefly(self, path: Path) -> Iterator[netCDF4.Dataset]:
        """The dataset, closed again unless it was open before: a file that is open here cannot be written elsewhere."""
        key, state, dataset = self._known(path)
        if dataset is None:
            with open_dataset(path) as dataset:
                yield dataset
        else:
            self._datasets[key] = state, dataset
            yield dataset

    def _known(self, path: Path) -> tuple:
        """Key and state of a file, and its dataset if it is open in that state, taken out.

        A file is never open twice: the NetCDF library (4.10.1) can crash at the next opening of one that was.
        """
        try:
            facts = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read any more: {error.strerror}.\nIt was there before.") from error
        key, state = (facts.st_dev, facts.st_ino), (facts.st_size, facts.st_mtime_ns)
        known, dataset = self._datasets.pop(key, (state, None))
        if known != state:
            dataset.close()
            dataset = None
        return key, state, dataset


OPEN_FILES = OpenFiles(_NUM_OPEN)
