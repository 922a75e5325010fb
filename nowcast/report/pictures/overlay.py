"""Lines that say where a map lies: coast, lakes, borders, state lines and a graticule, and arrows of motion.

Lines are strokes in shares of a map's width, from the left, and height, from the top, so that any size can be drawn.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from nowcast.netcdf.places.locating import Locator
from nowcast.report.pictures.lines import KINDS, lines

WINDOW_POINTS = 25  # rows, and columns, at which the latitudes and longitudes of a map are found
LINE_POINTS = 60  # of a parallel or a meridian
GRATICULE_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)  # degrees
FEWEST_LINES = 3  # parallels, or meridians, of which a map has at least so many if it can
MARGIN = 0.6  # degrees around a map: as far as two points of a line are apart
FINER = 3  # pixels drawn for each pixel of a map, so that lines are smooth
ARROWS = 12  # arrows along the longer side of a map
ARROW_HEAD = 0.35  # length of an arrow's head, share of the arrow
SHORTEST_ARROW = 0.05  # share of the distance between arrows; what is shorter is not drawn
COLOURS = {"graticule": "#9a9a9a", "states": "#8c8c8c", "borders": "#4d4d4d", "lakes": "#303030", "coast": "#303030"}
HALO, HALO_WIDTH = "#ffffff", 0.8  # points: of a light line under each dark one, so that it is seen on dark colours
SMALLEST = {"states": 0.0, "borders": 0.0, "lakes": 0.03, "coast": 0.01}  # share of the map; smaller lines are left out
WIDTHS = {"graticule": 0.35, "states": 0.5, "borders": 0.8, "lakes": 0.6, "coast": 0.9}  # points


@dataclass(frozen=True)
class Window:
    """The part of a grid that a map shows, in cells: from row `top` and column `left` on, `height` × `width`.

    With blocks, height and width are those of whole blocks, also where the last one lies partly beyond the grid.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Stroke:
    """A line on a map: points (point, 2) in shares of width and height, colour, width in points."""

    points: np.ndarray
    colour: str
    width: float


@dataclass(frozen=True)
class Earth:
    """What is drawn over every map of a window: strokes, and labels (x, y, text) at its right and upper edges."""

    strokes: Sequence[Stroke]
    labels: Sequence[tuple[float, float, str]]


def earth(locator: Locator | None, window: Window) -> Earth | None:
    """Return the lines and labels of a map; None where its place on earth is unknown."""
    if locator is None:
        return None
    box = _box(locator, window)
    if box is None:
        return None
    graticule = [(kind, value, _projected(locator, window, *points)) for kind, value, points in _graticule(*box)]
    strokes = [_stroke("graticule", points) for *_, line in graticule for points in line]
    pieces = {kind: _world(kind, locator, window, *box) for kind in KINDS[::-1]}
    strokes += [Stroke(points, HALO, WIDTHS[kind] + HALO_WIDTH) for kind in pieces for points in pieces[kind]]
    strokes += [_stroke(kind, points) for kind in pieces for points in pieces[kind]]
    return Earth(strokes, list(_labels(graticule)))


def _stroke(kind: str, points: np.ndarray) -> Stroke:
    return Stroke(points, COLOURS[kind], WIDTHS[kind])


