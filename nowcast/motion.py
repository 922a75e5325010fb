"""The motion of the rain, and fields carried along it.

Fields are rain rate in mm/h, float32, NaN = missing; motion is in cells per frame, (y, x), positive towards larger row and
column. A path is where the air of each cell was, or will be, after so many frames of steady motion.

Lagrangian coordinates: fields as an observer sees them who moves with the rain.

Every place stands for the air that is there at the reference time. Past frames are read where that air was and future ones
where it will be, along the motion of the past frames; so what only moves stands still, and a network is left with growth,
decay and what the motion misses. Fields are mm/h with NaN for missing, or network values.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np

from nowcast.runtime.threads import side_by_side

MOTION_FRAMES = 4  # newest frames from whose pairs the motion is averaged

# Chosen on the records of nine services, 4 -> 12 frames, by the CSI at 0.5 and 1 mm/h of what goes on changing along the motion
# (models/cascade.py), which the cells, MOTION_SIGMA and IMAGE_SIGMA change most; scripts/skill/constants.py chooses cells and
# MOTION_SIGMA without a fold's services. Those of rain, trust and agreement suited the extrapolation best.
RAIN_FLOOR, RAIN_CEILING = 0.2, 100.0  # mm/h; the image is grey between them on a logarithmic scale, black below
IMAGE_SIGMA = 1.0  # cells; takes the speckle out of the images and fills their isolated missing cells
PATCH, PATCH_STRIDE = 16, 8  # of the finest scale; with some others, such as 24 and 12, DIS writes where it must not
# Of the first time and the second, which finds what the first misses: the cells of the images, in cells of the grid each way,
# and the finest scale at which they are looked at, halved so often.
CELLS = (2, 1)
SCALES = (2, 1)
NARROW = 24  # cells: an image with fewer one way is as fine as the grid, and a grid with fewer is looked at as the second time
MISSING_MARGIN = 4  # cells; the standing edge of the missing area looks like rain that does not move
EDGE_TRUST = 0.01  # the weight of the flow within that margin
DISAGREEMENT = 1.0  # cells; where flow forward and flow back differ by as much, its weight is halved
MOTION_SIGMA = 20.0  # cells; smaller differences of motion do not last as long as a forecast
COARSE = 4  # cells each way: as smooth a motion is averaged on a grid as coarse
COARSER_WEIGHT = 0.3  # of the next coarser scale's motion, in cells of perfect rain on that grid

Places = tuple[np.ndarray, np.ndarray]  # columns and rows (y, x), float32
Cells = tuple[slice, slice]  # rows and columns
ALL = slice(None), slice(None)
Image = tuple[np.ndarray, np.ndarray]  # grey, 8 bits, maybe in larger cells; and where the field is known (y, x)


def motion(past: np.ndarray) -> np.ndarray:
    """Motion (2, y, x) of the rain in past (time, y, x) mm/h: float32 cells per frame, (y, x) order, finite everywhere.

    Dense optical flow (DIS: Kroeger et al. 2016, arXiv 1603.03590) between successive frames, averaged where there is
    rain, trusted less where flow forward and back disagree or the missing area is near, smoothed, and continued from
    the rain into the dry and missing areas. Then once more between the newest frame and each earlier one as that motion
    carries it: what is left over several frames is found finer than between two. Without rain, or from one frame, it is zero.
    """
    past = np.asarray(past, np.float32)[-MOTION_FRAMES:]
    grid, images = past.shape[1:], side_by_side(partial(_image, cell=CELLS[0]), past)
    field = _mean_flow([(earlier, later, 1) for earlier, later in itertools.pairwise(images)], grid, SCALES[0])
    *earlier, newest = side_by_side(partial(_image, cell=CELLS[1]), [*carried(past[:-1], field), past[-1]])
    return field + _mean_flow([(image, newest, steps) for steps, image in enumerate(earlier, 1)], grid, SCALES[1])


def _mean_flow(pairs: Sequence[tuple[Image, Image, int]], grid: tuple[int, int], scale: int) -> np.ndarray:
    """Of pairs of an earlier and a later image so many frames apart, the motion (2, y, x) in cells per frame."""
    trust = _resized(_trust([known for *images, _ in pairs for _, known in images], grid), _coarse(grid))
    moved, weight = np.zeros((*trust.shape, 2), np.float32), np.zeros_like(trust)
    both_ways = [way for (earlier, _), (later, _), _ in pairs for way in ((earlier, later), (later, earlier))]
    flows = side_by_side(partial(_flow, grid=grid, scale=scale), both_ways)
    for (earlier, _), (later, _), steps in pairs:
        forward, back = next(flows), next(flows)
        rain = _resized(np.float32((earlier > 0) | (later > 0)), trust.shape)
        pair_weight = trust * _agreement(forward, back) * rain
        moved += pair_weight[..., None] * forward
        weight += steps * pair_weight
    sigma = MOTION_SIGMA / COARSE
    field = cv2.resize(_continued(_smoothed(moved, sigma), _smoothed(weight, sigma)), grid[::-1])
    return np.ascontiguousarray(np.moveaxis(field[..., ::-1], -1, 0))  # OpenCV says x first


def _coarse(grid: tuple[int, int]) -> tuple[int, int]:
    """Of cells that are COARSE times as large."""
    return -(-grid[0] // COARSE), -(-grid[1] // COARSE)


def _resized(field: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Means of the cells of a finer grid."""
    return cv2.resize(field, grid[::-1], interpolation=cv2.INTER_AREA)


