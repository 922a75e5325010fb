"""Ctrl-C and SIGTERM ask training to stop after its step; a second one ends it at once."""

import contextlib
import signal
import time
from collections.abc import Iterator

from nowcast.errors import Stopped


class StopRequest:
    """`received` is the number of the signal that came, or 0."""

    received = 0

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until a signal comes."""
        end = time.monotonic() + seconds
        # not threading.Event: a handler that sets it while the same thread is about to wait for it would wait for ever
        while not self.received and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def error(self, message: str) -> Stopped:
        return Stopped(message, signal_number=self.received)


class Terminated(BaseException):
    """SIGTERM came where nothing else looks after it: whatever is open is closed and temporary files are removed."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Inside the block SIGTERM raises Terminated."""

    def end(_number, _frame) -> None:
        raise Terminated

    with _handlers({signal.SIGTERM: end}):
        yield


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside the block the first SIGINT or SIGTERM is only noted; the second has its usual effect."""
    request = StopRequest()
    with _handlers({}) as before:

        def note(number: int, _frame) -> None:
            _restore(before)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # of Python's own handlers none runs while torch computes
            request.received = number

        _install(before, dict.fromkeys((signal.SIGINT, signal.SIGTERM), note))
        yield request


@contextlib.contextmanager
def _handlers(handlers: dict) -> Iterator[dict]:
    """Install them, and give what was there before, which is put back in the end."""
    before: dict = {}
    _install(before, handlers)
    try:
        yield before
    finally:
        _restore(before)


def _install(before: dict, handlers: dict) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread: somebody else looks after signals there
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
