"""Results of an evaluation: sums by forecaster and block, and the tidy rows of scores, differences and intervals."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nowcast.evaluation.examples import Example, ScoredCase
from nowcast.forecasters.baselines import BASELINES
from nowcast.quantity import Quantity
from nowcast.scores import SCORES, Score
from nowcast.scores.bootstrap import quantiles, resample
from nowcast.scores.sums import Additive, Tally

Block = tuple[str, str]  # the name of a record and a UTC day: the unit that the bootstrap resamples
_UNITS_OF_RATES = ("mm h-1", "mm2 h-2")
MEAN_SUFFIX = "_mean_over_leads"  # of a score's name, where the scores of all lead times are averaged
COLUMN_OF_AXIS = {"lead": "lead_minutes", "threshold": "threshold", "scale": "scale_km", "wavelength": "scale_km",
                  "box": "scale_km", "amount": "threshold"}  # fmt: skip


@dataclass
class Evaluation:
    """The sums of several forecasters over the same cases, by block, and what they were scored on."""

    lead_minutes: tuple[float, ...]
    thresholds: tuple[float, ...]
    quantity: Quantity
    records: list[str] = field(default_factory=list)  # names of the records that have cases
    blocks: dict[str, dict[Block, Tally]] = field(default_factory=dict)  # sums, by forecaster and block
    num_cases: int = 0  # cases scored
    cases: list[ScoredCase] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)  # a few cases with their fields, for the report
    about: dict[str, Any] = field(default_factory=dict)  # descriptions of records and forecasters, see provenance.py
    num_read: int = 0  # cases that were forecast, scored or not
    not_scored: dict[str, int] = field(default_factory=dict)  # by record: number of cases that were left out
    all_missing: dict[str, int] = field(default_factory=dict)  # by forecaster: number of cases with only missing values
    num_observed: int = 0  # pixels that observations and baselines know, of all lead times, in the cases that were scored
    unknown: dict[str, int] = field(default_factory=dict)  # by forecaster: number of these that it does not forecast
    inputs: list[Path] = field(default_factory=list)  # files of records and forecasters, which no report may overwrite

    def add(self, name: str, block: Block, sums: Tally | Additive) -> None:
        """Add the sums of one or more cases to a block of a forecaster; sums other than a Tally are of the kind "pairs"."""
        tally = sums if isinstance(sums, Tally) else Tally({"pairs": sums})
        blocks = self.blocks.setdefault(name, {})
        blocks[block] = blocks[block] + tally if block in blocks else tally

    def merge(self, other: "Evaluation") -> None:
        """Add the cases of another evaluation, which another process or an earlier command scored."""
        for name, blocks in other.blocks.items():
            for block, tally in blocks.items():
                self.add(name, block, tally)
        self.num_cases += other.num_cases
        self.num_read += other.num_read
        self.num_observed += other.num_observed
        self.not_scored = dict(Counter(self.not_scored) + Counter(other.not_scored))
        self.all_missing = dict(Counter(self.all_missing) + Counter(other.all_missing))
        self.unknown = dict(Counter(self.unknown) + Counter(other.unknown))
        self.records += [name for name in other.records if name not in self.records]
        self.cases += other.cases
        self.inputs += [path for path in other.inputs if path not in self.inputs]

    def sort(self) -> None:
        """Sort the blocks, so that the bootstrap draws the same ones for any number of processes."""
        self.blocks = {name: dict(sorted(blocks.items())) for name, blocks in self.blocks.items()}

    def tally(self, name: str) -> Tally:
        """Return a forecaster's sums of every kind over all blocks."""
        return sum(self.blocks[name].values())

    def total(self, name: str, kind: str = "pairs") -> Additive:
        """Return a forecaster's sums of one kind over all blocks. Raises KeyError if it has none, see `forecasters_with`."""
        return sum(block[kind] for block in self.blocks[name].values())

    def forecasters_with(self, kind: str) -> list[str]:
        """Return the names of the forecasters that have sums of this kind; one that gives only probabilities has no pairs."""
        return [name for name, blocks in self.blocks.items() if kind in next(iter(blocks.values()))]

    @property
    def num_blocks(self) -> int:
        """Number of blocks: days of a record with cases."""
        return len(next(iter(self.blocks.values())))

    @property
    def baselines(self) -> list[str]:
        """Return the names of the baselines that were scored, the simplest first."""
        return [name for name in BASELINES if name in self.blocks]

    @property
    def references(self) -> list[str]:
        """Return the names of all forecasters that others are compared with: the baselines, then all others but the first."""
        return self.baselines + [name for name in self.blocks if name not in self.baselines][1:]

    def compared_with(self, name: str) -> list[str]:
        """Return the forecasters that a forecaster is compared with, so that each pair is compared once.

        For a baseline: simpler baselines; for any other: all baselines, and the other forecasters after it.
        """
        order, others = self.baselines, [other for other in self.blocks if other not in self.baselines]
        return order[: order.index(name)] if name in order else order + others[others.index(name) + 1 :]

    def rows(self) -> list[dict]:
        """Return tidy rows: one for each forecaster, score, lead time, threshold and scale (or wavelength).

        Rows with `lead_minutes` None are for all lead times: the score of the pooled sums under the score's own name, and the
        mean of the scores of all lead times as `…_mean_over_leads`. `low` and `high` are the ends of the 95 % block-bootstrap
        interval, NaN with fewer than 5 blocks. Rows with another's name in `against` hold the difference: the forecaster's
        score minus the other's, with a paired interval; see `compared_with`.
        """
        return list(_rows(self))


