"""Composites in ODIM_H5: rain rate (RATE), sums (ACRR) or reflectivity (DBZH, TH).

Source: OPERA Data Information Model for HDF5, versions 2.0 to 2.4 (Michelson et al.). An attribute is read
from data1, else from its dataset, else from the root. The valid time is the nominal time; for sums the end of the interval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.hdf5 import attribute, field_of, number, opened
from nowcast.convert.original import Encoding, Options, Original, Series, check_size, per_hour
from nowcast.convert.place import Place, place_from_corners
from nowcast.errors import DataError
from nowcast.runtime.log_lines import warn_once

WHAT = "ODIM HDF5"
_QUANTITIES = ("RATE", "ACRR", "DBZH", "TH", "DBZ")  # in order of preference
_REFLECTIVITIES = _QUANTITIES[2:]
_LEAST_GAIN, _MOST_GAIN = 1e-9, 1e6
_NOWCASTS = ("RV_", "RS_", "WN_")  # products of DWD with the observation and forecasts in one file
_POLAR = {"PVOL", "SCAN", "RAY", "AZIM", "ELEV"}


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file, one per interval: of the quantity in the options, or the first of RATE, ACRR, DBZH and TH.

    A quantity such as DBZH@dataset2 names its dataset too; else the first of several is taken, with a warning.

    Raises DataError (exit 3) for a polar volume, and for a file without such a field, time, projection or corners.
    """
    with opened(path, WHAT) as file:
        originals = []
        for position, (data, dataset) in enumerate(_find(file, path, options.variable)):
            encoding, quantity, interval = _encoding(file, dataset, data, path)
            time = _time(file, dataset, path, at_end=interval is not None)
            place = _place(file, dataset, field_of(data, "data", path).shape, path)
            source = attribute(file.get("what"), "source") or "unknown source"
            conventions = attribute(file, "Conventions") or "ODIM_H5"
            title = ("title", f"Radar composite, {quantity}")
            about = (title, ("institution", source), ("source", f"{conventions} {quantity}"))
            _, _, chosen = (options.variable or "").partition("@")
            series = Series(f"{quantity}@{chosen}" if chosen else quantity, place, encoding.storage, interval, about)
            variant = (_described(data, dataset),)
            originals.append(Original(time, position, series, _minutes_ahead(file, dataset, path), variant=variant))
        return _one_of_each(originals, path)


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields of a file, (y, x) as stored. Raises DataError (exit 3) if they cannot be read."""
    with opened(path, WHAT) as file:
        fields = _find(file, path, options.variable)
        for position in numbers:
            data, dataset = fields[position]
            encoding, field = _encoding(file, dataset, data, path)[0], field_of(data, "data", path)[...]
            unsigned = encoding.kind.kind == "u"
            yield encoding.store(field.view(f"{field.dtype.byteorder}u{field.dtype.itemsize}") if unsigned else field)


def _find(file, path: Path, wanted: str | None) -> list[tuple]:
    """Return the groups of the fields of a quantity, such as /dataset1/data1, with their parent groups."""
    object_type = attribute(file.get("what"), "object")
    if object_type in _POLAR:
        raise DataError(f"{path} is a polar volume or scan (object {object_type}).\nExpected a composite on a map.")
    fields = {}
    for dataset in _numbered(file, "dataset"):
        for data in _numbered(dataset, "data"):
            quantity = _attribute(file, dataset, data, "quantity")
            fields.setdefault(str(quantity), []).append((data, dataset))
            fields.setdefault(f"{quantity}@{data.name.strip('/')}", []).append((data, dataset))
            fields.setdefault(f"{quantity}@{dataset.name.strip('/')}", []).append((data, dataset))
    for quantity in (wanted,) if wanted else _QUANTITIES:
        if quantity in fields:
            times = {_moment([each.get("what")], "end", path) for _, each in fields[quantity]} - {None}
            if len(times) > 1:
                raise DataError(f"{path} has {quantity} for {len(times)} times.\nExpected one file per time.")
            return fields[quantity]
    named = [name for name in fields if ("@" in name) == ("@" in (wanted or "")) and "/" not in name]
    has = ", ".join(named) or "no fields"
    raise DataError(f"{path} has {has}.\nExpected {wanted or 'one of ' + ', '.join(_QUANTITIES)}; --variable chooses another.")


def _one_of_each(originals: Sequence[Original], path: Path) -> list[Original]:
    """Return the first field of each time and series; warn of others: they are of another level, or another processing."""
    kept: dict[tuple, Original] = {}
    for each in originals:
        first = kept.setdefault((each.time, each.series.key), each)
        if first is not each:
            quantity, taken, other = each.series.product, first.variant[0], each.variant[0]
            said = f"has {quantity} in {taken} and in {other} for one time: the first is taken"
            warn_once(path, f"{said}; choose with --variable, such as {quantity}@{other.split()[0]}")
    return [replace(each, variant=()) for each in kept.values()]


def _described(data, dataset) -> str:
    """Return the name of a field, with its product and the parameter of that, such as `dataset2/data1 (PCAPPI 1000)`."""
    product, parameter = (attribute(dataset.get("what"), name) for name in ("product", "prodpar"))
    stated = " ".join(str(value)[:40] for value in (product, parameter) if value is not None)
    return data.name.strip("/") + (f" ({stated})" if stated else "")


def _minutes_ahead(file, dataset, path: Path) -> float | None:
    """Return the lead time of a field after the nominal time, minutes; None for an observation.

    The interval of a forecast starts after the nominal time; in DWD's nowcasts it may start at the nominal time.
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


