"""Read the frames of a record that are damaged, for example by a flipped bit, as missing; choose among copies of a frame."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, counted
from nowcast.netcdf.files import FilterError
from nowcast.netcdf.reading import Samples, described
from nowcast.netcdf.record import Record
from nowcast.runtime.log_lines import noted_topics

log = logging.getLogger(__name__)
NAMED_TIMES = 4  # damaged frames whose times a message lists
MOST_COPIES = 30  # newest duplicated times whose copies are read to choose one
_MOST_AT_ONCE, _BYTES_AT_ONCE = 16, 1 << 25  # frames, and bytes of frames, that are read together
_LOGGED: set[tuple[Path, np.datetime64]] = set()  # damaged frames that have been logged


class Damage:
    """Reads the frames of a record and records which of them are damaged.

    record: the record to read
    errors: the error of each damaged frame, by its position
    """

    def __init__(self, record: Record):
        self.record, self.errors = record, {}
        self._any_good = False
        self._positions: dict[Path, set[int]] = {}

    def read(self, position: int) -> np.ndarray:
        """Read a frame, (y, x) mm/h; all NaN if it is damaged. Raises DataError (exit 3) if the file itself cannot be read."""
        try:
            frame = self.record.read([position])[0]
        except DataError as error:
            # not permanent damage: frames on a disk that is unavailable for a while must not be cached as missing
            if isinstance(error.__cause__, OSError) or isinstance(error, FilterError):
                raise
            self.errors[int(position)] = error
            self._positions.setdefault(self.record.source(position), set()).add(int(position))
            return np.full(self.record.grid.shape, np.nan, np.float32)
        self._any_good = True
        return frame

    def frames(self, positions: Sequence[int]) -> np.ndarray:
        """Read frames, (frame, y, x) mm/h, as `read`."""
        try:
            frames = self.record.read(positions)
        except DataError:  # read one by one to find the damaged frame
            return np.stack([self.read(position) for position in positions])
        self._any_good |= len(frames) > 0
        return frames

    def in_order(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the frames (y, x) at ascending positions, as `read`. Reads several at once: a chunk may hold several."""
        at_once = max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // (4 * math.prod(self.record.grid.shape))))
        for first in range(0, len(positions), at_once):
            yield from self.frames(positions[first : first + at_once])

    @property
    def first(self) -> DataError | None:
        """Return the error of the first damaged frame that was read; None if there is none yet."""
        return next(iter(self.errors.values()), None)

    @property
    def all_failed(self) -> bool:
        """Return whether frames were read and all are damaged."""
        return bool(self.errors) and not self._any_good

    def check(self) -> None:
        """Log the damaged frames, as `warn`. Raises DataError (exit 3) if all frames read were damaged."""
        if self.all_failed:
            raise self.first
        self.warn()

    def lines(self) -> list[str]:
        """Return a line per file, such as `rain.nc: 2 frames cannot be read and count as missing: 2020-06-01T00:10:00Z, …`."""
        return [self._line(path, sorted(positions)) for path, positions in self._positions.items()]

    def warn(self) -> None:
        """Log the lines as warnings; a line whose frames have all been logged before is not repeated."""
        for (path, positions), line in zip(self._positions.items(), self.lines(), strict=True):
            damaged = {(path, time) for time in self.record.times[sorted(positions)]}
            if damaged - _LOGGED:
                log.warning("%s", line)
            _LOGGED.update(damaged)

    def _line(self, path: Path, positions: list[int]) -> str:
        times = ", ".join(f"{time}Z" for time in self.record.times[positions[:NAMED_TIMES]])
        count = counted(len(positions), "frame")
        more = ", …" if len(positions) > NAMED_TIMES else ""
        return f"{path}: {count} cannot be read and count{'s' if len(positions) == 1 else ''} as missing: {times}{more}"


def without_empty_copies(
    record: Record, times: np.ndarray, sources: np.ndarray, order: np.ndarray, samples: Samples | None = None
) -> Record:
    """Return the record with, for each duplicated time, the last copy that is not missing as a whole.

    Only the newest MOST_COPIES such times are read.

    times: (frame,) datetime64[s] of the frames of all files; sources: (frame, 2) their file and frame
    order: (frame,) positions in `times`, sorted by time
    samples: stored results of earlier samples
    """
    ends = np.flatnonzero(np.append(times[order][1:] != times[order][:-1], True)) + 1
    spans = zip([0, *ends[:-1]], ends, strict=True)
    again = [(n, sources[order[first:end]]) for n, (first, end) in enumerate(spans) if end - first > 1]
    looked_at, chosen, num_empty = again[-MOST_COPIES:], record.frame_sources.copy(), 0
    for (n, copies), best in zip(looked_at, _best_copies(record, looked_at, samples), strict=True):
        chosen[n], num_empty = copies[best], num_empty + (best < len(copies) - 1)
    text = "%s: left out %d of %d frames, because a later frame has the same time"
    text += _files_of(record, chosen[again[-1][0]], again[-1][1])
    if len(again) > len(looked_at):
        text += f"; whether that one is missing as a whole was checked for the newest {MOST_COPIES} times only"
    log.warning(text, record.name, len(times) - len(ends), len(times))
    if num_empty:
        text = "%s: the last copy of %s is missing as a whole; an earlier copy is used"
        log.warning(text, record.name, counted(num_empty, "frame"))
    return replace(record, frame_sources=chosen)


def _files_of(record: Record, chosen: np.ndarray, copies: np.ndarray) -> str:
    """Return a text with the files of the frame that is read (2,) and of another copy of (copy, 2); empty if it is one file."""
    read, others = record.paths[chosen[0]], [record.paths[file] for file in copies[::-1, 0]]
    other = next((path for path in others if path != read), None)
    return f" ({read.name} is read in place of {other.name})" if other else ""


def _best_copies(record: Record, looked_at: Sequence[tuple[int, np.ndarray]], samples: Samples | None) -> list[int]:
    """Return, for each time, the number of its last copy (copy, 2) that is not missing as a whole, else of its last copy."""
    paths, frames = described(record, np.concatenate([copies for _, copies in looked_at]))
    what = f"copies {[len(copies) for _, copies in looked_at]} {frames}"
    if samples is not None and (told := samples.recall(what, paths)):
        return json.loads(told)
    best, num_damaged = [], 0
    with noted_topics() as topics:
        for n, copies in looked_at:
            reader = Damage(replace(record, times=np.repeat(record.times[n], len(copies)), frame_sources=copies))
            holds = (k for k in reversed(range(len(copies))) if not np.isnan(reader.read(k)).all())
            best.append(next(holds, len(copies) - 1))
            num_damaged += len(reader.errors)
    if samples is not None and not (topics or num_damaged):  # what is logged on reading is to be logged the next time too
        samples.remember(what, paths, json.dumps(best))
    return best
