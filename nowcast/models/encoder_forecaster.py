"""Two ConvLSTM encoder–forecasters; in both the forecaster's layers start from the encoder's last states.

`EncoderForecaster` (Shi et al. 2015, arXiv 1506.04214): one grid. Frames are folded p × p into channels, the forecaster's
first layer is unfed, and the hidden states of all its layers together give the frame through one 1 × 1 convolution.
`Multiscale` (Shi et al. 2017, arXiv 1706.03458): strided convolutions between the layers; the forecaster is the mirror
image, its coarsest layer unfed, and each finer layer reads the upsampled coarser one.
Both take any grid: what does not divide is padded with missing pixels and cut off again.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config import Many, Section
from nowcast.models.convlstm import CellOptions, ConvLSTM

Channels = Annotated[int, Field(ge=1, le=4096)]
KernelSize = Annotated[int, Field(ge=1, le=31)]
Output = Literal["linear", "sigmoid"]


def require_odd(name: str, sizes: Sequence[int]) -> None:
    if even := [size for size in sizes if size % 2 == 0]:
        raise ValueError(f"{name} must be odd, not {even[0]}")


class EncoderForecasterConfig(Section):
    """Keys of `[model]` for name = "encoder_forecaster"."""

    name: Literal["encoder_forecaster"] = "encoder_forecaster"
    hidden_channels: Many[Channels] = Field((64, 64), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (3, 3)
    input_kernel_sizes: Many[KernelSize] = ()  # () = as kernel_sizes
    patch: int = Field(4, ge=1, le=32)
    peepholes: bool = False
    validity_channel: bool = True
    output: Output = "linear"

    @model_validator(mode="after")
    def _match(self) -> "EncoderForecasterConfig":
        layers = len(self.hidden_channels)
        for name in ("kernel_sizes", "input_kernel_sizes"):
            sizes = getattr(self, name)
            if len(sizes) != layers and (sizes or name == "kernel_sizes"):
                raise ValueError(f"{layers} hidden_channels need {layers} {name}, not {len(sizes)}")
            require_odd(name, sizes)
        return self


class EncoderForecaster(nn.Module):
    """(case, time, 2, y, x) values and validity -> (case, lead, y, x) forecast values, float32, any number of leads."""

    def __init__(self, config: EncoderForecasterConfig):
        super().__init__()
        self.config = config
        self.cell_multiple = config.patch
        channels = config.patch**2 * (2 if config.validity_channel else 1)
        layers = {"hidden_channels": config.hidden_channels, "kernel_sizes": config.kernel_sizes}
        options = {"input_kernel_sizes": config.input_kernel_sizes, "options": CellOptions(peepholes=config.peepholes)}
        self.encoder = ConvLSTM(channels, **layers, **options)
        self.forecaster = ConvLSTM(0, **layers, **options)
        self.head = nn.Conv2d(sum(config.hidden_channels), config.patch**2, 1)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        grid = past.shape[-2:]
        frames = past if self.config.validity_channel else past[:, :, :1]
        frames = F.pixel_unshuffle(pad_to_multiple(frames, self.cell_multiple), self.config.patch)
        states = self.encoder.initial_states(frames[:, 0])
        for time in range(frames.shape[1]):
            states = self.encoder.step(frames[:, time], states)
        forecast = []
        for _ in range(num_leads):
            states = self.forecaster.step(None, states)
            values = self.head(torch.cat([hidden for hidden, _ in states], dim=1))
            forecast.append(F.pixel_shuffle(values, self.config.patch)[:, 0])
        return activate(torch.stack(forecast, dim=1), self.config.output)[..., : grid[0], : grid[1]]


class MultiscaleConfig(Section):
    """Keys of `[model]` for name = "multiscale"; one entry per layer, finest first. The defaults are HKO-7's."""

    name: Literal["multiscale"] = "multiscale"
    hidden_channels: Many[Channels] = Field((64, 192, 192), min_length=1, max_length=8)
    kernel_sizes: Many[KernelSize] = (5, 5, 3)  # state-to-state; input-to-state is 3 × 3
    down_channels: Many[Channels] = (8, 192, 192)
    down_kernels: Many[KernelSize] = (7, 5, 3)
    strides: Many[Annotated[int, Field(ge=1, le=8)]] = (5, 3, 2)
    up_kernels: Many[KernelSize] = (7, 5, 4)
    peepholes: bool = False
    validity_channel: bool = True
    output: Output = "linear"

    @model_validator(mode="after")
    def _match(self) -> "MultiscaleConfig":
        layers = len(self.hidden_channels)
        for name in ("kernel_sizes", "down_channels", "down_kernels", "strides", "up_kernels"):
            if len(getattr(self, name)) != layers:
                raise ValueError(f"{layers} hidden_channels need {layers} {name}, not {len(getattr(self, name))}")
        require_odd("kernel_sizes", self.kernel_sizes)
        for down, stride, up in zip(self.down_kernels, self.strides, self.up_kernels, strict=True):
            if down < stride or up < stride or (up - stride) % 2:
                raise ValueError(f"stride {stride} needs a down kernel of at least {stride} and an up kernel of {stride} + 2n")
        return self


