"""A network that forecasts a probability distribution around S-PROG, a cascade model of the rain's own evolution.

For each cell and lead time, the network value reaches v with probability 1 / (1 + exp(-z)), where the log-odds are

    z(v) = slope · (location - v) + shift

    location  the cascade's forecast (cascade.py); for light rain with more of its change, which lasts longer
    slope     inverse width of the distribution, from the variance that the cascade cannot predict
    shift     correction by the ConvLSTM

Shift and slope are given at three network values (LEVELS) and z is interpolated between them, because an hour ahead the
occurrence of drizzle is less certain than that of heavy rain. An untrained network is S-PROG with local correlations. Training
fits the width at each level, and the ConvLSTM's correction of shift and slope from patch to patch: a correction of log-odds
moves the forecast less where the cascade is more certain. The encoder gets the past frames, and the forecaster gets the
cascade's forecast at each lead time, both per patch (inputs.py). It is meant for Lagrangian coordinates, in which the newest
frame itself is the extrapolation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nowcast.models.encoder_forecaster import Layers, LayersConfig, joined, pad_to_multiple, steps_at_once
from nowcast.models.model import NO_START, DistributionModel
from nowcast.models.probabilistic import inputs
from nowcast.models.probabilistic.calibration import ReliabilityCalibration
from nowcast.models.probabilistic.cascade import (
    BLOCK,
    CASCADE,
    Band,
    CascadeConstants,
    change_of_lasting_rain,
    extrapolate,
    fit_autoregression,
    join_bands,
    split_bands,
    unpredicted_shares,
    with_mean_change,
    without_gaps,
)
from nowcast.models.probabilistic.distribution import LEVELS, coefficients, highest_reached, log_odds
from nowcast.models.probabilistic.matching import MATCHING, MatchingConstants, match_areas, shift_at, shift_to_areas
from nowcast.models.probabilistic.scales import mean_squares
from nowcast.models.probabilistic.upsampling import spread, upsample
from nowcast.models.transform import Transform

WIDTH_RATE = 40.0  # learning-rate multiplier of the widths: they are three numbers, beside tens of thousands of weights
ENERGY_REACH = 2  # cells of a band to each side over which its mean square is averaged
LEAST_DEVIATION = 0.02  # network values: smallest standard deviation of the distribution
TO_LOGISTIC = math.sqrt(3) / math.pi  # from a standard deviation to the scale of a logistic distribution
LEAST_LOG_SLOPE, MOST_LOG_SLOPE = 0.0, 6.0  # bounds of the slope's logarithm


class ProbabilisticConfig(LayersConfig):
    """Keys of `[model]` for name = "probabilistic"."""

    name: Literal["probabilistic"] = "probabilistic"
    patch: Literal[1, 2, 4, 8] = 8
    # fraction of the ConvLSTM's correction that is used in forecasts: trained on few events, about a third of it generalises
    trust: float = Field(0.3, gt=0, le=1)


class Probabilistic(Layers, DistributionModel):
    """Encoder–forecaster that corrects the cascade's forecast and gives it a distribution.

    The outputs (case, lead, 6, y, x) are slope · location + shift at the three LEVELS, then the three slopes. The buffer
    `reliability` holds the intercept and slope of the calibrated log-odds; calibration sets it, not the gradient.
    """

    citation = "Shi et al. (2015), arXiv 1506.04214; Seed (2003); Bowler, Pierce & Seed (2006)"
    calibrated = ("reliability",)
    tile_multiple = BLOCK
    matches_areas = True

    def __init__(
        self,
        config: ProbabilisticConfig,
        *,
        cascade_constants: CascadeConstants = CASCADE,
        matching_constants: MatchingConstants = MATCHING,
    ):
        extra = int(config.validity_channel)  # the share of known cells
        num_channels = inputs.NUM_FRAME_CHANNELS + extra, inputs.NUM_CHANGE_CHANNELS + extra
        super().__init__(config, 2 * len(LEVELS), num_seen=num_channels[0], num_fed=num_channels[1] + inputs.NUM_LEAD_CHANNELS)
        self.num_frame_channels, self.num_change_channels = num_channels
        self.cascade_constants, self.matching_constants = cascade_constants, matching_constants
        self.anchors, self.wet_value = matching_constants.anchors, matching_constants.wet_value
        if not self.head.weight.is_meta:  # shapes alone; torch would import its compiler, for seconds, to draw nothing
            nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        self.width = nn.Parameter(torch.zeros(len(LEVELS)))  # logarithm of a factor, divided by WIDTH_RATE
        self.register_buffer("reliability", torch.tensor([0.0, 1.0]))

    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        return joined(list(self.leads(past, num_leads)))

    def leads(self, past: Tensor, num_leads: int) -> Iterator[Tensor]:
        """Yield the outputs (case, lead, 6, y, x) in the parts of `steps_at_once`; all together take six times a forecast."""
        y, x = past.shape[-2:]
        frames = without_gaps(pad_to_multiple(past.float(), BLOCK))
        values, known = frames[:, :, 0] * frames[:, :, 1], frames[:, :, 1]
        bands = split_bands(values, known)
        with torch.no_grad():
            patches = inputs.patches_of(values, bands, self.wet_value, self.config.patch)
            seen = inputs.frame_channels(bands, patches, self.config.patch)
        _, states = self.encoder(seen[:, :, : self.num_frame_channels])
        cascade = self._with_inputs(bands, patches, num_leads)
        for num_steps in steps_at_once(num_leads):
            *forecast, fed = zip(*(next(cascade) for _ in range(num_steps)), strict=True)
            hidden, states = self.forecaster(torch.stack(fed, dim=1), states)
            stacked = (torch.stack(each, dim=1) for each in forecast)
            yield self._distribution(self.head(hidden).float(), *stacked, grid=(y, x))

    @torch.no_grad()
    def _with_inputs(
        self, bands: list[tuple[Tensor, Tensor]], patches: inputs.Patches, num_leads: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield the forecast of `cascade` for one lead time after the other, and with it the inputs of the forecaster.

        channels: (case, channel, y / patch, x / patch), the last of the four
        """
        patch, fitted = self.config.patch, self._fitted(bands)
        change = inputs.change_channels(fitted, patches, patch)[:, : self.num_change_channels]
        for lead, (location, light_change, unpredicted) in enumerate(self._extrapolated(bands, fitted, num_leads), 1):
            channels = torch.cat([change, inputs.lead_channels(location, unpredicted, lead, patch)], dim=1)
            yield location, light_change, unpredicted, channels

    @torch.no_grad()
    def cascade(self, past: Tensor, num_leads: int) -> Iterator[Tensor]:
        """Yield the cascade's own distribution of one lead time after the other, without the ConvLSTM.

        past: (case, time, 2, y, x) as given to `forward`
        yields: (case, 6, y, x) as the outputs of `forward`
        """
        y, x = past.shape[-2:]
        frames = without_gaps(pad_to_multiple(past.float(), BLOCK))
        bands = split_bands(frames[:, :, 0] * frames[:, :, 1], frames[:, :, 1])
        shape = (2 * len(LEVELS), *(side // self.config.patch for side in frames.shape[-2:]))
        nothing = past.new_zeros(len(past), 1, *shape)
        for forecast in self._extrapolated(bands, self._fitted(bands), num_leads):
            yield self._distribution(nothing, *(each[:, None] for each in forecast), grid=(y, x))[:, 0]

    def _extrapolated(
        self, bands: list[tuple[Tensor, Tensor]], fitted: list[Band], num_leads: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the cascade's forecast of one lead time after the other.

        location: (case, 1, y, x) network values
        light_change: (case, 1, y / patch, x / patch) what is added to the location for light rain
        unpredicted: (case, 1, y / patch, x / patch) variance that the cascade cannot predict
        """
        constants, patch, blocks = self.cascade_constants, self.config.patch, _blocks(bands)
        num_lasting = constants.num_lasting_bands
        energies = torch.cat([self._energy(band[:, -1:], n) for n, (band, _) in enumerate(bands)], dim=1)
        light_changes = change_of_lasting_rain(fitted[-num_lasting:], constants.error_share, num_leads)
        forecasts = (extrapolate(band, block, num_leads) for band, block in zip(fitted, blocks, strict=True))
        leads = zip(zip(*forecasts, strict=True), light_changes, unpredicted_shares(fitted, num_leads), strict=True)
        for forecast, light_change, shares in leads:
            unpredicted = (energies * upsample(shares, BLOCK // patch)).sum(dim=1, keepdim=True)
            location = join_bands([band[:, None] for band in forecast])
            yield location, upsample(light_change, BLOCK // blocks[-num_lasting] // patch), unpredicted

    def _fitted(self, bands: list[tuple[Tensor, Tensor]]) -> list[Band]:
        """Fit the autoregression of each band; the coarsest bands continue the mean change of all past frames."""
        reach, num_averaged = self.cascade_constants.correlation_reach, self.cascade_constants.num_averaged_bands
        blocks = _blocks(bands)
        fitted = [fit_autoregression(*band, block, reach=reach) for band, block in zip(bands, blocks, strict=True)]
        coarsest = zip(fitted[-num_averaged:], bands[-num_averaged:], strict=True)
        fitted[-num_averaged:] = [with_mean_change(band, frames) for band, (frames, _) in coarsest]
        return fitted

    def _energy(self, newest: Tensor, number: int) -> Tensor:
        """Compute the local mean square (case, 1, y / patch, x / patch) of band `number`, 0 being the finest."""
        size, patch = 1 << number, self.config.patch
        squares = mean_squares(newest, max(patch // size, 1), reach=ENERGY_REACH)
        return upsample(squares, max(size // patch, 1))

    def _distribution(
        self, correction: Tensor, location: Tensor, light_change: Tensor, unpredicted: Tensor, *, grid: tuple[int, int]
    ) -> Tensor:
        """Combine the cascade's forecast with the ConvLSTM's correction (case, lead, 6, y / patch, x / patch).

        location, light_change, unpredicted: of `_extrapolated`, (case, lead, 1, …)
        grid: (y, x) of the cells to return, without the padding
        returns: (case, lead, 6, y, x) slope · location + shift at LEVELS, then slopes
        """
        shift, wider = (correction if self.training else self.config.trust * correction).chunk(2, dim=2)
        width = TO_LOGISTIC * (unpredicted + LEAST_DEVIATION**2).sqrt()
        log_slope = -width.log() - (WIDTH_RATE * self.width)[:, None, None] - wider
        slope = log_slope.clamp(LEAST_LOG_SLOPE, MOST_LOG_SLOPE).exp()
        light_shift = shift[:, :, :1] + slope[:, :, :1] * light_change
        parameters = torch.cat([light_shift, shift[:, :, 1:], slope], dim=2)
        return spread(parameters, location, self.config.patch, grid)

    def log_odds(self, outputs: Tensor, value: float) -> Tensor:
        return log_odds(outputs, value)

    def coefficients(self, values: Sequence[float]) -> list[list[float]]:
        return [coefficients(value) for value in values]

    def calibration(
        self, transform: Transform, thresholds: Sequence[float], *, start: Mapping[str, Tensor] = NO_START
    ) -> ReliabilityCalibration:
        return ReliabilityCalibration(self, transform, thresholds, start.get("reliability"))

    def sample(self, outputs: Tensor, past: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        outputs, newest = (field[..., ::stride, ::stride].flatten(-2) for field in (outputs, past[:, -1]))
        odds = torch.stack([log_odds(outputs, anchor) for anchor in self.anchors], dim=2)
        return odds, newest[:, 0], newest[:, 1]

    def match(self, odds: Tensor, newest: Tensor, validity: Tensor, first_lead: int = 1) -> Tensor:
        cuts = match_areas(odds, newest, validity, first_lead, self.matching_constants)
        return torch.stack([cuts, self.shifts(odds, newest, validity)], dim=2)

    def shifts(self, odds: Tensor, newest: Tensor, validity: Tensor) -> Tensor:
        intercept, slope = self.reliability
        return shift_to_areas(intercept + slope * odds, newest, validity, self.matching_constants)

    def values(self, outputs: Tensor, past: Tensor, *, first_lead: int = 1, matched: Tensor | None = None) -> Tensor:
        """Return the highest network value whose log-odds reach the cut of `match`. Arguments as `Model.values`.

        For each rate the forecast thus covers about the area that the rate has in the newest frame, where it is most likely.
        A fixed probability instead of the cut would not do: one that suits one radar gives too much rain for another.
        """
        matched = self.matched(outputs, past, first_lead) if matched is None else matched
        return highest_reached(outputs, self.anchors, matched[:, :, 0])

    def exceedance(self, outputs: Tensor, values: Sequence[float], matched: Tensor | None = None) -> Tensor:
        """Return the calibrated probability of reaching each network value; it never increases with the value.

        outputs: (case, lead, 6, y, x)
        matched: (case, lead, 2, anchor) of `match`, whose shifts are added to the log-odds; None: no shift
        returns: (case, lead, value, y, x) from 0 to 1
        """
        intercept, slope = self.reliability
        shifts = None if matched is None else [shift_at(matched[:, :, 1], value, self.anchors) for value in values]
        probabilities = outputs.new_empty(*outputs.shape[:2], len(values), *outputs.shape[3:])
        for lead in range(outputs.shape[1]):  # one by one they stay in a processor's cache
            least, of_lead = None, outputs[:, lead : lead + 1]
            for number in sorted(range(len(values)), key=values.__getitem__):
                odds = intercept + slope * log_odds(of_lead, values[number])[:, 0]
                odds = odds if shifts is None else odds + shifts[number][:, lead, None, None]
                least = odds if least is None else torch.minimum(least, odds)
                probabilities[:, lead, number] = torch.sigmoid(least)
        return probabilities


def _blocks(bands: list) -> list[int]:
    """Return the size of a block in cells of each band, the finest first."""
    return [BLOCK >> number for number in range(len(bands))]
