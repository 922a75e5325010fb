"""Load layer.c, and compute the sizes of the arrays that its functions read and write."""

import logging
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, SIZE, Source
from nowcast.runtime.precision import processor_flags

log = logging.getLogger(__name__)
SOURCE = Source(
    Path(__file__).with_name("layer.c"),
    "ConvLSTM layers",
    {
        "ask_for_units": [POINTER],
        "pack_weights": [POINTER] * 2 + [SIZE] * 8,
        "layer_forward": [POINTER] * 13 + [SIZE] * 3,
        "layer_backward": [POINTER] * 15 + [SIZE] * 2,
        "layer_weights": [POINTER] * 13 + [SIZE] * 2,
    },
)
# Places, columns and terms of one matrix product; channels in a vector. Both as in products.h.
UNIT, VECTOR = 32, 16
BYTES_AT_ONCE = 2**20  # of the places that the weights' gradient sums over at once, so that they stay in the CPU's cache
FEWEST_AT_ONCE = 256  # places that it sums over at once


def layer_functions(state_weight: Tensor, dtype: torch.dtype, activations: tuple[str, str]) -> compiled.Library | None:
    """Return the functions that compute a layer in this dtype, or None where torch computes it.

    It is None without matrix units or a C compiler, on other devices, for other dtypes, and while torch traces a network.

    state_weight: (out channel, channel, y, x)
    """
    on_cpu = state_weight.device.type == "cpu" and type(state_weight.data) is Tensor
    if dtype != torch.bfloat16 or not on_cpu or torch.compiler.is_compiling():
        return None
    return library(activations[0] == "relu", activations[1] == "hard_sigmoid")


@cache
def library(relu: bool, hard_sigmoid: bool) -> compiled.Library | None:
    """Return layer.c compiled for these activations; None where it cannot be compiled or the matrix units are missing."""
    if "amx_bf16" not in processor_flags():
        return None
    loaded = compiled.load(SOURCE, *["RELU"] * relu, *["HARD_SIGMOID"] * hard_sigmoid)
    if loaded is None:
        return None
    allowed = torch.zeros(1, dtype=torch.int32, device="cpu")
    loaded.ask_for_units(address(allowed), 1)
    if not allowed:
        log.warning("the system does not let this process use the processor's matrix units: layers take more time")
        return None
    return loaded


