"""The convolutions of a ConvLSTM layer and their gradients, by torch, as matrix products or by winograd.py.

Tensors are (case, channel, y, x) with the channels innermost in memory ("channels last").
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from nowcast.models.engine import winograd
from nowcast.runtime.threads import in_torch_threads

Kernel, Grid = Tensor | winograd.Convolution, tuple[int, int]

PLACES_AT_ONCE = 4096  # grid cells in one matrix product of the weight gradient, so that its inputs stay in the CPU's cache
MOST_PARTS = 16  # of the cases whose weight gradients are computed side by side: each takes the memory of one
FEW_CHANNELS = 8  # with fewer channels, joining convolutions and computing gradients by matrix products is not faster


def channels_last(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the tensor (…, channel, y, x) in this dtype, the channels innermost in memory; itself if it is so already."""
    return None if values is None else values.to(dtype).movedim(-3, -1).contiguous().movedim(-1, -3)


def layer_arguments(
    frames: Tensor | None, hidden: Tensor | None, cell: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return frames and first state (…, channel, y, x), channels innermost, in this dtype; the cell state in float32."""
    return channels_last(frames, dtype), channels_last(hidden, dtype), channels_last(cell, torch.float32)


def by_winograd(weight: Tensor, dtype: torch.dtype, grid: Grid) -> bool:
    """Return whether convolutions with this weight (out channel, channel, y, x) are computed by winograd.py on a grid."""
    return dtype == torch.float32 and winograd.takes(weight, grid)


def forward_kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    """Return the kernel of a convolution with this weight (out channel, channel, y, x)."""
    return winograd.Convolution(weight) if by_winograd(weight, dtype, grid) else direct_kernel(weight, dtype)


def direct_kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the kernel of torch's convolution with this weight (out channel, channel, y, x)."""
    return weight.to(dtype, memory_format=torch.channels_last)


def backward_kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    """Return the kernel of the input's gradient: a convolution with the weight rotated by 180°, its channels exchanged.

    weight: (out channel, channel, y, x)
    """
    if by_winograd(weight, dtype, grid):
        return winograd.Convolution(weight.flip(2, 3).transpose(0, 1))
    return direct_kernel(weight, dtype)


def convolve(values: Tensor, kernel: Kernel) -> Tensor:
    """Convolve values (case, channel, y, x) with zero padding, so that the grid stays the same."""
    if isinstance(kernel, winograd.Convolution):
        return kernel(values)
    if _is_faster_channels_first(values, kernel):
        values, kernel = values.contiguous(), kernel.contiguous()
    return channels_last(F.conv2d(values, kernel, padding=kernel.shape[-1] // 2), values.dtype)


def _is_faster_channels_first(values: Tensor, kernel: Tensor) -> bool:
    """Return whether torch is faster with the channels outermost: so on CPUs with AVX2 but not AVX-512, where a 5 × 5
    convolution takes 1.2 (forward) to 1.5 (backward) times as long with the channels innermost."""
    avx2 = values.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return avx2 and values.dtype == torch.float32 and kernel.shape[-1] > 3


def _gradient(d_out: Tensor, values: Tensor, kernel: Tensor, wanted: tuple[bool, bool, bool]) -> tuple:
    padding = kernel.shape[-1] // 2
    return torch.ops.aten.convolution_backward(
        d_out, values, kernel, None, (1, 1), (padding, padding), (1, 1), False, (0, 0), 1, wanted
    )


def input_gradient(d_out: Tensor, like: Tensor, kernel: Kernel) -> Tensor:
    """Return the gradient of a convolution's input, of the shape of `like`; d_out (case, out channel, y, x) of its output."""
    if isinstance(kernel, winograd.Convolution):
        return kernel(d_out)
    return _gradient(d_out, like, kernel, (True, False, False))[0]


def state_gradient(d_gates: Tensor, like: Tensor, kernel: Kernel) -> Tensor:
    """Return the gradient of a hidden state, of the shape of `like`; d_gates (case, gate channel, y, x)."""
    if isinstance(kernel, Tensor) and _is_faster_channels_first(d_gates, kernel):
        d_gates, like, kernel = d_gates.contiguous(), torch.empty(like.shape), kernel.contiguous()
    return channels_last(input_gradient(d_gates, like, kernel), d_gates.dtype)


def weight_gradient(d_out: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of a convolution's weight, of its shape and dtype.

    d_out: (case, out channel, y, x), gradient of the output
    values: (case, channel, y, x), input
    weight: (out channel, channel, y, x)
    """
    if by_winograd(weight, d_out.dtype, d_out.shape[-2:]):
        return winograd.weight_gradient(d_out, values, weight)
    if values.device.type == "cpu" and values.dtype == torch.float32 and weight.shape[1] >= FEW_CHANNELS:
        return weight_gradient_by_products(d_out, values, weight)
    kernel = direct_kernel(weight, d_out.dtype)
    if d_out.dtype == torch.bfloat16 and type(d_out) is Tensor and d_out.device.type == "cpu" and not is_compiling():
        return _weight_gradient_in_parts(d_out, values, kernel).to(weight.dtype)
    return _gradient(d_out, values, kernel, (False, True, False))[1].to(weight.dtype)


def _weight_gradient_in_parts(d_out: Tensor, values: Tensor, kernel: Tensor) -> Tensor:
    """Return the gradient (float32) of a convolution's weight, computed for as many parts of the cases as there are threads.

    At least two parts, so that one thread gives the same as two. oneDNN's own threads spin while they wait for each other in
    this convolution, which takes many times as long beside busy processes. Arguments as `weight_gradient`.
    """
    number = min(max(torch.get_num_threads(), 2), MOST_PARTS, len(d_out))
    parts = zip(d_out.tensor_split(number), values.tensor_split(number), strict=True)
    gradients = in_torch_threads(lambda part: _gradient(*part, kernel, (False, True, False))[1].float(), list(parts))
    return sum(gradients[1:], start=gradients[0])


def weight_gradient_by_products(
    d_out: Tensor, values: Tensor, weight: Tensor, *, places_at_once: int = PLACES_AT_ONCE
) -> Tensor:
    """Compute the gradient of a convolution's weight by matrix products, in 0.6 of torch's time on a CPU in float32.

        d_out: (case, out channel, y, x), gradient of the output
        values: (case, channel, y, x), input
        weight: (out channel, channel, y, x)
        returns: gradient of the weight, of its shape

    The rows of `values` are copied once for each shift along x; a shift along y is then only an offset in memory.
    """
    cases, out_channels, y, x = d_out.shape
    channels, kernel = weight.shape[1], weight.shape[-1]
    reach, at_once = kernel // 2, min(max(places_at_once // (y * x), 1), cases)
    total = torch.zeros(kernel, out_channels, kernel * channels)
    shifted = torch.zeros(y + 2 * reach, at_once, x, kernel, channels)
    for first in range(0, cases, at_once):
        d_rows = d_out[first : first + at_once].permute(2, 0, 3, 1)  # (y, case, x, channel)
        rows = values[first : first + at_once].permute(2, 0, 3, 1)
        number = rows.shape[1]
        for column in range(kernel):
            start, end = max(reach - column, 0), min(x + reach - column, x)
            if start < end:
                shifted[reach : reach + y, :number, start:end, column] = rows[
                    :, :, start + column - reach : end + column - reach
                ]
        d_flat = d_rows.reshape(-1, out_channels).t()
        for row in range(kernel):
            total[row].addmm_(d_flat, shifted[row : row + y, :number].reshape(-1, kernel * channels))
    return total.view(kernel, out_channels, kernel, channels).permute(1, 3, 0, 2).to(weight.dtype)
