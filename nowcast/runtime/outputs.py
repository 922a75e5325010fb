"""Output files, which appear whole or not at all: written under a temporary name in the same folder, fsynced, renamed.

Every access to the disk here is one call of `os`, so that a test can make each of them fail. The name of a temporary file holds
the number of its process: files that a killed process left behind are removed when the next one writes to the folder.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nowcast.errors import OutputError

FULL = {errno.ENOSPC, errno.EDQUOT}
_TEMPORARY = re.compile(r"\..*\.(\d+)-\d+@(.*)\.partial", re.DOTALL)
_DAY = 86400.0  # s: age at which a temporary file of another machine, whose processes are not visible here, is stale
DEVICES = {Path("/dev"), Path("/dev/fd")}  # where /dev/stdout leads to a regular file if the output is redirected to one
_numbers = itertools.count()
_tidied: set[Path] = set()  # folders that this process has freed of stale temporary files
_locks: set[int] = set()  # open files of the folders that this process has locked


def may_write(
    paths: Path | Iterable[Path],
    *,
    overwrite: bool,
    inputs: Iterable[Path] = (),
    makes_folder: bool = False,
    instead: str = "another name",
) -> None:
    """Check that output files may be written, before hours are spent on computing their contents.

    inputs: files that are read; they are never overwritten, not even through a link or another path
    makes_folder: whether the folder of the outputs will be made if it is absent
    instead: the alternative to --overwrite that the message offers

    Raises OutputError (exit 5).
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    _refuse_inputs(paths, inputs)
    existing = [path for path in paths if path.exists()]
    if folder := next((path for path in existing if path.is_dir()), None):
        raise OutputError(f"{folder} cannot be written: it is a folder.")
    if device := next((path for path in existing if not path.is_file() or path.absolute().parent in DEVICES), None):
        raise OutputError(f"{device} cannot be written: it is no regular file.\nGive the name of a file.")
    if existing and not overwrite:
        raise _exists_already(existing, instead)
    for parent in dict.fromkeys(path.parent for path in paths):
        if not (makes_folder or parent.is_dir()):
            raise OutputError(f"{paths[0]} cannot be written: there is no folder {parent}.")
        _refuse_read_only(parent)


def _refuse_read_only(folder: Path) -> None:
    """Raise OutputError (exit 5) if a folder, or the one in which it will be made, cannot be written to."""
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    which = "it" if nearest == folder else nearest
    if not nearest.is_dir():
        raise OutputError(f"cannot make the folder {folder}: {which} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: {which} is read-only")


def _exists_already(paths: Sequence[Path], instead: str = "another name") -> OutputError:
    others = f", and so do {len(paths) - 1} others" if len(paths) > 1 else ""
    return OutputError(f"{paths[0]} exists already{others}.\nChoose {instead}, or replace it with --overwrite.")


def _refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError (exit 5) if an output is one of the inputs, by the same or another name, or through a link."""
    existing = {}
    for path in outputs:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            existing[status.st_dev, status.st_ino] = path
    for path in inputs if existing else ():
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if output := existing.get((status.st_dev, status.st_ino)):
                raise OutputError(f"{output} is an input ({path}), and no input is overwritten.\nChoose another output.")


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = True, num_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` when the block succeeds and removed when it fails.

    The first of a process in a folder removes what killed processes left there: listing a folder of many files takes time.
    Without `overwrite`, a file that another process has written meanwhile is kept. Raises OutputError (exit 5) for any OSError,
    also inside the block. If the disk is full, the message says how much is free and, with `num_bytes`, how much is needed.
    """
    if path.parent.absolute() not in _tidied:
        remove_stale(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        sync(temporary)
        _publish(temporary, path, overwrite=overwrite)
        sync(path.parent)
    except OSError as error:
        raise OutputError(_explain(path, error, num_bytes)) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # fails if the file exists; a rename would replace it
    except FileExistsError:
        raise _exists_already([path]) from None
    except OSError:  # a file system without links
        if path.exists():
            raise _exists_already([path]) from None
        os.replace(temporary, path)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file, and wait until it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(handle)


def temporary_path(path: Path) -> Path:
    """Return a path in the same folder that no other write uses, on this or another machine."""
    # shortened, because file systems limit the length of a name
    return path.with_name(f".{path.name[:40]}.{os.getpid()}-{next(_numbers)}@{_here()}.partial")


def _here() -> str:
    """Return host name and PID namespace, within which a process number is unique: containers may share a host name."""
    namespace = 0
    with contextlib.suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{platform.node()[:40]}-{namespace}"


def remove_stale(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose processes are gone."""
    _tidied.add(folder.absolute())
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _TEMPORARY.fullmatch(name)
            if match and _is_stale(folder / name, int(match[1]), match[2]):
                _remove(folder / name)


def _is_stale(path: Path, process: int, place: str) -> bool:
    if place != _here():
        return time.time() - _last_written(path) > _DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # the process of another user, or no process number at all
        return False
    return False


def _last_written(path: Path) -> float:
    """Return when a file, or the newest file in a folder, was written, seconds since 1970: a folder's own time may be older."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
    return max(os.lstat(each).st_mtime for each in (path, *inside))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def _explain(path: Path, error: OSError, num_bytes: int | None) -> str:
    """Return the message for a file that could not be written."""
    reason = f"cannot write {path}: {error.strerror or error}"
    if error.errno not in FULL:
        return f"{reason}; is the disk full or the folder read-only?"
    needed = f"; {size(num_bytes)} are needed" if num_bytes else ""
    free = "the disk is full"
    with contextlib.suppress(OSError):
        free = f"{size(free_space(path.parent))} are free"
    return f"{reason}{needed}, {free}.\nMake room, or choose another disk."


def free_space(folder: Path) -> int:
    """Return the bytes free on the disk of a folder, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def size(num_bytes: float) -> str:
    """Return a size as text, such as `1.5 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


@contextlib.contextmanager
def making_folder(path: Path) -> Iterator[None]:
    """Make a folder for the block, and remove it again if the block fails before anything is in it.

    Raises OutputError (exit 5) if it cannot be made or written to.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from None
    try:
        _probe(path)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise


def _probe(folder: Path) -> None:
    """Write a small file: the only way to find a read-only file system, a full disk or an exhausted quota."""
    probe = temporary_path(folder / "probe")
    try:
        try:
            write_synced(probe, b"nowcast")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)
    except OSError as error:
        raise OutputError(_explain(folder, error, None)) from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context manager that keeps a folder from other trainings on this machine; nothing is left in it, also after a kill.

    Does nothing on a file system without locks. Raises OutputError (exit 5) if another training holds the folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    _locks.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another training is writing to {folder}.\nWait until it ends, or choose another folder with --output."
            ) from None
        except OSError:  # no locks here
            pass
        yield
    finally:
        _locks.discard(handle)
        os.close(handle)


def _close_locks() -> None:
    """Close, in a process that was forked, the locked folders: they would stay locked until its end."""
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_close_locks)