def sizes_of(shape: tuple[int, ...], input_weight: Tensor | None, state_weight: Tensor) -> "Sizes":
    """Return the sizes of a layer, from a cache where they were computed before.

    shape: (time, case, hidden channel, y, x)
    input_weight, state_weight: (4 × hidden channel, channel, y, x); `input_weight` None for a layer without input
    """
    state_reach = state_weight.shape[-1] // 2
    if input_weight is None:
        return _sizes(shape, 0, state_reach, state_reach)
    return _sizes(shape, input_weight.shape[1], input_weight.shape[-1] // 2, state_reach)


class Sizes:
    """Sizes of a layer's arrays, the offsets of its convolutions' steps, and memory for layer.c.

    A step of a convolution is one tap of the kernel and 32 channels.

    shape: (time, case, hidden channel, y, x)
    inputs: number of channels of the input, 0 for a layer without input
    input_reach, state_reach: half widths of the kernels, in grid cells
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, input_reach: int, state_reach: int):
        self.times, self.cases, self.n, self.y, self.x = shape
        self.inputs, self.input_reach, self.state_reach = inputs, input_reach, state_reach
        self.reach = max(self.input_reach, self.state_reach)
        self.is_joined = self.input_reach == self.state_reach
        self.first_state = self.inputs if self.is_joined else rounded_up(self.inputs)
        self.channels, self.gates = rounded_up(self.first_state + self.n), 4 * rounded_up(self.n, VECTOR)
        numbers = (self.times, self.cases, self.y, self.x, self.inputs, self.n, self.input_reach, self.state_reach)
        self.numbers = np.array(numbers, np.int64)  # a tensor would become a constant of a traced network

    @cached_property
    def joined_offsets(self) -> tuple[np.ndarray, int]:
        """Offsets (step,) of the convolution over input and state, and the number of steps with channels of the input.

        Those come first; all others have channels of the state alone.
        """
        if self.is_joined:
            of_input = self.offsets(self.reach, 0, self.inputs, self.channels)
            return self.offsets(self.reach, 0, self.channels, self.channels), len(of_input)
        of_input = self.offsets(self.input_reach, 0, self.first_state, self.channels)
        of_state = self.offsets(self.state_reach, self.first_state, self.channels, self.channels)
        return np.concatenate([of_input, of_state]), len(of_input)

    @cached_property
    def gate_offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (step,) of the convolutions over gates: with the kernel of the state, and with that of the input."""
        return tuple(self.offsets(reach, 0, self.gates, self.gates) for reach in (self.state_reach, self.input_reach))

    def fills(self, *channels: int) -> bool:
        """Return whether packed weights of so many channels have no unused parts: neither they nor gates are rounded up."""
        return self.n % VECTOR == 0 and all(number % UNIT == 0 for number in channels)

    def margin(self) -> int:
        """Return the number of places that a kernel reaches before the first one of a padded grid."""
        return self.reach * (self.x + self.reach) + self.reach

    def length(self, grids: int) -> int:
        """Return the number of places of `grids` grids, each row and each grid followed by zeros."""
        return grids * (self.y + self.reach) * (self.x + self.reach)

    def padded(self, channels: int) -> Tensor:
        """Allocate two padded grids, each (place, channel) with rows `stride` apart."""
        places = 2 * self.margin() + rounded_up(self.length(self.cases))
        return memory(2 * places * stride(channels), torch.bfloat16)

    def offsets(self, reach: int, first: int, end: int, channels: int) -> np.ndarray:
        """Return the offsets of a convolution's steps: for each 32 channels from `first` to `end`, for each tap.

        reach: half width of the kernel, in grid cells
        channels: of the padded grid
        returns: (step,) int64, number of bfloat16 from the place that is computed
        """
        along = np.arange(-reach, reach + 1, dtype=np.int64)
        taps = (along[:, None] * (self.x + self.reach) + along).ravel() * stride(channels)
        return (np.arange(first, end, UNIT, dtype=np.int64)[:, None] + taps).ravel()

    @cached_property
    def at_once(self) -> int:
        """Number of places, of all times, that the weights' gradient sums over at once."""
        fitting = max(FEWEST_AT_ONCE, BYTES_AT_ONCE // (2 * (2 * self.channels + self.gates)) // UNIT * UNIT)
        return min(fitting, rounded_up(self.length(self.times * self.cases)))


_sizes = lru_cache(maxsize=64)(Sizes)


def memory(shape: int | tuple[int, ...], dtype: torch.dtype = torch.float32, *, zero: bool = False) -> Tensor:
    """Allocate a tensor of any shape for layer.c, whatever the default dtype and device are; not initialised unless `zero`."""
    return (torch.zeros if zero else torch.empty)(shape, dtype=dtype, device="cpu")


def rounded_up(size: int, unit: int = UNIT) -> int:
    """Return the smallest multiple of `unit` that is at least `size`."""
    return -(-size // unit) * unit


def stride(size: int) -> int:
    """Return the distance of rows of `size` bfloat16, in bfloat16, as in layer.c.

    It is an odd number of cache lines, so that rows do not compete for the same part of the cache.
    """
    return size + UNIT * (1 - size // UNIT % 2)


def address(values: Tensor | np.ndarray | None) -> int | None:
    """Return the memory address of the data of a tensor or array of any shape; None for None."""
    if isinstance(values, np.ndarray):
        return values.ctypes.data
    return None if values is None else values.data_ptr()
