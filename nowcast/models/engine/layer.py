"""Run one ConvLSTM layer over a whole sequence of frames, with a backward pass of its own.

It computes the same as the cell in convlstm.py, faster. The forward pass computes at each time the convolutions, and then the
gates and states in one pass over memory (gates.py). It keeps only the gate values and the states for the backward
pass. The backward pass computes at each time the gradients of the gates and of the state, and at the end the gradients of
weights and inputs for all times at once. Convolutions are computed by torch, or for many channels by winograd.py.

Tensors are (time, case, channel, y, x) with the channels innermost in memory ("channels last"). Cell states are float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nowcast.models.engine import winograd
from nowcast.models.engine.gates import GateArithmetic, gate_arithmetic

Kernel, Grid = Tensor | winograd.Convolution, tuple[int, int]

PLACES_AT_ONCE = 4096  # grid cells in one matrix product of the weight gradient, so that its inputs stay in the CPU's cache
FEW_CHANNELS = 8  # with fewer channels, joining convolutions and computing gradients by matrix products is not faster


def run_layer(
    frames: Tensor | None,
    state: tuple[Tensor, Tensor] | None,
    like: Tensor,
    num_steps: int,
    *,
    input_weight: Tensor | None,
    state_weight: Tensor,
    bias: Tensor,
    peepholes: Tensor | None,
    activations: tuple[str, str],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Compute the hidden states of a layer at `num_steps` times, and its last state (hidden, cell).

        frames: (time, case, channel, y, x), or None for a layer without input
        state: hidden and cell, (case, hidden channel, y, x) each, or None for zeros
        like: (case, channel, y, x), gives the number of cases, the grid and the device
        input_weight, state_weight: (4 × hidden channel, channel, y, x)
        bias: (4 × hidden channel) float32
        peepholes: (3, hidden channel, 1, 1) float32, or None
        returns: (time, case, hidden channel, y, x), and the last state

    If autocast is on, the arithmetic is in its dtype. Raises ValueError for a state of another shape.
    """
    device = like.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else state_weight.dtype
    hidden, cell = state if state is not None else (None, None)
    shape = (num_steps, len(like), state_weight.shape[1], *like.shape[-2:])
    _check_state(state, shape[1:])
    tensors = (frames, hidden, cell, input_weight, state_weight, bias, peepholes)
    gates = gate_arithmetic(*activations, device, dtype)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            hidden, last_cell = LayerSequence.apply(*tensors, gates, shape, dtype)
        else:
            hidden, last_cell = _without_gradient(*tensors, gates, shape, dtype)
    return hidden, (hidden[-1], last_cell)


