"""Windows -> batches: random crops, weighted by rain, flipped and turned.

Batch k is a pure function of (seed, k): the same whatever the number of workers, and after a resume. A batch is mm/h with
NaN for missing, (case, time, y, x) for the past and for the future; where a crop reaches over a grid's edge it is missing.
"""

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, from_numpy
from torch.utils.data import DataLoader, Dataset

from nowcast.cache import BLOCK, PackedFrames
from nowcast.errors import LoadingError
from nowcast.windows import Windows

# Every window keeps this share of the chance that a uniform draw would give it: dry weather must be seen as well.
UNIFORM_SHARE = 0.1
WORKER_TIMEOUT = 45  # s: a batch takes milliseconds, and a job that hangs should end within a minute
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
        share: tuple[int, int] = (0, 1),
    ):
        self.share = share
        self.series = [part for part in series if len(part.windows)]
        assert self.series, "no windows to draw from"
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.sampler, self.augmentation = sampler, frozenset(augmentation)
        self._frames: dict[int, Tensor] = {}
        self._epoch_order = (-1, np.zeros(0, int))

    def __getstate__(self) -> dict:
        # memory maps are opened by each worker for itself
        return {key: value for key, value in self.__dict__.items() if key != "weights"} | {"_frames": {}}

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
            window = _turn(self._read(*case), *orientation)
            num_past = self.series[case[0]].windows.input_frames
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
        if number not in self._frames:
            self._frames[number] = _tensor(self.series[number].frames.frames())
        frames, positions = self._frames[number], self.series[number].windows.positions[window]
        if self.crop:
            frames = frames[:, top : top + self.crop, left : left + self.crop]
        first, stop = int(positions[0]), int(positions[-1]) + 1
        cut = frames[first:stop] if stop - first == len(positions) else frames[from_numpy(positions)]
        if not self.crop or cut.shape[1:] == (self.crop, self.crop):
            return cut
        out = torch.full((len(cut), self.crop, self.crop), torch.nan, dtype=cut.dtype)
        out[:, : cut.shape[1], : cut.shape[2]] = cut
        return out

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
            per_frame = np.asarray(part.frames.rain_blocks()).mean(axis=(1, 2), dtype=np.float64)
            future = part.windows.positions[:, part.windows.input_frames :]
            # a large grid offers more places to crop: weight it by its area
            rain.append(per_frame[future].mean(axis=1) * np.prod(part.frames.shape[1:]))
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


def load(batches: Batches, start: int, stop: int, *, workers: int) -> Iterator[Batch]:
    """Batches `start` to `stop` - 1 in order, read ahead by `workers` processes (0: in this one).

    Asking for a batch raises LoadingError (exit 75) when a worker died, or gave nothing for WORKER_TIMEOUT seconds.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        timeout=WORKER_TIMEOUT if workers else 0,
    )
    return _from_workers(loader) if workers else iter(loader)


def _from_workers(loader: DataLoader) -> Iterator[Batch]:
    batches = iter(loader)
    _DEATHS.take_over()
    while True:
        try:
            with _DEATHS.told():
                batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # the last two: it died while it handed over a batch
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader"):  # our own, in a worker
                raise
            raise LoadingError(_explain(error)) from None
        if batch is None:
            return
        yield batch


class _Deaths:
    """torch raises in the main thread the moment a worker dies, be it between two halves of an update or of a save.

    With this, only while a batch is asked for: a death at another time is told the next time.
    """

    def __init__(self):
        self.torchs: Callable | None = None
        self.happened = False

    def take_over(self) -> None:
        """In place of torch's handler, which the first loader of a process installs, once."""
        self.happened = False
        current = signal.getsignal(signal.SIGCHLD)
        if callable(current) and current != self.note and threading.current_thread() is threading.main_thread():
            self.torchs = current
            signal.signal(signal.SIGCHLD, self.note)

    def note(self, *_) -> None:
        self.happened = True

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Inside the block torch raises RuntimeError, also for what happened before."""
        if self.torchs is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGCHLD, self.torchs)
        try:
            if self.happened:
                self.torchs(signal.SIGCHLD, None)
            yield
        finally:
            signal.signal(signal.SIGCHLD, self.note)


_DEATHS = _Deaths()


def _explain(error: Exception) -> str:
    # where the death interrupted the waiting, torch says how the worker died in the error before
    told = str(error.__cause__ if isinstance(error.__cause__, RuntimeError) else error) or type(error).__name__
    reason = told.splitlines()[0].rstrip(". ")
    hint = "too little memory?" if "Killed" in reason else "is the disk of the cache slow or gone?"
    return f"a process that reads training data failed ({reason}; {hint})"
