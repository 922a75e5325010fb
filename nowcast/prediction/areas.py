"""Read areas, such as catchments, from GeoJSON and shapefiles as polygons in degrees. Needs shapely; shapefiles need pyshp."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nowcast.errors import DataError, UsageError
from nowcast.prediction.gauges import Place

log = logging.getLogger(__name__)
_GEOJSON, _SHAPEFILE = (".geojson", ".json"), (".shp", ".zip")
_NAMES, _NUMBERS = ("name", "basin", "catchment", "river", "label"), ("id", "code")  # properties of areas, or their ends
_PIECES = 200  # segments per extent of an area: long edges are divided, so that straight lines of the file stay in place
_WGS84 = {"urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84", "EPSG:4326", "urn:ogc:def:crs:EPSG::4326"}
Feature = tuple[dict, dict]  # geometry, in the form of GeoJSON, and properties


def read_areas(path: str | Path) -> list[Place]:
    """Read the polygons of a GeoJSON file or a shapefile, each with a name from its properties.

    Raises UsageError (exit 2) for another kind of file, or where a package is not installed, DataError (exit 3) for a file that
    cannot be used.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in _GEOJSON + _SHAPEFILE:
        raise UsageError(
            f"--areas {path}: this is neither GeoJSON nor a shapefile.\nExpected a name in .geojson, .json or .shp."
        )
    if not path.is_file():
        raise UsageError(f"--areas {path}: there is no such file.\nExpected a GeoJSON file (.geojson) or a shapefile (.shp).")
    if path.suffix.lower() == ".zip":
        raise UsageError(f"--areas {path}: this is a zip file.\nUnzip it, and give the .shp file in it.")
    _require("shapely")
    features, crs = _read_geojson(path) if path.suffix.lower() in _GEOJSON else _read_shapefile(path)
    names = _name(features, path)
    places = [_place(name, geometry, crs, path) for name, (geometry, _) in zip(names, features, strict=True)]
    if not places:
        raise DataError(f"{path} holds no area.\nExpected polygons.")
    return places


def _require(*packages: str) -> list[Any]:
    """Import packages of the extra `areas`. Raises UsageError (exit 2) if one is not installed."""
    import importlib

    projects = {"shapefile": "pyshp"}
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        project = projects.get(error.name or "", error.name)
        raise UsageError(f"--areas needs {project}.\nIt is not installed: pip install {project}") from None


def _read_geojson(path: Path) -> tuple[list[Feature], Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
        features = list(_features(tree))
        stated = (tree.get("crs") or {}).get("properties", {}).get("name")
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is no GeoJSON ({error or 'of another form'}).\nExpected a FeatureCollection of polygons."
        ) from error
    if stated is None or stated in _WGS84:
        return features, None
    (pyproj,) = _require("pyproj")
    return features, _crs(pyproj, stated, path)


def _features(tree: dict, properties: dict | None = None) -> Iterator[Feature]:
    """Yield the geometries of a GeoJSON tree with their properties, and the `id` of features among them."""
    if tree["type"] == "FeatureCollection":
        for feature in tree["features"]:
            yield from _features(feature)
    elif tree["type"] == "Feature":
        own = {"id": tree["id"]} if "id" in tree else {}
        yield from _features(tree["geometry"], own | (tree.get("properties") or {}))
    elif tree["type"] == "GeometryCollection":
        for geometry in tree["geometries"]:
            yield from _features(geometry, properties)
    else:
        yield tree, properties or {}


def _read_shapefile(path: Path) -> tuple[list[Feature], Any]:
    (shapefile,) = _require("shapefile")
    try:
        with shapefile.Reader(str(path), encodingErrors="replace") as reader:
            features = [(entry.shape.__geo_interface__, entry.record.as_dict()) for entry in reader.iterShapeRecords()]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, shapefile.ShapefileException) as error:
        raise DataError(f"{path} is no whole shapefile ({error}).\nExpected .shp, .shx and .dbf beside each other.") from error
    projection = path.with_suffix(".prj")
    if not projection.is_file():
        log.warning("%s has no .prj file: its coordinates are assumed to be longitude and latitude (WGS 84)", path)
        return features, None
    (pyproj,) = _require("pyproj")
    return features, _crs(pyproj, projection.read_text(encoding="utf-8", errors="replace"), projection)


