"""Output files appear whole or not at all: written under a temporary name in the same folder, fsynced, renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nowcast.errors import OutputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block succeeds, and is removed when it does not.

    Raises OutputError (exit 5) for any OSError, also one from inside the block.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; is the disk full or the folder read-only?") from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
