"""A correction for each cell of one radar's grid: mountains, beam blockage and clutter make the same errors again and again.

It is added to the guidance, in its units. Observed minus expected events are summed for each cell over many days, smoothed, and
divided by their expected variance plus a prior: an estimate that shrinks to 0 where little was counted. Smoothing and prior are
chosen for each rate by two halves of the days, each of which is corrected by the other; where nothing helps, nothing is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nowcast.models.guided.guidance import LARGEST, MISSING, RATES, STEPS
from nowcast.runtime import compiled
from nowcast.runtime.compiled import INT, POINTER, SIZE, Source

SOURCE = Source(
    Path(__file__).with_name("place.c"), "corrections of places", {"place": [*[POINTER] * 3, *[SIZE] * 8, INT, INT, POINTER]}
)
SMOOTHINGS = (0.7, 1.5, 3.0)  # cells, standard deviation
PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # strength of the prior at 0: variance of events in each cell
GROUPS = 4  # of lead times, which share a weight
MOST_WEIGHT = 1.5
HALVES = 2


@dataclass(frozen=True)
class Place:
    """The correction of each grid cell.

    shift: (rate, y, x) float32, in steps of the guidance
    weight: (lead, rate) float32, its factor at each lead time; later lead times have that of the last
    """

    shift: np.ndarray
    weight: np.ndarray

    def apply(self, coded: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Return the guidance of a part of the grid with the correction added; cells beyond the grid stay as they are.

        coded: (lead, rate, y, x) int8
        top, left: the first row and column of the part

        Raises ValueError for guidance of other rates.
        """
        if coded.shape[1] != len(self.shift):
            raise ValueError(f"guidance of {coded.shape[1]} rates; the correction has {len(self.shift)}")
        coded, shift = np.ascontiguousarray(coded, np.int8), np.ascontiguousarray(self.shift, np.float32)
        part = shift[:, top : top + coded.shape[2], left : left + coded.shape[3]]
        leads = np.minimum(np.arange(len(coded)), len(self.weight) - 1)
        weight, out = np.ascontiguousarray(self.weight[leads], np.float32), coded.copy()
        if library := compiled.load(SOURCE):
            grid = shift.shape[1:]
            library.place(
                coded.ctypes.data, part.ctypes.data, weight.ctypes.data, *coded.shape, *part.shape[1:],
                grid[0] * grid[1], grid[1], MISSING, LARGEST, out.ctypes.data, 1,
            )  # fmt: skip
            return out
        for lead, guidance in enumerate(coded[..., : part.shape[1], : part.shape[2]]):
            shifted = np.rint(guidance + weight[lead, :, None, None] * part).clip(-LARGEST, LARGEST)
            np.copyto(out[lead, :, : part.shape[1], : part.shape[2]], shifted, where=guidance != MISSING, casting="unsafe")
        return out


