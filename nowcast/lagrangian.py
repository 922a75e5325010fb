"""Lagrangian coordinates: fields as an observer sees them who moves with the rain.

Every place stands for the air that is there at the reference time. Past frames are read where that air was and future ones
where it will be, along the motion of the past frames; so what only moves stands still, and a network is left with growth,
decay and what the motion misses. Fields are mm/h with NaN for missing, or network values.
"""

import cv2
import numpy as np

from nowcast.motion import Places, motion, read_at, trace


def to_lagrangian(window: np.ndarray, num_past: int) -> np.ndarray:
    """Window (time, y, x) mm/h, of which `num_past` frames are past -> the same frames in Lagrangian coordinates.

    The newest past frame is unchanged. Past frames are read bilinearly; future ones at the nearest cell, as they were observed.
    """
    window = np.asarray(window, np.float32)
    past, future = window[:num_past], window[num_past:]
    flow = motion(past)
    before = [read_at(frame, places) for frame, places in zip(past[-2::-1], trace(flow, num_past - 1), strict=True)]
    after = [_nearest(frame, places) for frame, places in zip(future, trace(flow, len(future), forward=True), strict=True)]
    return np.stack([*before[::-1], past[-1], *after])


def from_lagrangian(fields: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Fields (lead, ..., y, x) of leads 1, 2, … carried to where the air will be; NaN for air from outside the grid.

    `flow` is the motion (2, y, x), in cells per frame.
    """
    out = np.empty_like(fields, dtype=np.float32)
    for field, target, places in zip(fields, out, trace(flow, len(fields)), strict=True):
        for index in np.ndindex(field.shape[:-2]):
            target[index] = read_at(field[index], places)
    return out


def _nearest(frame: np.ndarray, places: Places) -> np.ndarray:
    return cv2.remap(frame, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))
