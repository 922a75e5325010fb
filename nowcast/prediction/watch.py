"""Watch a folder that a radar writes to, and forecast from each frame that arrives.

The folder is listed every few seconds. A file is read when its size and time have not changed between two listings and it
opens without error. A file that cannot be read is reported once and ignored until it changes. For each series a few dozen
files with the newest times are remembered. After each listing, all reference times among the newest frames of each series
without a forecast file are forecast, the newest first. So restarts, gaps and late frames need no special treatment, and memory
does not grow.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.errors import DataError, NotEnoughFrames, OutputError, UsageError
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.files import OPEN_FILES, netcdf_files
from nowcast.netcdf.opening import FileSummary, open_records
from nowcast.netcdf.record import Record, log_readings
from nowcast.prediction.pipeline import file_name, predict_one
from nowcast.prediction.series_names import Named, SeriesNames, forecasts_in
from nowcast.runtime.log_lines import is_first
from nowcast.runtime.outputs import making_folder, remove_stale
from nowcast.runtime.signals import StopRequest

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
NEWEST = 12  # number of newest frames to forecast from; forecasts from earlier frames are no longer useful
MOST_SERIES = 64  # series that are forecast, as from the radars of a country
SILENT = np.timedelta64(3, "h")  # a series whose newest frame is so much older than that of others may be replaced
AHEAD = np.timedelta64(1, "D")  # times further ahead of this machine's clock are wrong, unless all are
OLD_AT_ONCE = 2000  # number of old files that are checked for changes at each listing, in turn
TRIES = 3  # attempts to open a file that no longer changes; its writer may still hold it open
FileState = tuple[int, int, int]  # size in bytes, time of change in ns, inode


def watch(
    forecaster: Forecaster,
    folder: Path,
    output: Path,
    *,
    reading: Mapping[str, Any],
    stop: StopRequest,
    thresholds: Sequence[float] = (),
    sums: Sequence[int] = (),
    poll: float = POLL_SECONDS,
) -> Iterator[Path]:
    """Write a forecast file into `output` for each new reference time until a signal comes; yield each file when written.

    reading: keyword arguments of `open_records`; thresholds, sums: as in `predict`

    Raises UsageError (exit 2) for a folder that does not exist or is the output, OutputError (5) if a forecast cannot be
    written. Unreadable input does not end it.
    """
    if not folder.is_dir():
        raise UsageError(f"--watch: {folder} is not a folder.\nGive the folder in which new files arrive.")
    if output.exists() and output.samefile(folder):
        raise UsageError(
            f"--watch: forecasts written to {output} would be read as new frames.\nGive another folder as --output."
        )
    watched = Watched(folder, output, keep=NEWEST + 4 * forecaster.most_past_frames)
    with making_folder(output):
        remove_stale(output)
        log.info("watching %s; Ctrl-C ends it", folder)
        reasons: dict[Path, str] = {}
        while not stop.received:
            if watched.look(reading):
                yield from _forecast(forecaster, watched, reading, reasons, stop, thresholds, sums)
            OPEN_FILES.close()  # so that the program that writes to the folder can add to a file
            stop.wait(poll)


def _forecast(
    forecaster: Forecaster,
    watched: "Watched",
    reading: Mapping,
    reasons: dict,
    stop: StopRequest,
    thresholds: Sequence[float],
    sums: Sequence[int],
) -> Iterator[Path]:
    """Make the missing forecasts from the newest frames; yield their files.

    `reasons`: for each forecast file that cannot be made yet, the logged reason, so that it is logged only once.
    """
    try:
        records = watched.records(reading, forecaster.input_frames)
    except (DataError, UsageError) as error:  # files can disappear while they are read
        log.warning("%s", error)
        return
    due = _due(watched, records)
    for gone in set(reasons) - {path for _, _, path in due}:
        del reasons[gone]
    for time, record, path in due:
        if stop.received or path.exists():
            continue
        try:
            log_readings([record])
            predict_one(forecaster, record, time, path, thresholds, sums)
            yield path
        except OutputError:
            if not path.exists():  # another process may watch as well
                raise
        except (DataError, UsageError) as error:
            if isinstance(error, UsageError) and len(records) == 1:
                raise
            if reasons.get(path) != str(error):
                level = logging.INFO if isinstance(error, NotEnoughFrames) else logging.WARNING
                log.log(level, "no forecast from %sZ: %s", time, error)
            reasons[path] = str(error)


def _due(watched: "Watched", records: Sequence[Record]) -> list[tuple[np.datetime64, Record, Path]]:
    """Return the newest times that have no forecast, the newest first, each with its record and the file to write."""
    due: list[tuple[np.datetime64, Record, Path]] = []
    there = forecasts_in(watched.output) if any(len(record.stamps) for record in records) else {}
    for record in records:
        prefix = watched.names.prefix(record)
        # times that are moved to a regular raster may change by a few seconds when more frames have arrived
        is_moved = len(record.stamps) and prefix in there
        made = set(record.frames_at(np.array(there[prefix], "datetime64[s]"))) if is_moved else set()
        times = [time for time in _credible(record)[-NEWEST:] if time not in made]
        due += [(time, record, watched.output / f"{prefix}{file_name(time)}") for time in times]
    return sorted(due, key=lambda each: each[0], reverse=True)


def _credible(record: Record) -> np.ndarray:
    """Return the times (time,) of a record without those too far ahead of the clock; all if all are."""
    times = record.times[record.times <= np.datetime64("now") + AHEAD]
    if 0 < len(times) < len(record.times) and is_first(record.paths[0], "times ahead of the clock"):
        log.warning("%s: left out frames with times after tomorrow, the last at %sZ", record.name, record.times[-1])
    return times if len(times) else record.times


class Watched:
    """The files of a watched folder: finds those that are new and complete, and remembers the newest.

    It also serves as the index of `open_records` for them, so that each file is opened only once to read its coordinates.
    """

    def __init__(self, folder: Path, output: Path, *, keep: int):
        self.folder, self.output, self.keep = folder, output, keep
        self.names = SeriesNames(folder, output)
        # by path as text, which is fast: a folder of 100,000 files is listed every two seconds
        self._seen: dict[str, FileState] = {}  # state of files that were new or changed at the last listing
        # hash of the state of files that were read or are too old; a file whose state changes is new
        self._settled: dict[str, int] = {}
        self._changed: dict[str, int] = {}  # modification time, ns, of files that settled at this listing
        self._failures: dict[str, int] = {}
        self._summaries: dict[str, FileSummary] = {}  # in the order of their arrival
        self._series: list[tuple] = []  # keys of the remembered series, in order of arrival
        self._is_readable, self._turn = True, 0

    def get(self, path: Path) -> FileSummary | None:
        return self._summaries.get(str(path))

    def put(self, summary: FileSummary) -> None:
        age = self._changed.get(str(summary.path), 0)
        for path in [path for path, other in self._summaries.items() if _is_same(summary, other)]:
            if self._changed.get(path, 0) > age:
                return
            del self._summaries[path]  # a file that was delivered again under another name
        self._summaries[str(summary.path)] = summary

    def recall(self, what: str, paths: Sequence[Path]) -> str | None:
        """Return None: results of sampling become outdated when files arrive."""

    def remember(self, what: str, paths: Sequence[Path], result: str) -> None:
        """Do nothing."""

    def save(self) -> None:
        """Do nothing: the index is not kept when the process ends."""

    def look(self, reading: Mapping[str, Any]) -> bool:
        """Read the files that have arrived since the last listing and no longer change; return whether there are any."""
        try:
            present = dict.fromkeys(self._list())
        except OSError as error:  # such as a network disk that is away
            if self._is_readable:
                log.warning("%s cannot be listed: %s; trying again", self.folder, error.strerror)
            self._is_readable = False
            return False
        self._is_readable = True
        for known in (self._seen, self._settled, self._failures, self._summaries):
            for path in [path for path in known if path not in present]:
                del known[path]
        self._changed.clear()
        settled = list(filter(self._has_settled, self._to_look_at(present)))
        likely = self._newest(settled)
        arrived = [path for path in likely if self._opens(path, reading)]
        if len(likely) < len(settled):
            self._complete(sorted(set(settled) - set(likely), key=self._age, reverse=True), arrived, reading)
        self._forget()
        return bool(arrived)

    def _age(self, path: str) -> tuple[int, str]:
        return self._changed[path], path

    def _complete(self, further: Iterable[str], arrived: Iterable[str], reading: Mapping[str, Any]) -> None:
        """Open further files, the last changed first, until there are `keep` of each series in a subfolder.

        Needed if several radars write to one folder, because the newest files include few of each. The number of files opened
        is limited, because a series may have no more.
        """
        counts = Counter(each.series_key for each in self._summaries.values())
        there = defaultdict(set)  # in each subfolder
        for path in arrived:
            there[self._subfolder(path)] |= {self._summaries[path].series_key} if path in self._summaries else set()
        left = MOST_SERIES * self.keep
        for path in further:
            keys = there[self._subfolder(path)]
            if left and any(counts[key] < self.keep for key in keys):
                left -= 1
                if self._opens(path, reading) and path in self._summaries:
                    keys.add(self._summaries[path].series_key)
                    counts[self._summaries[path].series_key] += 1
        for path in sorted(self._changed.keys() & self._summaries.keys(), key=self._age):  # of equal times the last counts
            self._summaries[path] = self._summaries.pop(path)

    def _to_look_at(self, present: Iterable[str]) -> list[str]:
        """Return the files to check for changes: all recent ones, and some of the old ones, in turn.

        Old names may be used again, but checking 100,000 files on a network disk takes longer than the time between listings.
        """
        old = [path for path in present if path in self._settled and path not in self._summaries and path not in self._seen]
        if len(old) <= OLD_AT_ONCE:
            return list(present)
        first, self._turn = self._turn % len(old), self._turn % len(old) + OLD_AT_ONCE
        passed = set(old) - set((old + old)[first : first + OLD_AT_ONCE])
        return [path for path in present if path not in passed]

    def _forget(self) -> None:
        """Keep the `keep` files with the newest times of each series, those ahead of the clock last.

        If there are too many series, earlier ones stay unless they have fallen silent: if series displaced each other in turn,
        none would have enough past frames.
        """
        latest, last = np.datetime64("now") + AHEAD, {path: each.times.max() for path, each in self._summaries.items()}
        series: dict[tuple, list[str]] = {key: [] for key in self._series}
        for path in reversed(self._summaries):
            series.setdefault(self._summaries[path].series_key, []).append(path)
        rank = {path: (time <= latest, time) for path, time in last.items()}
        best = {key: sorted(paths, key=rank.__getitem__, reverse=True)[: self.keep] for key, paths in series.items() if paths}
        newest = max((rank[paths[0]] for paths in best.values()), default=(False, latest))
        silent = {key: rank[paths[0]] < (newest[0], newest[1] - SILENT) for key, paths in best.items()}
        self._series = sorted(best, key=silent.__getitem__)[:MOST_SERIES]
        if len(best) > MOST_SERIES and is_first(self.folder / "*", "too many series"):
            log.warning("%s holds more than %d series: the others are not forecast", self.folder, MOST_SERIES)
        for path in self._summaries.keys() - {path for key in self._series for path in best[key]}:
            del self._summaries[path]

    def _newest(self, paths: Iterable[str]) -> list[str]:
        """Return the files that may hold the newest frames, in order of change: the last changed, and the last by name.

        Opening all of 100,000 files to read their times would take minutes. Both orders are used because a backlog may be
        written newest first, and each subfolder by itself because radars may be written one after the other.
        """
        changed = sorted(paths, key=self._age)
        folders: dict[str, list[str]] = {}
        for path in reversed(changed):
            folders.setdefault(self._subfolder(path), []).append(path)
        likely: set[str] = set()
        for own in list(folders.values())[:MOST_SERIES]:
            likely.update(own[: self.keep], sorted(own)[-self.keep :])
        return [path for path in changed if path in likely]

    def _subfolder(self, path: str) -> str:
        """Return the path of the subfolder of the watched folder that holds a file; "" if it is in the folder itself."""
        return path[len(os.path.join(self.folder, "")) :].rpartition(os.sep)[0].partition(os.sep)[0]

    def _list(self) -> Iterator[str]:
        """List the NetCDF files of the folder and its subfolders; hidden files are still being written."""
        return netcdf_files(self.folder, without=self.output)

    def _has_settled(self, path: str) -> bool:
        """Return whether a file is new or changed, and the same as at the last listing."""
        try:
            status = os.stat(path)
        except OSError:  # gone already
            return False
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        if self._settled.get(path) == hash(state):
            return False
        self._summaries.pop(path, None)
        if self._seen.get(path) != state:
            self._seen[path] = state
            return False
        del self._seen[path]
        self._settled[path], self._changed[path] = hash(state), status.st_mtime_ns
        return True

    def _opens(self, path: str, reading: Mapping[str, Any]) -> bool:
        try:
            open_records([path], index=self, forecasts_too=False, **reading)
        except (DataError, UsageError) as error:
            failures = self._failures[path] = self._failures.get(path, 0) + 1
            if failures < TRIES:
                del self._settled[path]
            elif failures == TRIES:
                log.warning("left out: %s", error)
            return False
        self._failures.pop(path, None)
        return True

    def records(self, reading: Mapping[str, Any], input_frames: int) -> list[Record]:
        """Return the record of each series with enough frames, or of the newest one; a series keeps its name."""
        records = open_records(list(self._summaries), index=self, **reading)
        enough = [record for record in records if len(record) >= max(input_frames, 2)]
        if enough:
            names = self.names.name(list(map(self._to_name, enough)))
        else:
            series = {str(path): record for record in records for path in record.paths}
            enough = [next(series[path] for path in reversed(self._summaries) if path in series)]
            names = self.names.name(list(map(self._to_name, enough)), keep=False)
        return [replace(record, name=name) for record, name in zip(enough, names, strict=True)]

    def _to_name(self, record: Record) -> Named:
        paths = list(map(str, record.paths))
        keys = dict.fromkeys(self._summaries[path].series_key for path in paths)
        return Named(record, tuple(keys), frozenset(map(self._subfolder, paths)))


def _is_same(summary: FileSummary, other: FileSummary) -> bool:
    return summary.series_key == other.series_key and np.array_equal(summary.times, other.times)
