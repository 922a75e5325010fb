"""Forecasters without training: persistence, extrapolation along the motion of the rain, and those of pysteps.

Fields are rain rate in mm/h, float32, NaN missing. Motion is in cells per frame, (y, x), positive towards higher row and
column numbers. A baseline forecasts each case separately, from the newest frames only. Cells that the motion brings from
outside the grid or from a missing cell become NaN, never dry.
"""

import contextlib
import importlib.util
import io
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from nowcast.errors import UsageError
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.neighbourhood import GROWTH, neighbourhood_exceedance, radius_per_frame
from nowcast.motion import MOTION_FRAMES, motion, semi_lagrangian
from nowcast.netcdf.record import Record

log = logging.getLogger(__name__)

DRY_DBR = -15.0  # 10 log10(mm/h) that pysteps' examples give to everything below the rain threshold
DRY_THRESHOLD = 0.1  # mm/h, pysteps' rain threshold
MINUTE = np.timedelta64(60, "s")


class Baseline(Forecaster):
    """A forecaster that treats each case separately. A subclass implements `forecast_case` for one case."""

    requires: ClassVar[str | None] = None  # optional package that it needs

    def __init__(self):
        self.require_package()

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the package that it requires is installed."""
        return cls.requires is None or importlib.util.find_spec(cls.requires) is not None

    @classmethod
    def require_package(cls) -> None:
        """Raise UsageError (exit 2) if the package that it requires is missing."""
        if not cls.is_installed():
            raise UsageError(f"{cls.requires} is not installed: pip install {cls.requires}")

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        past = self.check_past(past)
        out = np.empty((past.shape[0], num_leads, *past.shape[2:]), np.float32)
        for case, frames in enumerate(past):
            out[case] = self.forecast_case(frames, num_leads)
        return out

    @abstractmethod
    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Forecast one case.

        past: (time, y, x) mm/h, newest frame last, NaN missing
        returns: (lead, y, x) mm/h, NaN where nothing is known
        """


class Persistence(Baseline):
    """The newest frame, repeated exactly."""

    name = "persistence"
    description = "The newest frame, repeated exactly"
    always_scored = True
    input_frames = 1

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return np.repeat(past[-1:], num_leads, axis=0)


class Extrapolation(Baseline):
    """The newest frame moved along the motion field of the newest four, unchanged in strength.

    Its probabilities are the neighbourhood's (neighbourhood.py); `growth`: of the radius, cells per frame.
    """

    name = "extrapolation"
    description = "The newest frame moved along the motion field of the newest four, unchanged in strength"
    citation = "Kroeger et al. (2016), arXiv 1603.03590 (the motion)"
    probability_citation = "Germann & Zawadzki (2004), J. Appl. Meteor. 43 (the probabilities)"
    always_scored = True
    input_frames = 2
    most_past_frames = MOTION_FRAMES
    thresholds = (0.5, 1.0, 5.0, 10.0)  # mm/h

    def __init__(self, growth: float = GROWTH):
        super().__init__()
        self.growth = growth

    def on_record(self, record: Record, step: np.timedelta64) -> "Extrapolation":
        """Return the extrapolation with a growth of the neighbourhood that suits this time step and cell size."""
        adapted = super().on_record(record, step)
        adapted.growth = radius_per_frame(float(step / MINUTE), record.grid.spacing_km)
        return adapted

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return semi_lagrangian(past[-1], motion(past), num_leads)

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        forecasts = self.forecast(past, num_leads)
        exceedance = [neighbourhood_exceedance(forecast, thresholds, growth=self.growth)[None] for forecast in forecasts]
        return forecasts, exceedance[0] if len(exceedance) == 1 else np.concatenate(exceedance)

    def exceedance_by_lead(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
        for number, field in enumerate(self.forecast(past[None], num_leads)[0], 1):
            yield neighbourhood_exceedance(field[None], thresholds, growth=number * self.growth)[0]


class Pysteps(Baseline):
    """pysteps' dense Lucas-Kanade motion and semi-Lagrangian extrapolation, as its examples use them."""

    name = "pysteps"
    description = "pysteps' dense Lucas-Kanade motion and semi-Lagrangian extrapolation, as its examples use them"
    citation = "Pulkkinen et al. (2019), doi 10.5194/gmd-12-4185-2019"
    requires = "pysteps"
    always_scored = True
    input_frames = 2
    most_past_frames = MOTION_FRAMES

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        if _is_dry(past):  # pysteps fails on fields without rain or without a known cell
            return np.repeat(past[-1:], num_leads, axis=0)
        with _quiet():
            from pysteps import extrapolation

            carry = extrapolation.get_method("semilagrangian")
            return carry(past[-1], _lucas_kanade(past), num_leads, allow_nonfinite_values=True)


class Sprog(Baseline):
    """pysteps' S-PROG (Seed 2003): extrapolation that loses its small scales at the rate at which they change."""

    name = "sprog"
    description = "pysteps' S-PROG (Seed 2003): extrapolation that loses its small scales at the rate at which they change"
    citation = "Seed (2003); Pulkkinen et al. (2019), doi 10.5194/gmd-12-4185-2019"
    requires = "pysteps"
    always_scored = True
    input_frames = 3  # for its autoregression of order 2
    most_past_frames = MOTION_FRAMES

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
                    n_cascade_levels=_num_bands(past.shape[1:]),
                )
            except (ValueError, IndexError, np.linalg.LinAlgError) as error:
                # isolated cells, uniform rain or rain that does not change have no correlations to estimate
                log.debug("S-PROG cannot forecast from these frames (%s): extrapolated without it", error)
                return Pysteps().forecast_case(past, num_leads)
        return _rain(rain)


