"""One ConvLSTM layer over a whole sequence, with its own backward pass: the fast path of convlstm.py, equal to it.

Forward, per step: the convolutions, then the gate arithmetic in one pass over memory. Kept for the backward pass: the gates
after their nonlinearity and the states, each once. Backward, per step: the gate arithmetic, in place, and the gradient of
the state; the gradients of weights and input are formed afterwards, for all steps together.
Convolutions are torch's, or where there are channels enough those of winograd.py.
Tensors are (time, case, channel, y, x) with the channels innermost in memory; cell states are float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nowcast.models.engine import winograd
from nowcast.models.engine.gates import GateArithmetic, gate_arithmetic

Kernel, Grid = Tensor | winograd.Convolution, tuple[int, int]

PLACES_AT_ONCE = 4096  # of one matrix product of the weight gradient: its inputs stay in the cache
FEW_CHANNELS = 8  # below that, what pays for many channels does not


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
    """Hidden states of all steps (time, case, hidden, y, x) and the last state.

    `frames` is None for an unfed layer, `state` None for zeros on the grid of `like` (case, channel, y, x). Arithmetic is in
    autocast's dtype where that is on. Bias and peepholes are float32. ValueError for a state of another shape.
    """
    kind = like.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else state_weight.dtype
    hidden, cell = state if state is not None else (None, None)
    expected = (len(like), state_weight.shape[1], *like.shape[-2:])
    if state is not None and not hidden.shape == cell.shape == expected:
        raise ValueError(f"the state has shapes {tuple(hidden.shape)} and {tuple(cell.shape)}; both should be {expected}")
    tensors = (frames, hidden, cell, input_weight, state_weight, bias, peepholes)
    gates = gate_arithmetic(*activations, kind, dtype)
    shape = (num_steps, len(like), state_weight.shape[1], *like.shape[-2:])
    with torch.autocast(kind, enabled=False):
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            hidden, last_cell = LayerSequence.apply(*tensors, gates, shape, dtype)
        else:
            frames, hidden, cell = _laid_out(frames, dtype), _laid_out(hidden, dtype), _laid_out(cell, torch.float32)
            convolve = _Convolutions(frames, input_weight, state_weight, dtype, shape[-2:])
            _, cells, hidden = _run(convolve, hidden, cell, bias, peepholes, gates, shape, dtype, keep=False)
            last_cell = cells[(num_steps - 1) % 2]
    return hidden, (hidden[-1], last_cell)


class LayerSequence(torch.autograd.Function):
    """See the module's text; `apply` gives the hidden states of all steps and the last cell state."""

    @staticmethod
    def forward(ctx: Any, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, gates, shape, dtype):
        ctx.gates, ctx.dtype, ctx.frames_dtype = gates, dtype, None if frames is None else frames.dtype
        ctx.state_dtype = None if hidden0 is None else hidden0.dtype
        frames, hidden0, cell0 = _laid_out(frames, dtype), _laid_out(hidden0, dtype), _laid_out(cell0, torch.float32)
        convolve = _Convolutions(frames, input_weight, state_weight, dtype, shape[-2:])
        values, cells, hidden = _run(convolve, hidden0, cell0, bias, peepholes, gates, shape, dtype, keep=True)
        ctx.save_for_backward(frames, hidden0, cell0, input_weight, state_weight, peepholes, values, cells, hidden)
        return hidden, cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_cell: Tensor):
        if ctx.gates is None:
            raise RuntimeError("the backward pass uses up what the forward pass kept: it can be called once")
        gates, ctx.gates = ctx.gates, None
        frames, hidden0, cell0, input_weight, state_weight, peepholes, values, cells, hidden = ctx.saved_tensors
        needs = ctx.needs_input_grad
        state_kernel = _backward_kernel(state_weight, ctx.dtype, hidden.shape[-2:])
        d_hidden, d_cell = _laid_out(d_hidden, ctx.dtype), _laid_out(d_cell.float(), torch.float32).clone()
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
        d_bias = values.sum(dim=(0, 1, 3, 4), dtype=torch.float32)
        d_hidden0 = d_next.to(ctx.state_dtype) if needs[1] else None
        return (d_frames, d_hidden0, d_cell if needs[2] else None,
                d_input_weight, d_state_weight, d_bias, d_peepholes, None, None, None)  # fmt: skip


