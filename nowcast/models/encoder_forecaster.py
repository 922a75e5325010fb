"""The ConvLSTM encoder–forecaster of Shi et al. (2015), arXiv 1506.04214, on one grid.

The forecaster's layers start from the encoder's last states; its first layer is unfed, and the hidden states of all its
layers together give the frame through one 1 × 1 convolution. Frames are folded p × p into channels. It takes any grid:
what does not divide is padded with missing pixels and cut off again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Section
from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.model import Model

Channels = Annotated[int, Field(ge=1, le=4096)]
KernelSize = Annotated[int, Field(ge=1, le=31)]
Output = Literal["linear", "sigmoid"]


def require_odd(name: str, sizes: Sequence[int]) -> None:
    if even := [size for size in sizes if size % 2 == 0]:
        raise ValueError(f"{name} must be odd, not {even[0]}")


class LayersConfig(Section):
    """The keys that encoder–forecasters share."""

    hidden_channels: Many[Channels] = Field((64, 64), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (3, 3)
    input_kernel_sizes: Many[KernelSize] = ()  # () = as kernel_sizes
    patch: int = Field(4, ge=1, le=32)
    peepholes: bool = False
    validity_channel: bool = True

    @model_validator(mode="after")
    def _match(self) -> "LayersConfig":
        layers = len(self.hidden_channels)
        for name in ("kernel_sizes", "input_kernel_sizes"):
            sizes = getattr(self, name)
            if len(sizes) != layers and (sizes or name == "kernel_sizes"):
                raise ValueError(f"{layers} hidden_channels need {layers} {name}, not {len(sizes)}")
            require_odd(name, sizes)
        return self


class EncoderForecasterConfig(LayersConfig):
    """Keys of `[model]` for name = "encoder_forecaster"."""

    name: Literal["encoder_forecaster"] = "encoder_forecaster"
    output: Output = "linear"


class Layers(Model):
    """The encoder, the forecaster and its 1 × 1 convolution to `num_outputs` channels of folded frames.

    The encoder sees folded frames or `num_seen` other channels, and the forecaster is fed `num_fed`.
    """

    def __init__(self, config: LayersConfig, num_outputs: int, *, num_seen: int = 0, num_fed: int = 0):
        super().__init__(config)
        self.cell_multiple = config.patch
        channels = num_seen or config.patch**2 * (2 if config.validity_channel else 1)
        layers = {"hidden_channels": config.hidden_channels, "kernel_sizes": config.kernel_sizes}
        options = {"input_kernel_sizes": config.input_kernel_sizes, "options": CellOptions(peepholes=config.peepholes)}
        self.encoder = ConvLSTM(channels, **layers, **options)
        self.forecaster = ConvLSTM(num_fed, **layers, **options)
        self.head = nn.Conv2d(sum(config.hidden_channels), num_outputs, 1)

    def _head(self, hidden: Sequence[Tensor]) -> Tensor:
        """The 1 × 1 convolution over the layers' channels, a layer at a time: joined they would be copied."""
        weights = self.head.weight.split(self.config.hidden_channels, dim=1)
        biases = (self.head.bias, *[None] * (len(hidden) - 1))
        return sum(over_time(partial(F.conv2d, weight=w, bias=b), h) for h, w, b in zip(hidden, weights, biases, strict=True))


class EncoderForecaster(Layers):
    """The ConvLSTM encoder–forecaster; forward as `Model.forward`."""

    citation = "Shi et al. (2015), arXiv 1506.04214"

    def __init__(self, config: EncoderForecasterConfig):
        super().__init__(config, config.patch**2)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        forecast = [F.pixel_shuffle(part, self.config.patch)[:, :, 0] for part in self._outputs(past, num_leads)]
        return activate(torch.cat(forecast, dim=1), self.config.output)[..., :y, :x]

    def _outputs(self, past: Tensor, num_leads: int) -> Iterator[Tensor]:
        """(case, time, 2, y, x) -> (case, lead, num_outputs, y / patch, x / patch), a stretch of leads at a time."""
        frames = past if self.config.validity_channel else past[:, :, :1]
        frames = F.pixel_unshuffle(pad_to_multiple(frames, self.cell_multiple), self.config.patch)
        _, states = self.encoder(frames)
        for num_steps in steps_at_once(num_leads):
            hidden, states = self.forecaster(None, states, num_steps=num_steps)
            yield self._head(hidden)


def steps_at_once(num_leads: int) -> list[int]:
    """All leads together where a backward pass needs them anyway, else one by one to save memory."""
    return [num_leads] if torch.is_grad_enabled() else [1] * num_leads


def over_time(function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Apply a function of (case, channel, y, x) to (case, time, channel, y, x) as one batch, in the order in which it lies."""
    time_first = frames.transpose(0, 1)
    return function(time_first.flatten(0, 1)).unflatten(0, time_first.shape[:2]).transpose(0, 1)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """(..., y, x) with zeros (dry and, in the validity channel, missing) after the last row and column."""
    y, x = frames.shape[-2:]
    return F.pad(frames, (0, -x % multiple, 0, -y % multiple))


def activate(values: Tensor, output: Output) -> Tensor:
    """The output nonlinearity, in float32: a bfloat16 sigmoid is 1 from 6 on."""
    return values.float().sigmoid() if output == "sigmoid" else values.float()
