"""Compare grids: whether two cover the same cells, and how they differ."""

import re

import cf_units
import numpy as np

from nowcast.netcdf.places.coordinates import Coordinate
from nowcast.netcdf.places.distance import distance_km, projection_text
from nowcast.netcdf.places.grid import Grid

_CLOSE = 0.01  # cells that coordinates may differ by, since some programs store them as float32
_NEAR = 0.1  # cells that latitudes and longitudes over the grid may differ by, since some programs round them
_NUMBER = r"(-?[\d.]+(?:[eE][-+]?\d+)?)"
_WEB_MERCATOR = dict.fromkeys(("900913", "3785", "102100", "102113"), "3857")  # former numbers
_POLAR = {"polar_stereographic": "stereographic"}  # the same projection with one more parameter, the pole


def is_same_series(grid: Grid, other: Grid) -> bool:
    """Return whether files on two grids are one series: equal grids, whose location both files state equally fully."""
    stated = [(each.mapping_name is None, each.is_placed, each.places is None) for each in (grid, other)]
    return stated[0] == stated[1] and difference(grid, other) is None


def difference(grid: Grid, other: Grid) -> str | None:
    """Return how `grid` differs from `other`, for a message; None if they are equal, whatever the order of rows and columns.

    Coordinates may be in different units of length. Of the projections, only parameters that both files state are compared,
    since programs write different sets of them. Two-dimensional latitude and longitude decide if both files have them.
    """
    if grid.shape != other.shape:
        return f"{grid.shape[0]} × {grid.shape[1]} cells in place of {other.shape[0]} × {other.shape[1]}"
    if not (grid.degrees is None and other.degrees is None):
        own, expected = grid.places, other.places
        if own is not None and expected is not None:
            return _displacement(own, expected, grid.shape)
    sides = (
        ("y", grid.rows, grid.y_ascending, other.rows, other.y_ascending),
        ("x", grid.columns, not grid.x_descending, other.columns, not other.x_descending),
    )
    for name, own, rises, expected, other_rises in sides:
        if own.is_measured or expected.is_measured or "bare" in (own.kind, expected.kind):
            turned = (coordinate if up else _reversed(coordinate) for coordinate, up in ((own, rises), (expected, other_rises)))
            if differs := _coordinate_difference(name, *turned):
                return differs
    return _projection_difference(grid.mapping_attributes, other.mapping_attributes)


def _displacement(own: np.ndarray, expected: np.ndarray, shape: tuple[int, int]) -> str | None:
    """Return how positions (latitude or longitude, y, x) differ, for a message; None if by less than a tenth of a cell."""
    points, others = own.reshape(2, -1).T, expected.reshape(2, -1).T
    apart = max(distance_km(a, b) for a, b in zip(points, others, strict=True))
    across = distance_km(others[0], others[-1]) / max(np.hypot(shape[0] - 1, shape[1] - 1), 1)
    if apart <= _NEAR * (across if across > 0 else 1):
        return None
    (south, west), (north, east) = points.min(axis=0), points.max(axis=0)
    (other_south, other_west), (other_north, other_east) = others.min(axis=0), others.max(axis=0)
    return (
        f"latitude {south:.6g} to {north:.6g}, longitude {west:.6g} to {east:.6g} in place of "
        f"{other_south:.6g} to {other_north:.6g}, {other_west:.6g} to {other_east:.6g}"
    )


def _reversed(coordinate: Coordinate) -> Coordinate:
    return Coordinate(coordinate.name, coordinate.values[::-1], coordinate.attributes)


