"""Draw frames of a record or a forecast, perhaps beside the observation: panels (PNG, SVG, PDF) or an animation (GIF, MP4).

Frames are read one at a time, cut to the area with data and averaged to fewer cells, so that memory does not grow with them.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nowcast.evaluation.coarsen import block_means, block_size, in_equal_steps, known_window
from nowcast.motion import motion
from nowcast.netcdf.places.locating import Locator
from nowcast.quantity import Quantity
from nowcast.report.maps import MapGrid, colour_scale, extended, ground_aspect, png
from nowcast.report.pictures.animation import gif, mp4
from nowcast.report.pictures.overlay import ARROWS, Stroke, Window, arrows, earth

log = logging.getLogger(__name__)
PANELS, ANIMATIONS = (".png", ".svg", ".pdf"), (".gif", ".mp4")
MOST_PANELS, MOST_FRAMES = 12, 120  # of a picture and of an animation; of more frames, one of every n is drawn
MOST_TIMES = 4  # of a picture of more than two sides, such as members
PANEL_INCHES, LARGEST_INCHES, ROW_INCHES = 2.7, 6.0, 11.0  # width of a panel: at least, at most; of a row of fewer panels
CELLS_PER_INCH = 110  # of the longer side of a map; larger grids are averaged in blocks
DRAWING_DPI = 220  # of the pixels of maps in SVG and PDF
MOTION_FRAMES = 3  # earlier frames that the motion is estimated from
ARROW_MINUTES = (5, 10, 15, 20, 30, 60, 120, 180)  # what arrows can show the way of
TYPICAL_SPEED = 1.3  # km per minute: an arrow of rain that moves so fast is as long as arrows are apart


@dataclass(frozen=True)
class Series:
    """The frames of one side of a picture: `read(n)` returns frame n (y, x), row 0 northernmost, NaN missing.

    steady: the first frame from which frames up to n follow one another in even steps, for each n
    """

    name: str
    read: Callable[[int], np.ndarray]
    steady: Sequence[int]


@dataclass(frozen=True)
class Frames:
    """The frames to draw, and the text beside them.

    labels: the time of each frame
    label: beside the colour scale
    spacing_km: (dy, dx) of the cells, NaN if unknown
    minutes: between frames, NaN if unknown
    """

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    quantity: Quantity
    label: str
    spacing_km: tuple[float, float]
    shape: tuple[int, int]
    locator: Locator | None = None
    minutes: float = math.nan
    is_forecast: bool = False


def draw(frames: Frames, path: Path, suffix: str, *, with_motion: bool = False) -> None:
    """Draw frames to a file of the kind that the suffix names. Raises OutputError (exit 5) if ffmpeg fails."""
    if suffix in PANELS:
        path.write_bytes(_panels(frames, suffix, with_motion))
    else:
        _animation(frames, path, suffix, with_motion)


class _Canvas:
    """The chosen frames, cut to the area with data and averaged, with arrows where asked for."""

    def __init__(self, frames: Frames, most: int, with_motion: bool):
        self.frames, self.with_motion = frames, with_motion
        self.chosen = _choose(frames, most)
        rows, columns = known_window(each.read(n) for each in frames.series for n in self.chosen)
        self.part = rows, columns
        self.size = rows.stop - rows.start, columns.stop - columns.start
        self.extent_km = self.size[0] * frames.spacing_km[0], self.size[1] * frames.spacing_km[1]
        self.aspect = ground_aspect(self.size, self.extent_km)
        self.block, self.window = 1, Window(0, 0, 1, 1)

    def field(self, series: Series, n: int) -> np.ndarray:
        """Return the field of a frame for display, (y, x)."""
        return block_means(series.read(n)[self.part], self.block)

    def arrows(self, series: Series, n: int) -> list[Stroke]:
        """Return the arrows of a frame: the motion over the frames before it, of a first frame that over the next ones."""
        if not self.with_motion:
            return []
        first = max(series.steady[n], n - MOTION_FRAMES)
        used = range(first, n + 1)
        if len(used) < 2:
            used = [m for m in range(n, min(n + MOTION_FRAMES, len(series.steady))) if series.steady[m] <= n]
        if len(used) < 2:
            return []
        past = np.stack([self.field(series, m) for m in used])
        _, norm = colour_scale(self.frames.quantity)
        lowest = getattr(norm, "boundaries", [1e-6])[0]  # what is not white
        wet = np.nan_to_num(past[-1 if used[-1] == n else 0]) >= lowest
        block = Window(0, 0, self.window.height // self.block, self.window.width // self.block)
        return arrows(motion(past), wet, block, frames=self._minutes() / self.frames.minutes)

    def _minutes(self) -> float:
        """Return the minutes whose way the arrows show; NaN if the size of the cells is unknown."""
        apart = max(self.extent_km) / ARROWS / TYPICAL_SPEED
        if not math.isfinite(apart * self.frames.minutes):
            return math.nan
        return max((m for m in ARROW_MINUTES if m <= apart), default=ARROW_MINUTES[0])

    def title(self) -> str:
        """Return the title, with what the pictures show differently from the file."""
        remarks = ["grey: missing"]
        if self.block > 1:
            remarks.append(f"pixels are means of {self.block} × {self.block} cells")
        if self.size != tuple(self.frames.shape):
            remarks.append("cut to the observed area")
        if self.with_motion:
            minutes = self._minutes()
            remarks.append(f"arrows: the way in {minutes:g} min" if math.isfinite(minutes) else "arrows: direction of motion")
        return f"{self.frames.title}\n({'; '.join(remarks)})"

    def grid(self, rows: int, columns: int, width: float, **options) -> MapGrid:
        """Return an empty picture of maps of this area, `width` inches wide, with its scales."""
        self.block = block_size(self.size, round(width * max(self.aspect, 1) * CELLS_PER_INCH))
        across = (math.ceil(n / self.block) * self.block for n in self.size)
        self.window = Window(self.part[0].start, self.part[1].start, *across)
        lines = earth(self.frames.locator, self.window)
        grid = MapGrid(rows, columns, self.aspect, width=width, title=self.title(), above=0.22, earth=lines, **options)
        grid.draw_distance(self.extent_km[1])
        quantity = self.frames.quantity
        grid.scale(colour_scale(quantity), self.frames.label, extend=extended(quantity))
        return grid

    def paste(self, grid: MapGrid, row: int, column: int, series: Series, n: int) -> None:
        """Draw frame n of a series."""
        grid.paste(row, column, self.field(series, n), colour_scale(self.frames.quantity), self.arrows(series, n))


def _choose(frames: Frames, most: int) -> list[int]:
    chosen, count = in_equal_steps(len(frames.labels), most), len(frames.labels)
    if len(chosen) < count:
        fewer = "" if frames.is_forecast else "; choose fewer by --start and --end"  # a forecast has no such options
        log.info("drawing %d of %d frames, one of every %d%s", len(chosen), count, math.ceil(count / most), fewer)
    return chosen


def _panels(frames: Frames, suffix: str, with_motion: bool) -> bytes:
    """Return panels of the frames; with an observation, the frames of both sides below one another.

    More than two sides have a row each; of a single time they follow one another.
    """
    sides = len(frames.series)
    canvas = _Canvas(frames, MOST_PANELS if sides <= 2 else MOST_TIMES, with_motion)
    count = len(canvas.chosen)
    wanted = math.sqrt(sides * count * max(canvas.aspect, 0.5) * 1.3)
    if one_time := count == 1 and sides > 2:
        columns = _columns(sides, wanted)
        places = [(*divmod(side, columns), side, canvas.chosen[0]) for side in range(sides)]
    else:
        columns = _columns(count, wanted) if sides <= 2 else count
        places = [
            (sides * (m // columns) + side, m % columns, side, n) for m, n in enumerate(canvas.chosen) for side in range(sides)
        ]
    rows = 1 + max(row for row, *_ in places)
    options = {"dpi": DRAWING_DPI, "is_drawing": True} if suffix != ".png" else {}
    width = min(max(ROW_INCHES / columns, PANEL_INCHES), LARGEST_INCHES / max(canvas.aspect, 1))
    grid = canvas.grid(rows, columns, max(width, PANEL_INCHES), **options)
    for row, column, side, n in places:
        series = frames.series[side]
        canvas.paste(grid, row, column, series, n)
        grid.label(row, column, f"{series.name}, {frames.labels[n]}" if one_time else frames.labels[n])
        if sides > 1 and not column and not one_time:
            grid.label_row(row, series.name)
    return png(grid.pixels()) if suffix == ".png" else grid.drawing(suffix[1:])


def _columns(count: int, wanted: float) -> int:
    """Return the number of columns for panels, near the wanted one, that leaves few places empty."""
    near = range(max(round(0.75 * wanted), 1), min(round(1.35 * wanted), count) + 1)
    return min(near or [min(count, max(round(wanted), 1))], key=lambda n: (-count % n, abs(n - wanted)))


def _animation(frames: Frames, path: Path, suffix: str, with_motion: bool) -> None:
    """Write an animation of the frames, both sides beside one another."""
    canvas = _Canvas(frames, MOST_FRAMES, with_motion)
    sides = len(frames.series)
    grid = canvas.grid(1, sides, LARGEST_INCHES / max(canvas.aspect, 1) * min(2 / sides, 1))
    labels = [grid.label(0, column, "") for column in range(sides)]

    def show(position: int) -> None:
        n = canvas.chosen[position]
        for column, (series, label) in enumerate(zip(frames.series, labels, strict=True)):
            canvas.paste(grid, 0, column, series, n)
            label.set_text(f"{series.name}, {frames.labels[n]}" if len(labels) > 1 else frames.labels[n])

    write = partial(mp4, path) if suffix == ".mp4" else lambda *given: path.write_bytes(gif(*given, frames.quantity))
    write(grid, show, len(canvas.chosen))
