"""Keep cases with their guidance in the cache, because guidance is expensive and does not change.

Cases are drawn once. Their guidance (models/guided/guidance.py) is computed by several processes and kept in one file; if that
is interrupted, it goes on from there. Guidance that is damaged on the disk is found by its checksums and computed anew.
"""

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nowcast.dataset.draws import Box, Case, Series
from nowcast.errors import LoadingError, OutputError, counted
from nowcast.motion import Cells
from nowcast.runtime.cache import (
    MOST_BYTES,
    cache_folder,
    identity,
    is_damage,
    mark_used,
    put,
    remove_damaged,
    remove_unused,
    was_compared,
)
from nowcast.runtime.device import num_cores
from nowcast.runtime.outputs import remove_stale, replacing, size, temporary_path
from nowcast.runtime.progress import track
from nowcast.runtime.threads import one_thread

Guide = Callable[[np.ndarray, int, Cells], np.ndarray]  # (time, y, x) mm/h, number of leads, cells -> (lead, rate, y, x) int8
FILE, DONE = "guidance.npy", "done.json"  # guidance of all cases; number of completed cases, in the format of older versions
CHECKSUMS = "checksums.json"  # CRC-32 of the guidance of each case; null if an older version computed it
SAVED_EVERY = 50  # cases after which progress is saved


class Drawn(Protocol):
    """The attributes of Batches that this module needs."""

    series: Sequence[Series]
    crop: int

    def draw_cases(self, number: int) -> list[Case]: ...
    def past_around(self, case: Case, margin: int) -> tuple[np.ndarray, Cells, Box]: ...


@dataclass(frozen=True)
class KeptCases:
    """Cases, and a file with the guidance of each: (case, lead, rate, y, x) int8.

    side: of their crops, in cells; 0: whole grids
    placed: adds a correction to the guidance of a part of the grid, given its top row and left column; None: nothing is added
    """

    cases: Sequence[Case]
    path: Path
    side: int
    placed: Callable[[np.ndarray, int, int], np.ndarray] | None = None

    @cached_property
    def _file(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict:
        state = ("cases", "path", "side", "placed")
        return {name: getattr(self, name) for name in state}  # each worker opens the file for itself

    def guidance(self, number: int, corner: tuple[int, int] | None = None, side: int = 0) -> np.ndarray:
        """Return the guidance of a case, (lead, rate, y, x) int8, or of a part of it of `side` cells.

        corner: top row and left column of the part on the grid
        """
        first = self.cases[number][2:]
        top, left = corner or first
        rows, columns = (slice(start - begin, start - begin + side if side else None)
                         for start, begin in zip((top, left), first, strict=True))  # fmt: skip
        guidance = np.array(self._file[number, :, :, rows, columns])
        return self.placed(guidance, top, left) if self.placed else guidance


class _Guided(Dataset):
    """Computes the guidance of case n, in a worker process."""

    def __init__(self, batches: Drawn, cases: Sequence[Case], guide: Guide, margin: int, missing: int):
        self.batches, self.cases, self.guide, self.margin, self.missing = batches, cases, guide, margin, missing

    def __getitem__(self, number: int) -> tuple[int, np.ndarray]:
        cv2.setNumThreads(1)  # in a worker that is spawned
        torch.set_num_threads(1)
        case = self.cases[number]
        past, crop, _ = self.batches.past_around(case, self.margin)
        guidance = self.guide(past, self.batches.series[case[0]].windows.lead_frames, crop)
        y, x = shape_of(self.batches)
        out = np.full((*guidance.shape[:2], y, x), self.missing, np.int8)
        out[:, :, : guidance.shape[2], : guidance.shape[3]] = guidance
        return number, out


def shape_of(batches: Drawn) -> tuple[int, int]:
    """Return the (y, x) cells of a case."""
    return (batches.crop, batches.crop) if batches.crop else batches.series[0].frames.shape[1:]


def keep_cases(
    batches: Drawn, number: int, guide: Guide, *, rates: int, margin: int, missing: int, version: int, label: str
) -> KeptCases:
    """Draw `number` cases, compute the guidance of those that the cache does not hold, and return all.

    guide: computes the guidance of one case
    rates: number of rates of the guidance
    margin: cells around a crop from which its guidance is computed
    missing: the code of missing cells
    version: of what `guide` computes; the cache of another version is not used
    label: of the split, for the progress

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small, and LoadingError (exit 75) if a
    process that computes guidance dies.
    """
    cases, leads = batches.draw_cases(number), batches.series[0].windows.lead_frames
    folder = cache_folder() / f"{_digest(batches, cases, version)}-guidance-{leads}"
    try:
        done = _prepare(folder, (number, leads, rates, *shape_of(batches)))
        mark_used(folder)
        if len(done) < number:
            dataset = _Guided(batches, cases, guide, margin, missing)
            _compute(dataset, done, folder, f"guidance of {counted(number, label + ' case')}")
    except OSError as error:
        raise OutputError(f"cannot write the cache {folder.parent}: {error.strerror}; set NOWCAST_CACHE") from error
    return KeptCases(cases, folder / FILE, batches.crop)


def _compute(dataset: _Guided, done: Sequence[int | None], folder: Path, what: str) -> None:
    """Compute the guidance of the remaining cases in several processes, and write it to the file.

    done: the checksum of each case that is done, in the order of the cases; None where it is not known
    """
    done, remaining = list(done), range(len(done), len(dataset.cases))
    file = np.lib.format.open_memmap(folder / FILE, mode="r+")
    try:
        # before workers are forked: OpenCV's threads would not exist in them
        with one_thread(cv2.getNumThreads, cv2.setNumThreads):
            loader = DataLoader(dataset, batch_size=None, sampler=remaining, num_workers=num_cores())
            for number, guidance in track(loader, what, unit="case"):
                file[number] = guidance
                done.append(zlib.crc32(file[number]))
                if (number + 1) % SAVED_EVERY == 0 or number == remaining[-1]:
                    file.flush()
                    for name, content in ((CHECKSUMS, done), (DONE, len(done))):  # checksums before the count
                        with replacing(folder / name) as temporary:
                            temporary.write_text(json.dumps(content))
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):  # an error in our own code in a worker
            raise
        reason = str(error).splitlines()[0].rstrip(". ")
        raise LoadingError(
            f"a process that computes guidance has died ({reason}; too little memory?): completed cases are kept"
        ) from None


