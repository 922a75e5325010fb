"""GeoTIFF, read by rasterio: one band per time. The time is in the band's description, a tag or the file name.

TIFF's own time tag is the time of writing, and used only if there is no other. FMI's composites have tags such as Gain, Nodata
and Accumulation time, or SCALE, OFFSET and UNITS; without them, units follow from the file name, as FMI documents.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import RASTERIO, Encoding, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place, unit_of
from nowcast.convert.times import time_in_name, time_in_text
from nowcast.convert.units import conversion_of
from nowcast.errors import DataError

WHAT = "GeoTIFF"
_TIME_TAGS = ("time", "timestamp", "observation time", "valid_time", "datetime")
_MADE = "tifftag_datetime"
_ITEM = re.compile(r'<Item name="([^"]+)"([^>]*)>([^<]*)</Item>')  # an item of FMI's own tag, which is XML
_HOURS = {"h": 1.0, "hour": 1.0, "hours": 1.0, "min": 1 / 60, "minutes": 1 / 60, "s": 1 / 3600, "d": 24.0}
# quantities that a tag may state instead of units
_QUANTITIES = {"dbz": "dBZ", "dbzh": "dBZ", "th": "dBZ", "rate": "mm/h", "rr": "mm/h", "acrr": "mm"}
_WORDS = (("accumulation", "mm"), ("rate", "mm/h"), ("intensity", "mm/h"), ("reflectivity", "dBZ"))
_FMI = re.compile(r"FIN-(DBZ|RR|ACRR(\d+)H)-")  # file names of FMI's composites: reflectivity, rate, sums over hours
_FMI_UNITS = {"DBZ": "0.5 dBZ - 32", "RR": "0.01 mm/h"}
_DRY_BELOW = -30.0  # the raw value 0 means no echo if its reflectivity, dBZ, is not above this


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file: its bands. Raises DataError (exit 3) without times, georeferencing or units."""
    with _opened(path) as source:
        check_size(source.height, source.width, path)
        if len(source.subdatasets) > 1:  # rasterio opens the first of them
            raise DataError(f"{path} holds {len(source.subdatasets)} images.\nExpected one image, with a band for each time.")
        place = _place(source, path)
        name = _FMI.search(path.name)
        product = f"FIN-{name[1]}" if name else "GeoTIFF"
        about = (("title", f"GeoTIFF {path.stem}"[:80]), ("source", "GeoTIFF"))
        originals = []
        for number in range(source.count):
            encoding, interval = _encoding(source, number, options, path)
            series = Series(product, place, encoding.storage, interval, about)
            originals.append(Original(_time(source, number, path), number, series))
    if len({original.time for original in originals}) < len(originals):
        raise DataError(f"{path} has {len(originals)} bands with equal times.\nExpected a time in each description.")
    return originals


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield bands, (y, x) as stored. Raises DataError (exit 3) if they cannot be read."""
    with _opened(path) as source:
        for number in numbers:
            encoding, _ = _encoding(source, number, options, path)
            stored = encoding.store(source.read(number + 1))
            if any(flag.name == "per_dataset" for flag in source.mask_flag_enums[number]):  # a mask instead of a code
                stored[source.read_masks(number + 1) == 0] = encoding.storage.fill
            yield stored


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
        raise DataError(f"{path} is damaged or not a GeoTIFF ({str(error)[:100]}).\nExpected a whole file.") from error


def _tags(source, number: int) -> dict[str, str]:
    """Return the tags of the file, updated by those of a band, with names in lower case; for FMI's items also the units."""
    found = {name.lower(): value for tags in (source.tags(), source.tags(number + 1)) for name, value in tags.items()}
    for name, attributes, value in _ITEM.findall(found.pop("gdal_metadata", "")):
        found[name.lower()] = value.strip()
        if unit := re.search(r'unit="([^"]+)"', attributes):
            found[f"{name.lower()} unit"] = unit[1]
    return found


def _time(source, number: int, path: Path) -> np.datetime64:
    """Return the time (UTC) of a band. Raises DataError (exit 3) if it is absent or ambiguous."""
    tags = _tags(source, number)
    times_in_tags = ((tags.get(name, ""), False) for name in _TIME_TAGS)
    for text, is_name in (
        (source.descriptions[number] or "", False),
        *times_in_tags,
        (path.name, True),
        (tags.get(_MADE, ""), False),
    ):
        time = time_in_text(text, path, is_name=is_name)
        if time is not None:
            return time
    return time_in_name(path)


def _encoding(source, number: int, options: Options, path: Path) -> tuple[Encoding, float | None]:
    """Return the encoding of a band and, for sums, the accumulation interval, minutes."""
    tags = _tags(source, number)
    scale, offset = source.scales[number], source.offsets[number]
    if (scale, offset) == (1.0, 0.0):
        scale, offset = (
            _number(tags, name, _number(tags, other, default))
            for name, other, default in (("gain", "scale", 1.0), ("offset", "offset", 0.0))
        )
    is_packed = (scale, offset) != (1.0, 0.0)
    units, interval = _units(source.units[number], tags, path, is_packed=is_packed)
    conversion = conversion_of(options.units or units, str(path), interval=interval)
    missing = [value for value in (source.nodatavals[number], _number(tags, "nodata", None)) if value is not None]
    kind = np.dtype(source.dtypes[number])
    if kind.kind not in "iuf" or not scale:
        raise DataError(f"{path} holds {kind} with a scale of {scale:g}.\nExpected numbers, and a scale other than 0.")
    dry = _number(tags, "undetect", None)
    lowest = offset * conversion.scale + conversion.offset
    if dry is None and conversion.reflectivity and kind.kind == "u" and lowest <= _DRY_BELOW:
        dry = 0.0
    dry = None if dry in missing else dry
    missing = tuple(value for value in dict.fromkeys(missing) if not np.isnan(value))
    return Encoding(
        kind, scale * conversion.scale, offset * conversion.scale + conversion.offset, missing, dry, conversion.reflectivity
    ), conversion.interval


def _units(stated: str | None, tags: dict[str, str], path: Path, *, is_packed: bool) -> tuple[str | None, float | None]:
    """Return units and, for sums, the interval, minutes: from the band, from tags, else from the name of an FMI file."""
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
        raise DataError(f"{path} has no map projection, or rotated axes.\nExpected a north-up image with a map projection.")
    y, x = (
        Axis(round(first + step / 2, 9), step, size)
        for first, step, size in ((transform.f, transform.e, source.height), (transform.c, transform.a, source.width))
    )
    projection = source.crs.to_wkt()
    return Place(y, x, projection if unit_of(projection) else "")
