"""The cache folder: packed records, guidance, indexes of archives and compiled libraries, all of which can be made again.

A power cut, a full disk or a faulty one may leave files in it whose content is not what was written. So each is kept with
checksums, and what does not agree with them is made anew.
"""

import errno
import json
import logging
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nowcast.errors import OutputError
from nowcast.runtime.outputs import sync, temporary_path

MANIFEST = "facts.json"  # lists the contents, sizes and checksums of the other files of a cache folder
BLOCK_BYTES = 4 << 20  # of a file: each block has a checksum
MOST_BYTES = 1 << 30  # read of a folder to compare checksums: 0.5 to 1 s, a minute on a slow network disk; evenly spaced blocks
UNUSED_DAYS = 60  # after which a folder or file is removed: one belongs to records as they were, and months later they grew
INDEX, SAMPLES = "index", "samples"  # folders of the files that describe archives
_FILE = re.compile(r"[0-9a-f]{64}\.json")  # in these
_FOLDER = re.compile(r"[0-9a-f]{64}-\d+|[0-9a-f]{32}-guidance-\d+")  # of packed frames, of guidance

_State = tuple[tuple[int, int, int], ...]  # of each file of a folder: size in bytes, inode, time of change in ns
_compared: dict[Path, _State] = {}  # folders whose files had their checksums, in this state

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the cache folder: `$NOWCAST_CACHE`, else `nowcast` in the user's cache folder.

    Raises OutputError (exit 5) if it is in a home folder that the system does not know, as that of many users of containers.
    """
    # ~ is left as it is by a shell in quotes, and by those that are no shell
    caches = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    caches = caches if os.path.isabs(caches) else "~/.cache"  # XDG base directories: a relative path is invalid, and ignored
    folder = os.path.expanduser(os.environ.get("NOWCAST_CACHE") or os.path.join(caches, "nowcast"))
    if folder.startswith("~"):
        raise OutputError(f"no cache at {folder}: the home folder is unknown.\nSet NOWCAST_CACHE to a folder of yours.")
    return Path(folder)


def mark_used(folder: Path) -> None:
    """Set the modification time of a cache folder to now, which records its last use."""
    with suppress(OSError):  # the folder belongs to another user
        os.utime(folder)


def put(temporary: Path, folder: Path, *, last: str) -> None:
    """Move a finished folder into the cache once it is on the disk, unless another process has done so first.

    A cache folder that lacks the file `last`, which is written last, was left by an interrupted removal and is replaced.

    Raises OSError.
    """
    for path in (*sorted(temporary.iterdir()), temporary):
        sync(path)
    if folder.is_dir() and not (folder / last).is_file():
        shutil.rmtree(folder)
    if not folder.exists():
        os.rename(temporary, folder)
        sync(folder.parent)


def write_manifest(folder: Path, contents: dict) -> None:
    """Write MANIFEST, the last file of a folder: `contents`, and the size and checksums of each other file. Raises OSError."""
    files = {path.name: [path.stat().st_size, _checksums(path)] for path in sorted(folder.iterdir())}
    entry = {"facts": contents, "files": files, "checksum": _checksum_of(contents, files)}
    (folder / MANIFEST).write_text(json.dumps(entry), encoding="utf-8")


def read_manifest(folder: Path) -> dict | None:
    """Return the `contents` in the MANIFEST of a cache folder; None if there is no folder. A damaged folder is removed first.

    Raises OSError if a damaged folder cannot be removed, or if reading fails for a reason other than damage.
    """
    found = identity(folder / MANIFEST)
    if found is None:
        return None
    try:
        entry = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        facts, files = entry["facts"], entry["files"]
        if entry["checksum"] == _checksum_of(facts, files) and _agree(folder, files):
            return facts
    except (OSError, ValueError, LookupError, TypeError) as error:  # no JSON, JSON of another form, a file that is absent
        if not is_damage(error):
            raise
    remove_damaged(folder, MANIFEST, found)
    return read_manifest(folder)  # another process may have made it anew meanwhile


def identity(path: Path) -> tuple[int, int] | None:
    """Return the inode and modification time (ns) of a file, which differ if it is replaced; None if there is no such file.

    The inode alone is not enough: the file system reuses the inode of a removed file. Raises OSError.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns


