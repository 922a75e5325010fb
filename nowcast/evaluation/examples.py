"""Choose example cases for the report: the best, the median and the worst by CSI.

While cases are scored, only their times and scores are kept. The few chosen cases are forecast again at the end, and the block
means of their fields are kept for display.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nowcast.evaluation.coarsen import block_means, block_size, evenly_spaced, known_window
from nowcast.evaluation.member_examples import MemberExample, Points, Read, make_member_example
from nowcast.netcdf.places.locating import Locator

log = logging.getLogger(__name__)
MAX_FRAMES = 12  # largest number of lead times of an example; of more, evenly spaced ones are kept


@dataclass(frozen=True)
class ScoredCase:
    """A scored case, identified by its record and forecast_reference_time: its CSI and its observed events."""

    record: str
    reference: np.datetime64
    csi: float  # of the first forecaster at one threshold, pooled over lead times; NaN if undefined
    num_events: int  # observed pixels at or above that threshold, all lead times together


@dataclass(frozen=True)
class Example:
    """An example case for the report: its observed and forecast fields, cut to the area with data, as block means for display.

    rank: among the cases: "best", "median", "worst", …
    observed: (lead, y, x) mm/h
    forecasts: (lead, y, x) mm/h, by forecaster
    extent_km: (height, width) of the area, NaN if unknown
    block: side of the blocks, in grid cells
    corner: the row and column of the grid at which the area begins
    locator: where the grid lies on earth, None if unknown
    probabilities: (lead, y, x) of reaching `threshold`, by forecaster; of an ensemble the fraction of its members
    events: (lead, y, x), the fraction of the cells of a block with at least `threshold` observed
    members: of ensembles; None if there are none
    means: the forecasters whose forecast is the mean of their members
    """

    rank: str
    case: ScoredCase
    lead_minutes: tuple[float, ...]
    observed: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    extent_km: tuple[float, float]
    block: int
    corner: tuple[int, int] = (0, 0)
    locator: Locator | None = None
    threshold: float = math.nan
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    events: np.ndarray | None = None
    members: MemberExample | None = None
    means: tuple[str, ...] = ()


def choose(cases: Sequence[ScoredCase]) -> dict[str, ScoredCase]:
    """Choose the best, the median and the worst case by CSI, by rank; fewer if there are few cases.

    Only the wetter half of the cases with a defined CSI is considered: a case with three wet pixels can have the best or worst
    CSI by chance. Cases with equal CSI are ordered by time, so that the choice does not depend on the number of processes.
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
    locator: Locator | None = None,
    threshold: float = math.nan,
    probabilities: Mapping[str, np.ndarray] | None = None,
    ensembles: Mapping[str, Read] | None = None,
    points: Points | None = None,
) -> Example:
    """Return an example with block means at up to MAX_FRAMES lead times, including the first and the last.

    observed, forecasts: (lead, y, x) mm/h; spacing_km: (y, x) distance between cells, NaN if unknown
    probabilities: (lead, y, x) of at least `threshold`; ensembles: functions that read members; both by forecaster
    points: cells whose members the report shows, by name
    """
    leads, ensembles = evenly_spaced(len(observed), MAX_FRAMES), ensembles or {}
    part = known_window([*observed[leads], *(each for fields in forecasts.values() for each in fields[leads])])
    size = [each.stop - each.start for each in part]
    shown = partial(_shown, leads, part, block := block_size(size))
    members = make_member_example(ensembles, observed, lead_minutes, leads, part, block, locator, points)
    _report_absent(points or {}, members, case)
    chances = dict(probabilities or {}) | {name: _shares(read, len(observed), threshold) for name, read in ensembles.items()}
    return Example(
        rank=rank,
        case=case,
        lead_minutes=tuple(lead_minutes[lead] for lead in leads),
        observed=shown(observed),
        forecasts={name: shown(forecast) for name, forecast in forecasts.items()},
        extent_km=(size[0] * spacing_km[0], size[1] * spacing_km[1]),
        block=block, corner=(part[0].start, part[1].start), locator=locator,
        threshold=threshold,
        probabilities={name: shown(each) for name, each in chances.items()},
        events=shown(np.where(np.isnan(observed), np.nan, observed >= threshold)) if chances else None,
        members=members, means=tuple(ensembles),
    )  # fmt: skip


def _report_absent(points: Points, members: MemberExample | None, case: ScoredCase) -> None:
    """Warn of points without a fan in a case of the report."""
    fans = {fan.place for fan in members.fans} if members else points
    if absent := [name for name in points if name not in fans]:
        says = "no fan of %s in the case of %s from %s: observation and members are not known there at all lead times"
        log.warning(says, ", ".join(absent), case.record, case.reference)


def _shares(read: Read, num_leads: int, threshold: float) -> np.ndarray:
    """Return the fraction of members that reach the threshold, (lead, y, x); read: returns members (member, y, x)."""
    members = (read(lead) for lead in range(num_leads))
    return np.stack([np.where(np.isnan(each), np.nan, each >= threshold).mean(axis=0) for each in members])


def _shown(leads: Sequence[int], part: tuple[slice, slice], block: int, fields: np.ndarray) -> np.ndarray:
    """Return block means of a part of fields (lead, y, x) at some lead times."""
    return block_means(fields[leads][:, *part], block)
