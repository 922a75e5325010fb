"""Diagrams of scores by lead time, threshold, scale and wavelength, and performance diagrams, from the rows of an evaluation.

A forecaster has the same colour, marker and line style in all diagrams; the colours (Okabe & Ito, 2008) can be told apart by
people with colour vision deficiency. Undefined values are left out, never drawn as 0.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.forecasters.baselines import BASELINES
from nowcast.report.maps import plain, short
from nowcast.scores.spectra import KEPT_POWER

HIGHEST_BIAS = 3.0  # top of the axis of frequency bias by lead time: with few events it can be very large
NUMBERED_POINTS = 6  # most points of a performance diagram that are labelled with their threshold or lead time
LABEL_DISTANCE = 0.075  # between two labels of a performance diagram, at least
NAME_LETTERS = 17  # most letters of a name beside a line
NAME_DISTANCE = 0.065  # between the names beside lines, at least, share of the height
HIGHEST_RATIO = 2.0  # top of the axis of forecast / observed power
BIAS_RANGE = (1 / 8, 8.0)  # axis of frequency bias by threshold
LEGEND_LETTERS = 30  # most letters of a name in a legend
_BASELINE_COLOURS = {"persistence": "#767676", "extrapolation": "#E69F00", "pysteps": "#56B4E9", "sprog": "#009E73"}
_COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#332288", "#882255", "#117733")
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
Rows = Iterable[Mapping]


@dataclass(frozen=True)
class Style:
    """Colour, marker and line style of a forecaster: baselines are dashed, all others solid."""

    colour: str
    marker: str
    line: str

    @property
    def options(self) -> dict:
        """Options of matplotlib's `plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, "markersize": 4.5, "linewidth": 1.6}

    @property
    def sign(self) -> str:
        """Line and marker as letters, for a legend in text."""
        stroke = "━" if self.line == "-" else "╍"
        return f"{stroke}{_MARKERS[self.marker]}{stroke}"


