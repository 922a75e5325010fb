"""Pair DataArrays of a forecast and an observation: in mm/h, at the same times, on the same rows and columns."""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.forecast_layout import LEAST_FORECAST, SENTINEL, names_members, names_probabilities, names_quantiles
from nowcast.netcdf.places.axes import axis_of_dimension
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.rain.data_arrays import as_record, in_utc
from nowcast.netcdf.rain.units import RAIN_NAMES, meaning
from nowcast.netcdf.record import Record
from nowcast.quantity import Quantity

log = logging.getLogger(__name__)
MARGIN = 8  # frames before and after the forecast, which also determine the time step


def thresholds_of(forecast: xr.DataArray) -> np.ndarray | None:
    """Return the thresholds (threshold,) or (), mm/h, in the coordinate `threshold` of probabilities; None without it.

    Raises UsageError (exit 2) for thresholds that are not numbers or not in units of rain rate.
    """
    if "threshold" not in forecast.coords:
        return None
    thresholds = forecast.coords["threshold"]
    parsed = meaning(units := str(thresholds.attrs.get("units", "mm h-1")))
    if thresholds.dtype.kind not in "iuf" or not np.isfinite(thresholds).all() or parsed is None or parsed.kind != "rate":
        stated = f'the thresholds of the forecast are {thresholds.values} in "{units}"'
        raise UsageError(f'{stated}.\nExpected rain rates, such as 1 in "mm h-1".')
    return thresholds.values * parsed.scale + parsed.offset


def at_thresholds(forecast: xr.DataArray, thresholds: Sequence[float], name: str) -> xr.DataArray:
    """Select the probabilities of these thresholds, mm/h, in this order; a forecast without the coordinate is unchanged.

    Raises UsageError (exit 2) for a threshold that the forecast does not have.
    """
    if (own_thresholds := thresholds_of(forecast)) is None:
        return forecast
    labels = np.atleast_1d(own_thresholds)
    is_match = np.isclose(labels, np.array(thresholds)[:, None], rtol=1e-5)  # (threshold, label)
    if not is_match.any(axis=1).all():
        absent, has = thresholds[int(is_match.any(axis=1).argmin())], ", ".join(f"{label:g}" for label in labels)
        raise UsageError(f"{name}: the forecast has no probabilities of {absent:g} mm/h.\nIt has those of {has} mm/h.")
    return forecast.isel(threshold=is_match.argmax(axis=1)) if "threshold" in forecast.dims else forecast


def paired(
    forecast: xr.DataArray, observed: xr.DataArray, *, by_case: bool, is_probability: bool
) -> tuple[np.ndarray, np.ndarray, tuple[float, float], Quantity]:
    """Return the forecast, the observation at its times, the (y, x) spacing in km, NaN if it is unknown, and what is observed.

        forecast: (time, y, x), with one more dimension before for cases, thresholds or members
        observed: (time, y, x); it may have other times as well
        by_case: whether that dimension is the case, with its own times
        is_probability: whether the forecast is a probability, from 0 to 1
        returns: forecast (…, time, y, x), and observation (time, y, x), or (case, time, y, x)

    Raises UsageError (exit 2) for other dimensions, DataError (3) for other grids or quantities, and for no time in common.
    """
    if isinstance(forecast, xr.Dataset) or isinstance(observed, xr.Dataset):
        raise UsageError('the scores take DataArrays: give a variable of the Dataset, such as dataset["rainfall_rate"]')
    if not (isinstance(forecast, xr.DataArray) and isinstance(observed, xr.DataArray)):
        kinds = " and ".join(type(each).__name__ for each in (forecast, observed))
        raise UsageError(f"the forecast and the observation are {kinds}.\nExpected two DataArrays, with units and times.")
    if forecast.ndim not in (3, 4) or observed.ndim != 3:
        raise UsageError(
            f"the forecast has the dimensions {forecast.dims} and the observation {observed.dims}.\n"
            "Expected (time, y, x); the forecast may have one more before."
        )
    forecast, observed = in_utc(forecast), in_utc(observed)
    forecast = _as_probabilities(forecast) if is_probability else _without_small_negatives(forecast)
    forecast = forecast if by_case else _other_first(forecast)
    _check_other(forecast, by_case=by_case)
    parts = [forecast] if forecast.ndim == 3 else [forecast[n] for n in range(forecast.shape[0])]
    with as_record(_near(observed, forecast)) as truth:
        pairs = [_pair(part, truth, is_probability=is_probability) for part in parts]
        spacing, quantity = truth.grid.spacing_km, truth.quantity
    fields, observations = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    if forecast.ndim == 3:
        return fields[0], observations[0], spacing, quantity
    return fields, observations if by_case else observations[0], spacing, quantity


