"""What a forecast file holds: its variable, and which dimension is which — reference and lead times, members, thresholds.

Ours, pysteps' exports and those of CF programs such as improver are understood. A reference time that is not stated is
inferred where nothing else can be meant, and refused elsewhere.
"""

import math
import re
from dataclasses import dataclass, replace

import cf_units
import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.grid import MAX_COORDINATE
from nowcast.netcdf.rain_variable import Field, find_field, is_numeric, text
from nowcast.netcdf.record import most_frequent_step
from nowcast.netcdf.times import decode_times, interval_seconds, read_times, time_variable
from nowcast.netcdf.units import RAIN_NAMES, Conversion, to_rain_rate
from nowcast.quantity import RAIN_RATE, Quantity

_MEMBERS = {"ens_number", "realization", "realisation", "member", "number", "ensemble", "ensemble_member", "ens"}
_PERIODS = {"forecast_period", "lead_time", "leadtime"}
_PROBABILITY = re.compile(r"probability_of_\w+_above_threshold")
_OTHER = "value"  # what our own forecasts call a quantity that is not rain
_LONGEST = np.timedelta64(30, "D")  # a longer lead is a time counted from some epoch


@dataclass(frozen=True)
class Layout:
    """How the forecasts of a file are read. `thresholds` (mm/h) are those of exceedance probabilities, else empty."""

    field: Field
    conversion: Conversion
    time_dims: tuple[str, ...]
    member_dim: str | None
    num_members: int
    threshold_dim: str | None
    thresholds: tuple[float, ...]

    @property
    def kind(self) -> str:
        """deterministic, ensemble or probability."""
        if self.thresholds:
            return "probability"
        return "ensemble" if self.member_dim else "deterministic"

    @property
    def quantity(self) -> Quantity:
        return RAIN_RATE if self.thresholds else self.conversion.quantity


@dataclass(frozen=True, eq=False)
class Times:
    """datetime64[s] over the layout's time_dims; `inferred` says from what the reference times were, where not stated."""

    references: np.ndarray
    valid: np.ndarray
    inferred: str | None


def read_layout(dataset, where: str, *, variable: str | None, zr_a: float, zr_b: float) -> tuple[Layout, Times]:
    """The layout and times of an open forecast file. Raises DataError where it is none that can be understood."""
    found = _find(dataset, where, variable)
    thresholds, threshold_dim = _thresholds(dataset, found, where) if _is_probability(dataset, found.variable) else ((), None)
    if thresholds and found.units is None:
        found = replace(found, units="1")  # reading refuses what is above 1
    member_dim = next((dim for dim in found.frame_dims if _is_member(dataset, dim)), None)
    time_dims = tuple(dim for dim in found.frame_dims if dim not in (member_dim, threshold_dim))
    times = _read_times(dataset, found, time_dims, where)
    layout = Layout(
        field=found,
        conversion=_conversion(dataset, found, times, where, zr_a, zr_b),
        time_dims=time_dims,
        member_dim=member_dim,
        num_members=len(dataset.dimensions[member_dim]) if member_dim else 1,
        threshold_dim=threshold_dim,
        thresholds=thresholds,
    )
    return layout, times


def _find(dataset, where: str, variable: str | None) -> Field:
    """The variable asked for where the file has it, else rain, probabilities of rain, or what we write of other things."""
    if variable in dataset.variables:
        return find_field(dataset, where, variable)
    try:
        return find_field(dataset, where)
    except DataError:
        likely = [name for name in dataset.variables if _is_probability(dataset, name)]
        likely = likely or [name for name in dataset.variables if name == _OTHER]
        if len(likely) != 1:
            raise
        return find_field(dataset, where, likely[0])


def names_probabilities(name: str) -> bool:
    """Whether a variable of this name, standard name or long name holds exceedance probabilities."""
    return bool(_PROBABILITY.fullmatch(name.strip().lower().replace(" ", "_")))


def _is_probability(dataset, name: str) -> bool:
    variable = dataset.variables[name]
    names = (name, text(variable, "standard_name") or "", text(variable, "long_name") or "")
    return is_numeric(variable) and any(map(names_probabilities, names))


def _is_member(dataset, dim: str) -> bool:
    coordinate = dataset.variables.get(dim)
    return dim.lower() in _MEMBERS or (coordinate is not None and text(coordinate, "standard_name") == "realization")


def _thresholds(dataset, found: Field, where: str) -> tuple[tuple[float, ...], str | None]:
    """The thresholds in mm/h, and their dimension where there are several."""
    fitting = [v for v in dataset.variables.values() if v.ndim <= 1 and is_numeric(v) and _is_threshold(v)]
    fitting = [v for v in fitting if all(len(dataset.dimensions[dim]) == 1 or dim in found.frame_dims for dim in v.dimensions)]
    if not fitting:
        raise DataError(f"{where}: {found.variable} has no threshold.\nRight would be a coordinate `threshold` in mm h-1.")
    name = fitting[0].name
    standard_name, units = text(fitting[0], "standard_name"), text(fitting[0], "units")
    to_rate = to_rain_rate(units, standard_name=standard_name, variable=f"{where}: {name}")
    values = to_rate(np.atleast_1d(fitting[0][...]).astype(np.float64))
    dim = next((dim for dim in fitting[0].dimensions if dim in found.frame_dims), None)
    return tuple(float(f"{value:.6g}") for value in values), dim  # 0.1 again, which m s-1 in float32 is not


