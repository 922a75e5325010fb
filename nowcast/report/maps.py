"""Draw maps of rain rate: colour scales, grids of maps, PNG, SVG and PDF.

North is at the top, white is dry and grey is missing. No display is needed: matplotlib's Agg draws figures into memory.
"""

import io
import math
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from nowcast.quantity import Quantity
from nowcast.report.pictures.overlay import Earth, Stroke, drawn_over

RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
HIGHEST_COLOUR = "#7b2cbf"  # above the last level
PROBABILITY = "probability"  # the name of the quantity
PROBABILITY_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DIFFERENCE_LEVELS = (-20, -10, -5, -2, -1, -0.5, 0.5, 1, 2, 5, 10, 20)  # mm/h
MISSING_COLOUR = "#d9d9d9"
DPI = 110
NARROWEST = 4.5  # inches: width of a picture, at least
LETTER_WIDTH = 0.57  # mean width of a letter, share of its size
EXACT_COLOURS = 64  # of the 256 of a PNG: the most frequent ones, which are those of the scales
COLOUR_BAR_HEIGHT = 4.2  # inches, at most
LETTERS_PER_INCH = 12  # width of a name above a map
TITLE_LINE = 0.18  # inches: room for each further line of a title


def colour_scale(quantity: Quantity) -> tuple[Colormap, Normalize]:
    """Return the colours of rain rate, 0.1 to 100 mm/h, white when dry; or of a quantity from 0 to 1. Missing is grey.

    Probabilities are white below 5 %.
    """
    if quantity.name == PROBABILITY:
        steps = matplotlib.colormaps["YlGnBu"](np.linspace(0.12, 1, len(PROBABILITY_LEVELS)))
        colours = ListedColormap(steps[:-1]).with_extremes(under="white", over=steps[-1], bad=MISSING_COLOUR)
        return colours, BoundaryNorm(PROBABILITY_LEVELS, colours.N)
    if not quantity.is_rain:
        return matplotlib.colormaps["magma"].with_extremes(bad=MISSING_COLOUR), Normalize(0, 1)
    colours = ListedColormap(RAIN_COLOURS).with_extremes(under="white", over=HIGHEST_COLOUR, bad=MISSING_COLOUR)
    return colours, BoundaryNorm(RAIN_LEVELS, len(RAIN_COLOURS))


