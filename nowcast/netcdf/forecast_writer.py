"""Forecasts as CF-1.11 NetCDF-4: written whole or not at all. forecast_reader reads them back.

One reference time: `(time, y, x)` with a scalar forecast_reference_time. Many: `(forecast_reference_time,
forecast_period, y, x)` with a 2-D time. Exceedance probabilities, where there are any, stand beside the fields with a
dimension `threshold` before that of the lead times. Fields come and go with row 0 northernmost; in the file rows follow y.
"""

import contextlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.errors import DataError, OutputError
from nowcast.netcdf.files import OPEN_FILES, open_dataset
from nowcast.netcdf.grid import Grid
from nowcast.netcdf.rain_variable import text
from nowcast.quantity import Quantity
from nowcast.runtime.outputs import free_space, may_write, replacing, size

_FILL = np.float32(netCDF4.default_fillvals["f4"])
_STORAGE = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
_RAIN = {"standard_name": "rainfall_rate", "long_name": "forecast rain rate", "units": "mm h-1"}
_OTHER = {"long_name": "forecast value", "units": "1"}
PROBABILITY = "probability_of_rainfall_above_threshold"
# improver goes by the long name, and by the threshold's standard_name and attribute
_PROBABILITY = {"long_name": "probability_of_rainfall_rate_above_threshold", "units": "1"}
_THRESHOLD = {
    "standard_name": "rainfall_rate",
    "long_name": "threshold of the rain rate",
    "units": "mm h-1",
    "spp__relative_to_threshold": "greater_than_or_equal_to",
}
# Packed: nobody knows a probability to a ten-thousandth, and two bytes compress to a fraction of float32's four.
_SCALE, _PACKED_FILL = 1e-4, np.int16(netCDF4.default_fillvals["i2"])
_PROJ4 = ("proj4", "proj4_params", "proj4_string", "proj_string")


def write_forecast(
    path: Path,
    cases: Iterable[tuple],
    *,
    grid: Grid,
    lead_times: np.ndarray,
    quantity: Quantity,
    attributes: dict,
    single: bool,
    thresholds: Sequence[float] = (),
    overwrite: bool = False,
) -> None:
    """Write forecasts, one (reference time, fields) after the other; fields are (lead, y, x), north first, NaN missing.

    With `thresholds`, mm/h ascending, each case has as a third the probabilities (lead, threshold, y, x) of as much or more,
    0 to 1, kept to 0.0001. lead_times: timedelta64, one per field. attributes: the global ones (title, institution, source,
    history, references). Raises OutputError where the file exists already or cannot be written; nothing is left behind
    then. Errors of `cases` itself pass through.
    """
    path = Path(path)
    seconds = np.asarray(lead_times, "timedelta64[s]").astype(np.int64)
    may_write(path, overwrite=overwrite)
    with replacing(path, overwrite=overwrite) as partial:
        with _library(path):
            dataset = netCDF4.Dataset(partial, "w", format="NETCDF4")
        try:
            with _library(path):
                _write_globals(dataset, grid, attributes)
                _write_grid(dataset, grid)
            checksums = _write_cases(dataset, path, iter(cases), grid, seconds, quantity, tuple(thresholds), single=single)
        finally:
            with _library(path):
                dataset.close()
        _check_written(partial, path, grid, checksums)


def variable_name(quantity: Quantity) -> str:
    """pysteps looks for `precip_intensity`; what is not rain is not called so."""
    return "precip_intensity" if quantity.is_rain else "value"


