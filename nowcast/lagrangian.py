"""Lagrangian coordinates: fields as an observer sees them who moves with the rain.

Every place stands for the air that is there at the reference time. Past frames are read where that air was and future ones
where it will be, along the motion of the past frames; so what only moves stands still, and a network is left with growth,
decay and what the motion misses. Fields are mm/h with NaN for missing, or network values.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from nowcast.motion import ALL, Cells, Places, carried, read_at, trace
from nowcast.threads import side_by_side

MARGIN = 48  # cells around a crop that are read to find its motion: at its edge nearly that of the whole grid


def past_to_lagrangian(past: np.ndarray, flow: np.ndarray, cells: Cells = ALL) -> np.ndarray:
    """Past (time, y, x) -> the same frames in Lagrangian coordinates, read bilinearly; the newest is as it was.

    `flow` is the motion (2, y, x), in cells per frame; of the grid, only `cells` are given.
    """
    before = list(carried(past[:-1], flow, cells))
    return np.stack([*before[::-1], past[-1][cells]])


def future_places(flow: np.ndarray, num_leads: int, cells: Cells = ALL) -> Iterator[Places]:
    """Where, lead after lead, future frames are to be read for these cells: columns and rows, maybe outside the grid."""
    return trace(flow, num_leads, forward=True, cells=cells)


def read_nearest(frame: np.ndarray, places: Places) -> np.ndarray:
    """The frame (y, x) at the nearest cells, as it was observed; NaN outside."""
    return cv2.remap(frame, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))


def from_lagrangian(fields: np.ndarray, flow: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Fields (lead, ..., y, x) of leads 1, 2, … carried to where the air will be; NaN for air from outside the grid.

    `flow` is the motion (2, y, x), in cells per frame; `out` may be the fields themselves.
    """
    out = np.empty_like(fields, dtype=np.float32) if out is None else out

    def carry(lead: tuple[np.ndarray, np.ndarray, Places]) -> None:
        field, target, places = lead
        for index in np.ndindex(field.shape[:-2]):
            target[index] = read_at(field[index], places)

    for _ in side_by_side(carry, zip(fields, out, trace(flow, len(fields)), strict=True)):
        pass
    return out