def _coordinate_difference(name: str, own: Coordinate, expected: Coordinate) -> str | None:
    units, other_units = (str(each.attributes.get("units", "")) for each in (own, expected))
    if not own.is_measured and expected.is_measured and own.kind == "index":
        return f"no coordinate {name} in place of {expected.values[0]:g} to {expected.values[-1]:g} {other_units}"
    values = _in_units(own.unwrapped, own, expected)
    if values is None:
        return f"{name} in {units or 'no units'} in place of {other_units or 'no units'}"
    wanted = expected.unwrapped
    step, distance = abs(wanted[-1] - wanted[0]) / max(len(wanted) - 1, 1), np.abs(values - wanted)
    if expected.kind == "longitude" or (name == "x" and other_units.startswith("degree")):
        distance = np.minimum(distance % 360, -distance % 360)
    if distance.max() <= _CLOSE * (step if step > 0 else 1):
        return None
    span = f"{name} from {values[0]:g} to {values[-1]:g} {other_units}"
    return f"{span} in place of {wanted[0]:g} to {wanted[-1]:g}".strip()


def _in_units(values: np.ndarray, own: Coordinate, expected: Coordinate) -> np.ndarray | None:
    """Return values (y,) in the other's units; None if they cannot be converted. Without units they stay as they are."""
    units, wanted = own.attributes.get("units"), expected.attributes.get("units")
    if units is None or wanted is None or units == wanted or own.kind == expected.kind != "length":
        return values
    try:
        return cf_units.Unit(units).convert(values, wanted)
    except ValueError:
        return None


def _projection_difference(own: dict, other: dict) -> str | None:
    names = [parameters.get("grid_mapping_name") for parameters in (own, other)]
    if None in names:
        return _text_difference(projection_text(own), projection_text(other))
    if len({_POLAR.get(name, name) for name in names}) > 1:
        return f"projection {names[0]} in place of {names[1]}"
    for name in sorted(set(own) & set(other)):
        a, b = (np.ravel(parameters[name]) for parameters in (own, other))
        if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
            continue  # names and remarks
        is_longitude = name.startswith("longitude") or name.endswith(("_longitude", "longitude_from_pole"))
        if _differs(a, b, is_longitude=is_longitude):
            return f"{name} {own[name]} in place of {other[name]}"
    return None


def _differs(a: np.ndarray, b: np.ndarray, *, is_longitude: bool) -> bool:
    distance = np.abs(a - b) if a.shape == b.shape else np.array([np.inf])
    if is_longitude:
        distance = np.minimum(distance % 360, -distance % 360)
    return bool((distance > 1e-6 * np.maximum(np.abs(b).max(), 1)).any())


def _text_difference(own: str, other: str) -> str | None:
    """Return how two projections given as PROJ strings, WKT or EPSG codes differ in the parameters that both state."""
    stated, expected = _parameters(own), _parameters(other)
    for name in sorted(set(stated) & set(expected), key=lambda name: name not in ("EPSG", "proj")):
        a, b = stated[name], expected[name]
        if name == "EPSG" and a == b:
            return None
        is_same = (
            a == b if str in (type(a), type(b)) else not _differs(np.array([a]), np.array([b]), is_longitude="lon" in name)
        )
        if not is_same:
            return f"projection with {name} {a} in place of {b}"
    return None


def _parameters(text: str) -> dict[str, str | float]:
    """Return the parameters of a projection in a PROJ string, WKT or EPSG code, with its name in PROJ and its code."""
    found: dict[str, str | float] = dict(re.findall(r"\+(proj|zone)=(\S+)", text))
    found |= {name: float(value) for name, value in re.findall(rf"\+(lat_\w+|lon_\w+|[xyk]_0|k)={_NUMBER}", text)}
    in_wkt = re.findall(rf'PARAMETER\["([^"]+)",\s*{_NUMBER}', text)
    found |= {re.sub("meridian", "longitude", name.lower().replace("_", " ")): float(value) for name, value in in_wkt}
    number = re.search(r'(?:^EPSG:|(?:ID|AUTHORITY)\["EPSG",\s*"?)(\d+)(?:"?\]\s*\]|)\s*$', text)
    return found | ({"EPSG": _WEB_MERCATOR.get(number[1], number[1])} if number else {})