def _other_first(forecast: xr.DataArray) -> xr.DataArray:
    """Move the dimension of members or thresholds of a forecast of four dimensions to the front."""
    others = [dim for dim in forecast.dims if axis_of_dimension(forecast, dim) is None]
    return forecast.transpose(others[0], ...) if forecast.ndim == 4 and len(others) == 1 else forecast


def _check_other(forecast: xr.DataArray, *, by_case: bool) -> None:
    """Raise UsageError (exit 2) for members where a score takes cases, for cases where it takes members, and for quantiles.

    Members may have reference times of their own (a lagged ensemble), and a single member is a case.
    """
    if forecast.ndim != 4:
        return
    labels = {str(dim): forecast[dim].attrs.get("standard_name") for dim in forecast.dims}
    several = [dim for dim, label in labels.items() if names_members(dim, label) or names_quantiles(dim)]
    if by_case and several and forecast.sizes[several[0]] > 1:
        raise UsageError(
            f'the forecast has the dimension "{several[0]}", whose members or quantiles this score would take for cases.\n'
            f'Give one of them or their mean, such as forecast.mean("{several[0]}"); crps_fair and spread score members.'
        )
    first = forecast.dims[0]
    if not by_case and names_quantiles(str(first)):
        raise UsageError(
            f'the forecast has the dimension "{first}", whose quantiles this score would take for members.\n'
            "Expected members, or probabilities of reaching thresholds; a single quantile is scored as a field, by mae."
        )
    own_times = [each for each in forecast.coords.values() if each.dtype.kind == "M" and first in each.dims]
    if not by_case and any(each.ndim > 1 or first not in several for each in own_times):
        raise UsageError(
            f'the forecast has times along "{first}": it holds several cases.\n'
            "Expected one case, with the members or thresholds first: score the cases one by one."
        )


def _as_probabilities(forecast: xr.DataArray) -> xr.DataArray:
    """Return probabilities with units; without a standard name of rain, which a comparison such as `rain >= 1` keeps.

    Without units, names such as probability_of_rainfall_rate_above_threshold state "1", and so does the type bool.

    Raises DataError (exit 3) for rain or any other quantity, for no units, and for probabilities of values below a threshold.
    """
    names = [str(name or "") for name in (forecast.name, *map(forecast.attrs.get, ("standard_name", "long_name")))]
    named, what = list(filter(names_probabilities, names)), f'"{forecast.name}"' if forecast.name else "the forecast"
    if any("below" in name.lower() for name in named):
        raise DataError(
            f"{what} holds probabilities of values below the threshold.\n"
            "Expected those of reaching it: 1 less these, as probability_of_rainfall_rate_above_threshold."
        )
    units = str(forecast.attrs.get("units", forecast.attrs.get("unit", ""))).strip()
    if forecast.dtype.kind == "b" or (not units and named):
        units = "1"
    parsed = meaning(units) if units else None
    if parsed is None or parsed.kind != "dimensionless":
        stated = f'has the units "{units}", which are not those of probabilities' if units else "has no units"
        raise DataError(
            f"{what} {stated}.\nExpected probabilities in units of "
            '"1" or "%", such as (members >= 1).mean("realization").assign_attrs(units="1").'
        )
    is_rain = forecast.attrs.get("standard_name") in RAIN_NAMES
    kept = {key: value for key, value in forecast.attrs.items() if not (is_rain and key == "standard_name")}
    probabilities = forecast.copy(deep=False)
    probabilities.attrs = kept | {"units": units}
    return probabilities


