"""Find the windows of a record: which of its frames make complete cases.

A window is `input_frames` past and `lead_frames` future frames, each exactly one `time_step` after the one before. It is
held as positions into the sorted times of the record, so no field is read to find it. The reference frame of a window is
its last past frame. Every frame of a record is a candidate for the reference frame of one window.
"""

from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from nowcast.errors import UsageError, counted

# The counts of dropped candidates, and how they are described to the user.
_REASONS = {
    "num_gap": "gap or end of file",
    "num_strided": "skipped by data.stride",
    "num_missing": "too much missing",
    "num_dry": "too dry",
    "num_purged": "at the edge of a split, or near another one",
}


@dataclass(frozen=True)
class Account:
    """Number of candidates, of windows kept, and of candidates dropped for each reason.

    `num_candidates` always equals `num_windows` plus all numbers dropped. After `find_windows` the candidates are all
    frames of the record. After a split they are the windows whose first frame lies in the split, and `num_frames` is the
    number of frames in the split. Accounts of several records can be added.
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
        """Describe the account: one line with the number kept, then one for each reason that dropped a candidate."""
        dropped = [(getattr(self, name), words) for name, words in _REASONS.items()]
        kept = f"{counted(self.num_windows, 'window')} in {counted(self.num_frames, 'frame')}"
        return [kept] + [f"  {counted(number, 'start time')} dropped: {words}" for number, words in dropped if number]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one record in time order.

    positions: (window, input_frames + lead_frames) int64, into the times of the record
    """

    positions: np.ndarray
    input_frames: int
    lead_frames: int
    time_step: np.timedelta64
    account: Account

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, chosen: np.ndarray) -> "Windows":
        """Return only the windows where the mask `chosen` (window,) is true, with the account unchanged."""
        return replace(self, positions=self.positions[chosen])

    def only(self, complete: np.ndarray) -> "Windows":
        """Return only the windows where the mask `complete` (window,) is true; the account counts the others as gaps."""
        kept, number = self.account, int((~complete).sum())
        account = replace(kept, num_windows=kept.num_windows - number, num_gap=kept.num_gap + number)
        return replace(self, positions=self.positions[complete], account=account)

    def none(self) -> "Windows":
        """Return the same without any window."""
        return replace(self, positions=self.positions[:0], account=Account(0, 0, 0))

    @property
    def reference_positions(self) -> np.ndarray:
        """Positions (window,) of the reference frames, whose times are the forecast_reference_times."""
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
    absent: np.ndarray | None = None,
    max_absent: int = 0,
) -> Windows:
    """Find all windows of a record, and count the candidates that were dropped.

        times: (time,) datetime64, sorted and unique
        time_step: may be a multiple of the record's own time step: a window then takes every second (third, …) frame
        missing: (time,) fraction of missing cells of each frame
        wet: (time,) fraction of wet cells among the known ones of each frame, NaN where no cell is known
        absent: (time,) mask of frames that are in no file; a window may have `max_absent` of them, but not as reference frame

    Candidates are dropped in this order: those without all their frames, all but every `stride`-th of the rest, those with
    a frame whose missing fraction is above `max_missing` or unknown, and those whose mean wet fraction is below `min_wet`.
    Raises UsageError (exit 2) for numbers of frames, a stride or a time step that no window can have.
    """
    _check_lengths(input_frames, lead_frames, stride)
    missing, wet = _as_fractions(missing, times, "missing"), _as_fractions(wet, times, "wet")
    complete = _complete_windows(times, range(1 - input_frames, lead_frames + 1), time_step)
    is_absent = np.zeros(len(times), bool) if absent is None else absent
    complete = complete[is_enough(complete, input_frames - 1, is_absent, max_absent)]
    missing = None if missing is None else np.where(is_absent, 0, missing)  # absent frames count for `max_absent` only
    strided = complete[::stride]
    observed = _without_missing(strided, missing, max_missing)
    positions = _without_dry(observed, wet, min_wet)
    kept = [len(times) - int(is_absent.sum()), len(complete), len(strided), len(observed), len(positions)]
    gap, skipped, unknown, dry = (-np.diff(kept)).tolist()
    account = Account(kept[0], kept[0], kept[-1], num_gap=gap, num_strided=skipped, num_missing=unknown, num_dry=dry)
    return Windows(positions, input_frames, lead_frames, time_step, account)


