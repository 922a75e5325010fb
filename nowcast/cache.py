"""A record's frames decoded once into a memory map, with the per-frame facts that planning and sampling need.

Decompressing NetCDF costs more than a training step on a small crop, so each record is packed once as float16 mm/h (NaN
missing; relative error under 0.05 %) under `$NOWCAST_CACHE` (default: the user's cache folder), named by the record's
digest; a changed file has another digest. Only training reads it: forecasts and scores read the NetCDF files.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.atomic import remove_stale, temporary_path
from nowcast.errors import DataError, OutputError
from nowcast.netcdf import Record

BLOCK = 16  # cells: the grain at which crops are weighted by rain
WET = 0.1  # mm/h: the dry threshold
LARGEST = 65504.0  # float16
NAMED_TIMES = 4  # of damaged frames, in a message


@dataclass(frozen=True)
class PackedFrames:
    """Frames of one record on disk; opened anew (not copied) in every process that unpickles it.

    `missing` and `wet` are fractions per frame (wet: of the known pixels, NaN where none is known), float64 (time,);
    `rain_blocks` float32 (time, y / BLOCK, x / BLOCK) is the mean of 1 - exp(-r / 1 mm/h), missing counted as dry.
    `damaged` are lines about frames that could not be read and count as missing, one for each file with such frames.
    """

    folder: Path
    shape: tuple[int, int, int]
    missing: np.ndarray
    wet: np.ndarray
    damaged: tuple[str, ...] = ()

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    def frames(self) -> np.ndarray:
        """float16 (time, y, x) mm/h, NaN missing, row 0 northernmost; a read-only memory map."""
        return self._map("frames.npy")

    def rain_blocks(self) -> np.ndarray:
        return self._map("rain_blocks.npy")

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {}

    def _map(self, name: str) -> np.ndarray:
        """Opened once: that takes longer than reading a crop, and the class of the map makes every slice slower."""
        if name not in self._maps:
            self._maps[name] = np.asarray(np.load(self.folder / name, mmap_mode="r"))
        return self._maps[name]


def cache_folder() -> Path:
    """Where packed records are kept: `$NOWCAST_CACHE`, else `nowcast` in the user's cache folder."""
    if chosen := os.environ.get("NOWCAST_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nowcast"


def pack(record: Record, *, progress: Callable[[Iterable], Iterable] = iter) -> PackedFrames:
    """The packed frames of `record`, decoded now unless they are in the cache already.

    A frame that its file no longer gives, such as one with a flipped bit in its chunk, is missing as a whole. `progress`
    wraps the frame positions. Raises OutputError when the cache cannot be written, naming the space needed, and DataError
    where no frame at all can be read.
    """
    folder = cache_folder() / record.digest()
    if not (folder / "facts.json").is_file():
        _build(record, folder, progress)
    facts = json.loads((folder / "facts.json").read_text())
    summary = np.load(folder / "summary.npy")
    return PackedFrames(folder, tuple(facts["shape"]), summary[0], summary[1], tuple(facts.get("damaged", ())))


def _build(record: Record, folder: Path, progress: Callable[[Iterable], Iterable]) -> None:
    shape = (len(record.times), *record.grid.shape)
    needed = int(np.prod(shape)) * 2
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
        free = shutil.disk_usage(folder.parent).free
        if needed > free:
            raise OutputError(
                f"packing {record.name} needs {needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f} GB free; "
                "set NOWCAST_CACHE to a larger disk"
            )
        temporary = temporary_path(folder)
        temporary.mkdir()
        try:
            _fill(record, temporary, shape, progress)
            if not folder.exists():
                os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if (folder / "facts.json").is_file():
            return  # another process packed the same record meanwhile
        raise OutputError(f"cannot write the cache {folder.parent}: {error.strerror}; set NOWCAST_CACHE") from error


def _fill(record: Record, folder: Path, shape: tuple[int, int, int], progress: Callable[[Iterable], Iterable]) -> None:
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.float16, shape)
    blocks_shape = (shape[0], -(-shape[1] // BLOCK), -(-shape[2] // BLOCK))
    blocks = np.lib.format.open_memmap(folder / "rain_blocks.npy", "w+", np.float32, blocks_shape)
    summary, damage = np.empty((2, shape[0])), Damage(record)
    for position in progress(range(shape[0])):
        frame = damage.read(position)
        frames[position] = np.minimum(frame, LARGEST)
        blocks[position] = block_means(1 - np.exp(-np.nan_to_num(frame)))
        summary[:, position] = missing_and_wet(frame)
    frames.flush()
    blocks.flush()
    np.save(folder / "summary.npy", summary)
    if damage.all_failed:
        raise damage.first
    (folder / "facts.json").write_text(json.dumps({"shape": shape, "record": record.name, "damaged": damage.lines()}))


class Damage:
    """Reads the frames of a record one by one, and keeps account of those that cannot be read."""

    def __init__(self, record: Record):
        self.record, self.num_read = record, 0
        self.first: DataError | None = None
        self.positions: dict[Path, list[int]] = {}

    def read(self, position: int) -> np.ndarray:
        """(y, x) mm/h; all NaN for a frame that is damaged. DataError where the file itself is gone."""
        self.num_read += 1
        try:
            return self.record.read([position])[0]
        except DataError as error:
            # Only what will be as damaged the next time: a disk that is away for a while would be cached as missing.
            if isinstance(error.__cause__, OSError):
                raise
            self.first = self.first or error
            self.positions.setdefault(self.record.source(position), []).append(position)
            return np.full(self.record.grid.shape, np.nan, np.float32)

    @property
    def num_damaged(self) -> int:
        return sum(map(len, self.positions.values()))

    @property
    def all_failed(self) -> bool:
        return 0 < self.num_read == self.num_damaged

    def lines(self) -> list[str]:
        """For example `rain.nc: 2 frames cannot be read and count as missing: 2020-06-01T00:10:00Z, …`."""
        return [self._line(path, positions) for path, positions in self.positions.items()]

    def _line(self, path: Path, positions: list[int]) -> str:
        times = ", ".join(f"{time}Z" for time in self.record.times[positions[:NAMED_TIMES]])
        count = f"{len(positions)} frame{'s' if len(positions) > 1 else ''}"
        more = ", …" if len(positions) > NAMED_TIMES else ""
        return f"{path}: {count} cannot be read and count{'s' if len(positions) == 1 else ''} as missing: {times}{more}"


def missing_and_wet(frame: np.ndarray) -> tuple[float, float]:
    """The missing fraction of a frame (y, x), and the wet fraction of its known pixels (NaN where none is known)."""
    missing = float(np.isnan(frame).mean())
    return missing, float((frame >= WET).mean() / (1 - missing)) if missing < 1 else np.nan


def block_means(values: np.ndarray) -> np.ndarray:
    """Means over BLOCK × BLOCK cells of (y, x); the blocks at the far edges are filled up with 0."""
    y, x = (-(-size // BLOCK) for size in values.shape)
    padded = np.zeros((y * BLOCK, x * BLOCK), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded.reshape(y, BLOCK, x, BLOCK).mean(axis=(1, 3))
