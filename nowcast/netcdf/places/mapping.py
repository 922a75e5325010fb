"""Find the grid mapping of a field: the variable that describes its map projection."""

import logging
import re
from pathlib import Path

import numpy as np

from nowcast.netcdf.attributes import text
from nowcast.runtime.log_lines import is_first, named_file

log = logging.getLogger(__name__)
# of maps in degrees, and in neither degrees nor metres
_GEOGRAPHIC = re.compile(r"latitude_longitude|\s*GEOG|\s*EPSG:4326|.*\+proj=(?:longlat|latlong)")
_OTHER_UNIT = re.compile(r'UNIT\["(?:kilomet|[^"]*(?:foot|feet|mile|yard))|\+units=(?!m\b)\w+', re.IGNORECASE)
_DESCRIBES = {"grid_mapping_name", "crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4_string", "proj_string"}


def find_mapping(dataset, variable, coordinates: tuple[str, str]):
    """Return the grid mapping variable of a field whose coordinates have these names; None if there is none.

    If the field names none, or one that does not exist, the only one in the file is taken; in the latter case with a warning.
    """
    named = _named(text(variable, "grid_mapping") or "", coordinates)
    if named in dataset.variables:
        return dataset.variables[named]
    others = [other for other in dataset.variables.values() if other.size == 1 and _DESCRIBES & set(other.ncattrs())]
    alike = [other for other in others if named and other.name.lower() == named.lower()]
    (found,) = alike if len(alike) == 1 else others if len(others) == 1 else (None,)
    if named:
        _warn_once(Path(dataset.filepath()), variable.name, named, found)
    return found


def cell_centres(mapping, axis: str, size: int) -> tuple[np.ndarray, dict] | None:
    """Return the positions (size,) of rows or columns by GDAL's GeoTransform in a grid mapping, and their CF attributes.

    None if there is none, if it turns the grid, or if the units of the map are neither degrees, metres nor km.
    """
    try:
        west, dx, turn_x, first, turn_y, dy = map(float, (text(mapping, "GeoTransform") or "").replace(",", " ").split())
    except ValueError:
        return None
    described = [text(mapping, name) or "" for name in sorted(_DESCRIBES)]
    is_degrees = any(_GEOGRAPHIC.match(each) for each in described)
    other = next((found[0].lower() for each in described if (found := _OTHER_UNIT.search(each))), "")
    unit = None if other and "k" not in other else "km" if other else "m"
    start, step = (first, dy) if axis == "Y" else (west, dx)
    is_known = (unit or is_degrees) and "rotated_latitude_longitude" not in described
    if turn_x or turn_y or not step or not np.isfinite([start, step]).all() or not is_known:
        return None
    words = ("latitude", "degrees_north") if axis == "Y" else ("longitude", "degrees_east")
    words = words if is_degrees else (f"projection_{axis.lower()}_coordinate", unit)
    return start + (np.arange(size) + 0.5) * step, dict(zip(("standard_name", "units"), words, strict=True))


def _named(text_: str, coordinates: tuple[str, str]) -> str:
    """Return the name of the mapping; from the long form, "name: coordinates name: coordinates", that of these coordinates."""
    if ":" not in text_:
        return text_
    listed = re.findall(r"(\S+)\s*:\s*((?:[^\s:]+(?!\s*:)(?:\s+|$))*)", text_)
    fitting = [name for name, names in listed if set(coordinates) <= set(names.split())]
    return (fitting or [name for name, _ in listed] or [""])[0]


def _warn_once(file: Path, variable: str, named: str, found) -> None:
    if is_first(file, f"grid mapping {named}"):
        taken = f"taken to be {found.name}" if found is not None else "its map projection is unknown"
        log.warning(
            "%s: %s names the grid mapping %s, which the file does not have; %s", named_file(file), variable, named, taken
        )
