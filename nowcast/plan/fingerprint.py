"""What an archive is like: the facts by which `nowcast plan` chooses a recipe (choices.py).

Time and memory are bounded for any archive: a seeded sample of its frames is read, and motion is measured between those of
them that have most rain. (planning.py is something else: it finds the windows of a config that is there already.)
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nowcast.dataset.packed import WET
from nowcast.errors import DataError
from nowcast.motion import motion
from nowcast.netcdf.record import Damage, Record
from nowcast.quantity import Quantity
from nowcast.runtime.progress import track

log = logging.getLogger(__name__)
FRAMES, FEWEST = 96, 12  # frames read, and read even where they are large
CELLS = 60_000_000  # of all frames read
PAIRS = 8  # of successive frames whose motion is measured
SIDE = 768  # cells: of a larger grid the wettest square gives the motion
SECONDS = 12.0  # for reading, and again for motion: files can be slow to read
LEAST_RAIN = (50, 1e-3)  # cells, and share of them: less in a pair is specks, whose motion says nothing
ROUND = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)  # mm/h: rates that people ask for, counted exactly
RATES = np.unique([0.0, *np.geomspace(WET, 1000.0, 401), *ROUND, np.inf])  # mm/h: edges of the bins of rates
SPEEDS = np.linspace(0.0, 128.0, 2561)  # cells per frame: edges of the bins of motion


@dataclass(frozen=True, eq=False)
class SeriesFacts:
    """One record of the archive: all its times, and the wet share of the known pixels that were read (NaN: none were)."""

    name: str
    times: np.ndarray
    time_step: np.timedelta64
    shape: tuple[int, int]
    spacing_km: tuple[float, float]
    wet: float

    @property
    def minutes(self) -> float:
        return float(self.time_step / np.timedelta64(60, "s"))


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The archive as a whole. Shares are of the known pixels read; motion is in cells per frame, weighed by rain.

    `counts` are the pixels in each bin of RATES, `supported` those of the frames' 3 × 3 medians, in which a rate counts only
    where its neighbours have it too. `motion_median` and `motion_95` are NaN where there was too little rain to follow.
    """

    series: tuple[SeriesFacts, ...]
    quantity: Quantity
    num_frames_read: int
    missing: float
    most_missing: float
    counts: np.ndarray
    supported: np.ndarray
    maximum: float
    num_pairs: int
    motion_median: float
    motion_95: float

    @property
    def wet(self) -> float:
        return self.share_from(WET)

    def share_from(self, rate: float) -> float:
        """The share of the known pixels with at least that rate: exact for those of ROUND, else of its bin on."""
        first = np.searchsorted(RATES, rate * (1 + 1e-9), side="right") - 1
        return float(self.counts[first:].sum() / max(self.counts.sum(), 1))

    def highest_credible(self, share: float) -> float:
        """The rate that this share of the wet pixels reaches together with their neighbours; 0 without rain."""
        wet = self.supported[1:]
        beyond = np.cumsum(wet[::-1])[::-1]
        reached = np.flatnonzero(beyond > share * wet.sum())
        return float(RATES[1 + reached[-1]]) if wet.sum() else 0.0

    @property
    def num_frames(self) -> int:
        return sum(len(part.times) for part in self.series)

    @property
    def num_days(self) -> int:
        days = [np.unique(part.times.astype("datetime64[D]")) for part in self.series]
        return len(np.unique(np.concatenate(days)))


def take_fingerprint(records: Sequence[Record], *, seed: int = 0) -> Fingerprint:
    """Sample the records' frames. Raises DataError (exit 3) where all that was read is missing or damaged."""
    rng = np.random.default_rng(seed)
    damage = [Damage(record) for record in records]
    read = [_Frame(damage[number], number, position) for number, position in _sample(records, rng)]
    done: list[_Frame] = []
    began, cells = time.monotonic(), 0
    for frame in track(read, "reading a sample", unit="frame"):
        frame.look()
        done.append(frame)
        cells += int(np.prod(frame.record.grid.shape))
        if len(done) >= FEWEST and (cells > CELLS or time.monotonic() - began > SECONDS):
            break
    for line in (line for part in damage for line in part.lines()):
        log.warning("%s", line)
    if not any(frame.counts.sum() for frame in done):
        names = ", ".join(record.name for record in records[:3])
        raise DataError(f"{names}: nothing but missing in the {len(done)} frames read; right would be some observed rain")
    speeds, num_pairs = _speeds(done, rng)
    return Fingerprint(
        series=tuple(_series_facts(record, [f for f in done if f.number == n]) for n, record in enumerate(records)),
        quantity=records[0].quantity,
        num_frames_read=len(done),
        missing=float(np.mean([frame.missing for frame in done])),
        most_missing=max(frame.missing for frame in done),
        counts=np.sum([frame.counts for frame in done], axis=0),
        supported=np.sum([frame.supported for frame in done], axis=0),
        maximum=max(frame.maximum for frame in done),
        num_pairs=num_pairs,
        motion_median=_quantile(speeds, 0.5),
        motion_95=_quantile(speeds, 0.95),
    )