def _crs(pyproj: Any, stated: str, path: Path) -> Any:
    """Return the pyproj CRS for the text in a file. Raises DataError (exit 3) for invalid text."""
    try:
        return pyproj.CRS.from_user_input(stated)
    except pyproj.exceptions.CRSError as error:
        raise DataError(f"{path} states a projection that PROJ does not know: {stated[:60]}.\nExpected WGS 84.") from error


def _name(features: Sequence[Feature], path: Path) -> list[str]:
    """Return a name for each area: from a property that is unique, a name before a number; else its number in the file."""
    keys = list(dict.fromkeys(key for _, properties in features for key in properties))
    ranked = [key for name in _NAMES for key in keys if key.lower() == name]
    ranked += [key for name in _NAMES for key in keys if key.lower().endswith(name)]
    ranked += [key for key in keys if all(isinstance(properties.get(key), str) for _, properties in features)]
    ranked += [key for name in _NUMBERS for key in keys if key.lower().endswith(name)]
    for key in ranked:
        names = [str(properties.get(key) if properties.get(key) is not None else "").strip() for _, properties in features]
        if all(names) and len(set(names)) == len(names):
            log.info("%s: %d area%s, named by %s", path, len(names), "" if len(names) == 1 else "s", key)
            return names
    log.info(
        "%s: %d area%s without unique names, numbered in the order of the file",
        path,
        len(features),
        "" if len(features) == 1 else "s",
    )
    return [f"area {number}" for number in range(1, len(features) + 1)]


def _place(name: str, geometry: dict, crs: Any, path: Path) -> Place:
    """Return an area in degrees. Raises DataError (exit 3) for a geometry that is no polygon, or not on the earth."""
    (shapely,) = _require("shapely")
    if geometry.get("type") not in ("Polygon", "MultiPolygon"):
        raise DataError(f'{path}: "{name}" is a {geometry.get("type")}.\nExpected polygons; gauges are given by --at.')
    try:
        area = shapely.geometry.shape(geometry)
    except (ValueError, TypeError, IndexError, KeyError, shapely.errors.ShapelyError) as error:
        raise DataError(f'{path}: "{name}" is no polygon ({error}).\nExpected rings of longitude, latitude.') from error
    if not area.is_valid:
        log.warning('%s: the outline of "%s" crosses itself, and is mended', path, name)
        parts = shapely.get_parts(shapely.make_valid(area))  # lines and points among them have no area
        area = shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])
    west, south, east, north = area.bounds if not area.is_empty else (math.nan,) * 4
    if not math.isfinite(west) or area.area == 0:
        raise DataError(f'{path}: "{name}" has no area.\nExpected polygons.')
    area = shapely.segmentize(shapely.force_2d(area), max(east - west, north - south) / _PIECES)
    if crs is not None:
        area = _in_degrees(area, crs)
        west, south, east, north = area.bounds
    if not (west >= -180 and east <= 360 and south >= -90 and north <= 90):
        raise DataError(
            f'{path}: "{name}" goes from {west:g}, {south:g} to {east:g}, {north:g}, which are no longitudes and latitudes.\n'
            "Expected WGS 84: `ogr2ogr -t_srs EPSG:4326 OUT.geojson IN`, or a .prj file beside a shapefile."
        )
    inside = area.representative_point()
    return Place(name, inside.y, inside.x, area)


def _in_degrees(area: Any, crs: Any) -> Any:
    """Transform a polygon from a projection to longitude and latitude (WGS 84)."""
    import numpy as np
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
    return moved(area, lambda points: np.stack(to_degrees.transform(*points.T), axis=1))


def moved(area: Any, move: Callable[[Any], Any]) -> Any:
    """Transform the points (point, 2) of a polygon by a function, each distinct point once.

    This keeps rings closed: on some processors NumPy gives results for one number that differ in the last bit, depending on
    whether it is computed by vector instructions.
    """
    import numpy as np
    import shapely

    def move_distinct(points):
        distinct, which = np.unique(points, axis=0, return_inverse=True)
        return move(distinct)[which.reshape(-1)]

    return shapely.transform(area, move_distinct)
