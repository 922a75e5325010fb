"""Simulate a radar that writes files to a folder, and watch that folder without waiting."""

import os
import signal

import numpy as np

from makers import rain, write_record
from nowcast.forecasters.baselines import BASELINES
from nowcast.prediction.watch import watch

START = np.datetime64("2020-06-01T00:00:00")
STEP = np.timedelta64(300, "s")
READING = {"variable": None}
FIELDS = rain(frames=60, shape=(8, 9))


class Radar:
    """Replaces the clock and the signals of a watch: calls the next of `acts` at each listing, then stops it."""

    def __init__(self, *acts):
        self.acts, self.received, self.looks = iter(acts), 0, 0

    def wait(self, seconds):
        self.looks += 1
        act = next(self.acts, None)
        if act is None:
            self.received = signal.SIGTERM
        else:
            act()


def names(*numbers):
    return [name(n) for n in numbers]


def name(n):
    return f"{str(START + n * STEP).replace('-', '').replace(':', '')}Z.nc"


def put(inbox, n, *, field=None, called=None):
    """Write frame n as a radar does: to another folder, then moved."""
    elsewhere = inbox.parent / "being_written.nc"
    write_record(elsewhere, FIELDS[[n % len(FIELDS)]] if field is None else field, times=[START + n * STEP])
    os.replace(elsewhere, inbox / (called or f"frame{n:05}.nc"))


def arrivals(inbox, numbers):
    """Return acts in which each frame arrives alone and is listed twice."""
    return [act for n in numbers for act in (lambda n=n: put(inbox, n), lambda: None)]


def watched(inbox, *acts, forecaster="persistence", output=None):
    output = output or inbox.parent / "out"
    radar = Radar(*acts, lambda: None, lambda: None)
    opened = BASELINES[forecaster]() if isinstance(forecaster, str) else forecaster
    return [path.name for path in watch(opened, inbox, output, reading=READING, stop=radar)]
