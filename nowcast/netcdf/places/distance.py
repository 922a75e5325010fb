"""Distances on the ground, km: between points, and the scale factor of conformal map projections.

The earth is taken as a sphere, which changes distances by at most half a percent. Formulas: Snyder (1987), Map Projections: A
Working Manual, U.S. Geological Survey Professional Paper 1395.
"""

import math
import re

import numpy as np

EARTH_KM = 6371.0  # mean radius
KM_PER_DEGREE = EARTH_KM * math.pi / 180
_TEXTS = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4_string", "proj_string", "epsg_code", "epsg")
# projections by their names in PROJ strings, WKT and EPSG, the more special name first
_NAMES = (
    ("transverse_mercator", r"\+proj=(?:e?tmerc|utm)\b|transverse[ _]mercator"),
    ("mercator", r"\+proj=(?:web)?merc\b|mercator|^(?:EPSG:)?(?:3857|900913)$"),
    ("polar_stereographic", r"\+proj=sterea?\b|stereographic"),
    ("lambert_conformal_conic", r"\+proj=lcc\b|lambert[ _]con\w+[ _]con\w+"),
)
_PARAMETERS = {  # of CF: names in PROJ strings, and in both versions of WKT
    "first": ("lat_ts", "lat_1", "standard_parallel_1", "latitude of 1st standard parallel", "latitude of standard parallel"),
    "second": ("lat_2", "standard_parallel_2", "latitude of 2nd standard parallel"),
    "latitude_of_projection_origin": ("lat_0", "latitude_of_origin", "latitude of false origin", "latitude of natural origin"),
    "scale": ("k_0", "k", "scale_factor", "scale factor at natural origin"),
    "false_easting": ("x_0", "false_easting", "false easting", "easting at false origin"),
    "false_northing": ("y_0", "false_northing", "false northing", "northing at false origin"),
    "earth_radius": ("R", "a"),
}


def distance_km(a: np.ndarray, b: np.ndarray) -> float:
    """Return the great-circle distance between two points by the haversine formula.

    a, b: (2,) latitude and longitude in degrees
    """
    (phi_a, lambda_a), (phi_b, lambda_b) = np.radians(a), np.radians(b)
    half = np.sin((phi_b - phi_a) / 2) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin((lambda_b - lambda_a) / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(half))) * KM_PER_DEGREE)


def viewed_spacing_km(mapping: dict, y: tuple[float, float], x: tuple[float, float]) -> tuple[float, float]:
    """Return the spacing (dy, dx) on the ground, km, of rows and columns seen from a satellite; NaN beside the earth.

    mapping: attributes of CF's geostationary projection
    y, x: the viewing angle in the middle of the rows, and of the columns, and its step, radians
    """
    ends = ((y[0] - y[1] / 2, x[0]), (y[0] + y[1] / 2, x[0]), (y[0], x[0] - x[1] / 2), (y[0], x[0] + x[1] / 2))
    south, north, west, east = (_seen(mapping, *angles) for angles in ends)
    return float(np.linalg.norm(north - south)), float(np.linalg.norm(east - west))


def _seen(mapping: dict, y: float, x: float) -> np.ndarray:
    """Return the point (3,) on the ellipsoid, km from the middle of the earth, that a satellite sees at two angles, radians."""
    major = _number(mapping, "semi_major_axis", EARTH_KM * 1000) / 1000
    minor = _number(mapping, "semi_minor_axis", major * 1000) / 1000
    away = major + _number(mapping, "perspective_point_height", math.nan) / 1000
    east, north = math.tan(x), math.tan(y)
    if str(mapping.get("sweep_angle_axis", "y")) == "x" or mapping.get("fixed_angle_axis") == "y":
        east *= math.hypot(1, north)
    else:
        north *= math.hypot(1, east)
    # the ellipsoid is a sphere where the axis of the earth is stretched
    ray = np.array([-1.0, east, north * major / minor])
    square = float(ray @ ray)
    root = away**2 - square * (away**2 - major**2)
    length = (away - math.sqrt(root)) / square if root >= 0 else math.nan
    return (np.array([away, 0, 0]) + length * ray) * [1, 1, minor / major]


