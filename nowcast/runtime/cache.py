"""The folder that keeps what can be made again: packed records, indexes of archives, compiled libraries."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The cache folder: `$NOWCAST_CACHE`, else `nowcast` in the user's cache folder."""
    if chosen := os.environ.get("NOWCAST_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nowcast"
