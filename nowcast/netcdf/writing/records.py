"""Write records as CF-1.11 NetCDF-4, completely or not at all: the numbers of the original files, one chunk for each frame.

Rows and columns are in the order of the grid's coordinates. `nowcast convert` writes its archives with it.
"""

import itertools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import text
from nowcast.netcdf.files import OPEN_FILES, open_dataset
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.writing.new_file import COMPRESSION, auxiliary, new_file, writing
from nowcast.runtime.outputs import making_folder, may_write

# global attributes: digests of the original files of a record, of their contents, and of their sizes and times
ORIGINALS, STATE = "originals_sha256", "originals_state"
_BOUNDS = "time_bnds"
_TIMES_IN_CHUNK = 512
_RAIN = {"standard_name": "rainfall_rate", "long_name": "surface precipitation rate", "units": "mm h-1"}
_REFLECTIVITY = {"standard_name": "equivalent_reflectivity_factor", "long_name": "radar reflectivity factor", "units": "dBZ"}


@dataclass(frozen=True)
class Storage:
    """How numbers are stored: rain rate (mm/h) or, with `reflectivity`, dBZ = number * scale + offset.

    kind: the type, such as u2; fill: the code for missing; dry: the code for no echo, if it is not 0 mm/h
    """

    kind: str
    scale: float = 1.0
    offset: float = 0.0
    fill: float = 0.0
    dry: float | None = None
    reflectivity: bool = False

    @property
    def name(self) -> str:
        """The name of the variable."""
        return "reflectivity" if self.reflectivity else "rainfall_rate"

    def unpacked(self, numbers: np.ndarray) -> np.ndarray:
        """Return the values: (y, x) float32 mm/h or dBZ, NaN missing; no echo is -inf dBZ."""
        values = (numbers.astype(np.float64) * self.scale + self.offset).astype(np.float32)
        if self.dry is not None:
            values[numbers == np.dtype(self.kind).type(self.dry)] = -np.inf
        values[numbers == np.dtype(self.kind).type(self.fill)] = np.nan
        return values


@dataclass(frozen=True)
class TimedField:
    """A frame to write: its valid time, its numbers, and start and end of the interval if they are means over one.

    numbers: (y, x) as a Storage has them, in the order of the grid's coordinates
    """

    time: np.datetime64
    numbers: np.ndarray
    span: tuple[np.datetime64, np.datetime64] | None = None


def write_record(
    path: Path,
    frames: Iterable[TimedField],
    *,
    grid: Grid,
    storage: Storage,
    attributes: Mapping[str, object],
    minutes: float | None = None,
    overwrite: bool = False,
) -> int:
    """Write frames to a new file; return their number. Without frames no file is written.

    attributes: global attributes
    minutes: interval over which the rates are means; None for instantaneous rates

    Raises OutputError (exit 5) if the file exists already or cannot be written. Errors of `frames` pass through.
    """
    may_write(path, overwrite=overwrite, makes_folder=True)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return 0
    checksums: list[int] = []

    def is_as_written(dataset) -> bool:
        variable = dataset[storage.name]
        assert text(variable, "grid_mapping") == grid.mapping_name
        return [zlib.crc32(np.ascontiguousarray(variable[number])) for number in range(len(variable))] == checksums

    with making_folder(path.parent), new_file(path, grid, attributes, is_as_written, overwrite=overwrite) as dataset:
        with writing(path):
            _create(dataset, grid, storage, minutes)
        for number, frame in enumerate(itertools.chain([first], frames)):
            checksums.append(_write(dataset, path, storage, number, frame))
    return len(checksums)


def _create(dataset, grid: Grid, storage: Storage, minutes: float | None) -> None:
    _create_time(dataset, has_bounds=minutes is not None)
    variable = dataset.createVariable(
        storage.name, storage.kind, ("time", grid.y_name, grid.x_name), fill_value=np.dtype(storage.kind).type(storage.fill),
        chunksizes=(1, *grid.shape), **COMPRESSION,
    )  # fmt: skip
    variable.set_auto_maskandscale(False)
    variable.setncatts(_REFLECTIVITY if storage.reflectivity else _RAIN)
    if (storage.scale, storage.offset) != (1.0, 0.0):
        variable.setncatts({"scale_factor": storage.scale, "add_offset": storage.offset})
    if storage.dry is not None:
        dry = np.dtype(storage.kind).type(storage.dry)
        variable.setncatts({"_Undetect": dry, "flag_values": dry, "flag_meanings": "no_echo"})
    if minutes is not None:
        variable.cell_methods = f"time: mean (comment: of sums over {minutes:g} minutes)"
    if names := auxiliary(grid):
        variable.coordinates = " ".join(names)
    if grid.mapping_name:
        variable.grid_mapping = grid.mapping_name


def _create_time(dataset, *, has_bounds: bool) -> None:
    dataset.createDimension("time", None)
    time = dataset.createVariable("time", "i8", ("time",), fletcher32=True, chunksizes=(_TIMES_IN_CHUNK,))
    time.setncatts({
        "standard_name": "time", "long_name": "time (UTC)", "units": "seconds since 1970-01-01 00:00:00",
        "calendar": "standard", "axis": "T",
    })  # fmt: skip
    if has_bounds:
        time.bounds = _BOUNDS
        dataset.createDimension("bnds", 2)
        dataset.createVariable(_BOUNDS, "i8", ("time", "bnds"), fletcher32=True, chunksizes=(_TIMES_IN_CHUNK, 2))


def _write(dataset, path: Path, storage: Storage, number: int, frame: TimedField) -> int:
    stored = np.ascontiguousarray(frame.numbers, storage.kind)
    with writing(path):
        variable = dataset[storage.name]
        assert stored.shape == variable.shape[1:], f"{stored.shape} in place of {variable.shape[1:]}"
        dataset["time"][number] = _seconds(frame.time)
        if _BOUNDS in dataset.variables:
            assert frame.span is not None, "a mean over no interval"
            dataset[_BOUNDS][number] = [_seconds(end) for end in frame.span]
        variable[number] = stored
    return zlib.crc32(stored)


def _seconds(time: np.datetime64) -> int:
    return int(np.datetime64(time, "s").astype(np.int64))


def attributes_of(path: Path) -> dict[str, str]:
    """Return the text attributes of a record, such as ORIGINALS and STATE; an empty dict if it cannot be read."""
    try:
        with OPEN_FILES.lock, open_dataset(path) as dataset:
            return {name: text(dataset, name) or "" for name in dataset.ncattrs()}
    except DataError:
        return {}
