"""Compute a ConvLSTM layer on a processor with matrix units (AMX), in bfloat16: forward, backward and the weights' gradient.

One call computes all times. Convolutions are matrix products over 32 places (grid cells) at once, whose sums are turned to gate
values and states while they are in the processor's cache. amx.c does all but the choice of sizes.

Tensors are (time, case, channel, y, x) with the channels innermost in memory. Cell states are float32.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from nowcast.models.engine.convolutions import channels_last
from nowcast.models.engine.gates import peephole_gradient
from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, SIZE, Source
from nowcast.runtime.precision import processor_flags

SOURCE = Source(
    Path(__file__).with_name("amx.c"),
    "ConvLSTM layers",
    {
        "ask_for_units": [POINTER],
        "pack_weights": [POINTER] * 2 + [SIZE] * 7,
        "layer_forward": [POINTER] * 12 + [SIZE] * 8,
        "layer_backward": [POINTER] * 12 + [SIZE] * 7,
        "layer_weights": [POINTER] * 10 + [SIZE] * 9,
    },
)
UNIT, MOST_AT_ONCE = 32, 256  # places, columns and terms of one matrix product; places at once; must be those of amx.h
BYTES_AT_ONCE = 2**20  # of the places that the weights' gradient adds up at once, so that they stay in the CPU's cache
FEWEST_AT_ONCE = 256  # such places


@cache
def library(relu: bool, hard_sigmoid: bool) -> compiled.Library | None:
    """Return the compiled functions for these activations; None where they or the matrix units are missing."""
    if "amx_bf16" not in processor_flags():
        return None
    defines = [name for name, wanted in (("RELU", relu), ("HARD_SIGMOID", hard_sigmoid)) if wanted]
    loaded, allowed = compiled.load(SOURCE, *defines), ctypes.c_int(0)
    if loaded is not None:
        loaded.ask_for_units(ctypes.addressof(allowed), 1)
    return loaded if allowed.value else None


def layer_library(
    input_weight: Tensor | None, state_weight: Tensor, dtype: torch.dtype, activations: tuple[str, str]
) -> compiled.Library | None:
    """Return the functions that compute a layer with these weights (out channel, channel, y, x), or None if it is not for them."""
    if dtype != torch.bfloat16 or state_weight.device.type != "cpu" or type(state_weight.data) is not Tensor:
        return None
    if torch.compiler.is_compiling() or (input_weight is not None and input_weight.shape[-1] != state_weight.shape[-1]):
        return None
    return library(activations[0] == "relu", activations[1] == "hard_sigmoid")


class _Sizes:
    """The sizes of a layer and the memory that amx.c works in."""

    def __init__(self, shape: tuple[int, ...], input_weight: Tensor | None, state_weight: Tensor):
        self.times, self.cases, self.n, self.y, self.x = shape
        self.inputs = 0 if input_weight is None else input_weight.shape[1]
        self.side = state_weight.shape[-1]
        self.reach, self.taps = self.side // 2, self.side**2
        self.grid = (self.cases, self.y, self.x, self.reach, self.inputs, self.n)

    def margin(self) -> int:
        """Return the number of places before the first one that a kernel reaches."""
        return self.reach * (self.x + self.reach) + self.reach

    def length(self, grids: int) -> int:
        """Return the number of places of so many grids, with the zeros between rows and grids."""
        return grids * (self.y + self.reach) * (self.x + self.reach)

    def padded(self, channels: int) -> Tensor:
        """Return memory for two padded grids."""
        places = 2 * self.margin() + _rounded_up(self.length(self.cases), MOST_AT_ONCE)
        return torch.empty(2 * places * _stride(channels), dtype=torch.bfloat16)

    def sums(self, columns: int) -> Tensor:
        """Return memory for the sums of one product in each thread."""
        return torch.empty(torch.get_num_threads() * 2 * MOST_AT_ONCE * columns)

    def offsets(self, channels: int) -> Tensor:
        """Return where each step of a convolution's sum begins: for each 32 channels, for each tap of the kernel."""
        along = torch.arange(self.side) - self.reach
        taps = (along[:, None] * (self.x + self.reach) + along).flatten() * _stride(channels)
        return (torch.arange(0, channels, UNIT)[:, None] + taps).flatten()


