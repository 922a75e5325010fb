"""Precipitation in GRIB, edition 1 or 2: MRMS, and rates, sums and reflectivity of other centres, read by ecCodes.

Values that are multiples of the packing step are stored as integers. In MRMS, whose tables ecCodes lacks, negative values are
missing; in its reflectivity -99 means no echo. Source: WMO Manual on Codes; NOAA, MRMS GRIB2 tables v12.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nowcast.convert.formats.grib.messages import Message, messages_of
from nowcast.convert.formats.grib.place import place_of
from nowcast.convert.formats.grib.times import minutes_ahead, minutes_of_sums, start_of_total, time_of
from nowcast.convert.formats.grib.variants import check_alone, is_wanted, variant_of
from nowcast.convert.original import FLOAT_FILL, Options, Original, Series, check_size
from nowcast.convert.units import UnitConversion, conversion_of
from nowcast.errors import DataError
from nowcast.netcdf.writing.records import Storage

# discipline, category and number in edition 2 -> name and units; names of MRMS sums end with their interval
_MRMS = 209
_PARAMETERS = {
    (_MRMS, 6, 1): ("PrecipRate", "mm/h"), (_MRMS, 6, 2): ("RadarOnly_QPE_01H", "mm"),
    (_MRMS, 6, 45): ("RadarOnly_QPE_15M", "mm"),
    (_MRMS, 6, 9): ("GaugeCorr_QPE_01H", "mm"), (_MRMS, 6, 30): ("MultiSensor_QPE_01H_Pass1", "mm"),
    (_MRMS, 6, 37): ("MultiSensor_QPE_01H_Pass2", "mm"),
    (0, 1, 7): ("prate", "kg m-2 s-1"), (0, 1, 52): ("tprate", "kg m-2 s-1"), (0, 1, 65): ("rprate", "kg m-2 s-1"),
    (0, 1, 8): ("tp", "kg m-2"), (0, 16, 4): ("refd", "dBZ"), (0, 16, 5): ("refc", "dBZ"), (0, 15, 1): ("bref", "dBZ"),
}  # fmt: skip
_RATE = "kg m-2 s-1"
_SUMS_OF_RATES = {"prate": "tp", "tprate": "tp", "rprate": "tirf"}  # accumulated rates are sums, with ecCodes' names
_ACCUMULATION, _OTHER_STATISTICS = 1, {2, 3, 5, 6}  # code table 4.10; maximum, minimum, root mean square, standard deviation
_SPREADS = {2, 3, 4, 5, 7}  # code table 4.7: standard deviations, spread, large anomaly index, interquartile range
_SHORT_NAMES = {"prate": "kg m-2 s-1", "tprate": "kg m-2 s-1", "crr": "kg m-2 s-1", "tp": None, "refc": "dBZ", "refd": "dBZ"}
_SUMS = {"_15M": 15.0, "_01H": 60.0}  # accumulation interval of MRMS sums, minutes, by a part of their names
_LOGARITHMIC = "grid_simple_log_preprocessing"
_MISSING = 1e20  # missing value that ecCodes is set to return
_NO_ECHO, _NEAR = -99.0, 0.5  # dBZ; code for no echo, and tolerance for the rounding of packed values


def scan(path: Path, options: Options) -> list[Original]:
    """Return the precipitation fields of a file, or those of the parameter in the options; all must be of one parameter.

    Totals since one time that end at several times count as forecasts of a model, unless the file states that they were
    observed.

    Raises DataError (exit 3) for a file without such fields, with several parameters, with several levels or members for one
    time, or on an unsupported grid.
    """
    originals, parameters, since = [], {}, {}
    wanted, _, choice = (options.variable or "").partition("@")
    for number, message in messages_of(path):
        name, units = _parameter(message)
        variant = variant_of(message, minutes_of_sums(message))
        parameters[f"{name}@{variant[0]}" if choice else name] = None
        if wanted not in ("", name) or (units is None and not options.units) or not is_wanted(variant, choice):
            continue
        conversion = _conversion(message, name, options.units or units, path)
        place, _ = place_of(message, path)
        name = f"{name}@{choice}" if choice else name
        about = (
            ("title", f"GRIB {name}"),
            ("institution", _institution(message)),
            ("source", f"GRIB edition {message.number('edition')}, {name}"),
        )
        series = Series(name, place, _storage(message, conversion), conversion.interval, about)
        originals.append(Original(time_of(message, path), number, series, minutes_ahead(message), variant=variant))
        since[number] = start_of_total(message)
    if not originals:
        seen = ", ".join(list(parameters)[:8]) or "no message"
        raise DataError(
            f"{path} holds {seen}, but no {options.variable or 'known precipitation'}.\nChoose one with --variable and --units."
        )
    originals = _with_runs(originals, since)
    names = list(dict.fromkeys(each.series.product for each in originals if each.forecast is None))
    if len(names) > 1:
        raise DataError(f"{path} holds several precipitation parameters: {', '.join(names)}.\nChoose one with --variable.")
    check_alone(originals, path)
    return originals


def _with_runs(originals: Sequence[Original], since: dict[int, tuple | None]) -> list[Original]:
    """Return the fields, as forecasts if they are totals since one time that end at several times.

    since: start of each total by its index, None for other fields
    """
    ends = defaultdict(set)
    for each in originals:
        ends[since[each.number]].add(each.time)
    runs = {start for start, times in ends.items() if start is not None and len(times) > 1}
    return [replace(each, forecast=each.series.interval) if since[each.number] in runs else each for each in originals]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield fields, (y, x) as stored, indices ascending. Raises DataError (exit 3) for fields that cannot be decoded."""
    wanted = list(numbers)
    for number, message in messages_of(path):
        if wanted and number == wanted[0]:
            wanted.pop(0)
            name, units = _parameter(message)
            yield _field(message, _conversion(message, name, options.units or units, path), path)
        if not wanted:
            return
    raise DataError(f"{path} has fewer messages than when it was scanned.\nExpected an unchanged file.")


