"""A many-to-many ConvLSTM stack: the past frames and as many blank frames as lead times in, the last outputs are the forecast.

A 1 × 1 convolution over the last layer's hidden states gives one value per cell and time. Blank frames have validity 0, which
distinguishes them from dry ones.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Section
from nowcast.models.convlstm import CellOptions, NormalisedConvLSTM
from nowcast.models.encoder_forecaster import Channels, KernelSize, Output, activate, pad_to_multiple, require_odd
from nowcast.models.model import Model


class ManyToManyConfig(Section):
    """Keys of `[model]` for name = "many_to_many"."""

    name: Literal["many_to_many"] = "many_to_many"
    hidden_channels: Many[Channels] = Field((40, 40, 40), min_length=1, max_length=16)
    kernel_sizes: Many[KernelSize] = (3, 3, 3)
    patch: int = Field(1, ge=1, le=32)
    batch_norm: bool = True
    validity_channel: bool = True
    output: Output = "linear"

    @model_validator(mode="after")
    def _match(self) -> "ManyToManyConfig":
        if len(self.kernel_sizes) != len(self.hidden_channels):
            layers, kernels = len(self.hidden_channels), len(self.kernel_sizes)
            raise ValueError(f"{layers} hidden_channels need as many kernel_sizes, not {kernels}")
        require_odd("kernel_sizes", self.kernel_sizes)
        return self


class ManyToMany(Model):
    """A ConvLSTM stack over past and blank frames; forward as `Model.forward`."""

    citation = "Shi et al. (2015), arXiv 1506.04214 (ConvLSTM, stacked, its input padded with blank frames)"

    def __init__(self, config: ManyToManyConfig):
        super().__init__(config)
        self.cell_multiple = config.patch
        channels = config.patch**2 * (2 if config.validity_channel else 1)
        self.stack = NormalisedConvLSTM(
            channels, config.hidden_channels, config.kernel_sizes,
            batch_norm=config.batch_norm, last_norm=True, options=CellOptions(),
        )  # fmt: skip
        self.head = nn.Conv3d(config.hidden_channels[-1], config.patch**2, 1)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        blank = past.new_zeros(past.shape[0], num_leads, *past.shape[2:])
        frames = pad_to_multiple(torch.cat([past, blank], dim=1), self.cell_multiple)
        if not self.config.validity_channel:
            frames = frames[:, :, :1]
        features, _ = self.stack(F.pixel_unshuffle(frames, self.config.patch))
        values = self.head(features[:, -num_leads:].transpose(1, 2)).transpose(1, 2)
        return activate(F.pixel_shuffle(values, self.config.patch)[:, :, 0], self.config.output)[..., :y, :x]
