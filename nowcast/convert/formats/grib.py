"""Precipitation in GRIB, edition 1 or 2: MRMS, and rates, sums and reflectivity of other centres, read by ecCodes.

Numbers that are packed in whole steps are stored in them. Of MRMS, whose tables ecCodes does not know, negative values are
missing; of its reflectivity -99 is no echo. Source: WMO Manual on Codes; NOAA, MRMS GRIB2 tables v12.
"""

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.grib_place import place_of
from nowcast.convert.original import ECCODES, FLOAT_FILL, Options, Original, Series, check_size
from nowcast.convert.sniffing import content, is_compressed
from nowcast.convert.units import Meant, meant
from nowcast.errors import DataError
from nowcast.netcdf.rain.record_writer import Storage

WHAT = "GRIB"
# discipline, category, number of edition 2 -> name and units; sums of MRMS with their interval
_MRMS = 209
_PARAMETERS = {
    (_MRMS, 6, 1): ("PrecipRate", "mm/h"), (_MRMS, 6, 2): ("RadarOnly_QPE_01H", "mm"),
    (_MRMS, 6, 45): ("RadarOnly_QPE_15M", "mm"),
    (_MRMS, 6, 9): ("GaugeCorr_QPE_01H", "mm"), (_MRMS, 6, 30): ("MultiSensor_QPE_01H_Pass1", "mm"),
    (_MRMS, 6, 37): ("MultiSensor_QPE_01H_Pass2", "mm"),
    (0, 1, 7): ("prate", "kg m-2 s-1"), (0, 1, 52): ("tprate", "kg m-2 s-1"), (0, 1, 65): ("rprate", "kg m-2 s-1"),
    (0, 1, 8): ("tp", "kg m-2"), (0, 16, 4): ("refd", "dBZ"), (0, 16, 5): ("refc", "dBZ"), (0, 15, 1): ("bref", "dBZ"),
}  # fmt: skip
_SHORT_NAMES = {"prate": "kg m-2 s-1", "tprate": "kg m-2 s-1", "crr": "kg m-2 s-1", "tp": None, "refc": "dBZ", "refd": "dBZ"}
_SUMS = {"_15M": 15.0, "_01H": 60.0}  # minutes of MRMS' sums, by a part of their names
_SEARCHED, _SHORTEST = 1 << 16, 32  # bytes in which the next message begins, after the header of a telegram; of a message
_MISSING = 1e20  # what ecCodes is asked to give for a missing value
_NO_ECHO, _NEAR = -99.0, 0.5  # dBZ; numbers that are packed may miss it by rounding
_UNITS_OF_STEPS = {"m": 1.0, "h": 60.0, "D": 1440.0, "s": 1 / 60}  # minutes
_UNITS_OF_TIME = {0: 1.0, 1: 60.0, 2: 1440.0, 13: 1 / 60}  # code table 4.4: minutes


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of precipitation of a file, or those of the parameter asked for; all must be of one parameter.

    Raises DataError (exit 3) for a file without any, with several parameters, or on a grid that is not read.
    """
    found, seen = [], {}
    for number, message in _messages(path):
        name, units = _parameter(message)
        seen[name] = None
        if options.variable not in (None, name) or (units is None and not options.units):
            continue
        means = _meaning(message, name, options.units or units, path)
        place, _ = place_of(message, path)
        about = (
            ("title", f"GRIB {name}"),
            ("institution", _institution(message)),
            ("source", f"GRIB edition {message.number('edition')}, {name}"),
        )
        series = Series(name, place, _storage(message, means), means.interval, about)
        found.append(Original(_time(message, path), number, series))
    if not found:
        what = ", ".join(list(seen)[:8]) or "no message"
        raise DataError(f"{path} holds {what}, and no precipitation that is known.\nChoose one with --variable and --units.")
    names = list(dict.fromkeys(original.series.product for original in found))
    if len(names) > 1:
        raise DataError(f"{path} holds several kinds of precipitation: {', '.join(names)}.\nChoose one with --variable.")
    return found


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields, (y, x) as stored, numbers ascending. Raises DataError (exit 3) for fields that cannot be decoded."""
    wanted = list(numbers)
    for number, message in _messages(path):
        if wanted and number == wanted[0]:
            wanted.pop(0)
            name, units = _parameter(message)
            yield _field(message, _meaning(message, name, options.units or units, path), path)
        if not wanted:
            return
    raise DataError(f"{path} has fewer messages than before.\nDid it change meanwhile?")