def _trust(known: Sequence[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """1 where all is known, little near what is not in any of the fields."""
    missing = (~np.logical_and.reduce([np.ones(grid, bool), *known])).astype(np.uint8)
    margin = np.ones((2 * MISSING_MARGIN + 1, 2 * MISSING_MARGIN + 1), np.uint8)
    near = cv2.dilate(missing, margin, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.where(near > 0, np.float32(EDGE_TRUST), np.float32(1))


def _image(field: np.ndarray, cell: float) -> Image:
    """The logarithmic image of a rain rate (y, x) in cells so large, and where most of the smoothing window is known."""
    known = ~np.isnan(field)
    grey = np.log(np.clip(np.where(known, field, 0), RAIN_FLOOR, RAIN_CEILING) / RAIN_FLOOR)
    share = _smoothed(known.astype(np.float32), IMAGE_SIGMA)
    grey = _smoothed(np.float32(255 / np.log(RAIN_CEILING / RAIN_FLOOR)) * grey, IMAGE_SIGMA) / np.maximum(share, 0.5)
    cell = cell if min(field.shape) >= NARROW * cell else 1
    grey = _resized(np.clip(grey, 0, 255), tuple(math.ceil(cells / cell) for cells in field.shape))
    return grey.astype(np.uint8), share >= 0.5


def _smoothed(field: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _flow(images: tuple[np.ndarray, np.ndarray], grid: tuple[int, int], scale: int) -> np.ndarray:
    """`_coarse` flow (y, x, 2) from the first to the second of two images of this grid, in its cells, x first.

    The finest that is looked at are the images halved `scale` times.
    """
    ny, nx = images[0].shape
    scale = scale if min(grid) >= NARROW else SCALES[1]
    least = max(PATCH << scale, 2 * PATCH)  # DIS refuses images much smaller
    fill = (0, max(0, least - ny), 0, max(0, least - nx), cv2.BORDER_REPLICATE)
    flow = _finder(scale).calc(*(cv2.copyMakeBorder(image, *fill) for image in images), None)[:ny, :nx]
    return _resized(flow, _coarse(grid)) * np.float32([grid[1] / nx, grid[0] / ny])


def _agreement(forward: np.ndarray, back: np.ndarray) -> np.ndarray:
    """0..1 (y, x) of two `_coarse` flows: 1 where the flow back leads to where the flow forward began."""
    rows, columns = np.indices(forward.shape[:2], dtype=np.float32)
    at = (columns + forward[..., 0] / COARSE, rows + forward[..., 1] / COARSE)
    apart = forward + cv2.remap(back, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return 1 / (1 + (apart**2).sum(-1) / DISAGREEMENT**2)


def _finder(scale: int) -> cv2.DISOpticalFlow:
    """One for each search: where an image is small, DIS changes scale and patch for good (to a finer one, and 8 cells)."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setPatchSize(PATCH)
    finder.setPatchStride(PATCH_STRIDE)
    finder.setFinestScale(scale)
    finder.setVariationalRefinementIterations(0)  # it sharpens edges that are smoothed away anyway
    return finder


def _continued(moved: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """moved / weight where the weight is large, and ever coarser means of it where it is small: smooth, never empty."""
    if min(weight.shape) <= 2:
        mean = moved.mean((0, 1)) / max(float(weight.mean()), 1e-6)
        return np.broadcast_to(mean, moved.shape).astype(np.float32)
    coarser = _continued(cv2.pyrDown(moved), cv2.pyrDown(weight))
    coarser = cv2.pyrUp(coarser, dstsize=weight.shape[::-1])
    return (moved + COARSER_WEIGHT * coarser) / (weight + COARSER_WEIGHT)[..., None]


def trace(motion: np.ndarray, num_steps: int, *, forward: bool = False, cells: Cells = ALL) -> Iterator[Places]:
    """Where each cell's air was 1 .. num_steps frames ago, or with `forward` will be; each step by the midpoint rule."""
    sign = np.float32(1 if forward else -1)
    rows, columns = (places[cells] for places in np.indices(motion.shape[1:], dtype=np.float32))
    flow = sign * np.dstack([motion[1], motion[0]]).astype(np.float32)
    step = flow[cells]
    for number in range(num_steps):
        for _ in range(1 if number else 2):  # the step before is as good a guess as the first one's second
            midpoint = (columns + step[..., 0] / 2, rows + step[..., 1] / 2)
            step = cv2.remap(flow, *midpoint, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        columns, rows = columns + step[..., 0], rows + step[..., 1]
        yield columns, rows


def read_at(field: np.ndarray, places: Places) -> np.ndarray:
    """The field (y, x) at these places, bilinearly; NaN where less than half of the cells around are known and in the grid."""
    known = ~np.isnan(field)
    values = np.dstack([np.where(known, field, 0), known]).astype(np.float32)
    read = cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    value, share = read[..., 0], read[..., 1]
    return np.where(share >= 0.5, value / np.maximum(share, 0.5), np.float32(np.nan))


def carried(past: np.ndarray, motion: np.ndarray, cells: Cells = ALL) -> Iterator[np.ndarray]:
    """Frames (time, y, x), the last of them first, each read where the air of these cells was 1, 2, … frames ago."""
    return side_by_side(lambda one: read_at(*one), zip(past[::-1], trace(motion, len(past), cells=cells), strict=True))


def semi_lagrangian(field: np.ndarray, motion: np.ndarray, num_leads: int) -> np.ndarray:
    """Field (y, x) carried along the steady motion (2, y, x) for 1 .. num_leads frames -> (lead, y, x) float32.

    Backward: each cell's origin is traced, and the field is read there once. NaN as in `read_at`.
    """
    return np.stack(list(side_by_side(partial(read_at, field), trace(motion, num_leads))))


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
