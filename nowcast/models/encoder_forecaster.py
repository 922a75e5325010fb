"""The ConvLSTM encoder–forecaster of Shi et al. (2015), arXiv 1506.04214, on one grid.

The forecaster's layers start from the encoder's last states; its first layer is unfed, and the hidden states of all its
layers together give the frame through one 1 × 1 convolution. Frames are folded p × p into channels. It takes any grid:
what does not divide is padded with missing pixels and cut off again.
"""

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


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """(..., y, x) with zeros (dry and, in the validity channel, missing) after the last row and column."""
    y, x = frames.shape[-2:]
    return F.pad(frames, (0, -x % multiple, 0, -y % multiple))


def activate(values: Tensor, output: Output) -> Tensor:
    """The output nonlinearity, in float32: a bfloat16 sigmoid is 1 from 6 on."""
    return values.float().sigmoid() if output == "sigmoid" else values.float()
