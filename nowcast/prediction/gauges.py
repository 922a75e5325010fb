"""Read gauges from text or CSV files. Areas are read by areas.py."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nowcast.errors import DataError, UsageError

_NUMBER = r"[-+]?\d+(?:\.\d*)?"
_POINT = re.compile(rf"(?:(.+)=)?\s*({_NUMBER})\s*,\s*({_NUMBER})\s*")
_EXPECTED = "Expected --at LAT,LON such as 48.14,11.58, --at NAME=LAT,LON, or a CSV file of gauges"
_COLUMNS = {
    "name": ("name", "station", "station_name", "gauge", "gauge_name", "site", "id", "station_id", "gauge_id", "code"),
    "latitude": ("latitude", "lat", "lat_deg", "latitude_deg", "y_lat"),
    "longitude": ("longitude", "lon", "long", "lng", "lon_deg", "longitude_deg", "x_lon"),
}  # names of columns, in small letters


@dataclass(frozen=True, eq=False)
class Place:
    """A gauge, or an area: a polygon of shapely in degrees (x is the longitude), with a point inside it."""

    name: str
    latitude: float
    longitude: float
    area: Any = None


def read_gauges(texts: Sequence[str]) -> list[Place]:
    """Return the gauges of `LAT,LON`, of `NAME=LAT,LON`, and of CSV files, in degrees of WGS 84.

    Raises UsageError (exit 2) for text that is none of these, DataError (exit 3) for a file that cannot be used.
    """
    gauges: list[Place] = []
    for text in texts:
        if point := _POINT.fullmatch(text):
            name, latitude, longitude = point.groups()
            gauges.append(_gauge(name or f"{latitude},{longitude}", latitude, longitude, f"--at {text}", UsageError))
        elif Path(text).is_file():
            gauges += _read_csv(Path(text))
        elif text.lower().endswith((".csv", ".txt")):
            raise UsageError(f"--at {text}: there is no such file.\n{_EXPECTED}.")
        else:
            raise UsageError(f"--at {text}: this is neither a point nor a file.\n{_EXPECTED}.")
    return gauges


def _gauge(name: str, latitude: str, longitude: str, where: str, error: type[Exception]) -> Place:
    lat, lon = float(latitude), float(longitude)
    if not (abs(lat) <= 90 and -180 <= lon <= 360):
        swapped = "; they seem to be swapped" if abs(lon) <= 90 and abs(lat) <= 180 else ""
        wrong = f"{where}: latitude {lat:g}, longitude {lon:g} is not on the earth{swapped}"
        raise error(f"{wrong}.\nExpected degrees, latitude first.")
    return Place(name, lat, lon)


def _read_csv(path: Path) -> list[Place]:
    """Read gauges from a table with a header; columns are separated by commas, semicolons or tabs."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip() and line[0] != "#"]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.\nExpected a CSV file of gauges in UTF-8.") from error
    header = lines[0] if lines else ""
    delimiter = max(";\t,", key=header.count)
    table = list(csv.reader(lines, delimiter=delimiter))
    columns = _find_columns(table[0] if table else [], path)
    gauges = []
    for number, row in enumerate(table[1:], start=1):
        try:
            name, latitude, longitude = (row[columns[key]].strip() if key in columns else "" for key in _COLUMNS)
            if delimiter != ",":  # a comma may be that of decimals
                latitude, longitude = latitude.replace(",", "."), longitude.replace(",", ".")
            if not all(math.isfinite(float(text)) for text in (latitude, longitude)):
                raise ValueError
        except (IndexError, ValueError):
            raise DataError(f"{path}: gauge {number} has no latitude and longitude.\nExpected degrees in every row.") from None
        gauges.append(_gauge(name or f"{latitude},{longitude}", latitude, longitude, f"{path}: gauge {number}", DataError))
    if not gauges:
        raise DataError(f"{path} lists no gauge.\nExpected a row for each, below a header.")
    return gauges


def _find_columns(header: Sequence[str], path: Path) -> dict[str, int]:
    """Return the columns of name (if there is one), latitude and longitude."""
    names = [name.strip().lower() for name in header]
    columns = {key: next((names.index(name) for name in wanted if name in names), -1) for key, wanted in _COLUMNS.items()}
    if columns["latitude"] < 0 or columns["longitude"] < 0:
        problem = f"has the columns {', '.join(header)}" if header else "is empty"
        raise DataError(f"{path} {problem}.\nExpected a header with name, latitude, longitude.")
    return {key: column for key, column in columns.items() if column >= 0}


def require_own_names(places: Sequence[Place]) -> None:
    """Raise UsageError (exit 2) without places, or if two have the same name."""
    if not places:
        raise UsageError("no place is given.\nGive --at LAT,LON, --at gauges.csv or --areas basins.geojson.")
    names = [place.name for place in places]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f'two places are called "{twice}".\nGive each a name of its own, as in --at NAME=LAT,LON.')
