"""Find the dimensions y and x of a field, and the coordinate variables of its rows and columns.

As in CF, a coordinate is identified by its standard name, units or `axis`, whether it has the name of its dimension
(`lat(lat)`), another name (`lat(y)`), or both dimensions (`lat(y, x)`). Names of variables count only if none of these
attributes is present.
"""

import math
import re

from nowcast.netcdf.attributes import attributes, is_numeric, text

# CF's units in lower case, and others' short forms
_NORTH = {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen", "deg_north", "deg_n", "degn"}
_EAST = {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee", "deg_east", "deg_e", "dege"}
# degrees positive to the south or west, which udunits does not know
_SOUTH = {"degrees_south", "degree_south", "degrees_s", "degree_s", "deg_south", "deg_s"}
_WEST = {"degrees_west", "degree_west", "degrees_w", "degree_w", "deg_west", "deg_w"}
_RADIANS = {"radian", "radians", "rad"}
_AXES = {
    "projection_y_coordinate": "Y", "projection_y_angular_coordinate": "Y", "latitude": "Y", "grid_latitude": "Y",
    "projection_x_coordinate": "X", "projection_x_angular_coordinate": "X", "longitude": "X", "grid_longitude": "X",
    "time": "T",
}  # fmt: skip
_LATITUDES = {"lat", "lats", "latitude", "latitudes", "xlat", "nav_lat"}
_LONGITUDES = {"lon", "lons", "long", "longitude", "longitudes", "xlong", "xlon", "nav_lon"}
_ROWS = _LATITUDES | {"y", "yc", "rlat", "nlat", "ny", "south_north", "north_south", "row", "rows", "nrows", "nj", "j",
                      "northing", "northings", "ydim", "ygrid", "gridlat"}  # fmt: skip
_COLUMNS = _LONGITUDES | {"x", "xc", "rlon", "nlon", "nx", "west_east", "east_west", "column", "columns", "col", "cols",
                          "ncols", "ni", "i", "easting", "eastings", "xdim", "xgrid", "gridlon"}  # fmt: skip
_RAYS = {"azimuth", "azimuths", "az", "ray", "rays", "nrays", "n_rays", "theta", "radial", "radials"}
_GATES = {"range", "ranges", "rng", "gate", "gates", "ngates", "n_gates", "bin", "bins", "nbins", "n_bins"}
# places one after the other
_LISTED = re.compile(r"(cml|sub)?_?links?|stations?|sites?|gauges?|(?P<of>.*_)?ids?|catchments?|basins?")
_SURPLUS = re.compile(r"_?(2d|deg|degrees|dd)$")  # endings of lat2d, latitude_deg
_NOT_TRUE = re.compile(r"rotated|pole|grid")  # in the long names of other angles


def angle(name: str, declared: dict) -> str | None:
    """Return `latitude` or `longitude` if a variable with these attributes holds true (not rotated) ones; else None."""
    standard_name, units = _word(declared, "standard_name"), _degrees(_word(declared, "units"))
    if standard_name in ("latitude", "longitude"):
        return standard_name
    if units in _NORTH | _EAST | _SOUTH | _WEST and standard_name not in _AXES:
        return "latitude" if units in _NORTH | _SOUTH else "longitude"
    if standard_name or not (units == "" or "deg" in units):
        return None
    name = _SURPLUS.sub("", name.lower())
    by_name = "latitude" if name in _LATITUDES else "longitude" if name in _LONGITUDES else None
    said = set(re.findall(r"\b(?:latitude|longitude)\b", _word(declared, "long_name"))) if units else set()
    return by_name or (said.pop() if len(said) == 1 and not _NOT_TRUE.search(_word(declared, "long_name")) else None)


def degrees_per_unit(declared: dict) -> float:
    """Return the degrees north or east per unit of an angular coordinate; 1 for all other coordinates.

    Viewing angles of a satellite stay in radians.
    """
    units, standard_name = _degrees(_word(declared, "units")), _word(declared, "standard_name")
    if units in _SOUTH | _WEST:
        return -1.0
    is_angle = standard_name in ("latitude", "longitude", "grid_latitude", "grid_longitude")
    return math.degrees(1) if units in _RADIANS and is_angle else 1.0


def _degrees(units: str) -> str:
    """Return units in lower case, with those of angles in the spelling of CF: `degrees north` and `°N` too."""
    return re.sub(r"[\s_]+", "_", units.replace("°", "degrees ")).strip("_")


def _word(declared: dict, key: str) -> str:
    value = declared.get(key)
    return value.strip().lower() if isinstance(value, str) else ""


def declared_axis(name: str, declared: dict) -> str | None:
    """Return the axis (Y, X, T, …) of a coordinate by its attributes, or by a name such as `lat` if it has none; else None."""
    if " since " in _word(declared, "units"):
        return "T"
    kind = angle(name, declared)
    axis = _AXES.get(_word(declared, "standard_name")) or {"latitude": "Y", "longitude": "X"}.get(kind or "")
    return axis or _word(declared, "axis").upper() or None


def horizontal(dataset, variable) -> tuple[str, str] | None:
    """Return the dimensions (y, x) of a variable: by coordinates, else by name, else the last two other than time."""
    axes = {
        dim: _axis_along(dataset, variable, dim) or _named(dataset, dim) or _named_along(dataset, variable, dim)
        for dim in variable.dimensions
    }
    y, x = (next((dim for dim, axis in axes.items() if axis == wanted), None) for wanted in "YX")
    long = [dim for dim, axis in axes.items() if dim not in (y, x) and axis != "T"]
    if len(long) < (y is None) + (x is None):
        return None
    x = x or long.pop()
    return y or long.pop(), x


def is_polar(dims: tuple[str, str]) -> bool:
    """Return whether the names of two dimensions are those of a radar sweep: rays and gates."""
    first, second = (dim.lower() for dim in dims)
    return (first in _RAYS and second in _GATES) or (first in _GATES and second in _RAYS)


def is_list(dataset, variable, dims: tuple[str, str]) -> bool:
    """Return whether one of two dimensions lists links, gauges or other places, by its name: `cml_id` is no row of a grid.

    Those of a grid may be called `row_id` or, where coordinates place them, anything.
    """
    is_listed = any(
        (named := _LISTED.fullmatch(dim.lower())) and not axis_of_name((named["of"] or "").rstrip("_")) for dim in dims
    )
    is_placed = all(_axis_along(dataset, variable, dim) for dim in dims) or over_grid(dataset, variable, *dims) is not None
    return is_listed and not is_placed


def is_declared(dataset, variable, dims: tuple[str, str]) -> bool:
    """Return whether coordinates along one of the dimensions state its axis."""
    return any(_axis_along(dataset, variable, dim) for dim in dims)


def _axis_along(dataset, variable, dim: str) -> str | None:
    """Return the axis that the coordinates along a dimension state; None if they state none, or both Y and X."""
    own = dataset.variables.get(dim)
    if own is not None and (axis := declared_axis(dim, attributes(own))):
        return axis
    axes = {declared_axis(other.name, attributes(other)) for other in along(dataset, variable, dim)} & {"Y", "X"}
    return axes.pop() if len(axes) == 1 else None


def _named(dataset, dim: str) -> str | None:
    """Return the axis of a dimension by its name, unless its own coordinate states another."""
    own = dataset.variables.get(dim)
    if own is not None and text(own, "standard_name"):
        return None
    return axis_of_name(dim)


def _named_along(dataset, variable, dim: str) -> str | None:
    """Return the axis Y or X of a dimension by the names of the coordinates along it; None if they fit neither, or both."""
    axes = {axis_of_name(other.name) for other in along(dataset, variable, dim)} & {"Y", "X"}
    return axes.pop() if len(axes) == 1 else None


def axis_of_name(name: str) -> str | None:
    """Return the axis Y, X or T of a dimension or coordinate by its name alone; None for other names."""
    name = name.lower().rstrip("0123456789").rstrip("_")
    return "Y" if name in _ROWS else "X" if name in _COLUMNS else "T" if name == "time" else None


def axis_of_dimension(array, dim) -> str | None:
    """Return the axis Y, X or T of a dimension of a DataArray, by its coordinate or its name; None if it is unknown."""
    coordinate = array.coords.get(dim)
    if coordinate is not None and coordinate.dtype.kind == "M":
        return "T"
    return declared_axis(str(dim), {} if coordinate is None else coordinate.attrs) or axis_of_name(str(dim))


def along(dataset, variable, dim: str) -> list:
    """Return the one-dimensional variables that can be coordinates of a dimension, except `dim(dim)`; listed ones first."""
    others = [
        other
        for name, other in dataset.variables.items()
        if name not in (dim, variable.name) and other.dimensions == (dim,) and is_numeric(other)
    ]
    return _listed_first(others, variable)


def over_grid(dataset, variable, y_dim: str, x_dim: str) -> tuple | None:
    """Return the variables of latitude and of longitude over y and x (and perhaps a time); None if the file lacks either."""
    fitting = [
        other
        for other in dataset.variables.values()
        if {y_dim, x_dim} <= set(other.dimensions) and other.ndim <= 3 and is_numeric(other)
        and all(dim in variable.dimensions or size == 1 for dim, size in zip(other.dimensions, other.shape, strict=True))
    ]  # fmt: skip
    fitting = sorted(_listed_first(fitting, variable), key=lambda other: other.ndim)
    kinds = {kind: other for other in reversed(fitting) if (kind := angle(other.name, attributes(other)))}
    return (kinds["latitude"], kinds["longitude"]) if len(kinds) == 2 else None


def listed(variable) -> list[str]:
    """Return the names in the `coordinates` attribute of a field."""
    return (text(variable, "coordinates") or "").split()


def _listed_first(others: list, variable) -> list:
    return sorted(others, key=lambda other: other.name not in listed(variable))
