"""Pack records: decode all frames once, and store them uncompressed on disk with a few statistics of each frame.

To decompress NetCDF takes longer than a training step on a small crop. So each record is stored once as float16 mm/h (NaN
missing; relative error under 0.1 %; up to 64 mm/h rounding crosses no multiple of 0.05 mm/h) under `$NOWCAST_CACHE`
(default: the user's cache folder), in a folder named by the record's digest, which changes with its files. Only training reads
packed frames; forecasts and scores read the NetCDF files. Records of more than `packed_tiles.UNTILED_BYTES` bytes are stored
in tiles. Frames that are damaged on the disk are found by their checksums and packed anew.
"""

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
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.record import Record
from nowcast.runtime.cache import MANIFEST, cache_folder, mark_used, put, read_manifest, remove_unused, write_manifest
from nowcast.runtime.outputs import remove_stale, size, temporary_path
from nowcast.runtime.threads import ahead

BLOCK = 16  # cells: side of the blocks whose mean rain decides how often crops are drawn there
WET_RATE = 0.1  # mm/h: a cell with at least this rain rate is wet
LARGEST = 65504.0  # mm/h: the largest number in float16
TRACE, FINE = 0.001, 64.0  # mm/h: range of thresholds within which numbers of float16 are closer than STEP
STEP = np.float32(0.05)  # mm/h: common thresholds are multiples of it
STORED_VERSION = 4  # of the files in the cache; records stored in another version are packed again
SAMPLE = 64  # number of frames read to estimate the disk space that the tiles of a record need


