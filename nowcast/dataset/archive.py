"""What a run trains on: config and records -> series of windows per split, and the account of what was dropped.

Times decide the windows; fields are read only where the config asks for it (`max_missing`, `min_wet`) or training begins.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.config.schema import Data, Splits
from nowcast.dataset.batches import Series
from nowcast.dataset.packed import PackedFrames, pack
from nowcast.dataset.splits import SPLITS, split_by_events, split_windows
from nowcast.dataset.windows import Account, Windows, find_windows
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.files import expand
from nowcast.netcdf.index import FileIndex
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.runtime.progress import track

Packer = Callable[[Record], PackedFrames]


def packed(record: Record) -> PackedFrames:
    """The packed frames of a record, with progress where they have to be packed now."""
    return pack(record, progress=lambda positions: track(positions, f"packing {record.name}", unit="frame"))


@dataclass(frozen=True)
class Archive:
    """Records and their windows: `windows[split]` has one entry per record, in the order of `records`."""

    records: tuple[Record, ...]
    windows: Mapping[str, tuple[Windows, ...]]
    account: Account  # of all records, before the split

    @property
    def quantity(self) -> str:
        return self.records[0].quantity

    def num_windows(self, split: str) -> int:
        return sum(len(windows) for windows in self.windows[split])

    def time_steps(self) -> list[int]:
        """The different time steps in use, in seconds, ascending."""
        windows = (w for w in self.windows["training"] if len(w))
        return sorted({int(w.time_step / np.timedelta64(1, "s")) for w in windows})

    def spans(self, split: str) -> list[list[str]]:
        """[record, first time, last time] of the frames that the split's windows use."""
        used = ((r, r.times[w.positions]) for r, w in zip(self.records, self.windows[split], strict=True) if len(w))
        return [[record.name, f"{times.min()}Z", f"{times.max()}Z"] for record, times in used]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what batches are drawn from: the grids, and the frames of every window by their times."""
        found = hashlib.sha256()
        for split in SPLITS:
            for record, windows in zip(self.records, self.windows[split], strict=True):
                if len(windows):
                    found.update(f"{split} {record.grid.shape} {windows.positions.shape}\n".encode())
                    found.update(record.times[windows.positions].astype("<i8").tobytes())
        return found.hexdigest()

    def series(self, split: str, packer: Packer = packed) -> list[Series]:
        """The split's windows with their packed frames."""
        pairs = zip(self.records, self.windows[split], strict=True)
        return [Series(record.name, packer(record), windows) for record, windows in pairs if len(windows)]


def open_archive(data: Data, *, packer: Packer = packed) -> Archive:
    """Open the records of `[data]` and plan their windows.

    Raises UsageError without records, DataError for records that cannot be read, do not fit together or hold no
    complete window; the account says why.
    """
    if not data.records:
        raise UsageError("no records to train on: give --data RECORD or data.records in the config")
    parts = [(split, open_split(paths, data)) for split, paths in _paths_by_split(data).items() if paths]
    records = [record for _, opened in parts for record in opened]
    check_alike(records)
    planned = [_plan_record(record, data, packer) for record in records]
    account = sum((windows.account for windows in planned[1:]), planned[0].account)
    assigned = [split for split, opened in parts for _ in opened]
    windows = _split(records, planned, assigned, data.splits)
    archive = Archive(tuple(records), windows, account)
    if not archive.num_windows("training"):
        raise DataError("\n".join([_no_window(data), *account.lines()]))
    return archive


def open_split(paths: Sequence[str | Path], data: Data) -> list[Record]:
    variable = None if data.variable == "auto" else data.variable
    return open_records(paths, variable=variable, zr_a=data.zr_a, zr_b=data.zr_b, index=FileIndex(variable))


def _paths_by_split(data: Data) -> dict[str, list]:
    if data.splits.by != "records":
        return {"": list(data.records)}
    paths: dict[str, list] = {"training": [], "validation": [], "test": []}
    patterns = {"validation": data.splits.validation_records, "test": data.splits.test_records}
    for path in (path for given in data.records for path in expand(given)):
        matching = [split for split, wanted in patterns.items() if any(fnmatch(str(path), p) for p in wanted)]
        paths[matching[0] if matching else "training"].append(path)
    return paths


def check_alike(records: Sequence[Record]) -> None:
    """DataError unless all records hold the same quantity."""
    for record in records[1:]:
        if record.quantity != records[0].quantity:
            raise DataError(
                f"{record.name} holds {record.quantity} ({record.units}) but {records[0].name} holds "
                f"{records[0].quantity} ({records[0].units}): train on one quantity"
            )


def _plan_record(record: Record, data: Data, packer: Packer) -> Windows:
    needs_fields = data.max_missing < 1 or data.min_wet > 0
    frames = packer(record) if needs_fields else None
    step = record.time_step if data.time_step == "auto" else np.timedelta64(round(data.time_step * 60), "s")
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
    )


def _split(
    records: Sequence[Record], planned: Sequence[Windows], assigned: Sequence[str], splits: Splits
) -> dict[str, tuple[Windows, ...]]:
    times = [record.times for record in records]
    if splits.by == "records":
        return {name: tuple(w if s == name else w.none() for w, s in zip(planned, assigned, strict=True)) for name in SPLITS}
    if splits.by == "events":
        return split_by_events(planned, times, fractions=splits.fractions)
    chosen = {"fractions": splits.fractions} if splits.by == "fractions" else {"spans": _spans(splits)}
    parts = [split_windows(windows, t, **chosen) for windows, t in zip(planned, times, strict=True)]
    return {name: tuple(part[name] for part in parts) for name in SPLITS}


def _spans(splits: Splits) -> dict[str, Iterable]:
    return {name: getattr(splits, name) for name in SPLITS}


def _no_window(data: Data) -> str:
    return (
        f"no complete training window of {data.input_frames} + {data.lead_frames} frames one time step apart; "
        "use longer records, fewer frames or other splits"
    )
