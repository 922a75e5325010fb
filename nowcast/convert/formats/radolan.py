"""RADOLAN and RADKLIM binaries of Deutscher Wetterdienst: sums of rain, and reflectivity.

Source: DWD, RADOLAN/RADVOR-Kompositformat, version 2.5. A text header ends with the byte 3. Then follow rows from south to
north, of little-endian 2-byte values whose upper four bits are flags, or of 1-byte values.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.original import Encoding, Options, Original, Series, check_size, per_hour
from nowcast.convert.place import Axis, Place
from nowcast.convert.sniffing import RADOLAN, content, head
from nowcast.errors import DataError

_VALUE, _MISSING, _NEGATIVE = 0x0FFF, 0x2000 | 0x8000, 0x4000  # bits: value; no data and clutter, both missing; negative sign
_BYTE_MISSING = (250.0, 249.0, 255.0)  # no data, clutter
_FILL = np.int16(-32768)
_REFLECTIVITIES = {"RX", "EX", "WX", "WN", "HX"}  # in RVP6 units: dBZ = raw value / 2 - 32.5
_SPHERE = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +x_0=0 +y_0=0 +R=6370040 +units=m +no_defs"
_WGS84 = (
    "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6378137 +b=6356752.3142451802 +x_0=543196.83521776402 "
    "+y_0=3622588.8619310018 +units=m +no_defs"
)
_FIRST_ON_WGS84 = 5  # first version of the format with maps on the WGS 84 ellipsoid
_MIDDLE = {_SPHERE: (-73462.2, -4208645.0), _WGS84: (469500.0, -599500.0)}  # x and y of 9° E, 51° N on the maps (m)
# rows and columns -> number of 1 km cells from that point to the western edge and to the southern edge
_GRIDS = {(900, 900): (450, 450), (1100, 900): (370, 550), (1500, 1400): (600, 800), (1200, 1100): (470, 600)}
_UNITS = {"": 1, "0": 1, "1": 1440, "2": 60}  # of the interval, minutes


@dataclass(frozen=True)
class Header:
    """The header of a file.

    interval, lead: accumulation interval and lead time, minutes; size: bytes of the header; total: bytes of the file
    version: of the format
    """

    product: str
    time: np.datetime64
    shape: tuple[int, int]
    precision: float
    interval: float | None
    lead: int
    size: int
    total: int
    version: int

    @property
    def width(self) -> int:
        """Bytes per value."""
        return 1 if self.total - self.size < 2 * self.shape[0] * self.shape[1] else 2

    def check_width(self, path: Path) -> None:
        """Raise DataError (exit 3) for values of more than two bytes."""
        cells = self.shape[0] * self.shape[1]
        if self.total - self.size >= 3 * cells:
            message = f"{path} ({self.product}) has values of {(self.total - self.size) // cells} bytes"
            raise DataError(f"{message}.\nExpected one or two: sums, or reflectivity.")

    @property
    def reflectivity(self) -> bool:
        return self.product in _REFLECTIVITIES

    def numbers(self, path: Path) -> Encoding:
        """Return the encoding. Raises DataError (exit 3) for sums over an unknown interval."""
        kind = np.dtype("u1" if self.width == 1 else "i2")
        missing = _BYTE_MISSING if self.width == 1 else (float(_FILL),)
        if self.reflectivity:
            return Encoding(kind, self.precision / 2, -32.5, missing, reflectivity=True)
        if self.interval is None:
            raise DataError(f"{path} ({self.product}) states no interval.\nExpected INT with minutes in its header.")
        return Encoding(kind, self.precision * per_hour(self.interval, str(path)), 0.0, missing)


def header_of(start: bytes, path: Path) -> Header:
    """Read the header at the start of a file. Raises DataError (exit 3) if it is damaged or of another kind."""
    text, end, _ = start.partition(b"\x03")
    if not end or not RADOLAN.match(text):
        raise DataError(f"{path} has no complete RADOLAN header.\nExpected RY011500100000120BY or such, and a byte 3.")
    line = text.decode("latin-1")
    shape = re.search(r"GP\s*(\d+)x\s*(\d+)", line)
    if not shape:
        raise DataError(f"{path} ({line[:2]}) states no size.\nExpected GP with rows and columns; PG is not read.")
    precision = re.search(r"PR\s*E([+-]\d\d)", line)
    interval = re.search(r"INT\s*(\d+)(?:U(\d))?", line)
    lead = re.search(r"VV\s*(\d+)", line)
    version = re.search(r"VS\s*(\d+)", line)
    total = re.match(r"\s*\d+", line[19:29].split("VS")[0])
    try:
        time = datetime.strptime(line[2:8] + line[13:17], "%d%H%M%m%y")
    except ValueError:
        raise DataError(f"{path} has the time {line[2:8]} {line[13:17]}.\nExpected day, hour, minute, month, year.") from None
    rows, columns = int(shape[1]), int(shape[2])
    check_size(rows, columns, path)
    return Header(
        product=line[:2], time=np.datetime64(time, "s"), shape=(rows, columns),
        precision=10.0 ** int(precision[1]) if precision else 1.0,
        interval=float(interval[1]) * _UNITS.get(interval[2] or "", 1) if interval else None,
        lead=int(lead[1]) if lead else 0, size=len(text) + 1,
        total=int(total[0]) if total else len(text) + 1 + 2 * rows * columns,
        version=int(version[1]) if version else 0,
    )  # fmt: skip


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of a file, from its header. Raises DataError (exit 3) for an unknown grid."""
    header = header_of(head(path), path)
    if header.shape not in _GRIDS:
        known = ", ".join(f"{rows} × {columns}" for rows, columns in _GRIDS)
        raise DataError(f"{path} has {header.shape[0]} × {header.shape[1]} cells.\nExpected a grid of DWD: {known}.")
    header.check_width(path)
    place = _place(header)
    about = (
        ("title", f"DWD radar product {header.product}"),
        ("institution", "Deutscher Wetterdienst (DWD)"),
        ("source", f"RADOLAN binary, product {header.product}"),
    )
    interval = None if header.reflectivity else header.interval
    series = Series(header.product, place, header.numbers(path).storage, interval, about)
    return [Original(header.time, 0, series, header.lead or None)]