class Message:
    """A message that ecCodes has read: its keys."""

    def __init__(self, handle, eccodes):
        self.handle, self.eccodes = handle, eccodes

    def number(self, key: str, default: float | None = None) -> float | None:
        """Return the number of a key; `default` if it is absent or missing."""
        try:
            if self.eccodes.codes_is_missing(self.handle, key):
                return default
            return self.eccodes.codes_get(self.handle, key)
        except self.eccodes.CodesInternalError:
            return default

    def text(self, key: str) -> str:
        """Return the text of a key; an empty one if it is absent."""
        try:
            return str(self.eccodes.codes_get_string(self.handle, key))
        except (self.eccodes.CodesInternalError, UnicodeError):
            return ""


def _messages(path: Path) -> Iterator[tuple[int, Message]]:
    """Yield the messages of a file and the fields within them, with their numbers."""
    eccodes = ECCODES.load(WHAT)
    eccodes.codes_grib_multi_support_on()  # one message may hold several fields
    with _whole(path) as file:
        check_messages(file, path)
        try:
            yield from _read_messages(eccodes, file, path)
        finally:  # ecCodes keeps the rest of a message of several fields, for whatever file is opened next
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
    """Walk through the messages of an open file: ecCodes 2.50 never ends on a section of length 0. Leaves it at its start.

    Raises DataError (exit 3) for a message that is cut off, or whose sections do not add up to its length.
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
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # ecCodes reads the system's file


def _check_sections(file, position: int, end: int, path: Path) -> None:
    while position < end - 4:
        file.seek(position)
        length, number = struct.unpack(">IB", file.read(5))
        if length < 5 or position + length > end - 4 or not 1 <= number <= 7:
            raise DataError(f"{path} is damaged: section {number} states {length:,} bytes.\nExpected whole GRIB messages.")
        position += length
    file.seek(position)
    if file.read(4) != b"7777":
        raise DataError(f"{path} is damaged: a message does not end in 7777.\nExpected whole GRIB messages.")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator:
    """Open a file for ecCodes, which reads no compressed ones."""
    if not is_compressed(path):
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content(path))
        file.flush()
        with open(file.name, "rb") as again:  # anew: ecCodes reads on from where the system's file stands
            yield again


def _parameter(message: Message) -> tuple[str, str | None]:
    """Return the name of a parameter, and its units if it is precipitation."""
    code = tuple(message.number(key, -1) for key in ("discipline", "parameterCategory", "parameterNumber"))
    if message.number("edition") == 2 and code in _PARAMETERS:
        return _PARAMETERS[code]
    short = message.text("shortName")
    if short in _SHORT_NAMES:
        return short, _SHORT_NAMES[short] or message.text("units").replace("**", "")
    return ("/".join(map(str, code)) if short in ("unknown", "") else short), None


def _meaning(message: Message, name: str, units: str | None, path: Path) -> Meant:
    interval = next((minutes for part, minutes in _SUMS.items() if part in name), None)
    found = meant(units, f"{path}: {name}", interval=interval or _minutes_of_sums(message))
    return found if found.interval or not interval else Meant(found.scale, found.offset, interval=interval)


def _minutes_of_sums(message: Message) -> float | None:
    """Return the minutes that a message's amounts were summed over; None if it does not say."""
    first, _, last = message.text("stepRange").partition("-")
    if last.isdigit() and first.isdigit() and int(last) > int(first):
        return (int(last) - int(first)) * _UNITS_OF_STEPS.get(message.text("stepUnits")[:1], 60.0)
    length = message.number("lengthOfTimeRange")
    unit = _UNITS_OF_TIME.get(message.number("indicatorOfUnitForTimeRange"))
    return float(length) * unit if length and unit else None


