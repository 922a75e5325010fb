"""Fingerprint: the statistics of an archive by which `nowcast plan` chooses a config (choices.py).

Time and memory are bounded for any archive: only a random sample of its frames is read, always the same one, and motion is
measured between a few pairs of frames with much rain. The result does not depend on the speed of the machine.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from nowcast.dataset.packed import WET_RATE
from nowcast.errors import DataError, counted
from nowcast.motion import motion
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.raster import absent_between
from nowcast.quantity import Quantity
from nowcast.runtime.progress import track

log = logging.getLogger(__name__)
MOST_FRAMES, FEWEST_FRAMES = 96, 12  # frames read; the fewest even of a large grid
MOST_CELLS = 60_000_000  # of all frames read together
PAIRS = 8  # pairs of successive frames whose motion is measured
SIDE = 768  # cells; on a larger grid the motion is measured in the wettest square of this side
RAINY = 0.01  # fraction of wet pixels from which on a frame, and its day, counts as rainy
LEAST_RAIN = (50, 1e-3)  # wet cells, and their share of all; the motion of a pair with less rain is not measured
ROUND = (
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    30.0,
    50.0,
    100.0,
)  # mm/h; usual thresholds, which are edges of bins, so that counts are exact
RATES = np.unique([0.0, *np.geomspace(WET_RATE, 1000.0, 401), *ROUND, np.inf])  # mm/h, edges of the bins of rain rate
SPEEDS = np.linspace(0.0, 128.0, 2561)  # cells per time step, edges of the bins of speed


@dataclass(frozen=True, eq=False)
class RecordSummary:
    """One record of the archive.

    times: (time,) of all its frames
    absent: (absent,) times among them of frames that are in no file; empty before `with_absent`
    shape: (y, x) cells
    spacing_km: (y, x) km
    wet: share of wet pixels among the known ones that were read; NaN where none were read
    """

    name: str
    times: np.ndarray
    time_step: np.timedelta64
    shape: tuple[int, int]
    spacing_km: tuple[float, float]
    wet: float
    absent: np.ndarray = field(default_factory=lambda: np.zeros(0, "datetime64[s]"))

    def with_absent(self, most: int) -> "RecordSummary":
        """Return the record with absent frames inserted into gaps of up to `most` frames."""
        absent = absent_between(self.times, self.time_step, most)
        return replace(self, times=np.sort(np.concatenate([self.times, absent])), absent=absent)

    @property
    def minutes(self) -> float:
        """Return the time step in minutes."""
        return float(self.time_step / np.timedelta64(60, "s"))


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Statistics of the whole archive, from the frames that were read.

    missing, most_missing: share of a frame that is missing, on average and at most
    counts: (bin of RATES,) known pixels
    supported: (bin of RATES,) the same after a 3 × 3 median filter, which removes rates that the neighbours do not reach
    maximum: the highest rate, mm/h
    num_pairs: pairs of frames whose motion was measured
    motion_median, motion_95: median and 95 % quantile of the speed, weighted by rain, cells per time step; NaN without pairs
    rainy_frames: share of the frames that are rainy
    num_rainy_days: estimated number of days (UTC) with a rainy frame
    """

    series: tuple[RecordSummary, ...]
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
    rainy_frames: float
    num_rainy_days: int

    @property
    def wet(self) -> float:
        """Return the share of wet pixels among the known ones."""
        return self.share_from(WET_RATE)

    def share_from(self, rate: float) -> float:
        """Return the share of known pixels with at least that rate (mm/h); exact for the rates of ROUND."""
        first = np.searchsorted(RATES, rate * (1 + 1e-9), side="right") - 1
        return float(self.counts[first:].sum() / max(self.counts.sum(), 1))

    def highest_credible(self, share: float) -> float:
        """Return the rate (mm/h) that this fraction of the wet pixels reaches after median filtering; 0 without rain."""
        wet = self.supported[1:]
        beyond = np.cumsum(wet[::-1])[::-1]
        reached = np.flatnonzero(beyond > share * wet.sum())
        return float(RATES[1 + reached[-1]]) if wet.sum() else 0.0

    @property
    def num_frames(self) -> int:
        """Return the number of frames of all records."""
        return sum(len(record.times) for record in self.series)

    @property
    def num_days(self) -> int:
        """Return the number of days (UTC) with at least one frame."""
        return _num_days(self.series)


def _num_days(series: Sequence[RecordSummary] | Sequence[Record]) -> int:
    return len(np.unique(np.concatenate([record.times.astype("datetime64[D]") for record in series])))


def take_fingerprint(records: Sequence[Record], *, seed: int = 0) -> Fingerprint:
    """Read a sample of the records' frames and compute their statistics.

    Raises DataError (exit 3) where all pixels read are missing or damaged.
    """
    rng = np.random.default_rng(seed)
    damage = [Damage(record) for record in records]
    drawn = [_Frame(damage[number], number, position) for number, position in _sample(records, rng)]
    cells = np.cumsum([int(np.prod(frame.record.grid.shape)) for frame in drawn])
    done = drawn[: max(FEWEST_FRAMES, int(np.searchsorted(cells, MOST_CELLS, side="right")) + 1)]
    # in their order in the files: chunks that hold several frames are then decompressed once
    for frame in track(sorted(done, key=lambda frame: (frame.number, frame.position)), "reading a sample", unit="frame"):
        frame.read()
    for line in (line for record_damage in damage for line in record_damage.lines()):
        log.warning("%s", line)
    if not any(frame.counts.sum() for frame in done):
        names = ", ".join(record.name for record in records[:3])
        raise DataError(
            f"{names}: all values are missing in the {counted(len(done), 'frame')} read; expected some observed rain"
        )
    speeds, num_pairs = _speeds(done, rng)
    return Fingerprint(
        series=tuple(_summarise(record, [f for f in done if f.number == n]) for n, record in enumerate(records)),
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
        rainy_frames=float(np.mean([frame.is_rainy for frame in done])),
        num_rainy_days=_num_rainy_days(done, _num_days(records)),
    )