def forecaster_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style for each forecaster by name; a baseline has the same one in every report."""
    styles, number = {}, 0
    for name in names:
        if name in _BASELINE_COLOURS:
            marker = list(_MARKERS)[list(_BASELINE_COLOURS).index(name) + 1]
            styles[name] = Style(_BASELINE_COLOURS[name], marker, "--")
        else:
            marker = list(_MARKERS)[(number // len(_COLOURS)) % len(_MARKERS)]
            styles[name] = Style(_COLOURS[number % len(_COLOURS)], marker, "--" if name in BASELINES else "-")
            number += 1
    return styles


def curves(rows: Rows, score: str, *, threshold: float | None = None) -> dict[str, np.ndarray]:
    """Return a score by lead time: (lead, 4) of minutes, value, low and high, by forecaster."""
    return _points(rows, "lead_minutes", lambda row: row["score"] == score and row["threshold"] == threshold)


def pooled(rows: Rows, score: str) -> dict[str, np.ndarray]:
    """Return a score pooled over lead times: (threshold, 4) of threshold, value, low and high, by forecaster."""
    return _points(rows, "threshold", lambda row: row["score"] == score and row["lead_minutes"] is None)


def by_scale(rows: Rows, score: str, *, threshold: float | None = None) -> dict[str, np.ndarray]:
    """Return a score pooled over lead times: (scale, 4) of kilometres, value, low and high, by forecaster."""
    wanted = (score, threshold, None)
    return _points(rows, "scale_km", lambda row: (row["score"], row["threshold"], row["lead_minutes"]) == wanted)


def _points(rows: Rows, x: str, wanted: Callable[[Mapping], bool]) -> dict[str, np.ndarray]:
    points: dict[str, list] = {}
    for row in rows:
        if row[x] is not None and row["against"] is None and wanted(row):
            points.setdefault(row["forecaster"], []).append([row[column] for column in (x, "value", "low", "high")])
    return {name: np.array(of_forecaster, np.float64) for name, of_forecaster in points.items()}


def panel() -> tuple[Figure, Axes]:
    """Return a small figure with one diagram. Margins are fixed: computing them takes as long as drawing everything else."""
    figure = Figure(figsize=(3.7, 2.75))
    return figure, figure.add_axes((0.18, 0.18, 0.79, 0.78))


def large_panel() -> tuple[Figure, Axes]:
    """Return a square figure with one diagram. Margins are fixed as in `panel`; that on the right is for a second axis."""
    figure = Figure(figsize=(4.2, 4.2))
    return figure, figure.add_axes((0.145, 0.13, 0.735, 0.735))


def draw_curves(axes: Axes, points: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> None:
    """Draw a line with its confidence interval for each forecaster, from arrays (point, 4) of x, value, low and high."""
    for name, columns in points.items():
        x, value, low, high = columns.T
        axes.plot(x, value, label=plain(short(name, LEGEND_LETTERS)), **styles[name].options)
        if np.isfinite(low).any():
            axes.fill_between(x, low, high, alpha=0.15, linewidth=0, color=styles[name].colour)
    axes.grid(alpha=0.3)


def highest(rows: Rows, score: str) -> float:
    """Return a common top of the axes of a score by lead time, above its intervals; of frequency bias above 1."""
    own = (row for row in rows if row["score"] == score and row["against"] is None and row["lead_minutes"] is not None)
    top = max((row[column] for row in own for column in ("value", "high") if math.isfinite(row[column])), default=0)
    return min(max(1.05 * top, 1.1), HIGHEST_BIAS) if score == "frequency_bias" else 1.05 * top or 1.0


def draw_lead(
    axes: Axes,
    rows: Rows,
    score: str,
    styles: Mapping[str, Style],
    *,
    label: str,
    threshold: float | None = None,
    top: float | None = None,
) -> None:
    """Draw a score against all lead times, on an axis from 0 (or the lowest value, if negative) to `top`."""
    points = curves(rows, score, threshold=threshold)
    draw_curves(axes, points, styles)
    axes.set(xlabel="lead time, minutes", ylabel=label)
    last = max((row["lead_minutes"] for row in rows if row["lead_minutes"] is not None), default=1)
    axes.set_xlim(0, 1.05 * last)  # also where the score is undefined at the last ones
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    lowest = min((low for each in points.values() for low in each[:, 1:3].flat if math.isfinite(low)), default=0)
    axes.set_ylim(1.05 * min(lowest, 0), top)
    if score == "frequency_bias":
        axes.axhline(1, color="black", linewidth=0.9)


def draw_named_lines(rows: Rows, score: str, styles: Mapping[str, Style], *, label: str, threshold: float) -> Figure:
    """Draw a score against lead time in a wide figure, with the name of each forecaster at the end of its line."""
    figure = Figure(figsize=(6.4, 3.0))
    axes = figure.add_axes((0.095, 0.16, 0.65, 0.81))
    draw_lead(axes, rows, score, styles, label=label, threshold=threshold)
    low, high = axes.get_ylim()
    ends = {name: points[np.isfinite(points[:, 1])] for name, points in curves(rows, score, threshold=threshold).items()}
    ends = {name: (points[-1, 1] - low) / (high - low) for name, points in ends.items() if len(points)}
    axes.margins(x=0)
    for (name, _), place in zip(
        sorted(ends.items(), key=lambda end: end[1]), _apart(sorted(ends.values()), NAME_DISTANCE), strict=True
    ):
        options = {"xycoords": "axes fraction", "va": "center", "fontsize": 10, "color": styles[name].colour}
        axes.annotate(plain(short(name, NAME_LETTERS)), (1.02, place), annotation_clip=False, **options)
    return figure


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """Return ascending places, from 0 to 1, moved up and down until they are this far apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + distance) if moved else max(place, 0))
    top = 1.0
    for n in range(len(moved) - 1, -1, -1):
        moved[n] = min(moved[n], top)
        top = moved[n] - distance
    return moved


