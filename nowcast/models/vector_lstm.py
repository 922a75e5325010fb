"""LSTM networks that treat a frame as a vector, for comparison with ConvLSTM: CNN-LSTM and fully connected LSTM.

CNN-LSTM: strided convolutions turn each frame into a vector, an LSTM runs over the vectors, transposed convolutions turn them
into frames. Fully connected LSTM: the encoder–forecaster of Srivastava et al. (2015), with which Shi et al. (2015) compare;
each frame is a vector, with dense weights and peepholes of one number per unit. In both, weights belong to places on the grid,
so unlike ConvLSTM they run on one grid only, and a shifted input does not give a shifted forecast. The forecaster's first
layer has no input, and its last layer gives the frame.
"""

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config.schema import Many, Section
from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.encoder_forecaster import Channels, Output, activate, over_time
from nowcast.models.model import Model


class CNNLSTMConfig(Section):
    """Keys of `[model]` for name = "cnn_lstm"; `grid` is the only (y, x) shape that it takes."""

    name: Literal["cnn_lstm"] = "cnn_lstm"
    grid: Many[int] = Field((64, 64), min_length=2, max_length=2)
    channels: Many[Channels] = Field((16, 32, 32), min_length=1, max_length=8)  # each convolution halves the grid
    hidden: Channels = 128
    validity_channel: bool = True
    output: Output = "linear"

    @model_validator(mode="after")
    def _divides(self) -> "CNNLSTMConfig":
        step = 2 ** len(self.channels)
        if any(size < step or size > 4096 or size % step for size in self.grid):
            raise ValueError(f"grid {list(self.grid)} must be multiples of {step} (2 to the number of channels), up to 4096")
        return self


class CNNLSTM(Model):
    """Convolutions, an LSTM over vectors, and transposed convolutions; forward as `Model.forward`."""

    citation = "Srivastava et al. (2015), arXiv 1502.04681"

    def __init__(self, config: CNNLSTMConfig):
        super().__init__(config)
        self.grid = tuple(config.grid)
        self.cell_multiple = 2 ** len(config.channels)
        inputs = [2 if config.validity_channel else 1, *config.channels[:-1]]
        self.small = [size // self.cell_multiple for size in config.grid]
        flat = config.channels[-1] * math.prod(self.small)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in zip(inputs, config.channels, strict=True))
        # an LSTM over vectors is a ConvLSTM on a grid of one cell
        self.encoder = ConvLSTM(flat, (config.hidden,), (1,))
        self.forecaster = ConvLSTM(0, (config.hidden,), (1,))
        self.expand = nn.Linear(config.hidden, flat)
        outputs = [1, *config.channels[:-1]]
        pairs = reversed(list(zip(config.channels, outputs, strict=True)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, stride=2, padding=1) for i, o in pairs)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        frames = past if self.config.validity_channel else past[:, :, :1]
        values = frames.flatten(0, 1)
        for down in self.down:
            values = F.relu(down(values))
        _, states = self.encoder(values.reshape(*past.shape[:2], -1, 1, 1))
        (vectors,), _ = self.forecaster(None, states, num_steps=num_leads)
        values = F.relu(self.expand(vectors.flatten(2))).reshape(-1, self.config.channels[-1], *self.small)
        for n, up in enumerate(self.up):
            values = up(values if n == 0 else F.relu(values))
        return activate(values.reshape(past.shape[0], num_leads, *self.grid), self.config.output)


class FCLSTMConfig(Section):
    """Keys of `[model]` for name = "fc_lstm"; `grid` is the only (y, x) shape that it takes."""

    name: Literal["fc_lstm"] = "fc_lstm"
    grid: Many[int] = Field((64, 64), min_length=2, max_length=2)
    hidden: Many[Channels] = Field((2048, 2048), min_length=1, max_length=8)
    peepholes: bool = True
    validity_channel: bool = False
    output: Output = "sigmoid"

    @model_validator(mode="after")
    def _bounded(self) -> "FCLSTMConfig":
        if min(self.grid) < 1 or self.grid[0] * self.grid[1] > 1 << 16:
            raise ValueError(f"grid {list(self.grid)} must have 1 to 65536 cells: every cell is connected to every unit")
        return self


class FCLSTM(Model):
    """A fully connected LSTM over frames as vectors; forward as `Model.forward`."""

    citation = "Srivastava et al. (2015), arXiv 1502.04681"

    def __init__(self, config: FCLSTMConfig):
        super().__init__(config)
        self.grid = tuple(config.grid)
        cells = config.grid[0] * config.grid[1]
        # an LSTM over vectors is a ConvLSTM on a grid of one cell
        kernels, options = (1,) * len(config.hidden), CellOptions(peepholes=config.peepholes)
        inputs = cells * (2 if config.validity_channel else 1)
        self.encoder = ConvLSTM(inputs, config.hidden, kernels, options=options)
        self.forecaster = ConvLSTM(0, config.hidden, kernels, options=options)
        self.head = nn.Conv2d(config.hidden[-1], cells, 1)

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        frames = past if self.config.validity_channel else past[:, :, :1]
        vectors = frames.flatten(2)[..., None, None]
        _, states = self.encoder(vectors)
        hidden, _ = self.forecaster(None, states, num_steps=num_leads)
        values = over_time(self.head, hidden[-1]).reshape(past.shape[0], num_leads, *self.grid)
        return activate(values, self.config.output)
