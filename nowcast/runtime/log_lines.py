"""Log lines: on a terminal where a progress bar may be, and warnings about files that are logged once for a folder."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)
WARNED: set[tuple[Path, str]] = set()  # folder and topic of each warning that has been logged
_noting: list[set[str]] = []  # the sets that `noted_topics` fills
_ORIGINALS_OF: dict[Path, Path | str] = {}  # temporary copies that are open, and what warnings name in their place


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


def set_up_log(logger: logging.Logger, stream: TextIO, *, quiet: bool, verbose: bool, is_first: bool) -> None:
    """Let a logger write its lines to a stream: warnings only if quiet, all if verbose; of other processes errors only."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = LogLines(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(level if is_first else logging.ERROR)
    logger.propagate = False


def is_first(file: Path, what: str) -> bool:
    """Return whether this is the first call for this folder and the topic `what`, so that a warning is logged once.

    Files of an archive are usually alike, so one warning per folder is enough; each array in memory has a folder of its own.
    """
    is_new = not was_warned(file, what)
    WARNED.add((_folder_of(file), what))
    for topics in _noting:
        topics.add(what)
    return is_new


def was_warned(file: Path, what: str) -> bool:
    """Return whether `is_first` was called before for the folder of this file and the topic `what`."""
    return (_folder_of(file), what) in WARNED


def _folder_of(file: Path) -> Path:
    original = named_file(file)
    # absolute, since the NetCDF library gives absolute paths, and some callers take theirs from it
    return (original if isinstance(original, Path) else file).parent.absolute()


@contextlib.contextmanager
def noted_topics() -> Iterator[set[str]]:
    """Yield a set that gets the topics of all warnings of the block, whether they are logged or were before."""
    topics: set[str] = set()
    _noting.append(topics)
    try:
        yield topics
    finally:
        _noting[:] = [other for other in _noting if other is not topics]


@contextlib.contextmanager
def standing_for(copy: Path, original: Path | str) -> Iterator[None]:
    """Context manager within which warnings about a temporary copy name the original, a file or the words for an array.

    Originals in one folder are warned of once.
    """
    _ORIGINALS_OF[copy] = original
    try:
        yield
    finally:
        del _ORIGINALS_OF[copy]


def named_file(file: str | Path) -> str | Path:
    """Return what a warning about a file names: the file, or the original of a temporary copy, or of a copy of that."""
    while isinstance(file, str | Path) and Path(file) in _ORIGINALS_OF:
        file = _ORIGINALS_OF[Path(file)]
    return file


def warn_once(path: Path, text: str) -> None:
    """Log a warning for the first such file of a folder."""
    if is_first(path, text):
        log.warning("%s: %s", named_file(path), text)