def draw_scores(rows: Sequence[Mapping], thresholds: Sequence[float], names: Sequence[str], unit: str) -> Figure:
    """Draw CSI and frequency bias against lead time in one figure, one column for each threshold."""
    labels = {"csi": "CSI", "frequency_bias": "frequency bias"}
    size = (3.4 * len(thresholds) + 1, 3 * len(labels) + 0.6)
    figure, styles = Figure(figsize=size, layout="constrained"), forecaster_styles(names)
    axes = figure.subplots(len(labels), len(thresholds), squeeze=False, sharex=True, sharey="row")
    for column, threshold in enumerate(thresholds):
        for row, (score, label) in enumerate(labels.items()):
            draw_lead(axes[row, column], rows, score, styles, label=label, threshold=threshold, top=highest(rows, score))
            axes[row, column].label_outer()
        axes[0, column].set_title(f"≥ {threshold:g} {unit}", fontsize=10)
    axes[0, -1].legend(fontsize=8)
    return figure


def draw_performance(rows: Sequence[Mapping], styles: Mapping[str, Style], *, threshold: float | None = None) -> Figure:
    """Draw the performance diagram: POD against success ratio (1 - FAR). Roebber (2009).

    Solid grey lines have equal CSI, dashed ones equal frequency bias. Without a threshold there is a point for each threshold,
    pooled over lead times; with one, a point for each lead time. The points of the first forecaster are labelled.
    """
    figure, axes = large_panel()
    _draw_csi_and_bias(axes)
    if threshold is None:
        pods, fars = pooled(rows, "pod"), pooled(rows, "far")
    else:
        pods, fars = (curves(rows, score, threshold=threshold) for score in ("pod", "far"))
    for name, pod in pods.items():
        success = 1 - fars[name][:, 1]
        axes.plot(success, pod[:, 1], label=plain(short(name, LEGEND_LETTERS)), **styles[name].options)
    for name in list(pods)[:1]:
        _label_points(axes, 1 - fars[name][:, 1], pods[name], styles[name].colour)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="success ratio, 1 − FAR", ylabel="POD", aspect="equal")
    return figure


def _label_points(axes: Axes, x: np.ndarray, pod: np.ndarray, colour: str) -> None:
    """Label points, the outermost first, where no label is near by already."""
    labelled: list[np.ndarray] = []
    positions = evenly_spaced(len(x), NUMBERED_POINTS)
    for n in sorted(positions, key=lambda n: -abs(n - (len(x) - 1) / 2)):
        point = np.array([x[n], pod[n, 1]])
        if not np.isfinite(point).all() or any(np.abs(point - other).max() < LABEL_DISTANCE for other in labelled):
            continue
        labelled.append(point)
        # below and right of the point, but inside the axes
        across, up = 5 if point[0] < 0.93 else -5, -3 if point[1] > 0.07 else 3
        options = {"xytext": (across, up), "textcoords": "offset points", "fontsize": 8, "color": colour, "zorder": 4}
        align = {"ha": "right" if across < 0 else "left", "va": "top" if up < 0 else "bottom"}
        outline = [withStroke(linewidth=2, foreground="white")]
        axes.annotate(f"{pod[n, 0]:g}", point, path_effects=outline, **options, **align)


def _draw_csi_and_bias(axes: Axes) -> None:
    """Draw lines of equal CSI, 1 / CSI = 1 / success ratio + 1 / POD - 1, and of equal bias = POD / success ratio.

    CSI is numbered on an axis at the right, where POD on a curve equals it; the bias above the axes and at the lower dashed
    lines.
    """
    success, detection = np.meshgrid(*[np.linspace(0.005, 1, 200)] * 2)
    csi, levels = 1 / (1 / success + 1 / detection - 1), np.arange(0.1, 1, 0.1)
    axes.contour(success, detection, csi, levels, colors="#b5b5b5", linewidths=0.8)
    right = axes.secondary_yaxis("right")
    right.set_yticks(levels, [f"{level:.1f}" for level in levels])
    right.tick_params(labelsize=7, length=2, colors="#707070")
    right.set_ylabel("CSI (grey curves)", fontsize=8, color="#707070")
    for bias in (0.25, 0.5, 1, 2, 4):
        x, y = min(1, 1 / bias), min(1, bias)
        axes.plot([0, x], [0, y], color="#8f8f8f", linewidth=0.8, linestyle=(0, (4, 4)))
        place, offset = ((x, y), (0, 2)) if bias >= 1 else ((0.9, 0.9 * bias), (0, 0))
        options = {"ha": "center", "va": "bottom" if bias >= 1 else "center", "color": "#5a5a5a", "fontsize": 7}
        outline = [withStroke(linewidth=3, foreground="white")]
        axes.annotate(f"{bias:g}", place, xytext=offset, textcoords="offset points", path_effects=outline, **options)


