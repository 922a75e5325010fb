"""Show progress: a bar with rate and time left on a terminal, a log line every SECONDS_BETWEEN_LINES elsewhere.

A stopwatch measures the speed of training: windows per second, and the fraction of the time spent waiting for data.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

from nowcast.errors import counted

log = logging.getLogger(__name__)
Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 20  # s between log lines where there is no terminal


class Progress:
    """A counter of work done: `with Progress("training", total=1000, unit="step") as progress: progress.advance(loss=0.1)`."""

    def __init__(self, what: str, *, total: int, unit: str, start: int = 0):
        self.what, self.total, self.unit, self.done, self.start = what, total, unit, start, start
        self.quiet = not log.isEnabledFor(logging.INFO)
        self.terminal = sys.stderr.isatty() and not self.quiet
        self.bar = tqdm(
            total=total, initial=start, desc=what, unit=unit, file=sys.stderr, disable=not self.terminal, leave=False
        )
        self.began = self.logged = time.monotonic()
        self.first = start  # units done when the clock of the rate started

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def advance(self, **values: str) -> None:
        """Count one more unit of work; `values` are shown after the bar or in the log line.

        The rate counts from the first unit on: what precedes it, such as a validation, does not repeat with each unit.
        """
        self.done += 1
        if self.done == self.start + 1:
            self.began, self.first = time.monotonic(), self.done
            self.bar.unpause()
        if self.terminal:
            self.bar.set_postfix(values, refresh=False)
            self.bar.update()
        elif time.monotonic() - self.logged > SECONDS_BETWEEN_LINES and self.done != self.total:  # what comes next says the end
            self.logged = time.monotonic()
            log.info("%s", self.line(values))

    def advance_by(self, count: int) -> None:
        """Count several units of work at once."""
        for _ in range(count):
            self.advance()

    def line(self, values: dict[str, str]) -> str:
        """Return, for example, `training 120/1,000 steps, 2.1 steps/s, 00:07:03 left, loss 0.02`; no rate after a single unit.

        Below one unit a second, the rate is the time of a unit: `20 s per case`.
        """
        shown = "".join(f", {name} {value}" for name, value in values.items())
        if measured := self.done - self.first:
            rate = measured / max(time.monotonic() - self.began, 1e-9)
            left = time.strftime("%H:%M:%S", time.gmtime((self.total - self.done) / rate))
            speed = f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s per {self.unit}"
            shown = f", {speed}, {left} left{shown}"
        return f"{self.what} {self.done:,}/{counted(self.total, self.unit)}{shown}"


def track(items: Iterable[Item], what: str, *, unit: str) -> Iterator[Item]:
    """Yield the items, and show the progress."""
    total = len(items) if isinstance(items, Sized) else 0
    with Progress(what, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()


class Stopwatch:
    """A counter of windows and of the time spent waiting for data, since the last `restart`."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.began, self.waited, self.windows = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in this block as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def count(self, *, windows: int) -> None:
        self.windows += windows

    def read(self) -> dict[str, float]:
        """Return the windows per second, and the fraction of the time spent waiting for data."""
        elapsed = time.perf_counter() - self.began
        return {
            "windows_per_second": round(self.windows / elapsed, 3),
            "waiting_share": round(self.waited / elapsed, 4),
        }