def _storage(message: Message, means: Meant) -> Storage:
    """Return how a field is stored: in the steps that it is packed in if they start at 0, else as float32."""
    step = _step(message)
    dry = _NO_ECHO if means.reflectivity and message.number("discipline") == _MRMS else None
    if step is None or means.offset:
        return Storage("f4", fill=FLOAT_FILL, dry=dry, reflectivity=means.reflectivity)
    count = None if dry is None else round(dry / step)
    return Storage("i4", step * means.scale, 0.0, -(2**31), count, means.reflectivity)


def _step(message: Message) -> float | None:
    """Return the step of a packing whose values are whole multiples of it; None of another."""
    reference, binary, decimal = (message.number(key) for key in ("referenceValue", "binaryScaleFactor", "decimalScaleFactor"))
    if None in (reference, binary, decimal) or abs(binary) > 60 or abs(decimal) > 12:
        return None
    steps = reference / 2.0**binary
    bits = message.number("bitsPerValue", 0)
    is_whole = abs(steps - round(steps)) < 1e-6 and abs(steps) + 2.0**bits < 2**31
    return 2.0**binary / 10.0**decimal if is_whole and bits else None


def _field(message: Message, means: Meant, path: Path) -> np.ndarray:
    place, turned = place_of(message, path)
    check_size(*place.shape, path)
    eccodes = message.eccodes
    eccodes.codes_set(message.handle, "missingValue", _MISSING)
    try:
        values = eccodes.codes_get_values(message.handle)
    except eccodes.CodesInternalError as error:
        raise DataError(f"{path} has a field that cannot be decoded ({error}).\nExpected whole GRIB messages.") from error
    if values.size != place.shape[0] * place.shape[1]:
        raise DataError(f"{path} has {values.size:,} values for {place.shape[0]} × {place.shape[1]} cells.\nExpected as many.")
    values = values.reshape(place.shape[::-1]).T if turned else values.reshape(place.shape)
    is_mrms = message.number("discipline") == _MRMS
    missing = (values == _MISSING) | ~np.isfinite(values)
    if is_mrms:
        missing |= values < (_NO_ECHO - _NEAR if means.reflectivity else 0)
    storage = _storage(message, means)
    if storage.kind == "i4":
        out = np.rint(np.where(missing, 0, values) / _step(message)).astype(np.int32)
    else:
        out = (values * means.scale + means.offset).astype(np.float32)
    out[missing] = storage.fill
    return out


def _time(message: Message, path: Path) -> np.datetime64:
    start = _moment(message, "dataDate", "dataTime", path)  # first: of a false date ecCodes makes a validity date of its own
    if message.text("stepRange") == "0":
        return start + np.timedelta64(int(message.number("second", 0) or 0), "s")
    return _moment(message, "validityDate", "validityTime", path)


def _moment(message: Message, day: str, clock: str, path: Path) -> np.datetime64:
    date, time = message.number(day), message.number(clock)
    try:
        return np.datetime64(datetime.strptime(f"{date:08d}{time:04d}", "%Y%m%d%H%M"), "s")
    except (TypeError, ValueError):
        raise DataError(f"{path} has the date {date} and the time {time}.\nExpected YYYYMMDD and HHMM.") from None


def _institution(message: Message) -> str:
    described = message.text("centreDescription") or message.text("centre")
    return {"161": "US NOAA Office of Oceanic and Atmospheric Research (MRMS)"}.get(described, described) or "unknown"