class _Frame:
    """One frame of the sample and its histograms."""

    def __init__(self, damage: Damage, number: int, position: int):
        self.damage, self.record, self.number, self.position = damage, damage.record, number, position

    def read(self) -> None:
        """Read the field, and keep only its statistics."""
        field = self.damage.read(self.position)
        known = np.isfinite(field)
        filled = np.where(known, field, 0).astype(np.float32)
        self.missing = 1 - float(known.mean())
        self.counts = np.histogram(field[known].clip(min=0), RATES)[0]
        self.supported = np.histogram(cv2.medianBlur(filled, 3)[known].clip(min=0), RATES)[0]
        self.maximum = float(field[known].max(initial=0))
        self.rain = float((1 - np.exp(-filled.clip(min=0))).sum())

    @property
    def is_rainy(self) -> bool:
        """Return whether enough of the known pixels are wet."""
        return bool(self.counts[1:].sum() >= RAINY * max(self.counts.sum(), 1))

    @property
    def day(self) -> np.datetime64:
        """Return the day (UTC) of the frame."""
        return self.record.times[self.position].astype("datetime64[D]")

    @property
    def has_predecessor(self) -> bool:
        """Return whether the record has a frame one time step earlier."""
        times, at = self.record.times, self.position
        return at > 0 and bool(times[at] - times[at - 1] == self.record.time_step)

    def with_predecessor(self) -> np.ndarray | None:
        """Read this frame and the one before it; None where the latter is damaged or all missing.

        returns: (2, y, x) mm/h
        """
        try:
            pair = self.record.read([self.position - 1, self.position])
        except DataError:
            return None
        return pair if np.isfinite(pair[0]).any() else None


def _sample(records: Sequence[Record], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw (record, position) of frames: one in each of equal stretches of the archive, returned in random order."""
    ends = np.cumsum([len(record) for record in records])
    edges = np.linspace(0, ends[-1], min(MOST_FRAMES, int(ends[-1])) + 1)
    chosen = np.unique(rng.uniform(edges[:-1], edges[1:]).astype(int).clip(max=int(ends[-1]) - 1))
    numbers = np.searchsorted(ends, chosen, side="right")
    frames = [(int(n), int(at - (ends[n] - len(records[n])))) for n, at in zip(numbers, chosen, strict=True)]
    return [frames[place] for place in rng.permutation(len(frames))]


def _num_rainy_days(frames: Sequence[_Frame], num_days: int) -> int:
    """Estimate how many of `num_days` days are rainy, from the days of the frames read."""
    rainy, read = {frame.day for frame in frames if frame.is_rainy}, {frame.day for frame in frames}
    return round(num_days * len(rainy) / len(read))


def _summarise(record: Record, frames: Sequence[_Frame]) -> RecordSummary:
    counts = np.sum([frame.counts for frame in frames], axis=0) if frames else np.zeros(1)
    wet = float(counts[1:].sum() / counts.sum()) if counts.sum() else np.nan
    return RecordSummary(record.name, record.times, record.time_step, record.grid.shape, record.grid.spacing_km, wet)


def _speeds(frames: Sequence[_Frame], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Measure the motion between pairs of frames, those with more rain more likely.

    returns: (bin of SPEEDS,) rain that moves at that speed, as the sum of 1 - exp(-rate / 1 mm/h) over wet pixels; and the
    number of pairs
    """
    usable = [frame for frame in frames if frame.has_predecessor and frame.rain > 0]
    histogram, num_pairs = np.zeros(len(SPEEDS) - 1), 0
    if not usable:
        return histogram, 0
    rain = np.array([frame.rain for frame in usable])
    for place in rng.choice(len(usable), min(PAIRS, len(usable)), replace=False, p=rain / rain.sum()):
        pair = usable[place].with_predecessor()
        if pair is None:
            continue
        pair = _wettest_square(pair)
        rate = np.nan_to_num(pair[1])
        weights = np.where(rate >= WET_RATE, 1 - np.exp(-rate), 0)
        if weights.sum() < max(LEAST_RAIN[0], LEAST_RAIN[1] * weights.size):
            continue
        speed = np.hypot(*motion(pair)).clip(max=SPEEDS[-1])
        histogram += np.histogram(speed, SPEEDS, weights=weights)[0]
        num_pairs += 1
    return histogram, num_pairs


def _wettest_square(pair: np.ndarray) -> np.ndarray:
    """Cut out the square of SIDE cells with most rain; squares overlap by half.

    pair: (2, y, x) mm/h
    """
    corners = [range(0, max(size - SIDE, 0) + 1, SIDE // 2) for size in pair.shape[1:]]
    squares = [pair[:, top : top + SIDE, left : left + SIDE] for top in corners[0] for left in corners[1]]
    return max(squares, key=lambda square: float(np.minimum(np.nan_to_num(square[1]), 1).sum()))


def _quantile(counts: np.ndarray, share: float) -> float:
    """Return a quantile of the speeds, in cells per time step; NaN without any.

    counts: (bin of SPEEDS,)
    """
    if not counts.sum():
        return np.nan
    return float(SPEEDS[1 + np.searchsorted(np.cumsum(counts), share * counts.sum())])
