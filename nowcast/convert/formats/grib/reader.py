"""Precipitation in GRIB, edition 1 or 2: MRMS, and rates, sums and reflectivity of other centres, read by ecCodes.

Numbers that are packed in whole steps are stored in them. Of MRMS, whose tables ecCodes does not know, negative values are
missing; of its reflectivity -99 is no echo. Source: WMO Manual on Codes; NOAA, MRMS GRIB2 tables v12.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nowcast.convert.formats.grib.messages import Message, messages_of
from nowcast.convert.formats.grib.place import place_of
from nowcast.convert.formats.grib.times import minutes_ahead, minutes_of_sums, start_of_total, time_of
from nowcast.convert.original import FLOAT_FILL, Options, Original, Series, check_size
from nowcast.convert.units import Meant, meant
from nowcast.errors import DataError
from nowcast.netcdf.writing.records import Storage

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
_MISSING = 1e20  # what ecCodes is asked to give for a missing value
_NO_ECHO, _NEAR = -99.0, 0.5  # dBZ; numbers that are packed may miss it by rounding


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of precipitation of a file, or those of the parameter asked for; all must be of one parameter.

    Several totals since one time are forecasts of a model, if nothing says that they were observed.

    Raises DataError (exit 3) for a file without any, with several parameters, or on a grid that is not read.
    """
    found, seen, growing = [], {}, defaultdict(set)
    for number, message in messages_of(path):
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
        found.append(Original(time_of(message, path), number, series, minutes_ahead(message)))
        if since := start_of_total(message):
            growing[since].add(number)
    if not found:
        what = ", ".join(list(seen)[:8]) or "no message"
        raise DataError(f"{path} holds {what}, and no precipitation that is known.\nChoose one with --variable and --units.")
    totals = set().union(*(numbers for numbers in growing.values() if len(numbers) > 1))
    found = [replace(each, forecast=each.series.interval) if each.number in totals else each for each in found]
    names = list(dict.fromkeys(each.series.product for each in found if each.forecast is None))
    if len(names) > 1:
        raise DataError(f"{path} holds several kinds of precipitation: {', '.join(names)}.\nChoose one with --variable.")
    return found


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields, (y, x) as stored, numbers ascending. Raises DataError (exit 3) for fields that cannot be decoded."""
    wanted = list(numbers)
    for number, message in messages_of(path):
        if wanted and number == wanted[0]:
            wanted.pop(0)
            name, units = _parameter(message)
            yield _field(message, _meaning(message, name, options.units or units, path), path)
        if not wanted:
            return
    raise DataError(f"{path} has fewer messages than before.\nDid it change meanwhile?")


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
    found = meant(units, f"{path}: {name}", interval=interval or minutes_of_sums(message))
    return found if found.interval or not interval else Meant(found.scale, found.offset, interval=interval)


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
    cells, eccodes = place.shape[0] * place.shape[1], message.eccodes
    if (size := message.size("values")) != cells:  # before memory is allocated for them
        raise DataError(f"{path} has {size:,} values for {place.shape[0]} × {place.shape[1]} cells.\nExpected as many.")
    if message.whole("bitmapPresent", 0) and message.size("bitmap") != cells:
        raise DataError(f"{path} has a bitmap of {message.size('bitmap'):,} of {cells:,} cells.\nExpected all.")
    eccodes.codes_set(message.handle, "missingValue", _MISSING)
    try:
        values = eccodes.codes_get_values(message.handle)
    except eccodes.CodesInternalError as error:
        raise DataError(f"{path} has a field that cannot be decoded ({error}).\nExpected whole GRIB messages.") from error
    if not np.isfinite(values).all():
        raise DataError(f"{path} has values that are no numbers.\nExpected scale factors and a reference that give some.")
    values = values.reshape(place.shape[::-1]).T if turned else values.reshape(place.shape)
    is_mrms = message.number("discipline") == _MRMS
    missing = values == _MISSING
    if is_mrms:
        missing |= values < (_NO_ECHO - _NEAR if means.reflectivity else 0)
    storage = _storage(message, means)
    if storage.kind == "i4":
        out = np.rint(np.where(missing, 0, values) / _step(message)).astype(np.int32)
    else:
        with np.errstate(over="ignore"):
            out = (values * means.scale + means.offset).astype(np.float32)
        missing |= ~np.isfinite(out)
    out[missing] = storage.fill
    return out


def _institution(message: Message) -> str:
    described = message.text("centreDescription") or message.text("centre")
    return {"161": "US NOAA Office of Oceanic and Atmospheric Research (MRMS)"}.get(described, described) or "unknown"
