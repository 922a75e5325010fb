"""The ConvLSTM cell, and stacks of ConvLSTM layers.

    i = σ(Wxi*X + Whi*H' + wci∘C' + bi)      f = σ(Wxf*X + Whf*H' + wcf∘C' + bf)
    C = f∘C' + i∘tanh(Wxc*X + Whc*H' + bc)   o = σ(Wxo*X + Who*H' + wco∘C + bo)     H = o∘tanh(C)

Shi et al. (2015), arXiv 1506.04214, eq. 3. X is the input, * a convolution, ∘ the elementwise product, ' marks the time
step before. The four gates are computed by one convolution; on the channel axis their order is i, f, c, o, as in Keras.
Peephole weights wc are one number per channel; without peepholes wc = 0. A state is the tuple (hidden, cell), each
(case, channel, y, x).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nowcast.errors import UsageError
from nowcast.models.engine.layer import run_layer
from nowcast.runtime.threads import one_thread

State = tuple[Tensor, Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),  # as in Keras 2; torch uses another slope
}


@dataclass(frozen=True)
class CellOptions:
    """Options that all cells of a stack share.

    `initial = "keras"` draws Glorot-uniform input weights and orthogonal state weights, and sets biases to 0, that of the
    forget gate to `forget_bias`. `initial = "torch"` draws everything uniformly from ± 1 / √(fan-in of the convolution over
    input and state together), as nn.Conv2d does.
    """

    peepholes: bool = False
    forget_bias: float = 1.0
    activation: str = "tanh"
    gate_activation: str = "sigmoid"
    initial: Literal["keras", "torch"] = "keras"


class ConvLSTMCell(nn.Module):
    """One time step of one ConvLSTM layer.

    `kernel_size` is for state-to-state convolutions, `input_kernel_size` for input-to-state ones (0: the same); both odd.
    With `in_channels = 0` the cell has no input and is called with `frame = None`.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int,
        *,
        input_kernel_size: int = 0,
        options: CellOptions = CellOptions(),
    ):
        super().__init__()
        self.hidden_channels, self.options = hidden_channels, options
        self.activation = ACTIVATIONS[options.activation]
        self.gate_activation = ACTIVATIONS[options.gate_activation]
        self.state_weight = nn.Parameter(torch.empty(4 * hidden_channels, hidden_channels, kernel_size, kernel_size))
        self.input_weight = None
        if in_channels:
            size = input_kernel_size or kernel_size
            self.input_weight = nn.Parameter(torch.empty(4 * hidden_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_channels))
        self.peepholes = nn.Parameter(torch.zeros(3, hidden_channels, 1, 1)) if options.peepholes else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as set by `CellOptions.initial`; peephole weights are 0."""
        weights = [self.state_weight] if self.input_weight is None else [self.input_weight, self.state_weight]
        if self.options.initial == "torch":
            bound = 1 / math.sqrt(sum(weight[0].numel() for weight in weights))
            for parameter in (*weights, self.bias):
                nn.init.uniform_(parameter, -bound, bound)
            return
        if self.input_weight is not None:
            nn.init.xavier_uniform_(self.input_weight)
        with one_thread(torch.get_num_threads, torch.set_num_threads):  # their number would decide the last bits
            nn.init.orthogonal_(self.state_weight)
        with torch.no_grad():
            self.bias.view(4, -1)[1] = self.options.forget_bias

    def initial_state(self, like: Tensor) -> State:
        """Return a zero state with the grid, device and dtype of `like` (case, channel, y, x)."""
        shape = (like.shape[0], self.hidden_channels, *like.shape[-2:])
        return like.new_zeros(shape), like.new_zeros(shape)

    def forward(self, frame: Tensor | None, state: State) -> State:
        """Compute the next state (hidden, cell) from `frame` (case, channel, y, x) and `state`."""
        hidden, cell = state
        gates = self._convolve(frame, hidden)
        input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
        if self.peepholes is not None:
            input_gate = input_gate + self.peepholes[0] * cell
            forget_gate = forget_gate + self.peepholes[1] * cell
        squash = self.gate_activation
        cell = squash(forget_gate) * cell + squash(input_gate) * self.activation(candidate)
        if self.peepholes is not None:
            output_gate = output_gate + self.peepholes[2] * cell
        return squash(output_gate) * self.activation(cell), cell

    def _convolve(self, frame: Tensor | None, hidden: Tensor) -> Tensor:
        if frame is None or self.input_weight is None:
            return _same(hidden, self.state_weight, self.bias)
        # one convolution is faster than two, but it concatenates the weights at each step and keeps them for the gradient;
        # with 1 × 1 kernels that costs as much as the convolution itself
        if self.input_weight.shape[-1] == self.state_weight.shape[-1] > 1:
            weight = torch.cat([self.input_weight, self.state_weight], dim=1)
            return _same(torch.cat([frame, hidden], dim=1), weight, self.bias)
        return _same(frame, self.input_weight, self.bias) + _same(hidden, self.state_weight, None)


def _same(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(values, weight, bias, padding=weight.shape[-1] // 2)


class ConvLSTM(nn.Module):
    """A stack of ConvLSTM layers; layer n + 1 reads the hidden states of layer n.

    `hidden_channels` and `kernel_sizes` have one entry per layer. With `in_channels = 0` the first layer has no input. With
    `checkpoint_steps` = n > 0, only every n-th state is kept; the backward pass computes the others again.
    """

    checkpoint_steps = 0

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        kernel_sizes: Sequence[int],
        *,
        input_kernel_sizes: Sequence[int] = (),
        options: CellOptions = CellOptions(),
    ):
        super().__init__()
        if len(hidden_channels) != len(kernel_sizes):
            raise ValueError(f"{len(hidden_channels)} hidden_channels need as many kernel_sizes, not {len(kernel_sizes)}")
        self.use_engine = True  # False: call the cells step by step everywhere, for comparison
        inputs = [in_channels, *hidden_channels[:-1]]
        input_kernel_sizes = input_kernel_sizes or kernel_sizes
        self.cells = nn.ModuleList(
            ConvLSTMCell(
                inputs[n], hidden_channels[n], kernel_sizes[n], input_kernel_size=input_kernel_sizes[n], options=options
            )
            for n in range(len(hidden_channels))
        )

    def forward(
        self, frames: Tensor | None, states: Sequence[State] | None = None, *, num_steps: int = 0
    ) -> tuple[list[Tensor], list[State]]:
        """Run over a sequence, layer by layer; the result equals that of the cells called step by step.

            frames: (case, time, channel, y, x); None for a stack without input, which then runs for `num_steps` steps
            states: one per layer; None: zeros
            returns: for each layer the hidden states (case, time, hidden, y, x), and for each layer the last state

        Each layer goes over the whole sequence at once, if it can, with the code in engine/.
        """
        if frames is None and states is None:
            raise ValueError("a stack without frames needs states to start from")
        like = frames[:, 0] if frames is not None else states[0][0]
        sequence, hidden, after = None if frames is None else frames.transpose(0, 1), [], []
        for n, cell in enumerate(self.cells):
            state = None if states is None else states[n]
            sequence, state = self._run(cell, sequence, state, like, num_steps if sequence is None else sequence.shape[0])
            hidden.append(sequence.transpose(0, 1))
            after.append(state)
        return hidden, after

    def _run(
        self, cell: ConvLSTMCell, frames: Tensor | None, state: State | None, like: Tensor, num_steps: int
    ) -> tuple[Tensor, State]:
        by_layer = self.use_engine and _engine_takes(like, cell.state_weight)
        run = partial(_run_layer if by_layer else _run_step_by_step, cell, like)
        length = self.checkpoint_steps
        if not (0 < length < num_steps and torch.is_grad_enabled()):
            return run(frames, state, num_steps)
        hidden = []
        for first in range(0, num_steps, length):
            some_frames = None if frames is None else frames[first : first + length]
            arguments = (some_frames, state, min(length, num_steps - first))
            stretch, state = checkpoint(run, *arguments, use_reentrant=False, preserve_rng_state=False)
            hidden.append(stretch)
        return torch.cat(hidden), state


def set_checkpoint_steps(model: nn.Module, num_steps: int) -> None:
    """Make all ConvLSTM stacks of a model keep only the states every `num_steps` time steps; 0: all.

    Raises UsageError (exit 2) for a model without a ConvLSTM stack.
    """
    stacks = [module for module in model.modules() if isinstance(module, ConvLSTM)]
    if num_steps and not stacks:
        raise UsageError(
            f"training.checkpoint_steps = {num_steps}: only ConvLSTM stacks can repeat time steps in the backward pass, "
            "and this model has none; set 0"
        )
    for stack in stacks:
        stack.checkpoint_steps = num_steps


def _engine_takes(like: Tensor, weight: Tensor) -> bool:
    """Return whether the code in engine/ can run a layer: not while torch compiles or exports, only with float32 weights."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    return not traced and like.device.type in ("cpu", "cuda") and weight.dtype == torch.float32


