"""Forecast rain by S-PROG with local correlations: bands of scale, each extrapolated by its own autoregression.

A frame is the sum of bands, from the finest detail to means of BLOCK × BLOCK cells (the pyramid of Burt & Adelson 1983). Each
band is forecast by a second-order autoregression in time (Seed 2003; Bowler, Pierce & Seed 2006): short-lived scales fade from
the forecast as they become unpredictable, and a change that persists goes on. Correlations are estimated around each place and
not over the whole grid (as in ANVIL, Pulkkinen et al. 2020), so fronts and showers in one frame, and time steps of 2 to 15
minutes, each have their own. Errors of measurement and motion lower the correlations; `without_error` corrects for an assumed
share of them. Nothing here is trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nowcast.models.probabilistic.scales import combine, detail, halve, lagged_means
from nowcast.models.probabilistic.upsampling import are_for_c, upsample

NUM_STEPS = 6  # steps of the pyramid, each halves the resolution
BLOCK = 1 << NUM_STEPS  # cells; grids are multiples of it
MOST_CORRELATION = 0.9999  # largest correlation; the equations have no solution for 1
FAINT = 1e-7  # squared network values: the correlation of a band with a smaller mean square is reduced towards 0


@dataclass(frozen=True)
class CascadeConstants:
    """Constants of the cascade, chosen and not trained. The defaults are those of every trained network."""

    correlation_reach: int = 1  # blocks each way over which correlations are averaged
    num_averaged_bands: int = 1  # number of the coarsest bands whose change is averaged over all past frames
    # Light rain grows and decays for longer than correlations suggest. For it, a part of the variance of the difference between
    # two frames is taken as error, in the coarsest bands.
    error_share: float = 0.45  # this fraction of the variance
    num_lasting_bands: int = 4  # number of these bands: with 4, those of 8, 16, 32 and 64 cells


CASCADE = CascadeConstants()


@dataclass
class Band:
    """One band and how it evolves: its last two frames (case, y, x), and per block the autoregression (case, block, block)."""

    before: Tensor
    newest: Tensor
    weights: tuple[Tensor, Tensor]  # of the newest frame and of the one before
    correlation: Tensor  # of frames one time step apart
    second: Tensor | None  # correlation of frames two time steps apart; None if there are fewer than three frames


def without_gaps(frames: Tensor) -> Tensor:
    """Fill frames that are missing as a whole from the frames before and after them, interpolated in time.

        frames: (case, time, 2, y, x) network values and validity
        returns: the same shape; where all frames are missing as a whole they stay missing

    The bands of such a frame would be those of a dry one, and the rain of the next would seem to have grown from nothing.
    """
    there = frames[:, :, 1:].amax(dim=(-2, -1), keepdim=True) > 0
    if are_for_c(frames) and there.all():
        return frames  # as nearly always; a GPU would wait to know it
    pairs = list(zip(frames.unbind(1), there.unbind(1), strict=True))
    filled = []
    for (frame, is_there), before, after in zip(pairs, _nearest(pairs), _nearest(pairs[::-1])[::-1], strict=True):
        shares = [held[:, 1:] / age for held, age in (before, after)]  # inverse to the distance: linear in time
        total = sum(shares)
        values = (shares[0] * before[0][:, :1] + shares[1] * after[0][:, :1]) / total.clamp(min=1e-6)
        filled.append(torch.where(is_there, frame, torch.cat([values, (total > 0).to(values.dtype)], dim=1)))
    return torch.stack(filled, dim=1)


def _nearest(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Return for each frame the newest one up to it that is there, and how many frames it is older; infinite for none.

    pairs: each frame (case, 2, y, x), and whether it is there (case, 1, 1, 1)
    """
    (held, _), found = pairs[0], []
    age = torch.full_like(held[:, :1], torch.inf)
    for frame, is_there in pairs:
        held, age = torch.where(is_there, frame, held), torch.where(is_there, 0.0, age + 1)
        found.append((held, age))
    return found


