"""The encoder–forecaster with strided convolutions between recurrent layers: Shi et al. (2017), arXiv 1706.03458.

The forecaster mirrors the encoder and starts from its states: its coarsest layer has no input, and each finer layer reads the
upsampled output of the coarser one. The recurrent layers are ConvLSTM ("multiscale"), ConvGRU or TrajGRU.
"""

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Section
from nowcast.models.convgru import ConvGRU, TrajGRU
from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.encoder_forecaster import (
    Channels,
    KernelSize,
    Output,
    activate,
    joined,
    over_time,
    pad_to_multiple,
    require_odd,
    steps_at_once,
)
from nowcast.models.model import Model


class MultiscaleConfig(Section):
    """Keys of `[model]` for name = "multiscale"; lists have one entry per layer, finest first. Defaults: those for HKO-7."""

    name: Literal["multiscale"] = "multiscale"
    hidden_channels: Many[Channels] = Field((64, 192, 192), min_length=1, max_length=8)
    kernel_sizes: Many[KernelSize] = (5, 5, 3)  # state-to-state; input-to-state kernels are 3 × 3
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
            if stride == 1 and down % 2 == 0:  # its convolution would give a grid larger by one cell each way
                raise ValueError(f"stride 1 needs an odd down kernel, not {down}")
            if down < stride or up < stride or (up - stride) % 2:
                raise ValueError(f"stride {stride} needs a down kernel of at least {stride} and an up kernel of {stride} + 2n")
        return self


class ConvGRUConfig(MultiscaleConfig):
    """Keys of `[model]` for name = "convgru": as multiscale, with ConvGRU layers, which have no peepholes."""

    name: Literal["convgru"] = "convgru"
    peepholes: Literal[False] = False


class TrajGRUConfig(MultiscaleConfig):
    """Keys of `[model]` for name = "trajgru": as multiscale; layers read the state along `links` flows, not `kernel_sizes`."""

    name: Literal["trajgru"] = "trajgru"
    peepholes: Literal[False] = False
    links: Many[Annotated[int, Field(ge=1, le=64)]] = (13, 13, 9)

    @model_validator(mode="after")
    def _as_many_links(self) -> "TrajGRUConfig":
        if len(self.links) != len(self.hidden_channels):
            raise ValueError(f"{len(self.hidden_channels)} hidden_channels need as many links, not {len(self.links)}")
        return self


class Multiscale(Model):
    """The encoder–forecaster on several grids, with ConvLSTM, ConvGRU or TrajGRU layers; forward as `Model.forward`."""

    citation = "Shi et al. (2017), arXiv 1706.03458"

    def __init__(self, config: MultiscaleConfig):
        super().__init__(config)
        self.cell_multiple = math.prod(config.strides)
        self.reach_is_bounded = not isinstance(config, TrajGRUConfig)  # its flows may point anywhere
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

    def _layer(self, in_channels: int, n: int) -> nn.Module:
        hidden, kernel = self.config.hidden_channels[n], self.config.kernel_sizes[n]
        if isinstance(self.config, TrajGRUConfig):
            return TrajGRU(in_channels, hidden, kernel, links=self.config.links[n])
        if isinstance(self.config, ConvGRUConfig):
            return ConvGRU(in_channels, hidden, kernel)
        options = CellOptions(peepholes=self.config.peepholes)
        return ConvLSTM(in_channels, (hidden,), (kernel,), input_kernel_sizes=(3,), options=options)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        grid = past.shape[-2:]
        frames = past if self.config.validity_channel else past[:, :, :1]
        states = self._encode(pad_to_multiple(frames, self.cell_multiple))
        forecast = []
        for num_steps in steps_at_once(num_leads):
            states, values = self._forecast(states, num_steps)
            forecast.append(values[:, :, 0])
        return activate(joined(forecast), self.config.output)[..., : grid[0], : grid[1]]

    def _encode(self, values: Tensor) -> list:
        """Return each layer's last state after the past frames (case, time, channel, y, x)."""
        states = []
        for down, layer in zip(self.down, self.encoder, strict=True):
            values = over_time(lambda frames, down=down: F.leaky_relu(down(frames), 0.2), values)
            (values,), (state,) = layer(values)
            states.append(state)
        return states

    def _forecast(self, states: list, num_steps: int) -> tuple[list, Tensor]:
        """Return the layers' states `num_steps` lead times later, and the outputs (case, lead, 1, y, x) on the way."""
        after, values = list(states), None
        for n in reversed(range(len(states))):
            (values,), (after[n],) = self.forecaster[n](values, [states[n]], num_steps=num_steps)
            values = over_time(lambda frames, up=self.up[n]: F.leaky_relu(up(frames), 0.2), values)
        return after, over_time(self.head, values)
