"""Open the records that a run trains on, and find their windows of each split.

Windows are found from the times alone. Fields are read only if the config asks for it (`max_missing`, `min_wet`), and when
training begins.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.config.schema import Data, Splits
from nowcast.dataset.batches import Series
from nowcast.dataset.packed import PackedFrames, pack
from nowcast.dataset.splits import SPLITS, split_by_days, split_by_events, split_by_records, split_windows
from nowcast.dataset.windows import Account, Windows, find_windows
from nowcast.errors import DataError, NotEnoughFrames, UsageError, counted
from nowcast.netcdf.files import expand
from nowcast.netcdf.index import open_with_index
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.record import Record
from nowcast.quantity import Quantity
from nowcast.runtime.progress import track

Packer = Callable[[Record], PackedFrames]


def packed(record: Record) -> PackedFrames:
    """Return the packed frames of a record; show progress if they are not in the cache and must be packed now."""
    return pack(record, progress=lambda positions: track(positions, f"packing {record.name}", unit="frame"))


@dataclass(frozen=True)
class Archive:
    """The records of a run and their windows. `windows[split]` has one entry per record, in the order of `records`."""

    records: tuple[Record, ...]
    windows: Mapping[str, tuple[Windows, ...]]
    account: Account  # of all records before the split; with splits by records, windows near another split count as purged

    @property
    def quantity(self) -> Quantity:
        return self.records[0].quantity

    def num_windows(self, split: str) -> int:
        return sum(len(windows) for windows in self.windows[split])

    def time_steps(self) -> list[int]:
        """Return the different time steps of the training windows, in seconds, ascending."""
        windows = (w for w in self.windows["training"] if len(w))
        return sorted({int(w.time_step / np.timedelta64(1, "s")) for w in windows})

    def spans(self, split: str) -> list[list[str]]:
        """Return [record name, first time, last time] of each record with windows in the split, for the checkpoint."""
        used = ((r, r.times[w.positions]) for r, w in zip(self.records, self.windows[split], strict=True) if len(w))
        return [[record.name, f"{times.min()}Z", f"{times.max()}Z"] for record, times in used]

    def stretches(self, split: str) -> list[list[str]]:
        """Return [record name, first time, last time] of each period without a gap that is covered by windows of the split."""
        periods = []
        for record, windows in zip(self.records, self.windows[split], strict=True):
            times = record.times[np.unique(windows.positions)]
            begins = np.flatnonzero(np.diff(times) > windows.time_step) + 1
            periods += [[record.name, f"{part[0]}Z", f"{part[-1]}Z"] for part in np.split(times, begins) if len(part)]
        return periods

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the shapes of the grids and of the times of all frames of all windows."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for record, windows in zip(self.records, self.windows[split], strict=True):
                if len(windows):
                    digest.update(f"{split} {record.grid.shape} {windows.positions.shape}\n".encode())
                    digest.update(record.times[windows.positions].astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def grids_digest(self) -> str:
        """SHA-256 (hex) of the coordinates and projections of the grids of all windows."""
        digest = hashlib.sha256()
        for record, *windows in zip(self.records, *self.windows.values(), strict=True):
            if any(map(len, windows)):
                digest.update(("\n".join(map(str, record.grid.key)) + "\n\n").encode())
        return digest.hexdigest()

    def series(self, split: str, packer: Packer = packed) -> list[Series]:
        """Return the packed frames and windows of each record with windows in the split.

        Raises DataError (exit 3) if no cell of any of these frames is known: the loss would be 0.
        """
        pairs = zip(self.records, self.windows[split], strict=True)
        found = [Series(record.name, packer(record), windows, record.times) for record, windows in pairs if len(windows)]
        if found and not any((each.frames.missing[each.windows.positions] < 1).any() for each in found):
            names = ", ".join(each.name for each in found[:3]) + (", …" if len(found) > 3 else "")
            raise DataError(
                f"{names}: every cell of the frames of all {split} windows is missing.\n"
                "Expected observations: see `nowcast inspect`; is the variable the right one, or dry stored as missing?"
            )
        return found


def open_archive(data: Data, *, packer: Packer = packed) -> Archive:
    """Open the records of `[data]`, find their windows and split them.

    Raises UsageError (exit 2) without records or for a pattern of `[data.splits]` that matches none. Raises DataError (exit 3)
    for records that cannot be read, hold different quantities or have no training window, NotEnoughFrames (75) where none is
    complete; the message contains the account of the windows.
    """
    if not data.records:
        raise UsageError("no records to train on: give --data RECORD or data.records in the config")
    records_by_split = {split: open_split(paths, data) for split, paths in _paths_by_split(data).items() if paths}
    records = [record.with_absent(data.max_absent) for opened in records_by_split.values() for record in opened]
    check_alike(records)
    windows = [_windows_of(record, data, packer) for record in records]
    assigned = [split for split, opened in records_by_split.items() for _ in opened]
    divided = split_records(records, windows, assigned, data.splits)
    counted = [w for of_split in divided.values() for w in of_split] if data.splits.by == "records" else windows
    account = sum((w.account for w in counted[1:]), counted[0].account)
    archive = Archive(tuple(records), divided, account)
    if not archive.num_windows("training"):
        _check_time_step(records, data)
        kind = NotEnoughFrames if account.num_gap == account.num_candidates else DataError
        raise kind(f"{_no_window(data)}.\n{'; '.join(line.strip() for line in account.lines())}.")
    return archive


def open_split(paths: Sequence[str | Path], data: Data) -> list[Record]:
    """Open the records in these files or folders with the variable, units and the Z-R relation that `[data]` gives."""
    variable, units = (None if value == "auto" else value for value in (data.variable, data.units))
    named = data.splits.by != "records"  # where each file of a folder has been named
    return open_with_index(paths, variable=variable, units=units, zr_a=data.zr_a, zr_b=data.zr_b, forecasts_too=named)


def _paths_by_split(data: Data) -> dict[str, list]:
    """Return the paths of each split if the config assigns records to splits by name, else all paths under "".

    Raises UsageError (exit 2) for a pattern that matches no file, as its records would be used for training, and for a file
    that is listed for validation and for a test, as the test would score frames that chose the weights.
    """
    if data.splits.by != "records":
        return {"": list(data.records)}
    found = [path for pattern in data.records for path in expand(pattern)]
    patterns = {"validation": data.splits.validation_records, "test": data.splits.test_records}
    for split, pattern in ((split, pattern) for split, named in patterns.items() for pattern in named):
        if not any(_is_named(path, pattern) for path in found):
            files = counted(len(found), "file")
            raise UsageError(
                f"data.splits.{split}_records: {pattern!r} matches none of the {files}, such as {found[0]}\n"
                "give files, folders or patterns as the records are written: a * stands for any part of a path"
            )
    paths: dict[str, list] = {"training": [], "validation": [], "test": []}
    for path in found:
        matching = [split for split, named in patterns.items() if any(_is_named(path, pattern) for pattern in named)]
        if len(matching) > 1:
            raise UsageError(
                f"data.splits: {path} is in validation_records and in test_records\ngive it in one of them: "
                "validation chooses the weights, so a test on the same frames would look too good"
            )
        paths[matching[0] if matching else "training"].append(path)
    return paths


def _is_named(path: Path, pattern: str) -> bool:
    """Return whether a pattern matches a file or one of its parent folders."""
    wanted = str(Path(os.path.expanduser(pattern)))
    return any(fnmatch(str(each), wanted) for each in (path, *path.parents))


def check_alike(records: Sequence[Record]) -> None:
    """Raise DataError (exit 3) unless all records hold the same quantity."""
    for record in records[1:]:
        if record.quantity != records[0].quantity:
            raise DataError(
                f"{record.name} holds {record.quantity} ({record.units}) but {records[0].name} holds "
                f"{records[0].quantity} ({records[0].units}): train on one quantity"
            )


def _windows_of(record: Record, data: Data, packer: Packer) -> Windows:
    needs_fields = data.max_missing < 1 or data.min_wet > 0
    frames = packer(record) if needs_fields else None
    step = record.time_step if data.time_step == "auto" else _time_step(data)
    return find_windows(
        record.times,
        input_frames=data.input_frames,
        lead_frames=data.lead_frames,
        time_step=step,
        stride=data.stride,
        missing=frames.missing if frames else None,
        wet=frames.wet if frames else None,
        max_missing=data.max_missing,
        min_wet=data.min_wet,
        absent=record.is_absent,
        max_absent=data.max_absent,
    )


def split_records(
    records: Sequence[Record], windows: Sequence[Windows], assigned: Sequence[str], splits: Splits
) -> dict[str, tuple[Windows, ...]]:
    """Divide the windows of all records as `[data.splits]` says.

    `windows` has one entry per record, and so has each split that is returned. `assigned` is the split of each record; it
    is used only if `splits.by` is "records".
    """
    times = [record.times for record in records]
    if splits.by == "records":
        return split_by_records(windows, times, assigned=assigned, places=_places(records))
    if splits.by == "events":
        return split_by_events(windows, times, fractions=splits.fractions)
    if splits.by == "days":
        cycle = {"every_days": splits.every_days, "days": splits.days}
        divided = [split_by_days(w, t, **cycle) for w, t in zip(windows, times, strict=True)]
        return {name: tuple(splits_of_record[name] for splits_of_record in divided) for name in SPLITS}
    how = {"fractions": splits.fractions} if splits.by == "fractions" else {"spans": _spans(splits)}
    divided = [split_windows(w, t, **how) for w, t in zip(windows, times, strict=True)]
    return {name: tuple(splits_of_record[name] for splits_of_record in divided) for name in SPLITS}


def _places(records: Sequence[Record]) -> list[int]:
    """Return a number for each record, equal where records lie on the same grid and so may hold the same frames."""
    numbers: list[int] = []
    for index, record in enumerate(records):
        before = zip(numbers, records, strict=False)
        numbers.append(next((number for number, other in before if _may_share_frames(record, other)), index))
    return numbers


def _may_share_frames(record: Record, other: Record) -> bool:
    # independent sequences have artificial times: equal times in two files do not mean equal frames
    has_sequences = any(layout.sequence_length for each in (record, other) for layout in each.layouts)
    return not has_sequences and difference(record.grid, other.grid) is None


def _spans(splits: Splits) -> dict[str, Iterable]:
    return {name: getattr(splits, name) for name in SPLITS}


def _time_step(data: Data) -> np.timedelta64:
    return np.timedelta64(round(data.time_step * 60), "s")


def _check_time_step(records: Sequence[Record], data: Data) -> None:
    """Raise DataError (exit 3) if `data.time_step` is a multiple of no record's own: longer records would not help."""
    own = [record.time_step for record in records if not np.isnat(record.time_step)]
    if data.time_step == "auto" or not own or any(_time_step(data) % step == np.timedelta64(0, "s") for step in own):
        return
    listed = ", ".join(f"{step / np.timedelta64(60, 's'):g}" for step in sorted(set(own)))
    raise DataError(
        f"data.time_step = {data.time_step:g} minutes fits no record: their frames are {listed} minutes apart.\n"
        "Give a multiple of that, or data.time_step = 'auto'."
    )


def _no_window(data: Data) -> str:
    return (
        f"no complete training window of {data.input_frames} + {data.lead_frames} frames one time step apart; "
        "use longer records, fewer frames or other splits"
    )