def is_damage(error: Exception) -> bool:
    """Return whether an error while reading a cache folder means that its files are damaged.

    Other errors come from this process or the path to the disk: too many open files, too little memory, a stale handle of a
    network disk, a folder of another user. Such a folder must be kept: it may have taken hours to compute.
    """
    return not isinstance(error, OSError) or isinstance(error, FileNotFoundError) or error.errno == errno.EIO


def remove_damaged(folder: Path, last: str, found: tuple[int, int]) -> None:
    """Remove a folder of the cache whose files are damaged, and log it, unless another process has made it anew.

    found: the `identity` of its file `last`, which is written last, before the damage was found

    Raises OSError.
    """
    if identity(folder / last) != found:
        return
    log.warning("%s is damaged: it is made anew", folder)
    with suppress(FileNotFoundError):  # removed by another process
        _remove(folder)


def _agree(folder: Path, files: Mapping[str, tuple[int, list[int]]]) -> bool:
    """Return whether files have their sizes and checksums. These are compared once, until a file changes.

    files: name -> size in bytes, checksum of each block
    """
    states = [(folder / name).stat() for name in files]
    if [state.st_size for state in states] != [size for size, _ in files.values()]:
        return False
    state = tuple((each.st_size, each.st_ino, each.st_mtime_ns) for each in states)
    if _compared.get(folder) != state and not was_compared():
        every = max(1, math.ceil(sum(each.st_size for each in states) / MOST_BYTES))
        if any(_checksums(folder / name, every) != kept[::every] for name, (_, kept) in files.items()):
            return False
        _compared[folder] = state
    return True


def was_compared() -> bool:
    """Return whether the first process of several, on this machine, has compared what this one reads: see `in_turn`.

    Those of other machines may have a cache of their own.
    """
    rank = os.environ.get("RANK", "0")
    return rank != "0" and rank == os.environ.get("LOCAL_RANK")


def _checksums(path: Path, every: int = 1) -> list[int]:
    """Return the CRC-32 of each block of BLOCK_BYTES of a file, or of one in `every`."""
    checksums, block = [], memoryview(bytearray(BLOCK_BYTES))
    with open(path, "rb") as file:
        while num_bytes := file.readinto(block):
            checksums.append(zlib.crc32(block[:num_bytes]))
            file.seek((every - 1) * BLOCK_BYTES, os.SEEK_CUR)
    return checksums


def _checksum_of(facts: dict, files: dict) -> int:
    return zlib.crc32(json.dumps([facts, files]).encode())


def remove_unused() -> None:
    """Remove what nothing has used for UNUSED_DAYS from the cache: packed frames and guidance, and log how much; indexes."""
    freed = 0
    for path in (path for name in (INDEX, SAMPLES) for path in (cache_folder() / name).glob("*.json")):
        with suppress(OSError):  # removed by another process, or of another user
            if _FILE.fullmatch(path.name) and not path.is_symlink() and _is_unused(path):
                path.unlink()
    with suppress(OSError), os.scandir(cache_folder()) as entries:  # no cache yet
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                freed += _removed(Path(entry.path))
    if freed:
        log.info("removed %.1f GB of the cache, which nothing had used for %d days", freed / 1e9, UNUSED_DAYS)


def _removed(folder: Path) -> int:
    """Remove a folder if it is unused; return its bytes, 0 if it stays."""
    with suppress(OSError):  # removed by another process, or of another user
        if not _is_unused(folder):
            return 0
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        _remove(folder)
        return num_bytes
    return 0


def _is_unused(path: Path) -> bool:
    return time.time() - path.stat().st_mtime >= UNUSED_DAYS * 86_400


def _remove(folder: Path) -> None:
    temporary = temporary_path(folder)  # if this is interrupted, a part of the folder is not taken for the whole
    os.rename(folder, temporary)
    shutil.rmtree(temporary)
