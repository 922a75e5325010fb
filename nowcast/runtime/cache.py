"""The cache folder: packed records, guidance, indexes of archives and compiled libraries, all of which can be made again."""

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

UNUSED_DAYS = (
    60  # after which a folder of the cache is removed: one belongs to records as they were, and months later they grew
)
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


def remove_unused() -> None:
    """Remove the packed frames and guidance of the cache that nothing has used for UNUSED_DAYS, and log how much that was."""
    freed = 0
    with suppress(OSError):  # no cache yet
        for entry in os.scandir(cache_folder()):
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
        shutil.rmtree(folder)
        return num_bytes
    return 0
