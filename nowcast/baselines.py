"""Forecasters that learn nothing: persistence, extrapolation along the motion of the rain, and those of pysteps.

Fields are rain rate in mm/h, float32, NaN = missing, row 0 first; motion is in cells per frame, (y, x), positive
towards larger row and column. A baseline maps past (case, time, y, x) to forecast (case, lead, y, x), one case at a
time, from its newest frames alone; what nothing is known about stays NaN.
"""

import importlib.util
from typing import ClassVar

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from nowcast.errors import UsageError

RAIN_THRESHOLD = 0.1  # mm/h; below it a cell is dry, for the motion only
RAIN_CEILING = 100.0  # mm/h; above it every cell looks the same to the motion
MOTION_FRAMES = 4  # newest frames whose pairs are averaged


class _Baseline:
    """One case after another; a subclass says `name`, `input_frames` and how one case is forecast."""

    name: ClassVar[str]
    input_frames: ClassVar[int]

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """(case, time, y, x) mm/h, at least `input_frames` frames -> (case, lead, y, x) float32 mm/h, NaN = unknown."""
        past = np.asarray(past, np.float32)
        if past.ndim != 4:
            raise ValueError(f"past has shape {past.shape}; {self.name} wants (case, time, y, x)")
        if past.shape[1] < self.input_frames:
            raise UsageError(f"{self.name} needs {self.input_frames} past frames, got {past.shape[1]}")
        out = np.empty((past.shape[0], num_leads, *past.shape[2:]), np.float32)
        for case, frames in enumerate(past):
            out[case] = self.forecast_case(frames, num_leads)
        return out

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        raise NotImplementedError


class Persistence(_Baseline):
    """The newest frame, repeated exactly."""

    name = "persistence"
    input_frames = 1

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return np.repeat(past[-1:], num_leads, axis=0)


class Extrapolation(_Baseline):
    """The newest frame moved along the motion field of the newest frames, unchanged in strength."""

    name = "extrapolation"
    input_frames = 2

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return semi_lagrangian(past[-1], motion(past), num_leads)


def motion(past: np.ndarray) -> np.ndarray:
    """Motion (2, y, x) float32 in cells per frame, (y, x) order, from past (time, y, x) mm/h."""
    past = np.asarray(past, np.float32)[-MOTION_FRAMES:]
    valid = ~np.isnan(past)
    images = np.where(valid, past, 0)
    images = np.log(np.clip(images, RAIN_THRESHOLD, RAIN_CEILING) / RAIN_THRESHOLD)
    images = (images * (255 / np.log(RAIN_CEILING / RAIN_THRESHOLD))).astype(np.uint8)
    size = past.shape[1:]
    total, weight = np.zeros((*size, 2), np.float32), np.zeros(size, np.float32)
    for a, b in zip(images[:-1], images[1:], strict=True):
        flow = cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 4, 25, 3, 7, 1.5, 0)
        rain = ((a > 0) | (b > 0)).astype(np.float32)
        total += flow * rain[..., None]
        weight += rain
    if not weight.any():
        return np.zeros((2, *size), np.float32)
    sigma = 20
    total, weight = cv2.GaussianBlur(total, (0, 0), sigma), cv2.GaussianBlur(weight, (0, 0), sigma)
    known = weight > 1e-3
    if known.any():
        field = total / np.maximum(weight, 1e-3)[..., None]
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        field = field[tuple(nearest)]
    else:
        field = np.zeros_like(total)
    return np.ascontiguousarray(np.moveaxis(field[..., ::-1], -1, 0))


def semi_lagrangian(field: np.ndarray, motion: np.ndarray, num_leads: int) -> np.ndarray:
    """Field (y, x) moved along motion (2, y, x) for 1..num_leads frames -> (lead, y, x), NaN where nothing comes from."""
    rows, columns = np.indices(field.shape, dtype=np.float32)
    known = ~np.isnan(field)
    values, weights = np.where(known, field, 0).astype(np.float32), known.astype(np.float32)
    out = np.empty((num_leads, *field.shape), np.float32)
    step = motion.astype(np.float32)
    for lead in range(num_leads):
        for _ in range(3):
            at = (columns - step[1] / 2, rows - step[0] / 2)
            step = np.stack([cv2.remap(m, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for m in motion])
        rows, columns = rows - step[0], columns - step[1]
        value = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        weight = cv2.remap(weights, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        out[lead] = np.where(weight >= 0.5, value / np.maximum(weight, 0.5), np.nan)
    return out


class Pysteps(_Baseline):
    """pysteps' Lucas-Kanade motion and semi-Lagrangian extrapolation."""

    name = "pysteps"
    input_frames = 2

    def __init__(self):
        _require_pysteps()

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        from pysteps import extrapolation

        return extrapolation.get_method("semilagrangian")(past[-1], _pysteps_motion(past), num_leads)


class Sprog(_Baseline):
    """pysteps' S-PROG: extrapolation that smooths away what cannot be predicted."""

    name = "sprog"
    input_frames = 3

    def __init__(self):
        _require_pysteps()

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        raise NotImplementedError


def _require_pysteps() -> None:
    if importlib.util.find_spec("pysteps") is None:
        raise UsageError("pysteps is not installed: pip install 'nowcast[pysteps]'")


BASELINES = {baseline.name: baseline for baseline in (Persistence, Extrapolation, Pysteps, Sprog)}


def available() -> tuple[str, ...]:
    """Names of the baselines that can be used here: those of pysteps only where it is installed."""
    has_pysteps = importlib.util.find_spec("pysteps") is not None
    return tuple(name for name in BASELINES if has_pysteps or name not in ("pysteps", "sprog"))
