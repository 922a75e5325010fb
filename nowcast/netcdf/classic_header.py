"""Check that a NetCDF file is complete, from its own bytes, before the NetCDF library opens it.

The library opens a truncated classic NetCDF file and reads its missing end as zeros, that is, as dry weather; a damaged
header can crash it. So the header is parsed here, as in the NetCDF user's guide, "File Format Specifications".
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from nowcast.errors import DataError

CLASSIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
HDF5 = b"\x89HDF\r\n\x1a\n"
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of each external type
_MOST = 100_000  # entries of a list; no archive has so many dimensions, variables or attributes
_HEADERS = (1 << 16, 1 << 26)  # bytes to read: enough for nearly every header, and for the longest


class _Damaged(Exception):
    """The header contradicts itself."""


class _CutOff(Exception):
    """The header continues after the end of what was read."""


@dataclass(frozen=True)
class _Variable:
    dims: tuple[int, ...]
    itemsize: int
    begin: int


class NoWholeFile(DataError):
    """A file that is damaged, cut off, or not NetCDF."""


def check_whole(path: Path) -> None:
    """Raise NoWholeFile (exit 3) unless a file starts like NetCDF and, in the classic format, is as long as its header says."""
    try:
        with open(path, "rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(8)
            needed = _classic_size(file, size) if start.startswith(CLASSIC) else 0
    except OSError as error:
        raise NoWholeFile(f"{path} cannot be read: {error.strerror}.\nExpected a NetCDF file.") from error
    except _Damaged as error:
        raise NoWholeFile(f"{path} is damaged: its header has {error}.\nExpected a whole NetCDF file.") from error
    if not start:
        raise NoWholeFile(f"{path} is empty (0 bytes).\nExpected a NetCDF file with at least one frame.")
    if not start.startswith((*CLASSIC, HDF5)):
        raise NoWholeFile(f"{path} is not a NetCDF file: it starts with {_shown(start[:4])}.\n{_advice(start)}")
    if size < needed:
        raise NoWholeFile(f"{path} is cut off: it is shorter than its header says.\nExpected a whole NetCDF file.")


def _shown(start: bytes) -> str:
    """Return the first bytes of a file as text if they are printable, else as hexadecimal numbers."""
    text = start.decode("ascii", "replace")
    return f'"{text}"' if text.isascii() and text.isprintable() else f"the bytes {start.hex(' ')}"


def _advice(start: bytes) -> str:
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        return "It is compressed as a whole: unpack it first (gunzip, bunzip2, unxz, unzip, unzstd)."
    if start.lstrip().startswith((b"<", b"{")):
        return "It is a web page or another text, perhaps what a server answered: download it again."
    return "Convert it to CF NetCDF first."


def _classic_size(file, size: int) -> int:
    """Return the bytes that a classic file must have; more than `size` if its header is cut off."""
    for most in _HEADERS:
        file.seek(0)
        try:
            return _declared_size(file.read(most))
        except _CutOff:
            if size <= most:
                break
    return size + 1


def _declared_size(content: bytes) -> int:
    """Return the bytes up to the last value that the header declares."""
    header = _Header(content)
    num_records = header.count(limit=math.inf)
    lengths = header.items(_DIMENSIONS, header.dimension)
    header.items(_ATTRIBUTES, header.attribute)
    variables = header.items(_VARIABLES, header.variable)
    streaming = num_records == (1 << 8 * header.width) - 1  # the number of records is not stated
    ends, record_variables = [header.position], []
    for variable in variables:
        if any(dim >= len(lengths) for dim in variable.dims) or any(lengths[dim] == 0 for dim in variable.dims[1:]):
            raise _Damaged("a variable with dimensions that it does not define")
        if variable.begin < header.position:
            raise _Damaged("a variable that begins within the header")
        is_record = bool(variable.dims) and lengths[variable.dims[0]] == 0
        num_bytes = math.prod(lengths[dim] for dim in variable.dims[is_record:]) * variable.itemsize
        if is_record:
            record_variables.append((variable.begin, num_bytes))
        else:
            ends.append(variable.begin + num_bytes)
    if num_records and not streaming:
        # each is padded to four bytes, unless there is only one
        stride = sum(-(-num_bytes // 4) * 4 for _, num_bytes in record_variables) if len(record_variables) > 1 else 0
        ends += [begin + (num_records - 1) * (stride or num_bytes) + num_bytes for begin, num_bytes in record_variables]
    return max(ends)


class _Header:
    """A parser of the header of a classic file, item by item."""

    def __init__(self, content: bytes):
        version = content[3]
        self.content, self.position = content, 4
        self.width = 8 if version == 5 else 4  # bytes of a count
        self.offset_width = 4 if version == 1 else 8

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def take(self, size: int) -> bytes:
        if size > len(self.content) - self.position:
            raise _CutOff
        self.position += size
        return self.content[self.position - size : self.position]

    def count(self, limit: float = _MOST) -> int:
        value = self.number(self.width)
        if value > limit:
            raise _Damaged(f"a list of {value} entries")
        return value

    def items(self, tag: int, read) -> list:
        stored_tag, count = self.number(4), self.count()
        if stored_tag != tag and (stored_tag or count):
            raise _Damaged("a list of an unexpected kind")
        return [read() for _ in range(count)]

    def padded(self, size: int) -> bytes:
        return self.take(-(-size // 4) * 4)[:size]

    def name(self) -> None:
        name = self.padded(self.count())
        try:
            legal = name.decode("utf-8").isprintable() and b"/" not in name
        except UnicodeDecodeError:
            legal = False
        if not legal:
            raise _Damaged(f"an invalid name ({_shown(name[:20])})")

    def kind(self) -> int:
        code = self.number(4)
        if code not in _BYTES or (code > 6 and self.width == 4):
            raise _Damaged(f"numbers of an unknown type ({code})")
        return _BYTES[code]

    def dimension(self) -> int:
        self.name()
        return self.count(limit=math.inf)

    def attribute(self) -> None:
        self.name()
        itemsize = self.kind()
        self.padded(self.count(limit=math.inf) * itemsize)

    def variable(self) -> _Variable:
        self.name()
        dims = tuple(self.count(limit=math.inf) for _ in range(self.count()))
        self.items(_ATTRIBUTES, self.attribute)
        itemsize = self.kind()
        self.count(limit=math.inf)  # its size, which follows from the dimensions
        return _Variable(dims, itemsize, self.number(self.offset_width))
