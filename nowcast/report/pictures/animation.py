"""Write animations: GIF, and MP4 by ffmpeg."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from nowcast.errors import OutputError, UsageError
from nowcast.quantity import Quantity
from nowcast.report.maps import HIGHEST_COLOUR, MISSING_COLOUR, RAIN_COLOURS, MapGrid, colour_scale
from nowcast.report.pictures.overlay import COLOURS

FRAME_SECONDS, LAST_FRAME_SECONDS = 0.35, 1.4
VIDEO_RATE = 20  # pictures per second of an MP4, in which each frame is repeated: players skip in slower ones


def gif(grid: MapGrid, show: Callable[[int], None], num_frames: int, quantity: Quantity) -> bytes:
    """Return an animated GIF. `show(n)` pastes the maps of frame n into the grid. The last frame is shown longer."""
    palette, frames = _palette(quantity), []
    for n in range(num_frames):
        show(n)
        frames.append(Image.fromarray(grid.pixels()).quantize(palette=palette, dither=Image.Dither.NONE))
    content = io.BytesIO()
    milliseconds = [round(1000 * FRAME_SECONDS)] * (num_frames - 1) + [round(1000 * LAST_FRAME_SECONDS)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return content.getvalue()


def _palette(quantity: Quantity) -> Image.Image:
    """Return the palette of all frames: the colours of the maps and their lines, and greys for text."""
    colours, _ = colour_scale(quantity)
    named = [*RAIN_COLOURS, HIGHEST_COLOUR] if quantity.is_rain else [*colours(np.linspace(0, 1, 200)), colours.get_over()]
    named = [*named, MISSING_COLOUR, *COLOURS.values()]
    wanted = [to_rgb(colour) for colour in named] + [(level,) * 3 for level in np.linspace(0, 1, 16)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(255 * np.array(wanted)).astype(np.uint8).tobytes())
    return image


def require_video() -> None:
    """Raise UsageError (exit 2) if there is nothing to write MP4 with."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise UsageError(
            "MP4 is written by ffmpeg, and the package imageio-ffmpeg, which brings it, is not installed.\n"
            "Install it with pip install -e '.[pictures]', or end the name in .gif."
        ) from None


def mp4(path: Path, grid: MapGrid, show: Callable[[int], None], num_frames: int) -> None:
    """Write an MP4 (H.264). `show(n)` pastes the maps of frame n into the grid. The last frame is shown longer.

    Raises OutputError (exit 5) if ffmpeg fails.
    """
    import imageio_ffmpeg

    show(0)
    height, width = (side + side % 2 for side in grid.pixels().shape[:2])  # the codec wants even sides
    writer = imageio_ffmpeg.write_frames(
        path, (width, height), fps=VIDEO_RATE, codec="libx264", macro_block_size=2, quality=7,
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )  # fmt: skip
    try:
        writer.send(None)
        for n in range(num_frames):
            show(n)
            picture = np.full((height, width, 3), 255, np.uint8)
            pixels = grid.pixels()
            picture[: pixels.shape[0], : pixels.shape[1]] = pixels
            seconds = FRAME_SECONDS if n < num_frames - 1 else LAST_FRAME_SECONDS
            for _ in range(round(seconds * VIDEO_RATE)):
                writer.send(picture)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: ffmpeg cannot write it: {str(error).strip().splitlines()[-1]}") from None
    finally:
        writer.close()
