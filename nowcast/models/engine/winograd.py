"""Compute 3 × 3 and 5 × 5 convolutions by Winograd's algorithm, on a CPU in float32.

    Y = Aᵀ [ Σ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

Lavin & Gray (2016), arXiv 1509.09308, equations 8 and 12, as F(4×4, 3×3) and F(3×3, 5×5). d is a tile of the input, g a kernel,
Y a tile of 4 × 4 or 3 × 3 cells of the output, and the sum is over input channels. It takes 4 and 4.6 times fewer
multiplications than the direct sum. The algorithm multiplies polynomials through their values at a few points; the points
chosen here gave small rounding errors. The sum is one matrix product for each pair of points. winograd.c does all but the
transform of the weights.

Tensors are (case, channel, y, x) with the channels innermost in memory.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, SIZE, Source

SOURCE = Source(
    Path(__file__).with_name("winograd.c"),
    "the convolutions",
    {
        "convolve": [POINTER, SIZE, POINTER, SIZE, POINTER, POINTER, *[SIZE] * 5, POINTER],
        "weight_gradient": [POINTER, SIZE, POINTER, SIZE, POINTER, *[SIZE] * 4, POINTER],
    },
)
TILE = {3: 4, 5: 3}  # cells: side of an output tile for each kernel size; 4 for 5 × 5 has twice the rounding error
# Points of each kernel size at which polynomials are evaluated, besides infinity.
POINTS = {3: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2), 5: (9 / 32, -9 / 32, 27 / 32, -27 / 32, 7 / 4, -7 / 4)}
ROWS, PAD = 6, 16  # must be those of winograd.c
TILES_AT_ONCE = 48  # tiles that a thread transforms at once; the result stays in the CPU's cache
TILES_OF_GRADIENT = 192  # tiles that all threads together transform at once for the weight gradient
# Fewest channels, and fewest grid cells for each kernel size. Below them the transforms take longer than they save in training.
MANY_CHANNELS, MANY_PLACES = 32, {3: 1024, 5: 256}


def takes(weight: Tensor, grid: tuple[int, int]) -> bool:
    """Return whether convolutions with this weight (out, in, y, x) are faster here than torch's on a grid (y, x)."""
    many = min(weight.shape[:2]) >= MANY_CHANNELS and math.prod(grid) >= MANY_PLACES.get(weight.shape[-1], math.inf)
    return many and weight.device.type == "cpu" and weight.dtype == torch.float32 and library(weight.shape[-1]) is not None


class Convolution:
    """A convolution with a weight (out channel, channel, y, x), which is transformed once."""

    def __init__(self, weight: Tensor):
        self.out_channels, self.channels, _, self.kernel = weight.shape
        self.library, self.panel = library(self.kernel), _panel(self.kernel)
        padded = weight.new_zeros(_round_up(self.out_channels, self.panel), self.channels, self.kernel**2)
        padded[: self.out_channels] = weight.flatten(2)
        # (panel, point, channel × output channel of the panel)
        self.weights = _weight_transform(self.kernel) @ padded.unflatten(0, (-1, self.panel)).permute(0, 3, 2, 1).flatten(2)

    def __call__(self, one: Tensor, two: Tensor | None = None) -> Tensor:
        """Convolve one tensor, or two joined along their channels, with zero padding.

        one: (case, channel, y, x), the first channels of the weight
        two: (case, channel, y, x), the other channels; None for zeros
        returns: (case, out channel, y, x)
        """
        (cases, channels, y, x), threads = one.shape, torch.get_num_threads()
        block = min(TILES_AT_ONCE, _round_up(math.ceil(_num_tiles(one, self.kernel) / threads), ROWS))
        scratch = torch.empty(threads * block * self.weights.shape[1] * (self.channels + PAD + self.panel))
        out = torch.empty(cases, y, x, self.out_channels).movedim(-1, 1)
        self.library.convolve(
            one.data_ptr(), channels, None if two is None else two.data_ptr(), self.channels - channels,
            self.weights.data_ptr(), out.data_ptr(), self.out_channels, cases, y, x, block, scratch.data_ptr(), threads,
        )  # fmt: skip
        return out


def weight_gradient(d_out: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Compute the gradient of a convolution's weight: Gᵀ [ Σ (A d_out Aᵀ) ⊙ (Bᵀ d B) ] G, summed over tiles and cases.

    d_out: (case, out channel, y, x), gradient of the output
    values: (case, channel, y, x), input
    weight: (out channel, channel, y, x)
    returns: gradient of the weight, of its shape
    """
    (cases, out_channels, y, x), channels, kernel = d_out.shape, weight.shape[1], weight.shape[-1]
    block, transform = min(TILES_OF_GRADIENT, _num_tiles(values, kernel)), _weight_transform(kernel)
    rows, columns = _round_up(channels, ROWS), _round_up(out_channels, _panel(kernel))
    total = torch.zeros(len(transform), rows, columns)
    scratch = torch.empty(len(transform) * block * (rows + columns + 2 * PAD))
    library(kernel).weight_gradient(
        values.data_ptr(), channels, d_out.data_ptr(), out_channels, total.data_ptr(),
        cases, y, x, block, scratch.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    gradient = transform.t() @ total[:, :channels, :out_channels].flatten(1)
    return gradient.view(kernel, kernel, channels, out_channels).permute(3, 2, 0, 1)


def matrices(kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Aᵀ (tile, n), G (n, kernel) and Bᵀ (n, n), where n = tile + kernel - 1, by the method of Toom and Cook.

    A convolution is the transpose of a product of polynomials. G and A evaluate the polynomials at the points; Bᵀ is the
    transpose of the interpolation between them.
    """
    points, tile = np.array(POINTS[kernel]), TILE[kernel]
    infinity = np.eye(len(points) + 1)[-1:]
    others = [np.delete(points, n) for n in range(len(points))]
    scale = [np.prod(point - other) for point, other in zip(points, others, strict=True)]
    output = np.vstack([np.vander(points, tile, increasing=True), infinity[:, -tile:]]).T
    weight = np.vstack([np.vander(points, kernel, increasing=True) / np.array(scale)[:, None], infinity[:, -kernel:]])
    coefficients = [np.append(np.poly(other)[::-1], 0) for other in others]
    return output, weight, np.vstack([*coefficients, np.poly(points)[::-1]])


@cache
def _weight_transform(kernel: int) -> Tensor:
    """Return G ⊗ G: (pair of points, cell of the kernel)."""
    weight = matrices(kernel)[1]
    return torch.from_numpy(np.kron(weight, weight)).float()


@cache
def library(kernel: int) -> compiled.Library | None:
    """Return winograd.c compiled for this kernel size, or None if that fails."""
    output, _, values = matrices(kernel)
    tables = {"INPUT": values, "OUTPUT": output, "GRADIENT": output.T}
    sizes = (f"KERNEL={kernel}", f"TILE={TILE[kernel]}")
    return compiled.load(SOURCE, *sizes, *(f"{name}={_table(table)}" for name, table in tables.items()))


def _table(matrix: np.ndarray) -> str:
    """Write a matrix as an initializer in C."""
    return "{" + ",".join("{" + ",".join(f"{float(number)!r}f" for number in row) + "}" for row in matrix) + "}"


def _panel(kernel: int) -> int:
    """Return the number of output channels that winograd.c computes at once."""
    return compiled.constant(library(kernel), "panel")


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _num_tiles(images: Tensor, kernel: int) -> int:
    return len(images) * math.ceil(images.shape[-2] / TILE[kernel]) * math.ceil(images.shape[-1] / TILE[kernel])
