"""Forecasters that learn nothing: persistence, extrapolation along the motion of the rain, and those of pysteps.

Fields are rain rate in mm/h, float32, NaN = missing; motion is in cells per frame, (y, x), positive towards larger
row and column. A baseline maps past (case, time, y, x) to forecast (case, lead, y, x), one case at a time and from
its newest frames alone. What comes from outside the grid or from a missing cell is NaN, never dry.
"""

import contextlib
import importlib.util
import io
import itertools
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from nowcast.errors import UsageError
from nowcast.neighbourhood import RADIUS_PER_FRAME, neighbourhood_exceedance, radius_per_frame

log = logging.getLogger(__name__)
MOTION_FRAMES = 4  # newest frames whose successive pairs are averaged into one motion field

# Chosen on the MeteoSwiss, FMI, KNMI, BoM, MRMS and OPERA records (4 -> 12 frames, CSI at 1 mm/h), where each of them
# may be halved or doubled for less than 0.003 of CSI.
RAIN_FLOOR, RAIN_CEILING = 0.2, 100.0  # mm/h; the image is grey between them on a logarithmic scale, black below
IMAGE_SIGMA = 1.0  # cells; takes the speckle out of the images and fills their isolated missing cells
PATCH, PATCH_STRIDE = 16, 8  # cells
MISSING_MARGIN = 4  # cells; the standing edge of the missing area looks like rain that does not move
EDGE_TRUST = 0.01  # the weight of the flow within that margin
DISAGREEMENT = 1.0  # cells; where flow forward and flow back differ by as much, its weight is halved
MOTION_SIGMA = 10.0  # cells; smaller differences of motion do not last as long as a forecast
COARSER_WEIGHT = 1.0  # of the next coarser scale's motion, in cells of perfect rain

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

    def exceedance(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> np.ndarray:
        """Past (case, time, y, x) mm/h -> probability of each threshold or more, (case, lead, threshold, y, x) float32.

        0 to 1, and NaN where the forecast is: see neighbourhood.
        """
        forecasts = self.forecast(past, num_leads)
        parts = [neighbourhood_exceedance(forecast, thresholds, growth=self.growth)[None] for forecast in forecasts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def motion(past: np.ndarray) -> np.ndarray:
    """Motion (2, y, x) of the rain in past (time, y, x) mm/h: float32 cells per frame, (y, x) order, finite everywhere.

    Dense optical flow (DIS: Kroeger et al. 2016, arXiv 1603.03590) between successive frames, averaged where there is
    rain, trusted less where flow forward and back disagree or the missing area is near, smoothed, and continued from
    the rain into the dry and missing areas. Without rain, or from one frame, it is zero.
    """
    past = np.asarray(past, np.float32)[-MOTION_FRAMES:]
    images, known = zip(*map(_image, past), strict=True)
    margin = np.ones((2 * MISSING_MARGIN + 1, 2 * MISSING_MARGIN + 1), np.uint8)
    missing = (~np.logical_and.reduce(known)).astype(np.uint8)
    near = cv2.dilate(missing, margin, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    trust = np.where(near > 0, np.float32(EDGE_TRUST), np.float32(1))
    moved, weight = np.zeros((*past.shape[1:], 2), np.float32), np.zeros(past.shape[1:], np.float32)
    for earlier, later in itertools.pairwise(images):
        flow, agreement = _flow(earlier, later)
        pair_weight = trust * agreement * ((earlier > 0) | (later > 0))
        moved += pair_weight[..., None] * flow
        weight += pair_weight
    field = _continued(_smoothed(moved, MOTION_SIGMA), _smoothed(weight, MOTION_SIGMA))
    return np.ascontiguousarray(np.moveaxis(field[..., ::-1], -1, 0))  # OpenCV says x first


def _image(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rain rate (y, x) -> its 8-bit logarithmic image, and where most of the smoothing window is known."""
    known = ~np.isnan(field)
    grey = np.log(np.clip(np.where(known, field, 0), RAIN_FLOOR, RAIN_CEILING) / RAIN_FLOOR)
    share = _smoothed(known.astype(np.float32), IMAGE_SIGMA)
    grey = _smoothed(np.float32(255 / np.log(RAIN_CEILING / RAIN_FLOOR)) * grey, IMAGE_SIGMA) / np.maximum(share, 0.5)
    return np.clip(grey, 0, 255).astype(np.uint8), share >= 0.5


def _smoothed(field: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _flow(earlier: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow (y, x, 2) of two images in cells per frame, x first, and its agreement 0..1 with the flow back."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setPatchSize(PATCH)
    finder.setPatchStride(PATCH_STRIDE)
    finder.setVariationalRefinementIterations(0)  # it sharpens edges that are smoothed away below
    ny, nx = earlier.shape
    fill = (0, max(0, 2 * PATCH - ny), 0, max(0, 2 * PATCH - nx), cv2.BORDER_REPLICATE)  # DIS refuses less than a patch
    earlier, later = cv2.copyMakeBorder(earlier, *fill), cv2.copyMakeBorder(later, *fill)
    forward, back = (finder.calc(a, b, None)[:ny, :nx] for a, b in ((earlier, later), (later, earlier)))
    rows, columns = np.indices((ny, nx), dtype=np.float32)
    at = (columns + forward[..., 0], rows + forward[..., 1])
    apart = forward + cv2.remap(back, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return forward, 1 / (1 + (apart**2).sum(-1) / DISAGREEMENT**2)


def _continued(moved: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """moved / weight where the weight is large, and ever coarser means of it where it is small: smooth, never empty."""
    if min(weight.shape) <= 2:
        mean = moved.mean((0, 1)) / max(float(weight.mean()), 1e-6)
        return np.broadcast_to(mean, moved.shape).astype(np.float32)
    coarser = _continued(cv2.pyrDown(moved), cv2.pyrDown(weight))
    coarser = cv2.pyrUp(coarser, dstsize=weight.shape[::-1])
    return (moved + COARSER_WEIGHT * coarser) / (weight + COARSER_WEIGHT)[..., None]


def semi_lagrangian(field: np.ndarray, motion: np.ndarray, num_leads: int) -> np.ndarray:
    """Field (y, x) carried along the steady motion (2, y, x) for 1 .. num_leads frames -> (lead, y, x) float32.

    Backward: each cell's origin is traced from frame to frame by the midpoint rule, and the field is read there once,
    bilinearly. A cell is NaN where less than half of the cells around its origin are known and inside the grid.
    """
    rows, columns = np.indices(field.shape, dtype=np.float32)
    known = ~np.isnan(field)
    values = np.dstack([np.where(known, field, 0), known]).astype(np.float32)
    flow = np.dstack([motion[1], motion[0]]).astype(np.float32)
    step = flow
    out = np.empty((num_leads, *field.shape), np.float32)
    for lead in range(num_leads):
        for _ in range(2):
            midpoint = (columns - step[..., 0] / 2, rows - step[..., 1] / 2)
            step = cv2.remap(flow, *midpoint, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        columns, rows = columns - step[..., 0], rows - step[..., 1]
        read = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        value, share = read[..., 0], read[..., 1]
        out[lead] = np.where(share >= 0.5, value / np.maximum(share, 0.5), np.nan)
    return out


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
        raise UsageError("pysteps is not installed: pip install 'nowcast[pysteps]'")


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
