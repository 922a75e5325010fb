"""The cache folder: packed records, guidance, indexes of archives and compiled libraries, all of which can be made again."""

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from nowcast.runtime.outputs import temporary_path

UNUSED_DAYS = 60  # after which a folder is removed: one belongs to records as they were, and months later they grew
_FOLDER = re.compile(r"[0-9a-f]{64}-\d+|[0-9a-f]{32}-guidance-\d+")  # of packed frames, of guidance

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the cache folder: `$NOWCAST_CACHE`, else `nowcast` in the user's cache folder."""
    if chosen := os.environ.get("NOWCAST_CACHE"):
        return Path(os.path.expanduser(chosen))  # ~ is left as it is by a shell in quotes, and by those that are no shell
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nowcast"


def mark_used(folder: Path) -> None:
    """Note by the time of change of a folder of the cache that it is used now."""
    with suppress(OSError):  # of another user
        os.utime(folder)


def put(temporary: Path, folder: Path, *, last: str) -> None:
    """Rename a finished folder to that of the cache, unless another process was first.

    One without its file `last`, which is written last, is the rest of one whose removal was interrupted, and is replaced.

    Raises OSError.
    """
    if folder.is_dir() and not (folder / last).is_file():
        shutil.rmtree(folder)
    if not folder.exists():
        os.rename(temporary, folder)


def remove_unused() -> None:
    """Remove the packed frames and guidance of the cache that nothing has used for UNUSED_DAYS, and log how much that was."""
    freed = 0
    with suppress(OSError), os.scandir(cache_folder()) as entries:  # no cache yet
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                freed += _removed(Path(entry.path))
    if freed:
        log.info("removed %.1f GB of the cache, which nothing had used for %d days", freed / 1e9, UNUSED_DAYS)


def _removed(folder: Path) -> int:
    """Remove a folder if it is unused; return its bytes, 0 if it stays."""
    with suppress(OSError):  # removed by another process, or of another user
        if time.time() - folder.stat().st_mtime < UNUSED_DAYS * 86_400:
            return 0
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        temporary = temporary_path(folder)  # if this is interrupted, a part of the folder is not taken for the whole
        os.rename(folder, temporary)
        shutil.rmtree(temporary)
        return num_bytes
    return 0
