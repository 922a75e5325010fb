"""Write forecasts as CF-1.11 NetCDF-4, completely or not at all. forecast_reader.py reads them.

One reference time: `(time, y, x)` with a scalar forecast_reference_time. Many: `(forecast_reference_time, forecast_period, y,
x)` with a 2-D time. Exceedance probabilities, if there are any, are a second variable with a dimension `threshold` before that
of lead times; accumulations have times of their own. Fields have row 0 northernmost; in the file, rows are in the order of the
coordinate y.
"""

import itertools
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.netcdf.accumulations import Accumulation
from nowcast.netcdf.attributes import OWN_RAIN, text
from nowcast.netcdf.forecast_layout import OTHER_NAME
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.writing.new_file import COMPRESSION, auxiliary, new_file, writing
from nowcast.quantity import Quantity

_FILL = np.float32(netCDF4.default_fillvals["f4"])
RAIN_ATTRIBUTES = {"standard_name": "rainfall_rate", "long_name": "forecast rain rate", "units": "mm h-1"}
SUM_ATTRIBUTES = {"standard_name": "lwe_thickness_of_precipitation_amount", "units": "mm"}
OTHER_ATTRIBUTES = {"long_name": "forecast value", "units": "1"}
PROBABILITY = "probability_of_rainfall_above_threshold"
# improver needs the long name, and the standard_name and the attribute spp__… of the threshold
PROBABILITY_ATTRIBUTES = {"long_name": "probability_of_rainfall_rate_above_threshold", "units": "1"}
THRESHOLD_ATTRIBUTES = {
    "standard_name": "rainfall_rate",
    "long_name": "threshold of the rain rate",
    "units": "mm h-1",
    "spp__relative_to_threshold": "greater_than_or_equal_to",
}
# Probabilities are packed to 0.0001, more than their accuracy: two bytes compress to a fraction of the four of float32.
_SCALE, _PACKED_FILL = 1e-4, np.int16(netCDF4.default_fillvals["i2"])


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
    sums: Sequence[Accumulation] = (),
    overwrite: bool = False,
) -> None:
    """Write forecasts to a file, case by case.

        cases: (reference time, fields) or, with `thresholds`, (reference time, fields, probabilities)
        fields: (lead, y, x) mm/h, row 0 northernmost, NaN missing
        probabilities: (lead, threshold, y, x) from 0 to 1 of at least the threshold, stored to 0.0001
        lead_times: (lead,) timedelta64
        attributes: global attributes (title, institution, source, history, references)
        single: write the form for one reference time, which `cases` must then have
        thresholds: mm/h, ascending; sums: accumulations to write beside the fields

    Raises OutputError (exit 5) if the file exists or cannot be written; then none is left. Errors of `cases` pass through.
    """
    path, checksums = Path(path), {}
    seconds = np.asarray(lead_times, "timedelta64[s]").astype(np.int64)

    def is_as_written(dataset) -> bool:
        return all(_is_as_written(dataset, name, grid, expected) for name, expected in checksums.items())

    with new_file(path, grid, attributes, is_as_written, overwrite=overwrite) as dataset:
        checksums |= _write_cases(dataset, path, iter(cases), grid, seconds, quantity, thresholds, sums, single=single)


def variable_name(quantity: Quantity) -> str:
    """Return the name of the variable: for rain `precip_intensity`, which pysteps looks for."""
    return OWN_RAIN if quantity.is_rain else OTHER_NAME


