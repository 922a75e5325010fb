"""Composites in ODIM_H5: rain rate (RATE), sums (ACRR) or reflectivity (DBZH, TH).

Source: OPERA Data Information Model for HDF5, versions 2.0 to 2.4 (Michelson et al.). An attribute that data1 lacks holds from
its dataset on, else from the root. The valid time is the nominal one of the product; that of sums is the end of their interval.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.hdf5 import attribute, field_of, number, opened
from nowcast.convert.original import Numbers, Options, Original, Series, check_size, per_hour
from nowcast.convert.place import Place, place_from_corners
from nowcast.errors import DataError

WHAT = "ODIM HDF5"
_QUANTITIES = ("RATE", "ACRR", "DBZH", "TH", "DBZ")  # the first that a file has
_REFLECTIVITIES = _QUANTITIES[2:]
_LEAST_GAIN, _MOST_GAIN = 1e-9, 1e6
_NOWCASTS = ("RV_", "RS_", "WN_")  # products of DWD that hold the time of observation and forecasts
_POLAR = {"PVOL", "SCAN", "RAY", "AZIM", "ELEV"}


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file: of the quantity asked for, or the first of RATE, ACRR, DBZH and TH, one of each interval.

    Raises DataError (exit 3) for a polar volume, and for a file without such a field, a time, a projection or corners.
    """
    with opened(path, WHAT) as file:
        found = []
        for position, (data, dataset) in enumerate(_find(file, path, options.variable)):
            numbers, quantity, interval = _numbers(file, dataset, data, path)
            time = _time(file, dataset, path, at_end=interval is not None)
            place = _place(file, dataset, field_of(data, "data", path).shape, path)
            source = attribute(file.get("what"), "source") or "unknown source"
            conventions = attribute(file, "Conventions") or "ODIM_H5"
            title = ("title", f"Radar composite, {quantity}")
            about = (title, ("institution", source), ("source", f"{conventions} {quantity}"))
            series = Series(quantity, place, numbers.storage, interval, about)
            found.append(Original(time, position, series, _minutes_ahead(file, dataset, path)))
        return _one_of_each(found)


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields of a file, (y, x) as stored. Raises DataError (exit 3) if they cannot be read."""
    with opened(path, WHAT) as file:
        found = _find(file, path, options.variable)
        for position in numbers:
            data, dataset = found[position]
            meant, field = _numbers(file, dataset, data, path)[0], field_of(data, "data", path)[...]
            yield meant.store(
                field.view(f"{field.dtype.byteorder}u{field.dtype.itemsize}") if meant.kind.kind == "u" else field
            )


def _find(file, path: Path, wanted: str | None) -> list[tuple]:
    """Return the groups of the fields of a quantity, such as /dataset1/data1, with those above them."""
    kind = attribute(file.get("what"), "object")
    if kind in _POLAR:
        raise DataError(f"{path} is a polar volume or scan (object {kind}) of one radar.\nExpected a composite on a map.")
    found = {}
    for dataset in _numbered(file, "dataset"):
        for data in _numbered(dataset, "data"):
            quantity = _attribute(file, dataset, data, "quantity")
            found.setdefault(str(quantity), []).append((data, dataset))
    for quantity in (wanted,) if wanted else _QUANTITIES:
        if quantity in found:
            times = {_moment([each.get("what")], "end", path) for _, each in found[quantity]} - {None}
            if len(times) > 1:
                raise DataError(f"{path} has {quantity} of {len(times)} times.\nExpected a file for each time.")
            return found[quantity]
    has = ", ".join(found) or "no fields"
    raise DataError(f"{path} has {has}.\nExpected {wanted or 'one of ' + ', '.join(_QUANTITIES)}; --variable chooses another.")


def _one_of_each(found: Sequence[Original]) -> list[Original]:
    """Return the first field of each interval and place: a second one is another level, or made in another way."""
    return list({(each.time, each.series.key): each for each in reversed(found)}.values())[::-1]


def _minutes_ahead(file, dataset, path: Path) -> float | None:
    """Return how far ahead of the nominal time a field is; None of an observation.

    A forecast begins after the nominal time. Those of DWD's nowcasts that begin there end after it.
    """
    nominal = _moment([file.get("what")], "", path)
    start, end = (_moment([dataset.get("what")], kind, path) for kind in ("start", "end"))
    if None in (nominal, start, end):
        return None
    is_nowcast = str(attribute(dataset.get("what"), "prodname") or "").startswith(_NOWCASTS)
    ahead = (end - nominal) / np.timedelta64(60, "s")
    return float(ahead) if ahead > 0 and (start > nominal or is_nowcast) else None


def _numbered(group, name: str) -> list:
    """Return the groups name1, name2, …"""
    names = [key for key in group if key.startswith(name) and key[len(name) :].isdigit()]
    return [group[key] for key in sorted(names, key=lambda key: int(key[len(name) :])) if hasattr(group[key], "keys")]


def _attribute(file, dataset, data, name: str, part: str = "what"):
    for group in (data, dataset, file):
        value = attribute(group.get(part), name)
        if value is not None:
            return value
    return None


def _number(file, dataset, data, name: str, default: float | None, path: Path) -> float | None:
    for group in (data, dataset, file):
        value = number(group.get("what"), name, None, str(path))
        if value is not None:
            return value
    return default


def _numbers(file, dataset, data, path: Path) -> tuple[Numbers, str, float | None]:
    """Return what the numbers mean, the quantity, and of sums the interval in minutes."""
    quantity = str(_attribute(file, dataset, data, "quantity"))
    gain, offset = (_number(file, dataset, data, name, default, path) for name, default in (("gain", 1.0), ("offset", 0.0)))
    if not (_LEAST_GAIN <= abs(gain) <= _MOST_GAIN and np.isfinite(offset)):
        told = f"{path} has gain {gain:g} and offset {offset:g}"
        raise DataError(f"{told}.\nExpected finite numbers, and a gain other than 0 and up to {_MOST_GAIN:g}.")
    nodata, undetect = (_number(file, dataset, data, name, None, path) for name in ("nodata", "undetect"))
    kind = field_of(data, "data", path).dtype
    if _is_wrapped(kind, nodata, undetect):
        kind = np.dtype(f"{kind.byteorder}u{kind.itemsize}")
        nodata = float(np.iinfo(kind).max) if nodata == -1 else nodata
    missing = () if nodata is None else (nodata,)
    dry = None if undetect == nodata or undetect is None or np.isnan(undetect) else undetect
    interval = None
    if quantity == "ACRR":
        start, end = (_moment(_what(file, dataset), kind, path) for kind in ("start", "end"))
        interval = (end - start) / np.timedelta64(60, "s") if start is not None and end is not None else 0.0
        factor = per_hour(interval, f"{path}: ACRR")
        gain, offset = gain * factor, offset * factor
    return Numbers(kind, gain, offset, missing, dry, quantity in _REFLECTIVITIES), quantity, interval


def _is_wrapped(kind: np.dtype, nodata: float | None, undetect: float | None) -> bool:
    """Return whether signed integers of 8 or 16 bits stand for the unsigned ones of ODIM.

    Their codes tell: one is above the largest signed number, or nodata is -1, the largest unsigned one, above undetect = 0.
    """
    if kind.kind != "i" or kind.itemsize > 2:
        return False
    largest = np.iinfo(kind).max
    codes = [code for code in (nodata, undetect) if code is not None]
    return (nodata == -1 and undetect == 0) or any(largest < code <= 2 * largest + 1 for code in codes)


def _what(file, dataset) -> list:
    return [group for group in (dataset.get("what"), file.get("what")) if group is not None]


def _time(file, dataset, path: Path, *, at_end: bool) -> np.datetime64:
    """Return the valid time: the end of sums, else the nominal time; each where the other is absent."""
    nominal = _moment([file.get("what")], "", path)
    end = _moment(_what(file, dataset), "end", path)
    time = (end or nominal) if at_end else (nominal or end)
    if time is None:
        raise DataError(f"{path} has no time.\nExpected what/date and what/time, or enddate and endtime.")
    return time


def _moment(groups: Sequence, prefix: str, path: Path) -> np.datetime64 | None:
    for group in groups:
        date, time = (attribute(group, prefix + name) for name in ("date", "time"))
        if date is None or time is None:
            continue
        try:
            digits = f"{date}{time!s:0>6}"[:14]  # some write numbers, without zeros in front
            return np.datetime64(datetime.strptime(digits, "%Y%m%d%H%M%S"), "s")
        except ValueError:
            raise DataError(f"{path} has {prefix}date {date!s:.20} and {prefix}time {time!s:.20}.\nExpected digits.") from None
    return None


def _place(file, dataset, shape: tuple[int, int], path: Path) -> Place:
    where = dataset.get("where") if attribute(dataset.get("where"), "projdef") else file.get("where")
    projection = attribute(where, "projdef")
    if not projection:
        raise DataError(f"{path} has no map projection.\nExpected where/projdef.")
    size = [number(where, name, None, str(path)) for name in ("xscale", "yscale")]
    corners = {name: number(where, name, None, str(path)) for name in _corner_names()}
    stated = [number(where, name, None, str(path)) for name in ("ysize", "xsize")]
    if None not in stated and tuple(stated) != shape:
        check_size(int(stated[0]), int(stated[1]), path)
        told = f"{stated[0]:g} × {stated[1]:g}"
        raise DataError(f"{path} states {told} cells and has {shape[0]} × {shape[1]}.\nExpected the same.")
    west_south, east_north = ((corners[f"{c}_lon"], corners[f"{c}_lat"]) for c in ("LL", "UR"))
    if None in west_south or None in east_north:
        raise DataError(f"{path} has no corners.\nExpected LL_lon, LL_lat, UR_lon and UR_lat in where.")
    known = tuple(size) if None not in size else None
    return place_from_corners(projection, west_south=west_south, east_north=east_north, shape=shape, where=path, size=known)


def _corner_names() -> list[str]:
    return [f"{corner}_{angle}" for corner in ("LL", "UR") for angle in ("lon", "lat")]
