"""Which stretches of a record make complete cases: positions only, no field is read here.

A window is `input_frames` past and `lead_frames` future frames, each exactly one `time_step` from the next, held as
positions into the record's sorted times. Every frame is a candidate for the reference frame (the last past frame) of
one window, and the account says what became of each candidate. Splits never share a frame.
"""

from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from nowcast.errors import UsageError

_EXACT = np.timedelta64(0, "s")

_REASONS = {
    "num_gap": "cross a gap or an end of the record",
    "num_strided": "skipped by the stride",
    "num_missing": "with too much missing",
    "num_dry": "too dry",
    "num_purged": "purged at the edge of a split",
}


@dataclass(frozen=True)
class Account:
    """What became of every candidate: `num_candidates` is `num_windows` plus every number dropped, exactly.

    After `plan` the candidates are all frames of the record; after `split_windows` they are the windows whose first
    frame lies in the split, and `num_frames` counts the frames in it. Accounts of several records add.
    """

    num_frames: int
    num_candidates: int
    num_windows: int
    num_gap: int = 0
    num_strided: int = 0
    num_missing: int = 0
    num_dry: int = 0
    num_purged: int = 0

    def __post_init__(self):
        assert self.num_candidates == self.num_windows + sum(getattr(self, name) for name in _REASONS)

    def __add__(self, other: "Account") -> "Account":
        return Account(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def lines(self) -> list[str]:
        """One line with the number kept, then one for each reason that dropped any."""
        dropped = [(getattr(self, name), words) for name, words in _REASONS.items()]
        kept = f"{self.num_windows:,} windows of {self.num_candidates:,} candidates in {self.num_frames:,} frames"
        return [kept] + [f"  {number:,} {words}" for number, words in dropped if number]


@dataclass(frozen=True, eq=False)
class Windows:
    """Cases of one record: `positions` int64 (window, input_frames + lead_frames) into its times, in time order."""

    positions: np.ndarray
    input_frames: int
    lead_frames: int
    time_step: np.timedelta64
    account: Account

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, chosen: np.ndarray) -> "Windows":
        """Only the `chosen` windows, a mask (window,); the account stays that of the plan."""
        return replace(self, positions=self.positions[chosen])

    def none(self) -> "Windows":
        """The same record with no window."""
        return replace(self, positions=self.positions[:0], account=Account(0, 0, 0))

    @property
    def reference_positions(self) -> np.ndarray:
        """(window,) the last past frame of each: its time is the forecast_reference_time."""
        return self.positions[:, self.input_frames - 1]


def find_windows(
    times: np.ndarray,
    *,
    input_frames: int,
    lead_frames: int,
    time_step: np.timedelta64,
    stride: int = 1,
    missing: np.ndarray | None = None,
    wet: np.ndarray | None = None,
    max_missing: float = 1.0,
    min_wet: float = 0.0,
    tolerance: np.timedelta64 = _EXACT,
) -> Windows:
    """All windows of a record with sorted, unique `times` (datetime64), and the account of the others.

    `time_step` may be a multiple of the record's own: windows then pick every so many frames. Of the complete windows
    every `stride`-th is kept, in frames of the record; then those go that hold a frame with more than `max_missing`
    missing, or whose mean wet fraction is under `min_wet`. `missing` and `wet` are fractions per frame, (time,); a wet
    fraction of NaN (nothing known) is left out of the mean, and a window with no other counts as dry. `tolerance`
    (under half a time step) lets each frame be off its exact distance from the reference frame.

    Raises UsageError for numbers that no window can have.
    """
    _check(input_frames, lead_frames, stride)
    missing, wet = _per_frame(missing, times, "missing"), _per_frame(wet, times, "wet")
    complete = _complete(times, range(1 - input_frames, lead_frames + 1), time_step, tolerance)
    positions = complete[::stride]
    num_strided = len(complete) - len(positions)

    num_missing = num_dry = 0
    if missing is not None:
        known = missing <= max_missing  # NaN is unknown, hence not known to be good
        keep = known[positions].all(axis=1)
        num_missing, positions = int((~keep).sum()), positions[keep]
    if wet is not None and min_wet > 0:
        keep = _mean_known(wet[positions]) >= min_wet
        num_dry, positions = int((~keep).sum()), positions[keep]

    account = Account(
        num_frames=len(times),
        num_candidates=len(times),
        num_windows=len(positions),
        num_gap=len(times) - len(complete),
        num_strided=num_strided,
        num_missing=num_missing,
        num_dry=num_dry,
    )
    return Windows(positions, input_frames, lead_frames, time_step, account)


def find_references(
    times: np.ndarray, *, input_frames: int, time_step: np.timedelta64, tolerance: np.timedelta64 = _EXACT
) -> np.ndarray:
    """Every complete past: int64 (reference, input_frames), in time order, so the newest is the last row.

    No future frame is needed. The newest frame of the record is a reference only if its own past is complete.
    """
    _check(input_frames, 0, 1)
    return _complete(times, range(1 - input_frames, 1), time_step, tolerance)


def _check(input_frames: int, lead_frames: int, stride: int) -> None:
    limits = (("input_frames", input_frames, 1), ("lead_frames", lead_frames, 0), ("stride", stride, 1))
    for name, value, least in limits:
        if value < least:
            raise UsageError(f"{name} is {value}: at least {least} is needed")


def _per_frame(values: np.ndarray | None, times: np.ndarray, name: str) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values, np.float64)
    assert values.shape == np.shape(times), f"{name} has shape {values.shape} for {np.shape(times)} times"
    return values


def _complete(times: np.ndarray, offsets: range, time_step, tolerance) -> np.ndarray:
    """Positions (window, offset) of every reference frame that has a frame at each offset, in time steps, from it."""
    times = np.asarray(times)
    assert np.all(times[1:] > times[:-1]), "times are not sorted and unique"
    if np.isnat(time_step):  # a record of one frame has no step: its only windows are of one frame
        return np.arange(len(times) if len(offsets) == 1 else 0).reshape(-1, len(offsets))
    _check_step(time_step, tolerance)
    positions = np.empty((len(offsets), len(times)), np.int64)
    complete = np.ones(len(times), bool)
    for row, offset in zip(positions, offsets, strict=True):
        row[:], near = _nearest(times, times + offset * time_step, tolerance)
        complete &= near
    return np.ascontiguousarray(positions[:, complete].T)


def _check_step(time_step: np.timedelta64, tolerance: np.timedelta64) -> None:
    if time_step <= np.timedelta64(0):
        raise UsageError(f"time_step is {time_step}: it must be positive")
    if tolerance < np.timedelta64(0) or 2 * tolerance >= time_step:  # else one frame could stand for two
        raise UsageError(f"the time tolerance is {tolerance}: it must be under half the time step of {time_step}")


def _nearest(times: np.ndarray, wanted: np.ndarray, tolerance: np.timedelta64) -> tuple[np.ndarray, np.ndarray]:
    """The position nearest to each wanted time, and whether it is near enough."""
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    if not tolerance:
        return after, times[after] == wanted
    before = (after - 1).clip(min=0)
    found = np.where(wanted - times[before] <= abs(times[after] - wanted), before, after)
    return found, abs(times[found] - wanted) <= tolerance


def _mean_known(values: np.ndarray) -> np.ndarray:
    """The mean over axis 1 of what is not NaN; 0 where nothing is known."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1).clip(min=1)
