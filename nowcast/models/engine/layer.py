"""Run one ConvLSTM layer over a whole sequence of frames, with a backward pass of its own.

It computes the same as the cell in convlstm.py, faster. The forward pass computes at each time the convolutions, and then the
gates and states in one pass over memory (gates.py). It keeps only the gate values and the states for the backward
pass. The backward pass computes at each time the gradients of the gates and of the state, and at the end the gradients of
weights and inputs for all times at once (convolutions.py).

Tensors are (time, case, channel, y, x) with the channels innermost in memory ("channels last"). Cell states are float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nowcast.models.engine import winograd
from nowcast.models.engine.amx import layer as amx_layer
from nowcast.models.engine.amx.functions import layer_functions
from nowcast.models.engine.convolutions import (
    FEW_CHANNELS,
    Grid,
    backward_kernel,
    by_winograd,
    channels_last,
    convolve,
    direct_kernel,
    forward_kernel,
    input_gradient,
    layer_arguments,
    state_gradient,
    weight_gradient,
)
from nowcast.models.engine.gates import GateArithmetic, gate_arithmetic, peephole_gradient


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
    functions = layer_functions(state_weight, dtype, activations)
    if functions is None:
        how = (gate_arithmetic(*activations, device, dtype), shape, dtype)
        with_gradient, without = LayerSequence.apply, _without_gradient
    else:
        how, with_gradient, without = (functions, shape), amx_layer.LayerSequence.apply, amx_layer.without_gradient
    with torch.autocast(device, enabled=False):
        gradient = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
        hidden, last_cell = (with_gradient if gradient else without)(*tensors, *how)
    return hidden, (hidden[-1], last_cell)


def _check_state(state: tuple[Tensor, Tensor] | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError if the hidden and the cell state have another shape."""
    if state is not None and not state[0].shape == state[1].shape == shape:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in state)
        raise ValueError(f"the state has shapes {shapes}; both should be {shape}")


def _without_gradient(frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, gates, shape, dtype):
    """Return the hidden states at all times and the last cell state. Arguments as `LayerSequence.forward`."""
    frames, hidden0, cell0 = layer_arguments(frames, hidden0, cell0, dtype)
    convolve = _Convolutions(frames, input_weight, state_weight, dtype, shape[-2:])
    _, cells, hidden = _run(convolve, hidden0, cell0, bias, peepholes, gates, shape, dtype, keep=False)
    return hidden, cells[(shape[0] - 1) % 2]


class LayerSequence(torch.autograd.Function):
    """Autograd function of a layer; `apply` returns the hidden states at all times and the last cell state."""

    @staticmethod
    def forward(ctx: Any, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, gates, shape, dtype):
        ctx.gates, ctx.dtype, ctx.frames_dtype = gates, dtype, None if frames is None else frames.dtype
        ctx.state_dtype = None if hidden0 is None else hidden0.dtype
        frames, hidden0, cell0 = layer_arguments(frames, hidden0, cell0, dtype)
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
        state_kernel = backward_kernel(state_weight, ctx.dtype, hidden.shape[-2:])
        d_hidden, d_cell = channels_last(d_hidden, ctx.dtype), channels_last(d_cell.float(), torch.float32).clone()
        d_peepholes = torch.zeros_like(peepholes) if peepholes is not None else None
        d_next = None
        for time in reversed(range(len(values))):
            before = cells[time - 1] if time else _or_zeros(cell0, d_cell)
            gates.backward(values[time], before, cells[time], peepholes, d_hidden[time], d_next, d_cell)
            if d_peepholes is not None:
                d_peepholes += peephole_gradient(values[time], before, cells[time])
            if time or needs[1]:
                d_next = state_gradient(values[time], hidden[0], state_kernel)
        d_frames = d_input_weight = None
        if frames is not None:
            d_all = values.flatten(0, 1)
            d_input_weight = weight_gradient(d_all, frames.flatten(0, 1), input_weight)
            if needs[0]:
                kernel = backward_kernel(input_weight, ctx.dtype, hidden.shape[-2:])
                d_frames = _over_time(input_gradient(d_all, frames.flatten(0, 1), kernel), frames.shape).to(ctx.frames_dtype)
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
        if same_size and by_winograd(state_weight, dtype, grid):
            self.kernel = winograd.Convolution(torch.cat([input_weight, state_weight], dim=1))
            return
        self.state_kernel = forward_kernel(state_weight, dtype, grid)
        self.input_kernel = None if frames is None else forward_kernel(input_weight, dtype, grid)
        if same_size and input_weight.shape[1] >= FEW_CHANNELS:
            self.kernel = direct_kernel(torch.cat([input_weight, state_weight], dim=1), dtype)
            shape = (frames.shape[1], self.kernel.shape[1], *frames.shape[-2:])
            self.joined = _empty(shape, 1, like=frames, dtype=dtype)

    def __call__(self, time: int, hidden: Tensor | None, *, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """Compute the gates' arguments as two summands: from the input (None if included in the second), and from the state."""
        if self.frames is None:
            return None, torch.zeros_like(like) if hidden is None else convolve(hidden, self.state_kernel)
        frame = self.frames[time]
        if isinstance(self.kernel, winograd.Convolution):
            return None, self.kernel(frame, hidden)
        if hidden is None:
            return None, convolve(frame, self.input_kernel)
        if self.joined is None:
            return convolve(frame, self.input_kernel), convolve(hidden, self.state_kernel)
        self.joined[:, : frame.shape[1]].copy_(frame)
        self.joined[:, frame.shape[1] :].copy_(hidden)
        return None, convolve(self.joined, self.kernel)


def _or_zeros(state: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if state is None else state


def _empty(shape: tuple[int, ...], times: int, *, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Allocate (..., times × channel, y, x) with the channels innermost in memory."""
    *leading, channels, y, x = shape
    return torch.empty(*leading, y, x, times * channels, device=like.device, dtype=dtype).movedim(-1, -3)


def _over_time(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Turn (time × case, ...) into (time, case, ...)."""
    return channels_last(values, values.dtype).unflatten(0, shape[:2])


def _state_weight_gradient(d_gates: Tensor, hidden: Tensor, hidden0: Tensor | None, weight: Tensor) -> Tensor:
    total = torch.zeros_like(weight)
    if len(hidden) > 1:
        total = total + weight_gradient(d_gates[1:].flatten(0, 1), hidden[:-1].flatten(0, 1), weight)
    return total if hidden0 is None else total + weight_gradient(d_gates[0], hidden0, weight)


def _bias_gradient(d_gates: Tensor) -> Tensor:
    """Return the sum (gate channel) float32 over times, cases and cells of (time, case, gate channel, y, x)."""
    if d_gates.dtype == torch.float32:
        return d_gates.sum(dim=(0, 1, 3, 4))
    sums = [of_time.sum(dim=(0, 2, 3), dtype=torch.float32) for of_time in d_gates]  # torch first makes all float32
    return torch.stack(sums).sum(dim=0)