def _box(locator: Locator, window: Window) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return (south, north) and (west, east) of a window in degrees, east perhaps beyond 180; None off the earth."""
    rows, columns = np.meshgrid(
        window.top + np.linspace(-0.5, window.height - 0.5, WINDOW_POINTS),
        window.left + np.linspace(-0.5, window.width - 0.5, WINDOW_POINTS),
        indexing="ij",
    )
    latitude, longitude = locator.degrees(rows.ravel(), columns.ravel())
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return None
    middle = longitude[known][known.sum() // 2]
    turned = middle + (longitude[known] - middle + 180) % 360 - 180
    return (float(latitude[known].min()), float(latitude[known].max())), (float(turned.min()), float(turned.max()))


def _projected(locator: Locator, window: Window, latitude: np.ndarray, longitude: np.ndarray) -> list[np.ndarray]:
    """Return the pieces (point, 2) of a line in shares of a window, without what lies far beyond it."""
    row, column = locator.cells(latitude, longitude)
    points = np.stack([(column + 0.5 - window.left) / window.width, (row + 0.5 - window.top) / window.height], axis=-1)
    with np.errstate(invalid="ignore"):
        is_near = (np.abs(points - 0.5) < 1.5).all(axis=-1)
    return _pieces(points, is_near, np.zeros(len(points), bool))


def _pieces(points: np.ndarray, kept: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """Cut points (point, 2) where some are not kept and where lines start; pieces of a single point are left out."""
    positions = np.flatnonzero(kept)
    cuts = np.flatnonzero((np.diff(positions) > 1) | starts[positions[1:]]) + 1
    return [piece for piece in np.split(points[positions], cuts) if len(piece) > 1]


def _world(
    kind: str, locator: Locator, window: Window, south_north: tuple[float, float], west_east: tuple[float, float]
) -> list[np.ndarray]:
    """Return the lines of the world of a kind that a window shows, as pieces (point, 2) in shares of it."""
    every = lines(kind)
    (south, north), (west, east) = south_north, west_east
    middle, half = (west + east) / 2, (east - west) / 2
    inside = (every.latitude > south - MARGIN) & (every.latitude < north + MARGIN)
    inside &= np.abs((every.longitude - middle + 180) % 360 - 180) < half + MARGIN / max(math.cos(math.radians(north)), 0.1)
    chosen = np.flatnonzero(inside)
    if not len(chosen):
        return []
    row, column = locator.cells(every.latitude[chosen], every.longitude[chosen])
    points = np.full((len(inside), 2), np.nan)
    points[chosen] = np.stack([(column + 0.5 - window.left) / window.width, (row + 0.5 - window.top) / window.height], axis=-1)
    with np.errstate(invalid="ignore"):
        inside &= (np.abs(points - 0.5) < 2).all(axis=-1)
    return [piece for piece in _pieces(points, inside, every.starts) if _is_seen(piece, SMALLEST[kind])]


def _is_seen(piece: np.ndarray, smallest: float) -> bool:
    """Return whether a piece (point, 2) may cross the map, as its frame does, and is not too small to be seen."""
    first, last = piece.min(axis=0), piece.max(axis=0)
    return bool((last > 0).all() and (first < 1).all() and (last - first).max() >= smallest)


def _graticule(
    south_north: tuple[float, float], west_east: tuple[float, float]
) -> Iterator[tuple[str, float, tuple[np.ndarray, np.ndarray]]]:
    """Yield "parallel" or "meridian", its degrees, and latitudes and longitudes (point,) along it."""
    (south, north), (west, east) = south_north, west_east
    along_meridian = np.linspace(max(south - MARGIN, -90), min(north + MARGIN, 90), LINE_POINTS)
    along_parallel = np.linspace(west - 2 * MARGIN, min(east + 2 * MARGIN, west + 360), LINE_POINTS)
    for latitude in _round_numbers(south, north):
        yield "parallel", latitude, (np.full(LINE_POINTS, latitude), along_parallel)
    for longitude in _round_numbers(west, east):
        yield "meridian", (longitude + 180) % 360 - 180, (along_meridian, np.full(LINE_POINTS, longitude))


def _round_numbers(first: float, last: float) -> list[float]:
    """Return round numbers between two, the fewest that are FEWEST_LINES or more."""
    fitting = [step for step in GRATICULE_STEPS if math.floor(last / step) - math.ceil(first / step) + 1 >= FEWEST_LINES]
    step = max(fitting, default=GRATICULE_STEPS[0])
    return [round(n * step, 3) for n in range(math.ceil(first / step), math.floor(last / step) + 1)]


def _labels(graticule: Sequence[tuple[str, float, list[np.ndarray]]]) -> Iterator[tuple[float, float, str]]:
    """Yield a label where a parallel crosses the right edge of a map, and where a meridian crosses the upper one."""
    for kind, value, pieces in graticule:
        for piece in pieces:
            across, along = (piece[:, 0] - 1, piece[:, 1]) if kind == "parallel" else (piece[:, 1], piece[:, 0])
            crossings = np.flatnonzero(across[:-1] * across[1:] <= 0)
            if not len(crossings):
                continue
            n, beyond = crossings[0], across[crossings[0]] - across[crossings[0] + 1]
            place = along[n] + (along[n + 1] - along[n]) * (across[n] / beyond if beyond else 0)
            if 0.07 < place < 0.93:
                yield (1.0, place, _angle(value, "NS")) if kind == "parallel" else (place, 0.0, _angle(value, "EW"))


def _angle(value: float, sides: str) -> str:
    return f"{abs(value):g}°{sides[value < 0] if value else ''}"


def arrows(motion: np.ndarray, known: np.ndarray, window: Window, *, frames: float) -> list[Stroke]:
    """Return arrows of the motion, evenly spaced where `known`, as long as the way in this number of frames.

    motion: (2, y, x) cells per frame, (y, x) order
    known: (y, x), where there is something to move
    frames: NaN for arrows of which the longest are as long as they are apart
    """
    spacing = max(max(known.shape) / ARROWS, 2)
    rows, columns = (np.arange(spacing / 2, size, spacing).astype(int) for size in known.shape)
    if not known.any():
        return []
    if not math.isfinite(frames):
        fastest = float(np.percentile(np.hypot(*motion)[known], 95))
        frames = 0.9 * spacing / max(fastest, 1e-6)
    strokes = []
    for row in rows:
        for column in columns:
            dy, dx = motion[:, row, column] * frames
            if known[row, column] and math.hypot(dy, dx) > SHORTEST_ARROW * spacing:
                strokes += _arrow(np.array([column + 0.5, row + 0.5]), np.array([dx, dy]), window)
    return strokes


def _arrow(start: np.ndarray, way: np.ndarray, window: Window) -> list[Stroke]:
    """Return an arrow from (x, y) along a way (x, y), cells: a white outline, a line and a head."""
    back = -ARROW_HEAD * way
    left, right = np.array([back[0] - back[1], back[0] + back[1]]), np.array([back[0] + back[1], back[1] - back[0]])
    tip = start + way
    points = np.array([start, tip, tip + left * 0.8, tip, tip + right * 0.8]) / (window.width, window.height)
    return [Stroke(points, "#ffffff", 2.0), Stroke(points, "#000000", 0.9)]


def drawn_over(strokes: Sequence[Stroke], shape: tuple[int, int], dpi: float) -> np.ndarray:
    """Draw strokes on a transparent picture: (y, x, RGBA) uint8, smooth."""
    height, width = shape
    image = Image.new("RGBA", (width * FINER, height * FINER), (128, 128, 128, 0))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        colour = tuple(round(255 * part) for part in to_rgb(stroke.colour))
        points = (stroke.points * (width * FINER, height * FINER)).ravel().tolist()
        pen.line(points, fill=(*colour, 255), width=max(round(stroke.width * dpi / 72 * FINER), 1), joint="curve")
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