def _run_layer(
    cell: ConvLSTMCell, like: Tensor, frames: Tensor | None, state: State | None, num_steps: int
) -> tuple[Tensor, State]:
    options = cell.options
    return run_layer(
        frames, state, like, num_steps,
        input_weight=cell.input_weight, state_weight=cell.state_weight, bias=cell.bias, peepholes=cell.peepholes,
        activations=(options.activation, options.gate_activation),
    )  # fmt: skip


def _run_step_by_step(
    cell: ConvLSTMCell, like: Tensor, frames: Tensor | None, state: State | None, num_steps: int
) -> tuple[Tensor, State]:
    state, hidden = cell.initial_state(like) if state is None else state, []
    for time in range(num_steps):
        state = cell(None if frames is None else frames[time], state)
        hidden.append(state[0])
    return torch.stack(hidden), state


class NormalisedConvLSTM(nn.Module):
    """ConvLSTM layers, each followed by batch normalisation over cases, times and cells.

    `batch_norm = False` leaves out normalisation, `last_norm = False` that of the last layer. Momentum and epsilon are those of
    Keras.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        kernel_sizes: Sequence[int],
        *,
        batch_norm: bool,
        last_norm: bool,
        options: CellOptions,
    ):
        super().__init__()
        inputs = [in_channels, *hidden_channels[:-1]]
        last = len(hidden_channels) - 1
        layers, norms = [], []
        for n, (hidden, kernel) in enumerate(zip(hidden_channels, kernel_sizes, strict=True)):
            layers.append(ConvLSTM(inputs[n], (hidden,), (kernel,), options=options))
            normed = batch_norm and (n < last or last_norm)
            norms.append(nn.BatchNorm3d(hidden, eps=1e-3, momentum=0.01) if normed else nn.Identity())
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)

    def forward(self, frames: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """Run over frames (case, time, channel, y, x).

        returns: the last layer's hidden states (case, time, hidden, y, x), and each layer's last state
        """
        after = []
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            (hidden,), (state,) = layer(frames, None if states is None else [states[n]])
            frames = _normalised(hidden, norm)
            after.append(state)
        return frames, after


def _normalised(hidden: Tensor, norm: nn.Module) -> Tensor:
    """Return the hidden states (case, time, hidden, y, x) normalised over cases, times and cells."""
    # torch 2.13 and 2.14 on a CPU: wrong gradients of one case with channels innermost in memory, so its times are cases;
    # not in forecasts, whose exports take any number of cases
    cases = 1 if norm.training and hidden.shape[0] == 1 else 0
    return norm(hidden.transpose(cases, 0).transpose(1, 2)).transpose(1, 2).transpose(cases, 0)
