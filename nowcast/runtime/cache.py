"""The cache folder: packed records, indexes of archives and compiled libraries, all of which can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: `$NOWCAST_CACHE`, else `nowcast` in the user's cache folder."""
    if chosen := os.environ.get("NOWCAST_CACHE"):
        return Path(os.path.expanduser(chosen))  # ~ is left as it is by a shell in quotes, and by those that are no shell
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nowcast"
