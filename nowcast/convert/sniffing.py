"""Detect the format of a file from its first kilobytes, without any library."""

import contextlib
import gzip
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nowcast.convert.containers import decompressed, kind_of
from nowcast.errors import DataError, counted

_HEAD = 4096  # bytes from which the format is detected
_SEARCHED = 1 << 22  # bytes of an HDF5 file in which names of groups are searched
_MOST_BYTES = 1 << 31  # of a decompressed file
_BLOCK = 1 << 20
RADOLAN = re.compile(rb"[A-Z]{2}\d{6}\d{5}\d{4}BY")  # product, day, hour, minute, station, month, year, length
NIMROD = b"\0\0\2\0"  # length of a header, before and after it


@dataclass(frozen=True)
class Format:
    """A format of original files: its name in messages, and the module of `convert.formats` that reads it."""

    title: str
    module: str


FORMATS = {
    "odim": Format("ODIM HDF5", "odim"),
    "knmi": Format("KNMI HDF5", "knmi"),
    "radolan": Format("RADOLAN", "radolan"),
    "nimrod": Format("Nimrod", "nimrod"),
    "mrms": Format("GRIB", "grib.reader"),
    "mch-gif": Format("MeteoSwiss GIF", "mch_gif"),
    "fmi-pgm": Format("FMI PGM", "fmi_pgm"),
    "bom": Format("NetCDF", "arrays"),
    "meteonet": Format("MeteoNet npz", "meteonet"),
    "image": Format("PNG or GIF", "image"),
    "geotiff": Format("GeoTIFF", "geotiff"),
    "zarr": Format("Zarr", "arrays"),
    "netcdf": Format("NetCDF", "arrays"),
}
READ_COMPRESSED = ("radolan", "nimrod", "mrms", "fmi-pgm")
BESIDE = "coordinates"  # a file of coordinates that belongs to another file; it has no fields
ARCHIVE = "tar or zip"  # a file that contains other files
_NPZ = {b"data.npy": "meteonet", b"lats.npy": BESIDE, b"lons.npy": BESIDE}  # by the name of the first member
# first bytes of a file -> its format; HDF5, GIF, PGM, zip and compressed files need a closer look
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
    """Return the key in FORMATS of a file or Zarr store, also if it is compressed; None if the format is unknown.

    BESIDE: it belongs to another file; ARCHIVE: it contains other files
    """
    if path.is_dir():
        return "zarr" if is_store(path) else None
    try:
        with _damage(path), open(path, "rb") as file:
            return format_in(file)
    except DataError:
        return None


def format_in(file: BinaryIO) -> str | None:
    """Return the format of an open file, as `format_of`. Raises OSError, EOFError or a decompression error if it is damaged."""
    start = decompressed(file).read(_HEAD)
    for beginning, name in _BEGINNINGS:
        if start.startswith(beginning):
            return name
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        file.seek(0)
        return _hdf5(decompressed(file).read(_SEARCHED))
    if start.startswith(b"GIF8"):
        return "mch-gif" if b"Meteoswiss" in start else "image"
    if start.startswith((b"P5", b"P2")):
        return "fmi-pgm" if b"# obstime" in start else None
    if kind_of(start) == "zip":
        return _NPZ.get(start[30:38], ARCHIVE)
    if RADOLAN.match(start):
        return "radolan"
    if start[:4] == NIMROD == start[516:520]:
        return "nimrod"
    return "mrms" if b"GRIB" in start[:256] else ARCHIVE if kind_of(start) else None  # GRIB may follow a WMO bulletin header


def is_store(folder: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _hdf5(content: bytes) -> str:
    if b"_NCProperties" in content[: _HEAD * 16]:
        return "netcdf"
    if b"ODIM_H5" in content:
        return "odim"
    if b"calibration_formulas" in content or b"image1" in content:
        return "knmi"
    return "odim" if all(name in content for name in (b"dataset1", b"what", b"where")) else "netcdf"


def head(path: Path, num_bytes: int = _HEAD) -> bytes:
    """Return the first bytes of a file, decompressed if it is gzip, bzip2 or xz. Raises as `content`."""
    with _damage(path), open(path, "rb") as file:
        return decompressed(file).read(num_bytes)


def content(path: Path) -> bytes:
    """Return a whole file, decompressed if it is gzip, bzip2 or xz.

    Raises DataError (exit 3) if it is cut off, damaged, absent or too large.
    """
    with _damage(path), open(path, "rb") as file:
        stream, blocks, size = decompressed(file), [], 0
        while block := stream.read(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > _MOST_BYTES:
                raise DataError(f"{path} holds more than {_MOST_BYTES >> 20} MiB.\nExpected one field or a few.")
        return b"".join(blocks)


def is_compressed(path: Path) -> bool:
    """Return whether a file is gzip, bzip2 or xz. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return decompressed(file) is not file


@contextlib.contextmanager
def _damage(path: Path):
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut off or damaged ({error}).\nExpected a whole file: download it again.") from error
    except OSError as error:
        reason = error.strerror or error  # an error of bzip2 has no strerror
        raise DataError(f"{path} cannot be read ({reason}).\nExpected a whole file on this machine.") from error


def title_of(name: str) -> str:
    """Return the name, for messages, of a format that `format_of` returned."""
    return FORMATS[name].title if name in FORMATS else name


def named(formats: Iterable[str]) -> str:
    """Return the number of files by format as text, such as `8 ODIM HDF5 files, 2 PGM files and 1 GRIB file`."""
    counts = Counter(title_of(name) for name in formats)
    texts = [counted(count, f"{title} file") for title, count in counts.most_common()]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