def _write_cases(dataset, path, cases, grid, seconds, quantity, thresholds, sums, *, single) -> dict[str, list[int]]:
    """Write the cases one by one into an open dataset; return the checksums of each variable, one per case.

    One case is in memory at a time. The lock is released while the next case is computed, because that reads records.
    """
    first = next(cases, None)
    assert first is not None, "no forecast to write"
    reference = np.datetime64(first[0], "s")
    names = [variable_name(quantity), *([PROBABILITY] if thresholds else []), *(each.name for each in sums)]
    with writing(path):
        (create_single if single else create_many)(dataset, reference, seconds)
        _create_fields(dataset, grid, quantity)
        if thresholds:
            _create_probabilities(dataset, grid, thresholds)
        for each in sums:
            _create_sums(dataset, grid, each, reference)
    checksums: dict[str, list[int]] = {name: [] for name in names}
    for case, (time, *fields) in enumerate(itertools.chain([first], cases)):
        assert not (single and case), "one reference time to a file of this layout"
        if not single:
            with writing(path):
                write_case_times(dataset, case, np.datetime64(time, "s") - reference, seconds, sums)
        for name, values in zip(names, [*fields, *(each.of(fields[0]) for each in sums)], strict=True):
            values = values[..., :: -1 if grid.y_ascending else 1, :: -1 if grid.x_descending else 1]
            stored = _packed(values) if name == PROBABILITY else np.ascontiguousarray(_filled(values))
            checksums[name].append(zlib.crc32(stored))
            with writing(path):
                variable = dataset[name]
                shape = variable.shape if single else variable.shape[1:]
                assert stored.shape == shape, f"{name} of {stored.shape} in place of {shape}"
                variable[... if single else case] = stored
    return checksums


def write_case_times(dataset, case: int, after: np.timedelta64, seconds: np.ndarray, sums: Sequence[Accumulation]) -> None:
    """Write the times of a case in a file of many reference times.

    after: time from the first reference time to that of the case
    seconds: (lead,) lead times, s
    """
    since = int(after.astype(np.int64))
    dataset["forecast_reference_time"][case] = since
    dataset["time"][case] = since + seconds
    for each in sums:
        dataset[f"time{each.ending}"][case] = since + each.ends
        dataset[f"time{each.ending}_bounds"][case] = since + each.bounds


def _filled(fields: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(fields), _FILL, fields).astype(np.float32, copy=False)


def _packed(probabilities: np.ndarray) -> np.ndarray:
    """Pack probabilities, lead by lead to save memory.

    probabilities: (lead, threshold, y, x) from 0 to 1
    returns: (threshold, lead, y, x) int16
    """
    leads, thresholds, *grid = probabilities.shape
    stored = np.empty((thresholds, leads, *grid), np.int16)
    for lead, values in enumerate(probabilities):
        missing = np.isnan(values)
        stored[:, lead] = np.where(missing, _PACKED_FILL, np.rint(np.where(missing, 0, values) / _SCALE))
    return stored


def create_single(dataset, reference: np.datetime64, seconds: np.ndarray) -> None:
    """Create the time variables of a file with one reference time; seconds: (lead,) lead times, s."""
    dataset.createDimension("time", len(seconds))
    _create_time(dataset, "time", ("time",), "time", reference)[:] = seconds
    dataset["time"].axis = "T"
    _create_time(dataset, "forecast_reference_time", (), "forecast_reference_time", reference)[...] = 0
    _create_period(dataset, "time")[:] = seconds


def create_many(dataset, reference: np.datetime64, seconds: np.ndarray) -> None:
    """Create the time variables of a file with many reference times; seconds: (lead,) lead times, s."""
    dataset.createDimension("forecast_reference_time", None)
    dataset.createDimension("forecast_period", len(seconds))
    _create_time(dataset, "forecast_reference_time", ("forecast_reference_time",), "forecast_reference_time", reference)
    _create_time(dataset, "time", ("forecast_reference_time", "forecast_period"), "time", reference)
    _create_period(dataset, "forecast_period")[:] = seconds


def _create_time(dataset, name: str, dims: tuple[str, ...], standard_name: str, since: np.datetime64):
    # int32, because CF before 1.9 has no int64; no fill value, which coordinates may not have
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


def _create_period(dataset, dim: str, name: str = "forecast_period"):
    variable = dataset.createVariable(name, "i4", (dim,), fletcher32=True)
    variable.setncatts({"standard_name": "forecast_period", "long_name": "lead time", "units": "s"})
    return variable


