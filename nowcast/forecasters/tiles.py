"""Forecast grids that do not fit in memory: in overlapping tiles, joined without seams.

A tile is a core and a margin around it; cores begin at multiples of the model's `tile_multiple`. A network's forecast at a
place depends on the past within its reach. With a margin as wide as the reach, tiles give the forecast of the whole grid except
for rounding errors. A smaller margin gives it approximately: for a trained encoder–forecaster (patch 4, 4 past and 12 future
frames, radar of MeteoSwiss and FMI) the largest difference in network values is .19 at a margin of 4 cells, .03 at 32, 2e-4 at
44, and 0 at its reach, 68; for a trained multiscale network with a reach of 320 cells it is 4e-5 at 32, and rounding from 48.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from nowcast.errors import MemoryLimitError
from nowcast.models.model import Model
from nowcast.runtime import distributed
from nowcast.runtime.memory import free_memory, peak_bytes, total_memory

log = logging.getLogger(__name__)
LARGEST_MARGIN = 192  # cells; in all measurements, the influence from further away in an hour was rounding
BLEND = 8  # cells to either side of a seam over which one tile fades into the next
SHARE = 0.25  # fraction of all memory that one forecast may use
MOST_BYTES = 4 << 30  # memory for one forecast on a CPU, which others use too
CACHE_BYTES = 1 << 28  # memory of a tile; larger ones do not fit in a CPU's caches and take up to twice the time per cell
MOST_OVERHEAD = 1.5  # largest number of cells computed in small tiles, relative to that in large ones
PROBE_FRACTION = 8  # memory is measured on a grid with 1/8 of the sides, which takes 1/64 of the time

# (case, time, y, x), number of leads, and for some models guidance (case, lead, rate, y, x) -> (case, lead, ..., y, x)
Run = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Span:
    """One axis of a tile."""

    read: slice  # cells that the tile reads: core and margins
    written: slice  # cells that it contributes to: core and blend
    weight: np.ndarray  # of the contribution to each cell written, 0 to 1

    @property
    def core(self) -> slice:
        """Return the cells, counted from the first one read, at which this tile has the largest weight."""
        most = np.flatnonzero(self.weight >= 0.5) + self.written.start - self.read.start
        return slice(int(most[0]), int(most[-1]) + 1)

    def core_from(self, stride: int) -> slice:
        """Return the core from the first of its cells whose position on the whole axis is a multiple of `stride`."""
        return slice(self.core.start + -(self.read.start + self.core.start) % stride, self.core.stop)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a grid: `counts` (y, x) cores, each with a `margin` around it, in cells, that includes the `blend`.

    The edges of cores are multiples of `multiple` cells.
    """

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
        written = slice(max(first - self.blend, 0), min(last + self.blend, size))
        cells = np.arange(written.start, written.stop, dtype=np.float32) + 0.5
        weight, fade = np.ones_like(cells), 2 * self.blend
        if written.start > 0:
            weight = np.minimum(weight, (cells - written.start) / fade)
        if written.stop < size:
            weight = np.minimum(weight, (written.stop - cells) / fade)
        return Span(read, written, weight)

    @property
    def num_cells(self) -> int:
        """Return the number of cells computed in all tiles together."""
        return sum((y.read.stop - y.read.start) * (x.read.stop - x.read.start) for y, x in self)


def choose_tiles(
    shape: tuple[int, int], multiple: int, *, num_bytes: float, per_cell: float, reach: float, device: torch.device
) -> Tiling:
    """Choose tiles that take at most `num_bytes` of memory.

    per_cell: bytes per cell; reach: cells; cores begin at multiples of `multiple` cells. On a CPU, small tiles are preferred if
    they have the same margin and compute few more cells.
    """
    large = cheapest_tiles(shape, multiple, max_cells=int(num_bytes / per_cell), reach=reach)
    if device.type != "cpu" or num_bytes <= CACHE_BYTES:
        return large
    small = cheapest_tiles(shape, multiple, max_cells=int(CACHE_BYTES / per_cell), reach=reach)
    return small if small.margin == large.margin and small.num_cells <= MOST_OVERHEAD * large.num_cells else large


def cheapest_tiles(shape: tuple[int, int], multiple: int, *, max_cells: int, reach: float) -> Tiling:
    """Choose tiles of at most `max_cells` cells with the smallest total number of cells.

    The margin is the reach, at most LARGEST_MARGIN, or less if margins would make up most of small tiles.
    """
    blend = math.ceil(BLEND / multiple) * multiple
    margin = blend + math.ceil(min(reach, LARGEST_MARGIN) / multiple) * multiple
    while margin > blend:
        if tiling := _cheapest_with_margin(shape, multiple, max_cells, margin, blend):
            return tiling
        margin = margin // (2 * multiple) * multiple
    smallest = tuple(max(_counts(size, multiple, 2 * blend)) for size in shape)
    return _cheapest_with_margin(shape, multiple, max_cells, blend, blend) or Tiling(shape, smallest, multiple, blend, blend)


