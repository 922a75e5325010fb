"""Store frames on disk as float16 in tiles, so that tiles without rain take no space.

A year of frames every five minutes on 900 × 900 cells takes 170 GB. Most of its tiles are dry or beyond the range of the
radar. Such a tile is stored once, however often it occurs. Files are read as memory maps.
"""

from pathlib import Path

import numpy as np

UNTILED_BYTES = 8 << 30  # records up to this size are stored without tiles, because whole frames are faster to read
TILE = 64  # cells: largest side of a tile
_DRY, _MISSING = 0, 1  # numbers of the first two tiles of every file: one all dry, one all missing
_MAX_MASKS = 4096  # largest number of masks (partly missing tiles without rain) kept in memory while writing


class Rows:
    """Writer of a .npy file of known shape, row by row along its first axis.

    Rows of zeros are skipped: on most file systems they take no space. No memory map is used, because a full disk would
    then end the process by SIGBUS instead of raising an error.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]):
        self.file = open(path, "wb")  # noqa: SIM115  closed by `close`
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        self.dtype, self._last, self.end = dtype, None, self.file.tell() + shape[0] * self.row_bytes

    def write(self, row: np.ndarray | None) -> None:
        """Write the next row, of the shape of the array without its first axis, (…,); None stands for zeros."""
        self._last = None if row is None else np.ascontiguousarray(row, self.dtype)
        self.write_again()

    def write_again(self) -> None:
        """Write the same row as the last time."""
        if self._last is None:
            self.file.seek(self.row_bytes, 1)
        else:
            self.file.write(self._last)

    def close(self) -> None:
        self.file.truncate(self.end)
        self.file.close()


class TileWriter:
    """Writer of frames (y, x) mm/h in tiles. Tiles that are all dry or all missing, or equal masks, are stored once.

    A mask is a tile that is partly missing and else dry, as at the edge of the radar's range.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]):
        self.tile, self.counts = tile_shape(shape[1:]), tile_counts(shape[1:])
        self.index = Rows(folder / "tile_index.npy", np.uint32, (shape[0], *self.counts))
        self.file = open(folder / "tiles.bin", "wb")  # noqa: SIM115  closed by `close`
        for value in (0.0, np.nan):
            self.file.write(np.full(self.tile, value, np.float16))
        self.num_tiles = 2
        self._masks: dict[bytes, int] = {}  # the number of each mask by its content

    def write(self, frame: np.ndarray) -> None:
        """Write the next frame (y, x) mm/h."""
        tiles = to_tiles(frame).reshape(-1, self.tile[0] * self.tile[1])
        numbers = np.full(len(tiles), _DRY, np.uint32)
        not_dry = np.flatnonzero(tiles.any(axis=1))  # NaN counts as true
        unknown = np.isnan(tiles[not_dry])
        missing = unknown.all(axis=1)
        numbers[not_dry[missing]] = _MISSING
        without_rain = (unknown | (tiles[not_dry] == 0)).all(axis=1)
        for tile, is_mask in zip(not_dry[~missing], without_rain[~missing], strict=True):
            content = tiles[tile].astype(np.float16)
            numbers[tile] = self._mask_number(content) if is_mask else self._append(content)
        self.index.write(numbers.reshape(self.counts))

    def write_again(self) -> None:
        """Write the same frame as the last time."""
        self.index.write_again()

    def _mask_number(self, tile: np.ndarray) -> int:
        content = tile.tobytes()
        if content not in self._masks:
            number = self._append(tile)
            if len(self._masks) == _MAX_MASKS:
                return number
            self._masks[content] = number
        return self._masks[content]

    def _append(self, tile: np.ndarray) -> int:
        self.file.write(tile)
        self.num_tiles += 1
        return self.num_tiles - 1

    def close(self) -> None:
        self.index.close()
        self.file.close()


class Tiles:
    """Reader of the files of a TileWriter for frames on a grid (y, x)."""

    def __init__(self, folder: Path, grid: tuple[int, int]):
        self.tile = tile_shape(grid)
        self.index = np.asarray(np.load(folder / "tile_index.npy", mmap_mode="r"))
        self.tiles = np.asarray(np.memmap(folder / "tiles.bin", np.float16, "r")).reshape(-1, *self.tile)

    def cut(self, positions: np.ndarray, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """Return a rectangle of several frames, rows [top, bottom) and columns [left, right).

        positions: (frame,) positions of the frames
        returns: (frame, y, x) float16 mm/h, NaN missing
        """
        height, width = self.tile
        y, x = top // height, left // width
        numbers = self.index[positions, y : -(-bottom // height), x : -(-right // width)]
        cells = self.tiles[numbers].swapaxes(2, 3)  # (frame, tile, y, tile, x)
        cells = cells.reshape(len(numbers), numbers.shape[1] * height, numbers.shape[2] * width)
        return cells[:, top - y * height : bottom - y * height, left - x * width : right - x * width]


def tile_counts(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the number of tiles along y and x."""
    return -(-grid[0] // TILE), -(-grid[1] // TILE)


def tile_shape(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the cells of a tile along y and x: as few as `tile_counts` tiles need to cover the grid."""
    (y, x), (rows, columns) = grid, tile_counts(grid)
    return -(-y // rows), -(-x // columns)


def to_tiles(frame: np.ndarray) -> np.ndarray:
    """Cut a frame into tiles, row by row. Tiles that reach over its edges are padded with the cells at the edge.

    frame: (y, x)
    returns: (tile, y in tile, x in tile)
    """
    (height, width), (rows, columns) = tile_shape(frame.shape), tile_counts(frame.shape)
    beyond = ((0, rows * height - frame.shape[0]), (0, columns * width - frame.shape[1]))
    padded = np.pad(frame, beyond, mode="edge") if any(after for _, after in beyond) else frame
    return np.ascontiguousarray(padded.reshape(rows, height, columns, width).swapaxes(1, 2)).reshape(-1, height, width)


def fraction_with_rain(frame: np.ndarray) -> float:
    """Return the fraction of the tiles of a frame (y, x) with any rain: almost all that are stored, besides a few masks."""
    return float((to_tiles(np.nan_to_num(frame)) > 0).any(axis=(1, 2)).mean())