def _write_cases(dataset, path, cases, grid, seconds, quantity, thresholds, *, single) -> dict[str, list[int]]:
    """Write the cases one by one into an open dataset; return the checksums of each variable, one per case.

    One case is in memory at a time. The lock is free while the next case is awaited: the threads that make it read records.
    """
    first = next(cases, None)
    assert first is not None, "no forecast to write"
    reference = np.datetime64(first[0], "s")
    names = [variable_name(quantity), *([PROBABILITY] if thresholds else [])]
    with _library(path):
        (_create_single if single else _create_many)(dataset, reference, seconds)
        _create_fields(dataset, grid, quantity)
        if thresholds:
            _create_probabilities(dataset, grid, thresholds)
    checksums: dict[str, list[int]] = {name: [] for name in names}
    for case, (time, *fields) in enumerate(itertools.chain([first], cases)):
        assert not (single and case), "one reference time to a file of this layout"
        if not single:
            since = int((np.datetime64(time, "s") - reference).astype(np.int64))
            with _library(path):
                dataset["forecast_reference_time"][case] = since
                dataset["time"][case] = since + seconds
        for name, values in zip(names, fields, strict=True):
            values = values[..., ::-1, :] if grid.y_ascending else values
            stored = _packed(values) if name == PROBABILITY else np.ascontiguousarray(_filled(values))
            checksums[name].append(zlib.crc32(stored))
            with _library(path):
                variable = dataset[name]
                shape = variable.shape if single else variable.shape[1:]
                assert stored.shape == shape, f"{name} of {stored.shape} in place of {shape}"
                variable[... if single else case] = stored
    return checksums


def _filled(fields: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(fields), _FILL, fields).astype(np.float32, copy=False)


def _packed(probabilities: np.ndarray) -> np.ndarray:
    """(lead, threshold, y, x) of 0 to 1 -> (threshold, lead, y, x) of int16; temporaries are of one lead."""
    leads, thresholds, *grid = probabilities.shape
    stored = np.empty((thresholds, leads, *grid), np.int16)
    for lead, part in enumerate(probabilities):
        missing = np.isnan(part)
        stored[:, lead] = np.where(missing, _PACKED_FILL, np.rint(np.where(missing, 0, part) / _SCALE))
    return stored


def _write_globals(dataset, grid: Grid, attributes: dict) -> None:
    proj4 = [grid.mapping_attributes[name] for name in _PROJ4 if name in grid.mapping_attributes]
    projection = {"projection": proj4[0]} if proj4 else {}  # where pysteps looks for it
    dataset.setncatts({"Conventions": "CF-1.11"} | attributes | projection)


def _write_grid(dataset, grid: Grid) -> None:
    for name, values, found in ((grid.y_name, grid.y, grid.y_attributes), (grid.x_name, grid.x, grid.x_attributes)):
        dataset.createDimension(name, len(values))
        coordinate = dataset.createVariable(name, "f8", (name,), fletcher32=True)
        for attribute, value in found.items():
            # Limits must have the coordinate's type, and the variables that bounds point to stay behind.
            if attribute != "bounds":
                limit = attribute.startswith("valid_") or attribute == "actual_range"
                coordinate.setncattr(attribute, np.asarray(value, np.float64) if limit else value)
        coordinate[:] = values
    if grid.mapping_name:
        dataset.createVariable(grid.mapping_name, "i4").setncatts(grid.mapping_attributes)


def _create_single(dataset, reference: np.datetime64, seconds: np.ndarray) -> None:
    dataset.createDimension("time", len(seconds))
    _create_time(dataset, "time", ("time",), "time", reference)[:] = seconds
    dataset["time"].axis = "T"
    _create_time(dataset, "forecast_reference_time", (), "forecast_reference_time", reference)[...] = 0
    _create_period(dataset, "time")[:] = seconds


def _create_many(dataset, reference: np.datetime64, seconds: np.ndarray) -> None:
    dataset.createDimension("forecast_reference_time", None)
    dataset.createDimension("forecast_period", len(seconds))
    _create_time(dataset, "forecast_reference_time", ("forecast_reference_time",), "forecast_reference_time", reference)
    _create_time(dataset, "time", ("forecast_reference_time", "forecast_period"), "time", reference)
    _create_period(dataset, "forecast_period")[:] = seconds


def _create_time(dataset, name: str, dims: tuple[str, ...], standard_name: str, since: np.datetime64):
    # int32, since CF before 1.9 knows no int64; no fill, which a coordinate may not have.
    chunks = [len(dataset.dimensions[dim]) or 256 for dim in dims] or None
    variable = dataset.createVariable(name, "i4", dims, fletcher32=bool(dims), chunksizes=chunks)
    variable.setncatts({
        "standard_name": standard_name,
        "long_name": {"time": "valid time"}.get(name, "time of the last frame used"),
        "units": f"seconds since {str(since).replace('T', ' ')}",
        "calendar": "standard",
        "units_metadata": "leap_seconds: none",
    })  # fmt: skip
    return variable


