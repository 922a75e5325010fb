"""Scores of windows of pixels: the fractions skill score by threshold and scale, and the structural similarity.

A window counts only where it lies wholly inside the grid and every pair in it is known: a missing pixel is treated like the
edge of the grid. A margin of missing pixels around the grid therefore changes no score, and where every window has a missing
pixel there is no score. Events in windows are counted in integers, from summed-area tables, so sums of squares are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np

from nowcast.scores.sums import Additive, ratio, summed

SCALES_KM = (5.0, 10.0, 20.0, 40.0)  # side of the square window of the fractions skill score
# structural similarity, Wang et al. (2004), section III: side of the window and standard deviation of its Gaussian weights, in
# cells, and the two stabilising constants as fractions of the data range
SSIM_CELLS, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03
_MARGIN = SSIM_CELLS // 2  # cells at each edge that are not the centre of a full window
Cells = tuple[int, int]  # height and width of a window
Box = tuple[slice, slice]  # rows and columns of a part of the grid


@dataclass(frozen=True, eq=False)
class WindowSums(Additive):
    """Sums for the fractions skill score. Pf and Po are the forecast and observed area fractions with an event in a window.

    `num_pairs` counts windows, which are the same for all thresholds.
    """

    axis_parameters: ClassVar[Mapping[str, str]] = {"threshold": "thresholds", "scale": "scales_km"}

    thresholds: tuple[float, ...]
    scales_km: tuple[float, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", "scale", dtype=np.int64))
    num_whole_cases: np.ndarray = field(metadata=summed("scale", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", "scale", dtype=np.int64))
    sum_sq_difference: np.ndarray = field(metadata=summed("lead", "threshold", "scale"))  # of (Pf - Po)^2
    sum_sq_fractions: np.ndarray = field(metadata=summed("lead", "threshold", "scale"))  # of Pf^2 + Po^2


def window_cells(scale_km: float, spacing_km: tuple[float, float]) -> Cells:
    """Return the height and width, in cells, of a square window with this side in km: the nearest odd numbers.

    Halfway between two odd numbers, the larger one.
    """
    return tuple(2 * int(scale_km / spacing / 2 + 1e-9) + 1 for spacing in spacing_km)


def add_windows(
    totals: Sequence[WindowSums],
    lead: int,
    forecasts: Sequence[np.ndarray],
    observed: np.ndarray,
    known: np.ndarray,
    spacing_km: tuple[float, float],
) -> None:
    """Fill in one lead time of one case, for several forecasts of the same observed field.

    totals: the sums to fill in, one for each forecast
    forecasts: fields (y, x) mm/h
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count
    spacing_km: (y, x) distance between cells

    The sums stay zero if the grid's spacing is unknown (NaN).
    """
    if not np.isfinite(spacing_km).all():
        return
    windows = [window_cells(scale, spacing_km) for scale in totals[0].scales_km]
    full = full_windows(known, windows)
    numbers = [np.count_nonzero(mask) for mask in full]
    for total in totals:
        total.num_pairs[lead] = numbers
        total.num_cases[lead] = np.minimum(numbers, 1)
    for column, threshold in enumerate(totals[0].thresholds):
        events = [(field >= threshold) & known for field in (observed, *forecasts)]
        box = _around(events, max(windows))
        if box is not None:  # windows without any event add nothing
            _add_threshold(totals, (lead, column), [field[box] for field in events], windows, _cut(full, windows, box))


def full_windows(known: np.ndarray, windows: Sequence[Cells]) -> list[np.ndarray]:
    """Return a mask for each window size: the positions of the window at which every cell in it is known.

    known: (y, x) bool
    windows: sizes in cells (y, x)
    returns: (y, x) bool each, smaller by the size of the window less 1
    """
    table = _summed_area(known)
    return [_count_in_windows(table, cells) == cells[0] * cells[1] for cells in windows]


def _add_threshold(totals, place: tuple[int, int], events: list[np.ndarray], windows: Sequence[Cells], full: list) -> None:
    """Fill in one (lead, threshold): `events` observed, then forecast, cut to a box; `full` masks the windows that count."""
    tables = [_summed_area(field) for field in events]
    for scale, (cells, mask) in enumerate(zip(windows, full, strict=True)):
        if not mask.any():
            continue
        mask = None if mask.all() else mask
        observed = _count_in_windows(tables[0], cells, mask)
        observed_sq = cv2.norm(observed, cv2.NORM_L2SQR)
        num_cells_sq = (cells[0] * cells[1]) ** 2
        for total, table in zip(totals, tables[1:], strict=True):
            forecast = _count_in_windows(table, cells, mask)
            total.sum_sq_difference[*place, scale] = cv2.norm(forecast, observed, cv2.NORM_L2SQR) / num_cells_sq
            total.sum_sq_fractions[*place, scale] = (cv2.norm(forecast, cv2.NORM_L2SQR) + observed_sq) / num_cells_sq


def _summed_area(flags: np.ndarray) -> np.ndarray:
    """Return the summed-area table (y + 1, x + 1), int32: the number of flags above and to the left."""
    return cv2.integral(np.ascontiguousarray(flags).view(np.uint8))


def _count_in_windows(table: np.ndarray, cells: Cells, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the number of flags in each full window, int32: 0 where the mask is False, empty if no window fits the grid."""
    y, x = cells
    if y >= table.shape[0] or x >= table.shape[1]:
        return np.zeros((0, 0), np.int32)
    counts = table[y:, x:] - table[:-y, x:]
    counts -= table[y:, :-x]
    counts += table[:-y, :-x]
    return counts if mask is None else np.multiply(counts, mask, out=counts)