def difference_scale(quantity: Quantity) -> tuple[Colormap, Normalize]:
    """Return the colours of forecast minus observed: brown if too little, green if too much, white within 0.5 mm/h."""
    if not quantity.is_rain:
        return matplotlib.colormaps["BrBG"].with_extremes(bad=MISSING_COLOUR), Normalize(-1, 1)
    steps = matplotlib.colormaps["BrBG"](np.linspace(0, 1, len(DIFFERENCE_LEVELS) + 1))
    steps[len(steps) // 2] = 1  # white
    colours = ListedColormap(steps[1:-1]).with_extremes(under=steps[0], over=steps[-1], bad=MISSING_COLOUR)
    return colours, BoundaryNorm(DIFFERENCE_LEVELS, colours.N)


def plain(name: str) -> str:
    """Return a name that matplotlib shows unchanged: $ escaped (no formula), no _ at the start (hidden in a legend)."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def short(name: str, letters: int) -> str:
    """Return a name cut to this many letters, keeping its beginning and end."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters - letters // 2 - 1) :]}"


def moment(time: np.datetime64) -> str:
    """Return a time as text, such as `2016-09-28 15:00 UTC`, with seconds only if they are not 0."""
    return str(np.datetime64(time, "s")).replace("T", " ").removesuffix(":00") + " UTC"


def span(first: np.datetime64, last: np.datetime64) -> str:
    """Return a span of time as text, such as `2016-09-28 15:00 to 16:00 UTC`; of two equal times one."""
    if first == last:
        return moment(first)
    is_one_day = first.astype("datetime64[D]") == last.astype("datetime64[D]")
    return f"{moment(first).removesuffix(' UTC')} to {moment(last)[11 if is_one_day else 0 :]}"


def png(pixels: np.ndarray, *, exact: bool = False) -> bytes:
    """Return pixels (row, column, RGB) uint8 as PNG with up to 256 colours, which makes maps a third of the size.

    exact: keep every colour; thin lines of few pixels could lose theirs
    """
    content = io.BytesIO()
    (Image.fromarray(pixels) if exact else _in_few_colours(pixels)).save(content, "PNG")
    return content.getvalue()


def _in_few_colours(pixels: np.ndarray) -> Image.Image:
    """Return pixels (row, column, RGB) in 256 colours: the most frequent ones exactly, others near to what they are."""
    flat = pixels.reshape(-1, 3).astype(np.int32) @ [1 << 16, 1 << 8, 1]
    packed, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
    exact = colours[np.argsort(-counts, kind="stable")[:EXACT_COLOURS]]
    # of PIL's ways this one keeps rare colours, such as that of the heaviest rain
    spread = Image.fromarray(pixels).quantize(256 - EXACT_COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette()
    palette = np.concatenate([exact, np.array(spread).reshape(-1, 3)])
    nearest, least = np.zeros(len(colours), np.uint8), np.full(len(colours), np.inf)
    for n, colour in enumerate(palette[:256]):
        apart = np.square(colours - colour).sum(axis=-1)
        nearest[apart < least] = n
        least = np.minimum(least, apart)
    image = Image.fromarray(nearest[inverse].reshape(pixels.shape[:2]), "P")
    image.putpalette(palette[:256].astype(np.uint8).tobytes())
    return image


def drawn(figure: Figure) -> np.ndarray:
    """Return a figure as pixels (row, column, RGB) uint8."""
    return _pixels(figure)[..., :3]


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes every time; text stays text, in the fonts of the reader.

    Browsers that darken pages leave it as it is: they would draw its axes white, on a background that stays white.
    """
    content = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "nowcast"}
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue().replace(b"<svg ", b'<svg style="color-scheme: only light" ', 1)


def pdf(figure: Figure) -> bytes:
    """Return a figure as PDF, the same bytes every time."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(content, format="pdf", metadata={"CreationDate": None})
    return content.getvalue()


def extended(quantity: Quantity) -> str:
    """Return at which ends of its scale the values of a quantity go on, as matplotlib's colour bars name them."""
    return "both" if quantity.name == PROBABILITY else "max" if quantity.is_rain else "neither"


def _pixels(figure: Figure) -> np.ndarray:
    """Return a figure as pixels (row, column, RGBA) uint8."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        canvas.draw()
    return np.array(canvas.buffer_rgba())


class MapGrid:
    """A picture of maps of one size in rows and columns, with names above, labels at the left and colour bars at the right.

    `aspect` is the height of a map divided by its width; `width` (of a map) and `above` (room above each map) are in inches.
    Maps are pasted as pixels below the text, because matplotlib needs seconds to draw thirty axes. `earth` is drawn over every
    map; with `is_drawing`, for SVG and PDF, lines stay lines.
    """

    LEFT, RIGHT, TOP, BOTTOM, GAP = 0.62, 0.95, 0.62, 0.08, 0.07  # inches: margins, and between maps

    def __init__(
        self,
        rows: int,
        columns: int,
        aspect: float,
        *,
        width: float,
        title: str,
        above: float = 0.0,
        dpi: float = DPI,
        earth: Earth | None = None,
        is_drawing: bool = False,
    ):
        height = width * min(max(aspect, 0.1), 6.0)
        across = self.LEFT + columns * (width + self.GAP) + self.RIGHT
        self.top = self.TOP + TITLE_LINE * title.count("\n")
        down = self.top + rows * (height + above + self.GAP) + self.BOTTOM
        self.rows, self.columns, self.width, self.dpi = rows, columns, width, dpi
        self.figure = Figure(figsize=(max(across, NARROWEST), down), dpi=dpi, frameon=False)
        self.size = self.figure.get_size_inches()
        self.map_pixels = round(height * dpi), round(width * dpi)
        self.steps = (height + above + self.GAP) * dpi, (width + self.GAP) * dpi
        self.canvas = np.full((round(down * dpi), round(self.size[0] * dpi), 3), 255, np.uint8)
        self.bar: tuple[slice, slice] | None = None
        self.is_drawing, self.strokes = is_drawing, {}
        self.earth = list(earth.strokes) if earth else []
        self.over = None if is_drawing or not self.earth else drawn_over(self.earth, self.map_pixels, dpi)
        self.title = self.write(0.0, -0.5, "", fontsize=11)
        self.name(title)
        for label in earth.labels if earth else ():
            self._write_degrees(*label)

    def name(self, title: str) -> None:
        """Write the title, in letters so small that its longest line fits."""
        letters = max(map(len, title.split("\n")), default=0)
        room = (self.size[0] - self.LEFT - 0.1) * 72 / max(letters * LETTER_WIDTH, 1)  # points
        self.title.set(text=title, fontsize=min(max(room, 6.5), 11))

    def _write_degrees(self, x: float, y: float, text: str) -> None:
        """Write degrees at the right or the upper edge of the first map, at shares of its width and height."""
        place = x * self.map_pixels[1] / self.steps[1], y * self.map_pixels[0] / self.steps[0]
        align = {"ha": "right", "va": "center"} if x == 1 else {"ha": "center", "va": "top"}
        box = {"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 0.6}
        self.write(*place, text, fontsize=6, color="#444444", bbox=box, **align)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the position of a map in pixels from the top and from the left."""
        from_top = self.top * self.dpi + (row + 1) * self.steps[0] - self.GAP * self.dpi - self.map_pixels[0]
        return round(from_top), round(self.LEFT * self.dpi + column * self.steps[1])

    def paste(
        self, row: int, column: int, field: np.ndarray, scale: tuple[Colormap, Normalize], strokes: Sequence[Stroke] = ()
    ) -> None:
        """Draw a map (y, x), row 0 at the top, and strokes on it, over what was drawn at this place before."""
        colours, norm = scale
        y, x = (np.arange(n) * size // n for n, size in zip(self.map_pixels, field.shape, strict=True))
        pixels = colours(norm(np.ma.masked_invalid(field)), bytes=True)[..., :3][y[:, None], x]
        if self.is_drawing:
            self.strokes[row, column] = [*self.earth, *strokes]
        else:
            pixels = pixels if self.over is None else _laid(pixels, self.over)
            pixels = _laid(pixels, drawn_over(strokes, self.map_pixels, self.dpi)) if strokes else pixels
        pixels[[0, -1]], pixels[:, [0, -1]] = 70, 70  # dark grey frame
        top, left = self.corner(row, column)
        self.canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels

    def write(self, column: float, row: float, text: str, **options):
        """Write text at the upper left of a map; fractional positions lie between maps, row -0.5 is the title."""
        top, left = self.corner(0, 0)
        x = left + column * self.steps[1]
        y = 0.1 * self.dpi if row == -0.5 else top + row * self.steps[0]
        place = x / self.dpi / self.size[0], 1 - y / self.dpi / self.size[1]
        return self.figure.text(*place, text, **{"va": "top", **options})

    def name_columns(self, names: Sequence[str]) -> None:
        """Write a name above each column."""
        letters = round(self.width * LETTERS_PER_INCH)
        for column, name in enumerate(names):
            self.write(column, -0.03 / self.steps[0] * self.dpi, plain(short(name, letters)), fontsize=10, va="bottom")

    def label(self, row: int, column: int, text: str):
        """Write text above one map."""
        return self.write(column, row - 0.03 / self.steps[0] * self.dpi, text, fontsize=9.5, va="bottom")

    def label_row(self, row: int, text: str) -> None:
        """Write text at the left of a row, rotated."""
        middle = row + 0.5 * self.map_pixels[0] / self.steps[0]
        self.write(-0.08 / self.steps[1] * self.dpi, middle, text, fontsize=10, rotation=90, va="center", ha="right")

    def scale(self, scale: tuple[Colormap, Normalize], label: str, part: int = 0, parts: int = 1, **options) -> None:
        """Draw a colour bar at the right, in number `part` of `parts` equal parts of the height, from the top."""
        colours, norm = scale
        top, left = self.corner(0, self.columns)
        room = (self.size[1] - top / self.dpi - self.BOTTOM) / parts
        height, above = min(0.92 * room, COLOUR_BAR_HEIGHT), top / self.dpi + part * room
        x, y = self.size
        axes = self.figure.add_axes(((left / self.dpi + 0.06) / x, 1 - (above + height) / y, 0.13 / x, height / y))
        ticks = getattr(norm, "boundaries", None)
        shown = ScalarMappable(norm, colours)
        self.figure.colorbar(shown, cax=axes, label=label, format="{x:g}", ticks=ticks, **options)

    def draw_distance(self, width_km: float) -> None:
        """Draw a scale bar in the first map: a round number of km, up to half its width; nothing if the width is unknown."""
        if not math.isfinite(width_km) or width_km <= 0:
            return
        power = 10.0 ** math.floor(math.log10(width_km / 2))
        length = max(step * power for step in (1, 2, 5) if step * power <= width_km / 2)
        top, left = self.corner(0, 0)
        across, down = round(length / width_km * self.map_pixels[1]), top + self.map_pixels[0] - round(0.1 * self.dpi)
        start = left + round(0.08 * self.dpi)
        self.bar = (slice(down, down + 3), slice(start, start + across))
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
        at = (0.08 / self.steps[1] * self.dpi, (self.map_pixels[0] - 0.13 * self.dpi) / self.steps[0])
        self.write(*at, f"{length:g} km", fontsize=8, va="bottom", bbox=box)

    def pixels(self) -> np.ndarray:
        """Return the picture as pixels (row, column, RGB) uint8: the maps with the text on top."""
        return _laid(self._below(), _pixels(self.figure)[: len(self.canvas), : self.canvas.shape[1]])

    def _below(self) -> np.ndarray:
        below = self.canvas.copy()
        if self.bar:
            below[self.bar] = 0
        return below

    def drawing(self, kind: str) -> bytes:
        """Return the picture as "svg" or "pdf", the same bytes every time: maps as pixels, lines and text as such."""
        height, width = self.canvas.shape[:2]
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=-1, xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.imshow(self._below(), extent=(0, width, height, 0), interpolation="none", aspect="auto")
        for place, strokes in self.strokes.items():
            top, left = self.corner(*place)
            (down, across), scale = self.map_pixels, self.map_pixels[::-1]
            lines = LineCollection(
                [stroke.points * scale + (left, top) for stroke in strokes],
                colors=[stroke.colour for stroke in strokes],
                linewidths=[stroke.width for stroke in strokes],
            )
            axes.add_collection(lines, autolim=False)
            lines.set_clip_path(Rectangle((left, top), across, down, transform=axes.transData))
        return svg(self.figure) if kind == "svg" else pdf(self.figure)


def _laid(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Return pixels (row, column, RGB) uint8 with transparent ones (row, column, RGBA) laid over them."""
    weight = above[..., 3:].astype(np.uint16)
    return ((above[..., :3] * weight + below[: len(above), : above.shape[1]] * (255 - weight)) // 255).astype(np.uint8)


def ground_aspect(shape: Sequence[int], extent_km: Sequence[float]) -> float:
    """Return height / width of a map from its (height, width) in km, or from its numbers of cells if these are unknown."""
    ratio = extent_km[0] / extent_km[1] if extent_km[1] else math.nan
    return ratio if math.isfinite(ratio) and ratio > 0 else shape[-2] / shape[-1]
