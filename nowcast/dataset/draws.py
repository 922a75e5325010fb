"""Draw windows and crops of them, by their rain or with equal chances."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nowcast.dataset.packed import BLOCK, PackedFrames
from nowcast.dataset.windows import Windows

# fraction of draws that are uniform, independent of the rain, so that networks also learn from dry weather
UNIFORM_SHARE = 0.1
Case = tuple[int, int, int, int]  # series, window, top row, left column
Box = tuple[int, int, int, int]  # top, left, bottom and right of a part of a grid


@dataclass(frozen=True)
class Series:
    """The packed frames of one record, its windows in one split, and the times (time,) of its frames."""

    name: str
    frames: PackedFrames
    windows: Windows
    times: np.ndarray | None = None


@dataclass
class Weights:
    """Probabilities of drawing each window, and each corner of a crop in it, which grow with the rain in some of its frames.

    The rain of a window is the mean of 1 - exp(-r / 1 mm/h) over its future frames, or with `by_past` over its past frames:
    draws that depend on the future would bias a network that forecasts probabilities towards rain. The probability of one
    of n windows is UNIFORM_SHARE / n + (1 - UNIFORM_SHARE) × its fraction of all rain. The corner of a crop is drawn in the
    same way among the corners of blocks, and then moved by up to half a block.
    """

    series: Sequence[Series]
    crop: int
    by_past: bool = False
    cumulative: np.ndarray = field(init=False)
    index: np.ndarray = field(init=False)  # (window of all series, 2): the series, and the window in it

    def __post_init__(self):
        rain, index = [], []
        for number, series in enumerate(self.series):
            frames = self._frames(series)
            # weighted by the area of the grid, since a larger one has room for more crops
            rain.append(series.frames.rain[frames].mean(axis=1) * np.prod(series.frames.shape[1:]))
            index.append(np.stack([np.full(len(frames), number), np.arange(len(frames))], axis=1))
        self.index = np.concatenate(index)
        self.cumulative = np.cumsum(_probabilities(np.concatenate(rain)))

    def _frames(self, series: Series) -> np.ndarray:
        """Return the positions (window, frame) of the frames whose rain counts."""
        windows = series.windows
        return windows.positions[:, : windows.input_frames] if self.by_past else windows.positions[:, windows.input_frames :]

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a case: (series, window, top row, left column)."""
        chosen = min(np.searchsorted(self.cumulative, rng.random(), side="right"), len(self.index) - 1)
        number, window = (int(value) for value in self.index[chosen])
        return number, window, *self.corner(number, window, rng)

    def corner(self, number: int, window: int, rng: np.random.Generator, within: Box | None = None) -> tuple[int, int]:
        """Draw the (top row, left column) of a crop in a window of series `number`, which lies in `within`, or in the grid."""
        series = self.series[number]
        top, left, bottom, right = within or (0, 0, *series.frames.shape[1:])
        if not self.crop or (self.crop >= bottom - top and self.crop >= right - left):
            return top, left
        rain = series.frames.rain_blocks()[self._frames(series)[window]].mean(axis=0, dtype=np.float64)
        size = max(self.crop // BLOCK, 1)
        height, width = (min(size, count) for count in rain.shape)
        limits = ((top, max(bottom - self.crop, top)), (left, max(right - self.crop, left)))
        rows = _blocks(*limits[0], rain.shape[0] - height + 1)
        columns = _blocks(*limits[1], rain.shape[1] - width + 1)
        # of these blocks alone: rounding errors of sums over rain beside them would decide where they are dry
        rain = rain[rows.start : rows.stop + height - 1, columns.start : columns.stop + width - 1]
        boxes = _box_sums(rain, height, width)
        chosen = np.searchsorted(np.cumsum(_probabilities(boxes.ravel())), rng.random(), side="right")
        blocks = divmod(min(int(chosen), boxes.size - 1), boxes.shape[1])
        shift = rng.integers(-BLOCK // 2, BLOCK // 2 + 1, size=2).tolist()
        return tuple(
            min(max((first.start + block) * BLOCK + moved, least), most)
            for first, block, moved, (least, most) in zip((rows, columns), blocks, shift, limits, strict=True)
        )


def _blocks(least: int, most: int, number: int) -> slice:
    """Return the blocks, of `number`, at which crops that start from cell `least` to cell `most` may be drawn; at least one."""
    last = min(-(-most // BLOCK), number - 1)
    return slice(min(least // BLOCK, last), last + 1)


def _probabilities(rain: np.ndarray) -> np.ndarray:
    total = rain.sum()
    share = UNIFORM_SHARE if total > 0 else 1.0
    return share / rain.size + (1 - share) * rain / (total or 1.0)


def _box_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sum values (y, x) over all boxes of height × width cells that lie within them."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return boxes.clip(min=0)  # rounding errors of the differences can be negative


def uniform_corner(shape: Sequence[int], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the (top row, left column) of a crop, with equal chance for all crops that lie within the grid."""
    if not crop:
        return 0, 0
    return tuple(int(rng.integers(max(cells - crop, 0) + 1)) for cells in shape)
