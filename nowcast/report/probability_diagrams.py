"""Diagrams of probabilities: reliability, ROC and rank histogram, from their sums pooled over leads."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nowcast.report.diagrams import LEGEND_LETTERS, Style, large_panel, panel
from nowcast.report.maps import plain, short
from nowcast.scores.ensemble import EnsembleSums, rank_histogram
from nowcast.scores.exceedance import ExceedanceSums, reliability_diagram, roc_curve

FEWEST_PAIRS = 10  # in a class: a frequency of fewer is noise


def draw_reliability(sums: Mapping[str, ExceedanceSums], column: int, how: Mapping[str, Style]) -> Figure:
    """Observed frequency against forecast probability at one threshold, and below it how often each was forecast.

    The thin line is the frequency over all pairs. Classes of fewer than FEWEST_PAIRS are left out.
    """
    figure = Figure(figsize=(3.7, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.9)
    for name, mine in sums.items():
        found = reliability_diagram(mine)
        count = found.num_pairs[0, column]
        enough = count >= FEWEST_PAIRS
        forecast, observed = (np.where(enough, part[0, column], np.nan) for part in (found.forecast, found.observed))
        upper.plot(forecast, observed, label=plain(short(name, LEGEND_LETTERS)), **how[name].options)
        lower.plot(found.forecast[0, column], np.where(count > 0, count, np.nan), **how[name].options)
    if sums:
        first = next(iter(sums.values()))
        observed, pairs = first.num_observed[0, column].sum(), first.num_pairs[0, column]
        if pairs:
            upper.axhline(observed / pairs, color="#8f8f8f", linewidth=0.8, linestyle="--")
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed frequency")
    lower.set(xlabel="forecast probability", ylabel="pairs", yscale="log")
    _grid(upper, lower)
    return figure


def draw_roc(sums: Mapping[str, ExceedanceSums], column: int, how: Mapping[str, Style]) -> Figure:
    """POD against POFD at one threshold, as it is warned from ever lower probabilities on; the diagonal knows nothing."""
    figure, axes = large_panel()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.9)
    for name, mine in sums.items():
        pofd, pod = (part[0, column] for part in roc_curve(mine))
        options = how[name].options | {"markevery": 10, "markersize": 3.5}
        axes.plot(pofd, pod, label=plain(short(name, LEGEND_LETTERS)), **options)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="POFD", ylabel="POD", aspect="equal")
    _grid(axes)
    return figure


def draw_ranks(sums: EnsembleSums, style: Style) -> Figure:
    """Shares of the observations above 0, 1, … all members, without pairs that all are alike; the line is flat."""
    figure, axes = panel()
    shares = rank_histogram(sums, tied=False)[0]
    shares = shares[np.isfinite(shares)]
    axes.bar(np.arange(len(shares)), shares, color=style.colour)
    if len(shares):
        axes.axhline(1 / len(shares), color="black", linewidth=0.9)
    axes.set(xlabel="members below the observation", ylabel="share of pairs")
    return figure


def _grid(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.grid(alpha=0.3)