def _without_small_negatives(forecast: xr.DataArray) -> xr.DataArray:
    """Replace small negative rain rates, as regressions give in dry cells, by 0, as for forecast files."""
    parsed = meaning(str(forecast.attrs.get("units", "")))
    if parsed is None or parsed.kind not in ("rate", "amount") or parsed.offset or forecast.dtype.kind != "f":
        return forecast
    rates = forecast * (parsed.scale / (_step_hours(forecast) if parsed.kind == "amount" else 1))
    return forecast.where(~((forecast < 0) & (rates >= LEAST_FORECAST) & (forecast != SENTINEL)), 0)


def _step_hours(forecast: xr.DataArray) -> float:
    """Return the time step of a forecast, h, the accumulation interval of amounts; NaN if unknown."""
    times = forecast.coords.get("time")
    is_known = times is not None and times.dtype.kind == "M" and times.ndim == 1 and times.size > 1
    return float(np.median(np.diff(times.values)) / np.timedelta64(1, "h")) if is_known else np.nan


def _near(observed: xr.DataArray, forecast: xr.DataArray) -> xr.DataArray:
    """Return the frames of an observation near the times of a forecast, so that no others are read.

    Raises DataError (exit 3) if there are none.
    """
    wanted = [each.values.ravel() for each in forecast.coords.values() if each.dtype.kind == "M"]
    wanted = np.concatenate(wanted or [np.array(["NaT"], "datetime64[ns]")])
    for name, own in observed.coords.items():
        if own.dims != (name,) or own.dtype.kind != "M" or len(own) < 2 or np.isnat(own.values).any() or np.isnat(wanted).any():
            continue
        margin = MARGIN * np.median(np.diff(np.sort(own.values)))
        near = (own.values >= wanted.min() - margin) & (own.values <= wanted.max() + margin)
        if not near.any():
            raise _nothing_in_common(wanted, own.values)
        return observed.isel({name: near})
    return observed


def _nothing_in_common(wanted: np.ndarray, observed: np.ndarray) -> DataError:
    """Return the error for a forecast and an observation without common times, both datetime64."""
    of_both = (f"{times.min().astype('M8[s]')}Z to {times.max().astype('M8[s]')}Z" for times in (wanted, observed))
    return DataError("the observation has no frame at any time of the forecast, {}.\nIt goes from {}.".format(*of_both))


def _pair(forecast: xr.DataArray, observed: Record, *, is_probability: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a forecast (time, y, x), and the observation at its times, NaN if absent."""
    with as_record(forecast.rename(forecast.name or "forecast")) as record:
        if differs := difference(record.grid, observed.grid):
            raise DataError(f"the forecast is on another grid than the observation: {differs}.\nRegrid one of them first.")
        if record.quantity != observed.quantity and not is_probability:
            raise DataError(f"the forecast holds {record.quantity} and the observation {observed.quantity}")
        fields, times = record.read(range(len(record))), observed.frames_at(record.times)
    known = ~np.isnat(times)
    if not known.any():
        raise _nothing_in_common(record.times, observed.times)
    if not known.all():
        absent, first = int((~known).sum()), record.times[~known][0]
        log.warning("the observation has no frame at %d of %d times of the forecast, the first %sZ", absent, len(known), first)
    observations = np.full(fields.shape, np.nan, np.float32)
    observations[known] = observed.read(np.searchsorted(observed.times, times[known]))
    return fields, observations
