"""Compute the input channels of the probabilistic network, per patch of cells, without gradient.

A network that is trained on a few events learns no filters that hold elsewhere. So it gets what is known to matter: the bands
of the cascade (cascade.py), their change and their correlation in time, the wet area of each patch and its surroundings, and at
each lead time the cascade's forecast. Each channel is scaled to a standard deviation of about 1. A band that is coarser than a
patch is given as it is, a finer one by its root mean square over the patch.

Fields (case, time, y, x) are network values.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nowcast.models.probabilistic.cascade import BLOCK, NUM_STEPS, Band
from nowcast.models.probabilistic.scales import mean_squares, means, shares_reached
from nowcast.models.probabilistic.upsampling import upsample

REACHES = (0, 1, 4)  # patches each way over which wet area and values are averaged
# Factors that scale each kind of channel to a standard deviation of about 1, in the records of nine weather services
BAND_SCALE, CHANGE_SCALE, CORRELATION_SCALE, WET_SCALE, VALUE_SCALE, KNOWN_SCALE = 32.0, 100.0, 3.0, 3.0, 10.0, 2.0
AREA_CHANGE_SCALE = 4.0  # further factor for the change of wet area and values, which is smaller than their variation
LEAD_SCALE = 4.0  # the number of the lead time is divided by it
NUM_BANDS = NUM_STEPS + 1
# numbers of channels, the share of known cells not counted
NUM_FRAME_CHANNELS, NUM_CHANGE_CHANNELS, NUM_LEAD_CHANNELS = NUM_BANDS + 2, 3 * NUM_BANDS + 4 * len(REACHES), 4


@dataclass
class Patches:
    """What the cells of each patch have in common, (case, time, y / patch, x / patch).

    wet: share of cells with rain; value: mean network value; known: share of known cells
    """

    wet: Tensor
    value: Tensor
    known: Tensor


def patches_of(values: Tensor, bands: list[tuple[Tensor, Tensor]], wet_value: float, patch: int) -> Patches:
    """Average over patches.

    values: (case, time, y, x), 0 where missing
    bands: of `split_bands`
    wet_value: least network value of a cell with rain
    """
    known = bands[patch.bit_length() - 1][1]  # of the band whose cells are patches
    return Patches(shares_reached(values, wet_value, patch), means(values, patch), known)


def frame_channels(bands: list[tuple[Tensor, Tensor]], patches: Patches, patch: int) -> Tensor:
    """Compute the channels of each past frame: its bands, wet area, mean value, and last the share of known cells.

    bands: of `split_bands`
    returns: (case, time, channel, y / patch, x / patch)
    """
    channels = [BAND_SCALE * band_per_patch(band, n, patch) for n, (band, _) in enumerate(bands)]
    channels += [WET_SCALE * patches.wet, VALUE_SCALE * patches.value, KNOWN_SCALE * patches.known]
    return torch.stack(channels, dim=2)


def change_channels(bands: list[Band], patches: Patches, patch: int) -> Tensor:
    """Compute the channels of the newest frame and its change, the same for all lead times; last the share of known cells.

    bands: of `fit_autoregression`
    returns: (case, channel, y / patch, x / patch)
    """
    # stacked: indexing with a list would make a GPU wait for the list to be copied from the CPU
    fields = patches.known, patches.wet, patches.value
    share, wet, values = (torch.stack([field[:, 0], field[:, -1]], dim=1) for field in fields)
    channels = []
    for n, band in enumerate(bands):
        newest, before = band.newest[:, None], band.before[:, None]
        channels += [BAND_SCALE * band_per_patch(newest, n, patch), CHANGE_SCALE * band_per_patch(newest - before, n, patch)]
        channels.append(CORRELATION_SCALE * upsample(band.correlation[:, None], BLOCK // patch))
    for reach in REACHES:
        area = sum_around(share, reach).clamp(min=1e-3)
        for field, scale in ((wet, WET_SCALE), (values, VALUE_SCALE)):
            first, last = (scale * sum_around(field, reach) / area).split(1, dim=1)
            channels += [last, AREA_CHANGE_SCALE * (last - first)]
    return torch.cat([*channels, share[:, 1:]], dim=1)


def lead_channels(location: Tensor, unpredicted: Tensor, lead: int, patch: int) -> Tensor:
    """Compute the channels of one lead time: forecast, its contrast to the surroundings, unpredicted deviation, lead time.

    location: (case, 1, y, x) the cascade's forecast, network values
    unpredicted: (case, 1, y / patch, x / patch) variance that the cascade cannot predict
    lead: number of the lead time, 1, 2, …
    returns: (case, 4, y / patch, x / patch)
    """
    mean = VALUE_SCALE * means(location, patch)
    contrast = mean - sum_around(mean, 1)
    return torch.cat([mean, contrast, BAND_SCALE * unpredicted.sqrt(), torch.full_like(mean, lead / LEAD_SCALE)], dim=1)


def band_per_patch(band: Tensor, number: int, patch: int) -> Tensor:
    """Return band `number` (0 the finest) on the grid of patches: interpolated, or its root mean square if it is finer.

    band: (case, time, y, x)
    returns: (case, time, y / patch, x / patch)
    """
    size = 1 << number
    return upsample(band, size // patch) if size >= patch else mean_squares(band, patch // size).sqrt()


def sum_around(field: Tensor, reach: int) -> Tensor:
    """Sum the patches of a field (case, time, y, x) up to `reach` away each way, divided by their number in the interior.

    Beyond the edge counts as 0.
    """
    return F.avg_pool2d(field, 2 * reach + 1, stride=1, padding=reach) if reach else field
