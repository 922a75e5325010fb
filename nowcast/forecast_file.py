"""Forecasts as CF-1.11 NetCDF-4: written whole or not at all, and read back (ours, and those that pysteps exports).

One reference time: `(time, y, x)` with a scalar forecast_reference_time. Many: `(forecast_reference_time,
forecast_period, y, x)` with a 2-D time. Fields come and go with row 0 northernmost; in the file rows follow y.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.atomic import replacing
from nowcast.errors import DataError, OutputError
from nowcast.fields import Field, find_field, text
from nowcast.files import OPEN_FILES, library_errors, open_dataset
from nowcast.grid import Grid, read_grid
from nowcast.netcdf import most_frequent_step
from nowcast.times import decode_times, interval_seconds, read_times, time_variable
from nowcast.units import Conversion

_FILL = np.float32(netCDF4.default_fillvals["f4"])
_STORAGE = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
_RAIN = {"standard_name": "rainfall_rate", "long_name": "forecast rain rate", "units": "mm h-1"}
_OTHER = {"long_name": "forecast value", "units": "1"}
_LONGEST = np.timedelta64(30, "D")  # a longer lead is a time counted from some epoch
_PROJ4 = ("proj4", "proj4_params", "proj4_string", "proj_string")


def write_forecast(
    path: Path,
    cases: Iterable[tuple[np.datetime64, np.ndarray]],
    *,
    grid: Grid,
    lead_times: np.ndarray,
    quantity: str,
    attributes: dict,
    single: bool,
    overwrite: bool = False,
) -> None:
    """Write forecasts, one (reference time, fields) after the other; fields are (lead, y, x), north first, NaN missing.

    lead_times: timedelta64, one per field. attributes: the global ones (title, institution, source, history,
    references). Raises OutputError where the file exists already or cannot be written; nothing is left behind then.
    Errors of `cases` itself pass through.
    """
    path = Path(path)
    seconds = np.asarray(lead_times, "timedelta64[s]").astype(np.int64)
    _check_free(path, overwrite)
    with replacing(path) as partial:
        with _output_errors(path):
            dataset = netCDF4.Dataset(partial, "w", format="NETCDF4")
        try:
            layout = _create_single if single else _create_many
            _write_cases(dataset, path, iter(cases), layout, grid, seconds, quantity, attributes)
        finally:
            with _output_errors(path):
                dataset.close()
        _check_mapping(partial, grid, quantity)


def variable_name(quantity: str) -> str:
    """pysteps looks for `precip_intensity`; what is not rain is not called so."""
    return "precip_intensity" if quantity == "rain_rate" else "value"


def _write_cases(dataset, path, cases, layout, grid, seconds, quantity, attributes) -> None:
    """Stream the cases into an open dataset: one case in memory at a time."""
    first = next(cases, None)
    assert first is not None, "no forecast to write"
    reference = np.datetime64(first[0], "s")
    with _output_errors(path):
        _write_globals(dataset, grid, attributes)
        _write_grid(dataset, grid)
        layout(dataset, reference, seconds)
        variable = _create_variable(dataset, grid, quantity)
    for case, (time, fields) in enumerate(itertools.chain([first], cases)):
        fields = np.where(np.isnan(fields), _FILL, fields).astype(np.float32, copy=False)
        assert fields.shape == (len(seconds), *grid.shape), f"{fields.shape} for {len(seconds)} leads on {grid.shape}"
        fields = fields[:, ::-1] if grid.y_ascending else fields
        with _output_errors(path):
            if "forecast_reference_time" not in dataset.dimensions:
                assert case == 0, "one reference time to a file of this layout"
                variable[:] = fields
                continue
            since = int((np.datetime64(time, "s") - reference).astype(np.int64))
            dataset["forecast_reference_time"][case] = since
            dataset["time"][case] = since + seconds
            variable[case] = fields


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


def _create_variable(dataset, grid: Grid, quantity: str):
    single = "time" in dataset.dimensions
    dims = ("time",) if single else ("forecast_reference_time", "forecast_period")
    chunks = [1] * len(dims) + list(grid.shape)
    dims = (*dims, grid.y_name, grid.x_name)
    name = variable_name(quantity)
    variable = dataset.createVariable(name, "f4", dims, fill_value=_FILL, chunksizes=chunks, **_STORAGE)
    variable.setncatts(_RAIN if quantity == "rain_rate" else _OTHER)
    variable.coordinates = "forecast_reference_time forecast_period" if single else "time"
    if grid.mapping_name:
        variable.grid_mapping = grid.mapping_name
    return variable


def _check_mapping(partial: Path, grid: Grid, quantity: str) -> None:
    """A forecast that has lost its map projection looks like any other: look before it gets its name."""
    with open_dataset(partial) as dataset:
        written = text(dataset[variable_name(quantity)], "grid_mapping")
        assert written == grid.mapping_name, f"grid_mapping is {written}, not {grid.mapping_name}"
        assert written is None or written in dataset.variables


@dataclass(frozen=True, eq=False)
class ForecastFile:
    """Forecasts in a file: one case per reference time (datetime64[s]), at the same lead times (timedelta64[s])."""

    path: Path
    reference_times: np.ndarray
    lead_times: np.ndarray
    grid: Grid
    quantity: str
    field: Field
    conversion: Conversion
    case_dim: str | None

    def read(self, case: int) -> np.ndarray:
        """(lead, y, x) float32 mm/h, NaN missing, row 0 northernmost."""
        if not 0 <= case < len(self.reference_times):
            raise IndexError(f"case {case} of {len(self.reference_times)}")
        frames = {dim: case if dim == self.case_dim else slice(None) for dim in self.field.frame_dims}
        with OPEN_FILES.lock, open_dataset(self.path) as dataset:
            try:
                fields = self.field.read(dataset, frames, self.conversion, flip=self.grid.y_ascending)
            except (OSError, RuntimeError, IndexError, KeyError, ValueError) as error:
                raise DataError(f"{self.path}: case {case} cannot be read ({error}).\nThe file is damaged.") from error
        return fields.reshape(len(self.lead_times), *self.grid.shape)


def read_forecast(path: str | Path, *, variable: str | None = None, zr_a: float = 200.0, zr_b: float = 1.6) -> ForecastFile:
    """Open a forecast file in either layout, or one that pysteps exported; fields are read case by case.

    Raises DataError where the file is none, or does not say which reference times its forecasts have.
    """
    path, where = Path(path), str(path)
    with library_errors(path), open_dataset(path) as dataset:
        found = find_field(dataset, where, variable)
        references, valid, case_dim = _forecast_times(dataset, found, where)
        leads = (valid - references[:, None]).astype("timedelta64[s]")
        if (leads != leads[0]).any():
            raise DataError(f"{where}: lead times differ between reference times.\nRight would be the same for all.")
        interval = interval_seconds(dataset, found, valid, where) if found.kind == "amount" else None
        step = most_frequent_step(leads[0])
        if interval is None and not np.isnat(step):
            interval = step.astype(np.int64).item()
        conversion = found.conversion(interval_seconds=interval, zr_a=zr_a, zr_b=zr_b, where=where)
        grid = read_grid(dataset, found, where)
    return ForecastFile(path, references, leads[0], grid, conversion.quantity, found, conversion, case_dim)


def _forecast_times(dataset, found: Field, where: str) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Reference times (case,), valid times (case, lead) and the dimension of the cases."""
    name, reference = (time_variable(dataset, found, which) for which in ("time", "forecast_reference_time"))
    if name is None:
        raise DataError(f"{where}: {found.variable} has no times.\nRight would be a time for every lead time.")
    if reference is None:
        # pysteps counts its times from the reference time and says no more.
        units, calendar = text(dataset[name], "units"), text(dataset[name], "calendar") or "standard"
        references = decode_times(np.zeros(1, np.int64), units, calendar, f"{where}: {name}")
    else:
        references = np.atleast_1d(read_times(dataset, reference, found.frame_dims, where))
    over = dataset[reference].dimensions if reference else ()
    case_dim = next((dim for dim in found.frame_dims if dim in over), None)
    lead_dims = tuple(dim for dim in found.frame_dims if dim != case_dim)
    if len(lead_dims) > 1:
        dims = ", ".join(lead_dims)
        raise DataError(f"{where}: {found.variable} has dimensions {dims}, y and x.\nRight would be (time, y, x).")
    dims = (*((case_dim,) if case_dim else ()), *lead_dims)
    valid = read_times(dataset, name, dims, where).reshape(len(references), -1)
    longest = (valid - references[:, None]).max() if valid.size else np.timedelta64(0, "s")
    if not np.timedelta64(0, "s") < longest < _LONGEST:
        raise DataError(f"{where} does not say when its forecast starts.\nRight would be a forecast_reference_time.")
    return references, valid, case_dim


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder.\nRight would be the name of a NetCDF file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.\nChoose another name, or replace it with --overwrite.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}.")


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {reason}.\nIs the disk full, or the folder read-only?") from error