def _create_period(dataset, dim: str):
    variable = dataset.createVariable("forecast_period", "i4", (dim,), fletcher32=True)
    variable.setncatts({"standard_name": "forecast_period", "long_name": "lead time", "units": "s"})
    return variable


def _create_fields(dataset, grid: Grid, quantity: Quantity):
    dims = ("time",) if _is_single(dataset) else ("forecast_reference_time", "forecast_period")
    variable = create_variable(dataset, grid, variable_name(quantity), "f4", dims, _FILL)
    variable.setncatts(_RAIN if quantity.is_rain else _OTHER)
    return variable


def _create_probabilities(dataset, grid: Grid, thresholds: Sequence[float]):
    dataset.createDimension("threshold", len(thresholds))
    coordinate = dataset.createVariable("threshold", "f8", ("threshold",), fletcher32=True)
    coordinate.setncatts(_THRESHOLD)
    coordinate[:] = thresholds
    times = ("threshold", "time") if _is_single(dataset) else ("forecast_reference_time", "threshold", "forecast_period")
    variable = create_variable(dataset, grid, PROBABILITY, "i2", times, _PACKED_FILL)
    variable.setncatts(_PROBABILITY | {"scale_factor": _SCALE})
    return variable


def _is_single(dataset) -> bool:
    return "time" in dataset.dimensions


def create_variable(dataset, grid: Grid, name: str, kind: str, dims: tuple[str, ...], fill):
    """A variable over these dimensions and the grid, in chunks of one frame."""
    chunks = [1] * len(dims) + list(grid.shape)
    variable = dataset.createVariable(
        name, kind, (*dims, grid.y_name, grid.x_name), fill_value=fill, chunksizes=chunks, **_STORAGE
    )
    variable.set_auto_maskandscale(False)  # what is stored is made above, and checked by its sum
    variable.coordinates = "forecast_reference_time forecast_period" if _is_single(dataset) else "time"
    if grid.mapping_name:
        variable.grid_mapping = grid.mapping_name
    return variable


def _check_written(partial: Path, path: Path, grid: Grid, checksums: Mapping[str, Sequence[int]]) -> None:
    """Read the file back before it gets its name; OutputError (exit 5) if it is not what was written.

    Not every disk that is full or failing reports an error, and a forecast without its projection looks like any other.
    """
    try:
        with OPEN_FILES.lock, open_dataset(partial) as dataset:
            same = all(_is_as_written(dataset, name, grid, expected) for name, expected in checksums.items())
    except (DataError, OSError, RuntimeError, IndexError) as error:
        raise OutputError(f"{path} cannot be written: it cannot be read back ({str(error).splitlines()[0]}).") from error
    if not same:
        raise OutputError(f"{path} cannot be written: it does not read back as it was written.\nIs the disk failing?")


def _is_as_written(dataset, name: str, grid: Grid, checksums: Sequence[int]) -> bool:
    variable = dataset[name]
    written = text(variable, "grid_mapping")
    assert written == grid.mapping_name, f"grid_mapping is {written}, not {grid.mapping_name}"
    assert written is None or written in dataset.variables
    cases = (variable[:] if _is_single(dataset) else variable[case] for case in range(len(checksums)))
    return [zlib.crc32(np.ascontiguousarray(fields)) for fields in cases] == list(checksums)


@contextlib.contextmanager
def _library(path: Path) -> Iterator[None]:
    """Hold the lock of the NetCDF library for calls that write; their errors become OutputError (exit 5).

    Nothing else may be waited for inside: another thread may need the lock to go on.
    """
    try:
        with OPEN_FILES.lock:
            yield
    except (OSError, RuntimeError) as error:
        reason, free = getattr(error, "strerror", None) or error, "unknown"
        with contextlib.suppress(OSError):
            free = size(free_space(path.parent))
        hint = f"Is the disk full (free: {free}), or the folder read-only?"
        raise OutputError(f"{path} cannot be written: {reason}.\n{hint}") from error
