"""What an evaluation found: sums by forecaster and block, and the tidy rows of scores, differences and intervals."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nowcast.evaluation.examples import Example, ScoredCase
from nowcast.forecasters.baselines import BASELINES
from nowcast.quantity import Quantity
from nowcast.scores import SCORES, Score
from nowcast.scores.bootstrap import quantiles, resample
from nowcast.scores.sums import Additive, Tally

Block = tuple[str, str]  # a record's name and a UTC day
MEAN = "_mean_over_leads"
COLUMN_OF_AXIS = {"lead": "lead_minutes", "threshold": "threshold", "scale": "scale_km", "wavelength": "scale_km"}


@dataclass
class Evaluation:
    """Sums by forecaster and block, `blocks[name][(record, day)]`, all on the same `num_cases` cases.

    What was scored on what is in `about` (provenance.py); `cases` and `examples` are to be looked at.
    """

    lead_minutes: tuple[float, ...]
    thresholds: tuple[float, ...]
    quantity: Quantity
    records: list[str] = field(default_factory=list)
    blocks: dict[str, dict[Block, Tally]] = field(default_factory=dict)
    num_cases: int = 0
    cases: list[ScoredCase] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    num_read: int = 0  # cases that every forecaster was asked for
    silent: dict[str, int] = field(default_factory=dict)  # by forecaster, the cases in which it says nothing at all

    def add(self, name: str, block: Block, case: Tally | Additive) -> None:
        """Take in a case, or many; sums of pairs alone may come without a Tally."""
        case = case if isinstance(case, Tally) else Tally({"pairs": case})
        mine = self.blocks.setdefault(name, {})
        mine[block] = mine[block] + case if block in mine else case

    def merge(self, other: "Evaluation") -> None:
        """Take in the cases that another process scored."""
        for name, blocks in other.blocks.items():
            for block, case in blocks.items():
                self.add(name, block, case)
        self.num_cases += other.num_cases
        self.num_read += other.num_read
        self.silent = {name: self.silent.get(name, 0) + other.silent.get(name, 0) for name in self.silent | other.silent}
        self.records += [name for name in other.records if name not in self.records]
        self.cases += other.cases

    def sort(self) -> None:
        """Blocks in one order, so that the bootstrap draws the same ones however many processes scored them."""
        self.blocks = {name: dict(sorted(blocks.items())) for name, blocks in self.blocks.items()}

    def tally(self, name: str) -> Tally:
        """A forecaster's sums of every kind over all blocks."""
        return sum(self.blocks[name].values())

    def total(self, name: str, kind: str = "pairs") -> Additive:
        """A forecaster's sums of one kind over all blocks; KeyError where it has none, see `having`."""
        return sum(block[kind] for block in self.blocks[name].values())

    def having(self, kind: str) -> list[str]:
        """The forecasters that have sums of a kind: what gives probabilities alone has no pairs."""
        return [name for name, blocks in self.blocks.items() if kind in next(iter(blocks.values()))]

    @property
    def num_blocks(self) -> int:
        return len(next(iter(self.blocks.values())))

    @property
    def baselines(self) -> list[str]:
        """The forecasters that others are compared with, the simplest first."""
        return [name for name in BASELINES if name in self.blocks]

    def rows(self) -> list[dict]:
        """Tidy rows: one for each forecaster, score, lead, threshold and scale (or wavelength), in kilometres.

        Those without a lead (None) are of all leads: of the pooled counts under the score's own name, and their mean as
        `…_mean_over_leads`. `low` and `high` bound the 95 % block-bootstrap interval, NaN with fewer than 5 blocks. Those
        with a baseline's name in `against` hold the difference, the forecaster's score less the baseline's, on the same draws.
        """
        return list(_rows(self))


class _View(NamedTuple):
    """One way to look at a score: by lead, pooled over leads, or the mean over leads."""

    score: Score
    name: str
    by_lead: bool
    function: Callable[[Tally], np.ndarray]


def _views() -> Iterator[_View]:
    for name, score in SCORES.items():
        yield _View(score, name, True, score)
        yield _View(score, name, False, score.pooled)
        yield _View(score, f"{name}{MEAN}", False, score.mean_over_leads)


