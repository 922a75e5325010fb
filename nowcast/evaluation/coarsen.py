"""Fewer cells and fewer frames, for the eye: large grids as the means of blocks, long series in part."""

import math
from collections.abc import Sequence

import numpy as np

DISPLAY_CELLS = 320  # along the longer side of a map: more than a panel has pixels


def block_size(shape: Sequence[int], cells: int = DISPLAY_CELLS) -> int:
    """How many cells each way become one pixel of a map, so that neither side has more than `cells`."""
    return math.ceil(max(shape) / cells)


def thinned(fields: np.ndarray, block: int) -> np.ndarray:
    """(..., y, x) -> the mean of the known cells of each block, NaN where fewer than half are known; float32."""
    if block == 1:
        return np.asarray(fields, np.float32)
    rows, columns = (np.arange(0, size, block) for size in fields.shape[-2:])

    def added(values):
        return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)

    known = np.isfinite(fields)
    number, inside = added(known.astype(np.float32)), added(np.ones(fields.shape[-2:], np.float32))
    total = added(np.where(known, fields, 0).astype(np.float32))
    return np.divide(total, number, out=np.full(total.shape, np.nan, np.float32), where=number >= inside / 2)


def spread(number: int, most: int) -> list[int]:
    """Up to `most` of `number` positions, evenly spread, the first and the last among them."""
    return sorted(set(np.linspace(0, number - 1, min(number, most)).round().astype(int).tolist()))
