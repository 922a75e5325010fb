"""Pair DataArrays of a forecast and an observation: in mm/h, at the same times, on the same rows and columns."""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.forecast_layout import LEAST_FORECAST, SENTINEL
from nowcast.netcdf.places.axes import axis_of_dimension
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.rain.data_arrays import as_record, in_utc
from nowcast.netcdf.rain.units import meaning
from nowcast.netcdf.record import Record

log = logging.getLogger(__name__)
MARGIN = 8  # frames, from which the time step is found as well


def thresholds_of(forecast: xr.DataArray) -> np.ndarray | None:
    """Return the thresholds (threshold,) or (), mm/h, that the coordinate of probabilities names; None where it names none.

    Raises UsageError (exit 2) for what is no number, and for units of no rain rate.
    """
    if "threshold" not in forecast.coords:
        return None
    named = forecast.coords["threshold"]
    meant = meaning(units := str(named.attrs.get("units", "mm h-1")))
    if named.dtype.kind not in "iuf" or not np.isfinite(named).all() or meant is None or meant.kind != "rate":
        said = f'the thresholds of the forecast are {named.values} in "{units}"'
        raise UsageError(f'{said}.\nExpected rain rates, such as 1 in "mm h-1".')
    return named.values * meant.scale + meant.offset


def at_thresholds(forecast: xr.DataArray, thresholds: Sequence[float], name: str) -> xr.DataArray:
    """Return the probabilities of these thresholds, mm/h, in this order, of a forecast whose coordinate names its own.

    Raises UsageError (exit 2) for a threshold that it has none of.
    """
    if (there := thresholds_of(forecast)) is None:
        return forecast
    labels = np.atleast_1d(there)
    is_one = np.isclose(labels, np.array(thresholds)[:, None], rtol=1e-5)  # (threshold, label)
    if not is_one.any(axis=1).all():
        absent, has = thresholds[int(is_one.any(axis=1).argmin())], ", ".join(f"{label:g}" for label in labels)
        raise UsageError(f"{name}: the forecast has no probabilities of {absent:g} mm/h.\nIt has those of {has} mm/h.")
    return forecast.isel(threshold=is_one.argmax(axis=1)) if "threshold" in forecast.dims else forecast


def paired(
    forecast: xr.DataArray, observed: xr.DataArray, *, by_case: bool, is_probability: bool
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return the forecast, the observation at its times, and the (y, x) spacing in km, NaN if it is unknown.

        forecast: (time, y, x), or with one dimension before: cases, thresholds or members
        observed: (time, y, x); it may have other times as well
        by_case: whether that dimension is of cases, whose times may differ
        is_probability: whether the forecast is one, from 0 to 1
        returns: forecast (…, time, y, x), and observation (time, y, x), or (case, time, y, x)

    Raises UsageError (exit 2) for other dimensions, DataError (3) for other grids or quantities, and for no time in common.
    """
    if isinstance(forecast, xr.Dataset) or isinstance(observed, xr.Dataset):
        raise UsageError('the scores take DataArrays: give a variable of the Dataset, such as dataset["rainfall_rate"]')
    if forecast.ndim not in (3, 4) or observed.ndim != 3:
        raise UsageError(
            f"the forecast has the dimensions {forecast.dims} and the observation {observed.dims}.\n"
            "Expected (time, y, x); the forecast may have one more before."
        )
    forecast, observed = in_utc(forecast), in_utc(observed)
    if not is_probability:
        forecast = _without_small_negatives(forecast)
    forecast = forecast if by_case else _other_first(forecast)
    parts = [forecast] if forecast.ndim == 3 else [forecast[n] for n in range(forecast.shape[0])]
    with as_record(_near(observed, forecast)) as truth:
        pairs = [_pair(part, truth, is_probability=is_probability) for part in parts]
        spacing = truth.grid.spacing_km
    fields, observations = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    if forecast.ndim == 3:
        return fields[0], observations[0], spacing
    return fields, observations if by_case else observations[0], spacing


def _other_first(forecast: xr.DataArray) -> xr.DataArray:
    """Return a forecast of four dimensions with that of members or thresholds first, wherever it is, as files have it."""
    others = [dim for dim in forecast.dims if axis_of_dimension(forecast, dim) is None]
    return forecast.transpose(others[0], ...) if forecast.ndim == 4 and len(others) == 1 else forecast


def _without_small_negatives(forecast: xr.DataArray) -> xr.DataArray:
    """Return a forecast with 0 for the numbers a little below it that regressions give where it is dry, as in files."""
    meant = meaning(str(forecast.attrs.get("units", "")))
    if meant is None or meant.kind not in ("rate", "amount") or meant.offset or forecast.dtype.kind != "f":
        return forecast
    rates = forecast * (meant.scale / (_step_hours(forecast) if meant.kind == "amount" else 1))
    return forecast.where(~((forecast < 0) & (rates >= LEAST_FORECAST) & (forecast != SENTINEL)), 0)


def _step_hours(forecast: xr.DataArray) -> float:
    """Return the hours between the times of a forecast, which amounts are of; NaN if it does not tell."""
    times = forecast.coords.get("time")
    is_known = times is not None and times.dtype.kind == "M" and times.ndim == 1 and times.size > 1
    return float(np.median(np.diff(times.values)) / np.timedelta64(1, "h")) if is_known else np.nan


def _near(observed: xr.DataArray, forecast: xr.DataArray) -> xr.DataArray:
    """Return the frames of an observation from some before the first time of a forecast on to some after its last.

    All others would be read and written in vain. Raises DataError (exit 3) if there is none at these times.
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


def _nothing_in_common(wanted: np.ndarray, there: np.ndarray) -> DataError:
    """Return the error of a forecast that has none of the times of an observation, both datetime64."""
    of_both = (f"{times.min().astype('M8[s]')}Z to {times.max().astype('M8[s]')}Z" for times in (wanted, there))
    return DataError("the observation has no frame at any time of the forecast, {}.\nIt goes from {}.".format(*of_both))


def _pair(forecast: xr.DataArray, truth: Record, *, is_probability: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a forecast (time, y, x), and the observation at its times, NaN where there is none."""
    with as_record(forecast.rename(forecast.name or "forecast")) as made:
        if differs := difference(made.grid, truth.grid):
            raise DataError(f"the forecast is on another grid than the observation: {differs}.\nRegrid one of them first.")
        if made.quantity != truth.quantity and not is_probability:
            raise DataError(f"the forecast holds {made.quantity} and the observation {truth.quantity}")
        fields, times = made.read(range(len(made))), truth.frames_at(made.times)
    there = ~np.isnat(times)
    if not there.any():
        raise _nothing_in_common(made.times, truth.times)
    if not there.all():
        absent, first = int((~there).sum()), made.times[~there][0]
        log.warning("the observation has no frame at %d of %d times of the forecast, the first %sZ", absent, len(there), first)
    observations = np.full(fields.shape, np.nan, np.float32)
    observations[there] = truth.read(np.searchsorted(truth.times, times[there]))
    return fields, observations
