"""Scores as curves: by lead time, by threshold, and the performance diagram, each from the tidy rows of an evaluation.

A forecaster keeps one colour, marker and line through all diagrams; the colours (Okabe & Ito 2008) differ for people who see
few of them. What is undefined is left out, never drawn as 0.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.forecasters.baselines import BASELINES
from nowcast.report.maps import plain, short
from nowcast.scores.spectra import KEPT_POWER

HIGHEST_BIAS = 3.0  # where curves are cut off: with few events a frequency bias can be anything
NUMBERED_POINTS = 6
HIGHEST_RATIO = 2.0
BIAS_RANGE = (1 / 8, 8.0)
LEGEND_LETTERS = 30
_BASELINE_COLOURS = {"persistence": "#767676", "extrapolation": "#E69F00", "pysteps": "#56B4E9", "sprog": "#009E73"}
_COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#332288", "#882255", "#117733")
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
Rows = Iterable[Mapping]


@dataclass(frozen=True)
class Style:
    """How a forecaster is drawn: baselines dashed, all others solid."""

    colour: str
    marker: str
    line: str

    @property
    def options(self) -> dict:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, "markersize": 4.5, "linewidth": 1.6}

    @property
    def sign(self) -> str:
        """The same as letters, for a legend in text."""
        stroke = "━" if self.line == "-" else "╍"
        return f"{stroke}{_MARKERS[self.marker]}{stroke}"


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each forecaster; a baseline has its own in every report."""
    found, number = {}, 0
    for name in names:
        if name in _BASELINE_COLOURS:
            marker = list(_MARKERS)[list(_BASELINE_COLOURS).index(name) + 1]
            found[name] = Style(_BASELINE_COLOURS[name], marker, "--")
        else:
            marker = list(_MARKERS)[(number // len(_COLOURS)) % len(_MARKERS)]
            found[name] = Style(_COLOURS[number % len(_COLOURS)], marker, "--" if name in BASELINES else "-")
            number += 1
    return found


def curves(rows: Rows, score: str, *, threshold: float | None = None) -> dict[str, np.ndarray]:
    """(lead, 4) of minutes, value, low and high by forecaster."""
    return _points(rows, "lead_minutes", lambda row: row["score"] == score and row["threshold"] == threshold)


def pooled(rows: Rows, score: str) -> dict[str, np.ndarray]:
    """(threshold, 4) of threshold, value, low and high by forecaster, of all leads pooled."""
    return _points(rows, "threshold", lambda row: row["score"] == score and row["lead_minutes"] is None)


def by_scale(rows: Rows, score: str, *, threshold: float | None = None) -> dict[str, np.ndarray]:
    """(scale, 4) of kilometres, value, low and high by forecaster, of all leads pooled."""
    wanted = (score, threshold, None)
    return _points(rows, "scale_km", lambda row: (row["score"], row["threshold"], row["lead_minutes"]) == wanted)


def _points(rows: Rows, x: str, wanted: Callable[[Mapping], bool]) -> dict[str, np.ndarray]:
    found: dict[str, list] = {}
    for row in rows:
        if row[x] is not None and row["against"] is None and wanted(row):
            found.setdefault(row["forecaster"], []).append([row[column] for column in (x, "value", "low", "high")])
    return {name: np.array(points, np.float64) for name, points in found.items()}


def panel() -> tuple[Figure, Axes]:
    """A figure of one small diagram. Its margins are fixed: finding the best ones takes as long as all the rest."""
    figure = Figure(figsize=(3.7, 2.75))
    return figure, figure.add_axes((0.18, 0.18, 0.79, 0.78))


def large_panel() -> tuple[Figure, Axes]:
    """A figure of one diagram that is as high as wide."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    return figure, figure.subplots()


def draw_curves(axes: Axes, found: Mapping[str, np.ndarray], how: Mapping[str, Style]) -> None:
    """Lines with their intervals; x, value, low and high in the columns."""
    for name, points in found.items():
        x, value, low, high = points.T
        axes.plot(x, value, label=plain(short(name, LEGEND_LETTERS)), **how[name].options)
        if np.isfinite(low).any():
            axes.fill_between(x, low, high, alpha=0.15, linewidth=0, color=how[name].colour)
    axes.grid(alpha=0.3)


def highest(rows: Rows, score: str) -> float | None:
    """The top of an axis that all panels of a score by lead time can share, None where it is not defined anywhere."""
    own = (row for row in rows if row["score"] == score and row["against"] is None and row["lead_minutes"] is not None)
    top = max((row["value"] for row in own if math.isfinite(row["value"])), default=None)
    if not top:
        return None
    return min(max(1.05 * top, 1.1), HIGHEST_BIAS) if score == "frequency_bias" else 1.05 * top


def draw_lead(
    axes: Axes,
    rows: Rows,
    score: str,
    how: Mapping[str, Style],
    *,
    label: str,
    threshold: float | None = None,
    top: float | None = None,
) -> None:
    """One score against lead time, from 0 (or the lowest value below it) to `top`."""
    draw_curves(axes, curves(rows, score, threshold=threshold), how)
    axes.set(xlabel="lead time, minutes", ylabel=label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    lowest = min((value for line in axes.lines for value in line.get_ydata() if math.isfinite(value)), default=0)
    axes.set_ylim(1.05 * min(lowest, 0), top)
    if score == "frequency_bias":
        axes.axhline(1, color="black", linewidth=0.9)


def draw_scores(rows: Sequence[Mapping], thresholds: Sequence[float], names: Sequence[str], unit: str) -> Figure:
    """CSI and frequency bias against lead time in one figure, one column for each threshold."""
    labels = {"csi": "CSI", "frequency_bias": "frequency bias"}
    size = (3.4 * len(thresholds) + 1, 3 * len(labels) + 0.6)
    figure, how = Figure(figsize=size, layout="constrained"), styles(names)
    axes = figure.subplots(len(labels), len(thresholds), squeeze=False, sharex=True, sharey="row")
    for column, threshold in enumerate(thresholds):
        for row, (score, label) in enumerate(labels.items()):
            draw_lead(axes[row, column], rows, score, how, label=label, threshold=threshold, top=highest(rows, score))
            axes[row, column].label_outer()
        axes[0, column].set_title(f"≥ {threshold:g} {unit}", fontsize=10)
    axes[0, -1].legend(fontsize=8)
    return figure


def draw_performance(rows: Sequence[Mapping], how: Mapping[str, Style], *, threshold: float | None = None) -> Figure:
    """POD against success ratio (1 - FAR), lines of equal CSI in grey and of equal frequency bias dashed. Roebber (2009).

    Of all leads pooled, a point for each threshold; or of one `threshold`, a point for each lead. Numbers stand at the
    points of the first forecaster.
    """
    figure, axes = large_panel()
    _draw_csi_and_bias(axes)
    if threshold is None:
        detected, false = pooled(rows, "pod"), pooled(rows, "far")
    else:
        detected, false = (curves(rows, score, threshold=threshold) for score in ("pod", "far"))
    for name, pod in detected.items():
        success = 1 - false[name][:, 1]
        axes.plot(success, pod[:, 1], label=plain(short(name, LEGEND_LETTERS)), **how[name].options)
    for name in list(detected)[:1]:
        _number_points(axes, 1 - false[name][:, 1], detected[name], how[name].colour)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="success ratio, 1 − FAR", ylabel="POD", aspect="equal")
    return figure


def _number_points(axes: Axes, x: np.ndarray, pod: np.ndarray, colour: str) -> None:
    for n in evenly_spaced(len(x), NUMBERED_POINTS):
        if math.isfinite(x[n] * pod[n, 1]):
            at = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 8, "color": colour}
            axes.annotate(f"{pod[n, 0]:g}", (x[n], pod[n, 1]), **at)


# 1 / CSI = 1 / success ratio + 1 / POD - 1; bias = POD / success ratio
def _draw_csi_and_bias(axes: Axes) -> None:
    success, detection = np.meshgrid(*[np.linspace(0.005, 1, 200)] * 2)
    csi = 1 / (1 / success + 1 / detection - 1)
    lines = axes.contour(success, detection, csi, np.arange(0.1, 1, 0.1), colors="#b5b5b5", linewidths=0.8)
    axes.clabel(lines, fmt="%.1f", fontsize=7)
    for bias in (0.25, 0.5, 1, 2, 4):
        x, y = min(1, 1 / bias), min(1, bias)
        axes.plot([0, x], [0, y], color="#8f8f8f", linewidth=0.8, linestyle=(0, (4, 4)))
        at = {"ha": "left" if bias <= 1 else "center", "va": "center" if bias <= 1 else "bottom"}
        axes.annotate(f"{bias:g}", (x, y), xytext=(3, 0) if bias <= 1 else (0, 2), textcoords="offset points", fontsize=7, **at)


def draw_bias(rows: Sequence[Mapping], how: Mapping[str, Style], unit: str) -> Figure:
    """Frequency bias against threshold, all leads pooled, both on logarithmic scales."""
    figure, axes = large_panel()
    found = pooled(rows, "frequency_bias")
    draw_curves(axes, {name: np.where(points > 0, points, np.nan) for name, points in found.items()}, how)
    axes.axhline(1, color="black", linewidth=0.9)
    _logarithmic(axes, sorted({threshold for points in found.values() for threshold in points[:, 0]}))
    axes.set_yscale("log", base=2)
    axes.set_ylim(*BIAS_RANGE)
    axes.set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlabel=f"threshold, {unit}" if unit else "threshold", ylabel="frequency bias")
    return figure


def draw_fss(rows: Sequence[Mapping], how: Mapping[str, Style], threshold: float) -> Figure:
    """FSS by scale, all leads pooled; dashed: from where on a forecast is useful, 0.5 + f0 / 2. Roberts & Lean (2008)."""
    figure, axes = panel()
    draw_curves(axes, by_scale(rows, "fss", threshold=threshold), how)
    useful = [points[points[:, 0] == threshold, 1] for points in pooled(rows, "fss_useful").values()]
    if useful and np.isfinite(useful[0]).all():
        axes.axhline(*useful[0], color="black", linewidth=0.9, linestyle="--")
    _logarithmic(axes, sorted({x for line in axes.lines[:-1] for x in line.get_xdata()}))
    axes.set(ylim=(0, 1), xlabel="scale, km", ylabel="FSS")
    return figure


def draw_spectrum(
    wavelengths: np.ndarray, observed: np.ndarray, forecasts: Mapping[str, np.ndarray], how: Mapping[str, Style]
) -> Figure:
    """Power by wavelength, long waves at the left; the observed in black."""
    figure, axes = panel()
    axes.plot(wavelengths, np.where(observed > 0, observed, np.nan), color="black", linewidth=2.4, label="observed")
    for name, power in forecasts.items():
        options = how[name].options | {"markersize": 3.5}
        axes.plot(wavelengths, np.where(power > 0, power, np.nan), label=plain(short(name, LEGEND_LETTERS)), **options)
    _wavelengths(axes)
    axes.set_yscale("log")
    axes.set(ylabel="power, (mm/h)²")
    return figure


def draw_spectrum_ratio(rows: Sequence[Mapping], how: Mapping[str, Style]) -> Figure:
    """Forecast power over observed power by wavelength, all leads pooled; dashed: half of it is lost."""
    figure, axes = panel()
    draw_curves(axes, by_scale(rows, "spectrum_ratio"), how)
    axes.axhline(1, color="black", linewidth=0.9)
    axes.axhline(KEPT_POWER, color="black", linewidth=0.9, linestyle="--")
    _wavelengths(axes)
    axes.set(ylim=(0, HIGHEST_RATIO), ylabel="forecast / observed power")
    return figure


def _wavelengths(axes: Axes) -> None:
    known = [x for line in axes.lines for x, y in line.get_xydata() if math.isfinite(y) and len(line.get_xdata()) > 2]
    lowest, highest = (min(known), max(known)) if known else (1.0, 2.0)
    _logarithmic(axes, [2.0**n for n in range(9) if lowest <= 2**n <= highest])
    axes.set_xlim(highest * 1.1, lowest / 1.1)
    axes.set_xlabel("wavelength, km")
    axes.grid(alpha=0.3)


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
