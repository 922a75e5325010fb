"""The fully connected LSTM encoder–forecaster that Shi et al. (2015) compare with: frames as vectors, dense weights.

Peepholes are one number per cell; the forecaster's first layer is unfed, and its top layer alone gives the frame.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from nowcast.config import Many, Section
from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.encoder_forecaster import Channels, Output, activate, over_time


class FCLSTMConfig(Section):
    """Keys of `[model]` for name = "fc_lstm"; `grid` is the (y, x) that it is made for."""

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


class FCLSTM(nn.Module):
    """(case, time, 2, y, x) -> (case, lead, y, x), float32; y and x are `grid`."""

    def __init__(self, config: FCLSTMConfig):
        super().__init__()
        self.config, self.grid, self.cell_multiple = config, tuple(config.grid), 1
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
        values = over_time(self.head, hidden[-1]).reshape(len(past), num_leads, *self.grid)
        return activate(values, self.config.output)
