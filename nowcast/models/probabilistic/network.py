"""An encoder–forecaster whose forecast is a distribution around what the rain would do if it went on as it has.

For each cell and lead, the network value reaches v with the probability 1 / (1 + exp(-z)), z = slope · (location - v) + shift.
Shift and slope are given at three levels of v and z is interpolated between: of drizzle an hour ahead less is known than
of a downpour's place. The location is the cascade's forecast (cascade.py), at the lowest level with more of its change, as
light rain changes for longer; the slope is what the cascade could not foresee of the past: a network that has learnt nothing
is S-PROG of every place by itself. What is learnt is how wide each level is, and what the ConvLSTM adds from place to place:
in odds, so that it moves the rain the less the surer the cascade is. The encoder sees the past frames and the forecaster is
fed at each lead what the cascade knows of it, patch by patch (shown.py). It is meant for Lagrangian
coordinates, in which the newest frame itself is the extrapolation.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nowcast.models.encoder_forecaster import Layers, LayersConfig, pad_to_multiple, steps_at_once
from nowcast.models.model import DistributionModel
from nowcast.models.probabilistic import inputs
from nowcast.models.probabilistic.calibration import ReliabilityCalibration
from nowcast.models.probabilistic.cascade import BLOCK, autoregression, continued, joined, lasting, split, steadied, widen
from nowcast.models.probabilistic.distribution import LEVELS, highest_reached, log_odds
from nowcast.models.transform import Transform

OFFSET, CEILING = 0.5, 100.0  # mm/h, of that transform
RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # mm/h at which areas are matched: those that are asked about
NEVER = 1e4  # log-odds
HAIR = 1e-4  # log-odds; more than they are rounded: the cell whose odds are the cut is to reach it
# More area of rain, in full from this lead: a CSI is best where rain is forecast from a probability of CSI / (1 + CSI) on, less
# than a half.
MORE, MORE_BY = 0.05, 12
# Less area of heavy rain: it is hardly ever where it is expected, and costs most of the squared error.
LESS, LESS_FROM, MOST_LESS, LESS_BY = 2.3, 0.45, 0.9, 4  # for each unit of network value above this one; in full from this lead
# Light rain grows and decays for longer than correlations tell, heavy rain does not. For it so much of what differs between two
# frames is taken for error, in the coarsest bands: of 8, 16, 32 and 64 cells.
ERROR, LASTING = 0.45, 4
STEADIED = 1  # of the bands, the coarsest

PACE = 40.0  # times that the widths learn as fast as the weights, of which there are ten thousand times as many
NEAR = 2  # cells of a band each way over which its energy is measured
LEAST_DEVIATION = 0.02  # network values
TO_LOGISTIC = math.sqrt(3) / math.pi  # from a standard deviation to the scale of a logistic distribution
LEAST_LOG_SLOPE, MOST_LOG_SLOPE = 0.0, 6.0


def anchors() -> tuple[float, ...]:
    """The network values of RATES: a hair less, as cells of just such a rate are many where rates are rounded."""
    return tuple(math.log1p(rate / OFFSET) / math.log1p(CEILING / OFFSET) - 1e-6 for rate in RATES)


ANCHORS = anchors()  # below the first it is dry
WET = ANCHORS[1]


class ProbabilisticConfig(LayersConfig):
    """Keys of `[model]` for name = "probabilistic"."""

    name: Literal["probabilistic"] = "probabilistic"
    patch: Literal[1, 2, 4, 8] = 8
    trust: float = Field(0.3, gt=0, le=1)  # share of the ConvLSTM's part that forecasts: of few events, a third holds elsewhere


class Probabilistic(Layers, DistributionModel):
    """(case, time, 2, y, x) values and validity -> (case, lead, 6, y, x): slope · location + shift at LEVELS, slopes; float32.

    `reliability` is set by calibration on validation cases, not by gradients: (a, b) of the calibrated log-odds a + b z.
    """

    citation = "Shi et al. (2015), arXiv 1506.04214; Seed (2003); Bowler, Pierce & Seed (2006)"
    calibrated = ("reliability",)
    tile_multiple = BLOCK
    matches_areas = True

    def __init__(self, config: ProbabilisticConfig):
        seen, change = (n + config.validity_channel for n in (inputs.NUM_OF_FRAMES, inputs.NUM_OF_CHANGE))
        super().__init__(config, 2 * len(LEVELS), num_seen=seen, num_fed=change + inputs.NUM_OF_LEAD)
        self.num_seen, self.num_of_change = seen, change
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        self.width = nn.Parameter(torch.zeros(len(LEVELS)))  # log / PACE
        self.register_buffer("reliability", torch.tensor([0.0, 1.0]))

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        return torch.cat(list(self.leads(past, num_leads)), dim=1)

    def leads(self, past: Tensor, num_leads: int) -> Iterator[Tensor]:
        """What `forward` gives, one lead (case, 1, 6, y, x) after the other: all of them take six times a forecast's memory."""
        y, x = past.shape[-2:]
        frames = pad_to_multiple(past.float(), BLOCK)
        values, known = frames[:, :, 0] * frames[:, :, 1], frames[:, :, 1]
        fields = values, (values >= WET).float(), known
        bands = split(values, known)
        with torch.no_grad():
            seen = inputs.of_frames(bands, *fields, self.config.patch)
        _, states = self.encoder(seen[:, :, : self.num_seen])
        cascade = self._cascade(bands, fields, num_leads)
        for num_steps in steps_at_once(num_leads):
            *known, fed = zip(*(next(cascade) for _ in range(num_steps)), strict=True)
            hidden, states = self.forecaster(torch.stack(fed, dim=1), states)
            parts = zip(self._head(hidden).float().unbind(1), *known, strict=True)
            yield from (self._distribution(*part)[:, None, ..., :y, :x] for part in parts)

    @torch.no_grad()
    def _cascade(
        self, bands: list[tuple[Tensor, Tensor]], fields: tuple[Tensor, Tensor, Tensor], num_leads: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Lead after lead the location (case, 1, y, x), how much higher it is for light rain (case, 1, y / patch, x / patch),
        the square of what could not be foreseen (as many), and what the forecaster is fed (case, channel, …).
        """
        patch, blocks = self.config.patch, [BLOCK >> n for n in range(len(bands))]
        energies = [self._energy(band[:, -1:], n) for n, (band, _) in enumerate(bands)]
        each = [autoregression(*band, block) for band, block in zip(bands, blocks, strict=True)]
        coarsest = zip(each[-STEADIED:], bands[-STEADIED:], strict=True)
        each[-STEADIED:] = [steadied(band, frames) for band, (frames, _) in coarsest]
        change = inputs.of_change(each, *fields, patch)[:, : self.num_of_change]
        light = lasting(each[-LASTING:], ERROR, num_leads)
        parts = [continued(band, block, num_leads) for band, block in zip(each, blocks, strict=True)]
        for lead, leads in enumerate(zip(*parts, strict=True), 1):
            unforeseen = (widen(share[:, None], BLOCK // patch) for _, share in leads)
            square = sum(energy * share for energy, share in zip(energies, unforeseen, strict=True))
            location = joined([band[:, None] for band, _ in leads])
            higher = widen(next(light), BLOCK // blocks[-LASTING] // patch)
            yield location, higher, square, torch.cat([change, inputs.of_lead(location, square, lead, patch)], dim=1)

    def _energy(self, newest: Tensor, number: int) -> Tensor:
        """The mean square of a band around each place, of as many cells as there are patches."""
        square = F.avg_pool2d(newest.square(), 2 * NEAR + 1, stride=1, padding=NEAR)
        size, patch = 1 << number, self.config.patch
        return F.avg_pool2d(square, patch // size) if size < patch else widen(square, size // patch)

    def _distribution(self, correction: Tensor, location: Tensor, higher: Tensor, unforeseen: Tensor) -> Tensor:
        """A lead (case, 6, y, x) of the cascade with the ConvLSTM's part (case, 6, y / patch, x / patch)."""
        shift, wider = (correction if self.training else self.config.trust * correction).chunk(2, dim=1)
        width = TO_LOGISTIC * (unforeseen + LEAST_DEVIATION**2).sqrt()
        log_slope = -width.log() - (PACE * self.width)[:, None, None] - wider
        slope = log_slope.clamp(LEAST_LOG_SLOPE, MOST_LOG_SLOPE).exp()
        light = shift[:, :1] + slope[:, :1] * higher
        outputs = widen(torch.cat([light, shift[:, 1:], slope], dim=1), self.config.patch)
        outputs[:, : len(LEVELS)].addcmul_(outputs[:, len(LEVELS) :], location)
        return outputs

    def sample(self, outputs: Tensor, past: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of every so many cells each way z (case, lead, anchor, cell), and the newest value and validity (case, cell)."""
        outputs, newest = (field[..., ::stride, ::stride].flatten(-2) for field in (outputs, past[:, -1]))
        odds = torch.stack([log_odds(outputs, anchor) for anchor in ANCHORS], dim=2)
        return odds, newest[:, 0], newest[:, 1]

    def match(self, odds: Tensor, newest: Tensor, validity: Tensor, first_lead: int = 1) -> Tensor:
        """Of a `sample` from this lead on, the z (case, lead, anchor) from which on rain is forecast: where the newest
        frame's area, times `area_share`, has it.
        """
        cuts = torch.full(odds.shape[:3], NEVER, device=odds.device)
        for case, known in enumerate(validity > 0):
            of_case, num_known = odds[case, :, :, known], int(known.sum())
            for number, anchor in enumerate(ANCHORS):
                area = int(((newest[case] >= anchor) & known).sum())
                if not area and number:  # rates above the newest frame's go on as those below
                    cuts[case, :, number] = cuts[case, :, number - 1]
                for lead in range(len(of_case)) if area else ():
                    wanted = min(max(round(area * area_share(anchor, first_lead + lead)), 1), num_known)
                    cuts[case, lead, number] = of_case[lead, number].kthvalue(num_known - wanted + 1).values - HAIR
        return cuts

    def log_odds(self, outputs: Tensor, value: float) -> Tensor:
        return log_odds(outputs, value)

    def calibration(self, transform: Transform, thresholds: Sequence[float]) -> ReliabilityCalibration:
        return ReliabilityCalibration(self, transform, thresholds)

    def values(self, outputs: Tensor, past: Tensor, *, first_lead: int = 1, cuts: Tensor | None = None) -> Tensor:
        """Return the highest network value (case, lead, y, x) whose log-odds reach the cut of `match`.

        So a forecast has about the rates of the newest frame, where they are likeliest. No single probability is right to
        forecast rain at everywhere, and what is right for one service is too much rain for another; areas last longer than
        places.
        """
        if cuts is None:
            cuts = self.match(*self.sample(outputs, past, self.sample_stride(past.shape[-2:])), first_lead)
        return highest_reached(outputs, ANCHORS, cuts)

    def exceedance(self, outputs: Tensor, values: Sequence[float]) -> Tensor:
        """(case, lead, 6, y, x) -> the calibrated probability (case, lead, value, y, x) of each of the values or more.

        It never rises with the value.
        """
        shift, factor = self.reliability
        found = outputs.new_empty(*outputs.shape[:2], len(values), *outputs.shape[3:])
        for lead in range(outputs.shape[1]):  # one by one they stay in a processor's cache
            least, of_lead = None, outputs[:, lead : lead + 1]
            for number in sorted(range(len(values)), key=values.__getitem__):
                odds = log_odds(of_lead, values[number])[:, 0]
                least = odds if least is None else torch.minimum(least, odds)
                found[:, lead, number] = torch.sigmoid(shift + factor * least)
        return found


def area_share(value: float, lead: int) -> float:
    """How much area to forecast with this network value or more, for each cell that has it in the newest frame."""
    less = min(max(value - LESS_FROM, 0) * LESS, MOST_LESS) * min(lead / LESS_BY, 1)
    return (1 + MORE * min(lead / MORE_BY, 1)) * (1 - less)
