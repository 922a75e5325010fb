"""Convert files as they arrive in a folder, one record per file; `nowcast predict --watch` can read the output folder.

The folder is listed every few seconds. A file is converted when its size and time have not changed between two listings. One
that cannot be read is tried a few times, reported once, and ignored until it changes. Records of files in subfolders are
written to subfolders of the same names, since radars with separate folders may use the same file names.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nowcast.convert.archive import convert_inputs
from nowcast.convert.inputs import FoundFiles, Input, find_files
from nowcast.convert.jobs import KeptFrames, Request
from nowcast.convert.place import BoxMissed
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.writing.records import attributes_of
from nowcast.runtime.outputs import making_folder, remove_stale
from nowcast.runtime.signals import StopRequest

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
TRIES = 3  # attempts to read a file that no longer changes; another program may still have it open
_State = tuple[int, int]  # size in bytes, time of change in ns


def watch(folder: Path, output: Path, request: Request, *, stop: StopRequest, poll: float = POLL_SECONDS) -> Iterator[Path]:
    """Write a record for each file that arrives, until a signal; yield the path of each record when it is written.

    Raises UsageError (exit 2) for a folder that does not exist or is the output, OutputError (5).
    """
    if not folder.is_dir():
        raise UsageError(f"--watch: {folder} is not a folder.\nGive the folder in which new files arrive.")
    if output.exists() and output.samefile(folder):
        raise UsageError(f"--watch: {output} is the folder that is watched.\nGive another folder as --output.")
    watched = _Watched(folder, output, replace(request, per="file", processes=1, kept=KeptFrames()))
    with making_folder(output):
        for path, _, _ in os.walk(output):
            remove_stale(Path(path))
        log.info("watching %s; Ctrl-C ends it", folder)
        while not stop.received:
            for source in watched.settled():
                if stop.received:
                    break
                yield from watched.convert(source)
            stop.wait(poll)


class _Watched:
    """The state of a watched folder: sizes and times of files at the last listing, and of files already converted."""

    def __init__(self, folder: Path, output: Path, request: Request):
        self.folder, self.output, self.request = folder, output, request
        self._seen: dict[Path, _State] = {}
        self._done: dict[Path, _State] = {}
        self._failures: dict[Path, int] = {}
        self._written: set[Path] = set()  # files whose records were written from them, and may be replaced
        self._known: dict = {}  # formats of files, see `find_files`

    def settled(self) -> list[Input]:
        """Return the files to convert, oldest first: new or changed, but unchanged since the last listing."""
        try:
            inputs = find_files([self.folder], self.request.format, without=self.output, known=self._known).inputs
        except OSError as error:  # such as a network disk that is disconnected
            log.debug("%s cannot be listed: %s", self.folder, error)
            return []
        states = {source: state for source in inputs if (state := _state(source.file)) is not None}
        ready = [source for source, state in states.items() if self._is_ready(source.path, state)]
        self._seen = {source.path: state for source, state in states.items()}
        self._done = {path: state for path, state in self._done.items() if path in self._seen}
        self._failures = {path: count for path, count in self._failures.items() if path in self._seen}
        self._written &= self._seen.keys()
        return sorted(ready, key=lambda source: (self._seen[source.path][1], source.path))

    def _is_ready(self, path: Path, state: _State) -> bool:
        return self._seen.get(path) == state and self._done.get(path) != state

    def convert(self, source: Input) -> list[Path]:
        """Convert a file; return its records. A file that cannot be read is tried again, then reported once."""
        request = replace(self.request, overwrite=source.path in self._written)
        output = self.output / source.file.relative_to(self.folder).parent
        try:
            outcome = convert_inputs(FoundFiles([source]), output, request, quiet=True)
        except (DataError, BoxMissed) as error:
            failures = self._failures[source.path] = self._failures.get(source.path, 0) + 1
            if failures < TRIES:
                return []
            log.warning("left out: %s", str(error).splitlines()[0])
            outcome = None
        if outcome and outcome.changed and source.member is None and all(_is_of(record, source) for record in outcome.changed):
            self._written.add(source.path)  # it changed while no watch ran
            return self.convert(source)
        for record in outcome.changed if outcome else ():
            log.warning(
                "%s was converted from another file than %s: rename the file, or delete the record to have it written again",
                record, source.path,
            )  # fmt: skip
        if outcome and not outcome.changed:
            self._written.add(source.path)
        self._failures.pop(source.path, None)
        self._done[source.path] = self._seen[source.path]
        return outcome.written if outcome else []


def _is_of(record: Path, source: Input) -> bool:
    """Return whether the history of a record names this file."""
    return f"from original file {source.path.name};" in attributes_of(record).get("history", "")


def _state(path: Path) -> _State | None:
    try:
        status = os.stat(path)
    except OSError:  # gone already
        return None
    return status.st_size, status.st_mtime_ns
