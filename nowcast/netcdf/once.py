"""Warn once of what the files of a folder have in common: those of an archive are usually alike."""

from pathlib import Path

_SEEN: set[tuple[Path, str]] = set()  # folders, and what a warning has been logged of


def is_first(file: Path, what: str) -> bool:
    """Return whether nothing has been said yet of `what` for the folder of this file; it then counts as said."""
    is_new = (file.parent, what) not in _SEEN
    _SEEN.add((file.parent, what))
    return is_new
