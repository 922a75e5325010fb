"""Records from xarray objects, and xarray objects from records.

An array in memory is written to a temporary file and opened like any other, so that the variable, units, missing values,
times and coordinates of a DataArray are interpreted by the same code as those of files, with the same error messages.
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from nowcast.errors import DataError, NowcastError
from nowcast.netcdf.attributes import is_true
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.opening import FORECASTS, open_records
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.rain.packing import is_stored_number
from nowcast.netcdf.record import Record
from nowcast.netcdf.writing.new_file import writing
from nowcast.runtime.log_lines import is_first, standing_for
from nowcast.runtime.signals import held

log = logging.getLogger(__name__)
DIMS = ("time", "y", "x")
ARRAY = "the array"  # in warnings, in place of a file
UNNAMED = "rain"  # name of a DataArray that has none
RATE = {"standard_name": "rainfall_rate", "long_name": "rain rate", "units": "mm h-1"}
IN_PYTHON = {  # advice in error messages, and the advice that replaces it for an array in memory
    "Give them by --units (data.units)": 'Set its attribute "units"',
    "Choose one with --variable (data.variable)": "Give one of them, as a DataArray",
    " (--reference-time)": ": give the frames up to then",
    "or choose one with --variable (data.variable), and its --units": "or a DataArray of one, with units",
}
_KEPT = {"grid_mapping"}  # of an array's encoding: what its values are not packed by
_PACKING = {"scale_factor", "add_offset", "_Unsigned"}  # of an array's encoding: what xarray has unpacked its values by
_OPPOSITE = {"valid_min": "valid_max", "valid_max": "valid_min"}
_OF_TIMES = {"units", "calendar"}  # kept of times that NumPy does not have; xarray chooses for others, so that all are exact


@contextmanager
def as_record(array: xr.DataArray | xr.Dataset, **reading) -> Iterator[Record]:
    """Yield a DataArray (time, y, x) or a Dataset as a record, which can be read within the block only.

    reading: keyword arguments of `open_records`; `variable` selects one of a Dataset

    Raises DataError (exit 3) if it is not a record, and the errors of `stored`.
    """
    with stored(array) as path:
        if isinstance(array, xr.DataArray):
            reading = reading | {"variable": path.stem}
        (record,) = open_records([path], **reading)
        yield record


@contextmanager
def stored(array: xr.DataArray | xr.Dataset) -> Iterator[Path]:
    """Yield a NetCDF file with the name of the array, which exists within the block only.

    Raises DataError (exit 3) for an array that NetCDF cannot hold, OutputError (5) if the disk is full. Errors and
    warnings within the block name the array instead of the file.
    """
    dataset, name = _as_dataset(array)
    with tempfile.TemporaryDirectory(prefix="nowcast-") as folder:
        path = Path(folder) / name / f"{name}.nc"  # a record of several files is called as their folder
        path.parent.mkdir()
        try:
            with writing(path), held():
                dataset.to_netcdf(path, engine="netcdf4")
        except (TypeError, ValueError) as error:
            raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
        is_first(path, FORECASTS)  # no warning that it is a forecast: the user knows
        try:
            with standing_for(path, ARRAY):
                yield path
        except NowcastError as error:
            text = str(error).replace(f"{path}: ", "").replace(str(path), path.stem)
            for option, instead in IN_PYTHON.items():
                text = text.replace(option, instead)
            error.args = (text, *error.args[1:])
            raise
        finally:
            OPEN_FILES.close_one(path)


def _as_dataset(array: xr.DataArray | xr.Dataset) -> tuple[xr.Dataset, str]:
    """Return a Dataset whose values are written unchanged, and a valid file name."""
    array = in_utc(array)
    if isinstance(array, xr.Dataset):
        dataset, name = array.copy(), UNNAMED
    else:
        name = re.sub(r"\W+", "_", str(array.name or UNNAMED)).strip("_") or UNNAMED
        while name in {str(taken) for taken in (*array.coords, *array.dims)}:
            name = f"{UNNAMED}_{name}"
        dataset = array.copy(deep=False).rename(name).to_dataset()
        for where in (dataset[name].attrs, dataset[name].encoding):
            if where.get("grid_mapping") not in (None, *dataset.coords):  # the grid mapping was left behind in the Dataset
                del where["grid_mapping"]
    dataset = _with_storable_floats(dataset)
    for variable in dataset.variables.values():
        variable.attrs = _unpacked_attributes(_without_lost_numbers(variable))
        kept = _KEPT if variable.dtype.kind in "mM" else _KEPT | _OF_TIMES
        variable.encoding = {key: value for key, value in variable.encoding.items() if key in kept}
    return dataset, name


def _without_lost_numbers(variable: xr.Variable) -> xr.Variable:
    """Return an array of floats without limits, flags and codes in short integers, with a warning.

    They are those of packed values, and arithmetic that keeps attributes has lost the packing.
    """
    if variable.dtype.kind != "f" or "dtype" in variable.encoding:
        return variable
    lost = [name for name, value in variable.attrs.items() if is_stored_number(name) and _is_short(np.ravel(value).dtype)]
    if not lost:
        return variable
    log.warning(
        "%s: %s: numbers of packed values, whose packing was lost in arithmetic; left out.\n"
        "Take the array before arithmetic, or give these numbers in its units",
        *(ARRAY, ", ".join(lost)),
    )
    kept = variable.copy(deep=False)
    kept.attrs = {name: value for name, value in variable.attrs.items() if name not in lost}
    return kept


def _is_short(kind: np.dtype) -> bool:
    """Return whether numbers of this type are those of packed values: numbers that people write are longer integers."""
    return kind.kind in "iu" and kind.itemsize <= 2


def _unpacked_attributes(variable: xr.Variable) -> dict:
    """Return the attributes of an array with limits, flags and codes unpacked where xarray has unpacked its values alone."""
    packing = {key: value for key, value in variable.encoding.items() if key in _PACKING}
    kind = np.dtype(variable.encoding.get("dtype", variable.dtype))
    if not packing or variable.dtype.kind != "f" or kind.kind not in "iuf":
        return variable.attrs
    unpacked = {}
    for name, value in variable.attrs.items():
        # floating-point limits of integers are unpacked already
        if is_stored_number(name) and np.ravel(value).dtype.kind in ("f" if kind.kind == "f" else "iu"):
            swaps = np.ravel(packing.get("scale_factor", 1.0)).astype(np.float64).min() < 0
            value, name = _unpacked(np.ravel(value), kind, packing), _OPPOSITE.get(name, name) if swaps else name
        unpacked[name] = value
    if is_true(packing.get("_Unsigned")) and "missing_value" in variable.encoding:  # which xarray does not mask
        unpacked["missing_value"] = _unpacked(np.ravel(variable.encoding["missing_value"]), kind, packing)
    return unpacked


def _unpacked(codes: np.ndarray, kind: np.dtype, packing: dict) -> np.ndarray:
    """Return stored numbers (code,) of this type as xarray unpacks them, to the last digit.

    Those that the type cannot hold, which values never reach, are unpacked as long integers.
    """
    unsigned = np.dtype(kind.str.replace("i", "u"))
    if not any((codes == codes.astype(held)).all() for held in (kind, unsigned)):
        kind, packing = np.dtype(np.int64), {key: value for key, value in packing.items() if key != "_Unsigned"}
    return xr.decode_cf(xr.Dataset({"codes": ("code", codes.astype(kind), packing)}))["codes"].values


def _with_storable_floats(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with the floats that NetCDF lacks converted: half precision to float32, extended to float64."""
    converted = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "f" and variable.dtype.itemsize not in (4, 8):
            converted[name] = variable.astype(np.float32 if variable.dtype.itemsize < 4 else np.float64)
    return dataset.assign(converted)


