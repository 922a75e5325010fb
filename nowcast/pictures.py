"""Maps of rain as pictures: colours, thinning for display, panels and animations.

North is at the top, white is dry and grey is missing. Nothing here needs a display: figures are drawn by Agg into bytes.
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
HIGHEST_COLOUR = "#7b2cbf"
DIFFERENCE_LEVELS = (-20, -10, -5, -2, -1, -0.5, 0.5, 1, 2, 5, 10, 20)  # mm/h
MISSING_COLOUR = "#d9d9d9"
DPI = 110
LETTERS_PER_INCH = 12  # of a name above a map
FRAME_SECONDS, LAST_FRAME_SECONDS = 0.35, 1.4


def is_rain(quantity: str) -> bool:
    return quantity == "rain_rate"


def unit(quantity: str) -> str:
    return "mm/h" if is_rain(quantity) else ""


def colour_scale(quantity: str) -> tuple[Colormap, Normalize]:
    """Colours of rain from 0.1 to 100 mm/h, white when dry, grey when missing; one scale for a quantity in [0, 1]."""
    if not is_rain(quantity):
        return matplotlib.colormaps["magma"].with_extremes(bad=MISSING_COLOUR), Normalize(0, 1)
    colours = ListedColormap(RAIN_COLOURS).with_extremes(under="white", over=HIGHEST_COLOUR, bad=MISSING_COLOUR)
    return colours, BoundaryNorm(RAIN_LEVELS, len(RAIN_COLOURS))


def difference_scale(quantity: str) -> tuple[Colormap, Normalize]:
    """Brown where too little is forecast, green where too much, white where within half a mm/h."""
    if not is_rain(quantity):
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


def png(figure: Figure) -> bytes:
    """The figure as PNG, in up to 256 colours, which makes maps a third as large."""
    content = io.BytesIO()
    Image.fromarray(_pixels(figure)).quantize(256, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes every time; its text is left to the fonts of whoever looks at it."""
    content = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "nowcast"}
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.simplefilter("ignore")  # a name in letters that the font lacks
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _pixels(figure: Figure) -> np.ndarray:
    """(row, column, RGB) uint8."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font lacks is drawn as boxes
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def gif(figure: Figure, show: Callable[[int], None], num_frames: int, quantity: str) -> bytes:
    """An animation: `show(n)` changes the figure into frame n. The last frame stays a while."""
    palette, frames = _palette(quantity), []
    for n in range(num_frames):
        show(n)
        frames.append(Image.fromarray(_pixels(figure)).quantize(palette=palette, dither=Image.Dither.NONE))
    content = io.BytesIO()
    milliseconds = [round(1000 * FRAME_SECONDS)] * (num_frames - 1) + [round(1000 * LAST_FRAME_SECONDS)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return content.getvalue()


def _palette(quantity: str) -> Image.Image:
    """One palette for all frames: the colours of the maps and the greys of the text."""
    colours, _ = colour_scale(quantity)
    named = [*RAIN_COLOURS, HIGHEST_COLOUR] if is_rain(quantity) else colours(np.linspace(0, 1, 200))
    wanted = [to_rgb(colour) for colour in [*named, MISSING_COLOUR]] + [(level,) * 3 for level in np.linspace(0, 1, 16)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(255 * np.array(wanted)).astype(np.uint8).tobytes())
    return image


class MapGrid:
    """A figure of maps in rows and columns of one size, with room for names above, labels at the left, scales at the right.

    `aspect` is the height of a map over its width on the ground. `axes` is (row, column); sizes are in inches.
    """

    LEFT, RIGHT, TOP, BOTTOM, GAP = 0.62, 0.95, 0.62, 0.08, 0.07

    def __init__(
        self, rows: int, columns: int, aspect: float, *, width: float, title: str, above: float = 0.0, dpi: float = DPI
    ):
        height, self.width = width * min(max(aspect, 0.1), 6.0), width
        across = self.LEFT + columns * (width + self.GAP) + self.RIGHT
        down = self.TOP + rows * (height + above + self.GAP) + self.BOTTOM
        self.figure = Figure(figsize=(max(across, 4.5), down), dpi=dpi)
        self.size = self.figure.get_size_inches()
        self.axes = np.empty((rows, columns), object)
        for row in range(rows):
            bottom = down - self.TOP - (row + 1) * (height + above + self.GAP) + self.GAP
            for column in range(columns):
                self.axes[row, column] = self._place(self.LEFT + column * (width + self.GAP), bottom, width, height)
                self.axes[row, column].set(xticks=[], yticks=[])
        self.figure.text(self.LEFT / self.size[0], 1 - 0.1 / down, title, va="top", fontsize=11)

    def _place(self, left: float, bottom: float, width: float, height: float) -> Axes:
        x, y = self.size
        return self.figure.add_axes((left / x, bottom / y, width / x, height / y))

    def name_columns(self, names: Sequence[str]) -> None:
        letters = round(self.width * LETTERS_PER_INCH)
        for axes, name in zip(self.axes[0], names, strict=True):
            axes.set_title(plain(short(name, letters)), fontsize=10, loc="left", pad=4)

    def scale(self, image, label: str, part: int = 0, parts: int = 1, **options) -> None:
        """A colour bar at the right, in one of `parts` of the height from the top."""
        height = (self.size[1] - self.TOP - self.BOTTOM) / parts
        bottom = self.size[1] - self.TOP - (part + 1) * height
        left = self.axes[0, -1].get_position().x1 * self.size[0] + 0.12
        bar = self._place(left, bottom + 0.05 * height, 0.13, min(0.9 * height, 4.0))
        self.figure.colorbar(image, cax=bar, label=label, format="{x:g}", **options)


def draw_field(axes: Axes, field: np.ndarray, scale: tuple[Colormap, Normalize]):
    """One map, row 0 at the top, filling its axes; returns the image."""
    colours, norm = scale
    return axes.imshow(field, cmap=colours, norm=norm, interpolation="nearest", origin="upper", aspect="auto")


def ground_aspect(shape: Sequence[int], extent_km: Sequence[float]) -> float:
    """Height over width of a map on the ground; of its cells where its (height, width) in km is unknown."""
    ratio = extent_km[0] / extent_km[1] if extent_km[1] else math.nan
    return ratio if math.isfinite(ratio) and ratio > 0 else shape[-2] / shape[-1]


def draw_distance(axes: Axes, width_km: float) -> None:
    """A bar of a round number of kilometres, a fifth to a half of the map's width; nothing where the width is unknown."""
    if not math.isfinite(width_km) or width_km <= 0:
        return
    power = 10.0 ** math.floor(math.log10(width_km / 2))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_km / 2)
    axes.plot([0.05, 0.05 + length / width_km], [0.05, 0.05], color="black", linewidth=3, transform=axes.transAxes)
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    axes.text(0.05, 0.075, f"{length:g} km", fontsize=8, transform=axes.transAxes, va="bottom", bbox=box)