def map_scale(mapping: dict, y_km: float, x_km: float) -> float:
    """Return the scale factor of a map at a point, distance on the map / on the ground; 1 if the map is not conformal.

    mapping: attributes of a CF grid mapping, or only a PROJ string or WKT; y_km, x_km: the point on the map, km
    """
    mapping = mapping if "grid_mapping_name" in mapping else _from_text(mapping)
    function = _SCALES.get(str(mapping.get("grid_mapping_name")))
    if function is None:
        return 1.0
    radius = _number(mapping, "earth_radius", _number(mapping, "semi_major_axis", EARTH_KM * 1000)) / 1000
    y, x = y_km - _number(mapping, "false_northing") / 1000, x_km - _number(mapping, "false_easting") / 1000
    try:
        scale = function(mapping, y / radius, x / radius)
    except (ArithmeticError, ValueError):
        return 1.0  # parameters that are no projection
    return scale if math.isfinite(scale) and scale > 0 else 1.0


def projection_text(mapping: dict) -> str:
    """Return the PROJ string, WKT or EPSG code among the attributes of a grid mapping; "" if there is none."""
    return next((str(mapping[name]) for name in _TEXTS if np.size(mapping.get(name, ())) and str(mapping[name])), "")


def _from_text(mapping: dict) -> dict:
    """Return the CF attributes of a conformal projection from a PROJ string, WKT or EPSG code; {} for other projections."""
    text = projection_text(mapping)
    method = re.search(r'(?:PROJECTION|METHOD)\["([^"]+)"', text)
    kind = next((kind for kind, names in _NAMES if re.search(names, method[1] if method else text, re.IGNORECASE)), None)
    if kind is None:
        return {}
    stated = dict(re.findall(r"\+(\w+)=(-?[\d.]+(?:[eE][-+]?\d+)?)", text))
    stated |= {name.lower(): value for name, value in re.findall(r'PARAMETER\["([^"]+)",\s*(-?[\d.]+)', text)}
    stated |= dict(zip(("a",), re.findall(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.]+)', text), strict=False))
    if "+proj=utm" in text:
        stated |= {"k": "0.9996", "x_0": "500000"}
    found = {cf: next((float(stated[name]) for name in names if name in stated), None) for cf, names in _PARAMETERS.items()}
    first, second, scale = (found.pop(name) for name in ("first", "second", "scale"))
    is_polar = method is not None and "polar" in method[1].lower()
    if first is None and (is_polar or kind == "lambert_conformal_conic"):  # in WKT the one latitude is that of the scale
        first = found["latitude_of_projection_origin"]
    if first is not None:
        found["standard_parallel"] = np.array([first] if second is None else [first, second])
    if scale is not None and not (first is not None and kind == "polar_stereographic"):
        found |= {"scale_factor_at_projection_origin": scale, "scale_factor_at_central_meridian": scale}
    return {"grid_mapping_name": kind} | {name: value for name, value in found.items() if value is not None}


def _number(mapping: dict, name: str, default: float = 0.0) -> float:
    values = np.ravel(mapping.get(name, default))
    return float(values[0]) if values.size and values.dtype.kind in "iuf" else default


def _mercator(mapping: dict, y: float, x: float) -> float:
    parallel = math.cos(math.radians(_number(mapping, "standard_parallel")))
    least = _number(mapping, "scale_factor_at_projection_origin", parallel)
    return least * math.cosh(y / least)


def _transverse_mercator(mapping: dict, y: float, x: float) -> float:
    least = _number(mapping, "scale_factor_at_central_meridian", 1.0)
    return least * math.cosh(x / least)


def _stereographic(mapping: dict, y: float, x: float) -> float:
    parallel = abs(math.radians(_number(mapping, "standard_parallel", 90.0)))
    least = _number(mapping, "scale_factor_at_projection_origin", (1 + math.sin(parallel)) / 2)
    return least * (1 + (math.hypot(y, x) / (2 * least)) ** 2)


def _lambert(mapping: dict, y: float, x: float) -> float:
    first, last = (math.radians(float(v)) for v in np.ravel(mapping.get("standard_parallel", np.nan))[[0, -1]])
    origin = math.radians(_number(mapping, "latitude_of_projection_origin"))

    def tangent(latitude: float) -> float:
        return math.tan(math.pi / 4 + latitude / 2)

    cone = math.sin(first)
    if abs(first - last) > 1e-9:
        cone = math.log(math.cos(first) / math.cos(last)) / math.log(tangent(last) / tangent(first))
    size = math.cos(first) * tangent(first) ** cone / cone
    radius = math.copysign(math.hypot(x, size / tangent(origin) ** cone - y), cone)
    latitude = 2 * math.atan((size / radius) ** (1 / cone)) - math.pi / 2
    return abs(cone * radius) / math.cos(latitude)


_SCALES = {
    "mercator": _mercator,
    "transverse_mercator": _transverse_mercator,
    "polar_stereographic": _stereographic,
    "stereographic": _stereographic,
    "lambert_conformal_conic": _lambert,
}