def _check_state(state: tuple[Tensor, Tensor] | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError if the hidden and the cell state have another shape."""
    if state is not None and not state[0].shape == state[1].shape == shape:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in state)
        raise ValueError(f"the state has shapes {shapes}; both should be {shape}")


def _without_gradient(frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, gates, shape, dtype):
    """Return the hidden states at all times and the last cell state. Arguments as `LayerSequence.forward`."""
    frames, hidden0 = _channels_last(frames, dtype), _channels_last(hidden0, dtype)
    convolve = _Convolutions(frames, input_weight, state_weight, dtype, shape[-2:])
    cell0 = _channels_last(cell0, torch.float32)
    _, cells, hidden = _run(convolve, hidden0, cell0, bias, peepholes, gates, shape, dtype, keep=False)
    return hidden, cells[(shape[0] - 1) % 2]


class LayerSequence(torch.autograd.Function):
    """Autograd function of a layer; `apply` returns the hidden states at all times and the last cell state."""

    @staticmethod
    def forward(ctx: Any, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, gates, shape, dtype):
        ctx.gates, ctx.dtype, ctx.frames_dtype = gates, dtype, None if frames is None else frames.dtype
        ctx.state_dtype = None if hidden0 is None else hidden0.dtype
        frames, hidden0, cell0 = (
            _channels_last(frames, dtype),
            _channels_last(hidden0, dtype),
            _channels_last(cell0, torch.float32),
        )
        convolve = _Convolutions(frames, input_weight, state_weight, dtype, shape[-2:])
        values, cells, hidden = _run(convolve, hidden0, cell0, bias, peepholes, gates, shape, dtype, keep=True)
        ctx.save_for_backward(frames, hidden0, cell0, input_weight, state_weight, peepholes, values, cells, hidden)
        return hidden, cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_cell: Tensor):
        if ctx.gates is None:
            raise RuntimeError("the backward pass overwrites what the forward pass kept: it can be called once")
        gates, ctx.gates = ctx.gates, None
        frames, hidden0, cell0, input_weight, state_weight, peepholes, values, cells, hidden = ctx.saved_tensors
        needs = ctx.needs_input_grad
        state_kernel = _backward_kernel(state_weight, ctx.dtype, hidden.shape[-2:])
        d_hidden, d_cell = _channels_last(d_hidden, ctx.dtype), _channels_last(d_cell.float(), torch.float32).clone()
        d_peepholes = torch.zeros_like(peepholes) if peepholes is not None else None
        d_next = None
        for time in reversed(range(len(values))):
            before = cells[time - 1] if time else _or_zeros(cell0, d_cell)
            gates.backward(values[time], before, cells[time], peepholes, d_hidden[time], d_next, d_cell)
            if d_peepholes is not None:
                d_peepholes += _peephole_gradient(values[time], before, cells[time])
            if time or needs[1]:
                d_next = _state_gradient(values[time], hidden[0], state_kernel)
        d_frames = d_input_weight = None
        if frames is not None:
            d_all = values.flatten(0, 1)
            d_input_weight = _weight_gradient(d_all, frames.flatten(0, 1), input_weight)
            if needs[0]:
                kernel = _backward_kernel(input_weight, ctx.dtype, hidden.shape[-2:])
                d_frames = _over_time(_input_gradient(d_all, frames.flatten(0, 1), kernel), frames.shape).to(ctx.frames_dtype)
        d_state_weight = _state_weight_gradient(values, hidden, hidden0, state_weight)
        d_bias = _bias_gradient(values)
        d_hidden0 = d_next.to(ctx.state_dtype) if needs[1] else None
        return (d_frames, d_hidden0, d_cell if needs[2] else None,
                d_input_weight, d_state_weight, d_bias, d_peepholes, None, None, None)  # fmt: skip


def _run(
    convolve: "_Convolutions", hidden0: Tensor | None, cell0: Tensor | None, bias: Tensor, peepholes: Tensor | None,
    gates: GateArithmetic, shape: tuple[int, ...], dtype: torch.dtype, *, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the forward pass. Return gate values, cell states and hidden states, each with a time axis.

    With `keep = False`, gate values are those of the last time only, and there are two cell states, used in turn: inductor
    cannot compile a function that writes to its own input.
    """
    hidden = _empty(shape, 1, like=bias, dtype=dtype)
    values = _empty(shape if keep else (1, *shape[1:]), 4, like=bias, dtype=dtype)
    cells = _empty(shape if keep else (min(2, shape[0]), *shape[1:]), 1, like=bias, dtype=torch.float32)
    h, c = hidden0, _or_zeros(cell0, cells[0])
    for time in range(shape[0]):
        gates_now, cell = values[time if keep else 0], cells[time if keep else time % 2]
        from_input, from_state = convolve(time, h, like=gates_now)
        gates.forward(from_input, from_state, bias, peepholes, c, gates_now, cell, hidden[time])
        h, c = hidden[time], cell
    return values, cells, hidden


class _Convolutions:
    """The convolutions at one time. If the kernels of input and state have the same size, both are computed as one, faster."""

    def __init__(
        self, frames: Tensor | None, input_weight: Tensor | None, state_weight: Tensor, dtype: torch.dtype, grid: Grid
    ):
        self.frames, self.joined, self.kernel = frames, None, None
        same_size = frames is not None and input_weight.shape[-1] == state_weight.shape[-1]
        if same_size and _by_winograd(state_weight, dtype, grid):
            self.kernel = winograd.Convolution(torch.cat([input_weight, state_weight], dim=1))
            return
        self.state_kernel = _kernel(state_weight, dtype, grid)
        self.input_kernel = None if frames is None else _kernel(input_weight, dtype, grid)
        if same_size and input_weight.shape[1] >= FEW_CHANNELS:
            self.kernel = _direct_kernel(torch.cat([input_weight, state_weight], dim=1), dtype)
            shape = (frames.shape[1], self.kernel.shape[1], *frames.shape[-2:])
            self.joined = _empty(shape, 1, like=frames, dtype=dtype)

    def __call__(self, time: int, hidden: Tensor | None, *, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """Compute the gates' arguments as two summands: from the input (None if included in the second), and from the state."""
        if self.frames is None:
            return None, torch.zeros_like(like) if hidden is None else _convolve(hidden, self.state_kernel)
        frame = self.frames[time]
        if isinstance(self.kernel, winograd.Convolution):
            return None, self.kernel(frame, hidden)
        if hidden is None:
            return None, _convolve(frame, self.input_kernel)
        if self.joined is None:
            return _convolve(frame, self.input_kernel), _convolve(hidden, self.state_kernel)
        self.joined[:, : frame.shape[1]].copy_(frame)
        self.joined[:, frame.shape[1] :].copy_(hidden)
        return None, _convolve(self.joined, self.kernel)


def _or_zeros(state: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if state is None else state


def _empty(shape: tuple[int, ...], times: int, *, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Allocate (..., times × channel, y, x) with the channels innermost in memory."""
    *leading, channels, y, x = shape
    return torch.empty(*leading, y, x, times * channels, device=like.device, dtype=dtype).movedim(-1, -3)


def _channels_last(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the tensor in this dtype with the channels innermost in memory; the same tensor if it is so already."""
    return None if values is None else values.to(dtype).movedim(-3, -1).contiguous().movedim(-1, -3)


def _over_time(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Turn (time × case, ...) into (time, case, ...)."""
    return _channels_last(values, values.dtype).unflatten(0, shape[:2])


def _by_winograd(weight: Tensor, dtype: torch.dtype, grid: Grid) -> bool:
    return dtype == torch.float32 and winograd.takes(weight, grid)


def _kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    return winograd.Convolution(weight) if _by_winograd(weight, dtype, grid) else _direct_kernel(weight, dtype)


def _direct_kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype, memory_format=torch.channels_last)


def _backward_kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    """Return the kernel of the input's gradient: a convolution with the weight rotated by 180°, its channels exchanged."""
    if _by_winograd(weight, dtype, grid):
        return winograd.Convolution(weight.flip(2, 3).transpose(0, 1))
    return _direct_kernel(weight, dtype)


def _convolve(values: Tensor, kernel: Kernel) -> Tensor:
    """Convolve with zero padding, so that the grid stays the same."""
    if isinstance(kernel, winograd.Convolution):
        return kernel(values)
    if _is_faster_channels_first(values, kernel):
        values, kernel = values.contiguous(), kernel.contiguous()
    return _channels_last(F.conv2d(values, kernel, padding=kernel.shape[-1] // 2), values.dtype)


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


def _input_gradient(d_out: Tensor, like: Tensor, kernel: Kernel) -> Tensor:
    if isinstance(kernel, winograd.Convolution):
        return kernel(d_out)
    return _gradient(d_out, like, kernel, (True, False, False))[0]


def _state_gradient(d_gates: Tensor, like: Tensor, kernel: Kernel) -> Tensor:
    if isinstance(kernel, Tensor) and _is_faster_channels_first(d_gates, kernel):
        d_gates, like, kernel = d_gates.contiguous(), torch.empty(like.shape), kernel.contiguous()
    return _channels_last(_input_gradient(d_gates, like, kernel), d_gates.dtype)


def _weight_gradient(d_out: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    if _by_winograd(weight, d_out.dtype, d_out.shape[-2:]):
        return winograd.weight_gradient(d_out, values, weight)
    if values.device.type == "cpu" and values.dtype == torch.float32 and weight.shape[1] >= FEW_CHANNELS:
        return weight_gradient_by_products(d_out, values, weight)
    return _gradient(d_out, values, _direct_kernel(weight, d_out.dtype), (False, True, False))[1].to(weight.dtype)


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


def _state_weight_gradient(d_gates: Tensor, hidden: Tensor, hidden0: Tensor | None, weight: Tensor) -> Tensor:
    total = torch.zeros_like(weight)
    if len(hidden) > 1:
        total = total + _weight_gradient(d_gates[1:].flatten(0, 1), hidden[:-1].flatten(0, 1), weight)
    return total if hidden0 is None else total + _weight_gradient(d_gates[0], hidden0, weight)


def _bias_gradient(d_gates: Tensor) -> Tensor:
    """Return the sum (gate channel) float32 over times, cases and cells of (time, case, gate channel, y, x)."""
    if d_gates.dtype == torch.float32:
        return d_gates.sum(dim=(0, 1, 3, 4))
    sums = [of_time.sum(dim=(0, 2, 3), dtype=torch.float32) for of_time in d_gates]  # torch first makes all float32
    return torch.stack(sums).sum(dim=0)


def _peephole_gradient(d_gates: Tensor, before: Tensor, cell: Tensor) -> Tensor:
    d_i, d_f, _, d_o = d_gates.float().chunk(4, dim=1)
    sums = [(d * c).sum(dim=(0, 2, 3)) for d, c in ((d_i, before), (d_f, before), (d_o, cell))]
    return torch.stack(sums)[..., None, None]
