"""PNG and GIF images whose colours mean rain rates, by a colour table in TOML.

units = "mm/h"                  # of the values, or dBZ, mm/5min
projection = "EPSG:3857"        # or PROJ text; default: the edges are longitudes and latitudes
west = 600000.0                 # outer edges of the image on the map
south = 5700000.0
east = 1200000.0
north = 6300000.0
time = "rain_%Y%m%d%H%M.png"    # form of the file names; default: the first date and time in the name
missing = ["#808080"]           # colours of no data
transparent = 0.0               # value of transparent pixels; default: missing

[values]
"#ffffff" = 0.0
"#00aaff" = 0.5
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nowcast.config.slips import parse
from nowcast.convert.original import FLOAT_FILL, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place, unit_of
from nowcast.convert.times import time_in_name
from nowcast.convert.units import UnitConversion, conversion_of
from nowcast.errors import DataError, UsageError
from nowcast.netcdf.writing.records import Storage
from nowcast.runtime.log_lines import is_first, named_file

log = logging.getLogger(__name__)

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_MOST = 1e6  # mm/h or dBZ; larger values are no rain
_SOME_TIME = datetime(2021, 11, 23, 14, 35, tzinfo=UTC)
_FORM = "a form such as rain_%Y%m%d%H%M.png"
_MOST_UNKNOWN = 0.5  # largest fraction of pixels whose colour is not in the table, such as lines of a map


class Table(BaseModel):
    """A colour table, with the georeferencing of an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    units: str
    west: float
    south: float
    east: float
    north: float
    projection: str = ""
    time: str | None = None
    missing: list[str] = []
    transparent: float | None = None
    values: dict[str, float]

    @property
    def conversion(self) -> UnitConversion:
        return conversion_of(self.units, "--colours")

    def place(self, rows: int, columns: int) -> Place:
        """Return the grid of an image of this size."""
        height, width = (self.north - self.south) / rows, (self.east - self.west) / columns
        y, x = Axis(self.north - height / 2, -height, rows), Axis(self.west + width / 2, width, columns)
        return Place(y, x, self.projection)


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of an image. Raises UsageError (exit 2) without a table, DataError (3) for a damaged image."""
    table = _table(options.colours)
    with opened(path) as image:
        columns, rows = image.size
    time = time_in_name(path, table.time)
    storage = Storage("f4", fill=FLOAT_FILL, reflectivity=table.conversion.reflectivity)
    about = (("title", "Radar images"), ("source", "images, read by a colour table"))
    return [Original(time, 0, Series("image", table.place(rows, columns), storage, table.conversion.interval, about))]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of an image, (y, x) float32. Raises DataError (exit 3) if most of its colours are not in the table."""
    table = _table(options.colours)
    with opened(path) as image:
        indices, palette = pixels(image, path)
        clear = _transparent(image)
    values = {_colour(name): value * table.conversion.scale + table.conversion.offset for name, value in table.values.items()}
    values |= dict.fromkeys(map(_colour, table.missing), FLOAT_FILL)
    decoded = np.array([values.get(tuple(int(part) for part in colour), np.nan) for colour in palette], np.float32)
    field = decoded[indices]
    if clear is not None:
        value = table.transparent
        field[clear] = FLOAT_FILL if value is None else value * table.conversion.scale + table.conversion.offset
    unknown = np.isnan(field)
    if unknown.any():
        _tell_unknown(path, unknown.mean(), palette[np.bincount(indices[unknown].ravel()).argmax()])
    field[unknown] = FLOAT_FILL
    for _ in numbers:
        yield field


def _tell_unknown(path: Path, fraction: float, colour: np.ndarray) -> None:
    """Warn once per folder of colours that are not in the table, or raise DataError (exit 3) if they are most of an image.

    colour: the most frequent of them, (3,)
    """
    named = "".join(f"{part:02x}" for part in colour)
    said = f"{named_file(path)}: {100 * fraction:.2g} % of the pixels have colours that are not in the table, such as #{named}"
    if fraction > _MOST_UNKNOWN:
        raise DataError(f"{said}.\nExpected the colour table of this image.")
    if is_first(path, "unknown colours"):
        log.warning("%s: they are missing", said)


