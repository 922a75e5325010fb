"""An encoder–forecaster whose forecast is a distribution around the newest frame, smoothed as much as age and rate ask for.

For each cell and lead, the network value reaches v with the probability 1 / (1 + exp(-z)), z = (location - v) / spread.
Location and spread are given at three levels of v and interpolated between: what is known of drizzle an hour ahead is a
field without detail, while of a downpour the place matters most. A location is a mean, at several smoothings, of the newest
frame and its growth since two frames ago, and a shift. Smoothing, growth, shift and spread are learnt as tables by the age
of the forecast, which counts the time in which the rain itself changes: the past tells how fast it does, so that one table
serves steps of minutes and of a quarter of an hour, showers and fronts. What the ConvLSTM adds, from place to place, starts
at nothing. It is meant for Lagrangian coordinates, in which the newest frame itself is the extrapolation.
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
ANCHORS = tuple(k / 20 for k in range(2, 20))  # network values at which odds are compared; below the first it is dry
MOST_STEPS = 4.0  # between anchors that a value may lie above the last but one
NEVER = 1e4  # log-odds
SAMPLE = 1 << 15  # cells, about, whose areas are matched
# On crops of MeteoSwiss, BoM and MRMS, a tenth more area of rain gave a CSI at 1 mm/h that was .012 higher than as much as
# there is, and less area of heavy rain, which is hardly ever where it is expected, a squared error that was .85 of it.
MORE, MORE_BY = 0.1, 6  # of light rain, in full from this lead on
LESS, LESS_FROM, MOST_LESS, LESS_BY = 2.5, 0.5, 0.9, 4  # of heavy rain: for each unit of network value above this one

# What a new network begins with, at each level. The smoothing (standard deviation in cells) with the best CSI was 1.2 cells a
# lead from 0.5 to 1 mm/h, in records of 5 and 6 minutes and 0.5 and 1 km, and far less at 5 mm/h; the growth of the last two
# steps was best continued at 0.16 times its size a lead, less at 5 mm/h.
AGES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # leads of rain that changes as fast as UNIT_CHANGE says
CELLS_AN_AGE = (1.2, 0.5, 0.2)
GROWTH_AN_AGE, MOST_GROWTH_AGE = (0.16, 0.08, 0.03), 16.0
SPREAD_AT_1, SPREAD_POWER = 0.045, 0.35  # network values, and how they rise with the age
SHARPNESS = 4.0  # log-weights of the smoothings fall so with the square of the log-ratio to the best one
PACE = 20.0  # times that the tables learn as fast as the weights, of which there are a thousand times as many

TREND_FRAMES = 3  # from the oldest of these to the newest is the growth
UNIT_CHANGE = 0.038 / 3  # of smoothed rain, squared and relative, in a step: MeteoSwiss, five minutes and 1 km
LEAST_RATE, MOST_RATE = 0.1, 4.0  # of change, in that unit
CHANGE_CELLS = 4  # each way that are averaged before frames are compared: what differs within is noise
AROUND = 32  # cells each way over which the rate of change is one
FAINT = 0.005  # squared network values: where rain is less, its rate of change is drawn to the unit
LEAST_SHARE = 0.05  # of a box that has to be known, before its mean is drawn towards dry
LEAST_LOG_SPREAD, MOST_LOG_SPREAD = -5.0, 0.0


class ProbabilisticConfig(LayersConfig):
    """Keys of `[model]` for name = "probabilistic"."""

    name: Literal["probabilistic"] = "probabilistic"
    # cells each way
    smoothing: Many[Annotated[int, Field(ge=0, le=128)]] = Field((0, 2, 6, 14, 28), min_length=1, max_length=8)


class Probabilistic(Layers):
    """(case, time, 2, y, x) values and validity -> (case, lead, 6, y, x): locations at LEVELS, logs of the spread; float32.

    `reliability` is set by calibration on validation cases, not by gradients: (a, b) of the calibrated log-odds a + b z.
    """

    calibrated = ("reliability",)

    def __init__(self, config: ProbabilisticConfig):
        self.num_scales, levels = len(config.smoothing), len(LEVELS)
        self.sizes = [levels * self.num_scales, levels, levels, levels]  # smoothing, growth, shift, spread
        super().__init__(config, sum(self.sizes))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("first", first_table(config.smoothing))  # (age, all of the above)
        self.learnt = nn.Parameter(torch.zeros_like(self.first))
        self.register_buffer("reliability", torch.tensor([0.0, 1.0]))

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        y, x = past.shape[-2:]
        frames = pad_to_multiple(past.float(), self.cell_multiple)
        newest, earlier = frames[:, -1], frames[:, -TREND_FRAMES:][:, 0]
        fields = torch.stack([self._smoothings(frame) for frame in (newest, change(earlier, newest))], dim=1)
        rate = rate_of_change(frames, self.config.patch)
        made, lead = [], 0
        for part in self.outputs(past, num_leads):
            leads = torch.arange(lead + 1, (lead := lead + part.shape[1]) + 1, device=part.device)
            ages = leads[:, None, None] * rate[:, None]
            made.append(self._distribution(part.float() + self._at(ages), fields)[..., :y, :x])
        return torch.cat(made, dim=1)

    def _smoothings(self, frame: Tensor) -> Tensor:
        """(case, scale, y, x)"""
        return torch.cat([smooth(frame, cells) for cells in self.config.smoothing], dim=1)

    def _at(self, ages: Tensor) -> Tensor:
        """The table at ages (case, lead, y, x): (case, lead, entry, y, x), linear in the log of the age between its rows."""
        table = self.first + PACE * self.learnt
        rows = torch.log2(ages / AGES[0]).clamp(0, len(AGES) - 1.001)
        row = rows.nan_to_num(0).long()  # a NaN, which a search for the reach sends in, goes on by its share
        share = (rows - row)[..., None]
        return torch.lerp(table[row], table[row + 1], share).movedim(-1, 2)

    def _distribution(self, coarse: Tensor, fields: Tensor) -> Tensor:
        """Entries of the table (case, lead, entry, y / patch, x / patch) and fields (case, newest or growth, scale, y, x)."""
        levels, scales = len(LEVELS), self.num_scales
        gates, *others = coarse.split(self.sizes, dim=2)
        gates = torch.softmax(gates.unflatten(2, (levels, scales)), dim=3).flatten(2, 3)
        fine = torch.cat([gates, *others], dim=2).flatten(0, 1)
        fine = F.interpolate(fine, scale_factor=self.config.patch, mode="bilinear").unflatten(0, coarse.shape[:2])
        gates, growth, shift, spread = fine.split(self.sizes, dim=2)
        gates = gates.unflatten(2, (levels, scales))
        newest, trend = ((gates * field[:, None, None]).sum(dim=3) for field in fields.unbind(1))
        return torch.cat([newest + growth * trend + shift, spread.clamp(LEAST_LOG_SPREAD, MOST_LOG_SPREAD)], dim=2)

    def sample(self, outputs: Tensor, past: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of every so many cells each way z (case, lead, anchor, cell), and the newest value and validity (case, cell)."""
        outputs, newest = (field[..., ::stride, ::stride].flatten(-2) for field in (outputs, past[:, -1]))
        odds = torch.stack([log_odds(outputs, anchor) for anchor in ANCHORS], dim=2)
        return odds, newest[:, 0], newest[:, 1]

    def match(self, odds: Tensor, newest: Tensor, validity: Tensor) -> Tensor:
        """Of a `sample`, the z (case, lead, anchor) from which on the newest frame's area, times `area_share`, is forecast."""
        cuts = torch.full(odds.shape[:3], NEVER, device=odds.device)
        for case, known in enumerate(validity > 0):
            of_case, num_known = odds[case, :, :, known], int(known.sum())
            for number, anchor in enumerate(ANCHORS):
                area = int(((newest[case] >= anchor) & known).sum())
                for lead in range(len(of_case)) if area else ():
                    wanted = min(max(round(area * area_share(anchor, lead + 1)), 1), num_known)
                    cuts[case, lead, number] = of_case[lead, number].kthvalue(num_known - wanted + 1).values
        return cuts

    def point(self, outputs: Tensor, cuts: Tensor) -> Tensor:
        """(case, lead, 6, y, x) -> the value to forecast (case, lead, y, x): the highest whose z reaches the cut of `match`.

        So a forecast has about the rates of the newest frame, where they are likeliest. No single probability is right to
        forecast rain at everywhere, and what is right for one service is too much rain for another; areas last longer than
        places.
        Linear between ANCHORS and beyond the last; 0 where the first is not reached.
        """
        cuts = cuts[..., None, None]
        margin = log_odds(outputs, ANCHORS[0]) - cuts[:, :, 0]
        value = torch.where(margin >= 0, ANCHORS[0], 0.0)
        for number, (before, anchor) in enumerate(pairwise(ANCHORS), 1):
            above = torch.minimum(margin, log_odds(outputs, anchor) - cuts[:, :, number])
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