class _View(NamedTuple):
    """A score by lead time, pooled over lead times, or averaged over lead times, with its name in the rows."""

    score: Score
    name: str
    by_lead: bool
    function: Callable[[Tally], np.ndarray]


def _views() -> Iterator[_View]:
    for name, score in SCORES.items():
        yield _View(score, name, True, score)
        yield _View(score, name, False, score.pooled)
        yield _View(score, f"{name}{MEAN_SUFFIX}", False, score.mean_over_leads)


class _Totals(NamedTuple):
    """A forecaster's sums over all blocks, by lead time and pooled over lead times."""

    by_lead: Tally
    pooled: Tally


def _rows(evaluation: Evaluation) -> Iterator[dict]:
    tallies = {name: evaluation.tally(name) for name in evaluation.blocks}
    totals = {name: _Totals(tally, tally.pooled()) for name, tally in tallies.items()}
    resamples = _resampled_scores(evaluation)
    rows = {name: [] for name in totals}
    for number, view in enumerate(_views()):
        names = [name for name in totals if view.score.kind in totals[name].by_lead]
        values = {name: view.function(totals[name].by_lead) for name in names}
        for name in names:
            others = [other for other in evaluation.compared_with(name) if other in names]
            for against in (None, *(others if view.score.compared else ())):
                value, resampled = values[name], resamples[name, number]
                if against is not None:
                    value = value - values[against]
                    resampled = None if resampled is None else resampled - resamples[against, number]
                labels = {"forecaster": name, "against": against}
                rows[name] += _rows_of_view(evaluation, view, totals[name], labels, value, resampled)
    for own in rows.values():
        yield from sorted(own, key=lambda row: row["against"] is not None)  # stable: scores first, then differences


def _resampled_scores(evaluation: Evaluation) -> dict[tuple[str, int], np.ndarray | None]:
    """Return the scores of all resamples by forecaster and number of the view; None with too few blocks.

    Resampled one kind of sums at a time, because those of probabilities are large.
    """
    scores = {}
    for name, blocks in evaluation.blocks.items():
        for kind in next(iter(blocks.values())):
            sums = resample(list(blocks.values()), kinds=[kind])
            views = ((number, view) for number, view in enumerate(_views()) if view.score.kind == kind)
            scores |= {(name, number): None if sums is None else view.function(sums) for number, view in views}
    return scores


def _rows_of_view(
    evaluation: Evaluation, view: _View, totals: _Totals, labels: Mapping, value: np.ndarray, resampled: np.ndarray | None
) -> Iterator[dict]:
    """Yield a row for each element of a score or difference; `resampled` has a leading axis of resamples, or is None."""
    sums = (totals.by_lead if view.by_lead else totals.pooled)[view.score.kind]
    axes = view.score.axes
    coordinates = {"lead": evaluation.lead_minutes} | sums.coordinates | ({} if view.by_lead else {"lead": (None,)})
    shape = tuple(len(coordinates[axis]) for axis in axes)
    low, high = quantiles(resampled) if resampled is not None else (np.full(shape, np.nan),) * 2
    columns = [np.reshape(values, -1).tolist() for values in (value, low, high)]
    num_cases = _counts(sums, "num_cases", axes, shape)
    if not view.by_lead and "num_whole_cases" not in sums.axes():  # pairs of pixels are in all cases, others count their own
        num_cases = [evaluation.num_cases] * len(num_cases)
    columns += [num_cases, _counts(sums, "num_pairs", axes, shape)]
    own_columns, nowhere = [COLUMN_OF_AXIS[axis] for axis in axes], dict.fromkeys(_COORDINATE_COLUMNS)
    for place, *numbers in zip(product(*(coordinates[axis] for axis in axes)), *columns, strict=True):
        where = nowhere | dict(zip(own_columns, place, strict=True))
        yield labels | where | {"score": view.name} | dict(zip(_NUMBER_COLUMNS, numbers, strict=True))


_COORDINATE_COLUMNS = ("lead_minutes", "threshold", "scale_km")
_NUMBER_COLUMNS = ("value", "low", "high", "num_cases", "num_pairs")


def _counts(sums: Additive, name: str, axes: Sequence[str], shape: tuple[int, ...]) -> list[int]:
    """Return the numbers of cases or pairs behind all values of a score with these axes, the last axis the fastest."""
    positions = dict(zip(axes, np.indices(shape), strict=True))
    array = getattr(sums, name)[tuple(positions[axis] for axis in sums.axes()[name])]
    return np.broadcast_to(array, shape).astype(int).ravel().tolist()


def units_of(score: Score, quantity: Quantity) -> str:
    """Return the units of a score of a quantity, as CF writes them: SCORES states those of rain, others have no unit."""
    return score.units if quantity.is_rain or score.units not in _UNITS_OF_RATES else "1"


def nearest_threshold(evaluation: Evaluation) -> int:
    """Return the index of the threshold nearest to 1 (mm/h for rain) on a logarithmic scale."""
    return int(np.argmin(np.abs(np.log(np.maximum(evaluation.thresholds, 1e-9)))))