def _encoding(file, dataset, data, path: Path) -> tuple[Encoding, str, float | None]:
    """Return the encoding, the quantity and, for sums, the accumulation interval, minutes."""
    quantity = str(_attribute(file, dataset, data, "quantity"))
    gain, offset = (_number(file, dataset, data, name, default, path) for name, default in (("gain", 1.0), ("offset", 0.0)))
    if not (_LEAST_GAIN <= abs(gain) <= _MOST_GAIN and np.isfinite(offset)):
        stated = f"{path} has gain {gain:g} and offset {offset:g}"
        raise DataError(f"{stated}.\nExpected finite numbers, and a gain other than 0 and up to {_MOST_GAIN:g}.")
    nodata, undetect = (_number(file, dataset, data, name, None, path) for name in ("nodata", "undetect"))
    kind = field_of(data, "data", path).dtype
    if _is_wrapped(kind, nodata, undetect):
        kind = np.dtype(f"{kind.byteorder}u{kind.itemsize}")
        nodata, undetect = (
            code + 2.0 ** (8 * kind.itemsize) if code is not None and code < 0 else code for code in (nodata, undetect)
        )
    missing = () if nodata is None else (nodata,)
    dry = None if undetect == nodata or undetect is None or np.isnan(undetect) else undetect
    interval = None
    if quantity == "ACRR":
        start, end = (_moment(_what(file, dataset), kind, path) for kind in ("start", "end"))
        interval = (end - start) / np.timedelta64(60, "s") if start is not None and end is not None else 0.0
        factor = per_hour(interval, f"{path}: ACRR")
        gain, offset = gain * factor, offset * factor
    return Encoding(kind, gain, offset, missing, dry, quantity in _REFLECTIVITIES), quantity, interval


def _is_wrapped(kind: np.dtype, nodata: float | None, undetect: float | None) -> bool:
    """Return whether signed integers of 8 or 16 bits stand for the unsigned ones of ODIM.

    One of their codes is above the largest signed number, or nodata is -1, the largest unsigned one, above undetect = 0.
    """
    if kind.kind != "i" or kind.itemsize > 2:
        return False
    largest = np.iinfo(kind).max
    codes = [code for code in (nodata, undetect) if code is not None]
    return (nodata == -1 and undetect == 0) or any(largest < code <= 2 * largest + 1 for code in codes)


def _what(file, dataset) -> list:
    return [group for group in (dataset.get("what"), file.get("what")) if group is not None]


def _time(file, dataset, path: Path, *, at_end: bool) -> np.datetime64:
    """Return the valid time: for sums the end time, else the nominal time; if it is absent, the other one."""
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
            return np.datetime64(datetime.strptime(_digits(date, time), "%Y%m%d%H%M%S"), "s")
        except ValueError:
            raise DataError(
                f"{path} has {prefix}date {date!s:.20} and {prefix}time {time!s:.20}.\nExpected YYYYMMDD and HHMMSS."
            ) from None
    return None


def _digits(date: object, time: object) -> str:
    """Return a date and a time as 14 digits. Some files have numbers, without leading zeros. Raises ValueError for others."""
    day, clock = str(date).strip(), str(time).strip()
    if isinstance(time, str) and len(clock) < 5 and int(clock):
        raise ValueError("hours and minutes, or seconds without leading zeros")
    digits = f"{day}{clock:0>6}"[:14]
    if len(day) != 8 or not digits.isdecimal():
        raise ValueError("no date")
    return digits


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
        size_text = f"{stated[0]:g} × {stated[1]:g}"
        raise DataError(f"{path} states {size_text} cells but has {shape[0]} × {shape[1]}.\nExpected equal sizes.")
    west_south, east_north = ((corners[f"{c}_lon"], corners[f"{c}_lat"]) for c in ("LL", "UR"))
    if None in west_south or None in east_north:
        raise DataError(f"{path} has no corners.\nExpected LL_lon, LL_lat, UR_lon and UR_lat in where.")
    cell_size = tuple(size) if None not in size else None
    return place_from_corners(projection, west_south=west_south, east_north=east_north, shape=shape, where=path, size=cell_size)


def _corner_names() -> list[str]:
    return [f"{corner}_{angle}" for corner in ("LL", "UR") for angle in ("lon", "lat")]
