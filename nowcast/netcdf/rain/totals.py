"""Tell totals since the start of a run, which never fall, from amounts per interval.

Weather models store the rain since their start: WRF's RAINNC, the total precipitation of ECMWF. Taken for amounts per step it
would rain more and more. Attributes seldom say so, but the numbers do: rain that moves falls somewhere from frame to frame.
"""

import re

import numpy as np

from nowcast.netcdf.attributes import text

MOST_READ = 8  # frames that are compared at one place of a series
_MOST_FALL = 0.01  # of what rises: packing rounds
_SAID = re.compile(
    r"\baccumulated total\b|\btotal accumulated\b|"
    r"\bsince (the )?(start|beginning|initiali\w+|midnight|\d\d(:?\d\d)? ?(utc|z))\b",
    re.IGNORECASE,
)


def says_total(variable) -> bool:
    """Return whether an attribute of a variable says that it holds totals since the start of a run."""
    return any(_SAID.search(text(variable, name) or "") for name in ("long_name", "description", "comment", "cell_methods"))


def never_falls(fields: np.ndarray, *, least: int = 2) -> bool:
    """Return whether amounts rise in at least as many steps from frame to frame, and fall nowhere.

    fields: (frame, y, x) in any units, NaN missing
    """
    steps = np.nan_to_num(np.diff(np.asarray(fields, np.float64), axis=0))
    rises, falls = np.maximum(steps, 0).sum(axis=(1, 2)), np.maximum(-steps, 0).sum()
    return bool((rises > 0).sum() >= least and falls <= _MOST_FALL * rises.sum())