def split_bands(values: Tensor, known: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split frames into bands; `join_bands` gives the frames back.

        values: (case, time, y, x) network values; y and x are multiples of BLOCK
        known: (case, time, y, x) 1 known, 0 missing
        returns: for each band, the finest first, the band and the share of each cell that is known

    Missing cells get the value of their surroundings, without detail. Each band has half the resolution of the one before.
    """
    means = [(values, known)]
    for _ in range(NUM_STEPS):
        means.append(halve(*means[-1]))
    (whole, share), *finer = means[::-1]
    bands = [(whole, share)]
    for mean, share in finer:
        band, whole = detail(mean, share, whole)
        bands.append((band, share))
    return bands[::-1]


def join_bands(bands: list[Tensor]) -> Tensor:
    """Add up bands (case, channel, y, x), the finest first, each with half the resolution of the one before."""
    *finer, whole = bands
    for band in finer[::-1]:
        whole = upsample(whole, added=band)
    return whole


def fit_autoregression(frames: Tensor, known: Tensor, block: int, *, reach: int = CASCADE.correlation_reach) -> Band:
    """Estimate the autoregression of a band around each block.

        frames, known: (case, time, y, x) of `split_bands`
        block: size of a block in cells of this band
        reach: blocks each way over which correlations are averaged

    Of second order; of first order for two frames; a single frame persists.
    """
    first, second = (block_correlation(frames, known, block, lag, reach) for lag in (1, 2))
    if first is None:
        first = torch.full_like(frames[:, 0, ::block, ::block], MOST_CORRELATION)
    first = first.clamp(0, MOST_CORRELATION)
    return Band(frames[:, -2:][:, 0], frames[:, -1], _weights(first, second), first, second)


def with_mean_change(band: Band, frames: Tensor) -> Band:
    """Return the band with its last change replaced by the mean change per time step since all earlier frames.

    The last change alone is about half noise. frames: (case, time, y, x) of the band.
    """
    if frames.shape[1] == 1:
        return band
    steps = torch.arange(frames.shape[1] - 1, 0, -1, device=frames.device)[:, None, None]
    return replace(band, before=band.newest - ((frames[:, -1:] - frames[:, :-1]) / steps).mean(dim=1))


def without_error(band: Band, share: float) -> Band:
    """Return the band with correlations corrected for errors that make up this share of the change between two frames.

    Errors of measurement and motion do not persist. They lower the correlations, although the rest of the change persists.
    """
    variance = 1 - share * (1 - band.correlation)
    first, second = (None if correlation is None else correlation / variance for correlation in (band.correlation, band.second))
    first = first.clamp(max=MOST_CORRELATION)
    return replace(band, weights=_weights(first, second), correlation=first, second=second)


def _weights(first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
    return (first, torch.zeros_like(first)) if second is None else _second_order(first, second)


def _second_order(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Solve the Yule–Walker equations for the weights of the newest frame and of the one before.

    The second correlation is raised until such a process exists and its forecasts do not oscillate: the roots of
    1 - a x - b x² are real, a² + 4 b >= 0.
    """
    square = first.square()
    real = (3 * square - 2 + 2 * (1 - square) ** 1.5) / square.clamp(min=1e-6)
    second = torch.maximum(second, torch.maximum(2 * square - 1, real)).clamp(max=MOST_CORRELATION)
    return first * (1 - second) / (1 - square), (second - square) / (1 - square)


def block_correlation(frames: Tensor, known: Tensor, block: int, lag: int, reach: int) -> Tensor | None:
    """Estimate the correlation of frames `lag` time steps apart around each block; None if there are too few frames.

    frames, known: (case, time, y, x) of `split_bands`
    block: size of a block in cells of this band
    reach: blocks each way over which it is averaged
    returns: (case, block, block)
    """
    if frames.shape[1] <= lag:
        return None
    means = lagged_means(frames, known, block, lag)
    around = F.avg_pool2d(means.flatten(0, 1), 2 * reach + 1, stride=1, padding=reach).unflatten(0, means.shape[:2])
    products, earlier, later = around.unbind()
    return products.sum(dim=1) / ((earlier * later).sqrt().sum(dim=1) + FAINT)


def extrapolate(band: Band, block: int, num_leads: int) -> Iterator[Tensor]:
    """Yield, for each lead time, the band's forecast (case, y, x).

    block: size of a block in cells of this band
    """
    weights = [upsample(weight[:, None], block)[:, 0] for weight in band.weights]
    before, newest = band.before, band.newest
    for _ in range(num_leads):
        newest, before = combine(weights, newest, before), newest
        yield newest


def unpredicted_shares(bands: list[Band], num_leads: int) -> Iterator[Tensor]:
    """Yield, for each lead time, the unpredictable fraction of the variance of each band, (case, band, block, block)."""
    weights = [torch.stack(each, dim=1) for each in zip(*(band.weights for band in bands), strict=True)]
    correlation = torch.stack([band.correlation for band in bands], dim=1)
    one, none = torch.ones_like(correlation), torch.zeros_like(correlation)
    # the last two forecasts as combinations of the newest frame and the one before
    last, last_but_one = (one, none), (none, one)
    for _ in range(num_leads):
        combined = tuple(weights[0] * a + weights[1] * b for a, b in zip(last, last_but_one, strict=True))
        last, last_but_one = combined, last
        explained = combined[0].square() + combined[1].square() + 2 * combined[0] * combined[1] * correlation
        yield (1 - explained).clamp(0, 1)


def change_of_lasting_rain(bands: list[Band], error_share: float, num_leads: int) -> Iterator[Tensor]:
    """Yield, for each lead time, the change in the sum of the coarsest bands when they are extrapolated `without_error`.

    yields: (case, 1, y, x) on the grid of the first of these bands
    """
    blocks = [1 << n for n in reversed(range(len(bands)))]
    corrected = [without_error(band, error_share) for band in bands]
    plain, lasting = (
        zip(*(extrapolate(band, block, num_leads) for band, block in zip(each, blocks, strict=True)), strict=True)
        for each in (bands, corrected)
    )
    for plain_lead, lasting_lead in zip(plain, lasting, strict=True):
        yield join_bands([(band - other)[:, None] for band, other in zip(lasting_lead, plain_lead, strict=True)])