def area_share(value: float, lead: int) -> float:
    """How much area to forecast with this network value or more, for each cell that has it in the newest frame."""
    more = 1 + MORE * min(lead / MORE_BY, 1)
    less = min(max(value - LESS_FROM, 0) * LESS, MOST_LESS) * min(lead / LESS_BY, 1)
    return more * (1 - less)


def stride_for(grid: Sequence[int]) -> int:
    """That of a `sample` of about SAMPLE cells."""
    return max(math.isqrt(math.prod(grid) // SAMPLE), 1)


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


def first_table(smoothing: Sequence[int]) -> Tensor:
    """(age, entry): log-weights of the smoothings by level, then growth, shift and log of the spread of each level."""
    deviations = torch.tensor([cells / math.sqrt(3) for cells in smoothing])  # of a box of so many cells each way
    ages = torch.tensor(AGES)[:, None]
    ratio = torch.log((deviations + 1) / ((ages * torch.tensor(CELLS_AN_AGE))[..., None] + 1))
    growth = ages.clamp(max=MOST_GROWTH_AGE) * torch.tensor(GROWTH_AN_AGE)
    spread = (SPREAD_AT_1 * ages**SPREAD_POWER).log().expand_as(growth)
    return torch.cat([(-SHARPNESS * ratio.square()).flatten(1), growth, torch.zeros_like(growth), spread], dim=1)


def change(earlier: Tensor, later: Tensor) -> Tensor:
    """From one (case, 2, y, x) to another: the difference of the values where both are known, and where that is."""
    known = earlier[:, 1:] * later[:, 1:]
    return torch.cat([(later[:, :1] - earlier[:, :1]) * known, known], dim=1)


def rate_of_change(frames: Tensor, patch: int) -> Tensor:
    """How fast the rain around changes, in the unit of AGES: (case, time, 2, y, x) -> (case, y / patch, x / patch).

    The squared difference of the oldest and the newest frame, smoothed, beside their squares: twice one less their
    correlation. Of a single frame it is 1.
    """
    steps = frames.shape[1] - 1
    if not steps:
        return frames.new_ones(len(frames), *(size // patch for size in frames.shape[-2:]))
    oldest, newest = (smooth(frames[:, n], CHANGE_CELLS) for n in (0, -1))
    known = frames[:, 0, 1:] * frames[:, -1, 1:]
    parts = torch.cat([(newest - oldest).square(), oldest.square() + newest.square()], dim=1) * known
    parts = F.avg_pool2d(parts, patch)
    cells = AROUND // patch
    joined = F.pad(parts, (cells,) * 4, mode="replicate")
    moved, there = F.avg_pool2d(F.avg_pool2d(joined, (2 * cells + 1, 1), 1), (1, 2 * cells + 1), 1).unbind(1)
    rate = (moved + FAINT * UNIT_CHANGE * steps) / (there + FAINT) / (UNIT_CHANGE * steps)
    return rate.clamp(LEAST_RATE, MOST_RATE)


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
