"""Read two-dimensional latitude and longitude at a few cells, to find the orientation of a grid and to compare grids."""

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import attributes
from nowcast.netcdf.places.axes import horizontal, is_declared, over_grid
from nowcast.netcdf.places.coordinates import check_latitudes, numbers
from nowcast.netcdf.places.edges import find_corners, middles

SAMPLES = 6  # rows and columns that are read; an even number, so that they are the same counted from either end
_CLEAR = 2.0  # smallest ratio of the change of latitude along y to that along x for y to be certain
LARGEST = 540.0  # degrees; a larger number is a fill value
_MOVED = 0.01  # degrees that a grid may move in the course of a file


def sampled(size: int) -> np.ndarray:
    """Return the positions (sample,) of the rows or columns to read: the first, the last, and four evenly spaced between.

    They are symmetric, so that grids with opposite directions of rows are compared at the same cells.
    """
    return np.unique(np.round(np.linspace(0, size - 1, SAMPLES)).astype(int))


def rows_and_columns(dataset, variable, where: str) -> tuple[str, str] | None:
    """Return the dimensions (y, x) of a field as `horizontal`; latitudes overrule an order known only by names.

    Raises DataError (exit 3) for a grid that moves.
    """
    dims = horizontal(dataset, variable)
    if dims is None or is_declared(dataset, variable, dims):
        return dims
    degrees = read_degrees(dataset, variable, *dims, where)
    if degrees is None or min(degrees.shape) < 2:
        return dims
    (lat_y, lat_x), (lon_y, lon_x) = (
        [np.abs(np.diff(np.unwrap(angles, period=360, axis=axis), axis=axis)).mean() for axis in (0, 1)] for angles in degrees
    )
    return dims[::-1] if lat_x > _CLEAR * lat_y and lon_y > _CLEAR * lon_x else dims


def read_degrees(dataset, variable, y_dim: str, x_dim: str, where: str) -> np.ndarray | None:
    """Return latitude and longitude (2, y, x) in degrees at sampled rows and columns of a field; None if the file has none.

    If the file has only those of corners, they are interpolated. Missing ones are taken from a plane fitted to the others.
    Those that are the same in all rows or in all columns, such as zeros that were never written, count as none.
    Raises DataError (exit 3) if they change with time, or for latitudes beyond the poles.
    """
    sizes = [len(dataset.dimensions[dim]) for dim in (y_dim, x_dim)]
    both = None if 0 in sizes else over_grid(dataset, variable, y_dim, x_dim)
    if both is None and (corners := find_corners(dataset, variable, y_dim, x_dim)):
        return np.stack([middles(each)[np.ix_(*map(sampled, sizes))] for each in corners])
    if both is None:
        return None
    degrees = np.stack([_read(coordinate, y_dim, x_dim, where) for coordinate in both])
    if not np.isfinite(degrees).all():
        return None
    check_latitudes(degrees[0], f"{where}: {both[0].name}")
    is_map = all(size < 2 or np.ptp(degrees, axis=1 + axis).any() for axis, size in enumerate(degrees.shape[1:]))
    return degrees if is_map else None


def _read(coordinate, y_dim: str, x_dim: str, where: str) -> np.ndarray:
    """Return the values (y, x) of a coordinate at sampled rows and columns."""
    sizes = dict(zip(coordinate.dimensions, coordinate.shape, strict=True))
    chosen = {dim: sampled(sizes[dim]) for dim in coordinate.dimensions if dim in (y_dim, x_dim)}
    values = _at(coordinate, chosen, 0)
    others = [size for dim, size in sizes.items() if dim not in chosen]
    if others and not np.allclose(_at(coordinate, chosen, others[0] - 1), values, rtol=0, atol=_MOVED, equal_nan=True):
        raise DataError(f"{where}: {coordinate.name} changes with time.\nExpected a grid that stays where it is.")
    if np.isnan(values).any():
        values = _plane(_at(coordinate, {dim: np.arange(sizes[dim]) for dim in chosen}, 0), *chosen.values())
    return values if list(chosen) == [y_dim, x_dim] else values.T


def _at(coordinate, chosen: dict[str, np.ndarray], other: int) -> np.ndarray:
    """Return the values at these rows and columns, in the order of the file's dimensions; at index `other` of a third one."""
    index = tuple(chosen.get(dim, other) for dim in coordinate.dimensions)
    values = numbers(attributes(coordinate), coordinate[index])
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def _plane(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the plane of least squares through the known values at these positions of both axes; NaN if too few are known.

    values: (y, x); first: (y,); second: (x,); returns: (y, x)
    """
    known = np.argwhere(np.isfinite(values))
    if len(known) < 3:
        return np.full((len(first), len(second)), np.nan)
    angles = values[tuple(known.T)]
    angles = (angles - angles[0] + 180) % 360 - 180 + angles[0]
    terms, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(known)), known]), angles, rcond=None)
    return terms[0] + terms[1] * first[:, None] + terms[2] * second