def in_utc(array: Any) -> Any:
    """Return an array or a Dataset of any shape with its times that have a time zone, as pandas' can, in UTC without one."""
    aware = {
        name: (time.dims, time.to_index().tz_convert(None), time.attrs)
        for name, time in getattr(array, "coords", {}).items()
        if time.ndim == 1 and getattr(time.dtype, "tz", None) is not None
    }
    return array.assign_coords(aware) if aware else array


class _Frames(BackendArray):
    """The frames of a record (time, y, x), read when they are indexed.

    `keeps_open`: whether files stay open between reads, so that chunks need not be decompressed again.
    """

    keeps_open = True

    def __init__(self, record: Record):
        self.record, self.shape, self.dtype = record, (len(record), *record.grid.shape), np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def close(self) -> None:
        """Close the files, so that others can write them; later reads close them at once."""
        self.keeps_open = False
        for path in self.record.paths:
            OPEN_FILES.close_one(path)

    def _read(self, key: tuple) -> np.ndarray:
        time, *cells = key
        positions = np.arange(len(self.record))[time]
        damage = Damage(self.record)
        with nullcontext() if self.keeps_open else OPEN_FILES.closed_after():
            fields = damage.frames(np.atleast_1d(positions))
        damage.warn()
        for axis, part in enumerate(cells, 1):
            fields = fields[(slice(None),) * axis + (part if isinstance(part, slice) else np.atleast_1d(part),)]
        dropped = [axis for axis, part in enumerate(key) if np.ndim(part) == 0 and not isinstance(part, slice)]
        return fields.squeeze(axis=tuple(dropped))


def as_data_array(record: Record) -> xr.DataArray:
    """Return a record as a DataArray (time, y, x), mm/h, NaN missing, whose fields are read when they are used.

    Files stay open after a read until `close` of the array is called. Row 0 is the northernmost. Coordinates and the grid
    mapping are those of the files.
    """
    dims = ("time", record.grid.y_name, record.grid.x_name)
    frames = _Frames(record)
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(frames))
    attributes = dict(RATE) if record.quantity.is_rain else {"units": record.quantity.units}
    coordinates = grid_coordinates(record.grid) | {"time": ("time", record.times, {"standard_name": "time"})}
    if record.grid.mapping_name:
        attributes["grid_mapping"] = record.grid.mapping_name
    array = xr.DataArray(variable, coordinates, name=record.variable, attrs=attributes | {"record": record.name})
    array.set_close(frames.close)
    return array


def grid_coordinates(grid: Grid) -> dict[str, tuple]:
    """Return (dims, values, attributes) of each coordinate of a grid, from the north and the west, and of its mapping."""
    turned = {grid.y_name: grid.y_ascending, grid.x_name: grid.x_descending}
    coordinates = {}
    for dim, coordinate in ((grid.y_name, grid.rows), (grid.x_name, grid.columns)):
        if coordinate.attributes or coordinate.is_measured:
            coordinates[coordinate.name] = ((dim,), coordinate.values, coordinate.attributes)
    for other in grid.carried:
        unpacked = xr.decode_cf(xr.Dataset({other.name: (other.dims, other.stored, other.attributes)}), decode_times=False)
        coordinates[other.name] = (other.dims, unpacked[other.name].values, unpacked[other.name].attrs)
    for name, (dims, values, attributes) in coordinates.items():
        coordinates[name] = (dims, values[tuple(slice(None, None, -1 if turned[dim] else 1) for dim in dims)], attributes)
    if grid.mapping_name:
        coordinates[grid.mapping_name] = ((), 0, grid.mapping_attributes)
    return coordinates
