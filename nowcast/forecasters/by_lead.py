"""Forecast a network's probabilities of one case lead by lead, so that memory does not grow with the number of lead times.

If a grid does not fit in memory, all tiles advance together from one lead time to the next; each keeps the state of its
model. If the model matches areas, a first pass over the tiles matches those of the whole grid.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nowcast.config import Experiment
from nowcast.forecasters.baselines import DRY_THRESHOLD
from nowcast.forecasters.tiles import Tiling, add_tile
from nowcast.models.model import Model
from nowcast.models.transform import Transform, network_input
from nowcast.motion import MotionConstants, motion, past_to_lagrangian, read_at, trace
from nowcast.quantity import Quantity
from nowcast.runtime.device import arithmetic


class Network(Protocol):
    """The attributes of `network.Network` that this module needs."""

    input_frames: int
    quantity: Quantity
    experiment: Experiment
    model: Model
    transform: Transform
    motion_constants: MotionConstants
    device: torch.device
    precision: torch.dtype

    def tiling(self, grid: tuple[int, int], num_leads: int, run: Any, fields: int) -> Tiling | None: ...

    def matched(self, past: np.ndarray, num_leads: int, tiling: Tiling, guidance: np.ndarray | None) -> Tensor:
        """Return the model's `match` (case, lead, 2, value) of the whole grid."""

    def on_device(self, past: np.ndarray) -> Tensor:
        """Copy past frames (case, time, y, x), or guidance (case, lead, rate, y, x), to the network's device."""


def network_exceedance(network: Network, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
    """Yield the probabilities of one case lead by lead, equal to those of `Network.forecast_and_exceedance`.

    past: (time, y, x) mm/h, NaN missing
    yields: (threshold, y, x) from 0 to 1, NaN missing
    """
    past = np.ascontiguousarray(past[-network.input_frames :], np.float32)
    is_dry = network.quantity.is_rain and not (past >= DRY_THRESHOLD).any()
    if network.experiment.data.coordinates == "lagrangian":
        leads = _carried(network, past, num_leads, thresholds)
    else:
        guidance = network.model.guidance(past[None], num_leads) if network.model.takes_guidance else None
        leads = _on_grid(network, past, num_leads, thresholds, guidance)
    for chances in leads:
        yield np.where(np.isnan(chances), chances, 0) if is_dry else chances


def _carried(network: Network, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
    """Yield the probabilities of a network that forecasts along the motion, on the grid of the record."""
    flow = motion(past, network.motion_constants)
    still, missing = past_to_lagrangian(past, flow), np.isnan(past[-1])
    for chances, places in zip(_on_grid(network, still, num_leads, thresholds), trace(flow, num_leads), strict=True):
        yield np.stack([read_at(np.where(missing, np.float32(np.nan), field), places) for field in chances])


def _on_grid(
    network: Network, past: np.ndarray, num_leads: int, thresholds: Sequence[float], guidance: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield the probabilities in the model's coordinates, of the whole grid or joined from tiles.

    guidance: (1, lead, rate, y, x), for models that take it
    """
    advance = partial(_advance, network, thresholds=thresholds)

    def run(past: np.ndarray, num_leads: int, **further: np.ndarray) -> None:  # to measure its memory
        deque(advance(past, num_leads, **further), maxlen=0)

    tiling = network.tiling(past.shape[-2:], num_leads, run, 0)
    if tiling is None:
        yield from advance(past[None], num_leads, guidance=guidance)
    else:
        if network.model.matches_areas:
            with torch.inference_mode():
                advance = partial(advance, matched=network.matched(past[None], num_leads, tiling, guidance))
        yield from _in_tiles(tiling, past, num_leads, guidance, advance)


def _in_tiles(
    tiling: Tiling, past: np.ndarray, num_leads: int, guidance: np.ndarray | None, advance: partial
) -> Iterator[np.ndarray]:
    spans = list(tiling)
    running = []
    for y, x in spans:
        part = (..., y.read, x.read)
        own = None if guidance is None else np.ascontiguousarray(guidance[part])
        running.append(advance(np.ascontiguousarray(past[part])[None], num_leads, guidance=own))
    for _ in range(num_leads):
        joined = None
        for span, of_tile in zip(spans, running, strict=True):
            tile = next(of_tile)
            joined = np.zeros((len(tile), *past.shape[-2:]), np.float32) if joined is None else joined
            add_tile(joined, tile, span)
        yield joined


def _advance(
    network: Network,
    past: np.ndarray,
    num_leads: int,
    guidance: np.ndarray | None = None,
    *,
    thresholds: Sequence[float],
    matched: Tensor | None = None,
) -> Iterator[np.ndarray]:
    """Run the model and yield the probabilities (threshold, y, x) lead by lead.

    past: (1, time, y, x) mm/h, NaN missing
    matched: (1, lead, 2, value) of the model's `match` on a larger grid of which this is a tile; None: no tile
    """
    model, on_device = network.model, network.on_device
    encoded = network.transform.encode(torch.tensor(thresholds, dtype=torch.float32)).tolist()
    further = {} if guidance is None else {"guidance": on_device(guidance)}
    rain = on_device(past)
    missing = torch.isnan(rain).all(dim=1)
    # no yield inside these modes: the code of the caller would run in them too
    with torch.inference_mode(), arithmetic(network.device, network.precision):
        values = network_input(rain, network.transform)
        outputs = iter(model.leads(values, num_leads, **further))
    number = 0
    while number < num_leads:
        with torch.inference_mode(), arithmetic(network.device, network.precision):
            some = next(outputs)
            own = model.matched(some, values, number + 1) if matched is None else matched[:, number : number + some.shape[1]]
        for lead in range(some.shape[1]):
            with torch.inference_mode(), arithmetic(network.device, network.precision):
                of_lead = slice(lead, lead + 1)
                chances = model.exceedance(some[:, of_lead], encoded, None if own is None else own[:, of_lead])[:, 0]
                ready = torch.where(missing[:, None], torch.nan, chances)[0].cpu().numpy()
            number += 1
            yield ready
