"""Standard streams: those that were closed, and the width of the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def open_streams() -> None:
    """Open /dev/null for each standard stream that was closed: the next file that is opened would take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Context manager in which what compiled libraries print goes to stderr: stdout is for results, which programs read."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def terminal_width() -> int | None:
    """Return the width of the terminal behind stdout (or its pager) in characters; COLUMNS if set; None without a terminal."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    for stream in (sys.stdout, sys.stderr):
        try:
            columns = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            continue
        if columns > 0:
            return columns
    return None
