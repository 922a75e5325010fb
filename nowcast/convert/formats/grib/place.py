"""Grids of GRIB fields: regular longitude and latitude, Lambert and polar stereographic maps."""

import math
from pathlib import Path

from nowcast.convert.formats.grib.messages import Message
from nowcast.convert.original import check_size
from nowcast.convert.place import Axis, Place, projection_of
from nowcast.errors import DataError

_MOST_NORTH, _MOST_EAST = 90.01, 720.0  # degrees


def place_of(message: Message, path: Path) -> tuple[Place, bool]:
    """Return the grid of a field, and whether its values are in column order. Raises DataError (exit 3) for other grids."""
    kind = message.text("gridType")
    if kind not in ("regular_ll", "lambert", "polar_stereographic"):
        raise DataError(f"{path} has the grid type {kind or 'unknown'}.\nExpected regular_ll, lambert, polar_stereographic.")
    if message.number("alternativeRowScanning", 0) or message.number("iScansNegatively", 0):
        raise DataError(f"{path} has rows from east to west, or in alternating directions.\nExpected rows from west to east.")
    columns, rows = (message.number(one) or message.number(other) or 0 for one, other in (("Ni", "Nx"), ("Nj", "Ny")))
    check_size(int(rows), int(columns), path)
    make = _degrees if kind == "regular_ll" else _map
    turned = bool(message.number("jPointsAreConsecutive", 0))
    return make(message, kind, int(rows), int(columns), path), turned


def _degrees(message: Message, kind: str, rows: int, columns: int, path: Path) -> Place:
    names = ("latitudeOfFirst", "latitudeOfLast", "longitudeOfFirst", "longitudeOfLast")
    south_north = [message.number(f"{name}GridPointInDegrees") for name in names]
    if None in south_north:
        raise DataError(f"{path} does not state the extent of its grid.\nExpected the first and the last point.")
    first, last, west, east = south_north
    if max(abs(first), abs(last)) > _MOST_NORTH or max(abs(west), abs(east)) > _MOST_EAST:
        raise DataError(f"{path} has latitudes {first:g} to {last:g}, longitudes {west:g} to {east:g}.\nExpected degrees.")
    east += 360 if east < west else 0
    y, x = ((b - a) / max(number - 1, 1) for a, b, number in ((first, last, rows), (west, east, columns)))
    west -= 360 if west >= 180 else 0
    return Place(Axis(round(first, 6), round(y, 9), rows), Axis(round(west, 6), round(x, 9), columns))


def _map(message: Message, kind: str, rows: int, columns: int, path: Path) -> Place:
    value = {name: message.number(key) for name, key in _KEYS.items()}
    value["orientation"] = message.number(_ORIENTATION[kind])
    width, height = message.number("DxInMetres"), message.number("DyInMetres")
    if not width or not height or None in (value["lat"], value["lon"], value["orientation"]):
        raise DataError(f"{path} is not georeferenced.\nExpected Dx, Dy, LoV and the first point.")
    if kind == "lambert":
        shape = f"+proj=lcc +lat_1={value['first']:g} +lat_2={value['second']:g} +lat_0={value['true'] or value['first']:g}"
    else:
        pole = -90 if int(message.number("projectionCentreFlag", 0)) & 128 else 90
        # ecCodes gives 60 for both poles in edition 1
        true = math.copysign(60 if value["true"] is None else value["true"], pole)
        shape = f"+proj=stere +lat_0={pole} +lat_ts={true:g}"
    text = f"{shape} +lon_0={value['orientation']:g} {_earth(message)} +x_0=0 +y_0=0 +units=m +no_defs"
    x, y = projection_of(text)(value["lon"], value["lat"])
    up = 1.0 if message.number("jScansPositively", 0) else -1.0
    return Place(Axis(round(y, 3), up * height, rows), Axis(round(x, 3), width, columns), text)


_ORIENTATION = {"lambert": "LoVInDegrees", "polar_stereographic": "orientationOfTheGridInDegrees"}
_KEYS = {
    "lat": "latitudeOfFirstGridPointInDegrees", "lon": "longitudeOfFirstGridPointInDegrees", "true": "LaDInDegrees",
    "first": "Latin1InDegrees", "second": "Latin2InDegrees",
}  # fmt: skip


def _earth(message: Message) -> str:
    radius = message.number("radius")
    if radius and not message.whole("earthIsOblate", 0):  # ecCodes gives a radius in edition 1 also for an ellipsoid
        return f"+R={float(radius):.10g}"
    major, minor = (message.number(f"earth{name}AxisInMetres") for name in ("Major", "Minor"))
    return f"+a={float(major):.10g} +b={float(minor):.10g}" if major and minor else "+R=6371229"
