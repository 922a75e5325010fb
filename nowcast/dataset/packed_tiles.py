"""Decoded frames on disk as float16: whole, or for a long record only the tiles of them that hold something.

A year of frames every five minutes on 900 × 900 cells is 170 GB as a whole. Most tiles of it are dry or beyond the radar's
range: these are kept once, however often they come. Both are read as memory maps.
"""

from pathlib import Path

import numpy as np

WHOLE = 8 << 30  # bytes of frames up to which they are stored whole, where reading one is a single copy
TILE = 64  # cells, at most: the side of a tile
_DRY, _MISSING = 0, 1  # the first two tiles of every store
_MASKS = 4096  # tiles without rain that are remembered, to be stored once


class Rows:
    """Writes a .npy file of known shape row by row; rows of zeros may be left out, and take no room on most disks.

    From front to back: a memory map would meet a full disk with SIGBUS.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]):
        self.file = open(path, "wb")  # noqa: SIM115  closed by `close`
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        self.dtype, self._last, self.end = dtype, None, self.file.tell() + shape[0] * self.row_bytes

    def write(self, row: np.ndarray | None) -> None:
        """The next row; None for zeros."""
        self._last = None if row is None else np.ascontiguousarray(row, self.dtype)
        self.write_again()

    def write_again(self) -> None:
        """The row that was written last, once more."""
        if self._last is None:
            self.file.seek(self.row_bytes, 1)
        else:
            self.file.write(self._last)

    def close(self) -> None:
        self.file.truncate(self.end)
        self.file.close()


class TileWriter:
    """Writes frames (time, y, x) as tiles, each tile that is dry or missing as a whole, or a known mask, only once."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]):
        self.tile, self.counts = tile_shape(shape[1:]), tile_counts(shape[1:])
        self.index = Rows(folder / "tile_index.npy", np.uint32, (shape[0], *self.counts))
        self.file = open(folder / "tiles.bin", "wb")  # noqa: SIM115  closed by `close`
        for value in (0.0, np.nan):
            self.file.write(np.full(self.tile, value, np.float16))
        self.num_tiles = 2
        self._masks: dict[bytes, int] = {}

    def write(self, frame: np.ndarray) -> None:
        tiles = to_tiles(frame).reshape(-1, self.tile[0] * self.tile[1])
        numbers = np.full(len(tiles), _DRY, np.uint32)
        held = np.flatnonzero(tiles.any(axis=1))  # NaN counts
        unknown = np.isnan(tiles[held])
        missing = unknown.all(axis=1)
        numbers[held[missing]] = _MISSING
        without_rain = (unknown | (tiles[held] == 0)).all(axis=1)
        for tile, is_mask in zip(held[~missing], without_rain[~missing], strict=True):
            content = tiles[tile].astype(np.float16)
            numbers[tile] = self._mask(content) if is_mask else self._new(content)
        self.index.write(numbers.reshape(self.counts))

    def write_again(self) -> None:
        """The frame that was written last, once more."""
        self.index.write_again()

    def _mask(self, tile: np.ndarray) -> int:
        content = tile.tobytes()
        if content not in self._masks:
            number = self._new(tile)
            if len(self._masks) == _MASKS:
                return number
            self._masks[content] = number
        return self._masks[content]

    def _new(self, tile: np.ndarray) -> int:
        self.file.write(tile)
        self.num_tiles += 1
        return self.num_tiles - 1

    def close(self) -> None:
        self.index.close()
        self.file.close()


class Tiles:
    """Reads what a TileWriter wrote."""

    def __init__(self, folder: Path, grid: tuple[int, int]):
        self.tile = tile_shape(grid)
        self.index = np.asarray(np.load(folder / "tile_index.npy", mmap_mode="r"))
        self.tiles = np.asarray(np.memmap(folder / "tiles.bin", np.float16, "r")).reshape(-1, *self.tile)

    def cut(self, positions: np.ndarray, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """float16 (frame, y, x) of the frames at `positions`, the cells from `top` to `bottom` and `left` to `right`."""
        height, width = self.tile
        y, x = top // height, left // width
        numbers = self.index[positions, y : -(-bottom // height), x : -(-right // width)]
        found = self.tiles[numbers].swapaxes(2, 3)  # (frame, tile, y, tile, x)
        found = found.reshape(len(numbers), numbers.shape[1] * height, numbers.shape[2] * width)
        return found[:, top - y * height : bottom - y * height, left - x * width : right - x * width]


def tile_counts(grid: tuple[int, int]) -> tuple[int, int]:
    """How many tiles lie along y and x."""
    return -(-grid[0] // TILE), -(-grid[1] // TILE)


def tile_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """(y, x) cells of a tile: as even as they can be."""
    (y, x), (rows, columns) = grid, tile_counts(grid)
    return -(-y // rows), -(-x // columns)


def to_tiles(frame: np.ndarray) -> np.ndarray:
    """(tile, y, x) of a frame (y, x), row by row; tiles at the far edges are filled up with the last cells."""
    (height, width), (rows, columns) = tile_shape(frame.shape), tile_counts(frame.shape)
    beyond = ((0, rows * height - frame.shape[0]), (0, columns * width - frame.shape[1]))
    padded = np.pad(frame, beyond, mode="edge") if any(after for _, after in beyond) else frame
    return np.ascontiguousarray(padded.reshape(rows, height, columns, width).swapaxes(1, 2)).reshape(-1, height, width)


def share_of_rain(frame: np.ndarray) -> float:
    """The share of a frame's tiles that hold some rain: what of it is stored, but for a few masks."""
    return float((to_tiles(np.nan_to_num(frame)) > 0).any(axis=(1, 2)).mean())
