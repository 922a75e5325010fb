"""Distinguish totals since the start of a model run, which never decrease, from amounts per interval.

Weather models store the rain since their start: WRF's RAINNC, the total precipitation of ECMWF. Read as amounts per step, the
rain would increase all the time. Attributes seldom state it, but the numbers show it: moving rain decreases somewhere.
"""

import re

import numpy as np

from nowcast.netcdf.attributes import text

MOST_READ = 8  # number of successive frames that are compared
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
