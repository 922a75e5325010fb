"""Forecast arrays in memory: NumPy arrays, DataArrays and Datasets, of one case or of many.

A DataArray is read like a file with the same content (netcdf/rain/data_arrays.py), and its forecast keeps its dimensions and
coordinates. A NumPy array is rain rate in mm/h, NaN missing, row 0 northernmost, unless its units are given.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nowcast.errors import DataError, NotEnoughFrames, UsageError, counted
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.members.ensemble import MOST_MEMBERS, Ensemble
from nowcast.netcdf.forecast_writer import (
    OTHER_ATTRIBUTES,
    PROBABILITY,
    PROBABILITY_ATTRIBUTES,
    RAIN_ATTRIBUTES,
    THRESHOLD_ATTRIBUTES,
    variable_name,
)
from nowcast.netcdf.places.axes import axis_of_dimension
from nowcast.netcdf.rain.data_arrays import as_record
from nowcast.netcdf.rain.packing import HIGHEST, SENTINELS
from nowcast.netcdf.rain.units import meaning
from nowcast.netcdf.record import Record
from nowcast.netcdf.writing.members import REALIZATION_ATTRIBUTES
from nowcast.prediction.cases import read_past, usable_past
from nowcast.scores.functions import as_numpy

Array = np.ndarray | xr.DataArray | xr.Dataset
SHAPES = "(time, y, x) of one case, or (case, time, y, x) of many"
LOWEST = -0.01  # mm/h: lower numbers are not rounding errors of rain
FURTHER_FRAMES = 8  # frames before those that are used: their times give the time step of a record with gaps
MOST_MINUTES = 1440 * 366  # longest time step
DEFAULT_STEP = 300  # s: time step of arrays without times, for forecasters that take any


@dataclass(frozen=True)
class Asked:
    """What to forecast: the number of lead times, and the thresholds of probabilities (mm/h; () for fields).

    members: number of members to draw with `seed` instead; 0 for none
    """

    leads: int
    thresholds: tuple[float, ...] = ()
    members: int = 0
    seed: int = 0

    def __post_init__(self):
        if not (_is_number(self.leads, int, np.integer) and 1 <= self.leads <= 1000):
            raise UsageError(f"leads = {self.leads!r}: write how many lead times to forecast, such as 12")
        if not (_is_number(self.members, int, np.integer) and 0 <= self.members <= MOST_MEMBERS):
            raise UsageError(f"members = {self.members!r}: write how many members to draw, such as 24")
        if not (_is_number(self.seed, int, np.integer) and self.seed >= 0):
            raise UsageError(f"seed = {self.seed!r}: write a whole number from 0 on")

    def drawn(self, forecaster: Forecaster, past: np.ndarray) -> np.ndarray:
        """Return the members (member, lead, y, x) mm/h of a case (time, y, x)."""
        ensemble = Ensemble(forecaster, int(self.members), int(self.seed))
        return np.stack(list(ensemble.draw(past, self.leads)), axis=1)


def _is_number(value: Any, *types: type) -> bool:
    """Return whether a value is a number of these types: not a bool or a duration, which Python and NumPy count as integers."""
    return isinstance(value, types) and not isinstance(value, bool | np.timedelta64)


def forecast_array(
    forecaster: Forecaster, rain: Array, asked: Asked, *, units: str | None = None, time_step: float | None = None
) -> np.ndarray | xr.DataArray:
    """Forecast from the newest frames of an array.

        rain: (time, y, x), or (case, time, y, x)
        units: of a NumPy array, if it is not in mm/h
        time_step: minutes between the frames of a NumPy array
        returns: as `rain`, with lead times in place of time and, with thresholds or members, a dimension for them before

    Raises UsageError (exit 2) for wrong shapes and numbers, DataError (3) for what the forecaster cannot take,
    NotEnoughFrames (75) if past frames are absent.
    """
    reading = dict(forecaster.reading or {})
    if isinstance(rain, xr.DataArray | xr.Dataset):
        if units is not None or time_step is not None:
            raise UsageError("units and time_step belong to NumPy arrays: a DataArray has them in its attributes and times")
        return _forecast_labelled(forecaster, rain, asked, reading)
    past = _checked(rain, forecaster.name)
    if units is None and time_step is None:
        fields = _forecast_rates(forecaster, past if past.ndim == 4 else past[None], asked)
    else:
        labelled = [_labelled(case, units, time_step, forecaster) for case in (past if past.ndim == 4 else past[None])]
        fields = np.stack([_forecast_labelled(forecaster, case, asked, reading).values for case in labelled])
    return fields if past.ndim == 4 else fields[0]


def _checked(rain: Any, name: str) -> np.ndarray:
    """Return an array of numbers (time, y, x) or (case, time, y, x). Raises UsageError (exit 2) for anything else."""
    if rain is None or isinstance(rain, str | os.PathLike | Mapping):
        raise UsageError(
            f"rain is of the type {type(rain).__name__}, and no array.\nTo open a file: nowcast.open_records(path)[0]."
        )
    past = as_numpy(rain, "rain")
    if past.dtype.kind not in "fiu":
        raise UsageError(f"{name} takes numbers, and not an array of {past.dtype}")
    if past.ndim not in (3, 4):
        raise UsageError(f"rain has the shape {past.shape}: {name} takes {SHAPES}")
    if 0 in past.shape:
        raise UsageError(f"rain has the shape {past.shape}, and so no cells: {name} takes {SHAPES}")
    return past


def _forecast_rates(forecaster: Forecaster, past: np.ndarray, asked: Asked) -> np.ndarray:
    """Forecast cases (case, time, y, x) in mm/h; return (case, [threshold or member,] lead, y, x)."""
    past = past.astype(np.float32, copy=False)
    least, most = np.nanmin(past, initial=0), np.nanmax(past, initial=0)
    if least < LOWEST or most >= SENTINELS[0]:
        high = f"above {HIGHEST:,.0f}, up to {most:g}" if most > HIGHEST else f"up to {most:,.0f}, a usual code for missing"
        strange = f"below 0, down to {least:g}" if least < LOWEST else high
        raise UsageError(
            f"rain has numbers {strange}: these cannot be rain rates.\n"
            'Expected mm/h with NaN where nothing was observed; or give its units, such as units="dBZ".'
        )
    past = past if least == 0 else np.maximum(past, 0)  # as in records: a logarithm of rounding errors below 0 would be NaN
    past = forecaster.check_past(past[:, -forecaster.most_past_frames :])
    forecaster.check_grid(past.shape[2:], "rain")
    pasts = [_usable(case, number, forecaster) for number, case in enumerate(past)]
    if asked.members:
        return np.stack([asked.drawn(forecaster, case) for case in pasts])
    alike = len({len(case) for case in pasts}) == 1
    batches = [np.stack(pasts)] if alike else [case[None] for case in pasts]
    if not asked.thresholds:
        return np.concatenate([forecaster.forecast(batch, asked.leads) for batch in batches])
    made = (forecaster.forecast_and_exceedance(batch, asked.leads, asked.thresholds)[1] for batch in batches)
    return np.concatenate(list(made)).swapaxes(1, 2)


def _usable(past: np.ndarray, number: int, forecaster: Forecaster) -> np.ndarray:
    """Return the frames of a case (time, y, x) to forecast from. Raises NotEnoughFrames (exit 75) if too many are missing."""
    if (usable := usable_past(past, forecaster)) is not None:
        return usable
    if np.isnan(past[-1]).all():
        raise NotEnoughFrames(
            f"rain has no known cell in the newest frame of case {number}.\n"
            "Expected something observed there: leave that frame out, and lead times count from the one before."
        )
    missing = np.flatnonzero(np.isnan(past).all(axis=(1, 2))) - len(past)
    raise NotEnoughFrames(
        f"rain: {forecaster.name} needs {counted(forecaster.input_frames, 'frame')} with something observed.\n"
        f"In case {number} these are missing as a whole: {', '.join(map(str, missing))} (-1 is the newest)."
    )


def _labelled(case: np.ndarray, units: str | None, minutes: float | None, forecaster: Forecaster) -> xr.DataArray:
    """Return a NumPy array (time, y, x) as a DataArray with units and times.

    Raises UsageError (exit 2) for minutes that are not a number above 0, units that are no text, and amounts without minutes.
    """
    if minutes is not None and not (_is_number(minutes, int, float, np.number) and 0 < minutes < MOST_MINUTES):
        raise UsageError(f"time_step = {minutes!r}: write the minutes between two frames, such as 5")
    if not isinstance(units, str | None):
        raise UsageError(f'units = {units!r}: write them as text, such as "mm h-1" or "dBZ"')
    if minutes is None and units is not None and (meant := meaning(units)) and meant.kind == "amount":
        raise UsageError(f'units = "{units}" is an amount, of an unknown interval: give time_step, in minutes, such as 5')
    seconds = (forecaster.time_steps or (DEFAULT_STEP,))[0] if minutes is None else round(float(minutes) * 60)
    times = np.datetime64("2000-01-01T00:00:00", "s") + np.arange(len(case)) * np.timedelta64(seconds, "s")
    attributes = {"units": units or "mm h-1"}
    if (meant := meaning(attributes["units"])) and meant.kind == "amount":
        attributes["cell_methods"] = f"time: sum over {seconds} seconds"
    return xr.DataArray(case, {"time": times}, ("time", "y", "x"), "rain", attributes)


def _forecast_labelled(
    forecaster: Forecaster, rain: xr.DataArray | xr.Dataset, asked: Asked, reading: Mapping[str, Any]
) -> xr.DataArray:
    if isinstance(rain, xr.DataArray) and rain.dtype.kind == "b":  # whose units xarray keeps in comparisons, as rain >= 1
        raise UsageError(f"{forecaster.name} takes numbers, and not an array of {rain.dtype}")
    if isinstance(rain, xr.DataArray) and not _begins_with_cases(rain):
        single = [dim for dim in rain.dims if rain.sizes[dim] == 1]  # such as a height
        rain = rain.squeeze(single[0]) if single else rain
    if isinstance(rain, xr.DataArray) and (rain.ndim not in (3, 4) or not _begins_with_cases(rain)):
        sizes = ", ".join(f"{dim} {size}" for dim, size in rain.sizes.items())
        raise UsageError(f"{rain.name or 'rain'} has the dimensions ({sizes}): {forecaster.name} takes {SHAPES}")
    if not (isinstance(rain, xr.DataArray) and rain.ndim == 4):
        return _forecast_one(forecaster, rain, asked, reading)
    cases = rain.dims[0]
    forecasts = [_forecast_one(forecaster, rain.isel({cases: n}), asked, reading) for n in range(rain.sizes[cases])]
    if len({tuple(forecast.time.values) for forecast in forecasts}) > 1:
        forecasts = [forecast.swap_dims(time="forecast_period") for forecast in forecasts]
    return xr.concat(forecasts, dim=rain[cases] if cases in rain.coords else cases, coords="different", compat="equals")


def _begins_with_cases(rain: xr.DataArray) -> bool:
    """Return whether the first dimension of a four-dimensional array is that of cases, not of times, rows or columns."""
    if rain.ndim != 4:
        return True
    first, *others = (axis_of_dimension(rain, dim) for dim in rain.dims)
    if first == "T":  # the cases may be labelled by reference times if there is another time dimension
        return any(each.dtype.kind == "M" and set(each.dims) & set(rain.dims[1:]) for each in rain.coords.values())
    return first is None or first in others


def _forecast_one(
    forecaster: Forecaster, rain: xr.DataArray | xr.Dataset, asked: Asked, reading: Mapping[str, Any]
) -> xr.DataArray:
    with as_record(_newest(rain, forecaster), **reading) as record:
        step = forecaster.time_step(record)
        reference = record.times[-1]
        past = read_past(record.with_absent(forecaster.max_absent), reference, forecaster, step)
        adapted = forecaster.on_record(record, step)
        if not asked.thresholds and not asked.members:
            fields = adapted.forecast(past[None], asked.leads)[0]
        elif record.quantity.is_rain and asked.members:
            fields = asked.drawn(adapted, past)
        elif record.quantity.is_rain:
            fields = adapted.forecast_and_exceedance(past[None], asked.leads, asked.thresholds)[1][0].swapaxes(0, 1)
        else:
            what = "members" if asked.members else "probabilities"
            raise DataError(f"{record.name} holds {record.quantity}.\nExpected rain: {what} are those of a rain rate.")
    return _with_coordinates(fields, rain, record, asked, reference, step)


def _newest(rain: xr.DataArray | xr.Dataset, forecaster: Forecaster) -> xr.DataArray | xr.Dataset:
    """Return the frames that a forecaster may use: enough for its longest time step, and at least two to find the time step."""
    for name, coordinate in rain.coords.items():
        if coordinate.dims == (name,) and coordinate.dtype.kind == "M" and coordinate.size > 2:
            times = np.sort(coordinate.values.astype("datetime64[s]"))
            if np.isnat(times).any():  # for the reader to refuse
                return rain
            steps = np.diff(times).astype(np.int64)
            longest = max(int(np.median(steps)), *forecaster.time_steps, 1)
            first = min(times[-1] - np.timedelta64(longest * (forecaster.most_past_frames + FURTHER_FRAMES), "s"), times[-2])
            return rain.isel({name: coordinate.values.astype("datetime64[s]") >= first})
    return rain


def _with_coordinates(
    fields: np.ndarray,
    rain: xr.DataArray | xr.Dataset,
    record: Record,
    asked: Asked,
    reference: np.datetime64,
    step: np.timedelta64,
) -> xr.DataArray:
    """Return fields ([threshold or member,] lead, y, x) with the rows, columns and coordinates of `rain`."""
    grid, given = record.grid, rain.coords
    rows, columns = (slice(None, None, -1 if turned else 1) for turned in grid.turned)
    if grid.mapping_name and grid.mapping_name in getattr(rain, "data_vars", {}):
        given = given | {grid.mapping_name: rain[grid.mapping_name]}
    coordinates = {
        name: coordinate.variable
        for name, coordinate in given.items()
        if set(coordinate.dims) <= {grid.y_name, grid.x_name} and coordinate.dtype.kind not in "mM"
    }
    periods = (np.arange(1, asked.leads + 1) * step).astype("timedelta64[s]")
    coordinates |= {
        "time": ("time", reference + periods, {"standard_name": "time", "long_name": "valid time"}),
        "forecast_reference_time": ((), reference, {"standard_name": "forecast_reference_time"}),
        "forecast_period": ("time", periods.astype(np.int64), {"standard_name": "forecast_period", "units": "s"}),
    }
    dims, name = ("time", grid.y_name, grid.x_name), variable_name(record.quantity)
    attributes = dict(RAIN_ATTRIBUTES if record.quantity.is_rain else OTHER_ATTRIBUTES)
    if asked.thresholds:
        dims, name, attributes = ("threshold", *dims), PROBABILITY, dict(PROBABILITY_ATTRIBUTES)
        coordinates["threshold"] = ("threshold", list(asked.thresholds), THRESHOLD_ATTRIBUTES)
    if asked.members:
        dims = ("realization", *dims)
        number = np.arange(asked.members, dtype=np.int32)
        coordinates["realization"] = ("realization", number, dict(REALIZATION_ATTRIBUTES))
    if grid.mapping_name:
        attributes["grid_mapping"] = grid.mapping_name
    return xr.DataArray(fields[..., rows, columns], coordinates, dims, name, attributes)
