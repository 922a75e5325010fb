"""Compute the gates and states of a ConvLSTM at one time, forward and backward, in one pass over memory.

This is done in C on a CPU (gates.c), by inductor on a GPU, and in torch where neither works. All tensors are (case, channel,
y, x) with the channels innermost in memory; the channels of the gates i, f, c, o follow one another. Cell
states and their gradients are float32. The caller passes the tensors to which results are written.
"""

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from nowcast.runtime import compiled as runtime_compiled
from nowcast.runtime.compiled import POINTER, SIZE, Source

log = logging.getLogger(__name__)
SOURCE = Source(
    Path(__file__).with_name("gates.c"),
    "the gates",
    {"gates_forward": [POINTER] * 8 + [SIZE] * 2, "gates_backward": [POINTER] * 7 + [SIZE] * 2},
)
NATIVE_DTYPES = {torch.float32: (), torch.bfloat16: ("BFLOAT16",)}  # dtypes that gates.c supports, and their macros
# Largest number of variants that dynamo compiles: a single case, a view at offset 0 or two equal sizes each need their own.
MOST_VARIANTS = 64


class GateArithmetic:
    """The equations of the gates in torch, with the activations of `CellOptions`."""

    def __init__(self, activation: str, gate_activation: str):
        self.relu, self.hard = activation == "relu", gate_activation == "hard_sigmoid"

    def forward(
        self, from_input: Tensor | None, from_state: Tensor, bias: Tensor, peepholes: Tensor | None,
        before: Tensor, gates: Tensor, cell: Tensor, hidden: Tensor,
    ) -> None:  # fmt: skip
        """Compute the gate values and the new states from the two convolutions and the cell state before.

        from_input, from_state: (case, 4 × channel, y, x); `from_input` None if there is no input or `from_state` includes it
        bias: (4 × channel) float32
        peepholes: (3, channel, 1, 1) float32, or None
        before: (case, channel, y, x) float32, cell state before
        gates: (case, 4 × channel, y, x), written: values after the activations
        cell, hidden: (case, channel, y, x), written: new states
        """
        arguments = from_state.float() + bias.view(-1, 1, 1)
        if from_input is not None:
            arguments = arguments + from_input.float()
        i, f, a, o = arguments.chunk(4, dim=1)
        if peepholes is not None:
            i, f = i + peepholes[0] * before, f + peepholes[1] * before
        i, f, a = self._squash(i), self._squash(f), self._activate(a)
        now = f * before + i * a
        if peepholes is not None:
            o = o + peepholes[2] * now
        o = self._squash(o)
        for gate, values in zip(gates.chunk(4, dim=1), (i, f, a, o), strict=True):
            gate.copy_(values)
        cell.copy_(now)
        hidden.copy_(o * self._activate(now))

    def backward(
        self, gates: Tensor, before: Tensor, cell: Tensor, peepholes: Tensor | None,
        d_hidden: Tensor | None, d_hidden_next: Tensor | None, d_cell: Tensor,
    ) -> None:  # fmt: skip
        """Compute the gradients of the gates' arguments and of the cell state before, in place.

        gates: (case, 4 × channel, y, x); overwritten by the gradients of their arguments
        before, cell: (case, channel, y, x) float32, cell states before and after
        d_hidden: gradient of the hidden state from the outputs, or None
        d_hidden_next: gradient of the hidden state from the next time, or None; added to `d_hidden`
        d_cell: (case, channel, y, x) float32, gradient of `cell`; overwritten by that of `before`
        """
        i, f, a, o = (gate.float() for gate in gates.chunk(4, dim=1))
        gradients = [gradient.float() for gradient in (d_hidden, d_hidden_next) if gradient is not None]
        d_h = sum(gradients) if gradients else torch.zeros_like(d_cell)
        activated = self._activate(cell)
        d_o = d_h * activated * self._squash_slope(o)
        d = d_cell + d_h * o * self._activation_slope(activated)
        if peepholes is not None:
            d = d + d_o * peepholes[2]
        d_i, d_f = d * a * self._squash_slope(i), d * before * self._squash_slope(f)
        d_before = d * f
        if peepholes is not None:
            d_before = d_before + d_i * peepholes[0] + d_f * peepholes[1]
        d_a = d * i * self._activation_slope(a)
        for gate, values in zip(gates.chunk(4, dim=1), (d_i, d_f, d_a, d_o), strict=True):
            gate.copy_(values)
        d_cell.copy_(d_before)

    def _squash(self, x: Tensor) -> Tensor:
        return (0.2 * x + 0.5).clamp(0, 1) if self.hard else torch.sigmoid(x)

    def _squash_slope(self, y: Tensor) -> Tensor:
        return 0.2 * ((y > 0) & (y < 1)) if self.hard else y * (1 - y)

    def _activate(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.relu else torch.tanh(x)

    def _activation_slope(self, y: Tensor) -> Tensor:
        return (y > 0).to(y.dtype) if self.relu else 1 - y * y


def peephole_gradient(d_gates: Tensor, before: Tensor, cell: Tensor) -> Tensor:
    """Return the gradient (3, channel, 1, 1) of peepholes at one time; arguments as of `GateArithmetic.backward`, after it."""
    d_i, d_f, _, d_o = d_gates.float().chunk(4, dim=1)
    sums = [(d * c).sum(dim=(0, 2, 3)) for d, c in ((d_i, before), (d_f, before), (d_o, cell))]
    return torch.stack(sums)[..., None, None]


class NativeGates(GateArithmetic):
    """The equations of the gates in C, on as many threads as torch uses."""

    def __init__(self, activation: str, gate_activation: str, library):
        super().__init__(activation, gate_activation)
        self.library = library

    def forward(self, from_input, from_state, bias, peepholes, before, gates, cell, hidden) -> None:
        tensors = (from_input, from_state, bias, peepholes, before, gates, cell, hidden)
        self.library.gates_forward(*map(_address, tensors), *_sizes(cell), torch.get_num_threads())

    def backward(self, gates, before, cell, peepholes, d_hidden, d_hidden_next, d_cell) -> None:
        tensors = (gates, before, cell, peepholes, d_hidden, d_hidden_next, d_cell)
        self.library.gates_backward(*map(_address, tensors), *_sizes(cell), torch.get_num_threads())


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _sizes(cell: Tensor) -> tuple[int, int]:
    cases, channels, y, x = cell.shape
    return cases * y * x, channels


@cache
def gate_arithmetic(activation: str, gate_activation: str, device: str, dtype: torch.dtype) -> GateArithmetic:
    """Return the fastest implementation that works for these activations, this type of device and this dtype."""
    plain = GateArithmetic(activation, gate_activation)
    if device == "cpu" and dtype in NATIVE_DTYPES:
        names = {"relu": "RELU", "hard_sigmoid": "HARD_SIGMOID"}
        defines = (names[key] for key in (activation, gate_activation) if key in names)
        library = runtime_compiled.load(SOURCE, *NATIVE_DTYPES[dtype], *defines)
        return plain if library is None else NativeGates(activation, gate_activation, library)
    return compile_gates(plain) if device == "cuda" else plain


def compile_gates(gates: GateArithmetic) -> GateArithmetic:
    """Have inductor compile the equations to one GPU kernel each for forward and backward.

    If inductor fails, the equations are computed by torch from then on, and one warning is logged.
    """
    import torch._dynamo  # takes a second

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VARIANTS)
    for name in ("forward", "backward"):
        setattr(gates, name, with_fallback(torch.compile(getattr(gates, name), dynamic=True), getattr(gates, name)))
    return gates


def with_fallback(compiled: Callable[..., None], plain: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls `compiled`, and only `plain` after `compiled` has failed once."""

    def call(*tensors):
        nonlocal compiled
        if compiled is not None:
            try:
                # .data, as otherwise views and tensors that require a gradient would be compiled separately
                return compiled(*(None if tensor is None else tensor.data for tensor in tensors))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of dynamo, inductor or triton, before anything is written
                log.warning(
                    "inductor failed (%s): the gates are computed by separate kernels, which takes more time",
                    " ".join(str(error).split())[:200],
                )
                compiled = None
        return plain(*tensors)

    return call
