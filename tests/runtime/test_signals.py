"""Signals: the first is noted, the second ends the process at once, and afterwards the old handlers are back."""

import contextlib
import os
import signal
import time

import pytest

from nowcast.runtime.signals import StopRequest, Terminated, held, stop_on_signals, terminating

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def as_before():
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before
    signal.signal(signal.SIGINT, given)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_the_second_ends_at_once(number):
    with terminating(), stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert stop.error("stopped").exit_code == 128 + number
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", BOTH)
def test_the_second_signal_is_ignored_under_torchrun_which_passes_the_first_on(number, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with terminating(), stop_on_signals() as stop:
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert stop.received == number
    with pytest.raises(Terminated), terminating():
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_error_that_comes_of_a_signal_ends_as_the_signal_does(number, raised):
    def import_cut_off() -> None:
        with contextlib.suppress(raised):
            os.kill(os.getpid(), number)
        raise RecursionError

    with pytest.raises(raised), terminating():
        import_cut_off()
    with pytest.raises(RecursionError), terminating():
        raise RecursionError


def test_an_ignored_interrupt_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with terminating():
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_sigterm_unwinds_where_nothing_else_looks_after_it():
    with pytest.raises(Terminated), terminating():
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_for_the_end_of_what_must_not_be_cut_off(number, raised):
    done = []

    def written() -> None:
        with held():
            os.kill(os.getpid(), number)
            done.append("written")
        done.append("gone on")

    with pytest.raises(raised), terminating():
        written()
    assert done == ["written"]
    with held():
        done.append("without a signal")
    assert len(done) == 2


def test_waiting_ends_when_a_signal_comes():
    stop, start = StopRequest(), time.monotonic()
    signal.signal(signal.SIGALRM, lambda number, _: setattr(stop, "received", number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    stop.wait(60)
    assert time.monotonic() - start < 20
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    stop.wait(60)  # it has come already
    StopRequest().wait(0)
