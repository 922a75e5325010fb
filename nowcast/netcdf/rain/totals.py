"""Distinguish totals since the start of a model run, which never decrease, from amounts per interval.

Weather models store the rain since their start: WRF's RAINNC, the total precipitation of ECMWF. Read as amounts per step, the
rain would increase all the time. Attributes seldom state it, but the numbers show it: moving rain decreases somewhere.
"""

import re
from collections.abc import Callable

import numpy as np

from nowcast.netcdf.attributes import text

MOST_READ = 8  # number of successive frames that are compared
_MOST_PLACES = 8  # places in a record where frames are compared
_RISES, _MORE_RISES = 3, 5  # steps in which amounts must rise without a fall to be a total; away from the middle and the end
_LEAST_CELLS = 20  # cells that fall together where totals restart; fewer may be one shower that grows and then decays
_MOST_FALL = 0.01  # largest decrease relative to the increase, since packing rounds
_SAID = re.compile(
    r"\baccumulated total\b|\btotal accumulated\b|"
    r"\bsince (the )?(start|beginning|initiali\w+|midnight|\d\d(:?\d\d)? ?(utc|z))\b",
    re.IGNORECASE,
)


def says_total(variable) -> bool:
    """Return whether an attribute of a variable, or its name, states that it holds totals since the start of a run."""
    said = [text(variable, name) or "" for name in ("long_name", "description", "comment", "cell_methods")]
    return any(_SAID.search(words) for words in (*said, variable.name.replace("_", " ")))


def total_of(read: Callable[[range], np.ndarray], num_frames: int) -> str | None:
    """Return what shows that a series of amounts holds totals: "never falls" or "falls in one step alone"; None if nothing.

    read: returns the frames (frame, y, x) of a range, in order of time, in any units, NaN missing

    Frames in the middle and at the end are compared; if they hardly change there, also those in other places, since a dry
    evening says nothing about totals since midnight.
    """
    changes = False
    for number, place in enumerate(compared(num_frames)):
        if number >= 2 and changes:
            return None
        fields, rises = read(place), _RISES if number < 2 else _MORE_RISES
        if never_falls(fields, least=rises):
            return "never falls"
        if restarts(fields, least=rises + 1):
            return "falls in one step alone"
        changes = changes or _num_falls(fields) > 1
    return None


def compared(num_frames: int) -> list[range]:
    """Return where frames of a series are compared: first in the middle and at the end, then evenly between these."""
    count = min(num_frames, MOST_READ)
    last = num_frames - count
    shares = (_MOST_PLACES // 2, _MOST_PLACES, *(n for n in range(1, _MOST_PLACES) if n != _MOST_PLACES // 2))
    firsts = dict.fromkeys(last * share // _MOST_PLACES for share in shares)
    return [range(first, first + count) for first in firsts]


def _num_falls(fields: np.ndarray) -> int:
    """Return in how many steps of fields (frame, y, x), NaN missing, amounts decrease anywhere."""
    steps = np.nan_to_num(np.diff(np.asarray(fields, np.float64), axis=0))
    return int((steps < 0).any(axis=(1, 2)).sum())


def refusal(what: str) -> str:
    """Return the message of the error that refuses totals; `what` names them."""
    return (
        f"{what} is a total since the start of a run.\n"
        "Expected amounts of each time step: `cdo deltat IN.nc OUT.nc` takes the differences."
    )


def never_falls(fields: np.ndarray, *, least: int = 2) -> bool:
    """Return whether amounts increase in at least `least` steps between frames, and decrease nowhere.

    fields: (frame, y, x) in any units, NaN missing
    """
    steps = np.nan_to_num(np.diff(np.asarray(fields, np.float64), axis=0))
    rises, falls = np.maximum(steps, 0).sum(axis=(1, 2)), np.maximum(-steps, 0).sum()
    return bool((rises > 0).sum() >= least and falls <= _MOST_FALL * rises.sum())


def restarts(fields: np.ndarray, *, least: int) -> bool:
    """Return whether amounts rise in at least `least` steps and decrease in one step alone, in many cells to less than half.

    fields: (frame, y, x) in any units, NaN missing
    """
    fields = np.nan_to_num(np.asarray(fields, np.float64))
    steps, sums = np.diff(fields, axis=0), fields.sum(axis=(1, 2))
    rises, falls = np.maximum(steps, 0).sum(axis=(1, 2)), np.maximum(-steps, 0).sum(axis=(1, 2))
    (at,) = starts if len(starts := np.flatnonzero(falls > _MOST_FALL * rises)) == 1 else (None,)
    if at is None or (steps[at] < 0).sum() < _LEAST_CELLS:
        return False
    return bool((rises > 0).sum() >= least and sums[at + 1] < sums[at] / 2)