def _prepare(folder: Path, shape: tuple[int, ...]) -> list[int | None]:
    """Create the folder and file of guidance unless an undamaged one exists; return as `_read_done`.

    All blocks of the file are reserved, because writing to a memory map on a full disk kills the process without a message.
    """
    while (found := identity(folder / DONE)) and not _is_whole(folder, shape):
        remove_damaged(folder, DONE, found)  # not if another process has replaced it meanwhile; that one is compared next
    if not (folder / DONE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
        remove_unused()
        needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder.parent).free
        if needed > free:
            raise OutputError(
                f"the guidance of {shape[0]:,} cases needs {size(needed)} in {folder.parent}, which has "
                f"{size(free)} free.\nSet NOWCAST_CACHE to a larger disk, or smaller data.kept_crop or data.kept_cases."
            )
        temporary = temporary_path(folder)
        temporary.mkdir()
        try:
            np.lib.format.open_memmap(temporary / FILE, mode="w+", dtype=np.int8, shape=shape).flush()
            _reserve(temporary / FILE)
            (temporary / DONE).write_text(json.dumps(0))
            put(temporary, folder, last=DONE)  # fails if another process has made it meanwhile
        except OSError:
            if not (folder / DONE).is_file():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return _read_done(folder)


def _read_done(folder: Path) -> list[int | None]:
    """Return the checksum of each case that is done, in the order of the cases; None where it is not known.

    Raises OSError, and ValueError or TypeError for files of another form.
    """
    number, checksums = json.loads((folder / DONE).read_text()), []
    if (folder / CHECKSUMS).is_file():
        checksums = json.loads((folder / CHECKSUMS).read_text())[:number]
    return checksums + [None] * (number - len(checksums))


def _is_whole(folder: Path, shape: tuple[int, ...]) -> bool:
    """Return whether the guidance of the cases that are done has their checksums; of many cases, evenly spaced ones."""
    try:
        done, file = _read_done(folder), np.load(folder / FILE, mmap_mode="r")
        if (file.shape, file.dtype) != (shape, np.int8) or len(done) > len(file):
            return False
        if was_compared():
            return True
        every = max(1, math.ceil(file[: len(done)].nbytes / MOST_BYTES))
        known = (number for number in range(0, len(done), every) if done[number] is not None)
        return all(zlib.crc32(file[number]) == done[number] for number in known)
    # no JSON, JSON of another form, no array, or a file shorter than its header says
    except (OSError, EOFError, LookupError, ValueError, TypeError) as error:
        if not is_damage(error):
            raise
        return False


def _reserve(path: Path) -> None:
    """Reserve the blocks of a file on the disk, where the system can."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _digest(batches: Drawn, cases: Sequence[Case], version: int) -> str:
    """Identify cases and the frames that they are of."""
    digest = hashlib.sha256(f"{version} {batches.crop} {list(cases)}".encode())
    for series in batches.series:
        digest.update(f"{series.frames.folder.name} {series.windows.positions.shape}".encode())
        digest.update(series.windows.positions.tobytes())
    return digest.hexdigest()[:32]
