"""Pictures of an example case: maps of observation, forecasts, differences and probabilities by lead time, an animation."""

import numpy as np

from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.evaluation.examples import Example
from nowcast.quantity import Quantity
from nowcast.report.maps import (
    PROBABILITY,
    MapGrid,
    colour_scale,
    difference_scale,
    extended,
    ground_aspect,
    moment,
    plain,
    png,
    short,
    span,
)
from nowcast.report.pictures.animation import gif
from nowcast.report.pictures.overlay import Earth, Window, earth

MAP_LEADS = 3  # most lead times that have maps
ROW_WIDTH, MAP_WIDTH = 11.5, 2.6  # inches: most for all maps of a row, and for one map
TOTAL_HEIGHT = 16.0  # inches: most for all rows of maps
ANIMATED_DPI = 80
ANIMATED_PIXELS = 150_000  # most for all maps of a frame: three animations then stay under 3 MB


def draw_maps(example: Example, quantity: Quantity) -> bytes:
    """Return a PNG with two rows for each of a few lead times: observed and forecast fields, and forecast minus observed."""
    leads = evenly_spaced(len(example.lead_minutes), MAP_LEADS)
    aspect, columns = _aspect(example), 1 + len(example.forecasts)
    width = min(MAP_WIDTH, ROW_WIDTH / columns, TOTAL_HEIGHT / (2 * len(leads) * aspect))
    grid = MapGrid(2 * len(leads), columns, aspect, width=width, title=_title(example), earth=_earth(example))
    grid.name_columns(_columns(example))
    for row, lead in zip(range(0, 2 * len(leads), 2), leads, strict=True):
        observed = example.observed[lead]
        grid.label_row(row, f"+{example.lead_minutes[lead]:g} min")
        grid.paste(row, 0, observed, colour_scale(quantity))
        for column, forecast in enumerate(example.forecasts.values(), 1):
            grid.paste(row, column, forecast[lead], colour_scale(quantity))
            grid.paste(row + 1, column, forecast[lead] - observed, difference_scale(quantity))
        grid.write(0.95, row + 1.45, "forecast\nminus\nobserved", ha="right", va="center", fontsize=9)
    grid.draw_distance(example.extent_km[1])
    grid.scale(colour_scale(quantity), _with_unit(quantity.label, quantity), part=0, parts=2, extend=extended(quantity))
    extend = "both" if quantity.is_rain else "neither"
    grid.scale(difference_scale(quantity), _with_unit("difference", quantity), part=1, parts=2, extend=extend)
    return png(grid.pixels())


def draw_probability_maps(example: Example, quantity: Quantity) -> bytes | None:
    """Return a PNG with a row for each of a few lead times: where the event was observed, and its forecast probabilities.

    None where no forecaster gives any.
    """
    if not example.probabilities:
        return None
    leads = evenly_spaced(len(example.lead_minutes), MAP_LEADS)
    aspect, columns = _aspect(example), 1 + len(example.probabilities)
    width = min(MAP_WIDTH, ROW_WIDTH / columns, TOTAL_HEIGHT / (2 * len(leads) * aspect))
    event = f"{example.threshold:g} {quantity.unit}".rstrip()
    title = f"Probability of {event} or more\n{_title(example)}"
    grid = MapGrid(len(leads), columns, aspect, width=width, title=title, earth=_earth(example))
    grid.name_columns([f"observed ≥ {event}", *example.probabilities])
    scale = colour_scale(Quantity.named(PROBABILITY))
    for row, lead in enumerate(leads):
        grid.label_row(row, f"+{example.lead_minutes[lead]:g} min")
        for column, fields in enumerate([example.events, *example.probabilities.values()]):
            grid.paste(row, column, fields[lead], scale)
    grid.draw_distance(example.extent_km[1])
    grid.scale(scale, PROBABILITY, extend="both")
    return png(grid.pixels())


def _earth(example: Example) -> Earth | None:
    """Return the lines of the maps of an example."""
    height, width = (size * example.block for size in example.observed.shape[1:])
    return earth(example.locator, Window(*example.corner, height, width))


def _with_unit(what: str, quantity: Quantity) -> str:
    return f"{what}, {quantity.unit}" if quantity.unit else ""


def draw_animation(example: Example, quantity: Quantity) -> bytes:
    """Return a GIF of observed and forecast fields side by side, one frame for each lead time."""
    aspect, columns = _aspect(example), 1 + len(example.forecasts)
    width = min(MAP_WIDTH, ROW_WIDTH / columns, (ANIMATED_PIXELS / columns / aspect) ** 0.5 / ANIMATED_DPI)
    grid = MapGrid(1, columns, aspect, width=width, title="", dpi=ANIMATED_DPI, earth=_earth(example))
    grid.name_columns(_columns(example))
    grid.draw_distance(example.extent_km[1])
    grid.scale(colour_scale(quantity), quantity.unit, extend=extended(quantity))

    def show(lead: int) -> None:
        minutes = example.lead_minutes[lead]
        valid = example.case.reference + np.timedelta64(round(minutes * 60), "s")
        grid.name(f"+{minutes:g} min, valid {moment(valid)}")
        for column, fields in enumerate([example.observed, *example.forecasts.values()]):
            grid.paste(0, column, fields[lead], colour_scale(quantity))

    return gif(grid, show, len(example.lead_minutes), quantity)


def _columns(example: Example) -> list[str]:
    """Return the names of the columns of fields: of an ensemble its mean is shown."""
    return ["observed", *(f"{name}, mean" if name in example.means else name for name in example.forecasts)]


def _aspect(example: Example) -> float:
    return ground_aspect(example.observed.shape, example.extent_km)


def _title(example: Example) -> str:
    start = example.case.reference
    minutes = example.lead_minutes[0], example.lead_minutes[-1]
    valid = span(*(start + np.timedelta64(round(60 * each), "s") for each in minutes))
    return f"{plain(short(example.case.record, 40))}, forecast from {moment(start)} for {valid} (grey: missing)"


CASE_PICTURES = {"maps": draw_maps, "probabilities": draw_probability_maps, "animation": draw_animation}  # of the report
