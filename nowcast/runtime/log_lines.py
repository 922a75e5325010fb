"""Log lines on a terminal where a progress bar may be."""

import contextlib
import logging
import sys
from typing import TextIO


class LogLines(logging.StreamHandler):
    """A handler that clears the progress bars before a line and draws them again after it.

    A line written over a bar would begin where the bar ends: at the right edge, one character on the bar's own row. If
    the stream is closed, lines are dropped and work goes on.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError), _without_bars(self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a stream that cannot be written; report any other error as logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _without_bars(stream) -> contextlib.AbstractContextManager:
    """Return a context manager within which no bar is on the stream. It does not import tqdm: without it there is no bar."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=stream) if tqdm else contextlib.nullcontext()


def set_up_log(log: logging.Logger, stream: TextIO, *, quiet: bool, verbose: bool, is_first: bool) -> None:
    """Let a logger write its lines to a stream: warnings only if quiet, all if verbose; of other processes errors only."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = LogLines(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level if is_first else logging.ERROR)
    log.propagate = False