def is_enough(positions: np.ndarray, newest: int, absent: np.ndarray, max_absent: int) -> np.ndarray:
    """Return a mask (window,) of windows with at most `max_absent` absent frames and a present newest past frame.

    positions: (window, frame), of which column `newest` is the newest past frame
    absent: (time,) mask
    """
    is_absent = absent[positions]
    return ~is_absent[:, newest] & (is_absent.sum(axis=1) <= max_absent)


def _without_missing(positions: np.ndarray, missing: np.ndarray | None, max_missing: float) -> np.ndarray:
    """Return the windows (window, frame) that have no frame whose missing fraction (time,) is above the limit, or unknown."""
    if missing is None:
        return positions
    complete_enough = missing <= max_missing  # False for NaN
    return positions[complete_enough[positions].all(axis=1)]


def _without_dry(positions: np.ndarray, wet: np.ndarray | None, min_wet: float) -> np.ndarray:
    """Return the windows (window, frame) whose mean wet fraction, from `wet` (time,), is at least `min_wet`.

    Frames with an unknown wet fraction are left out of the mean; a window of such frames alone counts as dry.
    """
    if wet is None or min_wet <= 0:
        return positions
    return positions[_mean_of_known(wet[positions]) >= min_wet]


def find_references(times: np.ndarray, *, input_frames: int, time_step: np.timedelta64) -> np.ndarray:
    """Find every complete past of a record; no future frame is needed.

        times: (time,) datetime64, sorted and unique
        returns: (reference, input_frames) int64 positions into `times`, in time order: the last row is the newest

    The newest frame of the record is a reference frame only if its own past is complete.

    Raises UsageError (exit 2) for a number of frames or a time step that no past can have.
    """
    _check_lengths(input_frames, 0, 1)
    return _complete_windows(times, range(1 - input_frames, 1), time_step)


def _check_lengths(input_frames: int, lead_frames: int, stride: int) -> None:
    limits = (("input_frames", input_frames, 1), ("lead_frames", lead_frames, 0), ("stride", stride, 1))
    for name, value, least in limits:
        if value < least:
            raise UsageError(f"{name} is {value}: at least {least} is needed")


def _as_fractions(values: np.ndarray | None, times: np.ndarray, name: str) -> np.ndarray | None:
    """Return one float64 for each time, or None for None."""
    if values is None:
        return None
    values = np.asarray(values, np.float64)
    assert values.shape == np.shape(times), f"{name} has shape {values.shape} for {np.shape(times)} times"
    return values


def _complete_windows(times: np.ndarray, offsets: range, time_step: np.timedelta64) -> np.ndarray:
    """Return the positions (window, offset) of the windows that have a frame at every offset.

    Offsets are in time steps from the reference frame.
    """
    times = np.asarray(times)
    assert np.all(times[1:] > times[:-1]), "times are not sorted and unique"
    if np.isnat(time_step):  # a record of one frame has no time step: its only windows are of one frame
        return np.arange(len(times) if len(offsets) == 1 else 0).reshape(-1, len(offsets))
    if time_step <= np.timedelta64(0, "s"):
        raise UsageError(f"time_step is {time_step}: it must be positive")
    positions = np.empty((len(offsets), len(times)), np.int64)
    complete = np.ones(len(times), bool)
    for row, offset in zip(positions, offsets, strict=True):
        valid_times = times + offset * time_step
        row[:] = np.searchsorted(times, valid_times).clip(max=len(times) - 1)
        complete &= times[row] == valid_times
    return np.ascontiguousarray(positions[:, complete].T)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over axis 1 without NaN; 0 where all are NaN."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1).clip(min=1)
