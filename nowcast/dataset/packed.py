"""A record's frames decoded once onto the disk, with the per-frame facts that planning and sampling need.

Decompressing NetCDF costs more than a training step on a small crop, so each record is packed once as float16 mm/h (NaN
missing; relative error under 0.05 %) under `$NOWCAST_CACHE` (default: the user's cache folder), named by the record's
digest; a changed file has another digest. Only training reads it: forecasts and scores read the NetCDF files. Frames of
more than `frame_store.WHOLE` bytes are kept as tiles.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.dataset import packed_tiles
from nowcast.dataset.packed_tiles import Rows, Tiles, TileWriter
from nowcast.errors import OutputError
from nowcast.netcdf.record import Damage, Record
from nowcast.runtime.cache import cache_folder
from nowcast.runtime.outputs import remove_stale, temporary_path
from nowcast.runtime.threads import ahead

BLOCK = 16  # cells: the grain at which crops are weighted by rain
WET = 0.1  # mm/h: the dry threshold
LARGEST = 65504.0  # float16
LAYOUT = 2  # of a packed record's files: those of another are packed anew
SAMPLE = 64  # frames read to find out how much room the tiles of a record take


@dataclass(frozen=True)
class PackedFrames:
    """Frames of one record on disk; opened anew (not copied) in every process that unpickles it.

    `missing` and `wet` are fractions per frame (wet: of the known pixels, NaN where none is known), float64 (time,);
    `rain_blocks` float32 (time, y / BLOCK, x / BLOCK) is the mean of 1 - exp(-r / 1 mm/h), missing counted as dry, and
    `rain` float64 (time,) the mean of its blocks. `in_tiles`: read by `tiles`, not as `frames`.
    `damaged` are lines about frames that could not be read and count as missing, one for each file with such frames.
    """

    folder: Path
    shape: tuple[int, int, int]
    missing: np.ndarray
    wet: np.ndarray
    rain: np.ndarray
    in_tiles: bool = False
    damaged: tuple[str, ...] = ()

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("_maps", "tiles")}

    def frames(self) -> np.ndarray:
        """float16 (time, y, x) mm/h, NaN missing, row 0 northernmost; a read-only memory map."""
        return self._map("frames.npy")

    def rain_blocks(self) -> np.ndarray:
        return self._map("rain_blocks.npy")

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.folder, self.shape[1:])

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {}

    def _map(self, name: str) -> np.ndarray:
        """Opened once: that takes longer than reading a crop, and the class of the map makes every slice slower."""
        if name not in self._maps:
            self._maps[name] = np.asarray(np.load(self.folder / name, mmap_mode="r"))
        return self._maps[name]


def pack(record: Record, *, progress: Callable[[Iterable], Iterable] = iter) -> PackedFrames:
    """The packed frames of `record`, decoded now unless they are in the cache already.

    A frame that its file no longer gives, such as one with a flipped bit in its chunk, is missing as a whole. `progress`
    wraps the frame positions. Raises OutputError when the cache cannot be written, naming the space needed, and DataError
    where no frame at all can be read.
    """
    folder = cache_folder() / f"{record.digest()}-{LAYOUT}"
    if not (folder / "facts.json").is_file():
        _build(record, folder, progress)
    facts = json.loads((folder / "facts.json").read_text())
    summary = np.load(folder / "summary.npy")
    return PackedFrames(folder, tuple(facts["shape"]), *summary, in_tiles=facts["in_tiles"], damaged=tuple(facts["damaged"]))


def _build(record: Record, folder: Path, progress: Callable[[Iterable], Iterable]) -> None:
    shape = (len(record.times), *record.grid.shape)
    in_tiles = bool(2 * np.prod(shape, dtype=np.int64) > packed_tiles.WHOLE)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
        free, needed = shutil.disk_usage(folder.parent).free, _needed(record, shape, in_tiles)
        if needed > free:
            raise OutputError(
                f"packing {record.name} needs {needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f} GB free; "
                "set NOWCAST_CACHE to a larger disk"
            )
        temporary = temporary_path(folder)
        temporary.mkdir()
        try:
            _fill(record, temporary, shape, progress, in_tiles=in_tiles)
            if not folder.exists():
                os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if (folder / "facts.json").is_file():
            return  # another process packed the same record meanwhile
        raise OutputError(f"cannot write the cache {folder.parent}: {error.strerror}; set NOWCAST_CACHE") from error


def _needed(record: Record, shape: tuple[int, int, int], in_tiles: bool) -> int:
    """Bytes on the disk: of tiles as many as a sample of the frames has with rain, and of blocks."""
    whole = 2 * int(np.prod(shape, dtype=np.int64))
    if not in_tiles:
        return whole
    sample = np.unique(np.linspace(0, shape[0] - 1, SAMPLE).astype(int))
    damage = Damage(record)  # a damaged frame is stored without any rain
    share = np.mean([packed_tiles.share_of_rain(damage.read(position)) for position in sample])
    return int(whole * (share + 1 / (4 * BLOCK)))


def _fill(
    record: Record, folder: Path, shape: tuple[int, int, int], progress: Callable[[Iterable], Iterable], *, in_tiles: bool
) -> None:
    summary, before, damage = np.empty((3, shape[0])), None, Damage(record)
    blocks_shape = (shape[0], -(-shape[1] // BLOCK), -(-shape[2] // BLOCK))
    with (
        closing(TileWriter(folder, shape) if in_tiles else Rows(folder / "frames.npy", np.float16, shape)) as frames,
        closing(Rows(folder / "rain_blocks.npy", np.float32, blocks_shape)) as blocks,
        closing(ahead(map(damage.read, range(shape[0])))) as read,
    ):
        for position in progress(range(shape[0])):
            frame = next(read)
            if before is not None and np.array_equal(frame.view(np.int32), before.view(np.int32)):  # dry, most of the time
                frames.write_again()
            else:
                frames.write(np.minimum(frame, LARGEST))
                rain = _rain_blocks(frame)
                facts = (*missing_and_wet(frame), 0.0 if rain is None else rain.mean(dtype=np.float64))
            blocks.write(rain)
            summary[:, position] = facts
            before = frame
    np.save(folder / "summary.npy", summary)
    if damage.all_failed:
        raise damage.first
    facts = {"shape": shape, "record": record.name, "in_tiles": in_tiles, "damaged": damage.lines()}
    (folder / "facts.json").write_text(json.dumps(facts))


def _rain_blocks(frame: np.ndarray) -> np.ndarray | None:
    """Means of 1 - exp(-r / 1 mm/h), missing counted as dry; None where nothing is wet."""
    wet = frame > 0
    if not wet.any():
        return None
    values = np.zeros_like(frame)
    values[wet] = 1 - np.exp(-frame[wet])
    return block_means(values)


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
