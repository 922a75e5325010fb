"""FMI's PGM composites of reflectivity, whose comments tell time and place: dBZ = number / 2 - 32, 0: no echo, 255: no data.

Source: pysteps' importer of these files. Rows run from the north; the corners are those of the outer cells' edges.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import Numbers, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place, projection_of
from nowcast.convert.sniffing import content, head
from nowcast.convert.times import time_in_text
from nowcast.errors import DataError

_NUMBERS = Numbers(np.dtype("u1"), 0.5, -32.0, (255.0,), 0.0, reflectivity=True)
_HEAD = 1 << 16
_RADIUS = 6371288  # m, of FMI's sphere, which the files do not tell


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of a file, from its header. Raises DataError (exit 3) if that is damaged or of another kind."""
    told, shape, _ = _header(head(path, _HEAD), path)
    time = time_in_text(told.get("obstime", ""), path)
    if time is None:
        raise DataError(f"{path} has no obstime such as 201609281445.\nExpected it in the comments.")
    product = "-".join(told.get(name, "") for name in ("producttype", "productname")).strip("-") or "FMI"
    about = (
        ("title", f"FMI radar composite {product}"),
        ("institution", "Finnish Meteorological Institute"),
        ("source", f"FMI PGM, {product} {told.get('param', '')}".strip()),
    )
    return [Original(time, 0, Series(product, _place(told, shape, path), _NUMBERS.storage, None, about))]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of a file, (y, x) uint8. Raises DataError (exit 3) if it is cut off."""
    data = content(path)
    _, (rows, columns), start = _header(data, path)
    if len(data) - start < rows * columns:
        raise DataError(f"{path} holds {len(data) - start:,} numbers.\nExpected {rows * columns:,}: it is cut off.")
    raw = np.frombuffer(data, np.uint8, rows * columns, start).reshape(rows, columns)
    for _ in numbers:
        yield _NUMBERS.store(raw)


def _header(data: bytes, path: Path) -> tuple[dict[str, str], tuple[int, int], int]:
    """Return the comments by name, rows and columns, and where the numbers begin."""
    found = re.match(rb"P5\s+((?:#[^\n]*\n\s*)*)(\d+)\s+(\d+)\s+((?:#[^\n]*\n\s*)*)(\d+)\s", data)
    if not found or int(found[5]) != 255:
        raise DataError(f"{path} has no header of a PGM of bytes (P5, 255).\nExpected FMI's radar composites.")
    lines = (found[1] + found[4]).decode("latin-1").splitlines()
    told = {words[1]: " ".join(words[2:]) for line in lines if len(words := line.replace("#", "# ", 1).split()) > 2}
    shape = int(found[3]), int(found[2])
    check_size(*shape, path)
    return told, shape, found.end()


def _place(told: dict[str, str], shape: tuple[int, int], path: Path) -> Place:
    try:
        names = ("centrallongitude", "centrallatitude", "truelatitude", "metersperpixel_x", "metersperpixel_y")
        lon, lat, true, width, height = (float(told[name]) for name in names)
        west_south = tuple(float(word) for word in told["bottomleft"].split())
        left, bottom = west_south
    except (KeyError, ValueError):
        raise DataError(f"{path} does not tell its place.\nExpected the projection, bottomleft and metersperpixel.") from None
    if told.get("type", "stereographic") != "stereographic":
        raise DataError(f"{path} is on a {told['type']} map.\nExpected a stereographic one.")
    projection = f"+proj=stere +lat_0={lat:g} +lon_0={lon:g} +lat_ts={true:g} +R={_RADIUS} +units=m +no_defs"
    left, bottom = projection_of(projection)(left, bottom)
    top = bottom + shape[0] * height
    return Place(
        Axis(round(top - height / 2, 6), -height, shape[0]), Axis(round(left + width / 2, 6), width, shape[1]), projection
    )
