"""Compute a ConvLSTM layer over a whole sequence on matrix units, with a backward pass of its own.

A convolution is a sum of matrix products: 32 places (grid cells) with 32 columns (channels of gates), for each tap of the
kernel and each 32 channels of input and state. Gate values and states are computed from the sums while these are in the
processor's cache; unlike in ../layer.py, the sums are not rounded to bfloat16. Meanwhile the matrix units compute the next
places. layer.c does all of it.

Tensors are (time, case, channel, y, x) with the channels innermost in memory. Cell states are float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nowcast.models.engine.amx.functions import UNIT, VECTOR, Sizes, address, memory, rounded_up, sizes_of, stride
from nowcast.models.engine.convolutions import channels_last, layer_arguments
from nowcast.models.engine.gates import peephole_gradient
from nowcast.runtime.compiled import Library


class LayerSequence(torch.autograd.Function):
    """Autograd function of a layer. `apply` returns the hidden states at all times and the last cell state."""

    @staticmethod
    def forward(
        ctx: Any, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, functions: Library, shape
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.functions, ctx.shape, ctx.frames_dtype = functions, shape, None if frames is None else frames.dtype
        ctx.state_dtype = None if hidden0 is None else hidden0.dtype
        frames, hidden0, cell0 = layer_arguments(frames, hidden0, cell0, torch.bfloat16)
        weights = (input_weight, state_weight, bias, peepholes)
        gates, cells, hidden = _forward(functions, frames, hidden0, cell0, *weights, shape, keep=True)
        ctx.save_for_backward(frames, hidden0, cell0, input_weight, state_weight, peepholes, gates, cells, hidden)
        return hidden, cells[-1].clone()  # a view would keep the states of all times in memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor | None, d_cell: Tensor | None):
        if ctx.functions is None:
            raise RuntimeError("the backward pass overwrites what the forward pass kept: it can be called once")
        functions, ctx.functions = ctx.functions, None
        frames, hidden0, cell0, input_weight, state_weight, peepholes, gates, cells, hidden = ctx.saved_tensors
        frames, hidden0, cell0 = layer_arguments(frames, hidden0, cell0, torch.bfloat16)
        sizes, needs = sizes_of(ctx.shape, input_weight, state_weight), ctx.needs_input_grad
        d_hidden = torch.zeros_like(hidden) if d_hidden is None else channels_last(d_hidden, torch.bfloat16)
        d_last_cell, d_cell = channels_last(d_cell, torch.float32), torch.empty_like(cells[0])
        d_frames = torch.empty_like(frames) if frames is not None and needs[0] else None
        d_hidden0 = torch.empty_like(hidden[0]) if needs[1] else None
        kept = (gates, cells, cell0, peepholes)
        gradients = (d_hidden, d_last_cell, d_cell, d_frames, d_hidden0)
        _backward(functions, sizes, kept, (input_weight, state_weight), gradients)
        d_input_weight = d_state_weight = d_bias = None
        if any(needs[3:6]):  # not for a layer whose weights are kept
            weights = (input_weight, state_weight)
            of_weights = _weight_gradients(functions, sizes, weights, gates, frames, hidden, hidden0)
            d_input_weight, d_state_weight, d_bias = of_weights
        return (
            None if d_frames is None else d_frames.to(ctx.frames_dtype),
            None if d_hidden0 is None else d_hidden0.to(ctx.state_dtype),
            d_cell if needs[2] else None,
            d_input_weight,
            d_state_weight,
            d_bias,
            None if not needs[6] else _peephole_gradient(sizes.n, gates, cells, cell0),
            None,
            None,
        )


def without_gradient(frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, functions, shape):
    """Return the same as `LayerSequence.apply`, without keeping anything for a backward pass."""
    weights = (input_weight, state_weight, bias, peepholes)
    _, cells, hidden = _forward(
        functions, *layer_arguments(frames, hidden0, cell0, torch.bfloat16), *weights, shape, keep=False
    )
    return hidden, cells[(shape[0] - 1) % len(cells)]


def _forward(functions, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, shape, *, keep: bool):
    """Compute the layer at all times. Return gate values, cell states and hidden states.

    keep: for a backward pass; otherwise gate values are None, and cell states are two that are overwritten in turn
    """
    sizes = sizes_of(shape, input_weight, state_weight)
    (offsets, input_steps), packed = sizes.joined_offsets, _joined_weights(functions, sizes, input_weight, state_weight)
    kept_times = sizes.times if keep else min(2, sizes.times)
    hidden, cells = _empty(shape, torch.bfloat16), _empty((kept_times, *shape[1:]), torch.float32)
    in_groups = (sizes.times, sizes.gates // (4 * VECTOR), sizes.cases, sizes.y, sizes.x, 4 * VECTOR)
    gates = memory(in_groups, torch.bfloat16) if keep else None
    tensors = (sizes.numbers, frames, hidden0, cell0, packed, offsets, _float(bias), memory(sizes.gates), _float(peepholes),
               gates, cells, hidden, sizes.padded(sizes.channels))  # fmt: skip
    functions.layer_forward(*map(address, tensors), kept_times, input_steps, len(offsets), torch.get_num_threads())
    return gates, cells, hidden


def _joined_weights(functions, sizes: Sizes, input_weight, state_weight) -> Tensor:
    """Return the weights of input and state, packed as layer.c reads them."""
    offsets, input_steps = sizes.joined_offsets
    together = [sizes.inputs + sizes.n] if sizes.is_joined else [sizes.inputs, sizes.n]
    packed = _memory_of_packed(sizes.gates, len(offsets), sizes.fills(*together))
    _pack(functions, input_weight, packed, len(offsets))
    of_state = {"first_term": sizes.inputs} if sizes.is_joined else {"first_step": input_steps}
    _pack(functions, state_weight, packed, len(offsets), **of_state)
    return packed


def _backward(functions, sizes: Sizes, kept, weights, gradients) -> None:
    """Overwrite the gate values by the gradients of the gates' arguments, and write the other gradients.

    kept: gate values, cell states, first cell state and peepholes
    weights: of input and state
    gradients: those of hidden states and last cell state, which are read; and those of first cell state, frames and first
        hidden state, which are written
    """
    (gates, cells, cell0, peepholes), (input_weight, state_weight) = kept, weights
    d_frames, (offsets, input_offsets) = gradients[3], sizes.gate_offsets
    with_input = d_frames is not None and sizes.is_joined
    state_columns = rounded_up(sizes.n, VECTOR)
    columns = state_columns + sizes.inputs if with_input else sizes.n
    packed = _memory_of_packed(columns, len(offsets), sizes.fills(columns))
    _pack(functions, state_weight, packed, len(offsets), backward=True)
    input_packed, input_steps = None, 0
    if with_input:
        _pack(functions, input_weight, packed, len(offsets), first_column=state_columns, backward=True)
    elif d_frames is not None:
        input_steps = len(input_offsets)
        input_packed = _memory_of_packed(sizes.inputs, input_steps, sizes.fills(sizes.inputs))
        _pack(functions, input_weight, input_packed, input_steps, backward=True)
    tensors = (sizes.numbers, gates, cells, cell0, _float(peepholes), packed, offsets, input_packed, input_offsets, *gradients,
               sizes.padded(sizes.gates))  # fmt: skip
    functions.layer_backward(*map(address, tensors), len(offsets), input_steps, torch.get_num_threads())


def _memory_of_packed(columns: int, steps: int, all_written: bool) -> Tensor:
    """Allocate memory for packed weights of `columns` columns; zeros unless all of it will be written."""
    return memory(rounded_up(columns) * UNIT * steps, torch.bfloat16, zero=not all_written)


def _weight_gradients(functions, sizes: Sizes, weights, d_gates, frames, hidden, hidden0) -> list[Tensor | None]:
    """Return the gradients of the weights of input (None if there is none) and state, and of the bias, in float32."""
    at_once, threads, side = sizes.at_once, torch.get_num_threads(), 2 * sizes.reach + 1
    pairs = at_once // 2 + rounded_up(sizes.margin())
    none = not sizes.length(sizes.times * sizes.cases)  # there are no places, so nothing is summed
    sums, totals = memory(side**2 * sizes.gates * sizes.channels, zero=none), memory(at_once // UNIT * sizes.gates)
    rows = memory(sizes.gates * stride(at_once), torch.bfloat16)
    columns = memory(2 * sizes.channels * 2 * pairs, torch.bfloat16)
    staged = memory(threads * (UNIT + 1) * (sizes.channels + sizes.gates), torch.bfloat16, zero=True)
    gradients = [*(None if weight is None else memory(weight.shape) for weight in weights), memory(4 * sizes.n, zero=none)]
    tensors = (sizes.numbers, d_gates, frames, hidden, hidden0, *gradients, sums, rows, columns, totals, staged)
    functions.layer_weights(*map(address, tensors), at_once, stride(at_once), threads)
    return gradients


def _in_order(grouped: Tensor, n: int) -> Tensor:
    """Reorder channels from groups (group, gate, 16, ...) to (4 × hidden channel, ...); drop those that fill up a group."""
    parts = grouped.unflatten(0, (-1, 4, VECTOR)).transpose(0, 1).flatten(1, 2)
    return parts[:, :n].flatten(0, 1)


def _peephole_gradient(n: int, d_gates: Tensor, cells: Tensor, cell0: Tensor | None) -> Tensor:
    before = torch.zeros_like(cells[0]) if cell0 is None else cell0
    in_order = (_in_order(gates.permute(0, 4, 1, 2, 3).flatten(0, 1), n).transpose(0, 1) for gates in d_gates)
    states = zip(in_order, [before, *cells[:-1]], cells, strict=True)
    return torch.stack([peephole_gradient(*of_time) for of_time in states]).sum(dim=0)


def _pack(functions, weight, packed, steps: int, *, first_column=0, first_term=0, first_step=0, backward=False) -> None:
    """Pack a weight (out channel, channel, y, x) into its part of `packed`; do nothing if it is None."""
    if weight is not None:
        weight = _float(weight.detach())
        sizes = (*weight.shape[:2], weight.shape[-1] ** 2, int(backward), first_column, first_term, first_step, steps)
        functions.pack_weights(address(weight), address(packed), *sizes, torch.get_num_threads())


def _float(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate (..., channel, y, x) with the channels innermost in memory."""
    *leading, channels, y, x = shape
    return memory((*leading, y, x, channels), dtype).movedim(-1, -3)
