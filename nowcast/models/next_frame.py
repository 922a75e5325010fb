"""ConvLSTM stacks that forecast the next frame, and later frames by reading their own forecasts (rollout).

Options cover the Keras next-frame example and its moving squares (batch normalisation, Conv3D head), ConvLSTMs whose last
hidden state is the frame (head = "hidden"), and OpenSTL's ConvLSTM-S (patches, 1 × 1 head, scheduled sampling). Keras's "same"
Conv3D also reads the frame after the newest one; the head here only reads the newest and earlier ones. A forecast never reads
a true future frame.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Number, Section
from nowcast.models.convlstm import CellOptions, NormalisedConvLSTM, State
from nowcast.models.encoder_forecaster import Channels, KernelSize, Output, activate, pad_to_multiple, require_odd
from nowcast.models.model import Model


class NextFrameConfig(Section):
    """Keys of `[model]` for name = "next_frame"; the defaults are those of the Keras example of 2021."""

    name: Literal["next_frame"] = "next_frame"
    hidden_channels: Many[Channels] = Field((64, 64, 64), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (5, 3, 1)
    patch: int = Field(1, ge=1, le=32)
    batch_norm: bool = True
    last_norm: bool = False  # also after the last layer
    activation: Literal["tanh", "relu"] = "relu"
    gate_activation: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    initial: Literal["keras", "torch"] = "keras"
    forget_bias: Number = 1.0  # initial bias of the forget gate, with initial = "keras"
    head: Literal["conv3d", "conv2d", "hidden"] = "conv3d"
    head_kernel: Annotated[int, Field(ge=1, le=7)] = 3
    # "all": trained to forecast every next frame of a window from true frames; "future": trained on its rollout
    supervise: Literal["all", "future"] = "all"
    # fraction of the training in which its own forecasts gradually replace true frames as input; 0: true frames throughout
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


Memory = tuple[list[State], Tensor] | None  # the layers' states, and the features that the head looks back at


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
        """Compute the forecast as `Model.forward`.

        past, future: (case, time, 2, y, x) and (case, lead, 2, y, x) network values and validity
        done: completed fraction of the training, 0 to 1
        returns: (case, lead, y, x); in training with `future` and `supervise = "all"`: (case, time + lead - 1, y, x), the
            forecasts of all frames of the window but the first, each from the true frames before it
        """
        y, x = past.shape[-2:]
        if self.training and future is not None and self.config.supervise == "all":
            window = pad_to_multiple(torch.cat([past, future], dim=1), self.cell_multiple)
            values = self._teacher_forced(window, past.shape[1], done)
        else:
            values = self._roll_out(pad_to_multiple(past, self.cell_multiple), num_leads)
        return values[..., :y, :x]

    def _teacher_forced(self, window: Tensor, num_past: int, done: float) -> Tensor:
        """Forecast all frames of a window but the first from true frames; scheduled sampling replaces some by own forecasts."""
        if not self.config.scheduled_sampling:
            return self.one_step_ahead(window[:, :-1], None)[0]
        own_share = min(done / self.config.scheduled_sampling, 1.0)  # probability of reading an own forecast
        values, memory = self.one_step_ahead(window[:, :num_past], None)
        forecast = [values]
        for time in range(num_past, window.shape[1] - 1):
            own = torch.rand(len(window), 1, 1, 1, device=window.device) < own_share  # drawn per case and frame
            frame = torch.where(own, as_input(forecast[-1][:, -1]), window[:, time])
            values, memory = self.one_step_ahead(frame[:, None], memory)
            forecast.append(values)
        return torch.cat(forecast, dim=1)

    def _roll_out(self, past: Tensor, num_leads: int) -> Tensor:
        """Forecast the next frame, then each later frame from the forecasts before it."""
        values, memory = self.one_step_ahead(past, None)
        forecast = [values[:, -1]]
        while len(forecast) < num_leads:
            values, memory = self.one_step_ahead(as_input(forecast[-1])[:, None], memory)
            forecast.append(values[:, -1])
        return torch.stack(forecast, dim=1)

    def one_step_ahead(self, frames: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Forecast the frame after each of `frames` (case, time, 2, y, x); return it and the memory to go on from."""
        if not self.config.validity_channel:
            frames = frames[:, :, :1]
        states, tail = memory or (None, None)
        features, states = self.stack(F.pixel_unshuffle(frames, self.config.patch), states)
        if tail is None:  # no features before the first frame
            tail = features.new_zeros(features.shape[0], self.look_back, *features.shape[2:])
        seen = torch.cat([tail.to(features.dtype), features], dim=1)
        values = self.head(seen.transpose(1, 2)).transpose(1, 2)
        values = activate(F.pixel_shuffle(values, self.config.patch)[:, :, 0], self.config.output)
        return values, (states, seen[:, seen.shape[1] - self.look_back :])


def as_input(values: Tensor) -> Tensor:
    """Return forecast values (case, y, x) as an input frame (case, 2, y, x), with validity 1 everywhere."""
    return torch.stack([values, torch.ones_like(values)], dim=1)
