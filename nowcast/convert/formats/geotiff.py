"""GeoTIFF, read by rasterio: one band a time, which a tag, the band's description or the name of the file tells.

TIFF's own tag of time is when the file was made, and counts where nothing else tells one. FMI's composites have tags such as
Gain, Nodata and Accumulation time, or SCALE, OFFSET and UNITS; where these are absent, their names tell what FMI documents.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import RASTERIO, Numbers, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place
from nowcast.convert.times import time_in_name, time_in_text
from nowcast.convert.units import meant
from nowcast.errors import DataError

WHAT = "GeoTIFF"
_TIME_TAGS = ("time", "timestamp", "observation time", "valid_time", "datetime")
_MADE = "tifftag_datetime"
_ITEM = re.compile(r'<Item name="([^"]+)"([^>]*)>([^<]*)</Item>')  # of FMI's own tag, whose text is XML
_HOURS = {"h": 1.0, "hour": 1.0, "hours": 1.0, "min": 1 / 60, "minutes": 1 / 60, "s": 1 / 3600, "d": 24.0}
# quantities that a tag may name in place of units
_QUANTITIES = {"dbz": "dBZ", "dbzh": "dBZ", "th": "dBZ", "rate": "mm/h", "rr": "mm/h", "acrr": "mm"}
_WORDS = (("accumulation", "mm"), ("rate", "mm/h"), ("intensity", "mm/h"), ("reflectivity", "dBZ"))
_FMI = re.compile(r"FIN-(DBZ|RR|ACRR(\d+)H)-")  # names of FMI's composites: reflectivity, rate, sums over hours
_FMI_UNITS = {"DBZ": "0.5 dBZ - 32", "RR": "0.01 mm/h"}
_DRY_BELOW = -30.0  # dBZ that the number 0 means at most, where it stands for no echo


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file: its bands. Raises DataError (exit 3) for one that does not tell times, place or units."""
    with _opened(path) as source:
        check_size(source.height, source.width, path)
        place = _place(source, path)
        name = _FMI.search(path.name)
        product = f"FIN-{name[1]}" if name else "GeoTIFF"
        about = (("title", f"GeoTIFF {path.stem}"[:80]), ("source", "GeoTIFF"))
        originals = []
        for number in range(source.count):
            numbers, interval = _numbers(source, number, options, path)
            series = Series(product, place, numbers.storage, interval, about)
            originals.append(Original(_time(source, number, path), number, series))
    if len({original.time for original in originals}) < len(originals):
        raise DataError(f"{path} has {len(originals)} bands without a time each.\nExpected a time in each description.")
    return originals


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield bands, (y, x) as stored. Raises DataError (exit 3) if they cannot be read."""
    with _opened(path) as source:
        for number in numbers:
            yield _numbers(source, number, options, path)[0].store(source.read(number + 1))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator:
    import warnings

    rasterio = RASTERIO.load(WHAT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as source:
                yield source
    except (rasterio.errors.RasterioError, rasterio.errors.RasterioIOError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or no GeoTIFF ({str(error)[:100]}).\nExpected a whole file.") from error


def _tags(source, number: int) -> dict[str, str]:
    """Return the tags of a band over those of the file, their names in small letters; of FMI's items also the units."""
    found = {name.lower(): value for tags in (source.tags(), source.tags(number + 1)) for name, value in tags.items()}
    for name, attributes, value in _ITEM.findall(found.pop("gdal_metadata", "")):
        found[name.lower()] = value.strip()
        if unit := re.search(r'unit="([^"]+)"', attributes):
            found[f"{name.lower()} unit"] = unit[1]
    return found


def _time(source, number: int, path: Path) -> np.datetime64:
    """Return the time (UTC) of a band. Raises DataError (exit 3) if none is told, or one that is not clear."""
    tags = _tags(source, number)
    told = ((tags.get(name, ""), False) for name in _TIME_TAGS)
    for text, is_name in ((source.descriptions[number] or "", False), *told, (path.name, True), (tags.get(_MADE, ""), False)):
        time = time_in_text(text, path, is_name=is_name)
        if time is not None:
            return time
    return time_in_name(path)


def _numbers(source, number: int, options: Options, path: Path) -> tuple[Numbers, float | None]:
    """Return what the numbers of a band mean and, of sums, the interval in minutes."""
    tags = _tags(source, number)
    scale, offset = source.scales[number], source.offsets[number]
    if (scale, offset) == (1.0, 0.0):
        scale, offset = (
            _number(tags, name, _number(tags, other, default))
            for name, other, default in (("gain", "scale", 1.0), ("offset", "offset", 0.0))
        )
    is_packed = (scale, offset) != (1.0, 0.0)
    units, interval = _units(source.units[number], tags, path, is_packed=is_packed)
    means = meant(options.units or units, str(path), interval=interval)
    missing = [value for value in (source.nodatavals[number], _number(tags, "nodata", None)) if value is not None]
    kind = np.dtype(source.dtypes[number])
    if kind.kind not in "iuf" or not scale:
        raise DataError(f"{path} holds {kind} with a scale of {scale:g}.\nExpected numbers, and a scale other than 0.")
    dry = _number(tags, "undetect", None)
    lowest = offset * means.scale + means.offset
    if dry is None and means.reflectivity and kind.kind == "u" and lowest <= _DRY_BELOW:
        dry = 0.0
    dry = None if dry in missing else dry
    missing = tuple(value for value in dict.fromkeys(missing) if not np.isnan(value))
    return Numbers(
        kind, scale * means.scale, offset * means.scale + means.offset, missing, dry, means.reflectivity
    ), means.interval


def _units(stated: str | None, tags: dict[str, str], path: Path, *, is_packed: bool) -> tuple[str | None, float | None]:
    """Return units, and the minutes of sums, by what a band states, by tags, else by the name of a file of FMI."""
    hours = _number(tags, "accumulation time", None)
    interval = None if hours is None else 60 * hours * _HOURS.get(tags.get("accumulation time unit", "h"), 1.0)
    stated = stated or tags.get("units") or tags.get("unittype") or tags.get("quantity unit")
    if not stated and "quantity" in tags:
        quantity = tags["quantity"].lower()
        stated = _QUANTITIES.get(quantity) or next((units for word, units in _WORDS if word in quantity), None)
    name = _FMI.search(path.name)
    if name and name[2] and interval is None:
        interval = 60.0 * int(name[2])
    if stated:
        return _QUANTITIES.get(stated.lower(), stated), interval
    if name and not is_packed:
        return ("0.01 mm" if name[2] else _FMI_UNITS[name[1]]), interval
    return None, interval


def _number(tags: dict[str, str], name: str, default: float | None) -> float | None:
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return default


def _place(source, path: Path) -> Place:
    transform = source.transform
    if source.crs is None or transform.b or transform.d or not transform.a or not transform.e:
        raise DataError(f"{path} has no map projection, or is turned on its map.\nExpected rows along parallels of the map.")
    y, x = (
        Axis(round(first + step / 2, 9), step, size)
        for first, step, size in ((transform.f, transform.e, source.height), (transform.c, transform.a, source.width))
    )
    return Place(y, x, "" if source.crs.is_geographic else source.crs.to_wkt())
