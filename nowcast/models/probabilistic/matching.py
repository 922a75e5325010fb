"""Probability matching: set the forecast area of each rain rate from its area in the newest frame.

The forecast area of each rate is the area in the newest frame times `area_share`. Rain of all rates gains area, because the
CSI is best if rain is forecast wherever its probability is at least CSI / (1 + CSI), which is less than a half. Heavy rain
loses area, because it is seldom where it is forecast and causes most of the squared error.

The expected area of each rate, the sum of its probabilities, is moved towards that in the newest frame. How heavy rain gets
differs so much from one weather to another that what was learnt of some says little of the next: at the last six lead times
the included network expected .9 to 125 times the observed area of 20 mm/h on six records; that of the newest frame is 1.1 to
4.6 times as large (pretrained/README.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

NEVER_REACHED = 1e4  # log-odds: the cut of rates that are not forecast anywhere
CUT_TOLERANCE = 1e-4  # log-odds, more than their rounding error: cuts are lowered so that the cell that defines one reaches it


@dataclass(frozen=True)
class MatchingConstants:
    """Constants of probability matching, chosen and not trained. The defaults are those of every trained network."""

    # parameters of the log transform that the model is made for
    offset: float = 0.5  # mm/h, the rate below which it is about linear
    ceiling: float = 100.0  # mm/h, the rate of network value 1
    # usual thresholds, at which areas are matched
    rates: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # mm/h

    area_gain: float = 0.05  # fraction of the area
    area_gain_lead: int = 12  # lead time number from which on the gain is complete
    area_loss: float = 2.3  # fraction of the area per unit of network value above `area_loss_from`
    area_loss_from: float = 0.45  # network value above which areas shrink
    most_area_loss: float = 0.9  # fraction of the area
    area_loss_lead: int = 4  # lead time number from which on the loss is complete

    shift_least: float = 0.5  # weight of the area in the newest frame, relative to the expected area, for light rain
    shift_grows_from: float = 0.45  # network value above which this weight increases: 5 mm/h
    shift_whole_from: float = 0.7  # network value from which on it is 1: 20 mm/h
    shift_prior: float = 3.0  # cells with and without the rate that are added to both areas, so that none is 0; and at most
    shift_rarity: float = 0.1  # so much of the area of the anchor below: a rate that is not there is rarer than a lower one

    @property
    def anchors(self) -> tuple[float, ...]:
        """Return the network values of `rates`, at which areas are matched; below the first one the forecast is 0.

        Slightly lowered: rates are often rounded, so many cells lie exactly on them.
        """
        scale = math.log1p(self.ceiling / self.offset)
        return tuple(math.log1p(rate / self.offset) / scale - 1e-6 for rate in self.rates)

    @property
    def wet_value(self) -> float:
        """Return the network value from which on a cell counts as wet: the second anchor."""
        return self.anchors[1]

    def area_share(self, value: float, lead: int) -> float:
        """Compute the area to forecast at a network value, as a fraction of its area in the newest frame.

        lead: number of the lead time, 1, 2, …
        """
        loss = min(max(value - self.area_loss_from, 0) * self.area_loss, self.most_area_loss)
        loss *= min(lead / self.area_loss_lead, 1)
        return (1 + self.area_gain * min(lead / self.area_gain_lead, 1)) * (1 - loss)

    def shift_share(self, value: float) -> float:
        """Compute the weight of the area in the newest frame, relative to the expected area, for a network value."""
        grown = (value - self.shift_grows_from) / (self.shift_whole_from - self.shift_grows_from)
        return self.shift_least + (1 - self.shift_least) * min(max(grown, 0.0), 1.0)


MATCHING = MatchingConstants()


def match_areas(odds: Tensor, newest: Tensor, validity: Tensor, first_lead: int, constants: MatchingConstants) -> Tensor:
    """Compute the log-odds cut of each anchor: cells above it are forecast to reach the anchor.

        odds: (case, lead, anchor, cell) from lead time number `first_lead` on
        newest: (case, cell) network values of the newest frame
        validity: (case, cell) 1 known, 0 missing
        returns: (case, lead, anchor)

    It is chosen so that the forecast area equals the newest frame's area × `area_share` (probability matching).
    """
    cuts = torch.full(odds.shape[:3], NEVER_REACHED, device=odds.device)
    for case, known in enumerate(validity > 0):
        case_odds, num_known = odds[case, :, :, known], int(known.sum())
        for number, anchor in enumerate(constants.anchors):
            area = int(((newest[case] >= anchor) & known).sum())
            if not area and number:  # for rates above the newest frame's, the cut of the rate below
                cuts[case, :, number] = cuts[case, :, number - 1]
            for lead in range(len(case_odds)) if area else ():
                wanted = min(max(round(area * constants.area_share(anchor, first_lead + lead)), 1), num_known)
                reached = case_odds[lead, number].kthvalue(num_known - wanted + 1).values
                cuts[case, lead, number] = reached - CUT_TOLERANCE
    return cuts


def shift_to_areas(odds: Tensor, newest: Tensor, validity: Tensor, constants: MatchingConstants) -> Tensor:
    """Compute the shift of the log-odds of each anchor that moves the expected area towards that of the newest frame.

        odds: (case, lead, anchor, cell) calibrated log-odds
        newest: (case, cell) network values of the newest frame
        validity: (case, cell) 1 known, 0 missing
        returns: (case, lead, anchor)

    Areas are compared by the log-odds of their share of the known cells.
    """
    number, known = validity.sum(dim=-1)[:, None, None], validity[:, None, None]
    falling = torch.stack(list(accumulate(odds.unbind(2), torch.minimum)), dim=2)
    expected = (torch.sigmoid(falling) * known).sum(dim=-1)
    areas = [((newest >= anchor) * validity).sum(dim=-1) for anchor in constants.anchors]
    priors = [torch.full_like(areas[0], constants.shift_prior)]
    for area in areas[:-1]:
        priors.append(torch.clamp(constants.shift_rarity * (area + priors[-1]), max=constants.shift_prior))
    prior, shares = torch.stack(priors, dim=-1)[:, None], [constants.shift_share(anchor) for anchor in constants.anchors]
    compared = torch.stack(areas, dim=-1)[:, None], expected
    wanted, given = (torch.log((area + prior) / (number - area + prior)) for area in compared)
    return odds.new_tensor(shares) * (wanted - given)


def shift_at(shifts: Tensor, value: float, anchors: Sequence[float]) -> Tensor:
    """Return the shift (case, lead) at a network value, linear between those of the anchors (case, lead, anchor)."""
    upper = min(max(sum(anchor < value for anchor in anchors), 1), len(anchors) - 1)
    share = (value - anchors[upper - 1]) / (anchors[upper] - anchors[upper - 1])
    return torch.lerp(shifts[..., upper - 1], shifts[..., upper], min(max(share, 0.0), 1.0))