@dataclass(frozen=True)
class PackedFrames:
    """Packed frames of one record on disk. A process that unpickles it opens the files itself; no frame is copied.

        shape: (time, y, x) of the frames
        missing: (time,) float64, fraction of missing cells
        wet: (time,) float64, fraction of wet cells among the known ones, NaN where no cell is known
        rain: (time,) float64, mean of the frame's `rain_blocks`

    `in_tiles`: the frames are read through `tiles`, not `frames`. `damaged`: one line for each file with frames that could
    not be read and count as missing.
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
        """Return a read-only memory map of the frames: (time, y, x) float16 mm/h, NaN missing, row 0 northernmost."""
        return self._map("frames.npy")

    def rain_blocks(self) -> np.ndarray:
        """Return the mean of 1 - exp(-r / 1 mm/h) of each block: (time, y / BLOCK, x / BLOCK) float32; missing is dry."""
        return self._map("rain_blocks.npy")

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.folder, self.shape[1:])

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {}

    def _map(self, name: str) -> np.ndarray:
        """Open a memory map, once: that takes longer than to read a crop. As a plain array it is faster to slice."""
        if name not in self._maps:
            self._maps[name] = np.asarray(np.load(self.folder / name, mmap_mode="r"))
        return self._maps[name]


def pack(record: Record, *, progress: Callable[[Iterable], Iterable] = iter) -> PackedFrames:
    """Return the packed frames of `record`, after packing it if it is not in the cache.

    A frame that cannot be read, for example because a bit of its file has flipped, is stored as missing. `progress` wraps
    the iterable of frame positions.

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small, and DataError (exit 3) if no frame
    can be read.
    """
    folder = cache_folder() / f"{record.digest()}-{STORED_VERSION}"
    try:
        contents = read_manifest(folder) or _build(record, folder, progress)
    except OSError as error:
        raise OutputError(f"cannot write the cache {folder.parent}: {error.strerror}; set NOWCAST_CACHE") from error
    mark_used(folder)
    summary = np.load(folder / "summary.npy")
    return PackedFrames(folder, tuple(contents["shape"]), *summary, contents["in_tiles"], tuple(contents["damaged"]))


def _build(record: Record, folder: Path, progress: Callable[[Iterable], Iterable]) -> dict:
    """Pack a record; return what its manifest describes. Raises OSError, OutputError (exit 5), DataError (3)."""
    shape = (len(record.times), *record.grid.shape)
    in_tiles = bool(2 * np.prod(shape, dtype=np.int64) > packed_tiles.UNTILED_BYTES)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
        remove_unused()
        free, needed = shutil.disk_usage(folder.parent).free, _bytes_needed(record, shape, in_tiles)
        if needed > free:
            raise OutputError(
                f"packing {record.name} needs {size(needed)} in {folder.parent}, which has {size(free)} free.\n"
                "Set NOWCAST_CACHE to a larger disk."
            )
        temporary = temporary_path(folder)
        temporary.mkdir()
        try:
            contents = _store(record, temporary, shape, progress, in_tiles=in_tiles)
            write_manifest(temporary, contents)
            put(temporary, folder, last=MANIFEST)
            return contents
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError:
        if contents := read_manifest(folder):
            return contents  # another process has packed the same record meanwhile
        raise


def _bytes_needed(record: Record, shape: tuple[int, int, int], in_tiles: bool) -> int:
    """Estimate the disk space of a packed record; in tiles, from the fraction of tiles with rain in a sample of frames."""
    whole = 2 * int(np.prod(shape, dtype=np.int64))  # bytes of float16
    if not in_tiles:
        return whole
    sample = np.unique(np.linspace(0, shape[0] - 1, SAMPLE).astype(int))
    damage = Damage(record)  # reads damaged frames as missing, which take no tiles
    fraction = np.mean([packed_tiles.fraction_with_rain(damage.read(position)) for position in sample])
    return int(whole * (fraction + 1 / (4 * BLOCK)))


def _store(
    record: Record, folder: Path, shape: tuple[int, int, int], progress: Callable[[Iterable], Iterable], *, in_tiles: bool
) -> dict:
    """Write the frames of a record and their statistics to `folder`; return their description for the manifest."""
    statistics, before, damage = np.empty((3, shape[0])), None, Damage(record)
    blocks_shape = (shape[0], -(-shape[1] // BLOCK), -(-shape[2] // BLOCK))
    with (
        closing(TileWriter(folder, shape) if in_tiles else Rows(folder / "frames.npy", np.float16, shape)) as frames,
        closing(Rows(folder / "rain_blocks.npy", np.float32, blocks_shape)) as blocks,
        closing(ahead(damage.in_order(range(shape[0])))) as read,
    ):
        for position in progress(range(shape[0])):
            frame = next(read)
            # Equal frames in a row are common in dry weather, and faster to compare than to store anew.
            if before is not None and np.array_equal(frame.view(np.int32), before.view(np.int32)):
                frames.write_again()
            else:
                frames.write(to_half(frame))
                rain = _rain_blocks(frame)
                frame_statistics = (*missing_and_wet(frame), 0.0 if rain is None else rain.mean(dtype=np.float64))
            blocks.write(rain)
            statistics[:, position] = frame_statistics
            before = frame
    np.save(folder / "summary.npy", statistics)
    if damage.all_failed:
        raise damage.first
    return {"shape": shape, "record": record.name, "in_tiles": in_tiles, "damaged": damage.lines()}


def to_half(frame: np.ndarray) -> np.ndarray:
    """Convert a frame (y, x) mm/h, float32, to float16 so that no value below FINE crosses a multiple of STEP.

    The float16 nearest to 0.1 is below 0.1: for data in steps of 0.1 or 0.01 mm/h, some percent of the events would be lost.
    """
    half = np.minimum(frame, LARGEST).astype(np.float16, order="C")
    rainy = np.flatnonzero((frame > TRACE) & (frame < FINE))
    bits = half.view(np.int16).ravel()
    values = frame.ravel()[rainy], half.ravel()[rainy].astype(np.float32)
    reached, kept = (np.floor(each / STEP * np.float32(1 + 1e-6)) for each in values)
    bits[rainy] += np.sign(reached - kept).astype(np.int16)  # to the next number of float16, or the one before
    return half


def _rain_blocks(frame: np.ndarray) -> np.ndarray | None:
    """Compute block means of 1 - exp(-r / 1 mm/h) of a frame (y, x), missing counted as dry; None if there is no rain."""
    rainy = frame > 0
    if not rainy.any():
        return None
    values = np.zeros_like(frame)
    values[rainy] = 1 - np.exp(-frame[rainy])
    return block_means(values)


def missing_and_wet(frame: np.ndarray) -> tuple[float, float]:
    """Compute the fraction of missing cells of a frame (y, x) mm/h, and of wet cells among the known ones (NaN if none)."""
    missing = float(np.isnan(frame).mean())
    return missing, float((frame >= WET_RATE).mean() / (1 - missing)) if missing < 1 else np.nan


def block_means(values: np.ndarray) -> np.ndarray:
    """Compute means over blocks of BLOCK × BLOCK cells of a field (y, x); blocks that reach over its edges are padded by 0."""
    y, x = (-(-size // BLOCK) for size in values.shape)
    padded = np.zeros((y * BLOCK, x * BLOCK), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded.reshape(y, BLOCK, x, BLOCK).mean(axis=(1, 3))
