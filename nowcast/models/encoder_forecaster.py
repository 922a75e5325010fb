"""The ConvLSTM encoder–forecaster on one grid: Shi et al. (2015), arXiv 1506.04214.

The forecaster's layers start from the encoder's last states, and its first layer has no input. A 1 × 1 convolution over the
hidden states of all its layers gives the frame. Patches of p × p cells are folded into channels. A grid that is no multiple of
the patch is padded with missing cells, which are cut off again.
"""

from collections.abc import Callable, Iterator, Sequence
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
    """Raise ValueError for an even kernel size."""
    if even := [size for size in sizes if size % 2 == 0]:
        raise ValueError(f"{name} must be odd, not {even[0]}")


class LayersConfig(Section):
    """Keys of `[model]` that encoder–forecasters share; lists have one entry per layer."""

    hidden_channels: Many[Channels] = Field((64, 64), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (3, 3)
    input_kernel_sizes: Many[KernelSize] = ()  # (): the same as kernel_sizes
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


class OutputLayer(nn.Conv2d):
    """A 1 × 1 convolution over the hidden states of all layers, one by one: concatenating them would copy them.

    As matrix products: hidden states of the engine have their channels innermost in memory.
    """

    def __init__(self, hidden_channels: Sequence[int], num_outputs: int):
        super().__init__(sum(hidden_channels), num_outputs, 1)
        self.hidden_channels = tuple(hidden_channels)

    def forward(self, hidden: Sequence[Tensor]) -> Tensor:
        """Compute the outputs of all times.

        hidden: (case, time, hidden, y, x) of each layer
        returns: (case, time, num_outputs, y, x), in memory (time, case, y, x, num_outputs)
        """
        weights = self.weight.flatten(1).split(self.hidden_channels, dim=1)
        cells = [states.permute(1, 0, 3, 4, 2) for states in hidden]
        outputs = F.linear(cells[0].flatten(0, 3), weights[0], self.bias)
        for states, weight in zip(cells[1:], weights[1:], strict=True):
            products = states.flatten(0, 3).to(outputs.dtype), weight.t().to(outputs.dtype)  # autocast casts not in place
            outputs = outputs.addmm_(*products)
        return outputs.unflatten(0, cells[0].shape[:4]).permute(1, 0, 4, 2, 3)


class Layers(Model):
    """The layers of an encoder–forecaster: encoder, forecaster, and a 1 × 1 convolution to `num_outputs` channels.

    The encoder's input is the folded frames, or `num_seen` other channels; the forecaster's input has `num_fed` channels.
    """

    def __init__(self, config: LayersConfig, num_outputs: int, *, num_seen: int = 0, num_fed: int = 0):
        super().__init__(config)
        self.cell_multiple = config.patch
        channels = num_seen or config.patch**2 * (2 if config.validity_channel else 1)
        layers = {"hidden_channels": config.hidden_channels, "kernel_sizes": config.kernel_sizes}
        options = {"input_kernel_sizes": config.input_kernel_sizes, "options": CellOptions(peepholes=config.peepholes)}
        self.encoder = ConvLSTM(channels, **layers, **options)
        self.forecaster = ConvLSTM(num_fed, **layers, **options)
        self.head = OutputLayer(config.hidden_channels, num_outputs)


class EncoderForecaster(Layers):
    """The ConvLSTM encoder–forecaster; forward as `Model.forward`."""

    citation = "Shi et al. (2015), arXiv 1506.04214"

    def __init__(self, config: EncoderForecasterConfig):
        super().__init__(config, config.patch**2)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        forecast = [F.pixel_shuffle(channels, self.config.patch)[:, :, 0] for channels in self._outputs(past, num_leads)]
        return activate(joined(forecast), self.config.output)[..., :y, :x]

    def _outputs(self, past: Tensor, num_leads: int) -> Iterator[Tensor]:
        """Yield the channels (case, lead, num_outputs, y / patch, x / patch), some lead times at a time."""
        frames = past if self.config.validity_channel else past[:, :, :1]
        frames = F.pixel_unshuffle(pad_to_multiple(frames, self.cell_multiple), self.config.patch)
        _, states = self.encoder(frames)
        for num_steps in steps_at_once(num_leads):
            hidden, states = self.forecaster(None, states, num_steps=num_steps)
            yield self.head(hidden)


def steps_at_once(num_leads: int) -> list[int]:
    """Return the number of lead times to compute in each part: all for a backward pass, else one, to save memory."""
    return [num_leads] if torch.is_grad_enabled() else [1] * num_leads


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Join parts (case, lead, …) along the lead times; a single one is returned itself, as joining would copy it."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def over_time(function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Apply a function of (case, channel, y, x) to (case, time, channel, y, x), all as one batch in time-first order."""
    time_first = frames.transpose(0, 1)
    return function(time_first.flatten(0, 1)).unflatten(0, time_first.shape[:2]).transpose(0, 1)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Pad (…, y, x) after the last row and column with zeros: dry, and missing in the validity channel.

    Frames that need none are returned themselves: padding by nothing would copy them.
    """
    y, x = frames.shape[-2:]
    rows, columns = -y % multiple, -x % multiple
    return F.pad(frames, (0, columns, 0, rows)) if rows or columns else frames


def activate(values: Tensor, output: Output) -> Tensor:
    """Apply the output nonlinearity to values of any shape, in float32; a sigmoid in bfloat16 rounds to 1 from 6 up."""
    return values.float().sigmoid() if output == "sigmoid" else values.float()
