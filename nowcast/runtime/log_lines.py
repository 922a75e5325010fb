"""Log lines on a terminal where a progress bar may be."""

import contextlib
import logging
import sys


class LogLines(logging.StreamHandler):
    """A handler that clears the progress bars before a line and draws them again after it.

    A line written over a bar would begin where the bar ends: at the right edge, one character on the bar's own row. Where
    nobody reads the stream any more, work goes on in silence.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError), _without_bars(self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing of a stream that cannot be written; report any other error as logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _without_bars(stream) -> contextlib.AbstractContextManager:
    """Return a context manager within which no bar is on the stream. It does not import tqdm: without it there is no bar."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=stream) if tqdm else contextlib.nullcontext()