def _place(header: Header) -> Place:
    projection = _WGS84 if header.version >= _FIRST_ON_WGS84 else _SPHERE
    (x, y), (west, south) = _MIDDLE[projection], _GRIDS[header.shape]
    axes = ((y, south, header.shape[0]), (x, west, header.shape[1]))
    return Place(*(Axis(round(middle - 1000.0 * cells + 500.0, 3), 1000.0, size) for middle, cells, size in axes), projection)


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of a file, (y, x) as stored, rows from south to north. Raises DataError (exit 3) if it is cut off."""
    data = content(path)
    header = header_of(data[:4096], path)
    rows, columns = header.shape
    expected = rows * columns * header.width
    if len(data) - header.size < expected:
        raise DataError(f"{path} holds {len(data) - header.size:,} bytes of values.\nExpected {expected:,}: it is cut off.")
    raw = np.frombuffer(data, "<u2" if header.width == 2 else "u1", rows * columns, header.size).reshape(rows, columns)
    for _ in numbers:
        yield header.numbers(path).store(_signed(raw) if header.width == 2 else raw)


def _signed(raw: np.ndarray) -> np.ndarray:
    """Return the values without flags: (y, x) int16, fill value where missing."""
    out = (raw & _VALUE).astype(np.int16)
    flagged = raw > _VALUE  # few cells have flags besides no data
    if flagged.any():
        flags = raw & (_MISSING | _NEGATIVE)
        np.negative(out, out=out, where=(flags & _NEGATIVE) != 0)
        out[(flags & _MISSING) != 0] = _FILL
    return out