def draw_bias(rows: Sequence[Mapping], styles: Mapping[str, Style], unit: str) -> Figure:
    """Draw frequency bias against threshold, pooled over lead times, both on logarithmic axes."""
    figure, axes = large_panel()
    biases = pooled(rows, "frequency_bias")
    draw_curves(axes, {name: _above_zero(points) for name, points in biases.items()}, styles)
    axes.axhline(1, color="black", linewidth=0.9)
    _logarithmic(axes, sorted({threshold for points in biases.values() for threshold in points[:, 0]}))
    axes.set_yscale("log", base=2)
    axes.set_ylim(*BIAS_RANGE)
    axes.set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlabel=f"threshold, {unit}" if unit else "threshold", ylabel="frequency bias")
    return figure


def _above_zero(points: np.ndarray) -> np.ndarray:
    """Return points (threshold, 4) for a logarithmic axis: without biases of 0, and with intervals from 0 to its lower edge."""
    x, value, low, high = points.T
    low, high = (np.where(bound <= 0, BIAS_RANGE[0], bound) for bound in (low, high))
    return np.stack([x, np.where(value > 0, value, np.nan), low, high], axis=-1)


def draw_fss(rows: Sequence[Mapping], styles: Mapping[str, Style], threshold: float) -> Figure:
    """Draw FSS by scale, pooled over lead times; dashed: the FSS of a useful forecast, 0.5 + f0 / 2. Roberts & Lean (2008)."""
    figure, axes = panel()
    draw_curves(axes, points := by_scale(rows, "fss", threshold=threshold), styles)
    useful = [points[points[:, 0] == threshold, 1] for points in pooled(rows, "fss_useful").values()]
    if useful and np.isfinite(useful[0]).all():
        axes.axhline(*useful[0], color="black", linewidth=0.9, linestyle="--")
    _logarithmic(axes, scales := sorted({scale for each in points.values() for scale in each[:, 0]}))
    axes.set(xlim=(scales[0] / 1.1, scales[-1] * 1.1), ylim=(0, 1), xlabel="scale, km", ylabel="FSS")
    return figure


def draw_spectrum(
    wavelengths: np.ndarray,
    observed: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    styles: Mapping[str, Style],
    unit: str,
) -> Figure:
    """Draw power by wavelength, long wavelengths at the left, the observed power in black.

    wavelengths: (wavelength,) km
    observed, forecasts: (wavelength,) power, the square of `unit`, "" for a number without one; forecasts by name
    """
    figure, axes = panel()
    axes.plot(wavelengths, np.where(observed > 0, observed, np.nan), color="black", linewidth=2.4, label="observed")
    for name, power in forecasts.items():
        options = styles[name].options | {"markersize": 3.5}
        axes.plot(wavelengths, np.where(power > 0, power, np.nan), label=plain(short(name, LEGEND_LETTERS)), **options)
    _wavelengths(axes)
    axes.set_yscale("log")
    axes.set(ylabel=f"power, ({unit})²" if unit else "power")
    return figure


def draw_spectrum_ratio(rows: Sequence[Mapping], styles: Mapping[str, Style], *, score: str = "spectrum_ratio") -> Figure:
    """Draw forecast / observed power by wavelength, pooled over lead times; dashed: half of the observed power."""
    figure, axes = panel()
    draw_curves(axes, by_scale(rows, score), styles)
    axes.axhline(1, color="black", linewidth=0.9)
    axes.axhline(KEPT_POWER, color="black", linewidth=0.9, linestyle="--")
    _wavelengths(axes)
    axes.set(ylim=(0, HIGHEST_RATIO), ylabel="forecast / observed power")
    return figure


def _wavelengths(axes: Axes) -> None:
    """Set a logarithmic axis over the wavelengths that have values, with ticks at powers of 2 km."""
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
