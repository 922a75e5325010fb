"""Read the coast, lakes, borders and state lines of the world that are included: those of Natural Earth, public domain.

`scripts/data/make_lines.py` makes the file.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

KINDS = ("coast", "lakes", "borders", "states")
CLOSE = 0.25  # degrees that two points of a line are apart at most, so that straight borders are found and drawn as curves
FILE = Path(__file__).with_name("lines.npz")


@dataclass(frozen=True)
class Lines:
    """All lines of a kind, one after the other.

    latitude, longitude: (point,) degrees
    starts: (point,) whether a line begins at this point
    """

    latitude: np.ndarray
    longitude: np.ndarray
    starts: np.ndarray


@cache
def lines(kind: str) -> Lines:
    """Return the lines of a kind: coast, lakes, borders (of countries) or states."""
    with np.load(FILE) as arrays:
        unit, sizes, steps = (arrays[name] for name in ("unit", f"{kind}_sizes", f"{kind}_steps"))
    starts = np.zeros(sizes.sum(), bool)
    first = np.cumsum(sizes) - sizes
    starts[first] = True
    moved = np.cumsum(_numbers(steps).reshape(-1, 2), axis=0)
    before = np.concatenate([np.zeros((1, 2), np.int64), moved])[first]  # where the line before ended
    return _close(Lines(*((moved - np.repeat(before, sizes, axis=0)) * unit).T[::-1], starts))


def _close(every: Lines) -> Lines:
    """Return lines with points put in between those that are far apart."""
    steps = np.abs(np.diff(np.stack([every.latitude, every.longitude]))).max(axis=0)
    count = np.where(every.starts[1:], 1, np.ceil(steps / CLOSE)).astype(int)
    count = np.append(np.maximum(count, 1), 1)  # points from each point to the next
    positions = np.repeat(np.arange(len(count)), count)
    share = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)) / count[positions]
    after = np.minimum(positions + 1, len(count) - 1)
    latitude, longitude = (
        each[positions] + share * (each[after] - each[positions]) for each in (every.latitude, every.longitude)
    )
    return Lines(latitude, longitude, every.starts[positions] & (share == 0))


def _numbers(content: np.ndarray) -> np.ndarray:
    """Return the whole numbers (number,) of bytes with seven bits each, the last one of a number below 128."""
    ends = np.flatnonzero(content < 128)
    begins = np.concatenate([[0], ends[:-1] + 1])
    numbers = np.zeros(len(ends), np.int64)
    for n in range(int((ends - begins).max()) + 1):
        has = begins + n <= ends
        numbers[has] |= (content[begins[has] + n] & 127).astype(np.int64) << (7 * n)
    return np.where(numbers % 2, -(numbers + 1) // 2, numbers // 2)