def _run(
    convolve: "_Convolutions", hidden0: Tensor | None, cell0: Tensor | None, bias: Tensor, peepholes: Tensor | None,
    gates: GateArithmetic, shape: tuple[int, ...], dtype: torch.dtype, *, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The forward pass: gates and cell states of all steps, and all hidden states. With `keep = False`, gates of the last
    step, and two cell states that take turns: inductor compiles nothing whose input is also its output.
    """
    hidden = _empty(shape, 1, like=bias, dtype=dtype)
    values = _empty(shape if keep else (1, *shape[1:]), 4, like=bias, dtype=dtype)
    cells = _empty(shape if keep else (min(2, shape[0]), *shape[1:]), 1, like=bias, dtype=torch.float32)
    h, c = hidden0, _or_zeros(cell0, cells[0])
    for time in range(shape[0]):
        made, cell = values[time if keep else 0], cells[time if keep else time % 2]
        from_input, from_state = convolve(time, h, like=made)
        gates.forward(from_input, from_state, bias, peepholes, c, made, cell, hidden[time])
        h, c = hidden[time], cell
    return values, cells, hidden


class _Convolutions:
    """The convolutions of a step. Those of input and state are one where their kernels are of one size, which is faster."""

    def __init__(
        self, frames: Tensor | None, input_weight: Tensor | None, state_weight: Tensor, dtype: torch.dtype, grid: Grid
    ):
        self.frames, self.joined, self.kernel = frames, None, None
        alike = frames is not None and input_weight.shape[-1] == state_weight.shape[-1]
        if alike and _by_winograd(state_weight, dtype, grid):
            self.kernel = winograd.Convolution(torch.cat([input_weight, state_weight], dim=1))
            return
        self.state_kernel = _kernel(state_weight, dtype, grid)
        self.input_kernel = None if frames is None else _kernel(input_weight, dtype, grid)
        if alike and input_weight.shape[1] >= FEW_CHANNELS:
            self.kernel = _direct_kernel(torch.cat([input_weight, state_weight], dim=1), dtype)
            shape = (frames.shape[1], self.kernel.shape[1], *frames.shape[-2:])
            self.joined = _empty(shape, 1, like=frames, dtype=dtype)

    def __call__(self, time: int, hidden: Tensor | None, *, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """The summands of the gates' arguments: (from the input, or None, and from the state), laid out as `like`."""
        if self.frames is None:
            return None, torch.zeros_like(like) if hidden is None else _same(hidden, self.state_kernel)
        frame = self.frames[time]
        if isinstance(self.kernel, winograd.Convolution):
            return None, self.kernel(frame, hidden)
        if hidden is None:
            return None, _same(frame, self.input_kernel)
        if self.joined is None:
            return _same(frame, self.input_kernel), _same(hidden, self.state_kernel)
        self.joined[:, : frame.shape[1]].copy_(frame)
        self.joined[:, frame.shape[1] :].copy_(hidden)
        return None, _same(self.joined, self.kernel)


def _or_zeros(state: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if state is None else state


def _empty(shape: tuple[int, ...], times: int, *, like: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., times × channel, y, x) with the channels innermost in memory."""
    *leading, channels, y, x = shape
    return torch.empty(*leading, y, x, times * channels, device=like.device, dtype=dtype).movedim(-1, -3)


def _laid_out(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """In this dtype with the channels innermost in memory; itself where it is so already."""
    return None if values is None else values.to(dtype).movedim(-3, -1).contiguous().movedim(-1, -3)


def _over_time(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(time × case, ...) -> (time, case, ...)."""
    return _laid_out(values, values.dtype).unflatten(0, shape[:2])


def _by_winograd(weight: Tensor, dtype: torch.dtype, grid: Grid) -> bool:
    return dtype == torch.float32 and winograd.takes(weight, grid)


def _kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    return winograd.Convolution(weight) if _by_winograd(weight, dtype, grid) else _direct_kernel(weight, dtype)


def _direct_kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype, memory_format=torch.channels_last)


def _backward_kernel(weight: Tensor, dtype: torch.dtype, grid: Grid) -> Kernel:
    """The gradient of the input is a convolution too, with the weight turned by 180°, in and out exchanged."""
    if _by_winograd(weight, dtype, grid):
        return winograd.Convolution(weight.flip(2, 3).transpose(0, 1))
    return _direct_kernel(weight, dtype)


def _same(values: Tensor, kernel: Kernel) -> Tensor:
    if isinstance(kernel, winograd.Convolution):
        return kernel(values)
    if _is_faster_by_planes(values, kernel):
        values, kernel = values.contiguous(), kernel.contiguous()
    return _laid_out(F.conv2d(values, kernel, padding=kernel.shape[-1] // 2), values.dtype)


def _is_faster_by_planes(values: Tensor, kernel: Tensor) -> bool:
    """AVX2 alone takes 1.2 (forward) to 1.5 (backward) times as long for a step's 5 × 5 convolution in channels_last."""
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
    if isinstance(kernel, Tensor) and _is_faster_by_planes(d_gates, kernel):
        d_gates, like, kernel = d_gates.contiguous(), torch.empty(like.shape), kernel.contiguous()
    return _laid_out(_input_gradient(d_gates, like, kernel), d_gates.dtype)


def _weight_gradient(d_out: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    if _by_winograd(weight, d_out.dtype, d_out.shape[-2:]):
        return winograd.weight_gradient(d_out, values, weight)
    if values.device.type == "cpu" and values.dtype == torch.float32 and weight.shape[1] >= FEW_CHANNELS:
        return weight_gradient_by_products(d_out, values, weight)
    return _gradient(d_out, values, _direct_kernel(weight, d_out.dtype), (False, True, False))[1].to(weight.dtype)


def weight_gradient_by_products(
    d_out: Tensor, values: Tensor, weight: Tensor, *, places_at_once: int = PLACES_AT_ONCE
) -> Tensor:
    """The same as matrix products, which take 0.6 of the time of the processor's convolution in float32 and channels_last.

    Every row of `values` is laid out once with its shifts along x side by side; a shift along y is then only an offset.
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


def _peephole_gradient(d_gates: Tensor, before: Tensor, cell: Tensor) -> Tensor:
    d_i, d_f, _, d_o = d_gates.float().chunk(4, dim=1)
    sums = [(d * c).sum(dim=(0, 2, 3)) for d, c in ((d_i, before), (d_f, before), (d_o, cell))]
    return torch.stack(sums)[..., None, None]
