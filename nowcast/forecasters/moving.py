"""A network that needs the motion of the rain as one graph of torch operations, to export it.

    inputs `past` (1, time, y, x) mm/h, NaN missing, and `motion` (1, 2, y, x) cells per frame, of `nowcast.motion.motion`
    outputs `forecast` (1, lead, y, x) mm/h, and `probabilities` (1, lead, threshold, y, x) of reaching each threshold

This repeats the steps of the forecaster around its network (interpolation along the motion, cascade, guidance, matching of
areas) without OpenCV, C and loops that depend on values. The motion itself, OpenCV's optical flow, cannot be a torch graph.
Fields are interpolated as by OpenCV: where it rounds positions to 1/32 cell, they are rounded here too.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from nowcast.forecasters.baselines import DRY_THRESHOLD
from nowcast.forecasters.network import Network
from nowcast.models.guided.guidance import LARGEST, MISSING, REMAP_CHANNELS, STEPS, TRANSFORM, cascade_model, rate_matrix
from nowcast.models.guided.network import AREAS
from nowcast.models.guided.network import highest_reached as highest_rate_reached
from nowcast.models.probabilistic.distribution import MOST_STEPS, log_odds
from nowcast.models.probabilistic.matching import CUT_TOLERANCE, NEVER_REACHED, MatchingConstants
from nowcast.models.transform import network_input

Places = tuple[Tensor, Tensor]  # columns and rows, (y, x) each, in cells
STEPS_PER_CELL = 32  # OpenCV rounds positions to this fraction of a cell for some numbers of channels


@cache
def rounds_places(channels: int) -> bool:
    """Return whether this version of OpenCV rounds positions to 1/32 cell for this number of channels."""
    field = np.arange(4 * 64 * channels, dtype=np.float32).reshape(4, 64, channels)
    place = np.full((1, 1), 7.01, np.float32), np.full((1, 1), 1.0, np.float32)
    read = cv2.remap(field, *place, cv2.INTER_LINEAR).ravel()[0]
    return abs(read - (64 + 7.01) * channels) > 1e-3 * channels


def read_linear(fields: Tensor, places: Places, *, zero_outside: bool, channels: int) -> Tensor:
    """Interpolate fields (field, y, x) bilinearly at places, as OpenCV does with this number of channels; (field, y, x).

    zero_outside: whether the grid is surrounded by 0; otherwise by its edge
    """
    columns, rows = places
    if rounds_places(channels):
        columns, rows = (torch.round(each * STEPS_PER_CELL) / STEPS_PER_CELL for each in places)
    ny, nx = fields.shape[-2:]
    left, top = columns.floor(), rows.floor()
    across, down = columns - left, rows - top
    flat, total = fields.flatten(-2), torch.zeros_like(fields)
    for r, part in ((top.long(), 1 - down), (top.long() + 1, down)):
        for c, share in ((left.long(), 1 - across), (left.long() + 1, across)):
            weight = part * share
            if zero_outside:
                weight = torch.where((r >= 0) & (r < ny) & (c >= 0) & (c < nx), weight, 0.0)
            index = (r.clamp(0, ny - 1) * nx + c.clamp(0, nx - 1)).flatten()
            total = total + weight * flat.index_select(-1, index).unflatten(-1, (ny, nx))
    return total


def trace(motion: Tensor, num_steps: int) -> Iterator[Places]:
    """Yield where the air of each cell was 1, 2, … frames ago, (y, x) each; motion (2, y, x). As `nowcast.motion.trace`."""
    ny, nx = motion.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(ny, dtype=torch.float32), torch.arange(nx, dtype=torch.float32), indexing="ij")
    flow = -motion.flip(0)  # x first
    step = flow
    for number in range(num_steps):
        for _ in range(1 if number else 2):
            step = read_linear(flow, (columns + step[0] / 2, rows + step[1] / 2), zero_outside=False, channels=2)
        columns, rows = columns + step[0], rows + step[1]
        yield columns, rows


def read_known(fields: Tensor, places: Places) -> Tensor:
    """Interpolate fields (field, y, x) with NaN, each by itself; (field, y, x). As `nowcast.motion.read_at`."""
    known = ~torch.isnan(fields)
    value = read_linear(torch.where(known, fields, 0.0), places, zero_outside=True, channels=2)
    fraction = read_linear(known.float(), places, zero_outside=True, channels=2)
    return torch.where(fraction >= 0.5, value / fraction.clamp(min=0.5), torch.nan)


def matched_cuts(odds: Tensor, newest: Tensor, validity: Tensor, lead: int, constants: MatchingConstants) -> Tensor:
    """Return the log-odds cut (anchor,) of one case and lead time. As `matching.match_areas`.

    odds: (anchor, cell); newest, validity: (cell,)
    """
    known = validity > 0
    num_known, falling = known.sum(), torch.where(known, odds, -torch.inf).sort(dim=-1, descending=True).values
    cuts: list[Tensor] = []
    for number, anchor in enumerate(constants.anchors):
        area = ((newest >= anchor) & known).sum()
        wanted = torch.round(area.double() * constants.area_share(anchor, lead)).long().clamp(min=1)
        position = (torch.minimum(wanted, num_known) - 1).clamp(min=0)
        reached = falling[number].gather(0, position[None])[0] - CUT_TOLERANCE
        otherwise = cuts[-1] if cuts else torch.full_like(reached, NEVER_REACHED)
        cuts.append(torch.where(area > 0, reached, otherwise))
    return torch.stack(cuts)


def highest_reached(outputs: Tensor, anchors: Sequence[float], cuts: Tensor) -> Tensor:
    """Return the highest network value (y, x) whose log-odds reach its cut. As `distribution.highest_reached`.

    outputs: (1, 1, 6, y, x) of one lead time; cuts: (anchor,)
    """
    margin = log_odds(outputs, anchors[0])[0, 0] - cuts[0]
    wet, reached = margin >= 0, torch.full_like(margin, anchors[0])
    for number, (before, anchor) in enumerate(pairwise(anchors), 1):
        above = torch.minimum(margin, log_odds(outputs, anchor)[0, 0] - cuts[number])
        most = MOST_STEPS if anchor == anchors[-1] else 1.0
        ratio = (margin / (margin - above).clamp(min=1e-6)).clamp(max=most)
        reached = reached + (anchor - before) * torch.where(margin >= 0, ratio, 0.0)
        margin = above
    return torch.where(wet, reached, 0.0)


class Moving(nn.Module):
    """The whole forecast of a network in Lagrangian coordinates, or of one that takes guidance; mm/h to mm/h."""

    def __init__(self, network: Network, thresholds: Sequence[float]):
        super().__init__()
        self.model, self.transform, self.num_leads = network.model, network.transform, network.lead_frames
        self.is_moved = network.experiment.data.coordinates == "lagrangian"
        self.is_rain = network.quantity.is_rain
        self.encoded = network.transform.encode(torch.tensor(thresholds, dtype=torch.float32)).tolist() if thresholds else []
        self.cascade = cascade_model() if self.model.takes_guidance else None
        self.register_buffer("matrix", torch.from_numpy(rate_matrix()))  # computed here, because it depends on values

    def forward(self, past: Tensor, motion: Tensor) -> tuple[Tensor, ...]:
        places = list(trace(motion[0], max(self.num_leads, past.shape[1] - 1)))
        earlier = [read_known(past[0, -1 - n][None], places[n - 1])[0] for n in range(past.shape[1] - 1, 0, -1)]
        still = torch.stack([*earlier, past[0, -1]])[None]
        seen = still if self.is_moved else past
        values = network_input(seen, self.transform)
        further = {} if self.cascade is None else {"guidance": self._guidance(still, places)}
        fields, lead = [], 0
        for outputs in self.model.leads(values, self.num_leads, **further):
            for n in range(outputs.shape[1]):
                lead += 1
                fields.append(self._fields(outputs[:, n : n + 1], values, lead))
        whole = torch.where(torch.isnan(seen[0]).all(dim=0), torch.nan, torch.stack(fields))
        if self.is_moved:
            whole = torch.where(torch.isnan(past[0, -1]), torch.nan, whole)
            whole = torch.stack([read_known(of_lead, where) for of_lead, where in zip(whole, places, strict=False)])
        if self.is_rain:  # as in Network
            wet = torch.nan_to_num(past).amax(dim=(0, 1, 2, 3)) >= DRY_THRESHOLD  # without dim ONNX has no such function
            whole = torch.where(wet | torch.isnan(whole), whole, 0.0)
        return (whole[None, :, 0], whole[None, :, 1:]) if self.encoded else (whole[None, :, 0],)

    def _fields(self, outputs: Tensor, values: Tensor, lead: int) -> Tensor:
        """Return the forecast, mm/h, and the probabilities (1 + threshold, y, x) of one lead time."""
        model, matched = self.model, self._matched(outputs, values, lead) if self.model.matches_areas else None
        if model.takes_guidance:
            cuts = model.cuts[min(lead, len(model.cuts)) - 1] if matched is None else matched[0, 0, 0]
            highest = highest_rate_reached(outputs - cuts[:, None, None])[0, 0]
        elif matched is not None:
            highest = highest_reached(outputs, model.anchors, matched[0, 0, 0])
        else:
            highest = model.values(outputs, values, first_lead=lead)[0, 0]
        field = self.transform.decode(highest)[None]
        return torch.cat([field, model.exceedance(outputs, self.encoded, matched)[0, 0]]) if self.encoded else field

    def _matched(self, outputs: Tensor, values: Tensor, lead: int) -> Tensor:
        """Return the cuts and shifts (1, 1, 2, value) of one lead time. As the model's `match`."""
        model = self.model
        odds, newest, validity = model.sample(outputs, values, model.sample_stride(values.shape[-2:]))
        constants = AREAS if model.takes_guidance else model.matching_constants
        cuts = matched_cuts(odds[0, 0], newest[0], validity[0], lead, constants)[None, None]
        return torch.stack([cuts, model.shifts(odds, newest, validity)], dim=2)

    def _guidance(self, still: Tensor, places: Sequence[Places]) -> Tensor:
        """Return the guidance (1, lead, rate, y, x) int8. As `models.guided.guidance.guidance`, with the place's correction."""
        known, coded = ~torch.isnan(still[0, -1]), []
        leads = self.cascade.cascade(network_input(still, TRANSFORM), self.num_leads)
        for lead, (parameters, where) in enumerate(zip(leads, places, strict=False)):
            fields = torch.cat([known[None].float(), torch.where(known, parameters[0], 0.0)])
            parts = fields.split(REMAP_CHANNELS)
            read = [read_linear(part, where, zero_outside=True, channels=len(part)) for part in parts]
            share, parameters = torch.cat(read)[0], torch.cat(read)[1:]
            odds = torch.tensordot(self.matrix, parameters, 1) / share.clamp(min=0.5)
            code = torch.round(odds * STEPS).clamp(-LARGEST, LARGEST)
            if self.model.grid:
                weight = self.model.place_weight[min(lead, len(self.model.place_weight) - 1)]
                code = torch.round(code + weight[:, None, None] * self.model.place_shift).clamp(-LARGEST, LARGEST)
            coded.append(torch.where(share >= 0.5, code, float(MISSING)).to(torch.int8))
        return torch.stack(coded)[None]


def moving_rain(network: Network, y: int, x: int) -> np.ndarray:
    """Return synthetic moving rain (1, time, y, x), mm/h, with cells that are missing in some or all frames."""
    generator, steps = np.random.default_rng(0), network.input_frames
    noise = cv2.GaussianBlur(generator.normal(size=(y + 2 * steps, x + 2 * steps)).astype(np.float32), (0, 0), 4.0)
    field = np.maximum(noise / noise.std(), 0) ** 2 * 8
    past = np.stack([field[n : n + y, 2 * n : 2 * n + x] for n in range(steps)][::-1])
    past[generator.random(past.shape) < 0.001] = np.nan
    past[:, : y // 8, : x // 8] = np.nan
    return past[None]
