"""Convolutions of 3 × 3 and 5 × 5 by Winograd's algorithm, for a CPU in float32: 4 and 4.6 times fewer multiplications.

    Y = Aᵀ [ Σ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

Lavin & Gray (2016), arXiv 1509.09308, eq. 8 and 12, F(4×4, 3×3) and F(3×3, 5×5): d is a tile of the input, g a kernel, Y 4 × 4
or 3 × 3 places of the output, the sum over input channels. Polynomials are multiplied through their values at a few points;
those chosen here were found to round little. The sum is a matrix product for each pair of points; winograd.c
does all of it but the transforms of the weights.
Tensors are (case, channel, y, x) with the channels innermost in memory.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nowcast.runtime import compiled

TILE = {3: 4, 5: 3}  # 4 for 5 × 5 has twice the error
POINTS = {3: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2), 5: (9 / 32, -9 / 32, 27 / 32, -27 / 32, 7 / 4, -7 / 4)}  # and infinity
ROWS, PAD = 6, 16  # as in winograd.c
TILES_AT_ONCE = 48  # of a thread: what they are transformed into stays in the cache
TILES_OF_GRADIENT = 192  # of all threads
# below them, the transforms cost more than they save, at least in training
MANY_CHANNELS, MANY_PLACES = 32, {3: 1024, 5: 256}


def takes(weight: Tensor, grid: tuple[int, int]) -> bool:
    """Whether convolutions with this weight (out, in, y, x) are faster on such a grid (y, x) than torch's."""
    many = min(weight.shape[:2]) >= MANY_CHANNELS and math.prod(grid) >= MANY_PLACES.get(weight.shape[-1], math.inf)
    return many and weight.device.type == "cpu" and weight.dtype == torch.float32 and library(weight.shape[-1]) is not None


class Convolution:
    """With one weight (out, in, y, x), transformed once; of one image or of two that are joined."""

    def __init__(self, weight: Tensor):
        self.out_channels, self.channels, _, self.kernel = weight.shape
        self.library, self.panel = library(self.kernel), _panel(self.kernel)
        padded = weight.new_zeros(_up(self.out_channels, self.panel), self.channels, self.kernel**2)
        padded[: self.out_channels] = weight.flatten(2)
        # (panel, point, channel × output channel of the panel)
        self.weights = _weight_transform(self.kernel) @ padded.unflatten(0, (-1, self.panel)).permute(0, 3, 2, 1).flatten(2)

    def __call__(self, one: Tensor, two: Tensor | None = None) -> Tensor:
        """`one` has the weight's first channels, `two` the others; without `two` they are taken as 0."""
        (cases, channels, y, x), threads = one.shape, torch.get_num_threads()
        block = min(TILES_AT_ONCE, _up(math.ceil(_tiles(one, self.kernel) / threads), ROWS))
        scratch = torch.empty(threads * block * self.weights.shape[1] * (self.channels + PAD + self.panel))
        out = torch.empty(cases, y, x, self.out_channels).movedim(-1, 1)
        self.library.convolve(
            one.data_ptr(), channels, None if two is None else two.data_ptr(), self.channels - channels,
            self.weights.data_ptr(), out.data_ptr(), self.out_channels, cases, y, x, block, scratch.data_ptr(), threads,
        )  # fmt: skip
        return out


def weight_gradient(d_out: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Of the convolution of `values` with `weight`: Gᵀ [ Σ (A d_out Aᵀ) ⊙ (Bᵀ d B) ] G, the sum over tiles and cases."""
    (cases, out_channels, y, x), channels, kernel = d_out.shape, weight.shape[1], weight.shape[-1]
    block, transform = min(TILES_OF_GRADIENT, _tiles(values, kernel)), _weight_transform(kernel)
    rows, columns = _up(channels, ROWS), _up(out_channels, _panel(kernel))
    total = torch.zeros(len(transform), rows, columns)
    scratch = torch.empty(len(transform) * block * (rows + columns + 2 * PAD))
    library(kernel).weight_gradient(
        values.data_ptr(), channels, d_out.data_ptr(), out_channels, total.data_ptr(),
        cases, y, x, block, scratch.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    gradient = transform.t() @ total[:, :channels, :out_channels].flatten(1)
    return gradient.view(kernel, kernel, channels, out_channels).permute(3, 2, 0, 1)


def matrices(kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ (tile, n), G (n, kernel) and Bᵀ (n, n), n = tile + kernel - 1, after Toom and Cook.

    An output is the transpose of a product of polynomials: G and A take the values of the two, Bᵀ interpolates.
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
    """G ⊗ G, (point, place of the kernel)."""
    weight = matrices(kernel)[1]
    return torch.from_numpy(np.kron(weight, weight)).float()


@cache
def library(kernel: int) -> compiled.Library | None:
    output, _, values = matrices(kernel)
    tables = {"INPUT": values, "OUTPUT": output, "GRADIENT": output.T}
    sizes = (f"KERNEL={kernel}", f"TILE={TILE[kernel]}")
    return compiled.load(*sizes, *(f"{name}={_table(table)}" for name, table in tables.items()), source="winograd")


def _table(matrix: np.ndarray) -> str:
    """As C writes it."""
    return "{" + ",".join("{" + ",".join(f"{float(number)!r}f" for number in row) + "}" for row in matrix) + "}"


def _panel(kernel: int) -> int:
    return compiled.constant(library(kernel), "panel")


def _up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _tiles(images: Tensor, kernel: int) -> int:
    return len(images) * math.ceil(images.shape[-2] / TILE[kernel]) * math.ceil(images.shape[-1] / TILE[kernel])
