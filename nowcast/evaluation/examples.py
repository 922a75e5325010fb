"""The cases to look at: the best, the median and the worst by a score, chosen from one number for each case.

While cases are scored only their times and scores are kept; the few that are chosen are forecast again at the end, and
their fields are thinned for display.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.evaluation.coarsen import block_size, spread, thinned

MAX_FRAMES = 12  # leads of an example: more are shown in part


@dataclass(frozen=True)
class ScoredCase:
    """One case by its record and forecast_reference_time: CSI of the first forecaster, and how much was observed.

    `csi` is pooled over leads at one threshold, NaN where undefined; `num_events` counts observed pixels at or above it.
    """

    record: str
    reference: np.datetime64
    csi: float
    num_events: int


@dataclass(frozen=True)
class Example:
    """A case to look at: observed and forecast fields by forecaster, (lead, y, x) mm/h, thinned by blocks of `block` cells.

    `rank` is its place among the cases ("best", …), `extent_km` the (height, width) of the grid, NaN where unknown.
    """

    rank: str
    case: ScoredCase
    lead_minutes: tuple[float, ...]
    observed: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    extent_km: tuple[float, float]
    block: int


def choose(cases: Sequence[ScoredCase]) -> dict[str, ScoredCase]:
    """The best, median and worst case by rank, of the wetter half of those that have a score; fewer where there are few.

    A case with three wet pixels can be the best or the worst of all and tells nothing. Equal scores are taken in time order,
    so the choice does not depend on who scored which case.
    """
    defined = [case for case in cases if math.isfinite(case.csi)]
    if not defined:
        return {"first": min(cases, key=_when)} if cases else {}
    middle = np.median([case.num_events for case in defined])
    ranked = sorted((case for case in defined if case.num_events >= middle), key=lambda case: (-case.csi, *_when(case)))
    if len(ranked) == 1:
        return {"wettest": ranked[0]}
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    return {rank: ranked[n] for rank, n in places.items() if rank != "median" or len(ranked) > 2}


def _when(case: ScoredCase) -> tuple[np.datetime64, str]:
    return case.reference, case.record


def make_example(
    rank: str,
    case: ScoredCase,
    lead_minutes: Sequence[float],
    observed: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    *,
    spacing_km: tuple[float, float],
) -> Example:
    """Keep of the fields (lead, y, x) up to MAX_FRAMES leads, the first and the last among them, thinned for display."""
    leads = spread(len(observed), MAX_FRAMES)
    shape = observed.shape[-2:]
    block = block_size(shape)
    return Example(
        rank=rank,
        case=case,
        lead_minutes=tuple(lead_minutes[lead] for lead in leads),
        observed=thinned(observed[leads], block),
        forecasts={name: thinned(forecast[leads], block) for name, forecast in forecasts.items()},
        extent_km=(shape[0] * spacing_km[0], shape[1] * spacing_km[1]),
        block=block,
    )
