"""Reduce fields for display: large grids to block means, long series to evenly spaced frames."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

KNOWN_MARGIN = 0.03  # width of the margin around the area with data, relative to that area
DISPLAY_CELLS = 320  # largest number of pixels along the longer side of a map; more would not be visible in a panel


def block_size(shape: Sequence[int], cells: int = DISPLAY_CELLS) -> int:
    """Return the side of the blocks, in grid cells, that leave at most `cells` blocks along either side of the grid."""
    return math.ceil(max(shape) / cells)


def block_means(fields: np.ndarray, block: int) -> np.ndarray:
    """Compute the mean over the known cells of each block × block cells, NaN where fewer than half of them are known.

    fields: (…, y, x), NaN missing
    returns: (…, ceil(y / block), ceil(x / block)) float32, in the unit of `fields`
    """
    if block == 1:
        return np.asarray(fields, np.float32)
    rows, columns = (np.arange(0, size, block) for size in fields.shape[-2:])

    def block_sums(values):
        return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)

    known = np.isfinite(fields)
    num_known, num_cells = block_sums(known.astype(np.float32)), block_sums(np.ones(fields.shape[-2:], np.float32))
    total = block_sums(np.where(known, fields, 0).astype(np.float32))
    return np.divide(total, num_known, out=np.full(total.shape, np.nan, np.float32), where=num_known >= num_cells / 2)


def evenly_spaced(number: int, most: int) -> list[int]:
    """Return up to `most` of the positions 0 … number - 1, evenly spaced, including the first and the last."""
    return sorted(set(np.linspace(0, number - 1, min(number, most)).round().astype(int).tolist()))


def in_equal_steps(number: int, most: int) -> list[int]:
    """Return up to `most` of the positions 0 … number - 1, the same number apart, including the last: motion looks steady."""
    step = math.ceil(number / most)
    return list(range((number - 1) % step, number, step))


def known_window(fields: Iterable[np.ndarray]) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle with all known cells of fields (y, x), and a small margin.

    The whole grid if nothing is known.
    """
    rows = columns = None
    for field in fields:
        known = np.isfinite(field)
        rows = known.any(axis=1) if rows is None else rows | known.any(axis=1)
        columns = known.any(axis=0) if columns is None else columns | known.any(axis=0)
    return _around(rows), _around(columns)


def _around(known: np.ndarray) -> slice:
    positions = np.flatnonzero(known)
    if not len(positions):
        return slice(0, len(known))
    margin = max(round(KNOWN_MARGIN * len(positions)), 1)
    return slice(max(int(positions[0]) - margin, 0), min(int(positions[-1]) + 1 + margin, len(known)))
