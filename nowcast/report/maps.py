"""Maps of rain as pictures: colours, thinning for display, panels and animations.

North is at the top, white is dry and grey is missing. Nothing here needs a display: figures are drawn by Agg into bytes.
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from nowcast.quantity import Quantity

RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
HIGHEST_COLOUR = "#7b2cbf"
DIFFERENCE_LEVELS = (-20, -10, -5, -2, -1, -0.5, 0.5, 1, 2, 5, 10, 20)  # mm/h
MISSING_COLOUR = "#d9d9d9"
DPI = 110
HIGHEST_SCALE = 4.2  # inches
LETTERS_PER_INCH = 12  # of a name above a map
FRAME_SECONDS, LAST_FRAME_SECONDS = 0.35, 1.4


def colour_scale(quantity: Quantity) -> tuple[Colormap, Normalize]:
    """Colours of rain from 0.1 to 100 mm/h, white when dry, grey when missing; one scale for a quantity in [0, 1]."""
    if not quantity.is_rain:
        return matplotlib.colormaps["magma"].with_extremes(bad=MISSING_COLOUR), Normalize(0, 1)
    colours = ListedColormap(RAIN_COLOURS).with_extremes(under="white", over=HIGHEST_COLOUR, bad=MISSING_COLOUR)
    return colours, BoundaryNorm(RAIN_LEVELS, len(RAIN_COLOURS))


def difference_scale(quantity: Quantity) -> tuple[Colormap, Normalize]:
    """Brown where too little is forecast, green where too much, white where within half a mm/h."""
    if not quantity.is_rain:
        return matplotlib.colormaps["BrBG"].with_extremes(bad=MISSING_COLOUR), Normalize(-1, 1)
    steps = matplotlib.colormaps["BrBG"](np.linspace(0, 1, len(DIFFERENCE_LEVELS) + 1))
    steps[len(steps) // 2] = 1  # white
    colours = ListedColormap(steps[1:-1]).with_extremes(under=steps[0], over=steps[-1], bad=MISSING_COLOUR)
    return colours, BoundaryNorm(DIFFERENCE_LEVELS, colours.N)


def plain(name: str) -> str:
    """A name as matplotlib shows it unchanged: no $ for formulas, no _ at its start, which would hide it in a legend."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def short(name: str, letters: int) -> str:
    """The beginning and the end of a long name."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters - letters // 2 - 1) :]}"


def moment(time: np.datetime64) -> str:
    """`2016-09-28 15:00 UTC`, with seconds only where there are any."""
    return str(np.datetime64(time, "s")).replace("T", " ").removesuffix(":00") + " UTC"


def png(pixels: np.ndarray) -> bytes:
    """(row, column, RGB) uint8 as PNG, in up to 256 colours, which makes maps a third as large."""
    content = io.BytesIO()
    Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE).save(content, "PNG")
    return content.getvalue()


def drawn(figure: Figure) -> np.ndarray:
    """(row, column, RGB) uint8 of a figure."""
    return _pixels(figure)[..., :3]


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes every time; its text is left to the fonts of whoever looks at it."""
    content = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "nowcast"}
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.simplefilter("ignore")  # a name in letters that the font lacks
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _pixels(figure: Figure) -> np.ndarray:
    """(row, column, RGBA) uint8."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font lacks is drawn as boxes
        canvas.draw()
    return np.array(canvas.buffer_rgba())


def gif(grid: "MapGrid", show: Callable[[int], None], num_frames: int, quantity: Quantity) -> bytes:
    """An animation: `show(n)` changes the maps into frame n. The last frame stays a while."""
    palette, frames = _palette(quantity), []
    for n in range(num_frames):
        show(n)
        frames.append(Image.fromarray(grid.pixels()).quantize(palette=palette, dither=Image.Dither.NONE))
    content = io.BytesIO()
    milliseconds = [round(1000 * FRAME_SECONDS)] * (num_frames - 1) + [round(1000 * LAST_FRAME_SECONDS)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return content.getvalue()


def _palette(quantity: Quantity) -> Image.Image:
    """One palette for all frames: the colours of the maps and the greys of the text."""
    colours, _ = colour_scale(quantity)
    named = [*RAIN_COLOURS, HIGHEST_COLOUR] if quantity.is_rain else colours(np.linspace(0, 1, 200))
    wanted = [to_rgb(colour) for colour in [*named, MISSING_COLOUR]] + [(level,) * 3 for level in np.linspace(0, 1, 16)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(255 * np.array(wanted)).astype(np.uint8).tobytes())
    return image


class MapGrid:
    """A picture of maps in rows and columns of one size, with room for names above, labels at the left, scales at the right.

    `aspect` is the height of a map over its width; sizes are in inches. Maps are pasted as pixels below the text: an axes
    for each of thirty maps would take seconds to draw.
    """

    LEFT, RIGHT, TOP, BOTTOM, GAP = 0.62, 0.95, 0.62, 0.08, 0.07

    def __init__(
        self, rows: int, columns: int, aspect: float, *, width: float, title: str, above: float = 0.0, dpi: float = DPI
    ):
        height = width * min(max(aspect, 0.1), 6.0)
        across = self.LEFT + columns * (width + self.GAP) + self.RIGHT
        down = self.TOP + rows * (height + above + self.GAP) + self.BOTTOM
        self.rows, self.columns, self.width, self.dpi = rows, columns, width, dpi
        self.figure = Figure(figsize=(max(across, 4.5), down), dpi=dpi, frameon=False)
        self.size = self.figure.get_size_inches()
        self.map_pixels = round(height * dpi), round(width * dpi)
        self.steps = (height + above + self.GAP) * dpi, (width + self.GAP) * dpi
        self.canvas = np.full((round(down * dpi), round(self.size[0] * dpi), 3), 255, np.uint8)
        self.bar: tuple[slice, slice] | None = None
        self.title = self.write(0.0, -0.5, title, fontsize=11)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Pixels from the top and from the left of a map."""
        from_top = self.TOP * self.dpi + (row + 1) * self.steps[0] - self.GAP * self.dpi - self.map_pixels[0]
        return round(from_top), round(self.LEFT * self.dpi + column * self.steps[1])

    def paste(self, row: int, column: int, field: np.ndarray, scale: tuple[Colormap, Normalize]) -> None:
        """One map (y, x), its row 0 at the top, in place of what was there."""
        colours, norm = scale
        y, x = (np.arange(n) * size // n for n, size in zip(self.map_pixels, field.shape, strict=True))
        pixels = colours(norm(np.ma.masked_invalid(field)), bytes=True)[..., :3][y[:, None], x]
        pixels[[0, -1]], pixels[:, [0, -1]] = 70, 70  # its frame
        top, left = self.corner(row, column)
        self.canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels

    def write(self, column: float, row: float, text: str, **options):
        """Text at the upper left of a map, or between maps; row -0.5 is the title."""
        top, left = self.corner(0, 0)
        x = left + column * self.steps[1]
        y = 0.1 * self.dpi if row == -0.5 else top + row * self.steps[0]
        place = x / self.dpi / self.size[0], 1 - y / self.dpi / self.size[1]
        return self.figure.text(*place, text, **{"va": "top", **options})

    def name_columns(self, names: Sequence[str]) -> None:
        letters = round(self.width * LETTERS_PER_INCH)
        for column, name in enumerate(names):
            self.write(column, -0.03 / self.steps[0] * self.dpi, plain(short(name, letters)), fontsize=10, va="bottom")

    def label(self, row: int, column: int, text: str):
        """Text above one map."""
        return self.write(column, row - 0.03 / self.steps[0] * self.dpi, text, fontsize=9.5, va="bottom")

    def label_row(self, row: int, text: str) -> None:
        middle = row + 0.5 * self.map_pixels[0] / self.steps[0]
        self.write(-0.08 / self.steps[1] * self.dpi, middle, text, fontsize=10, rotation=90, va="center", ha="right")

    def scale(self, scale: tuple[Colormap, Normalize], label: str, part: int = 0, parts: int = 1, **options) -> None:
        """A colour bar at the right, in one of `parts` of the height from the top."""
        colours, norm = scale
        top, left = self.corner(0, self.columns)
        room = (self.size[1] - top / self.dpi - self.BOTTOM) / parts
        height, above = min(0.92 * room, HIGHEST_SCALE), top / self.dpi + part * room
        x, y = self.size
        axes = self.figure.add_axes(((left / self.dpi + 0.06) / x, 1 - (above + height) / y, 0.13 / x, height / y))
        ticks = getattr(norm, "boundaries", None)
        shown = ScalarMappable(norm, colours)
        self.figure.colorbar(shown, cax=axes, label=label, format="{x:g}", ticks=ticks, **options)

    def draw_distance(self, width_km: float) -> None:
        """In the first map a bar of a round number of kilometres, up to half its width; nothing where it is unknown."""
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
        """(row, column, RGB) uint8 of the maps with everything written on them."""
        below = self.canvas.copy()
        if self.bar:
            below[self.bar] = 0
        above = _pixels(self.figure)
        weight = above[..., 3:].astype(np.uint16)
        return ((above[..., :3] * weight + below[: len(above), : above.shape[1]] * (255 - weight)) // 255).astype(np.uint8)


def ground_aspect(shape: Sequence[int], extent_km: Sequence[float]) -> float:
    """Height over width of a map on the ground; of its cells where its (height, width) in km is unknown."""
    ratio = extent_km[0] / extent_km[1] if extent_km[1] else math.nan
    return ratio if math.isfinite(ratio) and ratio > 0 else shape[-2] / shape[-1]
