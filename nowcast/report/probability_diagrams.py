"""Reliability diagrams, ROC curves and rank histograms, from sums pooled over lead times."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from nowcast.report.diagrams import LEGEND_LETTERS, Style, large_panel, panel
from nowcast.report.maps import plain, short
from nowcast.scores.ensemble import EnsembleSums, rank_histogram
from nowcast.scores.exceedance import ExceedanceSums, reliability_diagram, roc_curve

FEWEST_PAIRS = 10  # in a class of the reliability diagram: the observed frequency of fewer pairs is noise


def draw_reliability(sums: Mapping[str, ExceedanceSums], column: int, styles: Mapping[str, Style]) -> Figure:
    """Draw observed frequency against forecast probability at one threshold, and below it the number of pairs in each class.

    The dashed line is the observed frequency over all pairs. Classes with fewer than FEWEST_PAIRS pairs are left out.
    """
    figure = Figure(figsize=(3.7, 4.4))
    upper = figure.add_axes((0.18, 0.35, 0.78, 0.61))
    lower = figure.add_axes((0.18, 0.12, 0.78, 0.19), sharex=upper)
    upper.tick_params(labelbottom=False)
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.9)
    for name, sums_of_forecaster in sums.items():
        diagram = reliability_diagram(sums_of_forecaster)
        count = diagram.num_pairs[0, column]
        enough = count >= FEWEST_PAIRS
        forecast, observed = (np.where(enough, axis[0, column], np.nan) for axis in (diagram.forecast, diagram.observed))
        upper.plot(forecast, observed, label=plain(short(name, LEGEND_LETTERS)), **styles[name].options)
        lower.plot(diagram.forecast[0, column], np.where(count > 0, count, np.nan), **styles[name].options)
    if sums:
        whole = max(sums.values(), key=lambda each: each.num_pairs[0, column])  # files may lack this threshold: no pairs
        observed, pairs = whole.num_observed[0, column].sum(), whole.num_pairs[0, column]
        if pairs:
            upper.axhline(observed / pairs, color="#8f8f8f", linewidth=0.8, linestyle="--")
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed frequency")
    lower.set(xlabel="forecast probability", ylabel="pairs", yscale="log")
    _whole_decades(lower)
    figure.align_ylabels()
    _grid(upper, lower)
    return figure


def _whole_decades(axes: Axes) -> None:
    """Set a logarithmic axis from one power of 10 to another, with a label at few of them, so that labels do not overlap."""
    low, high = axes.dataLim.intervaly
    if not (0 < low <= high < math.inf):
        low, high = 1, 10
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
    axes.set_ylim(10.0**first, 10.0 ** max(last, first + 1))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_roc(sums: Mapping[str, ExceedanceSums], column: int, styles: Mapping[str, Style]) -> Figure:
    """Draw POD against POFD at one threshold for warnings from each probability on; the diagonal has no discrimination."""
    figure, axes = large_panel()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.9)
    for name, sums_of_forecaster in sums.items():
        pofd, pod = (rate[0, column] for rate in roc_curve(sums_of_forecaster))
        options = styles[name].options | {"markevery": 10, "markersize": 3.5}
        axes.plot(pofd, pod, label=plain(short(name, LEGEND_LETTERS)), **options)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="POFD", ylabel="POD", aspect="equal")
    _grid(axes)
    return figure


def draw_ranks(sums: EnsembleSums, style: Style) -> Figure:
    """Draw the rank histogram without pairs whose members all equal the observation, and the line of a reliable ensemble."""
    figure, axes = panel()
    fractions = rank_histogram(sums, tied=False)[0]
    fractions = fractions[np.isfinite(fractions)]
    axes.bar(np.arange(len(fractions)), fractions, color=style.colour)
    if len(fractions):
        axes.axhline(1 / len(fractions), color="black", linewidth=0.9)
    axes.set(xlabel="members below the observation", ylabel="fraction of pairs")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _grid(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.grid(alpha=0.3)
