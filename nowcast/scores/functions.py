"""The scores as plain functions of a forecast and an observation, as `nowcast.scores.csi(forecast, observed, threshold=1.0)`.

NumPy arrays are rain rate in mm/h with NaN where missing. DataArrays are read as files are: other units are converted, and the
observation is taken at the forecast's times, on its rows and columns.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.quantity import RAIN_RATE, Quantity
from nowcast.scores.distribution import RateSums, add_ensemble
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums, add_probabilities
from nowcast.scores.kinds import FIELD_KINDS, Setup, tallies
from nowcast.scores.sums import Additive, Score

if TYPE_CHECKING:
    import xarray as xr

ARGUMENTS = """As a function of arrays:

    forecast: (time, y, x) or (case, time, y, x) mm/h; for scores of probabilities (threshold, time, y, x), or (time, y, x) for
        one threshold, a DataArray in units "1" or "%"; for scores of ensembles (member, time, y, x)
    observed: (time, y, x) or (case, time, y, x) mm/h
    threshold: mm/h, one or several; default: 1, or the coordinate `threshold` of probabilities
    by_lead: return a score for each lead time instead of one over all
    scale_km: side of the windows of fss, one or several
    spacing_km: distance between cells, for fss and spectra; default: from a DataArray's coordinates
    returns: a number, or an array with the axes (lead, threshold, scale or wavelength) of more than one value