class PlaceSums:
    """Sums over cases of observed minus expected events, and of their expected variance, by half of the days.

    difference, variance: (half, group of leads, rate, y, x) float32
    """

    def __init__(self, grid: Sequence[int], odds: np.ndarray):
        """Start with zeros.

        grid: (y, x)
        odds: (lead, rate, 2) intercept and slope of the guidance
        """
        codes = np.arange(MISSING, LARGEST + 1) / STEPS
        self.probabilities = 1 / (1 + np.exp(-(odds[..., :1] + odds[..., 1:] * codes)))
        self.probabilities[..., 0] = 0  # missing: no event is expected
        self.difference = np.zeros((HALVES, GROUPS, len(RATES), *grid), np.float32)
        self.variance = np.zeros_like(self.difference)

    def group(self, lead: int) -> int:
        return lead * GROUPS // len(self.probabilities)

    def add(self, coded: np.ndarray, observed: np.ndarray, *, half: int, top: int, left: int) -> None:
        """Add a case.

        coded: (lead, rate, y, x) int8
        observed: (lead, y, x) mm/h, NaN missing
        """
        y, x = (min(size, limit - start) for size, limit, start in
                zip(observed.shape[1:], self.variance.shape[-2:], (top, left), strict=True))  # fmt: skip
        cells, rates = (..., slice(top, top + y), slice(left, left + x)), np.array(RATES)[:, None, None]
        for lead, (guidance, rain) in enumerate(zip(coded[..., :y, :x], observed[..., :y, :x], strict=True)):
            known = ~np.isnan(rain) & (guidance != MISSING)
            expected = np.take_along_axis(
                self.probabilities[lead], guidance.reshape(len(RATES), -1).astype(np.int64) - MISSING, axis=1
            ).reshape(guidance.shape)
            reached = np.greater_equal(rain, rates, where=known, out=np.zeros_like(known))
            expected = np.where(known, expected, 0)
            where = (half, self.group(lead))
            self.difference[where][cells] += reached - expected
            self.variance[where][cells] += expected * (1 - expected)

    def fitted(self) -> Place:
        """Return the correction: per rate with the smoothing and prior of the largest gain in the other half of the days."""
        leads, shifts, weights = len(self.probabilities), [], []
        for rate in range(len(RATES)):
            difference, variance = (sums[:, :, rate] for sums in (self.difference, self.variance))
            tried = [(_gain(difference, variance, *choice), choice) for choice in _choices()]
            gain, choice = max(tried)
            weight = _weights(difference, variance, *choice).mean(axis=0) if gain > 0 else np.zeros(GROUPS)
            # an estimate from both halves has twice the counts, so its prior is as strong as that of one half
            shifts.append(STEPS * _shift(difference.sum(axis=(0, 1)), variance.sum(axis=(0, 1)), *choice))
            weights.append([weight[self.group(lead)] for lead in range(leads)])
        return Place(np.stack(shifts).astype(np.float32), np.array(weights, np.float32).T)


def _choices() -> list[tuple[float, float]]:
    return [(smoothing, prior) for smoothing in SMOOTHINGS for prior in PRIORS]


def _shift(difference: np.ndarray, variance: np.ndarray, smoothing: float, prior: float) -> np.ndarray:
    """Estimate the shift of the log-odds from sums (y, x)."""
    smooth = [cv2.GaussianBlur(np.asarray(field, np.float32), (0, 0), smoothing, borderType=cv2.BORDER_REPLICATE)
              for field in (difference, variance)]  # fmt: skip
    return smooth[0] / (smooth[1] + prior)


def _fit(difference: np.ndarray, variance: np.ndarray, smoothing: float, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and curvature, (half, group) each, of the log-likelihood of a half along the shift of the other."""
    slope, curvature = np.zeros((2, HALVES, GROUPS))
    for half in range(HALVES):
        other = 1 - half
        shift = _shift(difference[other].sum(axis=0), variance[other].sum(axis=0), smoothing, prior)
        slope[half] = (difference[half] * shift).sum(axis=(1, 2))
        curvature[half] = (variance[half] * shift**2).sum(axis=(1, 2))
    return slope, np.maximum(curvature, 1e-9)


def _weights(difference: np.ndarray, variance: np.ndarray, smoothing: float, prior: float) -> np.ndarray:
    """Return the maximum-likelihood weight (half, group) of the shift from the other half."""
    slope, curvature = _fit(difference, variance, smoothing, prior)
    return (slope / curvature).clip(0, MOST_WEIGHT)


def _gain(difference: np.ndarray, variance: np.ndarray, smoothing: float, prior: float) -> float:
    """Return the gain of log-likelihood, to second order, when each half is corrected by the other."""
    slope, curvature = _fit(difference, variance, smoothing, prior)
    weight = (slope / curvature).clip(0, MOST_WEIGHT)
    weight = weight[::-1]  # of the other half, so that no half chooses its own weight
    return float((slope * weight - curvature * weight**2 / 2).sum())
