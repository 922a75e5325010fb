"""Stacks that forecast the next frame from all frames before it, and reach further by reading their own forecasts.

Covers the Keras next-frame stack and moving squares (batch normalisation, Conv3D head), the torch convLSTM with its beams
(the last layer's hidden state is the frame) and OpenSTL's ConvLSTM-S (patches, 1 × 1 head, scheduled sampling). Keras's
"same" Conv3D looks at the frame after the one it forecasts from; the head here looks back only. A forecast is a rollout:
no true future frame is ever read in it.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Number, Section
from nowcast.models.convlstm import CellOptions, State
from nowcast.models.encoder_forecaster import Channels, KernelSize, Output, activate, pad_to_multiple, require_odd
from nowcast.models.model import Model
from nowcast.models.normalised import NormalisedConvLSTM


class NextFrameConfig(Section):
    """Keys of `[model]` for name = "next_frame"; the defaults are the 2021 Keras example's."""

    name: Literal["next_frame"] = "next_frame"
    hidden_channels: Many[Channels] = Field((64, 64, 64), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (5, 3, 1)
    patch: int = Field(1, ge=1, le=32)
    batch_norm: bool = True
    last_norm: bool = False  # also after the last layer
    activation: Literal["tanh", "relu"] = "relu"
    gate_activation: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    initial: Literal["keras", "torch"] = "keras"
    forget_bias: Number = 1.0  # with initial = "keras"
    head: Literal["conv3d", "conv2d", "hidden"] = "conv3d"
    head_kernel: Annotated[int, Field(ge=1, le=7)] = 3
    # "all": trained on every next frame of a window, true frames in; "future": on its rollout, as it is used
    supervise: Literal["all", "future"] = "all"
    # share of the training over which own frames take the place of true ones; 0: true frames to the end
    scheduled_sampling: Number = Field(0.0, ge=0, le=1)
    validity_channel: bool = True
    output: Output = "sigmoid"

    @model_validator(mode="after")
    def _match(self) -> "NextFrameConfig":
        if len(self.kernel_sizes) != len(self.hidden_channels):
            layers, kernels = len(self.hidden_channels), len(self.kernel_sizes)
            raise ValueError(f"{layers} hidden_channels need as many kernel_sizes, not {kernels}")
        require_odd("kernel_sizes", (*self.kernel_sizes, self.head_kernel))
        if self.head == "hidden" and self.hidden_channels[-1] != self.patch**2:
            raise ValueError(f'head = "hidden" needs {self.patch**2} hidden_channels in the last layer (patch²)')
        if self.scheduled_sampling and (self.supervise == "future" or self.batch_norm):
            raise ValueError('scheduled_sampling needs supervise = "all" and batch_norm = false')
        return self


Memory = tuple[list[State], Tensor] | None


class NextFrame(Model):
    """A stack that forecasts the next frame; later frames by reading its own forecasts. See `forward`."""

    citation = "Next-Frame Video Prediction with Convolutional LSTMs (Keras code examples, 2021)"
    learns_from_future = True

    def __init__(self, config: NextFrameConfig):
        super().__init__(config)
        self.cell_multiple = config.patch
        self.draws_random_numbers = config.scheduled_sampling > 0
        channels = config.patch**2 * (2 if config.validity_channel else 1)
        options = CellOptions(
            forget_bias=config.forget_bias, activation=config.activation, gate_activation=config.gate_activation,
            initial=config.initial,
        )  # fmt: skip
        self.stack = NormalisedConvLSTM(
            channels, config.hidden_channels, config.kernel_sizes,
            batch_norm=config.batch_norm, last_norm=config.last_norm, options=options,
        )  # fmt: skip
        hidden, kernel = config.hidden_channels[-1], config.head_kernel
        self.look_back = kernel - 1 if config.head == "conv3d" else 0
        if config.head == "conv3d":
            self.head = nn.Conv3d(hidden, config.patch**2, kernel, padding=(0, kernel // 2, kernel // 2))
        elif config.head == "conv2d":
            self.head = nn.Conv3d(hidden, config.patch**2, (1, kernel, kernel), padding=(0, kernel // 2, kernel // 2))
        else:
            self.head = nn.Identity()

    def forward(self, past: Tensor, num_leads: int, *, future: Tensor | None = None, done: float = 0.0) -> Tensor:
        """(case, time, 2, y, x) -> (case, num_leads, y, x); `past` and `future` hold values and validity.

        While it trains, with `future` and `supervise = "all"`, it gives the forecast of every frame of the window but the
        first instead, (case, time + num_leads - 1, y, x), from true frames; `done` is the share of the training that is over.
        """
        y, x = past.shape[-2:]
        if self.training and future is not None and self.config.supervise == "all":
            window = pad_to_multiple(torch.cat([past, future], dim=1), self.cell_multiple)
            values = self._forced(window, past.shape[1], done)
        else:
            values = self._roll_out(pad_to_multiple(past, self.cell_multiple), num_leads)
        return values[..., :y, :x]

    def _forced(self, window: Tensor, num_past: int, done: float) -> Tensor:
        if not self.config.scheduled_sampling:
            return self.one_step_ahead(window[:, :-1], None)[0]
        own_share = min(done / self.config.scheduled_sampling, 1.0)
        values, memory = self.one_step_ahead(window[:, :num_past], None)
        forecast = [values]
        for time in range(num_past, window.shape[1] - 1):
            own = torch.rand(len(window), 1, 1, 1, device=window.device) < own_share  # drawn per case and frame
            frame = torch.where(own, as_input(forecast[-1][:, -1]), window[:, time])
            values, memory = self.one_step_ahead(frame[:, None], memory)
            forecast.append(values)
        return torch.cat(forecast, dim=1)

    def _roll_out(self, past: Tensor, num_leads: int) -> Tensor:
        values, memory = self.one_step_ahead(past, None)
        forecast = [values[:, -1]]
        while len(forecast) < num_leads:
            values, memory = self.one_step_ahead(as_input(forecast[-1])[:, None], memory)
            forecast.append(values[:, -1])
        return torch.stack(forecast, dim=1)

    def one_step_ahead(self, frames: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The next frame after each of `frames` (case, time, 2, y, x), and what the frames after them need."""
        if not self.config.validity_channel:
            frames = frames[:, :, :1]
        states, tail = memory or (None, None)
        features, states = self.stack(F.pixel_unshuffle(frames, self.config.patch), states)
        if tail is None:  # before the first frame there was nothing
            tail = features.new_zeros(len(features), self.look_back, *features.shape[2:])
        seen = torch.cat([tail.to(features.dtype), features], dim=1)
        values = self.head(seen.transpose(1, 2)).transpose(1, 2)
        values = activate(F.pixel_shuffle(values, self.config.patch)[:, :, 0], self.config.output)
        return values, (states, seen[:, seen.shape[1] - self.look_back :])


def as_input(values: Tensor) -> Tensor:
    """Own forecast values (case, y, x) as a frame to read, (case, 2, y, x): known everywhere."""
    return torch.stack([values, torch.ones_like(values)], dim=1)
