"""Read the reference times and valid times of a forecast file; one of the two may be computed from lead times."""

import math
from dataclasses import dataclass

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import text
from nowcast.netcdf.places.coordinates import MAX_COORDINATE
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.times.epochs import decode_times, seconds_per
from nowcast.netcdf.times.raster import MOST_OFF
from nowcast.netcdf.times.values import covered, read_periods, read_times
from nowcast.netcdf.times.variables import TimeNames, counts, find_times, names_period

_LONGEST = np.timedelta64(30, "D")  # longest lead time; larger numbers are times since an epoch
_ZERO = np.timedelta64(0, "s")


@dataclass(frozen=True, eq=False)
class Times:
    """Times of a file: datetime64[s] over the time dimensions of the layout.

    `inferred`: how unstated reference times were inferred, for a message; None if they are stated.
    """

    references: np.ndarray
    valid: np.ndarray
    inferred: str | None


def read_forecast_times(dataset, field: Field, dims: tuple[str, ...], where: str) -> Times:
    """Read reference and valid times over all of `dims`; if one of the two is absent, it follows from the lead times.

    Raises DataError (exit 3) if they are not stated, contradict each other, or lie before the start of the forecast.
    """
    names = find_times(dataset, field.variable, dims)
    parts = {"valid": names.valid, "reference": names.reference, "period": names.period}
    parts = {role: name for role, name in parts.items() if name}
    _check_units_of_leads(dataset, dims, where)
    if not covered(dataset, parts.values(), dims) or len(dims) > 2:
        raise DataError(
            f"{where}: {field.variable} has dimensions {', '.join(field.frame_dims)}, y and x.\n"
            "Expected (time, y, x), with one more for reference times, members or thresholds."
        )
    if (
        len(parts) == 3
        and not covered(dataset, [names.valid], dims)
        and covered(dataset, [names.reference, names.period], dims)
    ):
        del parts["valid"]  # written by xarray when it joins files: the times of the first file only
    stated = {role: _over(dataset, name, role, dims, where) for role, name in parts.items()}
    _check_sum(stated, names, where)
    if "valid" not in stated and len(stated) == 2:
        stated["valid"] = stated["reference"] + stated["period"]
    if "valid" not in stated:
        raise DataError(f"{where}: {field.variable} has no times.\nExpected a time for every lead time.")
    if "reference" not in stated:
        return _infer(dataset, stated, names.valid, where)
    if (stated["valid"] < stated["reference"]).any():
        raise DataError(
            f"{where}: {names.valid or names.period} has times before the start of the forecast, {names.reference}.\n"
            "Expected lead times of 0 or more."
        )
    inferred = f"{names.reference}, which has no standard name" if names.is_guess else None
    return Times(stated["reference"], stated["valid"], inferred)


def _check_units_of_leads(dataset, dims: tuple[str, ...], where: str) -> None:
    """Raise DataError (exit 3) for a dimension of lead times whose coordinate has no units of time."""
    for name in dims:
        variable = dataset.variables.get(name)
        if (
            variable is not None
            and names_period(name)
            and seconds_per(text(variable, "units")) is None
            and not counts(variable)
        ):
            units = text(variable, "units")
            said = f'the units "{units}"' if units else "no units"
            raise DataError(f'{where}: {name} has {said} in place of those of a time.\nExpected units such as "minutes".')


def _check_sum(stated: dict[str, np.ndarray], names: TimeNames, where: str) -> None:
    """Raise DataError (exit 3) if valid time is not reference time + lead time; drop a reference time that is only guessed."""
    if len(stated) < 3 or not stated["valid"].size:
        return
    off = np.abs(stated["valid"] - stated["reference"] - stated["period"]).max()
    if off <= np.timedelta64(MOST_OFF, "s"):
        return
    if names.is_guess:
        del stated["reference"]
        return
    minutes = off / np.timedelta64(60, "s")
    raise DataError(
        f"{where}: {names.valid} is up to {minutes:g} min from {names.reference} plus {names.period}.\n"
        "Expected valid times that are reference time plus lead time."
    )


def _infer(dataset, stated: dict[str, np.ndarray], name: str, where: str) -> Times:
    """Infer reference times: valid time - lead time, or for files of pysteps the epoch of the time units.

    Raises DataError (exit 3) if neither is possible.
    """
    valid = stated["valid"]
    if "period" in stated:
        return Times(valid - stated["period"], valid, "the time less the forecast_period")
    exported = any((text(dataset, mark) or "").startswith("pysteps") for mark in ("source", "title"))
    if exported or text(dataset[name], "long_name") == "forecast time":
        units, calendar = text(dataset[name], "units") or "", text(dataset[name], "calendar") or "standard"
        reference = decode_times(np.zeros(1, np.int64), units, calendar, f"{where}: {name}")[0]
        leads = (valid - reference) if valid.size else np.array([_ZERO])
        # without the exporter's marks it may hold observations in pysteps' model, which have a frame at their origin
        is_forecast = (leads.max() if exported else leads.min()) > _ZERO
        if is_forecast and leads.max() < _LONGEST:
            return Times(np.full(valid.shape, reference), valid, "what pysteps counts its times from")
    raise DataError(f"{where} does not say when its forecast starts.\nExpected a forecast_reference_time.")


def _over(dataset, name: str, role: str, dims: tuple[str, ...], where: str) -> np.ndarray:
    """Read the times (or lead times) of a variable, and broadcast them to all of `dims`."""
    own = [dim for dim in dataset[name].dimensions if dim in dims]
    values = (read_periods if role == "period" else read_times)(dataset, name, dims, where)
    sizes = [len(dataset.dimensions[dim]) for dim in dims]
    if math.prod(sizes) > MAX_COORDINATE:
        raise DataError(f"{where} declares {math.prod(sizes)} forecast fields.\nExpected at most {MAX_COORDINATE}.")
    values = values.reshape([size if dim in own else 1 for dim, size in zip(dims, sizes, strict=True)])
    return np.broadcast_to(values, sizes)
