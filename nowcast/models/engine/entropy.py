"""Compute the cross entropies of log-odds that are linear in a network's outputs, with their gradient, in one pass in C.

On a CPU, in float32 (entropy.c). Elsewhere, and without a compiler, losses.py computes them threshold by threshold in torch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, SIZE, Library, Source

SOURCE = Source(
    Path(__file__).with_name("entropy.c"),
    "cross entropies",
    {"cross_entropies": [*[POINTER] * 3, *[SIZE] * 4, *[POINTER] * 5]},
)


def library_for(outputs: Tensor) -> Library | None:
    """Return the compiled library if it can work on these outputs, else None: fake tensors, too, have no memory to read.

    outputs: (case, lead, parameter, y, x)
    """
    takes = outputs.device.type == "cpu" and outputs.dtype == torch.float32 and type(outputs) is Tensor
    return compiled.load(SOURCE) if takes else None


class LinearCrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross entropies of several thresholds; the gradient is computed in the same pass."""

    @staticmethod
    def forward(
        ctx, outputs: Tensor, observed: Tensor, known: Tensor, coefficients: Sequence[Sequence[float]],
        thresholds: Sequence[float], weights: Sequence[float] | Tensor, library: Library,
    ) -> Tensor:  # fmt: skip
        """Return the sum over known cells and thresholds of the weighted cross entropy, a scalar.

        outputs: (case, lead, parameter, y, x) float32
        observed: (case, lead, y, x) mm/h
        known: (case, lead, y, x) bool
        coefficients: (threshold, parameter); the log-odds are the sum of the outputs times these
        weights: (threshold)
        """
        outputs, observed, known = outputs.contiguous(), observed.float().contiguous(), known.contiguous()
        fields, cells = outputs.shape[0] * outputs.shape[1], outputs.shape[3] * outputs.shape[4]
        tables = [torch.as_tensor(values, dtype=torch.float32).contiguous() for values in (coefficients, thresholds, weights)]
        gradient = torch.empty_like(outputs)
        sums = torch.zeros(fields, len(thresholds), dtype=torch.float64)
        library.cross_entropies(
            *(tensor.data_ptr() for tensor in (outputs, observed, known)), fields, outputs.shape[2], cells, len(thresholds),
            *(tensor.data_ptr() for tensor in (*tables, sums, gradient)), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(gradient)
        return (sums.sum(dim=0) * tables[-1]).sum().float()

    @staticmethod
    def backward(ctx, given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # in its own memory: new memory takes several times as long; a training's sum has a gradient of 1
        return gradient if given == 1 else gradient.mul_(given), *[None] * 6
