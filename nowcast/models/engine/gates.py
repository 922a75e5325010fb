"""The pointwise part of a ConvLSTM step, forward and backward, in one pass: in C on a CPU, by inductor on a GPU, or in torch.

All tensors are (case, channel, y, x) in channels_last; gates have the channels of i, f, c, o one after the other. Gates and
hidden states are of one dtype, cell states and their gradients float32. Results are written into tensors of the caller.
"""

import logging
from functools import cache

import torch
from torch import Tensor

from nowcast.runtime import compiled as runtime_compiled

log = logging.getLogger(__name__)
NATIVE_DTYPES = {torch.float32: (), torch.bfloat16: ("BFLOAT16",)}
MOST_VARIANTS = 64  # that dynamo compiles: one case, a view at 0, two of one size, … are each compiled anew


class GateArithmetic:
    """The equations in torch; `activation` and `gate_activation` as in `CellOptions`."""

    def __init__(self, activation: str, gate_activation: str):
        self.relu, self.hard = activation == "relu", gate_activation == "hard_sigmoid"

    def forward(
        self, from_input: Tensor | None, from_state: Tensor, bias: Tensor, peepholes: Tensor | None,
        before: Tensor, gates: Tensor, cell: Tensor, hidden: Tensor,
    ) -> None:  # fmt: skip
        """Write the `gates` after their nonlinearity and the new states from the two convolutions and the cell `before`."""
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
        for part, values in zip(gates.chunk(4, dim=1), (i, f, a, o), strict=True):
            part.copy_(values)
        cell.copy_(now)
        hidden.copy_(o * self._activate(now))

    def backward(
        self, gates: Tensor, before: Tensor, cell: Tensor, peepholes: Tensor | None,
        d_hidden: Tensor | None, d_hidden_next: Tensor | None, d_cell: Tensor,
    ) -> None:  # fmt: skip
        """Turn `gates` into the gradient of their arguments, and `d_cell` into that of the cell `before`.

        The gradients of the hidden state add up: `d_hidden` from the outputs, `d_hidden_next` from the step after.
        """
        i, f, a, o = (part.float() for part in gates.chunk(4, dim=1))
        parts = [part.float() for part in (d_hidden, d_hidden_next) if part is not None]
        d_h = sum(parts) if parts else torch.zeros_like(d_cell)
        shown = self._activate(cell)
        d_o = d_h * shown * self._squash_slope(o)
        d = d_cell + d_h * o * self._activation_slope(shown)
        if peepholes is not None:
            d = d + d_o * peepholes[2]
        d_i, d_f = d * a * self._squash_slope(i), d * before * self._squash_slope(f)
        d_before = d * f
        if peepholes is not None:
            d_before = d_before + d_i * peepholes[0] + d_f * peepholes[1]
        d_a = d * i * self._activation_slope(a)
        for part, values in zip(gates.chunk(4, dim=1), (d_i, d_f, d_a, d_o), strict=True):
            part.copy_(values)
        d_cell.copy_(d_before)

    def _squash(self, x: Tensor) -> Tensor:
        return (0.2 * x + 0.5).clamp(0, 1) if self.hard else torch.sigmoid(x)

    def _squash_slope(self, y: Tensor) -> Tensor:
        return 0.2 * ((y > 0) & (y < 1)) if self.hard else y * (1 - y)

    def _activate(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.relu else torch.tanh(x)

    def _activation_slope(self, y: Tensor) -> Tensor:
        return (y > 0).to(y.dtype) if self.relu else 1 - y * y


class NativeGates(GateArithmetic):
    """The same in C, on the threads that torch uses."""

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
    """The fastest that works for these activations on this kind of device in this dtype."""
    plain = GateArithmetic(activation, gate_activation)
    if device == "cpu" and dtype in NATIVE_DTYPES:
        names = {"relu": "RELU", "hard_sigmoid": "HARD_SIGMOID"}
        defines = (names[key] for key in (activation, gate_activation) if key in names)
        library = runtime_compiled.load(*NATIVE_DTYPES[dtype], *defines)
        return plain if library is None else NativeGates(activation, gate_activation, library)
    return compile_gates(plain) if device == "cuda" else plain


def compile_gates(gates: GateArithmetic) -> GateArithmetic:
    """Fused by inductor, one kernel each way; in plain torch from the first time that inductor fails, which is said once."""
    import torch._dynamo  # takes a second

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VARIANTS)
    for name in ("forward", "backward"):
        setattr(gates, name, with_fallback(torch.compile(getattr(gates, name), dynamic=True), getattr(gates, name)))
    return gates


def with_fallback(compiled, plain):
    def call(*tensors):
        nonlocal compiled
        if compiled is not None:
            try:
                # .data: whether a tensor is a view, or wants a gradient, would each be compiled for apart
                return compiled(*(None if tensor is None else tensor.data for tensor in tensors))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever dynamo, inductor or triton raises; nothing is written before it runs
                log.warning("inductor failed (%s): the gates take separate kernels", " ".join(str(error).split())[:200])
                compiled = None
        return plain(*tensors)

    return call
