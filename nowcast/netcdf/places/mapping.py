"""Find the grid mapping of a field: the variable that describes its map projection."""

import logging
import re
from pathlib import Path

from nowcast.netcdf.attributes import text
from nowcast.netcdf.files import is_first

log = logging.getLogger(__name__)
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
        log.warning("%s: %s names the grid mapping %s, which the file does not have; %s", file, variable, named, taken)
