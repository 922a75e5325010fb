"""Rain in bands of scale, each continued as it has changed so far: S-PROG, of every place by itself.

A frame is the sum of bands, from the finest detail to the mean of BLOCK cells (the pyramid of Burt and Adelson 1983). Each is
forecast by an autoregression of second order whose correlations in time are those of the past frames (Seed 2003; Bowler,
Pierce and Seed 2006): what changes fast fades from the forecast as it becomes unpredictable, and what grows goes on growing.
The correlations are measured around each place, not over the whole grid (as in ANVIL, Pulkkinen et al. 2020), so that fronts
and showers side by side, steps of two minutes and of a quarter of an hour each have their own. What errors add to the change of
a frame hides that the rest of it lasts, and may be taken out (`lasting`). Nothing of it is learnt.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_STEPS = 6  # of the pyramid, each a half
BLOCK = 1 << NUM_STEPS  # cells; a grid is a multiple of them
MOST_POOLED = 8  # cells each way at once: a GPU gives each mean to one thread
AROUND = 1  # block each way over which correlations are measured
MOST_CORRELATION = 0.9999
FAINT = 1e-7  # squared network values: a band with less is nothing that could be continued


@dataclass
class Band:
    """One band: its last two frames (case, y, x), and around each block the autoregression and its correlations."""

    before: Tensor
    newest: Tensor
    weights: tuple[Tensor, Tensor]  # of the newest and of the one before, (case, block, block)
    correlation: Tensor  # of frames one step apart
    second: Tensor | None  # of frames two steps apart


def widen(field: Tensor, factor: int = 2) -> Tensor:
    """(case, channel, y, x) to a finer grid."""
    return field if factor == 1 else F.interpolate(field, scale_factor=factor, mode="bilinear")


def split(values: Tensor, known: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Frames (case, time, y, x) and where they are known -> bands and how much of each cell is known, the finest first.

    The frames are the sum of the bands, each widened to the grid of the next finer one; missing cells are as their
    surroundings, without detail. y and x are multiples of BLOCK.
    """
    means = [(values, known)]
    for _ in range(NUM_STEPS):
        mean, share = means[-1]
        shared = F.avg_pool2d(share, 2)
        means.append((F.avg_pool2d(mean * share, 2) / shared.clamp(min=1e-6), shared))
    (whole, share), *finer = means[::-1]
    bands = [(whole, share)]
    for mean, share in finer:
        smooth = widen(whole)
        whole = torch.where(share > 0, mean, smooth)
        bands.append((whole - smooth, share))
    return bands[::-1]


def joined(bands: list[Tensor]) -> Tensor:
    """The sum of bands (case, channel, y, x), the finest first, each of half as many cells each way as the one before."""
    *finer, whole = bands
    for band in finer[::-1]:
        whole = widen(whole) + band
    return whole


def autoregression(frames: Tensor, known: Tensor, block: int) -> Band:
    """How a band (case, time, y, x) goes on, by blocks of so many of its cells.

    Of two frames it is of first order; one goes on as it is.
    """
    first, second = (block_correlation(frames, known, block, lag) for lag in (1, 2))
    if first is None:
        first = torch.full_like(frames[:, 0, ::block, ::block], MOST_CORRELATION)
    first = first.clamp(0, MOST_CORRELATION)
    return Band(frames[:, -2:][:, 0], frames[:, -1], _weights(first, second), first, second)


def steadied(band: Band, frames: Tensor) -> Band:
    """With the mean change per step since each earlier frame (case, time, y, x): that of the last step alone is half chance."""
    if frames.shape[1] == 1:
        return band
    steps = torch.arange(frames.shape[1] - 1, 0, -1, device=frames.device)[:, None, None]
    return replace(band, before=band.newest - ((frames[:, -1:] - frames[:, :-1]) / steps).mean(dim=1))


def without_error(band: Band, share: float) -> Band:
    """As it goes on where so much of what differs between two frames is error, of measurement and motion.

    Error does not last, but hides that change does.
    """
    variance = 1 - share * (1 - band.correlation)
    first, second = (None if found is None else found / variance for found in (band.correlation, band.second))
    first = first.clamp(max=MOST_CORRELATION)
    return replace(band, weights=_weights(first, second), correlation=first, second=second)


def _weights(first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
    return (first, torch.zeros_like(first)) if second is None else _second_order(first, second)


def _second_order(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of the last frame and the one before, by the Yule–Walker equations.

    The second correlation is raised to where there is such a process, and to where its forecasts do not swing (the roots of
    1 - a x - b x² are real: a² + 4 b >= 0).
    """
    square = first.square()
    real = (3 * square - 2 + 2 * (1 - square) ** 1.5) / square.clamp(min=1e-6)
    second = torch.maximum(second, torch.maximum(2 * square - 1, real)).clamp(max=MOST_CORRELATION)
    return first * (1 - second) / (1 - square), (second - square) / (1 - square)


def block_correlation(frames: Tensor, known: Tensor, block: int, lag: int) -> Tensor | None:
    """Of frames so many steps apart, around each block, 0 where there is nothing to correlate; None for too few."""
    if frames.shape[1] <= lag:
        return None
    earlier, later = frames[:, :-lag], frames[:, lag:]
    both = known[:, :-lag] * known[:, lag:]
    sums = [_around(product * both, block) for product in (earlier * later, earlier.square(), later.square())]
    return sums[0].sum(dim=1) / ((sums[1] * sums[2]).sqrt().sum(dim=1) + FAINT)


def _around(products: Tensor, block: int) -> Tensor:
    """Means over the blocks around each block."""
    while block > MOST_POOLED:
        products, block = F.avg_pool2d(products, MOST_POOLED), block // MOST_POOLED
    return F.avg_pool2d(F.avg_pool2d(products, block), 2 * AROUND + 1, stride=1, padding=AROUND)


def continued(band: Band, block: int, num_leads: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Lead after lead the band (case, y, x), and of its variance the part (case, block, block) that cannot be foreseen."""
    fine = [widen(weight[:, None], block)[:, 0] for weight in band.weights]
    before, newest = band.before, band.newest
    one, none = torch.ones_like(band.correlation), torch.zeros_like(band.correlation)
    of_newer, of_older = (one, none), (none, one)  # shares of the newest frame and of the one before in the last two leads
    for _ in range(num_leads):
        newest, before = fine[0] * newest + fine[1] * before, newest
        made = tuple(band.weights[0] * newer + band.weights[1] * older for newer, older in zip(of_newer, of_older, strict=True))
        of_newer, of_older = made, of_newer
        explained = made[0].square() + made[1].square() + 2 * made[0] * made[1] * band.correlation
        yield newest, (1 - explained).clamp(0, 1)


def lasting(bands: list[Band], error: float, num_leads: int) -> Iterator[Tensor]:
    """Lead after lead how much higher the sum of the coarsest bands is (case, 1, y, x) for being continued `without_error`."""
    blocks = [1 << n for n in reversed(range(len(bands)))]
    light = [without_error(band, error) for band in bands]
    as_is, without = (
        zip(*(continued(band, block, num_leads) for band, block in zip(each, blocks, strict=True)), strict=True)
        for each in (bands, light)
    )
    for before, leads in zip(as_is, without, strict=True):
        yield joined([(band - there)[:, None] for (band, _), (there, _) in zip(leads, before, strict=True)])
