"""Motion of the rain, advection along it, and Lagrangian coordinates.

Fields are rain rate in mm/h, float32, NaN missing. Motion is in cells per frame, (y, x), positive towards larger rows
and columns.

In Lagrangian coordinates each cell follows the air that is in it at the reference time: past frames are read where that air
was, future frames where it will be, along the steady motion of the past frames. Rain that only moves stands still, and a
network has to forecast growth, decay and the errors of the motion alone. In these coordinates fields may also be network
values.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from nowcast.runtime.threads import side_by_side

MOTION_FRAMES = 4  # newest frames that the motion is estimated from

# The constants were chosen on the records of nine weather services, 4 past and 12 future frames. MotionConstants and
# IMAGE_SIGMA matter most: they were chosen by the CSI at 0.5 and 1 mm/h of the forecast of models/probabilistic/cascade.py, and
# scripts/skill/constants.py repeats that for MotionConstants by cross-validation over services. The others were chosen for the
# extrapolation.
RAIN_FLOOR, RAIN_CEILING = 0.2, 100.0  # mm/h: black and white of the images, which are logarithmic in between
IMAGE_SIGMA = 1.0  # cells: smoothing of the images, which removes speckle and fills isolated missing cells
SCALE = 2  # finest scale that DIS works at: the images halved so many times
# pixels of that scale; OpenCV has fast code for patches of 8 only, and for some values, such as 24 and 12, writes out of bounds
PATCH, PATCH_STRIDE = 8, 4
NARROW = 24  # cells: on narrower grids a pixel of the images is one cell
MISSING_MARGIN = 4  # cells around missing data, whose fixed edge looks like rain that does not move
EDGE_TRUST = 0.01  # weight of the flow within that margin, 1 elsewhere
DISAGREEMENT = 1.0  # cells: difference of forward and backward flow that halves the weight of the flow
COARSE = 4  # cells: cell width of the coarse grid on which flows are averaged; the motion is smooth
COARSER_WEIGHT = 0.3  # weight of the motion of the next coarser scale, relative to 1 for a cell that certainly has rain

Places = tuple[np.ndarray, np.ndarray]  # columns and rows, each (y, x) float32, in cells
Cells = tuple[slice, slice]  # rows and columns
ALL = slice(None), slice(None)
Image = tuple[np.ndarray, np.ndarray]  # 8-bit grey values, perhaps in larger cells; and where the field is known (y, x)


@dataclass(frozen=True)
class MotionConstants:
    """Constants of the motion estimate, chosen on radar records. Only scripts/skill/constants.py tries other values."""

    pixel_widths: tuple[float, float] = (2, 1)  # cells: width of a pixel of the images in the first and the second pass
    smoothing: float = 20.0  # cells: smoothing of the motion; finer differences do not persist over a forecast's lead times


MOTION = MotionConstants()


def motion(past: np.ndarray, constants: MotionConstants = MOTION) -> np.ndarray:
    """Estimate the motion of the rain by dense optical flow.

        past: (time, y, x) mm/h, NaN missing
        returns: (2, y, x) float32 cells per frame, (y, x) order, finite everywhere

    The flow between successive frames is averaged where there is rain, weighted less where forward and backward flow disagree
    or data is missing near by, smoothed, and extended into dry and missing areas. A second pass takes the flow between the
    newest frame and each earlier one, moved along the first result: over several frames small errors of the motion are larger.
    Without rain, or with a single frame, the motion is zero. A frame that is missing as a whole is passed over.

    Method: DIS, Kroeger et al. (2016), arXiv 1603.03590.
    """
    past = np.asarray(past, np.float32)[-MOTION_FRAMES:]
    first_width, second_width = constants.pixel_widths
    mean_flow = partial(_mean_flow, grid=past.shape[1:], smoothing=constants.smoothing)
    ago = [n for n in range(len(past)) if n == 0 or not np.isnan(past[-1 - n]).all()][::-1]  # frames before the newest
    greys = list(side_by_side(_grey, [past[-1 - n] for n in ago]))
    images = [_image(*grey, first_width) for grey in greys]
    pairs = itertools.pairwise(zip(images, ago, strict=True))
    field = mean_flow([(earlier, later, a - b) for (earlier, a), (later, b) in pairs])
    moved = [frame for n, frame in enumerate(advected_past(past[:-1], field), 1) if n in ago]  # the newest first
    *earlier, newest = (_image(*grey, second_width) for grey in (*side_by_side(_grey, moved), greys[-1]))
    steps = ago[-2::-1]
    return field + mean_flow([(image, newest, n) for n, image in zip(steps, earlier, strict=True)])


def _mean_flow(pairs: Sequence[tuple[Image, Image, int]], *, grid: tuple[int, int], smoothing: float) -> np.ndarray:
    """Average the flow of pairs of images (earlier, later, number of frames between them).

    returns: (2, y, x) cells per frame
    """
    trust = _resized(_trust([known for *images, _ in pairs for _, known in images], grid), _coarse(grid))
    moved, weight = np.zeros((*trust.shape, 2), np.float32), np.zeros_like(trust)
    both_ways = [way for (earlier, _), (later, _), _ in pairs for way in ((earlier, later), (later, earlier))]
    flows = side_by_side(partial(_flow, grid=grid), both_ways)
    for (earlier, _), (later, _), steps in pairs:
        forward, back = next(flows), next(flows)
        rain = _resized(((earlier > 0) | (later > 0)).astype(np.float32), trust.shape)
        pair_weight = trust * _agreement(forward, back) * rain
        moved += pair_weight[..., None] * forward
        weight += steps * pair_weight
    sigma = smoothing / COARSE
    field = cv2.resize(_continued(_smoothed(moved, sigma), _smoothed(weight, sigma)), grid[::-1])
    return np.ascontiguousarray(np.moveaxis(field[..., ::-1], -1, 0))  # OpenCV puts x first


def _coarse(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of a grid (y, x) in cells that are COARSE times as wide."""
    return -(-grid[0] // COARSE), -(-grid[1] // COARSE)


def _resized(field: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Average a field to a coarser grid."""
    return cv2.resize(field, grid[::-1], interpolation=cv2.INTER_AREA)


def _trust(known: Sequence[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Return the weight (y, x) of the flow: 1, and EDGE_TRUST near cells that are missing in any of the fields."""
    missing = (~np.logical_and.reduce([np.ones(grid, bool), *known])).astype(np.uint8)
    margin = np.ones((2 * MISSING_MARGIN + 1, 2 * MISSING_MARGIN + 1), np.uint8)
    near = cv2.dilate(missing, margin, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.where(near > 0, np.float32(EDGE_TRUST), np.float32(1))


def _grey(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothed logarithm (y, x) of a field (y, x) mm/h, 0 to 255, and where the smoothed field is known."""
    known = ~np.isnan(field)
    grey = np.clip(field, RAIN_FLOOR, RAIN_CEILING)
    grey /= np.float32(RAIN_FLOOR)
    np.log(grey, out=grey)
    grey *= np.float32(255 / np.log(RAIN_CEILING / RAIN_FLOOR))
    if known.all():
        return np.clip(_smoothed(grey, IMAGE_SIGMA), 0, 255), known
    grey = _smoothed(np.where(known, grey, np.float32(0)), IMAGE_SIGMA)
    fraction = _smoothed(known.astype(np.float32), IMAGE_SIGMA)
    grey /= np.maximum(fraction, 0.5)
    return np.clip(grey, 0, 255, out=grey), fraction >= 0.5


def _image(grey: np.ndarray, known: np.ndarray, cell: float) -> Image:
    """Return the image of a field as `_grey` gives it, in pixels of `cell` cells, and where the field is known."""
    cell = cell if min(grey.shape) >= NARROW * cell else 1
    return _resized(grey, tuple(math.ceil(cells / cell) for cells in grey.shape)).astype(np.uint8), known


def _smoothed(field: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _flow(images: tuple[np.ndarray, np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    """Compute the flow from the first to the second image of a grid (y, x).

    returns: (y, x, 2) on the grid of `_coarse`, in cells of `grid`, x first
    """
    ny, nx = images[0].shape
    least = PATCH << SCALE  # DIS refuses much smaller images
    fill = (0, max(0, least - ny), 0, max(0, least - nx), cv2.BORDER_REPLICATE)
    flow = _finder().calc(*(cv2.copyMakeBorder(image, *fill) for image in images), None)[:ny, :nx]
    return _resized(flow, _coarse(grid)) * np.float32([grid[1] / nx, grid[0] / ny])


def _agreement(forward: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return the agreement (y, x) of two flows on the coarse grid, 0 to 1: 1 where the backward flow inverts the forward."""
    rows, columns = np.indices(forward.shape[:2], dtype=np.float32)
    places = (columns + forward[..., 0] / COARSE, rows + forward[..., 1] / COARSE)
    difference = forward + cv2.remap(back, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return 1 / (1 + (difference**2).sum(-1) / DISAGREEMENT**2)


def _finder() -> cv2.DISOpticalFlow:
    """Return a new DIS estimator. Each is used once: on small images DIS changes its own scale and patch size permanently."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setPatchSize(PATCH)
    finder.setPatchStride(PATCH_STRIDE)
    finder.setFinestScale(SCALE)
    finder.setVariationalRefinementIterations(0)  # it sharpens edges, which are smoothed afterwards anyway
    return finder


def _continued(moved: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return moved / weight where the weight is large; where it is small, averages over increasingly large areas."""
    if min(weight.shape) <= 2:
        mean = moved.mean((0, 1)) / max(float(weight.mean()), 1e-6)
        return np.broadcast_to(mean, moved.shape).astype(np.float32)
    coarser = _continued(cv2.pyrDown(moved), cv2.pyrDown(weight))
    coarser = cv2.pyrUp(coarser, dstsize=weight.shape[::-1])
    return (moved + COARSER_WEIGHT * coarser) / (weight + COARSER_WEIGHT)[..., None]


def trace(motion: np.ndarray, num_steps: int, *, forward: bool = False, cells: Cells = ALL) -> Iterator[Places]:
    """Trace the air of each cell (midpoint rule); yield its position 1, 2, … num_steps frames ago, or ahead with `forward`.

    motion: (2, y, x) cells per frame
    yields: columns and rows, (y, x) each
    """
    sign = np.float32(1 if forward else -1)
    rows, columns = (places[cells] for places in np.indices(motion.shape[1:], dtype=np.float32))
    flow = sign * np.dstack([motion[1], motion[0]]).astype(np.float32)
    step = flow[cells]
    for number in range(num_steps):
        for _ in range(
            1 if number else 2
        ):  # later steps begin with the step before, which makes a second iteration unnecessary
            midpoint = (columns + step[..., 0] / 2, rows + step[..., 1] / 2)
            step = cv2.remap(flow, *midpoint, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        columns, rows = columns + step[..., 0], rows + step[..., 1]
        yield columns, rows


def read_at(field: np.ndarray, places: Places) -> np.ndarray:
    """Interpolate a field (y, x) bilinearly; NaN where less than half of the weight is on known cells inside the grid."""
    known = ~np.isnan(field)
    values = np.dstack([np.where(known, field, 0), known]).astype(np.float32)
    read = cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    value, fraction = read[..., 0], read[..., 1]
    return np.where(fraction >= 0.5, value / np.maximum(fraction, 0.5), np.float32(np.nan))


def advected_past(past: np.ndarray, motion: np.ndarray, cells: Cells = ALL) -> Iterator[np.ndarray]:
    """Advect the frames of `past` (time, y, x) to one time step after its newest; yield them (y, x), the newest first."""
    return side_by_side(lambda one: read_at(*one), zip(past[::-1], trace(motion, len(past), cells=cells), strict=True))


def semi_lagrangian(field: np.ndarray, motion: np.ndarray, num_leads: int) -> np.ndarray:
    """Advect a field along a steady motion for 1, 2, … num_leads frames.

        field: (y, x)
        motion: (2, y, x) cells per frame
        returns: (lead, y, x) float32, NaN where `read_at` gives NaN

    Backward scheme: the origin of each cell is traced, and the field is interpolated there once.
    """
    return np.stack(list(side_by_side(partial(read_at, field), trace(motion, num_leads))))


MARGIN = 48  # cells around a crop from which its motion is estimated too, almost as well as from the whole grid


def past_to_lagrangian(past: np.ndarray, flow: np.ndarray, cells: Cells = ALL) -> np.ndarray:
    """Convert past frames to Lagrangian coordinates, by bilinear interpolation; the newest frame stays as it is.

    past: (time, y, x)
    flow: motion (2, y, x), cells per frame
    cells: the part of the grid to return
    returns: (time, y, x) of that part
    """
    before = list(advected_past(past[:-1], flow, cells))
    return np.stack([*before[::-1], past[-1][cells]])


def future_places(flow: np.ndarray, num_leads: int, cells: Cells = ALL) -> Iterator[Places]:
    """Yield, lead by lead, where the air of these cells will be; it may lie outside the grid.

    flow: (2, y, x) cells per frame
    yields: columns and rows, (y, x) each
    """
    return trace(flow, num_leads, forward=True, cells=cells)


def read_nearest(frame: np.ndarray, places: Places) -> np.ndarray:
    """Read a frame (y, x) at the nearest cells, without interpolation; NaN outside the grid."""
    return cv2.remap(frame, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))


def from_lagrangian(fields: np.ndarray, flow: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Convert fields of leads 1, 2, … from Lagrangian coordinates to those of the grid; NaN for air from outside the grid.

    fields: (lead, ..., y, x)
    flow: motion (2, y, x), cells per frame
    out: the array to write to, which may be `fields` itself
    returns: (lead, ..., y, x)
    """
    out = np.empty_like(fields, dtype=np.float32) if out is None else out

    def carry(lead: tuple[np.ndarray, np.ndarray, Places]) -> None:
        field, target, places = lead
        for index in np.ndindex(field.shape[:-2]):
            target[index] = read_at(field[index], places)

    for _ in side_by_side(carry, zip(fields, out, trace(flow, len(fields)), strict=True)):
        pass
    return out
