"""Pictures of one example case: maps of what was observed, forecast and wrong by lead time, and an animation."""

import numpy as np

from nowcast.examples import Example
from nowcast.pictures import (
    MapGrid,
    colour_scale,
    difference_scale,
    draw_distance,
    draw_field,
    gif,
    ground_aspect,
    moment,
    plain,
    png,
    short,
    unit,
)
from nowcast.thinning import spread

MAP_LEADS = 3  # rows of maps
WIDEST, WIDE = 11.5, 2.6  # inches, of all maps of a row and of one
HIGHEST = 16.0
ANIMATED_PIXELS = 150_000  # of all maps of a frame: three animations stay under 3 MB


def draw_maps(example: Example, quantity: str) -> bytes:
    """PNG: for a few leads, observed and forecast fields above, and forecast minus observed below."""
    leads = spread(len(example.lead_minutes), MAP_LEADS)
    aspect, columns = _aspect(example), 1 + len(example.forecasts)
    width = min(WIDE, WIDEST / columns, HIGHEST / (2 * len(leads) * aspect))
    grid = MapGrid(2 * len(leads), columns, aspect, width=width, title=_title(example))
    grid.name_columns(["observed", *example.forecasts])
    for row, lead in enumerate(leads):
        fields, differences = grid.axes[2 * row], grid.axes[2 * row + 1]
        observed = example.observed[lead]
        image = draw_field(fields[0], observed, colour_scale(quantity))
        differences[0].set_axis_off()
        fields[0].set_ylabel(f"+{example.lead_minutes[lead]:g} min", fontsize=10)
        for column, forecast in enumerate(example.forecasts.values(), 1):
            draw_field(fields[column], forecast[lead], colour_scale(quantity))
            wrong = draw_field(differences[column], forecast[lead] - observed, difference_scale(quantity))
        differences[0].text(1, 0.5, "forecast\nminus\nobserved", ha="right", va="center", fontsize=9)
    draw_distance(grid.axes[0, 0], example.extent_km[1])
    grid.scale(image, f"rain rate, {unit(quantity)}" if unit(quantity) else "", part=0, parts=2, extend="max")
    grid.scale(wrong, f"difference, {unit(quantity)}" if unit(quantity) else "", part=1, parts=2, extend="both")
    return png(grid.figure)


def draw_animation(example: Example, quantity: str) -> bytes:
    """GIF: observed and forecast fields side by side, lead by lead."""
    aspect, columns = _aspect(example), 1 + len(example.forecasts)
    width = min(WIDE, WIDEST / columns, (ANIMATED_PIXELS / columns / aspect) ** 0.5 / 80)
    grid = MapGrid(1, columns, aspect, width=width, title=" ", dpi=80)
    grid.name_columns(["observed", *example.forecasts])
    title = grid.figure.texts[0]
    images = [draw_field(axes, fields[0], colour_scale(quantity)) for axes, fields in zip(grid.axes[0], _fields(example), strict=True)]
    draw_distance(grid.axes[0, 0], example.extent_km[1])
    grid.scale(images[0], unit(quantity), extend="max")

    def show(lead: int) -> None:
        minutes = example.lead_minutes[lead]
        valid = example.case.reference + np.timedelta64(round(minutes * 60), "s")
        title.set_text(f"+{minutes:g} min, valid {moment(valid)}")
        for image, fields in zip(images, _fields(example), strict=True):
            image.set_data(fields[lead])

    return gif(grid.figure, show, len(example.lead_minutes), quantity)


def _fields(example: Example) -> list[np.ndarray]:
    return [example.observed, *example.forecasts.values()]


def _aspect(example: Example) -> float:
    return ground_aspect(example.observed.shape, example.extent_km)


def _title(example: Example) -> str:
    return f"{plain(short(example.case.record, 40))}, forecast from {moment(example.case.reference)} (grey: missing)"
