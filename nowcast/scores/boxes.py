"""Scores of the rain of 30 and 60 minutes, mm, in boxes of several sizes, and the sums they are computed from.

Flood models take rain summed over time and area. Intervals follow one another from the reference time on; boxes lie side by
side from the first row and column of the grid on, and have the nearest whole number of cells each way. A box counts where all
of its cells are known at all lead times of the interval. The scores are those of `ensemble` and `exceedance`, of the mean over
each box; a box of 0 km is a cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import PERCENTS, ExceedanceSums
from nowcast.scores.sums import Additive, summed

SUM_MINUTES = (30, 60)  # lengths of the intervals
BOXES_KM = (0.0, 10.0, 40.0)  # sides of the boxes on the ground; 0: a cell
AMOUNTS = (0.5, 1.0, 2.0, 5.0, 10.0)  # mm in an interval whose exceedance is scored
DIGITS = 4  # decimals of sums and their means, mm: with rounding errors of float32, those of exactly 1 mm would often be less


@dataclass(frozen=True, eq=False)
class BoxMembers(Additive):
    """Sums as in EnsembleSums, mm for mm/h, of the intervals of one length, by their ends (minutes) and side of the boxes."""

    axis_parameters: ClassVar[Mapping[str, str]] = {"lead": "ends", "box": "boxes_km", "rank": "ranks"}

    ends: tuple[float, ...]
    boxes_km: tuple[float, ...]
    ranks: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", "box", dtype=np.int64))
    num_whole_cases: np.ndarray = field(metadata=summed("box", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", "box", dtype=np.int64))
    num_members: np.ndarray = field(metadata=summed("lead", "box", dtype=np.int64))
    num_tied: np.ndarray = field(metadata=summed("lead", "box", dtype=np.int64))
    sum_crps_ecdf: np.ndarray = field(metadata=summed("lead", "box"))
    sum_crps_fair: np.ndarray = field(metadata=summed("lead", "box"))
    sum_variance: np.ndarray = field(metadata=summed("lead", "box"))
    sum_mean_sq_error: np.ndarray = field(metadata=summed("lead", "box"))
    num_ranked: np.ndarray = field(metadata=summed("lead", "box", "rank"))
    num_tied_ranked: np.ndarray = field(metadata=summed("lead", "box", "rank"))

    def of_box(self, box: int) -> EnsembleSums:
        """Return the sums of one box size, as views, so that they can be filled in."""
        return EnsembleSums(ranks=self.ranks, **_of_box(self, EnsembleSums, box))


@dataclass(frozen=True, eq=False)
class BoxProbabilities(Additive):
    """Sums as in ExceedanceSums, of amounts, mm, by ends of the intervals (minutes) and side of the boxes."""

    axis_parameters: ClassVar[Mapping[str, str]] = {
        "lead": "ends",
        "box": "boxes_km",
        "amount": "amounts",
        "class": "percents",
    }

    ends: tuple[float, ...]
    boxes_km: tuple[float, ...]
    amounts: tuple[float, ...]
    percents: tuple[int, ...]
    num_cases: np.ndarray = field(metadata=summed("lead", "box", dtype=np.int64))
    num_whole_cases: np.ndarray = field(metadata=summed("box", dtype=np.int64))
    num_pairs: np.ndarray = field(metadata=summed("lead", "box", "amount", dtype=np.int64))
    sum_brier: np.ndarray = field(metadata=summed("lead", "box", "amount"))
    num_forecast: np.ndarray = field(metadata=summed("lead", "box", "amount", "class", dtype=np.int64))
    num_observed: np.ndarray = field(metadata=summed("lead", "box", "amount", "class", dtype=np.int64))
    sum_probability: np.ndarray = field(metadata=summed("lead", "box", "amount", "class"))

    def of_box(self, box: int) -> ExceedanceSums:
        """Return the sums of one box size, as views, so that they can be filled in."""
        return ExceedanceSums(thresholds=self.amounts, percents=self.percents, **_of_box(self, ExceedanceSums, box))


def _of_box(sums: Additive, kind: type[Additive], box: int) -> dict[str, np.ndarray]:
    """Return views (lead, …) of the arrays (lead, box, …) that a kind of sums at cells has as well."""
    return {name: getattr(sums, name)[:, box] for name in kind.axes()}


class BoxSums:
    """The sums of one ensemble over one case, for every length of interval that fits the lead times, filled in lead by lead."""

    def __init__(self, num_leads: int, step_minutes: float, spacing_km: tuple[float, float], *, most_members: int):
        self.hours, self.lengths = step_minutes / 60, intervals(num_leads, step_minutes)
        self.boxes = {n: box_cells(side, spacing_km) for n, side in enumerate(BOXES_KM) if fits(side, spacing_km)}
        self.kinds: dict[str, Additive] = {}
        self._running: dict[int, np.ndarray | float] = dict.fromkeys(self.lengths, 0.0)
        ranks = tuple(range(most_members + 1))
        for minutes, leads in self.lengths.items():
            ends = tuple(float(minutes * (n + 1)) for n in range(num_leads // leads))
            parameters = {"ends": ends, "boxes_km": BOXES_KM}
            self.kinds[f"members_{minutes}_min"] = BoxMembers.empty(num_leads, **parameters, ranks=ranks)
            given = parameters | {"amounts": AMOUNTS, "percents": PERCENTS}
            self.kinds[f"probabilities_{minutes}_min"] = BoxProbabilities.empty(num_leads, **given)

    def add(self, lead: int, members: np.ndarray, observed: np.ndarray, known: np.ndarray) -> None:
        """Add a lead time; the leads come in order, none is left out.

        members: (member, y, x) mm/h
        observed: (y, x) mm/h
        known: (y, x) bool, where pairs count
        """
        both = np.where(known, np.concatenate([members, observed[None]]), np.float32(np.nan)) * np.float32(self.hours)
        for minutes, leads in self.lengths.items():
            self._running[minutes] = self._running[minutes] + both
            if not (lead + 1) % leads:
                self._add_interval(minutes, lead // leads, self._running[minutes])
                self._running[minutes] = 0.0

    def _add_interval(self, minutes: int, number: int, amounts: np.ndarray) -> None:
        """Add the amounts (member, y, x), mm, of an interval; the last is the observation."""
        kinds = self.kinds[f"probabilities_{minutes}_min"], self.kinds[f"members_{minutes}_min"]
        for box, cells in self.boxes.items():
            means = np.round(box_means(amounts, cells), DIGITS)
            known = np.isfinite(means).all(axis=0)
            add_members(*(sums.of_box(box) for sums in kinds), number, means[:-1], means[-1], known)
        for sums in kinds:
            sums.num_whole_cases[...] = sums.num_cases.max(axis=0)


def intervals(num_leads: int, step_minutes: float) -> dict[int, int]:
    """Return how many lead times each of SUM_MINUTES has; those are left out that the lead times do not hold in whole steps."""
    fitting = (m for m in SUM_MINUTES if m % step_minutes == 0 and m <= num_leads * step_minutes)
    return {minutes: round(minutes / step_minutes) for minutes in fitting}


def fits(side_km: float, spacing_km: tuple[float, float]) -> bool:
    """Return whether boxes of this side have more than one cell; those of 0 are the cells themselves."""
    return not side_km or (np.isfinite(spacing_km).all() and max(box_cells(side_km, spacing_km)) > 1)


def left_out(shape: tuple[int, int], num_leads: int, step_minutes: float, spacing_km: tuple[float, float]) -> list[str]:
    """Return, as a phrase each, which intervals and boxes a grid of this (y, x) shape and these lead times do not have."""
    lengths, step, end = intervals(num_leads, step_minutes), f"{step_minutes:g}", f"{num_leads * step_minutes:g}"
    absent = [
        f"no sums of {minutes} minutes, since lead times go every {step} minutes to {end}"
        for minutes in SUM_MINUTES
        if minutes not in lengths
    ]
    for side in BOXES_KM if lengths else ():
        if side and not np.isfinite(spacing_km).all():
            absent.append(f"no boxes of {side:g} km, since the size of its cells is unknown")
        elif not fits(side, spacing_km):
            absent.append(f"no boxes of {side:g} km, since its cells are as large")
        elif side and any(size < cells for size, cells in zip(shape, box_cells(side, spacing_km), strict=True)):
            absent.append(f"no boxes of {side:g} km, since its grid is smaller")
    return absent


def box_cells(side_km: float, spacing_km: tuple[float, float]) -> tuple[int, int]:
    """Return the (y, x) number of cells of a box with this side, at least 1: the nearest whole numbers."""
    return tuple(max(round(side_km / spacing), 1) for spacing in spacing_km) if side_km else (1, 1)


def box_means(fields: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Average fields (…, y, x) over boxes of (y, x) cells; (…, y', x'), NaN where a cell is missing, cut to whole boxes."""
    if cells == (1, 1):
        return fields
    (height, width), (y, x) = cells, (size // side for size, side in zip(fields.shape[-2:], cells, strict=True))
    whole = fields[..., : y * height, : x * width]
    return whole.reshape(*fields.shape[:-2], y, height, x, width).mean(axis=(-3, -1))