class Multiscale(nn.Module):
    """(case, time, 2, y, x) values and validity -> (case, lead, y, x) forecast values, float32, any number of leads."""

    def __init__(self, config: MultiscaleConfig):
        super().__init__()
        self.config = config
        self.cell_multiple = math.prod(config.strides)
        inputs = [2 if config.validity_channel else 1, *config.hidden_channels[:-1]]
        down, encoder, up, forecaster = [], [], [], []
        for n, hidden in enumerate(config.hidden_channels):
            kernel, stride, up_kernel = config.down_kernels[n], config.strides[n], config.up_kernels[n]
            channels, coarsest = config.down_channels[n], n == len(config.hidden_channels) - 1
            down.append(nn.Conv2d(inputs[n], channels, kernel, stride, padding=math.ceil((kernel - stride) / 2)))
            encoder.append(self._layer(channels, n))
            forecaster.append(self._layer(0 if coarsest else config.down_channels[n + 1], n))
            up.append(nn.ConvTranspose2d(hidden, channels, up_kernel, stride, padding=(up_kernel - stride) // 2))
        self.down, self.encoder = nn.ModuleList(down), nn.ModuleList(encoder)
        self.up, self.forecaster = nn.ModuleList(up), nn.ModuleList(forecaster)
        finest = config.down_channels[0]
        self.head = nn.Sequential(nn.Conv2d(finest, finest, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(finest, 1, 1))

    def _layer(self, in_channels: int, n: int) -> ConvLSTM:
        return ConvLSTM(
            in_channels, self.config.hidden_channels[n : n + 1], self.config.kernel_sizes[n : n + 1],
            input_kernel_sizes=(3,), options=CellOptions(peepholes=self.config.peepholes),
        )  # fmt: skip

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        grid = past.shape[-2:]
        frames = past if self.config.validity_channel else past[:, :, :1]
        states = self._encode(pad_to_multiple(frames, self.cell_multiple))
        forecast = []
        for _ in range(num_leads):
            states, values = self._forecast_one(states)
            forecast.append(values[:, 0])
        return activate(torch.stack(forecast, dim=1), self.config.output)[..., : grid[0], : grid[1]]

    def _encode(self, frames: Tensor) -> list:
        states = [None] * len(self.down)
        for time in range(frames.shape[1]):
            values = frames[:, time]
            for n, (down, layer) in enumerate(zip(self.down, self.encoder, strict=True)):
                values = F.leaky_relu(down(values), 0.2)
                states[n] = layer.step(values, states[n] or layer.initial_states(values))
                values = states[n][-1][0]
        return states

    def _forecast_one(self, states: list) -> tuple[list, Tensor]:
        after, values = list(states), None
        for n in reversed(range(len(states))):
            after[n] = self.forecaster[n].step(values, states[n])
            values = F.leaky_relu(self.up[n](after[n][-1][0]), 0.2)
        return after, self.head(values)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """(..., y, x) with zeros (dry and, in the validity channel, missing) after the last row and column."""
    y, x = frames.shape[-2:]
    return F.pad(frames, (0, -x % multiple, 0, -y % multiple))


def activate(values: Tensor, output: Output) -> Tensor:
    """The output nonlinearity, in float32: a bfloat16 sigmoid is 1 from 6 on."""
    return values.float().sigmoid() if output == "sigmoid" else values.float()