def _around(flags: Sequence[np.ndarray], cells: Cells) -> Box | None:
    """Return the part of the grid covered by windows that hold a flag of any of the fields; None if there is no flag."""
    box = []
    for axis, reach in ((1, cells[0] - 1), (0, cells[1] - 1)):
        flagged = np.flatnonzero(np.logical_or.reduce([field.any(axis=axis) for field in flags]))
        if not len(flagged):
            return None
        box.append(slice(max(int(flagged[0]) - reach, 0), int(flagged[-1]) + reach + 1))
    return tuple(box)


def _cut(full: Sequence[np.ndarray], windows: Sequence[Cells], box: Box) -> list[np.ndarray]:
    """Return the masks of window positions, cut to the part of the grid in the box."""
    cut = []
    for mask, cells in zip(full, windows, strict=True):
        y, x = (slice(side.start, max(side.stop - size + 1, side.start)) for side, size in zip(box, cells, strict=True))
        cut.append(mask[y, x])
    return cut


def fss(s: WindowSums) -> np.ndarray:
    """Compute the fractions skill score (lead, threshold, scale): 1 - sum of (Pf - Po)^2 / sum of (Pf^2 + Po^2).

    Range 0 to 1, best 1. Pf and Po are the forecast and observed area fractions with an event in each window; numerator and
    denominator are added over cases. Also called: skill score of the fractions Brier score (FBS). With windows of one cell it
    is `f1`. Useful from `fss_useful` on. NaN where no window holds an event, and where no window is fully known. Roberts & Lean
    (2008).
    """
    return 1 - ratio(s.sum_sq_difference, s.sum_sq_fractions)


@dataclass(frozen=True, eq=False)
class SimilaritySums(Additive):
    """Sums for the structural similarity. `num_pairs` counts windows; `data_range` is in the unit of the fields."""

    data_range: float
    num_cases: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    num_whole_cases: np.ndarray = field(metadata=summed(dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", dtype=np.int64))
    sum_ssim: np.ndarray = field(metadata=summed("lead"))


def add_similarity(
    totals: Sequence[SimilaritySums], lead: int, forecasts: Sequence[np.ndarray], observed: np.ndarray, known: np.ndarray
) -> None:
    """Fill in one lead time of one case, for several forecasts of the same observed field.

    totals: the sums to fill in, one for each forecast
    forecasts: fields (y, x) mm/h
    observed: (y, x) mm/h
    known: (y, x) bool, where pairs count
    """
    window = (SSIM_CELLS, SSIM_CELLS)
    (full,) = full_windows(known, [window])
    number = np.count_nonzero(full)
    if not number:
        return
    fields = [np.where(known, field, 0).astype(np.float64) for field in (observed, *forecasts)]
    box = _around([field != 0 for field in fields], window)
    inside = _cut([full], [window], box)[0] if box is not None else full[:0]
    num_dry = number - np.count_nonzero(inside)  # windows where all fields are 0: similarity 1
    observed, *forecasts = (field[box] for field in fields) if box is not None else fields
    similarities = _similarities(observed, forecasts, totals[0].data_range) if inside.any() else [full[:0]] * len(forecasts)
    for total, similarity in zip(totals, similarities, strict=True):
        total.num_pairs[lead], total.num_cases[lead] = number, 1
        total.sum_ssim[lead] = num_dry + similarity[inside].sum() if similarity.size else num_dry


def _similarities(observed: np.ndarray, forecasts: Sequence[np.ndarray], data_range: float) -> list[np.ndarray]:
    """Return the SSIM of each forecast with the observed field in every full window, (y, x) for each forecast."""
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_o, squares = _blur(observed), observed * observed
    sq_o = mean_o * mean_o
    similarities = []
    for forecast in forecasts:
        mean_f = _blur(forecast)
        product, means = mean_f * mean_o, mean_f * mean_f
        means += sq_o
        variances = _blur(forecast * forecast + squares)
        variances -= means
        covariance = _blur(forecast * observed)
        covariance -= product
        similarities.append((2 * product + c1) * (2 * covariance + c2) / ((means + c1) * (variances + c2)))
    return similarities


def _blur(field: np.ndarray) -> np.ndarray:
    """Return the Gaussian-weighted mean of the field in every full window."""
    kernel = cv2.getGaussianKernel(SSIM_CELLS, SSIM_SIGMA, cv2.CV_64F)
    return cv2.sepFilter2D(field, cv2.CV_64F, kernel, kernel)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def ssim(s: SimilaritySums) -> np.ndarray:
    """Compute the structural similarity, SSIM (lead,). Range -1 to 1, best 1.

    Mean over windows of (2 mf mo + c1)(2 cov + c2) / ((mf^2 + mo^2 + c1)(vf + vo + c2)), where m, v and cov are the means,
    variances and covariance of forecast (f) and observation (o) in 11 × 11 cells with Gaussian weights (sigma: 1.5 cells),
    c1 = (0.01 L)^2, c2 = (0.03 L)^2. The value depends on the data range L: compare values for the same L only. Windows that
    are dry in both fields count, with similarity 1. NaN where no window is fully known. Wang et al. (2004).
    """
    return ratio(s.sum_ssim, s.num_pairs)
