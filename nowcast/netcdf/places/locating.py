"""Convert between latitude, longitude and rows, columns of a grid, accurately enough to draw coast lines.

Uses two-dimensional latitude and longitude at a few cells; else the coordinates (earth.py), with pyproj for map projections.
Without either the location of a grid is unknown.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nowcast.errors import DataError, UsageError
from nowcast.netcdf.places.degrees import sampled
from nowcast.netcdf.places.earth import locate as locate_exactly
from nowcast.netcdf.places.earth import wrapped
from nowcast.netcdf.places.grid import Grid

log = logging.getLogger(__name__)
_FITTED = 0.005  # largest error of the fitted polynomials, relative to the size of the grid, for lines to be drawn
_DEGREE = 3  # of the polynomials of that map
Function = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Locator:
    """The location of a grid on the earth. Row 0 is the northernmost, column 0 the westernmost, as in the fields of a record.

    shape: rows and columns
    cells: a function from latitude and longitude, degrees, to row and column, each (point,); NaN or far off elsewhere
    degrees: its inverse
    """

    shape: tuple[int, int]
    cells: Function
    degrees: Function


def locate(grid: Grid) -> Locator | None:
    """Return the location of a grid on the earth; None if it is unknown, or needs pyproj and that is not installed."""
    if min(grid.shape) < 2:
        return None
    if grid.degrees is not None and min(grid.degrees.shape[1:]) > _DEGREE:
        found = _by_samples(grid)
        if found is not None:
            return found
    return _by_coordinates(grid)


def _by_coordinates(grid: Grid) -> Locator | None:
    """Return the location of a grid by its coordinates; None without pyproj, or for a projection that pyproj does not know."""
    try:
        earth = locate_exactly(grid, "the grid")
    except UsageError:
        log.info("no coast and borders are drawn: that takes pyproj (pip install -e '.[pictures]')")
        return None
    except DataError:
        if grid.mapping_attributes:
            log.info("no coast and borders are drawn: the map projection of the file is not understood")
        return None
    return Locator(grid.shape, earth.positions, earth.degrees)


def _by_samples(grid: Grid) -> Locator | None:
    """Return the location of a grid by its sampled latitudes and longitudes; None if they do not vary smoothly.

    Fits polynomials between rows, columns and a stereographic map centred near the middle of the grid.
    """
    rows, columns = np.meshgrid(*map(sampled, grid.shape), indexing="ij")  # the same from either end
    latitude, longitude = grid.places
    centre = latitude[2, 2], longitude[2, 2]
    size = max(grid.shape) / 2
    middle = [(n - 1) / 2 for n in grid.shape]
    near = [(each.ravel() - m) / size for each, m in zip((rows, columns), middle, strict=True)]
    north, east = _to_plane(latitude.ravel(), longitude.ravel(), centre)
    reach = float(np.hypot(north, east).max())
    if not reach > 0:
        return None
    to_cells = [np.linalg.lstsq(_powers(north / reach, east / reach), each, rcond=None)[0] for each in near]
    to_plane = [np.linalg.lstsq(_powers(*near), each / reach, rcond=None)[0] for each in (north, east)]

    def cells(lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = _to_plane(lat, lon, centre)
        powers = _powers(y / reach, x / reach)
        is_far = np.hypot(y, x) > 1.5 * reach  # where polynomials turn back
        row, column = (np.where(is_far, np.nan, powers @ fit * size + m) for fit, m in zip(to_cells, middle, strict=True))
        return row, column

    def degrees(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        powers = _powers((row - middle[0]) / size, (column - middle[1]) / size)
        return _from_plane(*(powers @ fit * reach for fit in to_plane), centre)

    found = cells(latitude.ravel(), longitude.ravel())
    off = max(np.abs(a - b.ravel()).max() for a, b in zip(found, (rows, columns), strict=True))
    return Locator(grid.shape, cells, degrees) if off <= max(_FITTED * 2 * size, 1) else None


def _powers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of powers of two variables up to the degree of the polynomials: (point, term)."""
    a, b = np.ravel(a), np.ravel(b)
    return np.stack([a**m * b**n for m in range(_DEGREE + 1) for n in range(_DEGREE + 1 - m)], axis=-1)


def _to_plane(latitude: np.ndarray, longitude: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Project degrees on a stereographic map of the unit sphere around a centre: (north, east). Snyder (1987), page 157."""
    phi, phi_0 = np.radians(latitude), math.radians(centre[0])
    east = np.radians(longitude - centre[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        k = 2 / (1 + np.sin(phi_0) * np.sin(phi) + np.cos(phi_0) * np.cos(phi) * np.cos(east))
        north = k * (np.cos(phi_0) * np.sin(phi) - np.sin(phi_0) * np.cos(phi) * np.cos(east))
        return north, k * np.cos(phi) * np.sin(east)


def _from_plane(north: np.ndarray, east: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return latitude and longitude, degrees, of points on the map of `_to_plane`."""
    distance, phi_0 = np.hypot(north, east), math.radians(centre[0])
    c = 2 * np.arctan(distance / 2)
    share = np.where(distance > 0, np.sin(c) / np.where(distance > 0, distance, 1), 1)
    latitude = np.degrees(np.arcsin(np.clip(np.cos(c) * np.sin(phi_0) + north * share * np.cos(phi_0), -1, 1)))
    longitude = np.arctan2(east * share, np.cos(phi_0) * np.cos(c) - north * share * np.sin(phi_0))
    return latitude, wrapped(centre[1] + np.degrees(longitude))
