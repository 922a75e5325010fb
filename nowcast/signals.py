"""Ctrl-C and SIGTERM ask training to stop after its step; a second one ends it at once."""

import contextlib
import signal
from collections.abc import Iterator

from nowcast.errors import Stopped


class StopRequest:
    """`received` is the number of the signal that came, or 0."""

    received = 0

    def error(self, message: str) -> Stopped:
        return Stopped(message, signal_number=self.received)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside the block the first SIGINT or SIGTERM is only noted; the second has its usual effect."""
    request, before = StopRequest(), {}

    def note(number: int, _frame) -> None:
        request.received = number
        _restore(before)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: somebody else looks after signals there
        pass
    try:
        yield request
    finally:
        _restore(before)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