class LayerSequence(torch.autograd.Function):
    """Autograd function of a layer; `apply` returns the hidden states at all times and the last cell state."""

    @staticmethod
    def forward(ctx, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, functions, shape):
        ctx.functions, ctx.shape, ctx.frames_dtype = functions, shape, None if frames is None else frames.dtype
        ctx.state_dtype = None if hidden0 is None else hidden0.dtype
        frames, hidden0, cell0 = _arguments(frames, hidden0, cell0)
        weights = (input_weight, state_weight, bias, peepholes)
        gates, cells, hidden = _forward(functions, frames, hidden0, cell0, *weights, shape, keep=True)
        ctx.save_for_backward(frames, hidden0, cell0, input_weight, state_weight, peepholes, gates, cells, hidden)
        return hidden, cells[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_hidden, d_cell):
        if ctx.functions is None:
            raise RuntimeError("the backward pass overwrites what the forward pass kept: it can be called once")
        functions, ctx.functions = ctx.functions, None
        frames, hidden0, cell0, input_weight, state_weight, peepholes, gates, cells, hidden = ctx.saved_tensors
        sizes, needs = _Sizes(ctx.shape, input_weight, state_weight), ctx.needs_input_grad
        d_cell = channels_last(d_cell.float(), torch.float32).clone()
        d_frames = torch.empty_like(frames) if frames is not None and needs[0] else None
        d_hidden0 = torch.empty_like(hidden[0]) if needs[1] else None
        _backward(functions, sizes, gates, cells, cell0, input_weight, state_weight, peepholes,
                  channels_last(d_hidden, torch.bfloat16), d_cell, d_frames, d_hidden0)  # fmt: skip
        d_input_weight, d_state_weight, d_bias = _weight_gradients(functions, sizes, gates, frames, hidden, hidden0)
        return (
            None if d_frames is None else d_frames.to(ctx.frames_dtype),
            None if d_hidden0 is None else d_hidden0.to(ctx.state_dtype),
            d_cell if needs[2] else None,
            None if input_weight is None else d_input_weight.to(input_weight.dtype),
            d_state_weight.to(state_weight.dtype),
            d_bias,
            None if peepholes is None else _peephole_gradient(gates, cells, cell0),
            None,
            None,
        )


def without_gradient(frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, functions, shape):
    """Return what `LayerSequence.apply` does, and keep nothing for a backward pass."""
    weights = (input_weight, state_weight, bias, peepholes)
    _, cells, hidden = _forward(functions, *_arguments(frames, hidden0, cell0), *weights, shape, keep=False)
    return hidden, cells[(shape[0] - 1) % len(cells)]


def _arguments(frames, hidden0, cell0):
    return channels_last(frames, torch.bfloat16), channels_last(hidden0, torch.bfloat16), channels_last(cell0, torch.float32)


def _forward(functions, frames, hidden0, cell0, input_weight, state_weight, bias, peepholes, shape, *, keep: bool):
    """Return gate values (None if they are not to be kept), cell states (two, used in turn, or all) and hidden states."""
    sizes = _Sizes(shape, input_weight, state_weight)
    gate_columns = _rounded_up(sizes.n, 16)
    channels, columns = _rounded_up(sizes.inputs + sizes.n), _rounded_up(4 * gate_columns)
    packed = torch.zeros(columns * channels * sizes.taps, dtype=torch.bfloat16)
    for weight, first in ((input_weight, 0), (state_weight, sizes.inputs)):
        _pack(functions, weight, packed, first_term=first, terms=channels)
    padded_bias = torch.zeros(4, gate_columns)
    padded_bias[:, : sizes.n] = bias.view(4, -1)
    kept_times = sizes.times if keep else min(2, sizes.times)
    hidden = _empty(shape, torch.bfloat16)
    gates = _empty((sizes.times, sizes.cases, 4 * sizes.n, sizes.y, sizes.x), torch.bfloat16) if keep else None
    cells = _empty((kept_times, *shape[1:]), torch.float32)
    tensors = (frames, hidden0, cell0, packed, sizes.offsets(channels), padded_bias, _float(peepholes), gates, cells, hidden,
               sizes.padded(channels), sizes.sums(columns))  # fmt: skip
    functions.layer_forward(*map(_address, tensors), sizes.times, kept_times, *sizes.grid, torch.get_num_threads())
    return gates, cells, hidden


