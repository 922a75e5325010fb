"""GeoTIFF, read by rasterio: one band a time, which a tag, the band's description or the name of the file tells.

TIFF's own tag of time is when the file was made, and counts where nothing else tells one.
"""

import contextlib
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


def scan(path: Path, options: Options) -> list[Original]:
    """Return the fields of a file: its bands. Raises DataError (exit 3) for one that does not tell times, place or units."""
    with _opened(path) as source:
        check_size(source.height, source.width, path)
        place = _place(source, path)
        about = (("title", f"GeoTIFF {path.stem}"[:80]), ("source", "GeoTIFF"))
        originals = []
        for number in range(source.count):
            numbers, interval = _numbers(source, number, options, path)
            series = Series("GeoTIFF", place, numbers.storage, interval, about)
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
    """Return the tags of a band over those of the file, their names in small letters."""
    return {name.lower(): value for tags in (source.tags(), source.tags(number + 1)) for name, value in tags.items()}


def _time(source, number: int, path: Path) -> np.datetime64:
    tags = _tags(source, number)
    told = (tags.get(name, "") for name in _TIME_TAGS)
    for text in (source.descriptions[number] or "", *told, path.name, tags.get(_MADE, "")):
        time = time_in_text(text)
        if time is not None:
            return time
    return time_in_name(path)


def _numbers(source, number: int, options: Options, path: Path) -> tuple[Numbers, float | None]:
    """Return what the numbers of a band mean and, of sums, the interval in minutes."""
    tags = _tags(source, number)
    units = options.units or source.units[number] or tags.get("units") or tags.get("unittype")
    means = meant(units, str(path))
    scale, offset = source.scales[number], source.offsets[number]
    if (scale, offset) == (1.0, 0.0):
        scale, offset = (_number(tags, name, default) for name, default in (("gain", 1.0), ("offset", 0.0)))
    missing = [value for value in (source.nodatavals[number], _number(tags, "nodata", None)) if value is not None]
    kind = np.dtype(source.dtypes[number])
    if kind.kind not in "iuf" or not scale:
        raise DataError(f"{path} holds {kind} with a scale of {scale:g}.\nExpected numbers, and a scale other than 0.")
    dry = _number(tags, "undetect", None)
    dry = None if dry in missing else dry
    missing = tuple(value for value in dict.fromkeys(missing) if not np.isnan(value))
    return Numbers(
        kind, scale * means.scale, offset * means.scale + means.offset, missing, dry, means.reflectivity
    ), means.interval


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
