"""Compute cell centres in files that state only cell edges or corners: n + 1 values instead of n.

Forms: `lat_edges(lat_edge)` with one value more than rows; `lat_b(y_b, x_b)`, the corners of the grid; `lat_vertices(y, x, 4)`,
the corners of each cell.
"""

import re

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes, is_numeric
from nowcast.netcdf.places.axes import angle, axis_of_name, declared_axis
from nowcast.netcdf.places.coordinates import MAX_COORDINATE, Coordinate, check_even, in_degrees, numbers, read_coordinate
from nowcast.netcdf.places.mapping import cell_centres, find_mapping

_EDGES = re.compile(r"_?(edges?|bounds?|bnds?|borders?|corners?|vertices|vertex|interfaces?|stag(gered)?|b)$", re.IGNORECASE)
_KEPT = ("standard_name", "units", "axis")  # attributes of edges that hold for the middles too
_NUM_CORNERS = 4


def middle_name(name: str) -> str:
    """Return the name of cell centres from that of their edges: lat from lat_edges."""
    return _EDGES.sub("", name) or name


def is_corners(other, dims: tuple[str, str], sizes: tuple[int, int], of_field: tuple[str, ...]) -> bool:
    """Return whether a variable is over the corners of a grid with these (y, x) dimensions and sizes, or of each cell.

    of_field: the dimensions of the field
    """
    if not is_numeric(other) or other.size > MAX_COORDINATE or angle(middle_name(other.name), attributes(other)) is None:
        return False
    if other.dimensions[:2] == dims and other.ndim == 3:
        return other.shape[2] == _NUM_CORNERS and other.dimensions[2] not in of_field
    return other.shape == (sizes[0] + 1, sizes[1] + 1) and not set(other.dimensions) & set(of_field)


def find_corners(dataset, variable, y_dim: str, x_dim: str) -> tuple | None:
    """Return the variables of latitude and longitude at the corners of cells; None if the file lacks either."""
    sizes = len(dataset.dimensions[y_dim]), len(dataset.dimensions[x_dim])
    found = {
        angle(middle_name(other.name), attributes(other)): other
        for other in dataset.variables.values()
        if is_corners(other, (y_dim, x_dim), sizes, variable.dimensions)
    }
    return (found["latitude"], found["longitude"]) if len(found) == 2 else None


def middles(corners) -> np.ndarray:
    """Return cell centres (y, x), degrees, from corners: (y + 1, x + 1) of the grid, or (y, x, 4) of each cell."""
    values = numbers(attributes(corners), corners[...])
    if values.ndim == 3:
        return np.unwrap(values, period=360, axis=2).mean(axis=2)
    for axis in (0, 1):
        values = np.unwrap(values, period=360, axis=axis)
    return (values[1:, 1:] + values[1:, :-1] + values[:-1, 1:] + values[:-1, :-1]) / 4


def coordinate_of(dataset, variable, dim: str, axis: str, where: str) -> Coordinate:
    """Read the coordinate of a dimension that is the axis Y or X; compute it from the cell edges if only these are stated.

    Raises DataError (exit 3) as `read_coordinate`.
    """
    coordinate = read_coordinate(dataset, variable, dim, axis, where)
    if coordinate.is_measured:
        return coordinate
    edges = [found for other in dataset.variables.values() if (found := _edges(dataset, other, variable, dim, axis))]
    if len(edges) != 1:
        return _of_transform(dataset, variable, dim, axis) or coordinate
    if not np.isfinite(edges[0].values).all():
        raise DataError(f"{where}: the edges of {edges[0].name} have missing values.\nExpected a number for every edge.")
    middle = (edges[0].unwrapped[1:] + edges[0].unwrapped[:-1]) / 2
    coordinate = Coordinate(edges[0].name, middle, edges[0].attributes)
    check_even(coordinate, where)
    return coordinate


def _of_transform(dataset, variable, dim: str, axis: str) -> Coordinate | None:
    """Return the coordinate of a dimension that GDAL's GeoTransform states; None without."""
    mapping = find_mapping(dataset, variable, (dim, dim))
    found = None if mapping is None else cell_centres(mapping, axis, len(dataset.dimensions[dim]))
    return None if found is None else Coordinate(dim, *found)


def _edges(dataset, other, variable, dim: str, axis: str) -> Coordinate | None:
    """Return a variable as the cell edges of a dimension; None if it is something else."""
    num_edges = len(dataset.dimensions[dim]) + 1
    if other.shape != (num_edges,) or other.dimensions[0] in variable.dimensions or not is_numeric(other):
        return None
    name, declared = middle_name(other.name), attributes(other)
    kept = {key: value for key, value in in_degrees(name, declared).items() if key in _KEPT}
    edges = Coordinate(name, numbers(declared, other[:]), kept)
    is_own = (declared_axis(name, declared) or axis_of_name(name)) == axis
    return edges if is_own and edges.is_measured else None
