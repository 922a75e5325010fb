"""Compute what the cascade takes from all cells: means of blocks, bands, products of frames, their autoregression.

On a CPU, in float32, in one pass over memory each in C (scales.c); elsewhere, and without a compiler, in torch.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nowcast.models.probabilistic.upsampling import are_for_c, upsample
from nowcast.runtime import compiled
from nowcast.runtime.compiled import FLOAT, INT, POINTER, SIZE, Library, Source

SOURCE = Source(
    Path(__file__).with_name("scales.c"),
    "scales of rain",
    {
        "halved": [POINTER, POINTER, *[SIZE] * 3, POINTER, POINTER],
        "detail": [*[POINTER] * 3, *[SIZE] * 3, POINTER, POINTER],
        "pooled": [POINTER, *[SIZE] * 5, INT, FLOAT, POINTER],
        "lagged": [POINTER, POINTER, *[SIZE] * 6, POINTER],
        "combined": [*[POINTER] * 4, SIZE, POINTER],
    },
)
LEAST_SHARE = 1e-6  # smallest known share that a mean is divided by; as in scales.c
MOST_POOLED = 8  # cells along y and x averaged in one step, because a GPU computes each mean in one thread
_MEANS, _SQUARES, _REACHED = range(3)  # kinds of means, as in scales.c


def halve(values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Average cells two by two, weighted by the share of each that is known; return the means and the mean share.

    values, share: (case, time, y, x)
    returns: (case, time, y // 2, x // 2) each, without the last row or column of an odd number
    """
    if library := _library_for(values, share):
        values, share = values.contiguous(), share.contiguous()
        mean, coarser = (values.new_empty(_pooled_shape(values, 2)) for _ in range(2))
        library.halved(*_pointers(values, share), *_planes(values), *_pointers(mean, coarser), torch.get_num_threads())
        return mean, coarser
    coarser = F.avg_pool2d(share, 2)
    return F.avg_pool2d(values * share, 2) / coarser.clamp(min=LEAST_SHARE), coarser


def detail(mean: Tensor, share: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Split means into a band and what is smooth, the interpolated coarser field; return band and whole, the sum of the two.

    mean, share: (case, time, y, x); coarse: (case, time, y / 2, x / 2)
    returns: (case, time, y, x); where nothing is known the band is 0 and the whole is the smooth field
    """
    if library := _library_for(mean, share, coarse):
        mean, share, coarse = mean.contiguous(), share.contiguous(), coarse.contiguous()
        band, whole = torch.empty_like(mean), torch.empty_like(mean)
        library.detail(*_pointers(mean, share, coarse), *_planes(mean), *_pointers(band, whole), torch.get_num_threads())
        return band, whole
    smooth = upsample(coarse)
    whole = torch.where(share > 0, mean, smooth)
    return whole - smooth, whole


def means(field: Tensor, factor: int) -> Tensor:
    """Average over blocks of `factor` × `factor` cells: (case, time, y, x) to (case, time, y / factor, x / factor)."""
    if library := _library_for(field):
        return _pooled(library, field, factor, _MEANS)
    return F.avg_pool2d(field, factor)


def mean_squares(field: Tensor, factor: int, *, reach: int = 0) -> Tensor:
    """Average squares over the window of `reach` cells each way around each cell, 0 beyond the edge, and then over blocks.

    field: (case, time, y, x)
    returns: (case, time, y / factor, x / factor)
    """
    if library := _library_for(field):
        return _pooled(library, field, factor, _SQUARES, reach=reach)
    squares = field.square()
    around = F.avg_pool2d(squares, 2 * reach + 1, stride=1, padding=reach) if reach else squares
    return F.avg_pool2d(around, factor) if factor > 1 else around


def shares_reached(field: Tensor, least: float, factor: int) -> Tensor:
    """Return the share of the cells of each block whose value is at least `least`.

    field: (case, time, y, x)
    returns: (case, time, y / factor, x / factor)
    """
    if library := _library_for(field):
        return _pooled(library, field, factor, _REACHED, least=least)
    return F.avg_pool2d((field >= least).float(), factor)


def lagged_means(frames: Tensor, known: Tensor, block: int, lag: int) -> Tensor:
    """Average over blocks the products of frames `lag` time steps apart, and the squares of each, where both are known.

    frames, known: (case, time, y, x)
    returns: (3, case, time - lag, y / block, x / block) products, squares of the earlier and of the later frame
    """
    if library := _library_for(frames, known):
        frames, known = frames.contiguous(), known.contiguous()
        cases, times, y, x = frames.shape
        found = frames.new_empty(3, cases, times - lag, y // block, x // block)
        library.lagged(*_pointers(frames, known), *frames.shape, block, lag, found.data_ptr(), torch.get_num_threads())
        return found
    earlier, later = frames[:, :-lag], frames[:, lag:]
    both = known[:, :-lag] * known[:, lag:]
    return torch.stack([_in_steps(each * both, block) for each in (earlier * later, earlier.square(), later.square())])


def combine(weights: tuple[Tensor, Tensor], newest: Tensor, before: Tensor) -> Tensor:
    """Return weights[0] · newest + weights[1] · before; all of the same shape."""
    if library := _library_for(*weights, newest, before):
        fields = [field.contiguous() for field in (weights[0], newest, weights[1], before)]
        following = torch.empty_like(fields[1])
        library.combined(*_pointers(*fields), following.numel(), following.data_ptr(), torch.get_num_threads())
        return following
    return torch.addcmul(weights[1] * before, weights[0], newest)


def _in_steps(field: Tensor, block: int) -> Tensor:
    while block > MOST_POOLED:
        field, block = F.avg_pool2d(field, MOST_POOLED), block // MOST_POOLED
    return F.avg_pool2d(field, block)


def _library_for(*fields: Tensor) -> Library | None:
    """Return the compiled library if it can read the fields and no gradient is to be known; None otherwise."""
    followed = any(each.requires_grad for each in fields) and torch.is_grad_enabled()
    return compiled.load(SOURCE) if not followed and are_for_c(*fields) else None


def _pooled(library: Library, field: Tensor, factor: int, kind: int, *, reach: int = 0, least: float = 0.0) -> Tensor:
    field = field.contiguous()
    found = field.new_empty(_pooled_shape(field, factor))
    library.pooled(field.data_ptr(), *_planes(field), factor, reach, kind, least, found.data_ptr(), torch.get_num_threads())
    return found


def _pooled_shape(field: Tensor, factor: int) -> tuple[int, ...]:
    return (*field.shape[:-2], field.shape[-2] // factor, field.shape[-1] // factor)


def _planes(field: Tensor) -> tuple[int, int, int]:
    """Return the number of planes, y and x."""
    return field.shape[:-2].numel(), *field.shape[-2:]


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