Raises UsageError (exit 2) for shapes that do not fit, DataError (3) for DataArrays that do not."""
ROUNDING = 0.001  # largest rounding error of probabilities above 1 or below 0
MEMBERS = "(member, time, y, x)"
FORECASTS = {"probabilities": "(threshold, time, y, x)", "members": MEMBERS, "distribution": MEMBERS}  # else (time, y, x)


def plain(name: str, score: Score) -> Callable[..., float | np.ndarray]:
    """Return a score as a function of arrays, which returns a number or an array (lead, threshold, …).

    The function raises UsageError (exit 2) for shapes that do not fit, and DataError (3) for DataArrays that do not.
    """

    def function(
        forecast: "np.ndarray | xr.DataArray",
        observed: "np.ndarray | xr.DataArray",
        threshold: float | Sequence[float] | None = None,
        *,
        by_lead: bool = False,
        scale_km: float | Sequence[float] = 20.0,
        spacing_km: float | tuple[float, float] | None = None,
    ) -> float | np.ndarray:
        if threshold is not None and not score.needs_threshold:
            raise UsageError(f"{name} takes no threshold: it is a score of all values")
        forecast, chosen = _chosen(name, score.kind, forecast, threshold)
        (thresholds, is_single), (scales, is_single_scale) = _listed(chosen), _listed(scale_km)
        if score.needs_threshold and not all(0 < each < np.inf for each in thresholds):
            raise UsageError(f"threshold = {chosen!r}: write a number above 0, such as 1, or several: all rain reaches 0")
        if min(scales) <= 0:
            raise UsageError(f"scale_km = {scale_km!r}: write the side of the windows of fss, such as 10, or several")
        cases, spacing, quantity = _paired(name, score.kind, forecast, observed, thresholds)
        if not quantity.is_rain:
            _check_quantity(name, score, threshold)
        if score.kind in ("windows", "spectra"):
            spacing = _spacing(name, spacing_km, spacing)
        setup = Setup(thresholds, spacing, quantity.data_range, scales)
        total = sum(_sums(score.kind, *case, setup) for case in cases)
        value = score(total if by_lead else total.pooled())
        dropped = {"lead": not by_lead, "threshold": is_single, "scale": is_single_scale}
        value = value.squeeze(tuple(axis for axis, label in enumerate(score.axes) if dropped.get(label)))
        return value if value.ndim else float(value)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{inspect.getdoc(score.function)}\n\n{ARGUMENTS}"
    return function


def _chosen(name: str, kind: str, forecast: Any, threshold: Any) -> tuple[Any, Any]:
    """Return the forecast and the thresholds, mm/h; default: 1, or the coordinate `threshold` of probabilities.

    Raises UsageError (exit 2) for a threshold for which the forecast has no probabilities.
    """
    if kind != "probabilities" or "threshold" not in getattr(forecast, "coords", ()):
        return forecast, 1.0 if threshold is None else threshold
    from nowcast.scores.labelled import at_thresholds, thresholds_of  # here: DataArrays need the NetCDF library

    wanted = thresholds_of(forecast) if threshold is None else threshold
    return at_thresholds(forecast, numbers(wanted), name), wanted


def _listed(value: Any) -> tuple[tuple[float, ...], bool]:
    """Return numbers as a tuple, and whether it was a single one. Raises UsageError (exit 2) for other values."""
    return numbers(value), np.ndim(value) == 0


def numbers(value: Any) -> tuple[float, ...]:
    """Return one or several numbers as a tuple. Raises UsageError (exit 2) for other values."""
    try:
        given = np.atleast_1d(value)
        values = np.full(1, np.nan) if given.dtype.kind == "b" else given.astype(float)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.ndim > 1 or not values.size or np.isnan(values).any():
        raise UsageError(f"{value!r} is not a number: write a number or a list of numbers, such as [1.0, 5.0]")
    return tuple(values.tolist())


def _check_quantity(name: str, score: Score, threshold: Any) -> None:
    """Raise UsageError (exit 2) for a score of rain only, and for no threshold, of another quantity than rain."""
    if score.kind == "distribution":
        raise UsageError(f'{name} is integrated over rain rates, but the arrays hold values in units "1".\nUse crps_fair.')
    if score.needs_threshold and threshold is None:
        raise UsageError(f'{name} needs a threshold for values in units "1", which are no rain: give threshold=0.5, say')


def _paired(
    name: str, kind: str, forecast: Any, observed: Any, thresholds: tuple[float, ...]
) -> tuple[list, tuple[float, float], Quantity]:
    """Return the cases, each (forecast, observation), mm/h, the (y, x) grid spacing, km, NaN if unknown, and the quantity."""
    spacing, before, quantity = (np.nan, np.nan), kind in FORECASTS, RAIN_RATE
    labelled = [hasattr(array, "dims") for array in (forecast, observed)]
    if any(labelled) and not all(labelled):
        names = ("forecast", "observation") if labelled[0] else ("observation", "forecast")
        raise UsageError(
            f"the {names[0]} is a DataArray but the {names[1]} is not, so that units, times and rows cannot be compared.\n"
            "Expected two DataArrays, or two NumPy arrays in mm/h with the same times and rows."
        )
    if all(labelled):
        from nowcast.scores.labelled import paired  # here: DataArrays need the NetCDF library

        pairing = {"by_case": not before, "is_probability": kind == "probabilities"}
        forecast, observed, spacing, quantity = paired(forecast, observed, **pairing)
    forecast, observed = _values(forecast, "the forecast"), _values(observed, "the observation")
    if kind == "probabilities" and forecast.ndim == 3:
        forecast = forecast[None]
    cases = [(forecast, observed)]
    if not before and forecast.ndim == observed.ndim == 4:
        cases = list(zip(forecast, observed, strict=True)) if len(forecast) == len(observed) else cases
    for case, truth in cases:
        fits = truth.ndim == 3 and case.ndim == 3 + before and case.shape[before:] == truth.shape
        if not fits or (kind == "probabilities" and len(case) != len(thresholds)):
            wanted = FORECASTS.get(kind, "(time, y, x), or both (case, time, y, x)")
            many = f" with {len(thresholds)} threshold{'s' * (len(thresholds) > 1)}" if kind == "probabilities" else ""
            raise UsageError(
                f"{name}: the forecast has the shape {forecast.shape} and the observation {observed.shape}.\n"
                f"Expected a forecast {wanted}{many}, and an observation (time, y, x) of the same times and cells."
            )
    cases = [(_probabilities(case), truth) for case, truth in cases] if kind == "probabilities" else cases
    return cases, spacing, quantity


def _values(array: Any, name: str) -> np.ndarray:
    """Convert to a NumPy array of numbers. Raises UsageError (exit 2) for other types."""
    values = as_numpy(array, name)
    if values.dtype.kind not in "fiub":
        raise UsageError(f"{name} is an array of {values.dtype}.\nExpected numbers, mm/h.")
    return values


def _probabilities(forecast: np.ndarray) -> np.ndarray:
    """Limit probabilities to 0 to 1. Raises UsageError (exit 2) if they exceed this range by more than ROUNDING."""
    lowest, highest = (float(find(forecast[np.isfinite(forecast)], initial=0)) for find in (np.min, np.max))
    if lowest < -ROUNDING or highest > 1 + ROUNDING:
        invalid = lowest if lowest < -ROUNDING else highest
        raise UsageError(f"the forecast has {invalid:g} as a probability.\nExpected 0 to 1: divide percentages by 100.")
    return np.clip(forecast, 0, 1)


def as_numpy(array: Any, name: str) -> np.ndarray:
    """Convert an array, masked array (masked: NaN), list or torch tensor on any device to a NumPy array of any shape.

    Raises UsageError (exit 2) for lists of different lengths, and for arrays of xarray, whose units and times would be lost.
    """
    if hasattr(array, "dims") or (isinstance(array, list | tuple) and any(hasattr(each, "dims") for each in array)):
        what = f"a {type(array).__name__}" + (
            " of arrays of xarray" if isinstance(array, list | tuple) else " without coordinates"
        )
        raise UsageError(
            f'{name} is {what}.\nExpected one DataArray, such as arrays[0] or xr.concat(arrays, "time"), or NumPy.'
        )
    if isinstance(array, np.ma.MaskedArray) and array.dtype.kind in "fiu":
        return array.astype(np.promote_types(array.dtype, np.float32)).filled(np.nan)
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array  # NumPy has no bfloat16
    try:
        return np.asarray(array)
    except ValueError:
        raise UsageError(f"{name} is not an array: its lists have different lengths") from None


def _spacing(name: str, asked: Any, found: tuple[float, float]) -> tuple[float, float]:
    if asked is not None and not (len(given := numbers(asked)) <= 2 and min(given) > 0):
        raise UsageError(
            f"spacing_km = {asked!r}: write the distance between cells, such as 1.0, or that of rows and of columns"
        )
    spacing = tuple(np.broadcast_to(given, 2).tolist()) if asked is not None else found
    if not np.isfinite(spacing).all():
        raise DataError(f"{name} needs the distance between cells, which arrays do not have: give spacing_km, such as 1.0")
    return spacing


def _sums(kind: str, forecast: np.ndarray, observed: np.ndarray, setup: Setup) -> Additive:
    """Return the sums of one case; the forecast is (lead, y, x), or has an axis of thresholds or members before."""
    known = np.isfinite(observed) & np.isfinite(forecast if kind in FIELD_KINDS else forecast.astype(np.float64).sum(axis=0))
    if kind in FIELD_KINDS:
        return tallies({"": forecast}, observed, known, setup, kinds=[kind])[""][kind]
    exceedance, rates = ExceedanceSums.zeros(len(observed), setup.thresholds), RateSums.zeros(len(observed))
    ensemble = EnsembleSums.zeros(len(observed), most_members=len(forecast))
    for lead in range(len(observed)):
        case = lead, forecast[:, lead], observed[lead], known[lead]
        if kind == "distribution":
            add_ensemble(rates, *case)
        elif kind == "members":
            add_members(exceedance, ensemble, *case)
        else:
            add_probabilities(exceedance, *case, range(len(forecast)))
    return {"members": ensemble, "distribution": rates, "probabilities": exceedance}[kind]
