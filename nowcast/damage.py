"""Frames of a record that its files no longer give, such as one with a flipped bit in its chunk: missing, and named."""

from pathlib import Path

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf import Record

NAMED_TIMES = 4  # of damaged frames, in a message


class Damage:
    """Reads the frames of a record one by one, and keeps account of those that cannot be read."""

    def __init__(self, record: Record):
        self.record, self.num_read = record, 0
        self.first: DataError | None = None
        self.positions: dict[Path, list[int]] = {}

    def read(self, position: int) -> np.ndarray:
        """(y, x) mm/h; all NaN for a frame that is damaged. DataError where the file itself is gone."""
        self.num_read += 1
        try:
            return self.record.read([position])[0]
        except DataError as error:
            # Only what will be as damaged the next time: a disk that is away for a while would be cached as missing.
            if isinstance(error.__cause__, OSError):
                raise
            self.first = self.first or error
            self.positions.setdefault(self.record.source(position), []).append(position)
            return np.full(self.record.grid.shape, np.nan, np.float32)

    @property
    def num_damaged(self) -> int:
        return sum(map(len, self.positions.values()))

    @property
    def all_failed(self) -> bool:
        return 0 < self.num_read == self.num_damaged

    def lines(self) -> list[str]:
        """For example `rain.nc: 2 frames cannot be read and count as missing: 2020-06-01T00:10:00Z, …`."""
        return [self._line(path, positions) for path, positions in self.positions.items()]

    def _line(self, path: Path, positions: list[int]) -> str:
        times = ", ".join(f"{time}Z" for time in self.record.times[positions[:NAMED_TIMES]])
        count = f"{len(positions)} frame{'s' if len(positions) > 1 else ''}"
        more = ", …" if len(positions) > NAMED_TIMES else ""
        return f"{path}: {count} cannot be read and count{'s' if len(positions) == 1 else ''} as missing: {times}{more}"
