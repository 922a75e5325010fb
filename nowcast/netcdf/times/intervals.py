"""Find the interval that an accumulation covers, s."""

import re

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import text
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.epochs import decode_times
from nowcast.netcdf.times.values import read_times
from nowcast.netcdf.times.variables import time_variable


def interval_seconds(dataset, field: Field, times: np.ndarray, where: str) -> float | None:
    """Return the seconds that each frame accumulates over: by time bounds, a start_time, or cell_methods; None if not stated.

        times: (time,) datetime64[s] of the frames

    In this order because, strictly, the interval of cell_methods is that between the numbers that were summed. Raises DataError
    (exit 3) if the frames of a file differ.
    """
    spans = _spans(dataset, field, times, where)
    if spans is not None:
        lengths = np.unique(spans.astype(np.int64))
        if len(lengths) > 1:
            raise DataError(
                f"{where}: {field.variable} accumulates over {lengths[0]} to {lengths[-1]} s.\n"
                "Expected one interval for all frames of a file."
            )
        return float(lengths[0])
    methods = text(dataset.variables[field.variable], "cell_methods") or ""
    interval = re.search(r"interval:\s*([\d.]+)\s*([A-Za-z]+)", methods)
    try:
        return float(cf_units.Unit(interval[2]).convert(float(interval[1]), "s")) if interval else None
    except ValueError:
        return None


def _spans(dataset, field: Field, times: np.ndarray, where: str) -> np.ndarray | None:
    """Return the timedelta64[s] of each frame, from the bounds of the time variable or from a `start_time`; None without."""
    variable = dataset.variables[time_variable(dataset, field)]
    bounds = dataset.variables.get(text(variable, "bounds") or "")
    if bounds is not None and bounds.shape[-1:] == (2,):
        calendar = text(variable, "calendar") or "standard"
        ends = decode_times(np.asarray(bounds[:]), text(variable, "units") or "", calendar, f"{where}: {bounds.name}")
        return ends[..., 1] - ends[..., 0]
    start = dataset.variables.get("start_time")
    if start is None or " since " not in (text(start, "units") or ""):
        return None
    return times - read_times(dataset, "start_time", field.frame_dims, where)
