"""Draw batches of windows: random crops, weighted by their rain, flipped and transposed at random.

Batch k depends on the seed and on k alone: it is the same for any number of worker processes, and after a resume. Fields are
in mm/h with NaN for missing. The cells of a crop beyond the edge of the grid are missing. In Lagrangian coordinates
the cells of a crop follow the motion of the rain that is in it at the reference time.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from nowcast.dataset.packed import BLOCK, PackedFrames
from nowcast.dataset.windows import Windows
from nowcast.motion import MARGIN, future_places, motion, past_to_lagrangian, read_nearest

# Fraction of the draws that are uniform, whatever the rain, so that networks also learn from dry weather.
UNIFORM_SHARE = 0.1
_EPOCHS = 1 << 40  # in place of a batch number, seeds the order of windows in an epoch; larger than any batch number


@dataclass(frozen=True)
class Series:
    """The packed frames of one record, and its windows in one split."""

    name: str
    frames: PackedFrames
    windows: Windows


@dataclass(frozen=True)
class Batch:
    """Past and future frames of several cases.

    past: (case, input_frames, y, x) float32 mm/h, NaN missing
    future: (case, lead_frames, y, x) float32 mm/h, NaN missing
    cases: (series, window, top row, left column) of each case
    """

    past: Tensor
    future: Tensor
    cases: tuple[tuple[int, int, int, int], ...]

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory, from which a GPU can copy it in the background. Called by the DataLoader."""
        return Batch(self.past.pin_memory(), self.future.pin_memory(), self.cases)

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device, without waiting for the copy from pinned memory to a GPU."""
        past, future = (frames.to(device, non_blocking=True) for frames in (self.past, self.future))
        return Batch(past, future, self.cases)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: a batch is read by many tiny operations, which are ten times slower if they must wait for
    a second thread on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


class Batches(Dataset):
    """All batches of a training or a validation: `batches[k]` reads batch k.

    crop: side of the crops in cells; 0 for whole frames, which must then all have the same shape.
    sampler: "rain" draws windows and crops in proportion to their rain; "uniform" draws all with the same chance; "each"
    takes every window once per epoch, in a new random order.
    augmentation: "flips" (along y and x) and "rotations" (exchange y and x), each applied to a case by chance.
    coordinates: "grid" or "lagrangian".
    share: (rank r, number n of processes); the process reads cases r, r + n, r + 2 n, … of each batch.
    """

    def __init__(
        self,
        series: Sequence[Series],
        *,
        batch_size: int,
        crop: int,
        seed: int,
        sampler: str = "uniform",
        augmentation: Sequence[str] = (),
        coordinates: str = "grid",
        share: tuple[int, int] = (0, 1),
    ):
        self.share, self.lagrangian = share, coordinates == "lagrangian"
        if self.lagrangian:
            cv2.setNumThreads(1)  # before workers are forked: OpenCV's threads would not exist in them
        self.series = [one for one in series if len(one.windows)]
        assert self.series, "no windows to draw from"
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.sampler, self.augmentation = sampler, frozenset(augmentation)
        self._frames: dict[int, Tensor] = {}
        self._epoch_order = (-1, np.zeros(0, int))

    def __getstate__(self) -> dict:
        # Each worker opens the memory maps, and computes the weights, for itself.
        return {key: value for key, value in self.__dict__.items() if key != "weights"} | {"_frames": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.lagrangian:  # in a worker that is spawned
            cv2.setNumThreads(1)

    @cached_property
    def num_windows(self) -> int:
        return sum(len(one.windows) for one in self.series)

    @cached_property
    def weights(self) -> "Weights":
        return Weights(self.series, self.crop)

    @_one_thread()
    def __getitem__(self, k: int) -> Batch:
        rng = np.random.default_rng([self.seed, k])
        cases, pasts, futures = [], [], []
        for number in range(self.batch_size):
            case = self._draw(rng, k * self.batch_size + number)
            orientation = self._orientation(case, rng)
            if number % self.share[1] != self.share[0]:
                continue
            num_past = self.series[case[0]].windows.input_frames
            frames = self._read_lagrangian(*case, num_past) if self.lagrangian else self._read(*case)
            frames = _orient(frames, *orientation)
            cases.append(case)
            pasts.append(frames[:num_past])
            futures.append(frames[num_past:])
        return Batch(_stack_float32(pasts), _stack_float32(futures), tuple(cases))

    def describe_case(self, case: tuple[int, int, int, int]) -> str:
        """Describe a case for a message, for example `2015_event at frame 17, rows from 32, columns from 64`."""
        index, window, top, left = case
        windows = self.series[index].windows
        frame = windows.reference_positions[window]
        return f"{self.series[index].name} at frame {frame}, rows from {top}, columns from {left}"

    def _draw(self, rng: np.random.Generator, number: int) -> tuple[int, int, int, int]:
        """Draw the series, window and crop of a case. `number`: of the case since the start of the training."""
        if self.sampler == "rain":
            return self.weights.draw(rng)
        if self.sampler == "each":
            epoch, place = divmod(number, self.num_windows)
            index = int(self._order_of_epoch(epoch)[place])
        else:
            index = int(rng.integers(self.num_windows))
        series = int(np.searchsorted(self._ends, index, side="right"))
        window = index - int(self._ends[series]) + len(self.series[series].windows)
        return series, window, *uniform_corner(self.series[series].frames.shape[1:], self.crop, rng)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Number of windows up to the end of each series."""
        return np.cumsum([len(one.windows) for one in self.series])

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        if self._epoch_order[0] != epoch:
            order = np.random.default_rng([self.seed, _EPOCHS, epoch]).permutation(self.num_windows)
            self._epoch_order = (epoch, order)
        return self._epoch_order[1]

    def _read(self, index: int, window: int, top: int, left: int) -> Tensor:
        """Read the crop of a window of the series `index`: (time, y, x) float16, if possible a view of the packed frames."""
        positions = self.series[index].windows.positions[window]
        return self._pad_to_crop(self._read_box(index, positions, *self._box(index, top, left)))

    def _read_lagrangian(self, index: int, window: int, top: int, left: int, num_past: int) -> Tensor:
        """Read like `_read`, in Lagrangian coordinates. The motion is found in the crop and MARGIN cells around it."""
        positions = self.series[index].windows.positions[window]
        box = self._box(index, top, left, margin=MARGIN)
        past = self._read_box(index, positions[:num_past], *box).float().numpy()
        flow = motion(past)
        crop = tuple(slice(start - first, start - first + self.crop) if self.crop else slice(None)
                     for start, first in zip((top, left), box[:2], strict=True))  # fmt: skip
        frames = [*past_to_lagrangian(past, flow, crop)]
        future = positions[num_past:]
        for position, (columns, rows) in zip(future, future_places(flow, len(future), crop), strict=True):
            frame = self._read_places(index, position, columns + box[1], rows + box[0])
            # A cell that is missing in the newest past frame gets no forecast, so it is not learnt either.
            frames.append(np.where(np.isnan(frames[num_past - 1]), np.nan, frame))
        return self._pad_to_crop(from_numpy(np.stack(frames)).half())

    def _read_places(self, index: int, position: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read one frame at the given places of its grid (y, x), NaN outside of it."""
        shape = self.series[index].frames.shape[1:]
        first = [min(max(int(places.min()), 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        last = [min(max(int(places.max()) + 2, 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        if first[0] >= last[0] or first[1] >= last[1]:
            return np.full(rows.shape, np.nan, np.float32)
        frame = self._read_box(index, np.array([position]), *first, *last)[0].float().numpy()
        return read_nearest(frame, (columns - first[1], rows - first[0]))

    def _pad_to_crop(self, frames: Tensor) -> Tensor:
        """Pad frames (time, y, x) at the bottom and right to the size of a crop, with NaN."""
        if not self.crop or frames.shape[1:] == (self.crop, self.crop):
            return frames
        out = torch.full((len(frames), self.crop, self.crop), torch.nan, dtype=frames.dtype)
        out[:, : frames.shape[1], : frames.shape[2]] = frames
        return out

    def _box(self, index: int, top: int, left: int, *, margin: int = 0) -> tuple[int, int, int, int]:
        """Return the top, left, bottom and right of a crop with a margin around it, cut off at the edges of the grid."""
        shape = self.series[index].frames.shape[1:]
        if not self.crop:
            return 0, 0, *shape
        ends = (min(start + self.crop + margin, size) for start, size in zip((top, left), shape, strict=True))
        return max(top - margin, 0), max(left - margin, 0), *ends

    def _read_box(self, index: int, positions: np.ndarray, top: int, left: int, bottom: int, right: int) -> Tensor:
        """Read a box of the frames at `positions`: (time, y, x) float16."""
        packed = self.series[index].frames
        if packed.in_tiles:
            return from_numpy(packed.tiles.cut(positions, top, left, bottom, right))
        if index not in self._frames:
            self._frames[index] = _as_tensor(packed.frames())
        frames = self._frames[index][:, top:bottom, left:right]
        first, stop = int(positions[0]), int(positions[-1]) + 1
        return frames[first:stop] if stop - first == len(positions) else frames[from_numpy(positions)]

    def _orientation(self, case: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int, bool]:
        """Draw the directions along y and x (-1: flipped), and whether y and x are exchanged."""
        y, x = (rng.choice((1, -1)), rng.choice((1, -1))) if "flips" in self.augmentation else (1, 1)
        height, width = self.series[case[0]].frames.shape[1:]
        square = bool(self.crop) or height == width
        return y, x, "rotations" in self.augmentation and square and rng.random() < 0.5


def _orient(frames: Tensor, y: int, x: int, exchanged: bool) -> Tensor:
    bits = frames.view(torch.int16)  # torch flips integers several times faster than float16
    dims = [dim for dim, direction in ((1, y), (2, x)) if direction < 0]
    bits = bits.flip(dims) if dims else bits
    return (bits.transpose(1, 2).contiguous() if exchanged else bits).view(torch.float16)


def _as_tensor(frames: np.ndarray) -> Tensor:
    """Return a tensor on a read-only memory map; nothing may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return from_numpy(frames)


def _stack_float32(cases: Sequence[Tensor]) -> Tensor:
    """Stack float16 tensors into one of float32.

    torch converts, as NumPy takes 20 times as long. NumPy allocates, as it asks for huge pages: to allocate a large batch by
    torch takes longer than to fill it.
    """
    out = from_numpy(np.empty((len(cases), *cases[0].shape), np.float32))
    for target, case in zip(out, cases, strict=True):
        target.copy_(case)
    return out


@dataclass
class Weights:
    """Probabilities of drawing each window, and each corner of a crop in it, which grow with the rain in the future frames.

    The rain of a window is the mean of 1 - exp(-r / 1 mm/h) over its future frames. The probability of one of n windows is
    UNIFORM_SHARE / n, plus 1 - UNIFORM_SHARE times its share of the rain of all. The corner of a crop is drawn likewise
    among the corners of blocks, and then moved by up to half a block.
    """

    series: Sequence[Series]
    crop: int
    cumulative: np.ndarray = field(init=False)
    index: np.ndarray = field(init=False)  # (window of all series, 2): the series, and the window in it

    def __post_init__(self):
        rain, index = [], []
        for number, series in enumerate(self.series):
            future = series.windows.positions[:, series.windows.input_frames :]
            # weighted by the area of the grid, since a larger one has room for more crops
            rain.append(series.frames.rain[future].mean(axis=1) * np.prod(series.frames.shape[1:]))
            index.append(np.stack([np.full(len(future), number), np.arange(len(future))], axis=1))
        self.index = np.concatenate(index)
        self.cumulative = np.cumsum(_probabilities(np.concatenate(rain)))

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a case: (series, window, top row, left column)."""
        chosen = min(np.searchsorted(self.cumulative, rng.random(), side="right"), len(self.index) - 1)
        number, window = (int(value) for value in self.index[chosen])
        return number, window, *self._corner(self.series[number], window, rng)

    def _corner(self, series: Series, window: int, rng: np.random.Generator) -> tuple[int, int]:
        shape = series.frames.shape[1:]
        if not self.crop or (self.crop >= shape[0] and self.crop >= shape[1]):
            return 0, 0
        future = series.windows.positions[window, series.windows.input_frames :]
        rain = series.frames.rain_blocks()[future].mean(axis=0, dtype=np.float64)
        size = max(self.crop // BLOCK, 1)
        boxes = _box_sums(rain, min(size, rain.shape[0]), min(size, rain.shape[1]))
        chosen = np.searchsorted(np.cumsum(_probabilities(boxes.ravel())), rng.random(), side="right")
        row, column = divmod(min(int(chosen), boxes.size - 1), boxes.shape[1])
        shift = rng.integers(-BLOCK // 2, BLOCK // 2 + 1, size=2).tolist()
        return tuple(
            min(max(block * BLOCK + moved, 0), max(cells - self.crop, 0))
            for block, moved, cells in zip((row, column), shift, shape, strict=True)
        )


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
