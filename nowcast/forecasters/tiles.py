"""Grids that do not fit in memory: forecast in tiles that overlap, and put together without seams.

A tile is a core and a margin around it, on the raster of the model's `tile_multiple`. What a network forecasts at a place
depends on the past within its reach; with a margin of the reach the tiles give what the whole grid gives, to rounding.
A smaller margin gives it about: of a plain encoder–forecaster (patch 4, 4 -> 12 frames, trained, radar of MeteoSwiss and FMI)
the largest difference is .19 of the values at a margin of 4 cells, .03 at 32, 2e-4 at 44 and none at its reach, 68; a trained
network on three scales that reaches 320 cells is off by 4e-5 at 32 and by rounding alone from 48 on.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nowcast.errors import MemoryLimitError
from nowcast.models.model import Model
from nowcast.runtime import distributed
from nowcast.runtime.memory import free_memory, peak_memory, restart_peak

LARGEST_MARGIN = 192  # cells: what comes from further away in an hour is rounding, in all that was measured
BLEND = 8  # cells to either side of a seam over which one tile fades into the next
MOST_BYTES = 4 << 30  # of one forecast on a CPU, where others work too
QUICK_BYTES = 1 << 28  # of a tile: on a CPU larger ones take up to twice the time for each cell, which leave its caches
MOST_MORE = 1.5  # times the cells that large tiles compute
PROBE_SHARE = 8  # memory is measured on a grid of 1/8 of the sides, which takes 1/64 of the time

Run = Callable[[np.ndarray, int], np.ndarray]  # (case, time, y, x), number of leads -> (case, lead, ..., y, x)


@dataclass(frozen=True)
class Span:
    """One axis of a tile: the cells that it reads, those of them that it gives, and with what weight."""

    read: slice
    given: slice
    weight: np.ndarray

    @property
    def core(self) -> slice:
        """Of what it reads, the cells where no other tile has more weight."""
        most = np.flatnonzero(self.weight >= 0.5) + self.given.start - self.read.start
        return slice(int(most[0]), int(most[-1]) + 1)

    def core_from(self, stride: int) -> slice:
        """The core from its first cell on that is one of every so many of the whole axis."""
        return slice(self.core.start + -(self.read.start + self.core.start) % stride, self.core.stop)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a grid: `counts` (y, x) cores, and around each a `margin` that includes the `blend`."""

    shape: tuple[int, int]
    counts: tuple[int, int]
    multiple: int
    margin: int
    blend: int

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return product(*(self._spans(size, count) for size, count in zip(self.shape, self.counts, strict=True)))

    def _spans(self, size: int, count: int) -> list[Span]:
        blocks = -(-size // self.multiple)
        edges = [*(n * blocks // count * self.multiple for n in range(count)), size]
        return [self._span(size, *core) for core in pairwise(edges)]

    def _span(self, size: int, first: int, last: int) -> Span:
        read = slice(max(first - self.margin, 0), min(last + self.margin, size))
        given = slice(max(first - self.blend, 0), min(last + self.blend, size))
        cells = np.arange(given.start, given.stop, dtype=np.float32) + 0.5
        weight, fade = np.ones_like(cells), 2 * self.blend
        if given.start > 0:
            weight = np.minimum(weight, (cells - given.start) / fade)
        if given.stop < size:
            weight = np.minimum(weight, (given.stop - cells) / fade)
        return Span(read, given, weight)

    @property
    def num_cells(self) -> int:
        """How many cells are computed in all."""
        return sum((y.read.stop - y.read.start) * (x.read.stop - x.read.start) for y, x in self)


def choose_tiles(
    shape: tuple[int, int], multiple: int, *, num_bytes: float, per_cell: float, reach: float, device: torch.device
) -> Tiling:
    """Tiles that take at most `num_bytes`; on a CPU small ones, where they have the same margin and compute few cells more."""
    large = plan_tiles(shape, multiple, max_cells=int(num_bytes / per_cell), reach=reach)
    if device.type != "cpu" or num_bytes <= QUICK_BYTES:
        return large
    quick = plan_tiles(shape, multiple, max_cells=int(QUICK_BYTES / per_cell), reach=reach)
    return quick if quick.margin == large.margin and quick.num_cells <= MOST_MORE * large.num_cells else large


def plan_tiles(shape: tuple[int, int], multiple: int, *, max_cells: int, reach: float) -> Tiling:
    """The tiles of at most `max_cells` that compute the fewest cells in all.

    Their margin is the reach, up to LARGEST_MARGIN, or less where tiles are so small that margins would be most of them.
    """
    blend = math.ceil(BLEND / multiple) * multiple
    margin = blend + math.ceil(min(reach, LARGEST_MARGIN) / multiple) * multiple
    while margin > blend:
        if found := _fewest_cells(shape, multiple, max_cells, margin, blend):
            return found
        margin = margin // (2 * multiple) * multiple
    smallest = tuple(max(_counts(size, multiple, 2 * blend)) for size in shape)
    return _fewest_cells(shape, multiple, max_cells, blend, blend) or Tiling(shape, smallest, multiple, blend, blend)


def _fewest_cells(shape: tuple[int, int], multiple: int, max_cells: int, margin: int, blend: int) -> Tiling | None:
    least = max(margin, 2 * blend)  # of a core: blends must not meet, and a larger share of margins is never worth it
    sides = [{n: min(core + 2 * margin, size) for n, core in _counts(size, multiple, least).items()} for size in shape]
    fitting = [(ny * nx * y * x, (ny, nx)) for (ny, y), (nx, x) in product(*(s.items() for s in sides)) if y * x <= max_cells]
    return Tiling(shape, min(fitting)[1], multiple, margin, blend) if fitting else None


def _counts(size: int, multiple: int, least: int) -> dict[int, int]:
    """How many cores an axis can have where none is smaller than `least` cells, and the largest core of each choice."""
    blocks = -(-size // multiple)
    most = max(blocks // -(-least // multiple), 1)
    return {count: -(-blocks // count) * multiple for count in range(1, most + 1)}


def forecast_in_tiles(run: Run, past: np.ndarray, num_leads: int, tiling: Tiling) -> np.ndarray:
    """(case, time, y, x) -> what `run` gives, (case, lead, ..., y, x), of one tile of one case after the other."""
    out = None
    for case, (y, x) in product(range(len(past)), tiling):
        tile = run(np.ascontiguousarray(past[case : case + 1, :, y.read, x.read]), num_leads)[0]
        if out is None:
            out = np.zeros((len(past), *tile.shape[:-2], *past.shape[-2:]), np.float32)
        tile = tile[..., y.given.start - y.read.start :, x.given.start - x.read.start :]
        tile = tile[..., : len(y.weight), : len(x.weight)]
        out[case, ..., y.given, x.given] += tile * (y.weight[:, None] * x.weight)
    return out


@torch.inference_mode()
def find_reach(model: Model, input_frames: int, num_leads: int, *, like: Tensor) -> float:
    """How many cells away the past still changes the forecast, at its last lead: a multiple of `tile_multiple`.

    Found by one pass over a narrow strip with a NaN in its middle, which spreads to all that depends on it. `like` gives
    device and dtype. Infinite where a state is read along flows, which may point anywhere.
    """
    if not model.reach_is_bounded:
        return math.inf
    multiple = model.tile_multiple
    half = math.ceil(64 / multiple)  # in multiples
    while True:
        strip = like.new_zeros(1, input_frames, 2, multiple, (2 * half + 1) * multiple)
        strip[..., half * multiple : (half + 1) * multiple] = torch.nan
        reached = model(strip, num_leads).isnan()[0].flatten(0, -2).any(dim=0).unflatten(0, (-1, multiple)).any(dim=1)
        places = reached.nonzero().flatten() - half
        farthest = int(places.abs().max())
        if farthest < half:
            return farthest * multiple
        if half * multiple > 4 * LARGEST_MARGIN:  # no margin is as wide
            return math.inf
        half *= 2


@torch.inference_mode()
def bytes_per_cell(run: Run, input_frames: int, num_leads: int, grid: tuple[int, int], device: torch.device) -> float:
    """Bytes of memory per cell of `grid` at the peak of a forecast, measured on a grid of an eighth of its sides.

    Never too few: what does not grow with the grid is counted as if it did.
    """
    y, x = (-(-size // PROBE_SHARE) for size in grid)
    past = np.ones((1, input_frames, y, x), np.float32)
    return max(peak_bytes(lambda: run(past, num_leads), device), 1) / (y * x)


def available_bytes(device: torch.device) -> float:
    """What one forecast may take: half of what is free, and on a CPU its share of that among processes, at most MOST_BYTES."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    try:
        return min(free_memory() / 2 / distributed.size_here(), MOST_BYTES)
    except MemoryLimitError:  # it cannot be found out
        return MOST_BYTES


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        run()  # the first pays for set-up, in memory too
        before = torch.cuda.memory_allocated(device)
        restart_peak(device)
        run()
        return peak_memory(device) - before
    with _Allocations() as allocations:
        run()
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive.

    A CPU's allocator does not, and the memory of the process shows nothing where freed memory is used again.
    """

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.seen: weakref.WeakSet = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it means importing it, which takes a second

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._free, storage.nbytes())
        return out

    def _free(self, num_bytes: int) -> None:
        self.alive -= num_bytes
