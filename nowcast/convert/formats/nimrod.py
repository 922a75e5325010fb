"""Nimrod files of the UK Met Office: composites of rain rate, sums and reflectivity, such as those in the archive of CEDA.

Source: Met Office, Nimrod file specification, version 2.6-4. A file holds one or more fields. Each is a header of 512 bytes and
an array, both big-endian and each between two four-byte lengths. Rows run from north to south; the origin is the centre of the
first cell.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from nowcast.convert.original import Encoding, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place
from nowcast.convert.sniffing import content
from nowcast.convert.units import UnitConversion, conversion_of
from nowcast.errors import DataError

_HEADER = 512  # bytes
# what of the header is used: its general integers and numbers, texts, and the period in seconds; `_` is skipped
_LAYOUT = np.dtype(
    [
        ("valid", ">i2", 6), ("data_time", ">i2", 5), ("kind", ">i2"), ("bytes", ">i2"), ("_1", ">i2"), ("map", ">i2"),
        ("rows", ">i2"), ("columns", ">i2"), ("_2", ">i2"), ("code", ">i2"), ("_3", ">i2", 4), ("corner", ">i2"),
        ("missing", ">i2"), ("minutes", ">i2"), ("_4", ">i2"), ("ellipsoid", ">i2"), ("member", ">i2"), ("_5", ">i2", 2),
        ("_6", ">f4", 2), ("north", ">f4"), ("row_step", ">f4"), ("west", ">f4"), ("column_step", ">f4"),
        ("missing_number", ">f4"), ("_7", ">f4", 4), ("true_origin", ">f4", 4), ("scale_on_meridian", ">f4"), ("_8", ">f4", 57),
        ("units", "S8"), ("source", "S24"), ("title", "S24"), ("_9", ">i2", 49), ("seconds", ">i2"), ("_10", ">i2"),
    ]
)  # fmt: skip
_KINDS = {(0, 4): ">f4", (1, 1): "i1", (1, 2): ">i2", (1, 4): ">i4", (2, 1): "i1"}  # by data type and bytes of a value
_UNSTATED = -32767  # of any integer or number of the header, whatever its codes for missing values are
_NO_RAIN = -1  # code for missing rain in most files
_IN_SECONDS = 32767  # minutes of a period that is stated in seconds
_TOP_LEFT = 0  # corner of the first cell
_NATIONAL_GRID, _DEGREES, _TRANSVERSE_MERCATOR = 0, 1, 4  # maps
_ELLIPSOIDS = {0: "airy", 1: "intl"}
_OSGB = (
    "+proj=tmerc +lat_0=49 +lon_0=-2 +k=0.9996012717 +x_0=400000 +y_0=-100000 +ellps=airy "
    "+towgs84=446.448,-125.157,542.06,0.15,0.247,0.842,-20.489 +units=m +no_defs"
)


@dataclass(frozen=True)
class Header:
    """The header of a field, and the position of its array in the file, bytes."""

    path: Path
    values: np.void
    position: int

    def __getitem__(self, name: str):
        return self.values[name]

    def text(self, name: str) -> str:
        """Return a text of the header without the blanks and zeros around it."""
        return self[name].decode("latin-1").strip(" \0")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self["rows"]), int(self["columns"])

    @cached_property
    def kind(self) -> np.dtype:
        """The type of the array. Raises DataError (exit 3) for one that the specification does not know."""
        kind, width = int(self["kind"]), int(self["bytes"])
        if (kind, width) not in _KINDS:
            raise DataError(f"{self.path} has values of type {kind} in {width} bytes.\nExpected numbers of 1, 2 or 4 bytes.")
        return np.dtype(_KINDS[kind, width])

    @property
    def minutes(self) -> float | None:
        """The accumulation interval, minutes; None for instants."""
        stated = int(self["minutes"])
        if stated == _IN_SECONDS:
            return self["seconds"] / 60 if self["seconds"] > 0 else None
        return float(stated) if stated > 0 else None

    def time(self, name: str) -> np.datetime64 | None:
        """Return a time of the header; None if it is not stated. Raises DataError (exit 3) if it is no time."""
        numbers = [int(number) for number in self[name]]
        if numbers[0] <= 0:
            return None
        numbers[5:] = [0 if number == _UNSTATED else number for number in numbers[5:]]  # seconds
        try:
            return np.datetime64(datetime(*numbers), "s")
        except ValueError:
            raise DataError(f"{self.path} has the time {numbers}.\nExpected year, month, day, hour, minute, second.") from None

    @property
    def conversion(self) -> UnitConversion:
        """The conversion of the stored values, which by units such as mm/h*32 or mm*10^2 are 32 or 100 times as large."""
        units, _, factor = self.text("units").partition("*")
        match = re.fullmatch(r"(\d+)(?:\^(\d+))?", factor.strip())
        if factor and not (match and int(match[1])):
            return conversion_of(self.text("units"), str(self.path), interval=self.minutes)
        stored = float(match[1]) ** int(match[2] or 1) if match else 1.0
        conversion = conversion_of(units, str(self.path), interval=self.minutes)
        return UnitConversion(conversion.scale / stored, conversion.offset, conversion.reflectivity, conversion.interval)


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file: those of rain, or with `options.variable` those with this field code or title.

    Raises DataError (exit 3) if there is none, and for damaged headers, unknown maps and units that are no measure of rain.
    """
    headers = list(_headers(content(path), path))
    chosen = [number for number, header in enumerate(headers) if options.variable in (None, *_names(header))]
    if not chosen:
        there = ", ".join(f'{header["code"]} "{header.text("title")}"' for header in headers)
        raise DataError(f"{path} has no field {options.variable}.\nExpected one of those in the file: {there}.")
    of_rain = [number for number in chosen if _is_rain(headers[number], options)]
    return [_original(headers[number], number, options) for number in of_rain or chosen]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields of a file, (y, x) as stored in a record."""
    data = content(path)
    headers = list(_headers(data, path))
    for number in numbers:
        header = headers[number]
        encoding = _encoding(header, options)
        raw = np.ndarray(header.shape, header.kind, data, header.position).astype(encoding.kind)
        if not encoding.reflectivity:
            raw[raw < 0] = _NO_RAIN  # whatever the codes of the header are
        yield encoding.store(raw)


def _is_rain(header: Header, options: Options) -> bool:
    try:
        return _conversion(header, options) is not None
    except DataError:
        return False


def _names(header: Header) -> tuple[str, str]:
    return str(header["code"]), header.text("title")


def _headers(data: bytes, path: Path) -> Iterator[Header]:
    """Yield the header of each field. Raises DataError (exit 3) if the file is cut off or damaged."""
    position = 0
    while position < len(data):
        end = position + 4 + _HEADER
        if _length(data, position) != _HEADER or _length(data, end) != _HEADER:
            raise DataError(f"{path} is cut off or damaged at byte {position:,}.\nExpected the header of a Nimrod field.")
        header = Header(path, np.frombuffer(data, _LAYOUT, 1, position + 4)[0], end + 8)
        check_size(*header.shape, path)
        size = header.shape[0] * header.shape[1] * header.kind.itemsize
        if _length(data, end + 4) != size or _length(data, end + 8 + size) != size:
            raise DataError(f"{path} is cut off or damaged after byte {end:,}.\nExpected {size:,} bytes of values.")
        yield header
        position = end + 12 + size


def _length(data: bytes, position: int) -> int | None:
    """Return the four-byte length at a position; None if the file ends before."""
    return int.from_bytes(data[position : position + 4]) if position + 4 <= len(data) else None


def _original(header: Header, number: int, options: Options) -> Original:
    time, data_time = header.time("valid"), header.time("data_time")
    if time is None:
        raise DataError(f"{header.path} has no valid time.\nExpected the year, month, day and time of each field.")
    lead = (time - data_time) / np.timedelta64(60, "s") if data_time is not None else 0.0
    encoding, minutes = _encoding(header, options), _conversion(header, options).interval
    is_forecast = lead > 0 and lead != minutes  # a sum may have the start of its interval as data time
    title, member = header.text("title"), int(header["member"])
    product = f"Nimrod-{header['code']}" + (f"-member-{member}" if member >= 0 else "")
    about = (("title", title or product), ("institution", "Met Office"), ("source", f"Nimrod, {header.text('source')}"))
    series = Series(product, _place(header), encoding.storage, minutes, about)
    return Original(time, number, series, lead if is_forecast else None)


def _conversion(header: Header, options: Options) -> UnitConversion:
    if options.units:
        return conversion_of(options.units, str(header.path), interval=header.minutes)
    return header.conversion


def _encoding(header: Header, options: Options) -> Encoding:
    conversion, kind = _conversion(header, options), header.kind.newbyteorder("=")
    codes = (header["missing_number"] if kind.kind == "f" else header["missing"], _UNSTATED)
    codes += () if conversion.reflectivity else (_NO_RAIN,)
    return Encoding(kind, conversion.scale, conversion.offset, tuple(map(float, codes)), None, conversion.reflectivity)


def _place(header: Header) -> Place:
    """Return the grid. Raises DataError (exit 3) for other corners and maps than those that are read."""
    if header["corner"] != _TOP_LEFT:
        raise DataError(f"{header.path} starts in corner {header['corner']}.\nExpected 0: rows from north to south.")
    steps = [float(header[name]) for name in ("row_step", "column_step")]
    firsts = [float(header[name]) for name in ("north", "west")]
    if not (np.isfinite([*steps, *firsts]).all() and min(steps) > 0):
        raise DataError(f"{header.path} has cells of {steps[1]:g} × {steps[0]:g}.\nExpected lengths above 0.")
    return Place(Axis(firsts[0], -steps[0], header.shape[0]), Axis(firsts[1], steps[1], header.shape[1]), _projection(header))


def _projection(header: Header) -> str:
    """Return the projection as PROJ text. The National Grid needs no constants: those of the header may be absent, or in km."""
    used = int(header["map"])
    if used == _NATIONAL_GRID:
        return _OSGB
    ellipsoid = _ELLIPSOIDS.get(int(header["ellipsoid"]), "intl")
    if used == _DEGREES:
        return f"+proj=longlat +ellps={ellipsoid} +no_defs"
    latitude, longitude, easting, northing = (float(number) for number in header["true_origin"])
    scale = float(header["scale_on_meridian"])
    if used != _TRANSVERSE_MERCATOR or _UNSTATED in (latitude, longitude, easting, northing, scale):
        raise DataError(f"{header.path} is on a map of type {used}.\nExpected 0, 1 or 4, with an origin and a scale.")
    return (
        f"+proj=tmerc +lat_0={latitude:g} +lon_0={longitude:g} +k={scale:.9g} +x_0={easting:.9g} +y_0={northing:.9g} "
        f"+ellps={ellipsoid} +units=m +no_defs"
    )
