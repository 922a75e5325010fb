"""Keep cases with their guidance in the cache: it is costly, and the same each time that a case is used.

Cases are drawn once. Their guidance (models/guided/guidance.py) is computed by several processes and kept in one file; if that
is interrupted, it goes on from there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nowcast.dataset.draws import Case, Series
from nowcast.errors import OutputError
from nowcast.motion import Cells
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.device import num_cores
from nowcast.runtime.progress import track

Guide = Callable[[np.ndarray, int, Cells], np.ndarray]  # (time, y, x) mm/h, number of leads, cells -> (lead, rate, y, x) int8
SAVED_EVERY = 50  # cases from one note of how many are done to the next


class Drawn(Protocol):
    """What is needed of Batches."""

    series: Sequence[Series]
    crop: int

    def draw_cases(self, number: int) -> list[Case]: ...
    def past_around(self, case: Case, margin: int) -> tuple[np.ndarray, Cells, Case]: ...


@dataclass(frozen=True)
class KeptCases:
    """Cases, and a file with the guidance of each: (case, lead, rate, y, x) int8."""

    cases: Sequence[Case]
    path: Path

    @cached_property
    def _file(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict:
        return {"cases": self.cases, "path": self.path}  # each worker opens the file for itself

    def guidance(self, number: int) -> np.ndarray:
        """Return the guidance of a case, (lead, rate, y, x) int8."""
        return np.array(self._file[number])


class _Guided(Dataset):
    """Computes the guidance of case n, in a worker process."""

    def __init__(self, batches: Drawn, cases: Sequence[Case], guide: Guide, margin: int, missing: int):
        self.batches, self.cases, self.guide, self.margin, self.missing = batches, cases, guide, margin, missing

    def __getitem__(self, number: int) -> tuple[int, np.ndarray]:
        cv2.setNumThreads(1)
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

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small.
    """
    cases = batches.draw_cases(number)
    leads = batches.series[0].windows.lead_frames
    shape = (number, leads, rates, *shape_of(batches))
    folder = cache_folder() / f"{_digest(batches, cases, version)}-guidance"
    path, done_path = folder / "guidance.npy", folder / "done.json"
    try:
        done = _prepare(path, done_path, shape)
        dataset = _Guided(batches, cases, guide, margin, missing)
        remaining = range(done, number)
        if remaining:
            file = np.lib.format.open_memmap(path, mode="r+")
            loader = DataLoader(dataset, batch_size=None, sampler=remaining, num_workers=num_cores())
            for n, guidance in track(loader, f"guidance of {number:,} {label} cases", unit="case"):
                file[n] = guidance
                if (n + 1) % SAVED_EVERY == 0 or n + 1 == number:
                    file.flush()
                    done_path.write_text(json.dumps(n + 1))
    except OSError as error:
        raise OutputError(f"cannot write the cache {folder.parent}: {error.strerror}; set NOWCAST_CACHE") from error
    return KeptCases(cases, path)


def _prepare(path: Path, done_path: Path, shape: tuple[int, ...]) -> int:
    """Make the file of guidance unless it is there; return the number of cases in it that are done."""
    if done_path.exists():
        return json.loads(done_path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"the guidance of {shape[0]:,} cases needs {needed / 1e9:.1f} GB in {path.parent}, which has {free / 1e9:.1f} GB "
            "free; set NOWCAST_CACHE to a larger disk, or a smaller data.crop or data.kept_cases"
        )
    np.lib.format.open_memmap(path, mode="w+", dtype=np.int8, shape=shape).flush()
    done_path.write_text(json.dumps(0))
    return 0


def _digest(batches: Drawn, cases: Sequence[Case], version: int) -> str:
    """Identify cases and the frames that they are of."""
    digest = hashlib.sha256(f"{version} {batches.crop} {list(cases)}".encode())
    for series in batches.series:
        digest.update(f"{series.frames.folder.name} {series.windows.positions.shape}".encode())
        digest.update(series.windows.positions.tobytes())
    return digest.hexdigest()[:32]