def _cheapest_with_margin(shape: tuple[int, int], multiple: int, max_cells: int, margin: int, blend: int) -> Tiling | None:
    # least side of a core: blends must not meet, and tiles with smaller cores would compute mostly margins
    least = max(margin, 2 * blend)
    sides = [{n: min(core + 2 * margin, size) for n, core in _counts(size, multiple, least).items()} for size in shape]
    fitting = [(ny * nx * y * x, (ny, nx)) for (ny, y), (nx, x) in product(*(s.items() for s in sides)) if y * x <= max_cells]
    return Tiling(shape, min(fitting)[1], multiple, margin, blend) if fitting else None


def _counts(size: int, multiple: int, least: int) -> dict[int, int]:
    """Return, for each possible number of cores of an axis, the size of the largest; none is smaller than `least` cells."""
    blocks = -(-size // multiple)
    most = max(blocks // -(-least // multiple), 1)
    return {count: -(-blocks // count) * multiple for count in range(1, most + 1)}


def forecast_in_tiles(
    run: Run, past: np.ndarray, num_leads: int, tiling: Tiling, guidance: np.ndarray | None = None
) -> np.ndarray:
    """Forecast one tile of one case after the other and join the tiles.

    past: (case, time, y, x)
    guidance: (case, lead, rate, y, x) int8, for models that take it
    returns: (case, lead, …, y, x), as `run` does for a tile
    """
    out = None
    for case, (y, x) in product(range(len(past)), tiling):
        of_tile = (slice(case, case + 1), ..., y.read, x.read)
        further = {} if guidance is None else {"guidance": np.ascontiguousarray(guidance[of_tile])}
        tile = run(np.ascontiguousarray(past[of_tile]), num_leads, **further)[0]
        if out is None:
            out = np.zeros((len(past), *tile.shape[:-2], *past.shape[-2:]), np.float32)
        add_tile(out[case], tile, (y, x))
    return out


def add_tile(out: np.ndarray, tile: np.ndarray, spans: tuple[Span, Span]) -> None:
    """Add a tile (…, y, x), including its margins, to the whole grid `out` (…, y, x), weighted near seams."""
    y, x = spans
    tile = tile[..., y.written.start - y.read.start :, x.written.start - x.read.start :]
    tile = tile[..., : len(y.weight), : len(x.weight)]
    out[..., y.written, x.written] += tile * (y.weight[:, None] * x.weight)


@torch.inference_mode()
def find_reach(model: Model, input_frames: int, num_leads: int, *, like: Tensor) -> float:
    """Measure the reach: how many cells away the past changes the last lead time, a multiple of `tile_multiple`.

    The model runs over a narrow strip with a NaN in its middle, which spreads to all values that depend on it. `like`, of any
    shape, gives device and dtype. Infinite for a model whose reach is not bounded.
    """
    if not model.reach_is_bounded:
        return math.inf
    multiple = model.tile_multiple
    half = math.ceil(64 / multiple)  # half the strip's length, in multiples
    while True:
        strip = like.new_zeros(1, input_frames, 2, multiple, (2 * half + 1) * multiple)
        strip[..., half * multiple : (half + 1) * multiple] = torch.nan
        further = model.blank_inputs(1, num_leads, strip.shape[-2:])
        reached = (
            model(strip, num_leads, **further).isnan()[0].flatten(0, -2).any(dim=0).unflatten(0, (-1, multiple)).any(dim=1)
        )
        places = reached.nonzero().flatten() - half
        farthest = int(places.abs().max())
        if farthest < half:
            return farthest * multiple
        if half * multiple > 4 * LARGEST_MARGIN:  # far wider than any margin
            return math.inf
        half *= 2


@torch.inference_mode()
def bytes_per_cell(run: Run, input_frames: int, num_leads: int, grid: tuple[int, int], device: torch.device) -> float:
    """Measure the peak memory of a forecast in bytes per cell of `grid`, on a grid with an eighth of its sides.

    An upper limit: memory that does not grow with the grid is counted as if it did.
    """
    y, x = (-(-size // PROBE_FRACTION) for size in grid)
    past = np.ones((1, input_frames, y, x), np.float32)
    return max(peak_bytes(lambda: run(past, num_leads), device), 1) / (y * x)


def available_bytes(device: torch.device) -> float:
    """Return the bytes that one forecast may take: a share of all memory, on a CPU shared by processes, up to MOST_BYTES.

    Does not depend on the free memory, so that forecasts are reproducible; only if less is free, half of the free memory is
    returned, with a warning.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        usual = SHARE * total
    else:
        usual = min(SHARE * total_memory() / distributed.size_here(), MOST_BYTES)
        try:
            free = free_memory()
        except MemoryLimitError:  # the system does not say how much is free
            return usual
    if free >= usual:
        return usual
    log.warning("only %.1f GB of memory are free: tiles may be smaller, and forecasts a little different", free / 1e9)
    return free / 2
