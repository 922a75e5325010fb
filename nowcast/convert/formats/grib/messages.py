"""Read the messages of a GRIB file and their keys with ecCodes, after a check of their lengths."""

import contextlib
import ctypes
import os
import struct
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nowcast.convert.original import ECCODES
from nowcast.convert.sniffing import content, is_compressed
from nowcast.errors import DataError
from nowcast.netcdf.writing.new_file import writing

WHAT = "GRIB"
_SECTIONS = {1: 21, 6: 6}  # smallest length of these sections, bytes
_FOLLOWS = {0: (1,), 1: (2, 3), 2: (3,), 3: (4,), 4: (5,), 5: (6,), 6: (7,), 7: (2, 3, 4)}  # section -> those that may follow
_TEMPLATES, _TEMPLATE_END = {3: 12, 4: 7, 5: 9}, 14  # section -> position of its template number; end of the last of them
_LENGTHS = {  # section and template -> smallest length, bytes
    (3, 0): 72, (3, 20): 65, (3, 30): 81, (4, 0): 34, (4, 1): 37, (4, 8): 58, (4, 11): 61,
    (5, 0): 21, (5, 2): 47, (5, 3): 49, (5, 40): 23, (5, 41): 21, (5, 42): 25,
}  # fmt: skip
_KEPT: list = []  # callbacks that ecCodes calls until the process ends
_SEARCHED, _SHORTEST = 1 << 16, 32  # bytes: searched for the next message; of the shortest message


@cache
def _silence() -> None:
    """Stop ecCodes from printing dozens of lines for a damaged file; it also returns the errors."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # other versions of ecCodes then print
        from gribapi.bindings import library_path

        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
        log = ctypes.CDLL(library_path).grib_context_set_logging_proc
        log.argtypes, log.restype = (ctypes.c_void_p, function), None
        _KEPT.append(function(lambda context, level, text: None))
        log(None, _KEPT[0])


class Message:
    """The keys of a GRIB message that ecCodes has read."""

    def __init__(self, handle, eccodes):
        self.handle, self.eccodes = handle, eccodes

    def number(self, key: str, default: float | None = None) -> float | None:
        """Return the numerical value of a key; `default` if it is absent or missing."""
        try:
            if self.eccodes.codes_is_missing(self.handle, key):
                return default
            return self.eccodes.codes_get(self.handle, key)
        except self.eccodes.CodesInternalError:
            return default

    def whole(self, key: str, default: int) -> int:
        """Return the code number of a key, even if it has a name; `default` if it is absent."""
        try:
            return self.eccodes.codes_get_long(self.handle, key)
        except self.eccodes.CodesInternalError:
            return default

    def size(self, key: str) -> int:
        """Return the number of values of a key; 0 if it is absent."""
        try:
            return self.eccodes.codes_get_size(self.handle, key)
        except self.eccodes.CodesInternalError:
            return 0

    def text(self, key: str) -> str:
        """Return the value of a key as text; "" if it is absent."""
        try:
            return str(self.eccodes.codes_get_string(self.handle, key))
        except (self.eccodes.CodesInternalError, UnicodeError):
            return ""


def messages_of(path: Path) -> Iterator[tuple[int, Message]]:
    """Yield the fields of a file as messages, with their indices."""
    eccodes = ECCODES.load(WHAT)
    _silence()
    eccodes.codes_grib_multi_support_on()  # one message may hold several fields
    with _whole(path) as file:
        check_messages(file, path)
        try:
            yield from _read_messages(eccodes, file, path)
        finally:  # else ecCodes returns the rest of a multi-field message for the next file
            eccodes.codes_grib_multi_support_reset_file(file)


def _read_messages(eccodes, file, path: Path) -> Iterator[tuple[int, Message]]:
    number = 0
    while True:
        try:
            handle = eccodes.codes_grib_new_from_file(file)
        except eccodes.CodesInternalError as error:
            raise DataError(f"{path} is damaged or cut off ({error}).\nExpected whole GRIB messages.") from error
        if handle is None:
            break
        try:
            yield number, Message(handle, eccodes)
        except eccodes.CodesInternalError as error:
            raise DataError(f"{path} has a damaged message ({error}).\nExpected whole GRIB messages.") from error
        finally:
            eccodes.codes_release(handle)
        number += 1
    if not number:
        raise DataError(f"{path} holds no whole GRIB message.\nExpected at least one: download it again.")


def check_messages(file, path: Path) -> None:
    """Check the lengths of all messages, since ecCodes 2.50 never returns from a section of length 0; rewind the file.

    Raises DataError (exit 3) for a message that is cut off, or whose length differs from that of its sections.
    """
    size, position = file.seek(0, os.SEEK_END), 0
    while position < size:
        file.seek(position)
        start = file.read(_SEARCHED)
        begin = start.find(b"GRIB")
        if begin < 0:
            break
        header = start[begin : begin + 16]
        edition = header[7] if len(header) == 16 else None
        length = int.from_bytes(header[8:16] if edition == 2 else header[4:7], "big")
        end = position + begin + length
        if edition not in (1, 2) or length < _SHORTEST or end > size:
            raise DataError(f"{path} is cut off or damaged: a message states {length:,} bytes.\nExpected whole GRIB messages.")
        if edition == 2:
            _check_sections(file, position + begin + 16, end, path)
        position = end
    file.seek(0)
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # ecCodes reads from the file descriptor


def _check_sections(file, position: int, end: int, path: Path) -> None:
    before = 0
    while position < end - 4:
        file.seek(position)
        length, number = struct.unpack(">IB", file.read(5))
        least = _least_length(number, file.read(_TEMPLATE_END - 5))
        if length < least or position + length > end - 4 or not 1 <= number <= 7:
            raise DataError(f"{path} is damaged: section {number} states {length:,} bytes.\nExpected whole GRIB messages.")
        if number not in _FOLLOWS[before]:
            raise DataError(f"{path} is damaged: section {number} after {before}.\nExpected whole GRIB messages.")
        position, before = position + length, number
    file.seek(position)
    if file.read(4) != b"7777" or before != 7:
        raise DataError(f"{path} is damaged: a message does not end in 7777.\nExpected whole GRIB messages.")


def _least_length(number: int, start: bytes) -> int:
    """Return the smallest valid length of a section of edition 2, bytes: ecCodes 2.50 reads beyond the end of a shorter one.

    start: its bytes from the sixth on
    """
    if number not in _TEMPLATES:
        return _SECTIONS.get(number, 5)
    position = _TEMPLATES[number] - 5
    template = int.from_bytes(start[position : position + 2], "big")
    return _LENGTHS.get((number, template), _TEMPLATES[number] + 2)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator:
    """Open a file for ecCodes, decompressed to a temporary file if necessary. Raises OutputError (exit 5)."""
    if not is_compressed(path):
        with open(path, "rb") as file:
            yield file
        return
    whole = content(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with writing(copy):
            copy.write_bytes(whole)
        with open(copy, "rb") as file:
            yield file
