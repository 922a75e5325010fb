"""An encoder–forecaster whose forecast is a distribution around the newest frame, smoothed as much as lead and rate ask for.

For each cell and lead, the network value reaches v with the probability 1 / (1 + exp(-z)), z = (location - v) / spread.
Location and spread are given at three levels of v and interpolated between: what is known of drizzle an hour ahead is a
field without detail, while of a downpour the place matters most. A location is a mean, at several smoothings, of the newest
frame and its growth since two frames ago, which the network weights from place to place, plus a correction. It is meant for
Lagrangian coordinates, in which the newest frame itself is the extrapolation: a new network, whose corrections are 0, is an
extrapolation that is smoothed and goes on growing.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nowcast.config import Many
from nowcast.models.encoder_forecaster import Layers, LayersConfig, pad_to_multiple

LEVELS = (0.2, 0.5, 0.8)  # network values: 0.3, 3 and 25 mm/h of the log transform
LEAST_SHARE = 0.05  # of a box that has to be known, before its mean is drawn towards dry
# The smoothing (standard deviation in cells) with the best CSI was found to be 1.2 cells a lead from 0.5 to 1 mm/h (MeteoSwiss,
# KNMI, FMI, BoM; 5 and 6 minutes, 0.5 and 1 km) and far less at 5 mm/h. It is what a new network begins with at each level.
CELLS_A_LEAD = (1.2, 0.5, 0.2)
# And the growth of the last two steps is best continued at so many times its size a lead; more at 0.5 mm/h, less at 5.
GROWTH_A_LEAD = (0.16, 0.08, 0.03)
TREND_FRAMES = 3  # from the oldest of these to the newest is the growth
SHARPNESS = 4.0  # of that choice among the smoothings: log-weights fall so with the square of the log-ratio
FIRST_SPREAD, LAST_SPREAD = 0.04, 0.10  # network values, of a new network at the first and last lead
LEAST_LOG_SPREAD, MOST_LOG_SPREAD = -5.0, 0.0
ANCHORS = tuple(k / 20 for k in range(2, 20))  # network values at which the odds are compared; below the first it is dry
MOST_STEPS = 4.0  # between anchors that a value may lie above the last but one


class ProbabilisticConfig(LayersConfig):
    """Keys of `[model]` for name = "probabilistic"."""

    name: Literal["probabilistic"] = "probabilistic"
    smoothing: Many[Annotated[int, Field(ge=0, le=128)]] = Field(
        (0, 2, 6, 14, 28), min_length=1, max_length=8
    )  # cells each way
    leads: int = Field(12, ge=2, le=1000)  # that have weights of their own; later ones use the last


class Probabilistic(Layers):
    """(case, time, 2, y, x) values and validity -> (case, lead, 6, y, x): locations at LEVELS, logs of the spread; float32.

    `decision` and `reliability` are set by calibration on validation cases, not by gradients: the log-odds d0 + d1 v + d2
    lead / leads from which on a value v is forecast, and (a, b) of the calibrated log-odds a + b z of the network's z.
    """

    calibrated = ("decision", "reliability")
    first_decision = (math.log(0.3 / 0.7), 0.0, 0.0)

    def __init__(self, config: ProbabilisticConfig):
        self.num_scales, levels = len(config.smoothing), len(LEVELS)
        super().__init__(config, levels * (2 * config.patch**2 + self.num_scales + 1))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        self.lead_gates = nn.Parameter(first_gates(config.smoothing, config.leads))  # (lead, level, scale)
        growth = torch.arange(1, config.leads + 1)[:, None] * torch.tensor(GROWTH_A_LEAD)
        self.lead_growth = nn.Parameter(growth)  # (lead, level)
        spread = torch.linspace(FIRST_SPREAD, LAST_SPREAD, config.leads).log()
        self.lead_spread = nn.Parameter(spread[:, None].repeat(1, levels))  # (lead, level)
        self.register_buffer("decision", torch.tensor(self.first_decision))
        self.register_buffer("reliability", torch.tensor([0.0, 1.0]))

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        frames = pad_to_multiple(past[:, -TREND_FRAMES:].float(), self.cell_multiple)
        newest, growth = (self._smoothings(frame) for frame in (frames[:, -1], change(frames[:, 0], frames[:, -1])))
        made, lead = [], 0
        for part in self.outputs(past, num_leads):
            leads = torch.arange(lead, lead := lead + part.shape[1], device=part.device).clamp(max=self.config.leads - 1)
            made.append(self._distribution(part.float(), newest, growth, leads)[..., :y, :x])
        return torch.cat(made, dim=1)

    def _smoothings(self, frame: Tensor) -> Tensor:
        """(case, scale, y, x)"""
        return torch.cat([smooth(frame, cells) for cells in self.config.smoothing], dim=1)

    def _distribution(self, part: Tensor, newest: Tensor, growth: Tensor, leads: Tensor) -> Tensor:
        patch, levels, scales = self.config.patch, len(LEVELS), self.num_scales
        fine, coarse = part.split([2 * levels * patch**2, levels * (scales + 1)], dim=2)
        corrections = F.pixel_shuffle(fine, patch)
        gates, rates = coarse.split([levels * scales, levels], dim=2)
        gates = torch.softmax(gates.unflatten(2, (levels, scales)) + self.lead_gates[leads, :, :, None, None], dim=3)
        rates = rates + self.lead_growth[leads, :, None, None]
        coarse = torch.cat([gates.flatten(2, 3), rates], dim=2)
        coarse = F.interpolate(coarse.flatten(0, 1), scale_factor=patch, mode="bilinear").unflatten(0, part.shape[:2])
        gates, rates = coarse.split([levels * scales, levels], dim=2)
        gates = gates.unflatten(2, (levels, scales))
        grown = rates * (gates * growth[:, None, None]).sum(dim=3)
        locations = (gates * newest[:, None, None]).sum(dim=3) + grown + corrections[:, :, :levels]
        log_spreads = self.lead_spread[leads, :, None, None] + corrections[:, :, levels:]
        return torch.cat([locations, log_spreads.clamp(LEAST_LOG_SPREAD, MOST_LOG_SPREAD)], dim=2)

    def point(self, outputs: Tensor) -> Tensor:
        """(case, lead, 6, y, x) -> the value to forecast (case, lead, y, x): the highest whose log-odds reach `decision`.

        Linear between ANCHORS and beyond the last; 0 where the first is not reached.
        """
        start, slope, later = self.decision
        odds = start + later * self._lead_share(outputs.shape[1])
        margin = log_odds(outputs, ANCHORS[0]) - odds - slope * ANCHORS[0]
        value = torch.where(margin >= 0, ANCHORS[0], 0.0)
        for before, anchor in pairwise(ANCHORS):
            above = torch.minimum(margin, log_odds(outputs, anchor) - odds - slope * anchor)
            most = MOST_STEPS if anchor == ANCHORS[-1] else 1.0
            value = value + (anchor - before) * (margin / (margin - above).clamp(min=1e-6)).clamp(0, most)
            margin = above
        return value

    def exceedance(self, outputs: Tensor, values: Sequence[float]) -> Tensor:
        """(case, lead, 6, y, x) -> the calibrated probability (case, lead, value, y, x) of each of the values or more.

        It never rises with the value.
        """
        shift, factor = self.reliability
        odds = {value: log_odds(outputs, value) for value in values}
        found, least = {}, None
        for value in sorted(values):
            least = odds[value] if least is None else torch.minimum(least, odds[value])
            found[value] = torch.sigmoid(shift + factor * least)
        return torch.stack([found[value] for value in values], dim=2)

    def _lead_share(self, num_leads: int) -> Tensor:
        leads = torch.arange(1, num_leads + 1, device=self.decision.device).clamp(max=self.config.leads)
        return (leads / self.config.leads)[:, None, None]


def log_odds(outputs: Tensor, value: float) -> Tensor:
    """z = ln(p / (1 - p)) of this network value or more: (case, lead, 6, y, x) -> (case, lead, y, x)."""
    levels = len(LEVELS)
    upper = next((k for k in range(1, levels) if value <= LEVELS[k]), levels - 1)
    share = (value - LEVELS[upper - 1]) / (LEVELS[upper] - LEVELS[upper - 1])
    share = min(max(share, 0.0), 1.0)
    location, log_spread = (
        torch.lerp(outputs[:, :, first + upper - 1], outputs[:, :, first + upper], share) for first in (0, levels)
    )
    return (location - value) * torch.exp(-log_spread)


def change(earlier: Tensor, later: Tensor) -> Tensor:
    """From one (case, 2, y, x) to another: the difference of the values where both are known, and where that is."""
    known = earlier[:, 1:] * later[:, 1:]
    return torch.cat([(later[:, :1] - earlier[:, :1]) * known, known], dim=1)


def first_gates(smoothing: Sequence[int], leads: int) -> Tensor:
    """(lead, level, scale): log-weights of the smoothings, the highest where they come near CELLS_A_LEAD."""
    deviations = torch.tensor([cells / math.sqrt(3) for cells in smoothing])  # of a box of so many cells each way
    wanted = torch.arange(1, leads + 1)[:, None] * torch.tensor(CELLS_A_LEAD)
    ratio = torch.log((deviations + 1) / (wanted[..., None] + 1))
    return -SHARPNESS * ratio.square()


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