class _Frame:
    """One frame of the sample: what it adds to the histograms."""

    def __init__(self, damage: Damage, number: int, position: int):
        self.damage, self.record, self.number, self.position = damage, damage.record, number, position

    def look(self) -> None:
        """Read it and keep its figures."""
        field = self.damage.read(self.position)
        known = np.isfinite(field)
        filled = np.where(known, field, 0).astype(np.float32)
        self.missing = 1 - float(known.mean())
        self.counts = np.histogram(field[known].clip(min=0), RATES)[0]
        self.supported = np.histogram(cv2.medianBlur(filled, 3)[known].clip(min=0), RATES)[0]
        self.maximum = float(field[known].max(initial=0))
        self.rain = float((1 - np.exp(-filled.clip(min=0))).sum())

    @property
    def has_predecessor(self) -> bool:
        times, at = self.record.times, self.position
        return at > 0 and bool(times[at] - times[at - 1] == self.record.time_step)

    def with_predecessor(self) -> np.ndarray | None:
        """(2, y, x) mm/h; None where the one before is damaged or missing."""
        try:
            pair = self.record.read([self.position - 1, self.position])
        except DataError:
            return None
        return pair if np.isfinite(pair[0]).any() else None


def _sample(records: Sequence[Record], rng: np.random.Generator) -> list[tuple[int, int]]:
    """(record, position) of frames spread over the whole archive, one at random in each stretch, in random order."""
    ends = np.cumsum([len(record) for record in records])
    edges = np.linspace(0, ends[-1], min(FRAMES, int(ends[-1])) + 1)
    chosen = np.unique(rng.uniform(edges[:-1], edges[1:]).astype(int).clip(max=int(ends[-1]) - 1))
    numbers = np.searchsorted(ends, chosen, side="right")
    found = [(int(n), int(at - (ends[n] - len(records[n])))) for n, at in zip(numbers, chosen, strict=True)]
    return [found[place] for place in rng.permutation(len(found))]


def _series_facts(record: Record, frames: Sequence[_Frame]) -> SeriesFacts:
    counts = np.sum([frame.counts for frame in frames], axis=0) if frames else np.zeros(1)
    wet = float(counts[1:].sum() / counts.sum()) if counts.sum() else np.nan
    return SeriesFacts(record.name, record.times, record.time_step, record.grid.shape, record.grid.spacing_km, wet)


def _speeds(frames: Sequence[_Frame], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """How much rain (1 - exp(-r / 1 mm/h), wet pixels) moves at each of SPEEDS; and from how many pairs of frames."""
    usable = [frame for frame in frames if frame.has_predecessor and frame.rain > 0]
    found, num_pairs, began = np.zeros(len(SPEEDS) - 1), 0, time.monotonic()
    if not usable:
        return found, 0
    rain = np.array([frame.rain for frame in usable])
    for place in rng.choice(len(usable), min(PAIRS, len(usable)), replace=False, p=rain / rain.sum()):
        if num_pairs and time.monotonic() - began > SECONDS:
            break
        pair = usable[place].with_predecessor()
        if pair is None:
            continue
        pair = _wettest_square(pair)
        rate = np.nan_to_num(pair[1])
        weights = np.where(rate >= WET, 1 - np.exp(-rate), 0)
        if weights.sum() < max(LEAST_RAIN[0], LEAST_RAIN[1] * weights.size):
            continue
        speed = np.hypot(*motion(pair)).clip(max=SPEEDS[-1])
        found += np.histogram(speed, SPEEDS, weights=weights)[0]
        num_pairs += 1
    return found, num_pairs


def _wettest_square(pair: np.ndarray) -> np.ndarray:
    """Of (2, y, x) the square of SIDE cells with most rain, on a lattice of half of it."""
    corners = [range(0, max(size - SIDE, 0) + 1, SIDE // 2) for size in pair.shape[1:]]
    squares = [pair[:, top : top + SIDE, left : left + SIDE] for top in corners[0] for left in corners[1]]
    return max(squares, key=lambda square: float(np.minimum(np.nan_to_num(square[1]), 1).sum()))


def _quantile(counts: np.ndarray, share: float) -> float:
    """Of the speeds counted in the bins of SPEEDS; NaN where there are none."""
    if not counts.sum():
        return np.nan
    return float(SPEEDS[1 + np.searchsorted(np.cumsum(counts), share * counts.sum())])
