"""Pictures of the members of an example case: small multiples, probabilities of sums, and fans over lead time."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.evaluation.examples import Example
from nowcast.evaluation.member_examples import SUM_AMOUNTS, Fan
from nowcast.quantity import Quantity
from nowcast.report.diagrams import Style, panel
from nowcast.report.maps import PROBABILITY, MapGrid, colour_scale, extended, ground_aspect, moment, plain, png, short, span
from nowcast.report.pictures.overlay import Window, earth

MAP_LEADS = 3  # most lead times that have maps
ROW_WIDTH, MAP_WIDTH, TOTAL_HEIGHT = 11.5, 2.6, 16.0  # inches: most of all maps of a row, of one map, of all rows
ORDINALS = ("first", "second", "third")  # of the SHOWN members
LETTERS = 14  # of the name of an ensemble at the left of a row
BANDS = ((0.05, 0.95), (0.25, 0.75))  # quantiles of members between which a fan is shaded


def draw_members(example: Example, quantity: Quantity) -> bytes | None:
    """Return a PNG with a row for each ensemble and lead time: observed, mean, a few members. None without ensembles."""
    if example.members is None:
        return None
    leads = evenly_spaced(len(example.lead_minutes), MAP_LEADS)
    rows = [(name, lead) for lead in leads for name in example.members.fields]
    shown = max(fields.shape[1] for fields in example.members.fields.values())  # a small ensemble leaves places empty
    columns = ["observed", "mean", *(f"{which} member" for which in ORDINALS[:shown])]  # ensembles may number theirs otherwise
    title = f"{plain(short(example.case.record, 40))}, members from {moment(example.case.reference)} (grey: missing)"
    grid = _grid(example, len(rows), columns, title)
    for row, (name, lead) in enumerate(rows):
        several = f"{plain(short(name, LETTERS))}, " if len(example.members.fields) > 1 else ""
        grid.label_row(row, f"{several}+{example.lead_minutes[lead]:g} min")
        fields = example.members.fields[name][lead]
        for column, field in enumerate([example.observed[lead], example.forecasts[name][lead], *fields]):
            grid.paste(row, column, field, colour_scale(quantity))
    grid.scale(colour_scale(quantity), quantity.unit, extend=extended(quantity))
    return png(grid.pixels())


def draw_sums(example: Example, quantity: Quantity) -> bytes | None:
    """Return a PNG with a row for each amount: where the rain of the first interval reached it, and its probabilities.

    None without ensembles, where no interval fits the lead times, and for a quantity other than rain, which has no sums in mm.
    """
    if example.members is None or not (quantity.is_rain and example.members.sum_minutes):
        return None
    members, minutes = example.members, np.timedelta64(example.members.sum_minutes, "m")
    when = span(example.case.reference, example.case.reference + minutes)
    title = f"{plain(short(example.case.record, 40))}, probability of rain in the {members.sum_minutes} minutes of {when}"
    grid = _grid(example, len(SUM_AMOUNTS), ["observed", *members.probabilities], title)
    scale = colour_scale(Quantity.named(PROBABILITY))
    for row, amount in enumerate(SUM_AMOUNTS):
        grid.label_row(row, f"≥ {amount:g} mm")
        for column, fields in enumerate([members.reached, *members.probabilities.values()]):
            grid.paste(row, column, fields[row], scale)
    grid.scale(scale, "probability", extend="both")
    return png(grid.pixels())


def _grid(example: Example, rows: int, columns: list[str], title: str) -> MapGrid:
    """Return an empty picture of maps of the area of an example."""
    aspect = ground_aspect(example.observed.shape, example.extent_km)
    width = min(MAP_WIDTH, ROW_WIDTH / len(columns), TOTAL_HEIGHT / (rows * aspect))
    height, across = (size * example.block for size in example.observed.shape[1:])
    lines = earth(example.locator, Window(*example.corner, height, across))
    grid = MapGrid(rows, len(columns), aspect, width=width, title=title, earth=lines)
    grid.name_columns(columns)
    grid.draw_distance(example.extent_km[1])
    return grid


def draw_fan(fan: Fan, name: str, minutes: tuple[float, ...], style: Style, unit: str) -> Figure:
    """Draw the quantiles of the members of an ensemble at a place against lead time, and what was observed, in black."""
    figure, axes = panel()
    members = fan.members[name]
    for low, high in BANDS:
        bounds = np.quantile(members, [low, high], axis=1)
        axes.fill_between(minutes, *bounds, alpha=0.25, linewidth=0, color=style.colour)
    axes.plot(minutes, np.median(members, axis=1), color=style.colour, linewidth=1.6)
    axes.plot(minutes, fan.observed, color="black", linewidth=1.6, marker="o", markersize=3)
    axes.set(xlabel="lead time, minutes", ylabel=f"rain, {unit}" if unit else "value")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.05 * max(float(np.max(members)), float(np.max(fan.observed)), 0.1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)
    return figure