class _Side(NamedTuple):
    """A forecaster's sums, and pooled ones."""

    total: Tally
    pooled: Tally


def _rows(evaluation: Evaluation) -> Iterator[dict]:
    totals = {name: evaluation.tally(name) for name in evaluation.blocks}
    sides = {name: _Side(total, total.pooled()) for name, total in totals.items()}
    resampled = _resampled(evaluation)
    found = {name: [] for name in sides}
    for number, view in enumerate(_views()):
        having = {name: side for name, side in sides.items() if view.score.kind in side.total}
        values = {name: view.function(side.total) for name, side in having.items()}
        draws = {name: resampled[name, number] for name in having}
        for name in having:
            others = [other for other in _compared_with(evaluation, name) if other in having]
            for against in (None, *(others if view.score.compared else ())):
                value, drawn = values[name], draws[name]
                if against is not None:
                    value, drawn = value - values[against], None if drawn is None else drawn - draws[against]
                facts = {"forecaster": name, "against": against}
                found[name] += _of_view(evaluation, view, sides[name], facts, value, drawn)
    for rows in found.values():
        yield from sorted(rows, key=lambda row: row["against"] is not None)  # stable: a forecaster's own scores first


def _resampled(evaluation: Evaluation) -> dict[tuple[str, int], np.ndarray | None]:
    """Every view of every forecaster's resampled sums, those of one kind at a time: of probabilities they are large."""
    found = {}
    for name, blocks in evaluation.blocks.items():
        for kind in next(iter(blocks.values())):
            drawn = resample(list(blocks.values()), kinds=[kind])
            of_kind = ((number, view) for number, view in enumerate(_views()) if view.score.kind == kind)
            found |= {(name, number): None if drawn is None else view.function(drawn) for number, view in of_kind}
    return found


def _compared_with(evaluation: Evaluation, name: str) -> list[str]:
    """The baselines a forecaster is compared with; one of them with those before it, as each pair is told once."""
    order = evaluation.baselines
    return order[: order.index(name)] if name in order else order


def _of_view(
    evaluation: Evaluation, view: _View, side: _Side, facts: Mapping, value: np.ndarray, drawn: np.ndarray | None
) -> Iterator[dict]:
    counted = (side.total if view.by_lead else side.pooled)[view.score.kind]
    axes = view.score.axes
    coordinates = {"lead": evaluation.lead_minutes if view.by_lead else (None,), **counted.coordinates}
    shape = tuple(len(coordinates[axis]) for axis in axes)
    low, high = quantiles(drawn) if drawn is not None else (np.full(shape, np.nan),) * 2
    value, low, high = (np.reshape(part, shape) for part in (value, low, high))
    columns = {COLUMN_OF_AXIS[axis]: axis for axis in axes}
    for at in np.ndindex(shape):
        index = dict(zip(axes, at, strict=True))
        where = {c: coordinates[columns[c]][index[columns[c]]] if c in columns else None for c in _WHERE}
        yield {
            **facts,
            **where,
            "score": view.name,
            "value": float(value[at]),
            "low": float(low[at]),
            "high": float(high[at]),
            "num_cases": _count(counted, "num_cases", index, evaluation.num_cases if not view.by_lead else None),
            "num_pairs": _count(counted, "num_pairs", index, None),
        }


_WHERE = ("lead_minutes", "threshold", "scale_km")


def _count(counted: Additive, name: str, index: Mapping[str, int], all_cases: int | None) -> int:
    """How many cases or pairs a value rests on; pairs of pixels are in all cases, other kinds count their own."""
    if all_cases is not None and name == "num_cases" and "num_whole_cases" not in counted.axes():
        return all_cases
    axes = counted.axes()[name]
    return int(getattr(counted, name)[tuple(index[axis] for axis in axes)])


def nearest_threshold(evaluation: Evaluation) -> int:
    """The index of the threshold nearest to 1 on a logarithmic scale."""
    return int(np.argmin(np.abs(np.log(np.maximum(evaluation.thresholds, 1e-9)))))
