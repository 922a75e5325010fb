"""MeteoSwiss' GIF of 5-minute sums (AQC and other products with the same scale): 256 classes, one colour each.

Source: pysteps' importer of these files; the scale is Lassen's, Z = 316 R^1.5 in steps of half a decibel of R.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from nowcast.convert.formats.image import opened, pixels
from nowcast.convert.original import FLOAT_FILL, Options, Original, Series, per_hour
from nowcast.convert.place import Axis, Place
from nowcast.errors import DataError
from nowcast.netcdf.writing.records import Storage

_SCALE = "mmh2LASSEN8bit"
_SHAPE = (640, 710)
_PLACE = Place(
    Axis(479500.0, -1000.0, 640),
    Axis(255500.0, 1000.0, 710),
    "+proj=somerc +lon_0=7.43958333333333 +lat_0=46.9524055555556 +k_0=1 +x_0=600000 +y_0=200000 +ellps=bessel "
    "+towgs84=674.374,15.056,405.346,0,0,0,0 +units=m +no_defs",
)
_MISSING, _LOWEST, _HIGHEST = 255, 2, 250  # classes: outside radar coverage; the first and the last with rain


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of a file, from its comment. Raises DataError (exit 3) for another scale or grid."""
    with opened(path) as image:
        comment = image.info.get("comment", b"")
        if image.size != _SHAPE[::-1]:
            raise DataError(f"{path} has {image.size[1]} × {image.size[0]} cells.\nExpected {_SHAPE[0]} × {_SHAPE[1]}.")
    product, time, interval = _described(comment.decode("latin-1"), path)
    about = (
        ("title", f"MeteoSwiss radar product {product}"),
        ("institution", "Federal Office of Meteorology and Climatology MeteoSwiss"),
        ("source", f"MeteoSwiss GIF, product {product}"),
    )
    return [Original(time, 0, Series(product, _PLACE, Storage("f4", fill=FLOAT_FILL), interval, about))]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of a file, (y, x) float32 mm/h. Raises DataError (exit 3) for colours outside the scale."""
    with opened(path) as image:
        _, _, interval = _described(image.info.get("comment", b"").decode("latin-1"), path)
        numbers_of_colours, palette = pixels(image, path)
    values = levels() * np.float64(per_hour(interval, str(path)))
    table = np.full(256, FLOAT_FILL, np.float32)
    for index in np.unique(numbers_of_colours):
        level = values[_class(palette[index], path)]
        table[index] = FLOAT_FILL if np.isnan(level) else level
    for _ in numbers:
        yield table[numbers_of_colours]


def levels() -> np.ndarray:
    """Return the sum of each class: (256,) mm, NaN outside radar coverage."""
    classes = np.arange(256)
    values = (10.0 ** ((classes - 71.5) / 20.0) / 316.0) ** (1.0 / 1.5)
    values[(classes < _LOWEST) | (classes > _HIGHEST)] = 0.0
    values[_MISSING] = np.nan
    return values


def _class(colour: np.ndarray, path: Path) -> int:
    red, green, blue = (int(part) for part in colour)
    if (red, green, blue) == (0, 0, 0):
        return _MISSING
    if red != 255 or green != blue:
        raise DataError(f"{path} has the colour #{red:02x}{green:02x}{blue:02x}.\nExpected shades of red, and black.")
    return 255 - green


def _described(comment: str, path: Path) -> tuple[str, np.datetime64, float]:
    """Return product, time and interval (minutes) from the comment of a file."""
    name, minutes = re.search(r"PRDT=([A-Z]{3})(\d{9})", comment), re.search(r"ACCUm=0*(\d+)", comment)
    if not name or not minutes or _SCALE not in comment:
        raise DataError(f"{path} is not in the scale {_SCALE}, with PRDT and ACCUm.\nExpected AQC; see --colours for others.")
    try:
        time = datetime.strptime(name[2], "%y%j%H%M")
    except ValueError:
        raise DataError(f"{path} has the time {name[2]}.\nExpected year, day of the year, hour, minute.") from None
    return name[1], np.datetime64(time, "s"), float(minutes[1])
