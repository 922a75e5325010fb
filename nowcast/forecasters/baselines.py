"""Forecasters that learn nothing: persistence, extrapolation along the motion of the rain, and those of pysteps.

Fields are rain rate in mm/h, float32, NaN = missing; motion is in cells per frame, (y, x), positive towards larger
row and column. A baseline maps past (case, time, y, x) to forecast (case, lead, y, x), one case at a time and from
its newest frames alone. What comes from outside the grid or from a missing cell is NaN, never dry.
"""

import contextlib
import importlib.util
import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nowcast.errors import UsageError
from nowcast.forecasters.neighbourhood import RADIUS_PER_FRAME, neighbourhood_exceedance, radius_per_frame
from nowcast.motion import MOTION_FRAMES, motion, semi_lagrangian

log = logging.getLogger(__name__)

DRY_DBR = -15.0  # 10 log10(mm/h) that pysteps' examples give to anything below its rain threshold
DRY_THRESHOLD = 0.1  # mm/h; pysteps' rain threshold


class Baseline(ABC):
    """One case after another; a baseline says how many past frames it needs and how one case is forecast."""

    name: ClassVar[str]
    input_frames: ClassVar[int]  # the fewest past frames; newer than four, more are not used

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Past (case, time, y, x) mm/h -> forecast (case, lead, y, x) mm/h, float32, NaN = unknown.

        Raises UsageError for fewer past frames than `input_frames`.
        """
        past = np.asarray(past, np.float32)
        if past.ndim != 4:
            raise ValueError(f"past has shape {past.shape}: (case, time, y, x) is wanted")
        if past.shape[1] < self.input_frames:
            raise UsageError(f"{self.name} needs {self.input_frames} past frames, and {past.shape[1]} were given")
        out = np.empty((past.shape[0], num_leads, *past.shape[2:]), np.float32)
        for case, frames in enumerate(past):
            out[case] = self.forecast_case(frames, num_leads)
        return out

    @abstractmethod
    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Past (time, y, x) mm/h -> forecast (lead, y, x) mm/h."""


class Persistence(Baseline):
    """The newest frame, repeated exactly."""

    name = "persistence"
    input_frames = 1

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return np.repeat(past[-1:], num_leads, axis=0)


class Extrapolation(Baseline):
    """The newest frame moved along the motion field of the newest four, unchanged in strength."""

    name = "extrapolation"
    input_frames = 2
    thresholds: ClassVar[tuple[float, ...]] = (0.5, 1.0, 5.0, 10.0)  # mm/h; of which it gives probabilities unless asked

    def __init__(self, growth: float = RADIUS_PER_FRAME):
        self.growth = growth  # of the neighbourhood, in cells per frame

    def on(self, minutes: float, spacing_km: tuple[float, float]) -> "Extrapolation":
        """The same with the neighbourhood for frames so many minutes apart and cells of this (y, x) size."""
        return Extrapolation(radius_per_frame(minutes, spacing_km))

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return semi_lagrangian(past[-1], motion(past), num_leads)

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Past (case, time, y, x) mm/h -> the forecast, and the probability (case, lead, threshold, y, x) of each threshold
        or more: float32 of 0 to 1, and NaN where the forecast is: see neighbourhood.
        """
        forecasts = self.forecast(past, num_leads)
        parts = [neighbourhood_exceedance(forecast, thresholds, growth=self.growth)[None] for forecast in forecasts]
        return forecasts, parts[0] if len(parts) == 1 else np.concatenate(parts)


class Pysteps(Baseline):
    """pysteps' dense Lucas-Kanade motion and semi-Lagrangian extrapolation, as its examples use them."""

    name = "pysteps"
    input_frames = 2

    def __init__(self):
        _require_pysteps()

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        if _is_dry(past):  # pysteps fails on fields without rain or without anything
            return np.repeat(past[-1:], num_leads, axis=0)
        with _quiet():
            from pysteps import extrapolation

            carry = extrapolation.get_method("semilagrangian")
            return carry(past[-1], _lucas_kanade(past), num_leads, allow_nonfinite_values=True)


class Sprog(Baseline):
    """pysteps' S-PROG (Seed 2003): extrapolation that loses its small scales at the rate at which they change."""

    name = "sprog"
    input_frames = 3  # for its autoregression of order 2

    def __init__(self):
        _require_pysteps()

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        if _is_dry(past[-3:]):
            return np.repeat(past[-1:], num_leads, axis=0)
        with _quiet():
            from pysteps import nowcasts

            try:
                rain = nowcasts.get_method("sprog")(
                    _reflectivity_like(past[-3:]),
                    _lucas_kanade(past),
                    num_leads,
                    precip_thr=10 * np.log10(DRY_THRESHOLD),
                    n_cascade_levels=max(3, min(6, int(np.log2(min(past.shape[1:]))) - 1)),
                )
            except (ValueError, IndexError, np.linalg.LinAlgError) as error:
                # a few single cells, uniform rain or rain that stands still have no correlations to go by
                log.debug("S-PROG cannot forecast from these frames (%s): extrapolated without it", error)
                return Pysteps().forecast_case(past, num_leads)
        return np.where(rain < 10 * np.log10(DRY_THRESHOLD), 0, 10 ** (rain / 10))  # NaN stays NaN


def _require_pysteps() -> None:
    if not _has_pysteps():
        raise UsageError("pysteps is not installed: pip install pysteps")


def _has_pysteps() -> bool:
    return importlib.util.find_spec("pysteps") is not None


@contextlib.contextmanager
def _quiet():
    """pysteps prints its settings on stdout, where results go, and divides by zero where nothing moves."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _is_dry(past: np.ndarray) -> bool:
    """No rain in one of the frames, or nothing known: there is nothing to follow."""
    return not (past >= DRY_THRESHOLD).any(axis=(1, 2)).all()


def _reflectivity_like(past: np.ndarray) -> np.ndarray:
    rain = 10 * np.log10(np.maximum(past, DRY_THRESHOLD))  # NaN stays NaN
    return np.where(past < DRY_THRESHOLD, DRY_DBR, rain)


def _lucas_kanade(past: np.ndarray) -> np.ndarray:
    """(2, y, x) in pysteps' order: x first."""
    from pysteps import motion as methods

    return methods.get_method("LK")(_reflectivity_like(past[-MOTION_FRAMES:]))


BASELINES = {baseline.name: baseline for baseline in (Persistence, Extrapolation, Pysteps, Sprog)}


def available() -> tuple[str, ...]:
    """Names of the baselines that can be used here: those of pysteps only where it is installed."""
    return tuple(name for name in BASELINES if _has_pysteps() or not issubclass(BASELINES[name], Pysteps | Sprog))
