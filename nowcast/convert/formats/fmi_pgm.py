"""FMI's PGM composites of reflectivity: dBZ = raw value / 2 - 32, 0: no echo, 255: no data; time and grid are in comments.

Source: pysteps' importer of these files. The first row is the northernmost; corners are outer edges of the outer cells.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import Encoding, Options, Original, Series, check_size
from nowcast.convert.place import Axis, Place, projection_of
from nowcast.convert.sniffing import content, head
from nowcast.convert.times import time_in_text
from nowcast.errors import DataError
from nowcast.runtime.log_lines import warn_once

_ENCODING = Encoding(np.dtype("u1"), 0.5, -32.0, (255.0,), 0.0, reflectivity=True)
_HEAD = 1 << 16
_MOST_OFF = 0.5  # cells; largest distance of a stated corner from the cells
_RADIUS = 6371288  # m, of FMI's sphere, which the files do not state


def scan(path: Path, options: Options) -> list[Original]:
    """Return the field of a file, from its header. Raises DataError (exit 3) if the header is damaged or of another kind."""
    comments, shape, _ = _header(head(path, _HEAD), path)
    time = time_in_text(comments.get("obstime", ""), path)
    if time is None:
        raise DataError(f"{path} has no obstime such as 201609281445.\nExpected it in the comments.")
    param = comments.get("param", "reflectivity")
    if "reflectivity" not in param.lower():
        raise DataError(
            f"{path} holds {param[:40]} (param).\nExpected reflectivity: the scale of other quantities is not known."
        )
    product = "-".join(comments.get(name, "") for name in ("producttype", "productname")).strip("-") or "FMI"
    about = (
        ("title", f"FMI radar composite {product}"),
        ("institution", "Finnish Meteorological Institute"),
        ("source", f"FMI PGM, {product} {comments.get('param', '')}".strip()),
    )
    return [Original(time, 0, Series(product, _place(comments, shape, path), _ENCODING.storage, None, about))]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield the field of a file, (y, x) uint8. Raises DataError (exit 3) if it is cut off or too long."""
    data = content(path)
    _, (rows, columns), start = _header(data, path)
    if len(data) - start < rows * columns:
        raise DataError(f"{path} holds {len(data) - start:,} values.\nExpected {rows * columns:,}: it is cut off.")
    if rest := data[start + rows * columns :].strip():
        raise DataError(f"{path} holds {len(rest):,} bytes after its {rows * columns:,} values.\nExpected one field of 8 bits.")
    raw = np.frombuffer(data, np.uint8, rows * columns, start).reshape(rows, columns)
    for _ in numbers:
        yield _ENCODING.store(raw)


def _header(data: bytes, path: Path) -> tuple[dict[str, str], tuple[int, int], int]:
    """Return the comments by name, the numbers of rows and columns, and the position of the first value."""
    match = re.match(rb"P5\s+((?:#[^\n]*\n\s*)*)(\d+)\s+(\d+)\s+((?:#[^\n]*\n\s*)*)(\d+)\s", data)
    if not match or int(match[5]) != 255:
        raise DataError(f"{path} has no header of an 8-bit PGM (P5, 255).\nExpected a radar composite of FMI.")
    lines = (match[1] + match[4]).decode("latin-1").splitlines()
    comments = {words[1]: " ".join(words[2:]) for line in lines if len(words := line.replace("#", "# ", 1).split()) > 2}
    shape = int(match[3]), int(match[2])
    check_size(*shape, path)
    return comments, shape, match.end()


def _place(comments: dict[str, str], shape: tuple[int, int], path: Path) -> Place:
    try:
        names = ("centrallongitude", "centrallatitude", "truelatitude", "metersperpixel_x", "metersperpixel_y")
        lon, lat, true, width, height = (float(comments[name]) for name in names)
        left, bottom = (float(word) for word in comments["bottomleft"].split())
        if not (np.isfinite([lon, lat, true, left, bottom, width, height]).all() and width > 0 and height > 0):
            raise ValueError("numbers that place no cells")
    except (KeyError, ValueError):
        raise DataError(f"{path} is not georeferenced.\nExpected projection, bottomleft and metersperpixel.") from None
    if comments.get("type", "stereographic") != "stereographic":
        raise DataError(f"{path} is on a {comments['type']} map.\nExpected a stereographic one.")
    projection = f"+proj=stere +lat_0={lat:.12g} +lon_0={lon:.12g} +lat_ts={true:.12g} +R={_RADIUS} +units=m +no_defs"
    left, bottom = projection_of(projection)(left, bottom)
    top = bottom + shape[0] * height
    if "topright" in comments:
        _check_corner(comments["topright"], projection, (left + shape[1] * width, top), (width, height), path)
    return Place(
        Axis(round(top - height / 2, 6), -height, shape[0]), Axis(round(left + width / 2, 6), width, shape[1]), projection
    )


def _check_corner(stated: str, projection: str, corner: tuple, cell: tuple, path: Path) -> None:
    """Warn if the stated upper right corner, degrees, is not where the cells end; corner, cell: (x, y), m."""
    with contextlib.suppress(ValueError):
        longitude, latitude = (float(word) for word in stated.split())
        off = np.abs(np.subtract(projection_of(projection)(longitude, latitude), corner)) / cell
        if not off.max() < _MOST_OFF:
            said = f"topright is {off[0]:.3g} × {off[1]:.3g} cells from where the cells of metersperpixel end"
            warn_once(path, f"{said}; they are counted from bottomleft")
