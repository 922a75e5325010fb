"""Draw the course of a training, training.png, from the events of metrics.jsonl: loss, MAE and CSI against the step.

The scores are those of the validation cases. Lines across a panel are what the network is measured by: the weights before the
first step, extrapolation and persistence. Old events may lack some of these, and a training the validation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from nowcast.report.diagrams import LEGEND_LETTERS, forecaster_styles
from nowcast.report.maps import plain, short

PANEL = (3.0, 2.4)  # inches: width and height of a panel
LEGEND_WIDTH = 2.4  # inches
NETWORK, BASELINES = "network", ("extrapolation", "persistence")
STYLES = forecaster_styles([NETWORK, *BASELINES])
TRAINING_COLOUR = "#D55E00"
START = {"color": STYLES[NETWORK].colour, "linestyle": "-.", "linewidth": 1.1}  # of the weights before the first step
LINES = {"extrapolation": "--", "persistence": ":"}
Events = Sequence[Mapping[str, Any]]


def draw_training(events: Events) -> Figure:
    """Draw a panel each for loss, MAE and CSI at each threshold that anything hits; the legend is beside them."""
    validation = [event for event in events if event["split"] == "validation"]
    thresholds = [t for t in (validation[-1]["csi"] if validation else ()) if _is_hit(validation, t)]
    panels = [("loss", None), *[("mae", None)] * any("mae" in event for event in validation)]
    panels += [("csi", threshold) for threshold in thresholds]
    num_rows = 1 if len(panels) < 4 else 2
    num_columns = -(-len(panels) // num_rows)
    size = (PANEL[0] * num_columns + LEGEND_WIDTH, PANEL[1] * num_rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(num_rows, num_columns)
    for place, (score, threshold) in zip(_places(len(panels), num_rows, num_columns), panels, strict=True):
        axes = figure.add_subplot(grid[place])
        if score == "loss":
            of_training = [event for event in events if event["split"] == "training"]
            _draw(axes, of_training, "loss", "network, training", color=TRAINING_COLOUR)
        _draw_validation(axes, validation, score, threshold)
        if score == "loss":
            _scale_by_logarithm(axes)
        axes.set_title(_title(score, threshold, validation), fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.get_layout_engine().set(w_pad=0.08)
    figure.legend(named.values(), named.keys(), loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _places(num_panels: int, num_rows: int, num_columns: int) -> list[tuple[int, int]]:
    """Return (row, column) of each panel: in two rows loss and MAE are in the first column, CSI in the others."""
    if num_rows == 1:
        return [(0, column) for column in range(num_panels)]
    beside = [(row, column) for row in range(2) for column in range(1, num_columns)]
    return [(0, 0), (1, 0), *beside][:num_panels]


def _title(score: str, threshold: str | None, validation: Events) -> str:
    """Return, for example, `CSI at 1 mm/h or more`. The unit is that of the newest event; old ones have none."""
    unit = validation[-1].get("unit") if validation else None
    if score == "csi":
        return f"CSI at {threshold}{f' {unit}' if unit else ''} or more"
    return "loss" if score == "loss" else "MAE" + (f", {unit}" if unit else "")


def _draw_validation(axes: Axes, validation: Events, score: str, threshold: str | None) -> None:
    """Draw a score of the network, a star at its best step, and the lines that it is measured by."""
    if not validation:
        return
    _draw(axes, validation, score, "network, validation", threshold, color=STYLES[NETWORK].colour)
    best = min(validation, key=lambda event: event["loss"])
    star = {"marker": "*", "color": "black", "markersize": 10, "linestyle": "none", "zorder": 3}
    axes.plot([best["step"]], [_value(best, score, threshold)], label=f"best: step {best['step']:,}", **star)
    if name := validation[0].get("weights"):
        label = plain(short(str(name), LEGEND_LETTERS))
        _draw_level(axes, _value(validation[0], score, threshold), label, **START)
    for name in BASELINES:
        options = {"color": STYLES[name].colour, "linestyle": LINES[name], "linewidth": 1.6}
        _draw_level(axes, _value(validation[-1], f"{name}_{score}", threshold), name, **options)


def _is_hit(validation: Events, threshold: str) -> bool:
    """Return whether the network or a baseline has a CSI above 0 at a threshold, at any step."""
    scores = ("csi", *(f"{name}_csi" for name in BASELINES))
    return any(_value(event, score, threshold) > 0 for event in validation for score in scores)


def _scale_by_logarithm(axes: Axes) -> None:
    """Set a logarithmic axis with plain numbers: powers of 10, or in a small range some between them too."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw(axes: Axes, events: Events, score: str, label: str, threshold: str | None = None, **options: Any) -> None:
    if not events:
        return
    values = [_value(event, score, threshold) for event in events]
    axes.plot([event["step"] for event in events], values, marker=".", markersize=4.5, linewidth=1.6, label=label, **options)


def _draw_level(axes: Axes, value: float, label: str, **options: Any) -> None:
    """Draw a line across the panel; nothing for NaN."""
    if math.isfinite(value):
        axes.axhline(value, label=label, **options)


def _value(event: Mapping[str, Any], score: str, threshold: str | None) -> float:
    """Return a score of an event, at a threshold of the CSI; NaN where the event has none or it is undefined."""
    value = event.get(score)
    if threshold is not None:
        value = (value or {}).get(threshold)
    return math.nan if value is None else value
