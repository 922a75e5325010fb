"""Identify the contents of a forecast file: its variable, and the dimensions of reference and lead times, members, thresholds.

Files of this program, of pysteps and of CF programs such as improver are understood. A reference time that is not stated is
inferred if only one is possible; otherwise the file is refused.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import is_numeric, text
from nowcast.netcdf.rain.packing import Packing
from nowcast.netcdf.rain.totals import says_total
from nowcast.netcdf.rain.units import RAIN_NAMES, Conversion, meaning, to_rain_rate
from nowcast.netcdf.rain.variable import Field, find_field, named
from nowcast.netcdf.reading import warn_of_contradiction
from nowcast.netcdf.record import most_frequent_step
from nowcast.netcdf.times.forecast import Times, read_forecast_times
from nowcast.netcdf.times.intervals import at_ends, covers_all_since, stated_interval
from nowcast.quantity import RAIN_RATE, Quantity
from nowcast.runtime.log_lines import warn_once

_MEMBERS = {"ens_number", "realization", "realisation", "member", "members", "mem", "number", "ensemble"}
_MEMBERS |= {"ensemble_member", "ens", "ensemble_size", "ens_mem", "perturbationnumber", "perturbation"}
_MEMBER_ATTRIBUTES = ("realization", "realisation", "ensemble_member", "member", "member_number", "perturbation_number")
# of a file or its folder: member_01, mem1, ens-003, m07; the number of members follows no such word
_MEMBER_NAME = re.compile(
    r"(?:^|[^a-z])(?:realization|realisation|ensemble|member|perturbation|pert|ens|mem|mbr|m)[ _.-]?(\d{1,4})(?!\d)",
    re.IGNORECASE,
)
_PROBABILITY = re.compile(r"probability_of_\w+_(above|below)_threshold")
_BELOW = re.compile(r"less|below|lt\b|le\b", re.IGNORECASE)  # at the start of improver's attribute of thresholds
_PERCENTILE = re.compile(r"(percentile|quantile)", re.IGNORECASE)  # at the start of a name, as percentile_over_realization
LEAST_FORECAST = -0.9  # mm/h: values from here to 0 are dry (regressions forecast them); lower ones are sentinels
SENTINEL = -1.0  # in any units
_UNKNOWN = 3600.0  # s, until the interval is known
OTHER_NAME = "value"  # variable of this program's forecasts of a quantity other than rain


@dataclass(frozen=True)
class ForecastLayout:
    """How the forecasts of a file are read.

    thresholds: mm/h, of exceedance probabilities; () for fields
    amounts: how the interval of amounts is known: "stated"; "spaced", stated only as the spacing of the summed values;
        "assumed" to be one time step; "whole", the lead time of a file with one; "total" since the start; "" for other kinds
    mean_seconds: the interval of rates that are means over time, s; None for instants, and if it is not stated
    """

    field: Field
    conversion: Conversion
    time_dims: tuple[str, ...]
    member_dim: str | None
    num_members: int
    threshold_dim: str | None
    thresholds: tuple[float, ...]
    amounts: str = ""
    mean_seconds: float | None = None

    @property
    def kind(self) -> str:
        """The kind of forecast: deterministic, ensemble or probability."""
        if self.thresholds:
            return "probability"
        return "ensemble" if self.member_dim else "deterministic"

    @property
    def interval_seconds(self) -> float | None:
        """The interval of amounts and means, s; None for instants."""
        return self.conversion.interval_seconds if self.amounts else self.mean_seconds

    @property
    def quantity(self) -> Quantity:
        """The quantity that is forecast; of probabilities that of their thresholds."""
        return RAIN_RATE if self.thresholds else self.conversion.quantity


def read_layout(
    dataset, where: str, *, variable: str | None, strict: bool, units: str | None = None, zr_a: float, zr_b: float
) -> tuple[ForecastLayout, Times]:
    """Return layout and times of an open forecast file; `where` names it in messages.

    strict: whether the file must have `variable`; units: those of a variable without the attribute

    Raises DataError (exit 3) if the file holds no forecast, or has a form that is not understood.
    """
    field = _find(dataset, where, variable, strict=strict, has_units=units is not None)
    _check_percentiles(dataset, field, where)
    thresholds, threshold_dim = _thresholds(dataset, field, where) if _is_probability(dataset, field.variable) else ((), None)
    if thresholds:  # values below 0 and above 1 are refused when they are read
        field = replace(field, units=_units_of_probabilities(field, where), packing=_of_probabilities(field.packing))
    else:
        field = field.with_units(units, Path(where))
        field = replace(field, packing=_of_forecast(field.packing, dataset.variables[field.variable].dtype.kind))
    member_dim = next((dim for dim in field.frame_dims if _is_member(dataset, dim)), None)
    time_dims = tuple(dim for dim in field.frame_dims if dim not in (member_dim, threshold_dim))
    times = read_forecast_times(dataset, field, time_dims, where)
    valid, covered = at_ends(dataset, field, times.valid, where, dims=time_dims)
    times = replace(times, valid=valid)
    conversion, amounts = _conversion(dataset, field, times, where, zr_a, zr_b)
    layout = ForecastLayout(
        field=field,
        conversion=conversion,
        time_dims=time_dims,
        member_dim=member_dim,
        num_members=len(dataset.dimensions[member_dim]) if member_dim else 1,
        threshold_dim=threshold_dim,
        thresholds=thresholds,
        amounts=amounts,
        mean_seconds=None if amounts else covered,
    )
    return layout, times


def _check_percentiles(dataset, field: Field, where: str) -> None:
    """Warn if a field is one percentile of a distribution. Raises DataError (exit 3) for several, which are no members."""
    variable = dataset.variables[field.variable]
    names = [*variable.dimensions, *(text(variable, "coordinates") or "").split()]
    name = next((name for name in names if _PERCENTILE.match(name)), None)
    if name in field.frame_dims:
        raise DataError(
            f"{where}: {field.variable} holds {len(dataset.dimensions[name])} percentiles ({name}), which are no members.\n"
            "Expected one of them in a file of its own, such as the median; or members, or exceedance probabilities."
        )
    if name:
        value = np.ravel(dataset.variables[name][...]) if name in dataset.variables else ()
        which = f"{name} {value[0]:g}" if len(value) == 1 and is_numeric(dataset.variables[name]) else f"one {name}"
        warn_once(Path(where), f"{field.variable} is {which} of a distribution, and is taken as a plain forecast")


def _of_forecast(packing: Packing, kind: str) -> Packing:
    """Return the packing of a forecast, in which floats slightly below 0, as regressions give them, are dry."""
    if kind != "f" or packing.scale_factor != 1 or packing.add_offset != 0:
        return packing
    return replace(packing, least=LEAST_FORECAST, missing=(*packing.missing, SENTINEL))


def _units_of_probabilities(field: Field, where: str) -> str:
    """Return the units of probabilities; "1" without any. Raises DataError (exit 3) for those of rain or anything else."""
    if field.units and ((meant := meaning(field.units)) is None or meant.kind != "dimensionless"):
        raise DataError(
            f'{where}: {field.variable} has the units "{field.units}", which are not those of probabilities.\n'
            'Expected "1" for values from 0 to 1, or "%".'
        )
    return field.units or "1"


def _of_probabilities(packing: Packing) -> Packing:
    """Return the packing of probabilities, in which only sentinels are missing: -1, if unpacked, and less than -90 %."""
    is_packed = packing.scale_factor != 1 or packing.add_offset != 0
    missing = packing.missing if is_packed else (*packing.missing, SENTINEL)
    return replace(packing, least=LEAST_FORECAST, keeps_negative=True, missing=missing)


def _find(dataset, where: str, variable: str | None, *, strict: bool, has_units: bool) -> Field:
    """Return the named variable; for None, or if it is absent and not `strict`: rain, probabilities of rain, or OTHER_NAME."""
    if (there := named(dataset, variable)) or (strict and variable):
        return find_field(dataset, where, there or variable)
    try:
        return find_field(dataset, where, has_units=has_units)
    except DataError:
        found = [name for name in dataset.variables if _is_probability(dataset, name)]
        candidates = [name for name in found if not _is_below(dataset, name)] or found
        candidates = candidates or [name for name in dataset.variables if name == OTHER_NAME]
        if len(candidates) != 1:
            raise
        return find_field(dataset, where, candidates[0])


def names_probabilities(name: str) -> bool:
    """Return whether a variable with this name, standard name or long name holds exceedance probabilities."""
    return bool(_PROBABILITY.fullmatch(name.strip().lower().replace(" ", "_")))


def _is_probability(dataset, name: str) -> bool:
    return is_numeric(dataset.variables[name]) and any(map(names_probabilities, _names(dataset, name)))


def _is_below(dataset, name: str) -> bool:
    return any("below" in each.lower() for each in filter(names_probabilities, _names(dataset, name)))


def _names(dataset, name: str) -> tuple[str, ...]:
    return (name, *(text(dataset.variables[name], mark) or "" for mark in ("standard_name", "long_name")))


def _is_member(dataset, dim: str) -> bool:
    coordinate = dataset.variables.get(dim)
    return names_members(dim, None if coordinate is None else text(coordinate, "standard_name"))


def names_members(dim: str, standard_name: str | None = None) -> bool:
    """Return whether a dimension is that of ensemble members, by its name or the standard name of its coordinate."""
    return dim.lower() in _MEMBERS or standard_name == "realization"


def names_quantiles(dim: str) -> bool:
    """Return whether a dimension is that of quantiles or percentiles, by its name."""
    return bool(_PERCENTILE.match(dim))


def own_members(dataset, layout: ForecastLayout, path: Path) -> tuple[int, ...]:
    """Return the numbers of the members in an open file, in the order of its fields; () if they are not stated.

    They come from the coordinate of members; that of a single member also from a scalar variable such as `realization`, a
    global attribute, or the name of the file or its folder.
    """
    if layout.thresholds:
        return ()
    if layout.member_dim and (numbers := _whole_numbers(dataset.variables.get(layout.member_dim))):
        return numbers
    if layout.num_members > 1:
        return ()
    for variable in dataset.variables.values():
        is_one = variable.size == 1 and variable.name != layout.field.variable and _is_member(dataset, variable.name)
        if is_one and (numbers := _whole_numbers(variable)):
            return numbers
    for name in (name for name in _MEMBER_ATTRIBUTES if name in dataset.ncattrs()):
        if found := re.search(r"\d+", str(dataset.getncattr(name))):
            return (int(found[0]),)
    found = _MEMBER_NAME.search(path.stem) or _MEMBER_NAME.search(path.parent.name)
    return (int(found[1]),) if found else ()


def _whole_numbers(variable) -> tuple[int, ...]:
    """Return the values of a coordinate of members; () unless they are different whole numbers from 0 on."""
    if variable is None or variable.ndim > 1 or not is_numeric(variable):
        return ()
    values = np.atleast_1d(np.asarray(variable[...], np.float64))
    if not (np.isfinite(values).all() and (values >= 0).all() and (values < 1e9).all() and (values % 1 == 0).all()):
        return ()
    numbers = tuple(map(int, values))
    return numbers if len(set(numbers)) == values.size else ()


def _thresholds(dataset, field: Field, where: str) -> tuple[tuple[float, ...], str | None]:
    """Return the thresholds of probabilities, mm/h, and their dimension if the field has it."""
    fitting = [v for v in dataset.variables.values() if v.ndim <= 1 and is_numeric(v) and _is_threshold(v)]
    fitting = [v for v in fitting if all(len(dataset.dimensions[dim]) == 1 or dim in field.frame_dims for dim in v.dimensions)]
    if not fitting:
        raise DataError(f"{where}: {field.variable} has no threshold.\nExpected a coordinate `threshold` in mm h-1.")
    relation = text(fitting[0], "spp__relative_to_threshold") or ""
    if _BELOW.match(relation) or _is_below(dataset, field.variable):
        raise DataError(
            f"{where}: {field.variable} holds probabilities of values below the threshold.\n"
            "Expected those of reaching it: 1 less these, as probability_of_rainfall_rate_above_threshold."
        )
    name = fitting[0].name
    standard_name, units = text(fitting[0], "standard_name"), text(fitting[0], "units")
    to_rate = to_rain_rate(units, standard_name=standard_name, variable=f"{where}: {name}")
    values = to_rate(np.atleast_1d(fitting[0][...]).astype(np.float64))
    dim = next((dim for dim in fitting[0].dimensions if dim in field.frame_dims), None)
    return tuple(
        float(f"{value:.6g}") for value in values
    ), dim  # rounded: 0.1 mm/h stored as m s-1 in float32 is not 0.1 any more


def _is_threshold(variable) -> bool:
    is_marked = "spp__relative_to_threshold" in variable.ncattrs() or text(variable, "standard_name") in RAIN_NAMES
    return variable.name.startswith("threshold") or is_marked


def _conversion(dataset, field: Field, times: Times, where: str, zr_a: float, zr_b: float) -> tuple[Conversion, str]:
    """Return the conversion to mm/h, and `amounts` as in `ForecastLayout`."""
    if field.kind != "amount":
        return field.conversion(zr_a=zr_a, zr_b=zr_b, where=where), ""
    leads, interval, amounts = times.valid - times.references, None, "assumed"
    if says_total(dataset.variables[field.variable]) or covers_all_since(dataset, field, leads, times.valid, where):
        amounts = "total"
    elif said := stated_interval(dataset, field, times.valid, where):
        warn_of_contradiction(said, Path(where), field.variable)
        interval, amounts = said.seconds, "spaced" if said.is_spacing else "stated"
        if len(np.unique(leads)) == 1 and not said.is_spacing and leads.flat[0] == np.timedelta64(int(interval), "s"):
            amounts = "whole"
    step = most_frequent_step(np.unique(leads))
    if interval is None:  # if the file has one lead time, the interval follows from all files together: forecast_amounts.py
        interval = _UNKNOWN if np.isnat(step) else step.astype(np.int64).item()
    return field.conversion(interval_seconds=interval, where=where), amounts
