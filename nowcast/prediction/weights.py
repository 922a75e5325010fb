"""The weights of grid cells in places: one cell for a gauge; for an area all that it touches, by their area in it.

Areas are compared in an equal-area projection of the sphere (Lambert's azimuthal one, about the middle of each).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from nowcast.errors import DataError
from nowcast.netcdf.places.earth import Earth, latitudes_longitudes, unit_vectors
from nowcast.prediction.areas import moved
from nowcast.prediction.gauges import Place

log = logging.getLogger(__name__)
AUTHALIC_KM = 6371.007  # radius of the sphere with the area of the earth
MOST_CELLS = 100_000  # largest number of cells whose outlines are in memory at once
LEAST_KNOWN = 0.5  # smallest known fraction of an area; the mean of less is not representative, and missing


@dataclass(frozen=True, eq=False)
class Weights:
    """The cells of places on one grid.

    cells: (cell,) numbers of the cells that any place needs, counted over rows and columns
    shares: (place, cell) fraction of the place's area in each of these cells
    areas_km2: (place,) NaN for gauges
    covered: (place,) fraction of each place that lies in the grid
    """

    places: tuple[Place, ...]
    cells: np.ndarray
    shares: csr_array
    areas_km2: np.ndarray
    covered: np.ndarray

    def mean(self, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean over each place's known cells, NaN if less than LEAST_KNOWN is known; and the known fraction.

        field: (y, x), NaN missing; returns: (place,) and (place,)
        """
        values = field.reshape(-1)[self.cells].astype(np.float64)
        is_known = np.isfinite(values)
        known = self.shares @ is_known.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self.shares @ np.where(is_known, values, 0)) / known
        return np.where(known >= LEAST_KNOWN, mean, np.nan), known

    def exceeding(self, field: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """Return the fraction of each place's known cells that reaches each threshold.

        field: (y, x) mm/h, NaN missing; returns: (threshold, place)
        """
        reached = (np.where(np.isnan(field), np.nan, field >= np.float32(level)) for level in thresholds)
        return np.array([self.mean(each)[0] for each in reached]).reshape(len(thresholds), len(self.places))


def weigh(places: Sequence[Place], earth: Earth, name: str) -> Weights:
    """Return the weights of cells for places on the grid of a record or forecast; name: for messages.

    Logs a warning for each place that lies outside of the grid, in part or as a whole. Raises DataError (exit 3) if all do.
    """
    by_place = [_cells_of(place, earth) for place in places]
    numbers = [cells for cells, _, _ in by_place]
    used, columns = np.unique(np.concatenate(numbers), return_inverse=True)
    rows = np.repeat(np.arange(len(places)), [len(cells) for cells in numbers])
    shares = csr_array(
        (np.concatenate([shares_of_place for _, shares_of_place, _ in by_place]), (rows, columns)),
        shape=(len(places), len(used)),
    )
    covered = np.array([min(float(shares_of_place.sum()), 1.0) for _, shares_of_place, _ in by_place])
    _report(places, covered, by_place, earth, name)
    return Weights(tuple(places), used, shares, np.array([area for _, _, area in by_place]), covered)


def _cells_of(place: Place, earth: Earth) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the numbers of a place's cells (cell,), the fraction of the place in each (cell,), and its area, km²."""
    if place.area is not None:
        return _cells_of_area(place, earth)
    row, column = (float(at) for at in earth.positions(np.float64(place.latitude), np.float64(place.longitude)))
    inside = -0.5 <= row < earth.shape[0] - 0.5 and -0.5 <= column < earth.shape[1] - 0.5
    cell = int(np.floor(row + 0.5)) * earth.shape[1] + int(np.floor(column + 0.5)) if inside else 0
    return np.array([cell] * inside, np.int64), np.ones(int(inside)), np.nan


def _cells_of_area(place: Place, earth: Earth) -> tuple[np.ndarray, np.ndarray, float]:
    import shapely

    longitudes, latitudes = shapely.get_coordinates(place.area).T
    to_plane = _equal_area(latitudes, longitudes)
    area = moved(place.area, lambda points: to_plane(points[:, 1], points[:, 0]))
    shapely.prepare(area)
    rows, columns = _window(earth, latitudes, longitudes)
    numbers, sizes = [], []
    for top in range(rows.start, rows.stop, step := max(MOST_CELLS // max(len(columns), 1), 1)):
        block = range(top, min(top + step, rows.stop))
        outlines = shapely.polygons(_outlines(earth, block, columns, to_plane))
        touched = np.flatnonzero(shapely.intersects(area, outlines))
        within = shapely.contains_properly(area, outlines[touched])
        shares_of_place = shapely.area(outlines[touched])
        shares_of_place[~within] = shapely.area(shapely.intersection(area, outlines[touched[~within]]))
        numbers.append((block.start + touched // len(columns)) * earth.shape[1] + columns.start + touched % len(columns))
        sizes.append(shares_of_place)
    whole = shapely.area(area)
    number, size = (np.concatenate(parts) if parts else np.zeros(0) for parts in (numbers, sizes))
    return number[size > 0].astype(np.int64), size[size > 0] / whole, float(whole)


def _equal_area(latitudes: np.ndarray, longitudes: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return Lambert's azimuthal equal-area projection about the middle of points: (point,) degrees -> (point, 2) km."""
    middle = unit_vectors(latitudes, longitudes).mean(axis=1)
    lat, lon = latitudes_longitudes(middle)
    middle = unit_vectors(lat, lon)
    east, north = unit_vectors(0.0, lon + 90), unit_vectors(lat + 90, lon)

    def to_plane(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        vectors = unit_vectors(latitudes, longitudes)
        factor = AUTHALIC_KM * np.sqrt(2 / np.maximum(1 + np.tensordot(middle, vectors, 1), 1e-9))
        return np.stack([factor * np.tensordot(axis, vectors, 1) for axis in (east, north)], axis=-1)

    return to_plane


def _window(earth: Earth, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[range, range]:
    """Return the ranges of rows and columns that an outline (point,) may touch; all if some points cannot be projected."""
    ranges = []
    for positions, size in zip(earth.positions(latitudes, longitudes), earth.shape, strict=True):
        if not np.isfinite(positions).all():
            ranges.append(range(size))
            continue
        first, last = int(np.floor(positions.min() + 0.5)) - 1, int(np.floor(positions.max() + 0.5)) + 1
        ranges.append(range(min(max(first, 0), size), min(max(last + 1, 0), size)))
    return ranges[0], ranges[1]


def _outlines(earth: Earth, rows: range, columns: range, to_plane: Callable) -> np.ndarray:
    """Return the outlines of cells in the plane, (cell, 5, 2) km, closed."""
    edges = np.meshgrid(
        np.arange(rows.start, rows.stop + 1) - 0.5, np.arange(columns.start, columns.stop + 1) - 0.5, indexing="ij"
    )
    points = to_plane(*earth.degrees(*edges))
    corners = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1], points[:-1, :-1]
    return np.stack(corners, axis=2).reshape(-1, 5, 2)


def _report(places: Sequence[Place], covered: np.ndarray, by_place: Sequence[tuple], earth: Earth, name: str) -> None:
    """Log the sizes of areas, and warn of places outside of the grid. Raises DataError (exit 3) if all are."""
    if not covered.any():
        corners = "; ".join(f"{latitude:.4g},{longitude:.4g}" for latitude, longitude in earth.corners)
        others = (Place(place.name, place.longitude, place.latitude) for place in places if abs(place.longitude) <= 90)
        is_swapped = any(len(_cells_of(other, earth)[0]) for other in others)
        hint = " Latitude and longitude seem to be swapped: write LAT,LON." if is_swapped else ""
        raise DataError(f"no place lies in the grid of {name}.{hint}\nIts corners are (latitude,longitude) {corners}.")
    for place, share, (cells, _, area) in zip(places, covered, by_place, strict=True):
        if place.area is not None:
            size = f"{area:.4g}" if area < 1000 else f"{area:,.0f}"  # without an exponent
            log.info('"%s": %s km², %s cells of %s, %.3g %% of it in the grid',
                     place.name, size, f"{len(cells):,}", name, 100 * share)  # fmt: skip
        if share == 0:
            log.warning('"%s" lies outside of %s: its values are missing', place.name, name)
        elif share < 0.995:
            rest = "means are over that part" if share >= LEAST_KNOWN else "less than half, so its values are missing"
            log.warning('"%s": only %.3g %% of it lies in the grid of %s; %s', place.name, 100 * share, name, rest)