def _create_fields(dataset, grid: Grid, quantity: Quantity):
    dims = ("time",) if _is_single(dataset) else ("forecast_reference_time", "forecast_period")
    variable = create_variable(dataset, grid, variable_name(quantity), "f4", dims, _FILL)
    variable.setncatts(RAIN_ATTRIBUTES if quantity.is_rain else OTHER_ATTRIBUTES)
    return variable


def _create_probabilities(dataset, grid: Grid, thresholds: Sequence[float]):
    dataset.createDimension("threshold", len(thresholds))
    coordinate = dataset.createVariable("threshold", "f8", ("threshold",), fletcher32=True)
    coordinate.setncatts(THRESHOLD_ATTRIBUTES)
    coordinate[:] = thresholds
    times = ("threshold", "time") if _is_single(dataset) else ("forecast_reference_time", "threshold", "forecast_period")
    variable = create_variable(dataset, grid, PROBABILITY, "i2", times, _PACKED_FILL)
    variable.setncatts(PROBABILITY_ATTRIBUTES | {"scale_factor": _SCALE})
    return variable


def _create_sums(dataset, grid: Grid, sums: Accumulation, reference: np.datetime64) -> None:
    """Create the variable of an accumulation with its times."""
    dims, coordinates = create_sum_times(dataset, sums, reference)
    variable = create_variable(dataset, grid, sums.name, "f4", dims, _FILL, coordinates)
    variable.setncatts(SUM_ATTRIBUTES | sums.described(single=_is_single(dataset)))


def create_sum_times(dataset, sums: Accumulation, reference: np.datetime64) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Create the times, time bounds and lead times of an accumulation, and fill them for a single case.

    returns: the dimensions of its fields before those of the grid, and the names of their auxiliary coordinates
    """
    time, period = f"time{sums.ending}", f"forecast_period{sums.ending}"
    dims = (time,) if _is_single(dataset) else ("forecast_reference_time", period)
    dataset.createDimension(dims[-1], sums.num_intervals)
    if "bounds" not in dataset.dimensions:
        dataset.createDimension("bounds", 2)
    variable = _create_time(dataset, time, dims, "time", reference)
    variable.setncatts({"long_name": "end of the interval", "bounds": f"{time}_bounds"})
    bounds = dataset.createVariable(f"{time}_bounds", "i4", (*dims, "bounds"), fletcher32=True)
    if _is_single(dataset):
        variable.axis = "T"
        variable[:], bounds[:] = sums.ends, sums.bounds
    _create_period(dataset, dims[-1], period)[:] = sums.ends
    return dims, ("forecast_reference_time", period) if _is_single(dataset) else (time,)


def _is_single(dataset) -> bool:
    return "time" in dataset.dimensions


def create_variable(dataset, grid: Grid, name: str, kind: str, dims: tuple[str, ...], fill, times: tuple[str, ...] = ()):
    """Create a variable over these dimensions and the grid, in chunks of one frame; times: its auxiliary time coordinates."""
    chunks = [1] * len(dims) + list(grid.shape)
    variable = dataset.createVariable(
        name, kind, (*dims, grid.y_name, grid.x_name), fill_value=fill, chunksizes=chunks, **COMPRESSION
    )
    variable.set_auto_maskandscale(False)  # the stored numbers are computed here, so that their checksums are known
    times = times or (("forecast_reference_time", "forecast_period") if _is_single(dataset) else ("time",))
    variable.coordinates = " ".join([*times, *auxiliary(grid)])
    if grid.mapping_name:
        variable.grid_mapping = grid.mapping_name
    return variable


def _is_as_written(dataset, name: str, grid: Grid, checksums: Sequence[int]) -> bool:
    variable = dataset[name]
    written = text(variable, "grid_mapping")
    assert written == grid.mapping_name, f"grid_mapping is {written}, not {grid.mapping_name}"
    assert written is None or written in dataset.variables
    cases = (variable[:] if _is_single(dataset) else variable[case] for case in range(len(checksums)))
    return [zlib.crc32(np.ascontiguousarray(fields)) for fields in cases] == list(checksums)
