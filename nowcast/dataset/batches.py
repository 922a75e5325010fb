"""Windows -> batches: random crops, weighted by rain, flipped and turned.

Batch k is a pure function of (seed, k): the same whatever the number of workers, and after a resume. A batch is mm/h with
NaN for missing, (case, time, y, x) for the past and for the future; where a crop reaches over a grid's edge it is missing.
In Lagrangian coordinates a crop is what moves with the rain that is in it at the reference time.
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

# Every window keeps this share of the chance that a uniform draw would give it: dry weather must be seen as well.
UNIFORM_SHARE = 0.1
_EPOCHS = 1 << 40  # no batch has this number: the orders of epochs are drawn apart from the batches


@dataclass(frozen=True)
class Series:
    """The windows of one packed record that belong to one split."""

    name: str
    frames: PackedFrames
    windows: Windows


@dataclass(frozen=True)
class Batch:
    """float32 mm/h, NaN missing: past (case, input_frames, y, x), future (case, lead_frames, y, x)."""

    past: Tensor
    future: Tensor
    cases: tuple[tuple[int, int, int, int], ...]  # (series, window, top row, left column) of each case

    def pin_memory(self) -> "Batch":
        """In memory that a GPU reads by itself; the DataLoader calls this."""
        return Batch(self.past.pin_memory(), self.future.pin_memory(), self.cases)

    def to(self, device: torch.device) -> "Batch":
        """On that device; from pinned memory the host does not wait for the copy."""
        past, future = (part.to(device, non_blocking=True) for part in (self.past, self.future))
        return Batch(past, future, self.cases)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Reading is so many so short operations that on a busy machine waiting for a second thread takes ten times as long."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


class Batches(Dataset):
    """`self[k]` is batch k. `crop = 0` takes whole frames, which must then all be of one grid.

    sampler: "rain" draws windows and crops by their rain, "uniform" draws all alike, "each" takes every window once before
    any comes again, in an order of its own in each epoch. `share = (n, m)` keeps of each batch the n-th of every m cases.
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
            cv2.setNumThreads(1)  # before workers are forked, in which threads of this process would not be
        self.series = [part for part in series if len(part.windows)]
        assert self.series, "no windows to draw from"
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.sampler, self.augmentation = sampler, frozenset(augmentation)
        self._frames: dict[int, Tensor] = {}
        self._epoch_order = (-1, np.zeros(0, int))

    def __getstate__(self) -> dict:
        # memory maps are opened by each worker for itself
        return {key: value for key, value in self.__dict__.items() if key != "weights"} | {"_frames": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.lagrangian:  # in a worker that is not forked
            cv2.setNumThreads(1)

    @cached_property
    def num_windows(self) -> int:
        return sum(len(part.windows) for part in self.series)

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
            window = _turn(self._moving(*case, num_past) if self.lagrangian else self._read(*case), *orientation)
            cases.append(case)
            pasts.append(window[:num_past])
            futures.append(window[num_past:])
        return Batch(_float32(pasts), _float32(futures), tuple(cases))

    def describe_case(self, case: tuple[int, int, int, int]) -> str:
        """For example `2015_event at frame 17, rows from 32, columns from 64`."""
        number, window, top, left = case
        windows = self.series[number].windows
        frame = windows.reference_positions[window]
        return f"{self.series[number].name} at frame {frame}, rows from {top}, columns from {left}"

    def _draw(self, rng: np.random.Generator, number: int) -> tuple[int, int, int, int]:
        if self.sampler == "rain":
            return self.weights.draw(rng)
        if self.sampler == "each":
            epoch, place = divmod(number, self.num_windows)
            index = int(self._order(epoch)[place])
        else:
            index = int(rng.integers(self.num_windows))
        series = int(np.searchsorted(self._ends, index, side="right"))
        window = index - int(self._ends[series]) + len(self.series[series].windows)
        return series, window, *uniform_corner(self.series[series].frames.shape[1:], self.crop, rng)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part.windows) for part in self.series])

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch_order[0] != epoch:
            order = np.random.default_rng([self.seed, _EPOCHS, epoch]).permutation(self.num_windows)
            self._epoch_order = (epoch, order)
        return self._epoch_order[1]

    def _read(self, number: int, window: int, top: int, left: int) -> Tensor:
        """float16 (time, y, x): a view of the packed frames where it can be one."""
        positions = self.series[number].windows.positions[window]
        return self._filled(self._cut(number, positions, *self._box(number, top, left)))

    def _moving(self, number: int, window: int, top: int, left: int, num_past: int) -> Tensor:
        """As `_read`, in Lagrangian coordinates: the motion is that of the crop and MARGIN cells around it."""
        positions = self.series[number].windows.positions[window]
        box = self._box(number, top, left, margin=MARGIN)
        past = self._cut(number, positions[:num_past], *box).float().numpy()
        flow = motion(past)
        crop = tuple(slice(start - first, start - first + self.crop) if self.crop else slice(None)
                     for start, first in zip((top, left), box[:2], strict=True))  # fmt: skip
        frames = [*past_to_lagrangian(past, flow, crop)]
        future = positions[num_past:]
        for position, (columns, rows) in zip(future, future_places(flow, len(future), crop), strict=True):
            frame = self._read_along(number, position, columns + box[1], rows + box[0])
            frames.append(np.where(np.isnan(frames[num_past - 1]), np.nan, frame))  # what is not forecast is not learnt
        return self._filled(from_numpy(np.stack(frames)).half())

    def _read_along(self, number: int, position: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(y, x) of one frame at these places of the grid, NaN outside; what is read of it is the box around them."""
        shape = self.series[number].frames.shape[1:]
        first = [min(max(int(places.min()), 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        last = [min(max(int(places.max()) + 2, 0), size) for places, size in zip((rows, columns), shape, strict=True)]
        if first[0] >= last[0] or first[1] >= last[1]:
            return np.full(rows.shape, np.nan, np.float32)
        frame = self._cut(number, np.array([position]), *first, *last)[0].float().numpy()
        return read_nearest(frame, (columns - first[1], rows - first[0]))

    def _filled(self, cut: Tensor) -> Tensor:
        """A crop of full size, missing where it is not in the grid."""
        if not self.crop or cut.shape[1:] == (self.crop, self.crop):
            return cut
        out = torch.full((len(cut), self.crop, self.crop), torch.nan, dtype=cut.dtype)
        out[:, : cut.shape[1], : cut.shape[2]] = cut
        return out

    def _box(self, number: int, top: int, left: int, *, margin: int = 0) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of what lies in the grid of the crop and a margin around it."""
        shape = self.series[number].frames.shape[1:]
        if not self.crop:
            return 0, 0, *shape
        ends = (min(start + self.crop + margin, size) for start, size in zip((top, left), shape, strict=True))
        return max(top - margin, 0), max(left - margin, 0), *ends

    def _cut(self, number: int, positions: np.ndarray, top: int, left: int, bottom: int, right: int) -> Tensor:
        packed = self.series[number].frames
        if packed.in_tiles:
            return from_numpy(packed.tiles.cut(positions, top, left, bottom, right))
        if number not in self._frames:
            self._frames[number] = _tensor(packed.frames())
        frames = self._frames[number][:, top:bottom, left:right]
        first, stop = int(positions[0]), int(positions[-1]) + 1
        return frames[first:stop] if stop - first == len(positions) else frames[from_numpy(positions)]

    def _orientation(self, case: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int, bool]:
        """Steps along y and x, and whether the two change places."""
        y, x = (rng.choice((1, -1)), rng.choice((1, -1))) if "flips" in self.augmentation else (1, 1)
        height, width = self.series[case[0]].frames.shape[1:]
        square = bool(self.crop) or height == width
        return y, x, "rotations" in self.augmentation and square and rng.random() < 0.5


def _turn(window: Tensor, y: int, x: int, swapped: bool) -> Tensor:
    bits = window.view(torch.int16)  # torch turns whole numbers several times as fast as halves
    dims = [dim for dim, step in ((1, y), (2, x)) if step < 0]
    bits = bits.flip(dims) if dims else bits
    return (bits.transpose(1, 2).contiguous() if swapped else bits).view(torch.float16)


def _tensor(frames: np.ndarray) -> Tensor:
    """A tensor over a read-only memory map. Nothing may write into it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return from_numpy(frames)


def _float32(windows: Sequence[Tensor]) -> Tensor:
    """One tensor of float16 windows, each converted on its way into it: numpy's conversion takes 20 times as long.

    The memory is numpy's, which asks for huge pages: torch's own costs more to get than a large batch to fill.
    """
    out = from_numpy(np.empty((len(windows), *windows[0].shape), np.float32))
    for place, window in zip(out, windows, strict=True):
        place.copy_(window)
    return out


@dataclass
class Weights:
    """Chances of windows, and within a window of crop corners, in proportion to the rain in them.

    The chance of a window is UNIFORM_SHARE / n plus the rest in proportion to its mean of 1 - exp(-r) over its future
    frames; the corner is chosen the same way among those on the lattice of blocks and then moved within its block.
    """

    series: Sequence[Series]
    crop: int
    cumulative: np.ndarray = field(init=False)
    index: np.ndarray = field(init=False)  # (window of all series, 2): series, window

    def __post_init__(self):
        rain, index = [], []
        for number, part in enumerate(self.series):
            future = part.windows.positions[:, part.windows.input_frames :]
            # a large grid offers more places to crop: weight it by its area
            rain.append(part.frames.rain[future].mean(axis=1) * np.prod(part.frames.shape[1:]))
            index.append(np.stack([np.full(len(future), number), np.arange(len(future))], axis=1))
        self.index = np.concatenate(index)
        self.cumulative = np.cumsum(_chances(np.concatenate(rain)))

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(series, window, top row, left column)"""
        chosen = min(np.searchsorted(self.cumulative, rng.random(), side="right"), len(self.index) - 1)
        number, window = (int(value) for value in self.index[chosen])
        return number, window, *self._corner(self.series[number], window, rng)

    def _corner(self, part: Series, window: int, rng: np.random.Generator) -> tuple[int, int]:
        shape = part.frames.shape[1:]
        if not self.crop or (self.crop >= shape[0] and self.crop >= shape[1]):
            return 0, 0
        future = part.windows.positions[window, part.windows.input_frames :]
        rain = part.frames.rain_blocks()[future].mean(axis=0, dtype=np.float64)
        size = max(self.crop // BLOCK, 1)
        boxes = _box_sums(rain, min(size, rain.shape[0]), min(size, rain.shape[1]))
        chosen = np.searchsorted(np.cumsum(_chances(boxes.ravel())), rng.random(), side="right")
        row, column = divmod(min(int(chosen), boxes.size - 1), boxes.shape[1])
        shift = rng.integers(-BLOCK // 2, BLOCK // 2 + 1, size=2).tolist()
        return tuple(
            min(max(block * BLOCK + moved, 0), max(cells - self.crop, 0))
            for block, moved, cells in zip((row, column), shift, shape, strict=True)
        )


def _chances(rain: np.ndarray) -> np.ndarray:
    total = rain.sum()
    share = UNIFORM_SHARE if total > 0 else 1.0
    return share / rain.size + (1 - share) * rain / (total or 1.0)


def _box_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return boxes.clip(min=0)  # differences of sums can fall a rounding error below 0


def uniform_corner(shape: Sequence[int], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """A crop's (top row, left column), every one that lies within the grid alike."""
    if not crop:
        return 0, 0
    return tuple(int(rng.integers(max(cells - crop, 0) + 1)) for cells in shape)
