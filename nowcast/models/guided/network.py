"""A ConvLSTM encoder–forecaster that corrects guidance, cell by cell.

For each cell, lead time and rate of RATES, the log-odds that the rain rate reaches it are

    z = intercept + slope · guidance + correction

    guidance          log-odds of the cascade in the coordinates of the grid (guidance.py)
    intercept, slope  for each lead time and rate, fitted to training cases before the first step (calibration.py)
    correction        the network's output, 0 before it learns

The encoder gets the past frames. The forecaster gets, at each lead time, the corrected guidance at the rates FED. A forecast
covers the cells whose log-odds reach a cut, which validation sets for each lead time and rate. Probabilities are those of the
log-odds and a shift for each rate, which validation sets as well (reliability.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from nowcast.config.schema import Many, as_tuple
from nowcast.models.encoder_forecaster import Channels, Layers, LayersConfig, joined, pad_to_multiple, steps_at_once
from nowcast.models.guided import patches
from nowcast.models.guided.calibration import GUIDANCE_CENTRES, NEVER, CutCalibration, correction, fill_rows, unbiased_cuts
from nowcast.models.guided.guidance import MISSING, RATES, STEPS, TRANSFORM, VALUES, guidance
from nowcast.models.guided.place import Place
from nowcast.models.guided.reliability import KNOTS, ShiftCalibration
from nowcast.models.model import NO_START, Calibrations, Distribution, DistributionModel
from nowcast.models.probabilistic.matching import MatchingConstants, match_areas
from nowcast.models.transform import Transform

AREAS = MatchingConstants(rates=RATES)
FED = slice(0, 7, 2)  # rates whose guidance is input of the forecaster: 0.1, 1, 5 and 20 mm/h
FED_SCALE = 0.25  # scales log-odds to a standard deviation of about 1
FAR_BELOW = -4.0  # input of the forecaster, log-odds, where guidance is missing
LEAST_ENTROPY = 1e-6  # nats: lower limit, because cross entropies of rare rates are divided by it
# network values of KNOTS
KNOT_VALUES = tuple(TRANSFORM.encode(torch.tensor(KNOTS)).tolist())
MOST_LEADS = 48  # number of lead times with correction and cut of their own; later ones use those of the last


class GuidedConfig(LayersConfig):
    """Keys of `[model]` for name = "guided"."""

    name: Literal["guided"] = "guided"
    hidden_channels: Many[Channels] = Field((32, 32), min_length=1, max_length=16)
    trust: float = Field(1.0, gt=0, le=1)  # fraction of the correction that is used in forecasts
    # how the area of each rate is set: "cuts", log-odds chosen in validation; "areas", the area in the newest frame
    rule: Literal["cuts", "areas"] = "cuts"
    # (y, x) cells of the grid for which a correction per cell is fitted; [0, 0]: any grid; "auto": that of the records
    grid: Literal["auto"] | Annotated[tuple[int, int], BeforeValidator(as_tuple)] = (0, 0)


class Guided(Layers, DistributionModel):
    """Encoder–forecaster whose output is added to the log-odds of guidance.

    The outputs (case, lead, rate, y, x) are the log-odds of RATES, NaN where guidance is missing. Buffers, which no gradient
    changes: `intercept`, `slope` (lead, rate) of the guidance, `entropy` (rate) its cross entropy, `cuts` (lead, rate), and
    `shift` (knot) of the log-odds of probabilities.
    """

    citation = "Shi et al. (2015), arXiv 1506.04214; Seed (2003); Bowler, Pierce & Seed (2006)"
    calibrated = ("cuts", "shift")
    fixed = ("intercept", "slope", "entropy", "place_shift", "place_weight")
    newer = MappingProxyType({"shift": torch.zeros(len(KNOTS))})
    takes_guidance = True

    def __init__(self, config: GuidedConfig):
        folded = config.patch**2
        super().__init__(config, len(RATES) * folded, num_fed=len(RATES[FED]) * folded + 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for name, value in (("intercept", 0.0), ("slope", 1.0), ("cuts", 0.0)):
            self.register_buffer(name, torch.full((MOST_LEADS, len(RATES)), value))
        self.register_buffer("entropy", torch.ones(len(RATES)))
        self.register_buffer("shift", torch.zeros(len(KNOTS)))
        self.matches_areas = config.rule == "areas"
        self.grid = config.grid if config.grid != "auto" and all(config.grid) else None
        if self.grid:
            self.register_buffer("place_shift", torch.zeros(len(RATES), *self.grid))
            self.register_buffer("place_weight", torch.zeros(MOST_LEADS, len(RATES)))

    def forward(self, past: Tensor, num_leads: int, guidance: Tensor) -> Tensor:
        return joined(list(self.leads(past, num_leads, guidance)))

    def leads(self, past: Tensor, num_leads: int, guidance: Tensor) -> Iterator[Tensor]:
        frames = past if self.config.validity_channel else past[:, :, :1]
        frames = F.pixel_unshuffle(pad_to_multiple(frames, self.config.patch), self.config.patch)
        _, states = self.encoder(frames)
        lead = 0
        for num_steps in steps_at_once(num_leads):
            coded = guidance[:, lead : lead + num_steps]
            intercept, slope = (rows_of_leads(buffer, lead, num_steps) for buffer in (self.intercept, self.slope / STEPS))
            hidden, states = self.forecaster(self._fed(coded, intercept, slope), states)
            yield self._corrected(coded, intercept, slope, self.head(hidden))
            lead += num_steps

    def blank_inputs(self, cases: int, num_leads: int, grid: Sequence[int]) -> dict[str, Tensor]:
        return {"guidance": self.cuts.new_zeros(cases, num_leads, len(RATES), *grid, dtype=torch.int8)}

    def _corrected(self, coded: Tensor, intercept: Tensor, slope: Tensor, channels: Tensor) -> Tensor:
        """Return intercept + slope · guidance + correction (case, lead, rate, y, x), NaN where guidance is missing.

        coded: guidance (case, lead, rate, y, x) int8
        intercept, slope: (lead, rate), slope per step of the guidance
        channels: correction (case, lead, rate × patch², y / patch, x / patch)
        """
        trust, (y, x) = 1.0 if self.training else self.config.trust, coded.shape[-2:]
        if channels.dtype in (torch.float32, torch.bfloat16) and (library := patches.library_for(channels)):
            return patches.Corrected.apply(channels, coded, intercept, slope, trust, self.config.patch, library)
        correction = self._unfolded(channels)[..., :y, :x]
        correction = correction if self.training else trust * correction  # not 1 × it, which would copy it
        del channels  # frees their memory
        with torch.no_grad():
            odds = torch.addcmul(intercept[..., None, None], slope[..., None, None], coded.float()).masked_fill_(
                coded[:, :, :1] == MISSING, torch.nan
            )  # where one rate is missing, all are
        return odds.add_(correction)

    @torch.no_grad()
    def _fed(self, coded: Tensor, intercept: Tensor, slope: Tensor) -> Tensor:
        """Return the forecaster's input (case, lead, channel, y / patch, x / patch). Arguments as `_corrected`."""
        patch, (y, x), absent = self.config.patch, coded.shape[-2:], FED_SCALE * FAR_BELOW
        intercept, slope = (FED_SCALE * buffer[:, FED] for buffer in (intercept, slope))
        if library := patches.library_for(coded):
            return patches.fed(library, coded, intercept, slope, patch=patch, stride=FED.step, absent=absent)
        chosen = F.pad(coded[:, :, FED], (0, -x % patch, 0, -y % patch), value=MISSING)
        known = chosen[:, :, :1] != MISSING
        odds = torch.addcmul(intercept[..., None, None], slope[..., None, None], chosen.float()).masked_fill_(~known, absent)
        share = F.avg_pool2d(known[:, :, 0].float(), patch)
        # channels innermost in memory, as the engine expects: (lead, case, y / patch, x / patch, channel)
        folded = odds.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).permute(1, 0, 3, 5, 2, 4, 6).flatten(4)
        return torch.cat([folded, share.transpose(0, 1)[..., None]], dim=4).permute(1, 0, 4, 2, 3)

    def _unfolded(self, channels: Tensor) -> Tensor:
        """Unfold channels (case, lead, rate × patch², y / patch, x / patch) to (case, lead, rate, y, x)."""
        cells = channels.unflatten(2, (-1, self.config.patch, self.config.patch)).permute(0, 1, 2, 5, 3, 6, 4)
        return cells.flatten(5).flatten(3, 4).float()

    def loss_input(self, outputs: Tensor) -> "RatesDistribution":
        return RatesDistribution(self, outputs)

    def log_odds(self, outputs: Tensor, value: float) -> Tensor:
        """Return the log-odds of a network value, linear between RATES and beyond; shapes as `DistributionModel.log_odds`."""
        return log_odds(outputs.unbind(2), value)

    def coefficients(self, values: Sequence[float]) -> list[list[float]]:
        between = [_between_rates(value) for value in values]
        return [[{upper - 1: 1 - share, upper: share}.get(rate, 0.0) for rate in range(len(RATES))] for upper, share in between]

    def reference_entropy(self, value: float) -> Tensor:
        nearest = min(range(len(VALUES)), key=lambda number: abs(VALUES[number] - value))
        return self.entropy[nearest]

    @torch.no_grad()
    def correct_guidance(self, counts: np.ndarray) -> None:
        """Fit the correction of the guidance, its cross entropy and the cuts.

        counts: (lead, rate, bin, 2) of `count_guidance`
        """
        fitted, entropy = correction(counts)
        intercept, slope = fitted[..., 0], fitted[..., 1]
        cuts = intercept + slope * unbiased_cuts(counts, GUIDANCE_CENTRES)
        for buffer, values in ((self.intercept, intercept), (self.slope, slope), (self.cuts, cuts)):
            fill_rows(buffer, values)
        self.entropy.copy_(torch.from_numpy(np.maximum(entropy, LEAST_ENTROPY)))

    def guidance(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Return the guidance of cases on the whole grid, (case, lead, rate, y, x) int8; past (case, time, y, x) mm/h."""
        fields = [guidance(case, num_leads) for case in past]
        return np.stack([self.place.apply(case) for case in fields] if self.grid else fields)

    @property
    def place(self) -> Place | None:
        """Return the correction of each grid cell, which is added to the guidance; None for a network for any grid."""
        return Place(self.place_shift.cpu().numpy(), self.place_weight.cpu().numpy()) if self.grid else None

    @torch.no_grad()
    def set_place(self, place: Place) -> None:
        """Set the correction of each grid cell: shift (rate, y, x), weight (lead, rate)."""
        self.place_shift.copy_(torch.from_numpy(place.shift))
        fill_rows(self.place_weight, place.weight)

    def calibration(
        self, transform: Transform, thresholds: Sequence[float], *, start: Mapping[str, Tensor] = NO_START
    ) -> Calibrations:
        cuts = CutCalibration(self.cuts)
        if not self.grid:  # validated on rainy crops, in which probabilities would be fitted too high
            return Calibrations(cuts)
        return Calibrations(cuts, ShiftCalibration(self.shift, self.knots, start.get("shift")))

    def values(self, outputs: Tensor, past: Tensor, *, first_lead: int = 1, matched: Tensor | None = None) -> Tensor:
        """Return the highest network value whose log-odds reach its cut. Arguments as `Model.values`."""
        matched = self.matched(outputs, past, first_lead) if matched is None else matched
        cuts = rows_of_leads(self.cuts, first_lead - 1, outputs.shape[1]) if matched is None else matched[:, :, 0]
        return highest_reached(outputs - cuts[..., None, None])

    def sample(self, outputs: Tensor, past: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        odds, newest = (field[..., ::stride, ::stride].flatten(-2) for field in (outputs, past[:, -1]))
        # rain that leaves the part of the grid with a forecast must not be placed elsewhere
        known = newest[:, 1] * ~odds.isnan().any(dim=2).any(dim=1)
        return odds.nan_to_num(nan=-NEVER), newest[:, 0], known

    def match(self, odds: Tensor, newest: Tensor, validity: Tensor, first_lead: int = 1) -> Tensor:
        cuts = match_areas(odds, newest, validity, first_lead, AREAS)
        return torch.stack([cuts, self.shifts(odds, newest, validity)], dim=2)

    def exceedance(self, outputs: Tensor, values: tuple[float, ...], matched: Tensor | None = None) -> Tensor:
        """Return the probability of reaching each network value, which never increases with the value.

        Shapes are as `DistributionModel.exceedance`.
        """
        parts = falling(outputs.unbind(2))
        number = min(sum(value < max(values, default=0.0) for value in KNOT_VALUES) + 1, len(KNOTS))
        shifts = zip(KNOT_VALUES[: max(number, 2)], self.shift, strict=False)  # of no more knots than are needed
        knots = falling(log_odds(parts, value) + shift for value, shift in shifts)
        return torch.stack([torch.sigmoid(self._shifted(parts, knots, value)) for value in values], dim=2)

    def _shifted(self, parts: Sequence[Tensor], knots: Sequence[Tensor], value: float) -> Tensor:
        """Return the shifted log-odds (case, lead, y, x) of a network value; beyond KNOTS the shift is that of the nearest."""
        if value < KNOT_VALUES[0]:
            return torch.maximum(log_odds(parts, value) + self.shift[0], knots[0])
        if value > KNOT_VALUES[-1]:
            return torch.minimum(log_odds(parts, value) + self.shift[-1], knots[-1])
        return log_odds(knots, value, KNOT_VALUES[: len(knots)])

    def knots(self, outputs: Tensor) -> list[Tensor]:
        """Return the log-odds (case, lead, y, x) of each of KNOTS, before they are shifted."""
        parts = falling(outputs.unbind(2))
        return [log_odds(parts, value) for value in KNOT_VALUES]


class RatesDistribution(Distribution):
    """The distribution for a loss; outputs are split by rate once, so that their gradients are concatenated once."""

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """Return the log-odds of each of RATES, (case, lead, y, x)."""
        return self.outputs.unbind(2)

    @cached_property
    def known(self) -> Tensor:
        return ~self.parts[0].isnan()  # where one rate is missing, all are

    def log_odds(self, value: float) -> Tensor:
        return log_odds(self.parts, value)


def log_odds(parts: Sequence[Tensor], value: float, values: Sequence[float] = VALUES) -> Tensor:
    """Return the log-odds (case, lead, y, x) of reaching a network value, linear between those of `values` and beyond.

    parts: of each of `values`, (case, lead, y, x)
    """
    upper, share = _between_rates(value, values)
    return parts[upper - 1 + int(share)] if share in (0, 1) else torch.lerp(parts[upper - 1], parts[upper], share)


def _between_rates(value: float, values: Sequence[float] = VALUES) -> tuple[int, float]:
    """Return the position of the next higher of `values`, and the relative distance (0 to 1) from the next lower to it."""
    upper = min(max(sum(v < value for v in values), 1), len(values) - 1)
    share = (value - values[upper - 1]) / (values[upper] - values[upper - 1])
    return upper, float(round(share)) if min(abs(share), abs(share - 1)) < 1e-4 else share  # one of `values`


def falling(parts: Iterable[Tensor]) -> list[Tensor]:
    """Return the log-odds of each rate, limited to those of all lower rates; faster than torch's cummin.

    parts: of each of RATES, (case, lead, y, x)
    """
    return list(accumulate(parts, torch.minimum))


def rows_of_leads(buffer: Tensor, first: int, number: int) -> Tensor:
    """Return the rows (lead, rate) of `number` lead times from number `first` (0, 1, …) on in a buffer (MOST_LEADS, rate).

    Sliced: to index with a list would make a GPU wait for the list to be copied from the CPU.
    """
    rows = buffer[min(first, MOST_LEADS - 1) :][:number]
    return rows if len(rows) == number else torch.cat([rows, rows[-1:].expand(number - len(rows), -1)])


def highest_reached(margins: Tensor) -> Tensor:
    """Return the highest network value that is reached, linear between those of RATES; 0 below the lowest.

    margins: (case, lead, rate, y, x) log-odds above the cut; a rate is reached only where all lower ones are
    returns: (case, lead, y, x), NaN as in `margins`
    """
    least = margins[:, :, 0]
    reached = torch.where(least >= 0, VALUES[0], torch.where(least.isnan(), torch.nan, 0.0))
    for number in range(1, len(VALUES)):
        following = torch.minimum(least, margins[:, :, number])
        share = (least / (least - following).clamp(min=1e-6)).clamp(max=1.0)
        step = (VALUES[number] - VALUES[number - 1]) * share
        reached = torch.where(least >= 0, reached + step, reached)
        least = following
    return reached
