"""Write series to files: a CSV table with a row for each source, place and time, or CF NetCDF."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nowcast import __version__
from nowcast.errors import UsageError
from nowcast.netcdf.writing.new_file import writing
from nowcast.prediction.series import Series, Wanted
from nowcast.runtime.outputs import replacing
from nowcast.runtime.signals import held

SUFFIXES = (".csv", ".nc")
_COLUMNS = ("source", "place", "reference_time", "time", "lead_minutes", "rain_rate_mm_h", "known")
_MINUTE = np.timedelta64(60, "s")
_SECONDS = "seconds since 1970-01-01 00:00:00"


def check_output(output: Path) -> None:
    """Raise UsageError (exit 2) for a name that ends in neither .csv nor .nc."""
    if output.suffix not in SUFFIXES:
        raise UsageError(f"--output {output}: end the name in .csv for a table or in .nc for NetCDF")


def write_series(series: Sequence[Series], output: Path, *, overwrite: bool) -> None:
    """Write all series into one file, whole or not at all. Raises OutputError (exit 5)."""
    with replacing(output, overwrite=overwrite) as temporary:
        if output.suffix == ".nc":
            dataset = as_dataset(series)
            packed = {
                name: {"zlib": True, "fletcher32": True}
                for name, v in dataset.variables.items()
                if v.dtype.kind in "fi" and v.ndim
            }
            plain = {name: {"_FillValue": None} for name in dataset.coords}
            encoding = packed | {name: packed.get(name, {}) | each for name, each in plain.items()}
            with writing(output), held():
                dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            numbers = sorted({number for each in series for number in each.member_numbers})
            writer.writerow([*_COLUMNS, *_further_columns(series[0].wanted), *_member_columns(series[0].wanted, numbers)])
            for each in series:
                writer.writerows(_rows(each, numbers))


def _further_columns(wanted: Wanted) -> list[str]:
    sums = [f"sum_{minutes}_min_mm" for minutes in wanted.sums]
    return sums + [f"exceedance_{threshold:g}_mm_h" for threshold in wanted.thresholds]


def _member_columns(wanted: Wanted, numbers: Sequence[int]) -> list[str]:
    """Return the columns of each member: its rate, then its sums."""
    kinds = ["mm_h", *(f"sum_{minutes}_min_mm" for minutes in wanted.sums)]
    return [f"member_{member}_{kind}" for kind in kinds for member in numbers]


def _rows(series: Series, numbers: Sequence[int]) -> Iterator[list[str]]:
    """Yield the rows of a source, place by place, with columns for the members of these numbers; missing values are empty."""
    columns, nothing = np.isin(numbers, series.member_numbers), np.full(len(numbers), np.nan)

    def by_number(members: np.ndarray) -> np.ndarray:
        of_row = nothing.copy()
        of_row[columns] = members
        return of_row

    for place, named in enumerate(series.weights.places):
        for case, reference in enumerate(series.reference_times):
            for lead, time in enumerate(series.times[case]):
                values = [series.rates[case, lead, place], series.known[case, lead, place]]
                values += [*series.sums[case, lead, :, place], *series.exceedance[case, lead, :, place]]
                values += [*by_number(series.members[case, lead, :, place])]
                values += [value for own in series.member_sums[case, lead, :, :, place] for value in by_number(own)]
                start, after = (f"{reference}Z", f"{(time - reference) / _MINUTE:g}") if series.is_forecast else ("", "")
                numbers = ("" if np.isnan(value) else f"{value:.5g}" for value in values)
                yield [series.source, named.name, start, f"{time}Z", after, *numbers]


def as_dataset(series: Sequence[Series]) -> xr.Dataset:
    """Return the series as a CF dataset over place and time, or for forecasts over place, reference time and lead time.

    With several sources, the names of variables and dimensions end in that of the source.
    """
    variables: dict[str, Any] = _places(series[0])
    names: list[str] = []
    for each in series:
        ending = "" if len(series) == 1 else "_" + re.sub(r"\W", "_", each.source)
        ending += f"_{names.count(ending) + 1}" if ending in names else ""
        names.append(ending)
        variables |= _times(each, ending) | _values(each, ending) | {f"place_share_in_grid{ending}": _covered(each)}
    attributes = {
        "Conventions": "CF-1.11",
        "title": "Rain at places",
        "source": f"{', '.join(each.source for each in series)}, nowcast {__version__}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} nowcast series",
        "institution": "not stated",
        "references": "none",
    }
    if not any(each.is_forecast for each in series):
        attributes["featureType"] = "timeSeries"
    dataset = xr.Dataset(variables, attrs=attributes)
    kinds = ("latitude", "longitude", "time", "forecast_reference_time", "forecast_period", "rainfall_rate")
    coordinates = [name for name, v in dataset.variables.items() if v.attrs.get("standard_name") in kinds[:5]]
    return dataset.set_coords([*coordinates, "place_name", *(name for name in ("threshold",) if name in dataset)])


def _places(series: Series) -> dict[str, Any]:
    """Return the variables of the places, which all sources share."""
    places = series.weights.places
    where = {"latitude": [place.latitude for place in places], "longitude": [place.longitude for place in places]}
    variables: dict[str, Any] = {
        "place_name": (
            "place",
            [place.name for place in places],
            {"long_name": "name of the place", "cf_role": "timeseries_id"},
        )
    }
    for (name, values), units in zip(where.items(), ("degrees_north", "degrees_east"), strict=True):
        variables[name] = (
            "place",
            values,
            {"standard_name": name, "long_name": f"{name} of a gauge, or of a point in an area", "units": units},
        )
    if not np.isnan(series.weights.areas_km2).all():
        variables["place_area"] = (
            "place",
            series.weights.areas_km2,
            {"standard_name": "area", "long_name": "area; missing of gauges", "units": "km2"},
        )
    if thresholds := series.wanted.thresholds:
        described = {"standard_name": "rainfall_rate", "long_name": "threshold of the rain rate", "units": "mm h-1"}
        variables["threshold"] = ("threshold", list(thresholds), described)
    return variables


def _covered(series: Series) -> tuple:
    return "place", series.weights.covered, {"long_name": "share of the place that lies in the grid", "units": "1"}


def _dims(series: Series, ending: str) -> tuple[str, ...]:
    if not series.is_forecast:
        return (f"time{ending}",)
    return f"forecast_reference_time{ending}", f"forecast_period{ending}"


def _times(series: Series, ending: str) -> dict[str, Any]:
    """Return the variables of time: valid times, and of forecasts reference times and lead times."""

    def time(name: str, dims: tuple[str, ...], values: np.ndarray) -> dict[str, Any]:
        described = {"standard_name": name, "units": _SECONDS, "calendar": "standard"}
        described |= {"axis": "T"} if not series.is_forecast else {}
        return {f"{name}{ending}": (dims, values.astype(np.int64).astype(np.float64), described)}

    dims = _dims(series, ending)
    if not series.is_forecast:
        return time("time", dims, series.times[0])
    leads = (series.times[0] - series.reference_times[0]).astype(np.int64).astype(np.int32)
    period = {f"forecast_period{ending}": (dims[1:], leads, {"standard_name": "forecast_period", "units": "s"})}
    return time("forecast_reference_time", dims[:1], series.reference_times) | period | time("time", dims, series.times)


def _values(series: Series, ending: str) -> dict[str, Any]:
    """Return the variables of rain, over place and the dimensions of time."""
    dims, cases = ("place", *_dims(series, ending)), slice(None) if series.is_forecast else 0
    listed = " ".join(["place_name latitude longitude", *([f"time{ending}"] if series.is_forecast else [])])

    def over_places(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values[cases], -1, 0).astype(np.float32)

    rate = {"standard_name": "rainfall_rate", "long_name": "rain rate", "units": "mm h-1", "cell_methods": "area: mean"}
    share = {"long_name": "share of the place that is known", "units": "1"}
    variables = {
        f"rain_rate{ending}": (dims, over_places(series.rates), rate),
        f"known_share{ending}": (dims, over_places(series.known), share),
    }
    for n, minutes in enumerate(series.wanted.sums):
        variables[f"rain_sum_{minutes}_min{ending}"] = (dims, over_places(series.sums[..., n, :]), _of_sum(minutes))
    if series.wanted.thresholds:
        described = {"long_name": "share of the place that reaches the threshold, or is expected to", "units": "1"}
        variables[f"exceedance{ending}"] = ((dims[0], *dims[1:], "threshold"), over_places(series.exceedance), described)
    if series.members.shape[2]:
        variables |= _of_members(series, ending, dims, rate, over_places)
    return {name: (own, values, attributes | {"coordinates": listed}) for name, (own, values, attributes) in variables.items()}


def _of_sum(minutes: int) -> dict[str, str]:
    return {
        "standard_name": "lwe_thickness_of_precipitation_amount",
        "long_name": f"rain of the {minutes} minutes up to the time",
        "units": "mm",
        "cell_methods": f"area: mean time: sum (comment: over {minutes} minutes)",
    }


def _of_members(series: Series, ending: str, dims: tuple, rate: dict, over_places: Callable) -> dict[str, tuple]:
    """Return the rain of every member, and its sums, over place, the dimensions of time, and the member."""
    dims = (*dims, f"realization{ending}")
    numbered = {"standard_name": "realization", "units": "1"}
    variables: dict[str, tuple] = {dims[-1]: (dims[-1:], np.array(series.member_numbers, np.int32), numbered)}
    variables[f"rain_rate_members{ending}"] = (dims, over_places(series.members), rate)
    for n, minutes in enumerate(series.wanted.sums):
        variables[f"rain_sum_{minutes}_min_members{ending}"] = (
            dims,
            over_places(series.member_sums[:, :, n]),
            _of_sum(minutes),
        )
    return variables
