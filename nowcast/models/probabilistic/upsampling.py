"""Interpolate fields of coarse cells to a finer grid, and spread the parameters of a distribution from patches to cells.

On a CPU, in float32, in one pass over memory each in C (upsampling.c); elsewhere, and without a compiler, in torch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, SIZE, Library, Source

SOURCE = Source(
    Path(__file__).with_name("upsampling.c"),
    "finer fields",
    {
        "upsampled": [POINTER, *[SIZE] * 4, POINTER, POINTER],
        "spread": [POINTER, POINTER, *[SIZE] * 7, POINTER],
        "collected": [POINTER, POINTER, *[SIZE] * 7, POINTER],
    },
)


def upsample(field: Tensor, factor: int = 2, *, added: Tensor | None = None) -> Tensor:
    """Interpolate (case, channel, y, x) bilinearly to a grid finer by `factor`, and add a field on that grid if given."""
    followed = field.requires_grad and torch.is_grad_enabled()
    if factor > 1 and not followed and (library := _library_for(field, factor)):
        return _in_c(library, field, factor, added)
    finer = field if factor == 1 else F.interpolate(field, scale_factor=factor, mode="bilinear")
    return finer if added is None else finer + added


def spread(parameters: Tensor, location: Tensor, factor: int, grid: Sequence[int]) -> Tensor:
    """Interpolate shifts and slopes from patches to cells, and return slope · location + shift, then the slopes.

    parameters: (case, lead, 2 × level, y / factor, x / factor) shifts, then slopes, at each level
    location: (case, lead, 1, y, x), without gradient
    grid: (y, x) of the first cells, to return
    returns: (case, lead, 2 × level, y, x)
    """
    y, x = grid
    if library := _library_for(parameters, factor):
        return _Spread.apply(parameters, location, factor, (y, x), library)
    outputs = upsample(parameters.flatten(0, 1), factor).unflatten(0, parameters.shape[:2])
    levels = outputs.shape[2] // 2
    outputs[:, :, :levels].addcmul_(outputs[:, :, levels:], location)
    return outputs[..., :y, :x]


def are_for_c(*fields: Tensor) -> bool:
    """Return whether C can read the fields: float32 in a CPU's memory, while torch neither compiles nor exports."""
    takes = all(type(each) is Tensor and each.device.type == "cpu" and each.dtype == torch.float32 for each in fields)
    return takes and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def _library_for(field: Tensor, factor: int) -> Library | None:
    """Return the compiled library if it can interpolate the field; None otherwise."""
    return compiled.load(SOURCE) if factor % 2 == 0 and are_for_c(field) else None


def _in_c(library: Library, field: Tensor, factor: int, added: Tensor | None) -> Tensor:
    field, (y, x) = field.contiguous(), field.shape[-2:]
    added = None if added is None else added.contiguous()
    finer = field.new_empty(*field.shape[:-2], factor * y, factor * x)
    library.upsampled(
        field.data_ptr(), field.shape[:-2].numel(), y, x, factor, None if added is None else added.data_ptr(),
        finer.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return finer


class _Spread(torch.autograd.Function):
    """`spread` in C, and the gradient of its parameters."""

    @staticmethod
    def forward(ctx, parameters: Tensor, location: Tensor, factor: int, grid: tuple[int, int], library: Library) -> Tensor:
        parameters, location = parameters.contiguous(), location.contiguous()
        ctx.save_for_backward(location)
        ctx.library, ctx.shape = library, parameters.shape
        ctx.sizes = _sizes(parameters.shape, factor, grid)
        outputs = parameters.new_empty(*parameters.shape[:3], *grid)
        library.spread(parameters.data_ptr(), location.data_ptr(), *ctx.sizes, outputs.data_ptr(), torch.get_num_threads())
        return outputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (location,) = ctx.saved_tensors
        gradient, parameters = gradient.contiguous(), gradient.new_empty(ctx.shape)
        ctx.library.collected(
            gradient.data_ptr(), location.data_ptr(), *ctx.sizes, parameters.data_ptr(), torch.get_num_threads()
        )
        return parameters, *[None] * 4


def _sizes(shape: Sequence[int], factor: int, grid: tuple[int, int]) -> tuple[int, ...]:
    """Return fields, levels, rows, columns, factor, y and x, as the C functions take them."""
    cases, leads, parameters, rows, columns = shape
    return cases * leads, parameters // 2, rows, columns, factor, *grid
