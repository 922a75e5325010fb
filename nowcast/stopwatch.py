"""Where the time of training goes: windows per second, and the share of it spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Counts windows since the last `restart`."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.began, self.waited, self.windows = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in this block is waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def count(self, *, windows: int) -> None:
        self.windows += windows

    def read(self) -> dict[str, float]:
        """Windows per second, and the share of the time spent waiting for data, since the last restart."""
        elapsed = time.perf_counter() - self.began
        return {
            "windows_per_second": round(self.windows / elapsed, 3),
            "waiting_share": round(self.waited / elapsed, 4),
        }
