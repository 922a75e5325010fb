"""An encoder–forecaster whose forecast is a distribution around the newest frame, smoothed as much as the lead asks for.

Each cell and lead gets a logistic distribution of the network value v: P(v >= t) = 1 / (1 + exp((t - location) / spread)).
The location is a mean of the newest frame at several smoothings, which the network weights from place to place, plus a
correction. It is meant for Lagrangian coordinates, in which the newest frame itself is the extrapolation. Of the weights
of a new network only those of the leads say something: less of the frame as it is, and more spread, the later it is.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nowcast.config import Many
from nowcast.models.encoder_forecaster import Layers, LayersConfig, pad_to_multiple

LEAST_SHARE = 0.05  # of a box that has to be known, before its mean is drawn towards dry
FIRST_SPREAD, LAST_SPREAD = 0.04, 0.10  # network values, of a new network at the first and last lead
LEAST_LOG_SPREAD, MOST_LOG_SPREAD = -5.0, 0.0
LEAST_SLOPE = 0.25  # keeps the value that is forecast rising with the location


class ProbabilisticConfig(LayersConfig):
    """Keys of `[model]` for name = "probabilistic"."""

    name: Literal["probabilistic"] = "probabilistic"
    smoothing: Many[Annotated[int, Field(ge=0, le=64)]] = Field((0, 2, 4, 8), min_length=1, max_length=8)  # cells to each side
    leads: int = Field(12, ge=2, le=1000)  # that have weights of their own; later ones use the last


class Probabilistic(Layers):
    """(case, time, 2, y, x) values and validity -> (case, lead, 2, y, x): location and log of the spread, float32.

    `decision` and `reliability` are set by calibration on validation cases, not by gradients: the log-odds d0 + d1 v + d2
    lead / leads from which on a value v is forecast, and (a, b) of the calibrated log-odds a + b z of the network's z.
    """

    calibrated = ("decision", "reliability")
    first_decision = (math.log(0.3 / 0.7), 0.0, 0.0)

    def __init__(self, config: ProbabilisticConfig):
        num_scales, cells = len(config.smoothing), config.patch**2
        super().__init__(config, 2 * cells + num_scales)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        frame = torch.linspace(2, -1, config.leads)
        smoothed = torch.linspace(-1, 1, config.leads)
        gates = torch.stack([smoothed if cells_each_way else frame for cells_each_way in config.smoothing], dim=1)
        self.lead_gates = nn.Parameter(gates)  # (lead, scale)
        self.lead_spread = nn.Parameter(torch.linspace(FIRST_SPREAD, LAST_SPREAD, config.leads).log())
        self.register_buffer("decision", torch.tensor(self.first_decision))
        self.register_buffer("reliability", torch.tensor([0.0, 1.0]))

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        newest = pad_to_multiple(past[:, -1].float(), self.cell_multiple)
        scales = torch.cat([smooth(newest, cells) for cells in self.config.smoothing], dim=1)
        made, lead = [], 0
        for part in self.outputs(past, num_leads):
            leads = torch.arange(lead, lead := lead + part.shape[1], device=part.device).clamp(max=self.config.leads - 1)
            made.append(self._distribution(part.float(), scales, leads)[..., :y, :x])
        return torch.cat(made, dim=1)

    def _distribution(self, part: Tensor, scales: Tensor, leads: Tensor) -> Tensor:
        patch = self.config.patch
        corrections = F.pixel_shuffle(part[:, :, : 2 * patch**2], patch)
        gates = torch.softmax(part[:, :, 2 * patch**2 :] + self.lead_gates[leads, :, None, None], dim=2)
        gates = F.interpolate(gates.flatten(0, 1), scale_factor=patch, mode="bilinear").unflatten(0, gates.shape[:2])
        location = (gates * scales[:, None]).sum(dim=2) + corrections[:, :, 0]
        log_spread = self.lead_spread[leads, None, None] + corrections[:, :, 1]
        return torch.stack([location, log_spread.clamp(LEAST_LOG_SPREAD, MOST_LOG_SPREAD)], dim=2)

    def point(self, outputs: Tensor) -> Tensor:
        """(case, lead, 2, y, x) -> the value to forecast (case, lead, y, x): the one whose log-odds are those of `decision`."""
        location, spread = outputs[:, :, 0], outputs[:, :, 1].exp()
        start, slope, later = self.decision
        odds = start + later * self._lead_share(outputs.shape[1])
        return (location - spread * odds) / (1 + spread * slope).clamp(min=LEAST_SLOPE)

    def exceedance(self, outputs: Tensor, values: Sequence[float]) -> Tensor:
        """(case, lead, 2, y, x) -> the calibrated probability (case, lead, value, y, x) of each of the values or more."""
        shift, factor = self.reliability
        return torch.stack([torch.sigmoid(shift + factor * log_odds(outputs, value)) for value in values], dim=2)

    def _lead_share(self, num_leads: int) -> Tensor:
        leads = torch.arange(1, num_leads + 1, device=self.decision.device).clamp(max=self.config.leads)
        return (leads / self.config.leads)[:, None, None]


def log_odds(outputs: Tensor, value: float) -> Tensor:
    """ln(p / (1 - p)) of this network value or more, as the network has it: (case, lead, 2, y, x) -> (case, lead, y, x)."""
    return (outputs[:, :, 0] - value) * torch.exp(-outputs[:, :, 1])


def smooth(frame: Tensor, cells: int) -> Tensor:
    """(case, 2, y, x) values and validity -> (case, 1, y, x), the mean of what is known within so many cells each way."""
    values, validity = frame[:, :1], frame[:, 1:]
    if not cells:
        return values
    joined = F.pad(torch.cat([values * validity, validity], dim=1), (cells,) * 4, mode="replicate")
    # one axis after the other: a box of 17 × 17 cells costs 34 sums and not 289
    rows = F.avg_pool2d(joined, (2 * cells + 1, 1), stride=1)
    total, share = F.avg_pool2d(rows, (1, 2 * cells + 1), stride=1).chunk(2, dim=1)
    return total / share.clamp(min=LEAST_SHARE)