def _parameter(message: Message) -> tuple[str, str | None]:
    """Return the name of the parameter, and its units; None if it is not precipitation."""
    if (other := _statistic(message)) is not None:
        return f"{message.text('shortName') or 'unknown'}_{other}", None
    code = tuple(message.number(key, -1) for key in ("discipline", "parameterCategory", "parameterNumber"))
    if message.number("edition") == 2 and code in _PARAMETERS:
        name, units = _PARAMETERS[code]
        process = message.whole("typeOfStatisticalProcessing", -1)
        if process == _ACCUMULATION and units == _RATE:
            return _SUMS_OF_RATES[name], "kg m-2"
        if process not in _OTHER_STATISTICS or code[0] == _MRMS:
            return name, units
    short = message.text("shortName")
    if short in _SHORT_NAMES:
        return short, _SHORT_NAMES[short] or message.text("units").replace("**", "")
    return ("/".join(map(str, code)) if short in ("unknown", "") else short), None


def _statistic(message: Message) -> str | None:
    """Return what a field holds in place of its parameter: a probability, or a spread of an ensemble; None if neither."""
    if message.number("probabilityType") is not None:
        return "probability"
    return "spread" if message.number("derivedForecast") in _SPREADS else None


def _conversion(message: Message, name: str, units: str | None, path: Path) -> UnitConversion:
    interval = next((minutes for part, minutes in _SUMS.items() if part in name), None)
    stated = conversion_of(units, f"{path}: {name}", interval=interval or minutes_of_sums(message))
    return stated if stated.interval or not interval else UnitConversion(stated.scale, stated.offset, interval=interval)


def _storage(message: Message, conversion: UnitConversion) -> Storage:
    """Return the storage of a field: integers in packing steps if these start at 0, else float32."""
    step = _step(message)
    dry = _NO_ECHO if conversion.reflectivity and message.number("discipline") == _MRMS else None
    if step is None or conversion.offset:
        return Storage("f4", fill=FLOAT_FILL, dry=dry, reflectivity=conversion.reflectivity)
    count = None if dry is None else round(dry / step)
    return Storage("i4", step * conversion.scale, 0.0, -(2**31), count, conversion.reflectivity)


def _step(message: Message) -> float | None:
    """Return the packing step if all values are multiples of it, else None, as where it is one of logarithms."""
    reference, binary, decimal = (message.number(key) for key in ("referenceValue", "binaryScaleFactor", "decimalScaleFactor"))
    if (
        None in (reference, binary, decimal)
        or abs(binary) > 60
        or abs(decimal) > 12
        or message.text("packingType") == _LOGARITHMIC
    ):
        return None
    steps = reference / 2.0**binary
    bits = message.number("bitsPerValue", 0)
    is_whole = abs(steps - round(steps)) < 1e-6 and abs(steps) + 2.0**bits < 2**31
    return 2.0**binary / 10.0**decimal if is_whole and bits else None


def _field(message: Message, conversion: UnitConversion, path: Path) -> np.ndarray:
    place, turned = place_of(message, path)
    check_size(*place.shape, path)
    cells, eccodes = place.shape[0] * place.shape[1], message.eccodes
    if (size := message.size("values")) != cells:  # before memory is allocated for them
        raise DataError(f"{path} has {size:,} values for {place.shape[0]} × {place.shape[1]} cells.\nExpected one per cell.")
    if message.whole("bitmapPresent", 0) and message.size("bitmap") != cells:
        raise DataError(f"{path} has a bitmap of {message.size('bitmap'):,} for {cells:,} cells.\nExpected one bit per cell.")
    eccodes.codes_set(message.handle, "missingValue", _MISSING)
    try:
        values = eccodes.codes_get_values(message.handle)
    except eccodes.CodesInternalError as error:
        raise DataError(f"{path} has a field that cannot be decoded ({error}).\nExpected whole GRIB messages.") from error
    if not np.isfinite(values).all():
        raise DataError(f"{path} has values that are not finite.\nExpected valid scale factors and reference value.")
    values = values.reshape(place.shape[::-1]).T if turned else values.reshape(place.shape)
    is_mrms = message.number("discipline") == _MRMS
    missing = values == _MISSING
    if is_mrms:
        missing |= values < (_NO_ECHO - _NEAR if conversion.reflectivity else 0)
    storage = _storage(message, conversion)
    if storage.kind == "i4":
        out = np.rint(np.where(missing, 0, values) / _step(message)).astype(np.int32)
    else:
        with np.errstate(over="ignore"):
            out = (values * conversion.scale + conversion.offset).astype(np.float32)
        missing |= ~np.isfinite(out)
    out[missing] = storage.fill
    return out


def _institution(message: Message) -> str:
    described = message.text("centreDescription") or message.text("centre")
    return {"161": "US NOAA Office of Oceanic and Atmospheric Research (MRMS)"}.get(described, described) or "unknown"
