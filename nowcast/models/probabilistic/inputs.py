"""What a network is shown of the rain, for each patch of cells, so that it has little left to find out by itself.

Of a few events a network learns no filters that hold elsewhere. So it is shown the bands of the cascade (cascade.py), how
they change and how long they last, how much of each patch and its surroundings is wet, and lead after lead the cascade's own
forecast, each scaled to a deviation of about one. Bands coarser than a patch are shown as they are, finer ones as their
deviation. Fields are of frames (case, time, y, x) in network values; what is shown is (case, ..., channel, y / patch,
x / patch), without a gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nowcast.models.probabilistic.cascade import BLOCK, NUM_STEPS, Band, widen

AROUND = (0, 1, 4)  # patches each way over which wet area and values are averaged
# what makes the deviation of each kind about one, in the records of nine services
BAND, CHANGE, CORRELATION, WET, VALUE, KNOWN = 32.0, 100.0, 3.0, 3.0, 10.0, 2.0
MORE_OF_CHANGE = 4.0  # of wet area and values, as these change less than they differ
LEADS = 4.0  # whose number is divided by it
NUM_BANDS = NUM_STEPS + 1
# channels, without that of the known share
NUM_OF_FRAMES, NUM_OF_CHANGE, NUM_OF_LEAD = NUM_BANDS + 2, 3 * NUM_BANDS + 4 * len(AROUND), 4


def of_frames(bands: list[tuple[Tensor, Tensor]], values: Tensor, wet: Tensor, known: Tensor, patch: int) -> Tensor:
    """Each past frame: its bands, wet area and mean, and last the known share."""
    channels = [BAND * of_patches(band, n, patch) for n, (band, _) in enumerate(bands)]
    channels += [scale * F.avg_pool2d(field, patch) for field, scale in ((wet, WET), (values, VALUE), (known, KNOWN))]
    return torch.stack(channels, dim=2)


def of_change(bands: list[Band], values: Tensor, wet: Tensor, known: Tensor, patch: int) -> Tensor:
    """The newest frame and how it has changed, the same at every lead; last the known share."""
    # stacked: a list as index lies on the CPU, and a GPU's step would wait for its copy
    ends = (torch.stack([field[:, 0], field[:, -1]], dim=1) for field in (known, wet, values))
    share, wet, values = (F.avg_pool2d(field, patch) for field in ends)
    channels = []
    for n, band in enumerate(bands):
        newest, before = band.newest[:, None], band.before[:, None]
        channels += [BAND * of_patches(newest, n, patch), CHANGE * of_patches(newest - before, n, patch)]
        channels.append(CORRELATION * widen(band.correlation[:, None], BLOCK // patch))
    for reach in AROUND:
        area = around(share, reach).clamp(min=1e-3)
        for field, scale in ((wet, WET), (values, VALUE)):
            first, last = (scale * around(field, reach) / area).split(1, dim=1)
            channels += [last, MORE_OF_CHANGE * (last - first)]
    return torch.cat([*channels, share[:, 1:]], dim=1)


def of_lead(location: Tensor, unforeseen: Tensor, lead: int, patch: int) -> Tensor:
    """The cascade's forecast (case, 1, y, x) of a lead, how it differs from around, what it could not foresee, and the lead."""
    mean = VALUE * F.avg_pool2d(location, patch)
    return torch.cat([mean, mean - around(mean, 1), BAND * unforeseen.sqrt(), torch.full_like(mean, lead / LEADS)], dim=1)


def of_patches(band: Tensor, number: int, patch: int) -> Tensor:
    """A band, the finest being 0, for each patch: as it is, or its deviation where it is finer."""
    size = 1 << number
    return widen(band, size // patch) if size >= patch else F.avg_pool2d(band.square(), patch // size).sqrt()


def around(field: Tensor, reach: int) -> Tensor:
    """Sums of patches, divided alike everywhere: beyond the edge is nothing."""
    return F.avg_pool2d(field, 2 * reach + 1, stride=1, padding=reach) if reach else field