def _is_threshold(variable) -> bool:
    marked = "spp__relative_to_threshold" in variable.ncattrs() or text(variable, "standard_name") in RAIN_NAMES
    return variable.name.startswith("threshold") or marked


def _conversion(dataset, found: Field, times: Times, where: str, zr_a: float, zr_b: float) -> Conversion:
    """Declared units -> mm/h. An accumulation that names no interval covers the step between leads."""
    interval = None
    if found.kind == "amount" and time_variable(dataset, found):
        interval = interval_seconds(dataset, found, times.valid, where)
    step = most_frequent_step(np.unique(times.valid - times.references))
    if interval is None and not np.isnat(step):
        interval = step.astype(np.int64).item()
    return found.conversion(interval_seconds=interval, zr_a=zr_a, zr_b=zr_b, where=where)


def _read_times(dataset, found: Field, dims: tuple[str, ...], where: str) -> Times:
    """Reference and valid times, each over all of `dims`: stated, or one made from the other and the lead times."""
    names = {which: time_variable(dataset, found, which) for which in ("time", "forecast_reference_time")}
    names["forecast_period"] = _period_variable(dataset, dims)
    given = {which: _over(dataset, name, which, dims, where) for which, name in names.items() if name}
    told = {dim for name in names.values() if name for dim in dataset[name].dimensions}
    if not set(dims) <= told or len(dims) > 2:
        raise DataError(
            f"{where}: {found.variable} has dimensions {', '.join(found.frame_dims)}, y and x.\n"
            "Right would be (time, y, x), with one more for reference times, members or thresholds."
        )
    if "time" not in given and {"forecast_reference_time", "forecast_period"} <= set(given):
        given["time"] = given["forecast_reference_time"] + given["forecast_period"]
    if "time" not in given:
        raise DataError(f"{where}: {found.variable} has no times.\nRight would be a time for every lead time.")
    if "forecast_reference_time" in given:
        return Times(given["forecast_reference_time"], given["time"], None)
    return _infer(dataset, given, names["time"], where)


def _infer(dataset, given: dict[str, np.ndarray], name: str, where: str) -> Times:
    """Reference times that are not stated: valid time less lead time, or what pysteps counts its times from."""
    valid = given["time"]
    if "forecast_period" in given:
        return Times(valid - given["forecast_period"], valid, "the time less the forecast_period")
    marks = (text(dataset, "source"), text(dataset, "title"), text(dataset[name], "long_name"))
    if any(mark and (mark.startswith("pysteps") or mark == "forecast time") for mark in marks):
        units, calendar = text(dataset[name], "units"), text(dataset[name], "calendar") or "standard"
        reference = decode_times(np.zeros(1, np.int64), units, calendar, f"{where}: {name}")[0]
        longest = (valid - reference).max() if valid.size else np.timedelta64(0, "s")
        if np.timedelta64(0, "s") < longest < _LONGEST:
            return Times(np.full(valid.shape, reference), valid, "what pysteps counts its times from")
    raise DataError(f"{where} does not say when its forecast starts.\nRight would be a forecast_reference_time.")


def _period_variable(dataset, dims: tuple[str, ...]) -> str | None:
    """The variable of lead times."""
    for name, variable in dataset.variables.items():
        long = {dim for dim, size in zip(variable.dimensions, variable.shape, strict=True) if size != 1}
        named = (text(variable, "standard_name") or name) in _PERIODS
        if named and is_numeric(variable) and long <= set(dims) and _seconds(text(variable, "units")) is not None:
            return name
    return None


def _seconds(units: str | None) -> float | None:
    """How long one of these units of time is."""
    try:
        return float(cf_units.Unit(units).convert(1.0, "s")) if units else None
    except ValueError:
        return None


def _over(dataset, name: str, which: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """The times (or lead times) of a variable, spread over all of `dims`."""
    own = [dim for dim in dataset[name].dimensions if dim in dims]
    if which == "forecast_period":
        index = tuple(slice(None) if dim in dims else 0 for dim in dataset[name].dimensions)
        stored = np.asarray(dataset[name][index], np.float64)
        if not np.isfinite(stored).all():
            raise DataError(f"{where}: {name} has missing values.\nRight would be a lead time for every forecast.")
        stored = stored.transpose([own.index(dim) for dim in dims if dim in own])
        values = np.round(stored * _seconds(text(dataset[name], "units"))).astype("timedelta64[s]")
    else:
        values = read_times(dataset, name, dims, where)
    sizes = [len(dataset.dimensions[dim]) for dim in dims]
    if math.prod(sizes) > MAX_COORDINATE:
        raise DataError(f"{where} declares {math.prod(sizes)} forecast fields.\nRight would be at most {MAX_COORDINATE}.")
    spread = values.reshape([size if dim in own else 1 for dim, size in zip(dims, sizes, strict=True)])
    return np.broadcast_to(spread, sizes)
