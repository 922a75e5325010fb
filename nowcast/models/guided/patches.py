"""Convert between cells of guidance and patches of the network in one pass over memory, in C on a CPU (patches.c).

On other devices, and without a compiler, network.py does the same in torch.
"""

from pathlib import Path

import torch
from torch import Tensor

from nowcast.models.guided.guidance import MISSING
from nowcast.runtime import compiled
from nowcast.runtime.compiled import FLOAT, INT, POINTER, SIZE, Library, Source

SOURCE = Source(
    Path(__file__).with_name("patches.c"),
    "the cells of patches",
    {
        "corrected": [*[POINTER] * 4, *[SIZE] * 6, INT, FLOAT, POINTER],
        "folded": [POINTER, *[SIZE] * 6, FLOAT, POINTER],
        "fed": [*[POINTER] * 3, *[SIZE] * 6, INT, SIZE, SIZE, FLOAT, POINTER],
    },
)


def library_for(tensor: Tensor) -> Library | None:
    """Return the compiled library if it can read the tensor: in CPU memory, and torch is neither compiling nor exporting.

    tensor: (case, lead, rate, y, x), or with the channels of patches in place of rates, float32 or bfloat16
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    if traced or tensor.device.type != "cpu" or type(tensor) is not Tensor:
        return None
    return compiled.load(SOURCE, "BFLOAT16") if tensor.dtype == torch.bfloat16 else compiled.load(SOURCE)


class Corrected(torch.autograd.Function):
    """Guidance plus correction as `Guided` computes it, from patches to cells; the gradient goes back to patches."""

    @staticmethod
    def forward(
        ctx, channels: Tensor, coded: Tensor, intercept: Tensor, slope: Tensor, trust: float, patch: int, library: Library
    ) -> Tensor:
        """Return intercept + slope · guidance + trust · correction (case, lead, rate, y, x), NaN where guidance is missing.

        channels: correction (case, lead, rate × patch², y / patch, x / patch) float32, or bfloat16 with a library for it
        coded: guidance (case, lead, rate, y, x) int8
        intercept, slope: (lead, rate)
        """
        ctx.shape, ctx.trust, ctx.patch, ctx.library, ctx.dtype = coded.shape, trust, patch, library, channels.dtype
        read = [coded.contiguous(), channels.permute(1, 0, 3, 4, 2).contiguous(), intercept.contiguous(), slope.contiguous()]
        odds = torch.empty(coded.shape)
        library.corrected(
            *(tensor.data_ptr() for tensor in read),
            *coded.shape,
            patch,
            MISSING,
            trust,
            odds.data_ptr(),
            torch.get_num_threads(),
        )
        return odds

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradient.contiguous()
        patches = _empty_patches(ctx.shape, ctx.patch, ctx.shape[2] * ctx.patch**2, ctx.dtype)
        ctx.library.folded(gradient.data_ptr(), *ctx.shape, ctx.patch, ctx.trust, patches.data_ptr(), torch.get_num_threads())
        return patches.permute(1, 0, 4, 2, 3), *[None] * 6


def fed(library: Library, coded: Tensor, intercept: Tensor, slope: Tensor, *, patch: int, stride: int, absent: float) -> Tensor:
    """Return intercept + slope · guidance of every `stride`-th rate in patches, then the fraction of known cells.

    coded: guidance (case, lead, rate, y, x) int8
    intercept, slope: (lead, fed rate)
    absent: value where guidance is missing
    returns: (case, lead, fed rate × patch² + 1, y / patch, x / patch)
    """
    chosen = intercept.shape[1]
    read, patches = (
        [coded.contiguous(), intercept.contiguous(), slope.contiguous()],
        _empty_patches(coded.shape, patch, chosen * patch**2 + 1),
    )
    library.fed(
        *(tensor.data_ptr() for tensor in read), *coded.shape, patch, MISSING, chosen, stride, absent, patches.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return patches.permute(1, 0, 4, 2, 3)


def _empty_patches(shape: torch.Size, patch: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate patches for cells of this shape, with the channels innermost in memory, as the engine expects."""
    cases, leads, _, y, x = shape
    return torch.empty(leads, cases, -(-y // patch), -(-x // patch), channels, dtype=dtype)