@contextlib.contextmanager
def opened(path: Path) -> Iterator:
    """Open an image and check its size, before it is decoded. Raises DataError (exit 3) if it is damaged or huge."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size limits the size
            with Image.open(path) as image:
                check_size(image.size[1], image.size[0], path)
                if image.format == "GIF" and not path.read_bytes().rstrip(b"\0").endswith(b";"):
                    raise EOFError("a GIF ends in a semicolon")  # Pillow fills in the rest of a truncated GIF
                yield image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a complete image ({str(error)[:80]}).\nExpected PNG or GIF.") from error


def pixels(image, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour index of each pixel, (y, x), and the colours, (colour, 3).

    Raises DataError (exit 3) for animations, and for images of more than 8 bits per channel.
    """
    if image.mode not in _MODES or any("16" in str(tile[3]) for tile in image.tile):  # else Pillow omits the lower 8
        raise DataError(f"{path} has more than 8 bits per channel ({image.mode}).\nExpected colours (or a GeoTIFF).")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path} holds {image.n_frames} images.\nExpected one file per time.")
    if image.mode == "P":
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)[:256]
        palette[: len(colours)] = colours
        return np.asarray(image), palette
    rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    found, indices = np.unique(packed, return_inverse=True)
    palette = np.stack([found >> 16 & 255, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
    return indices.reshape(packed.shape), palette


def _transparent(image) -> np.ndarray | None:
    """Return a mask of transparent pixels: (y, x) bool; None if there are none."""
    if "A" not in image.mode and "transparency" not in image.info:
        return None
    clear = np.asarray(image.convert("RGBA"))[..., 3] == 0
    return clear if clear.any() else None


@lru_cache(maxsize=4)
def _table(text: str | None) -> Table:
    if text is None:
        raise UsageError("images need a colour table: --colours TABLE.toml.\nIts format is in nowcast/convert/README.md.")
    try:
        table = Table(**parse(text, "--colours"))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--colours: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check_values(table)
    edges = (table.west, table.south, table.east, table.north)
    if not (table.west < table.east and table.south < table.north and np.isfinite(edges).all()):
        raise UsageError("--colours: the edges do not span a map.\nExpected west below east, and south below north.")
    if not unit_of(table.projection) and not (table.west >= -360 and table.east <= 360 and max(map(abs, edges[1::2])) <= 90):
        raise UsageError(
            f"--colours: the edges {', '.join(f'{edge:g}' for edge in edges)} are no longitudes and latitudes.\n"
            "Expected degrees, or their projection."
        )
    if table.time is not None:
        _check_form(table.time)
    return table


def _check_values(table: Table) -> None:
    """Raise UsageError (exit 2) for colours that are not, or stand there twice, and for values that are no rain."""
    names: dict[tuple, str] = {}
    for name in (*table.values, *table.missing):
        if (first := names.setdefault(_colour(name), name)) is not name:
            raise UsageError(f'--colours: the colour "{first}" stands there twice, also as "{name}".\nExpected each one once.')
    least = -np.inf if table.conversion.reflectivity else 0.0
    transparent = {} if table.transparent is None else {"transparent": table.transparent}
    for name, value in (table.values | transparent).items():
        if not (value >= least and abs(value * table.conversion.scale + table.conversion.offset) < _MOST):
            raise UsageError(f"--colours: {name} has the value {value:g}.\nExpected rain in {table.units}, or missing.")


def _check_form(form: str) -> None:
    """Raise UsageError (exit 2) for a form of file names without day or hour, from which times cannot be read."""
    if "%Z" in form.replace("%%", ""):  # strptime takes the names of the zone of this machine, and the time as UTC
        raise UsageError(f'--colours: time = "{form}" has the name of a zone (%Z).\nExpected UTC as letters, or %z for +0200.')
    try:
        read = datetime.strptime(_SOME_TIME.strftime(form), form)
    except ValueError as error:
        raise UsageError(f'--colours: time = "{form}" is no form of times ({error}).\nExpected {_FORM}.') from None
    if read.replace(minute=0, second=0, tzinfo=None) != _SOME_TIME.replace(minute=0, tzinfo=None):
        raise UsageError(f'--colours: time = "{form}" lacks the year, the day or the hour.\nExpected {_FORM}.')


def _colour(name: str) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(name.removeprefix("#"))
    except ValueError:
        raise UsageError(f'--colours: "{name[:20]}" is not a colour.\nExpected six hex digits such as "#00aaff".') from None
    return red, green, blue
