"""MeteoNet npz: many frames of 5-minute sums in units of 0.01 mm, -1 missing, with pickled times.

The pickle is never executed: datetimes are decoded from the bytes in its opcodes. Source: MeteoNet documentation, Meteo-France.
"""

import contextlib
import math
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from nowcast.convert.original import Encoding, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place
from nowcast.errors import DataError, counted

_INTERVAL = 5.0  # minutes
_MOST_PICKLED = 1 << 26  # bytes
# rows and columns -> latitude of the first row and longitude of the first column, as in the file of coordinates
_REGIONS = {(565, 784): ("NW", 51.891, -5.837), (515, 784): ("SE", 46.245, 2.005)}
_STEP = 0.01  # degrees


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file, without reading them. Raises DataError (exit 3) if it is damaged or of another kind."""
    with _opened(path) as archive:
        shape, kind = _shape(archive, path)
        times = _dates(archive, path)
    if len(times) != shape[0]:
        raise DataError(
            f"{path} has {counted(len(times), 'date')} but {counted(shape[0], 'frame')}.\nExpected one date per frame."
        )
    if shape[1:] not in _REGIONS:
        raise DataError(f"{path} has {shape[1]} × {shape[2]} cells.\nExpected MeteoNet's NW (565 × 784) or SE (515 × 784).")
    region, north, west = _REGIONS[shape[1:]]
    place = Place(Axis(north, -_STEP, shape[1]), Axis(west, _STEP, shape[2]))
    about = (
        ("title", f"MeteoNet radar rainfall, {region}"),
        ("institution", "Meteo-France"),
        ("source", "MeteoNet npz, 5-minute sums"),
    )
    series = Series(f"MeteoNet-{region}", place, _encoding(kind).storage, _INTERVAL, about)
    return [Original(time, number, series) for number, time in enumerate(times)]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields, (y, x) as stored, indices ascending, with one in memory at a time. Raises DataError (exit 3)."""
    with _opened(path) as archive, archive.open("data.npy") as member:
        shape, kind = _header(member, path)
        num_bytes, position = math.prod(shape[1:]) * kind.itemsize, 0
        for number in numbers:
            while position <= number:
                frame = _exactly(member, num_bytes, path)
                position += 1
            yield _encoding(kind).store(np.frombuffer(frame, kind).reshape(shape[1:]))


def _encoding(kind: np.dtype) -> Encoding:
    return Encoding(kind.newbyteorder("="), 0.01 * 60 / _INTERVAL, 0.0, (-1.0,))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged or not a MeteoNet file ({str(error)[:80]}).\nExpected data and dates.") from error


def _shape(archive: zipfile.ZipFile, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open("data.npy") as member:
        return _header(member, path)


def _header(member, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of an array of frames, up to its first value."""
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(member)]
    shape, is_fortran, kind = read_header(member)
    if len(shape) != 3 or is_fortran or kind.kind not in "iu" or kind.itemsize > 4:
        raise DataError(f"{path} holds {kind} of shape {shape}.\nExpected frames of integers (time, y, x).")
    check_size(*shape[1:], path)
    return shape, kind


def _exactly(member, num_bytes: int, path: Path) -> bytes:
    frame = member.read(num_bytes)
    if len(frame) != num_bytes:
        raise DataError(f"{path} is cut off within a frame.\nExpected a whole file: download it again.")
    return frame


def _dates(archive: zipfile.ZipFile, path: Path) -> list[np.datetime64]:
    """Return the times of the frames, decoded from the opcodes of their pickle, which is not executed."""
    if archive.getinfo("dates.npy").file_size > _MOST_PICKLED:
        raise DataError(f"{path} holds more than {_MOST_PICKLED >> 20} MiB of dates.\nExpected some thousands of them.")
    pickled = archive.read("dates.npy")
    start = pickled.index(b"\n") + 1  # after the header of the array
    times = []
    for _, argument, _ in pickletools.genops(pickled[start:]):
        if isinstance(argument, bytes | str) and len(argument) == 10:
            state = argument if isinstance(argument, bytes) else argument.encode("latin-1", "replace")
            with contextlib.suppress(ValueError):
                times.append(np.datetime64(_datetime(state), "s"))
    return times


def _datetime(state: bytes) -> datetime:
    """Decode the ten bytes of a pickled datetime. Raises ValueError for other bytes."""
    if re.fullmatch(rb"[\x20-\x7e]+", state):
        raise ValueError("a name")
    return datetime(state[0] << 8 | state[1], state[2], state[3], state[4], state[5], state[6])