def _backward(functions, sizes, gates, cells, cell0, input_weight, state_weight, peepholes, d_hidden, d_cell, d_frames, d_hidden0):
    """Overwrite `gates` by their arguments' gradients and `d_cell` by that of the first cell state; write the others."""
    channels = _rounded_up(4 * sizes.n)
    gate_columns = _rounded_up(sizes.n, 16)
    columns = _rounded_up(sizes.n if d_frames is None else gate_columns + sizes.inputs)
    packed = torch.zeros(columns * channels * sizes.taps, dtype=torch.bfloat16)
    _pack(functions, state_weight, packed, terms=channels, backward=True)
    if d_frames is not None:
        _pack(functions, input_weight, packed, first_column=gate_columns, terms=channels, backward=True)
    tensors = (gates, cells, cell0, _float(peepholes), packed, sizes.offsets(channels), d_hidden, d_cell, d_frames, d_hidden0,
               sizes.padded(channels), sizes.sums(columns))  # fmt: skip
    functions.layer_backward(*map(_address, tensors), sizes.times, *sizes.grid, torch.get_num_threads())


def _weight_gradients(functions, sizes, d_gates, frames, hidden, hidden0):
    """Return the gradients of the weights of input (no channels if there is none) and state, and of the bias, in float32."""
    channels, num_gates, threads = _rounded_up(sizes.inputs + sizes.n), _rounded_up(4 * sizes.n), torch.get_num_threads()
    at_once = max(FEWEST_AT_ONCE, BYTES_AT_ONCE // (2 * (2 * channels + num_gates)) // UNIT * UNIT)
    at_once = min(at_once, _rounded_up(sizes.length(sizes.times * sizes.cases)))
    width, pairs = _stride(at_once), at_once // 2 + _rounded_up(sizes.margin())
    d_weight = torch.zeros(sizes.side, sizes.side, num_gates // UNIT, channels // UNIT, 2, UNIT, 16)
    d_bias, totals = torch.zeros(num_gates), torch.empty(at_once // UNIT * num_gates)
    rows, columns = (torch.empty(size, dtype=torch.bfloat16) for size in (num_gates * width, 2 * channels * 2 * pairs))
    staged = torch.zeros(threads * (UNIT + 1) * (channels + num_gates), dtype=torch.bfloat16)
    tensors = (d_gates, frames, hidden, hidden0, d_weight, d_bias, rows, columns, totals, staged)
    functions.layer_weights(*map(_address, tensors), sizes.times, *sizes.grid, at_once, width, threads)
    d_weight = d_weight.permute(2, 5, 3, 4, 6, 0, 1).reshape(num_gates, channels, sizes.side, sizes.side)[: 4 * sizes.n]
    end = sizes.inputs + sizes.n
    return d_weight[:, : sizes.inputs].contiguous(), d_weight[:, sizes.inputs : end].contiguous(), d_bias[: 4 * sizes.n]


def _peephole_gradient(d_gates, cells, cell0):
    before = torch.zeros_like(cells[0]) if cell0 is None else cell0
    gradients = []
    for of_time, cell in zip(d_gates, cells, strict=True):
        gradients.append(peephole_gradient(of_time, before, cell))
        before = cell
    return torch.stack(gradients).sum(dim=0)


def _pack(functions, weight: Tensor | None, packed, *, terms: int, first_column=0, first_term=0, backward=False) -> None:
    """Write a weight (out channel, channel, y, x) to its place of `packed`; nothing if it is None."""
    if weight is not None:
        weight = weight.detach().float().contiguous()
        sizes = (*weight.shape[:2], weight.shape[-1] ** 2, int(backward), first_column, first_term, terms)
        functions.pack_weights(_address(weight), _address(packed), *sizes, torch.get_num_threads())


def _rounded_up(size: int, unit: int = UNIT) -> int:
    return -(-size // unit) * unit


def _stride(channels: int) -> int:
    """Return a number of bfloat16 that takes an odd number of cache lines: so rows share few places of the cache; as in amx.c."""
    return channels + UNIT * (1 - channels // UNIT % 2)


def _float(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate (..., channel, y, x) with the channels innermost in memory."""
    *leading, channels, y, x = shape
    return torch.empty(*leading, y, x, channels, dtype=dtype).movedim(-1, -3)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
