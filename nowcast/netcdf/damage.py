"""Read the frames of a record that are damaged, for example by a flipped bit, as missing; choose among copies of a frame."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.files import FilterError
from nowcast.netcdf.record import Record

log = logging.getLogger(__name__)
NAMED_TIMES = 4  # damaged frames whose times a message lists
MOST_COPIES = 100  # newest times that occur again of which all copies are looked at
_MOST_AT_ONCE, _BYTES_AT_ONCE = 16, 1 << 25  # frames, and bytes of frames, that are read together
_TOLD: set[tuple[Path, np.datetime64]] = set()  # damaged frames that have been logged


class Damage:
    """A reader of the frames of a record that keeps account of those that are damaged.

    record: that is read
    first: the error of the first damaged frame, None if there is none yet
    """

    def __init__(self, record: Record):
        self.record, self.first = record, None
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
            self.first = self.first or error
            self._positions.setdefault(self.record.source(position), set()).add(int(position))
            return np.full(self.record.grid.shape, np.nan, np.float32)
        self._any_good = True
        return frame

    def frames(self, positions: Sequence[int]) -> np.ndarray:
        """Read frames, (frame, y, x) mm/h, as `read`."""
        try:
            frames = self.record.read(positions)
        except DataError:  # of which frame, is found one by one
            return np.stack([self.read(position) for position in positions])
        self._any_good |= len(frames) > 0
        return frames

    def in_order(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the frames (y, x) at ascending positions, as `read`. Several are read at once: chunks may hold several."""
        at_once = max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // (4 * math.prod(self.record.grid.shape))))
        for first in range(0, len(positions), at_once):
            yield from self.frames(positions[first : first + at_once])

    def has(self, position: int) -> bool:
        """Return whether a frame that was read is damaged."""
        return any(position in damaged for damaged in self._positions.values())

    @property
    def all_failed(self) -> bool:
        """Return whether frames were read and all are damaged."""
        return self.first is not None and not self._any_good

    def check(self) -> None:
        """Log what is damaged, as `warn`. Raises DataError (exit 3) where nothing else was read."""
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
            if damaged - _TOLD:
                log.warning("%s", line)
            _TOLD.update(damaged)

    def _line(self, path: Path, positions: list[int]) -> str:
        times = ", ".join(f"{time}Z" for time in self.record.times[positions[:NAMED_TIMES]])
        count = f"{len(positions)} frame{'s' if len(positions) > 1 else ''}"
        more = ", …" if len(positions) > NAMED_TIMES else ""
        return f"{path}: {count} cannot be read and count{'s' if len(positions) == 1 else ''} as missing: {times}{more}"


def without_empty_copies(record: Record, times: np.ndarray, sources: np.ndarray, order: np.ndarray) -> Record:
    """Return the record with the last copy of each time that holds something; MOST_COPIES times are looked at, the newest.

    times: (frame,) datetime64[s] of the frames of all files; sources: (frame, 2) their file and frame
    order: (frame,) the positions of these, by time
    """
    chosen, is_last = record.frame_sources.copy(), np.append(times[order][1:] != times[order][:-1], True)
    copies = np.split(order, np.flatnonzero(is_last)[:-1] + 1)  # of each time
    again, num_empty = [n for n, own in enumerate(copies) if len(own) > 1], 0
    for n in again[-MOST_COPIES:]:
        of_time = replace(record, times=np.repeat(record.times[n], len(copies[n])), frame_sources=sources[copies[n]])
        reader = Damage(of_time)
        holds = (k for k in reversed(range(len(copies[n]))) if not np.isnan(reader.read(k)).all())
        best = next(holds, len(copies[n]) - 1)
        chosen[n], num_empty = sources[copies[n][best]], num_empty + (best < len(copies[n]) - 1)
    text = "%s: left out %d of %d frames, whose times come again later"
    log.warning(text, record.name, len(times) - len(copies), len(times))
    if num_empty:
        log.warning(
            "%s: the last copies of %d frames are missing as a whole, and those before are used", record.name, num_empty
        )
    return replace(record, frame_sources=chosen)
