"""Tell the format of a file by its content: a few kilobytes, without any library."""

import bz2
import contextlib
import gzip
import mmap
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nowcast.errors import DataError

_HEAD = 4096  # bytes that tell the format
_SEARCHED = 1 << 22  # bytes of an HDF5 file in which its names are searched for
_MOST_BYTES = 1 << 31  # of a file when decompressed
_BLOCK = 1 << 20
RADOLAN = re.compile(rb"[A-Z]{2}\d{6}\d{5}\d{4}BY")  # product, day, hour, minute, station, month, year, length


@dataclass(frozen=True)
class Format:
    """A format of original files: what people call it, and the module of `convert.formats` that reads it."""

    title: str
    module: str


FORMATS = {
    "odim": Format("ODIM HDF5", "odim"),
    "knmi": Format("KNMI HDF5", "knmi"),
    "radolan": Format("RADOLAN", "radolan"),
    "mrms": Format("GRIB", "grib"),
    "mch-gif": Format("MeteoSwiss GIF", "mch_gif"),
    "fmi-pgm": Format("FMI PGM", "fmi_pgm"),
    "bom": Format("NetCDF", "arrays"),
    "meteonet": Format("MeteoNet npz", "meteonet"),
    "image": Format("PNG or GIF", "image"),
    "geotiff": Format("GeoTIFF", "geotiff"),
    "zarr": Format("Zarr", "arrays"),
    "netcdf": Format("NetCDF", "arrays"),
}
READ_COMPRESSED = ("radolan", "mrms", "fmi-pgm")
BESIDE = "coordinates"  # a file that another one needs, and which holds no field
# the beginning of a file -> its format; HDF5, GIF, PGM, zip and what is compressed need a closer look
_BEGINNINGS = (
    (b"CDF", "netcdf"),
    (b"GRIB", "mrms"),
    (b"\x89PNG\r\n", "image"),
    (b"II*\0", "geotiff"),
    (b"MM\0*", "geotiff"),
    (b"II+\0", "geotiff"),
    (b"MM\0+", "geotiff"),
)


def format_of(path: Path) -> str | None:
    """Return the key in FORMATS of a file or Zarr store, BESIDE for what belongs to another file; None if it is unknown."""
    if path.is_dir():
        return "zarr" if is_store(path) else None
    try:
        start = head(path)
    except (OSError, DataError):
        return None
    for beginning, name in _BEGINNINGS:
        if start.startswith(beginning):
            return name
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if start.startswith(b"GIF8"):
        return "mch-gif" if b"Meteoswiss" in start else "image"
    if start.startswith((b"P5", b"P2")):
        return "fmi-pgm" if b"# obstime" in start else None
    if start.startswith(b"PK\x03\x04"):
        return {b"data.npy": "meteonet", b"lats.npy": BESIDE, b"lons.npy": BESIDE}.get(start[30:38])
    if RADOLAN.match(start):
        return "radolan"
    return "mrms" if b"GRIB" in start[:256] else None  # after the header of a telegram


def is_store(folder: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _hdf5(path: Path) -> str:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"_NCProperties", 0, _HEAD * 16) >= 0:
            return "netcdf"
        end = min(len(content), _SEARCHED)
        if content.find(b"ODIM_H5", 0, end) >= 0:
            return "odim"
        if content.find(b"calibration_formulas", 0, end) >= 0 or content.find(b"image1", 0, end) >= 0:
            return "knmi"
        is_odim = all(content.find(name, 0, end) >= 0 for name in (b"dataset1", b"what", b"where"))
    return "odim" if is_odim else "netcdf"


def head(path: Path, num_bytes: int = _HEAD) -> bytes:
    """Return the first bytes of a file, decompressed if it is gzip or bzip2. Raises as `content`."""
    with _damage(path), _opened(path) as file:
        return file.read(num_bytes)


def content(path: Path) -> bytes:
    """Return a whole file, decompressed if it is gzip or bzip2.

    Raises DataError (exit 3) if it is cut off, damaged, absent or too large.
    """
    with _damage(path), _opened(path) as file:
        blocks, size = [], 0
        while block := file.read(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > _MOST_BYTES:
                raise DataError(f"{path} holds more than {_MOST_BYTES >> 20} MiB.\nExpected one field, or a few.")
        return b"".join(blocks)


def is_compressed(path: Path) -> bool:
    """Return whether a file is gzip or bzip2. Raises OSError if it cannot be read."""
    return _opener(path) is not open


def _opened(path: Path):
    return _opener(path)(path, "rb")


def _opener(path: Path):
    with open(path, "rb") as file:
        start = file.read(3)
    return gzip.open if start[:2] == b"\x1f\x8b" else bz2.open if start == b"BZh" else open


@contextlib.contextmanager
def _damage(path: Path):
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut off or damaged ({error}).\nExpected a whole file: download it again.") from error
    except OSError as error:
        reason = error.strerror or error  # bzip2 says `Invalid data stream` without a number
        raise DataError(f"{path} cannot be read ({reason}).\nExpected a whole file on this machine.") from error


def named(formats: Iterable[str]) -> str:
    """Return what files of these formats are called, such as `8 ODIM HDF5 files and 1 GRIB file`."""
    counts = Counter(FORMATS[name].title for name in formats)
    return " and ".join(f"{count:,} {title} file{'s' if count > 1 else ''}" for title, count in counts.most_common())
