"""Ctrl-C and SIGTERM ask a long command to stop after its current step; a second one ends it at once."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from nowcast.errors import Stopped

TORCHRUN = "TORCHELASTIC_RUN_ID"  # in the environment of the processes that torchrun starts


class StopRequest:
    """A request to stop: `received` is the number of the signal that arrived, or 0."""

    received = 0

    def wait(self, seconds: float) -> None:
        """Sleep for so many seconds, or until a signal arrives."""
        end = time.monotonic() + seconds
        # not threading.Event: a signal handler that sets it while the same thread is about to wait for it can deadlock
        while not self.received and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def error(self, message: str) -> Stopped:
        """Return the error to end with."""
        return Stopped(message, signal_number=self.received)


class Terminated(BaseException):
    """SIGTERM where nothing else handles it: as an exception, so that files are closed and temporary files removed."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Make SIGTERM raise Terminated inside the block, and SIGINT KeyboardInterrupt, unless it is ignored.

    Either is raised again in place of an error that comes later: a library that was cut off while it was imported may go on,
    and then fail in any way.
    """
    received: list[type[BaseException]] = []

    def end(number, _frame) -> None:
        received.append(KeyboardInterrupt if number == signal.SIGINT else Terminated)
        raise received[0]

    is_ignored = signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # as that of a job in the background
    with _handlers(dict.fromkeys((signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGINT), end)):
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            if received:
                raise received[0] from error
            raise


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record the first SIGINT or SIGTERM inside the block and go on; the second has its usual effect.

    Under torchrun the second is ignored: a batch system or a terminal sends the first to all processes of a job, and torchrun
    passes its own on to those that it started. It kills those that have not ended after 30 seconds.
    """
    request, is_passed_on = StopRequest(), TORCHRUN in os.environ
    with _handlers({}) as before:

        def note(number: int, _frame) -> None:
            _restore(dict.fromkeys(before, signal.SIG_IGN) if is_passed_on else before)
            if not is_passed_on:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's own handlers do not run while torch computes
            request.received = number

        _install(before, dict.fromkeys((signal.SIGINT, signal.SIGTERM), note))
        yield request


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the block ends.

    If a signal raises while xarray acquires its lock, xarray never releases it, and then waits for ever to close the file.
    """
    received: list[int] = []
    with _handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM), lambda number, _frame: received.append(number))):
        yield
    if received:
        signal.raise_signal(received[0])


@contextlib.contextmanager
def _handlers(handlers: dict) -> Iterator[dict]:
    """Install signal handlers inside the block; yield the previous ones, which are restored at the end."""
    before: dict = {}
    _install(before, handlers)
    try:
        yield before
    finally:
        _restore(before)


def _install(before: dict, handlers: dict) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, which alone may handle signals
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
