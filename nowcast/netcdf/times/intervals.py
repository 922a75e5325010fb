"""Find the interval that an accumulation covers, s."""

import re

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, text
from nowcast.netcdf.rain.packing import read_packing
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.epochs import decode_times
from nowcast.netcdf.times.values import read_times, unpacked
from nowcast.netcdf.times.variables import counts, find_times


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


def covers_all_since(dataset, field: Field, leads: np.ndarray, times: np.ndarray, where: str) -> bool:
    """Return whether the intervals of a forecast grow with the lead time: totals since its start.

    leads, times: (…,) timedelta64[s] and datetime64[s], lead times and valid times
    """
    spans = _spans(dataset, field, times, where)
    if spans is None or spans.size != leads.size or len(np.unique(leads)) < 2:
        return False
    return bool((spans.ravel() == leads.ravel()).all())


def _spans(dataset, field: Field, times: np.ndarray, where: str) -> np.ndarray | None:
    """Return the timedelta64[s] of each frame, from the bounds of the time variable or from a `start_time`; None without."""
    variable = dataset.variables.get(find_times(dataset, field.variable, field.frame_dims).valid)
    bounds = dataset.variables.get(text(variable, "bounds") or "")
    if bounds is not None and bounds.shape[-1:] == (2,):
        ends = _read_bounds(bounds, variable, times, f"{where}: {bounds.name}")
        return ends[..., 1] - ends[..., 0]
    start = dataset.variables.get("start_time")
    if start is None or not counts(start):
        return None
    return times - read_times(dataset, "start_time", field.frame_dims, where)


def _read_bounds(bounds, variable, times: np.ndarray, where: str) -> np.ndarray:
    """Read time bounds (…, 2) as datetime64[s]: in their own units and packing, else in those of the time variable.

    Bounds of a packed variable that say nothing of packing may be packed like it or not: read so that they end near the times.
    """
    declared = text(bounds, "units") or text(variable, "units") or ""
    calendar = text(bounds, "calendar") or text(variable, "calendar") or "standard"
    packing = read_packing(variable, where)
    stored, resolution = unpacked(bounds, bounds.dimensions, where)
    readings = [stored]
    if not {"scale_factor", "add_offset"} & set(attributes(bounds)):
        readings.append(stored * packing.scale_factor + packing.add_offset)
    decoded = [decode_times(reading, declared, calendar, where, resolution=resolution) for reading in readings]
    return min(decoded, key=lambda ends: abs(ends.max() - times.max())) if times.size else decoded[0]