class Steps(Baseline):
    """pysteps' STEPS with its defaults: S-PROG with noise and a perturbed motion, an ensemble; its field is the mean.

    `own_motion`: whether it moves with pysteps' Lucas–Kanade motion, or with that of `nowcast.motion`.
    """

    name = "steps"
    description = "pysteps' STEPS (Bowler, Pierce & Seed 2006) with its defaults"
    citation = "Bowler, Pierce & Seed (2006); Pulkkinen et al. (2019), doi 10.5194/gmd-12-4185-2019"
    requires = "pysteps"
    default_members = 24
    gives_members = True
    members_citation = ""
    input_frames = 3
    most_past_frames = MOTION_FRAMES

    def __init__(self, spacing_km: float = 1.0, minutes: float = 5.0, *, own_motion: bool = True):
        super().__init__()
        self.spacing_km, self.minutes, self.own_motion = spacing_km, minutes, own_motion

    def on_record(self, record: Record, step: np.timedelta64) -> "Steps":
        """Return STEPS for this time step and cell size; cells of unknown size are taken for 1 km."""
        km = float(np.sqrt(np.prod(record.grid.spacing_km)))
        return Steps(km if np.isfinite(km) else 1.0, float(step / MINUTE), own_motion=self.own_motion)

    def forecast_case(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return np.stack([each.mean(axis=0) for each in self.members(past, num_leads, self.default_members)])

    def members(self, past: np.ndarray, num_leads: int, num_members: int, seed: int = 0) -> Iterator[np.ndarray]:
        past = self.check_past(past[None])[0]
        flow = motion(past)
        carried = semi_lagrangian(past[-1], flow, num_leads)
        if _is_dry(past[-3:]):
            yield from np.broadcast_to(carried[:, None], (num_leads, num_members, *past.shape[1:])).copy()
            return
        velocity = _lucas_kanade(past) if self.own_motion else flow[::-1].astype(np.float64)
        filled = np.where(np.isnan(past[-3:]), DRY_DBR, _reflectivity_like(past[-3:])).astype(np.float64)
        with _quiet():
            from pysteps import nowcasts

            try:
                drawn = nowcasts.get_method("steps")(
                    filled, velocity, num_leads, n_ens_members=num_members, precip_thr=10 * np.log10(DRY_THRESHOLD),
                    kmperpixel=self.spacing_km, timestep=self.minutes, seed=seed,
                    n_cascade_levels=_num_bands(past.shape[1:]),
                )  # fmt: skip
            except (ValueError, IndexError, np.linalg.LinAlgError) as error:
                log.debug("STEPS cannot forecast from these frames (%s): extrapolated without it", error)
                drawn = np.broadcast_to(_reflectivity_like(carried), (num_members, *carried.shape))
        for lead, own in enumerate(carried):
            yield np.where(np.isnan(own), np.nan, _rain(drawn[:, lead])).astype(np.float32)


@contextlib.contextmanager
def _quiet():
    """Silence pysteps, which prints its settings on stdout, where results go, and divides by zero where nothing moves.

    Restores the state of NumPy's random numbers, which pysteps seeds.
    """
    before = np.random.get_state()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.random.set_state(before)


def _is_dry(past: np.ndarray) -> bool:
    """Return whether a frame has no rain or no known cell, so that there is no motion to find."""
    return not (past >= DRY_THRESHOLD).any(axis=(1, 2)).all()


def _reflectivity_like(past: np.ndarray) -> np.ndarray:
    """Return 10 log10(mm/h), as pysteps' examples transform rain rates."""
    rain = 10 * np.log10(np.maximum(past, DRY_THRESHOLD))  # NaN stays NaN
    return np.where(past < DRY_THRESHOLD, DRY_DBR, rain)


def _rain(reflectivity_like: np.ndarray) -> np.ndarray:
    """Return the rain rate (mm/h) of numbers as of `_reflectivity_like`, of any shape."""
    is_dry = reflectivity_like < 10 * np.log10(DRY_THRESHOLD)
    return np.where(is_dry, 0, 10 ** (reflectivity_like / 10))  # NaN stays NaN


def _num_bands(grid: tuple[int, ...]) -> int:
    """Return the number of bands of scale that pysteps divides a grid of this (y, x) shape into."""
    return max(3, min(6, int(np.log2(min(grid))) - 1))


def _lucas_kanade(past: np.ndarray) -> np.ndarray:
    """Return the motion (2, y, x) in cells per frame, in pysteps' order: x first."""
    from pysteps import motion as methods

    return methods.get_method("LK")(_reflectivity_like(past[-MOTION_FRAMES:]))


BASELINES = {baseline.name: baseline for baseline in (Persistence, Extrapolation, Pysteps, Sprog)}

ENSEMBLES = {baseline.name: baseline for baseline in (Steps,)}  # scored only where they are named


def available() -> tuple[str, ...]:
    """Return the names of the baselines whose packages are installed."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.is_installed())
