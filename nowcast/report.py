"""What people look at: pictures, report.html, and the curve of a training. Pictures have north at the top."""

import base64
import html
import io
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from nowcast import __version__
from nowcast.atomic import replacing
from nowcast.errors import OutputError
from nowcast.score_files import SCORES_CSV, SCORES_JSON, SCORES_NC, as_csv, as_dataset, as_json, is_rain, table
from nowcast.scored import Evaluation

LEADS_PNG, MAPS_PNG, REPORT_HTML = "scores_by_lead.png", "forecasts.png", "report.html"
FILES = (REPORT_HTML, SCORES_CSV, SCORES_JSON, SCORES_NC, LEADS_PNG, MAPS_PNG)
HIGHEST_BIAS = 3.0  # where the picture is cut off: with few events a frequency bias can be anything
RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
MISSING_COLOUR = "#d9d9d9"


def write(evaluation: Evaluation, rows: Sequence[Mapping], output: Path, *, overwrite: bool = False) -> list[Path]:
    """Write scores.nc, .csv, .json, the pictures and report.html to the folder `output`; returns their paths.

    Raises OutputError (exit 5) where one of them exists already or cannot be written.
    """
    ready(output, overwrite=overwrite)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from None
    pictures = {LEADS_PNG: png(draw_scores(evaluation, rows))}
    if evaluation.example is not None:  # pooled scores come without fields
        pictures[MAPS_PNG] = png(draw_maps(evaluation))
    texts = {SCORES_CSV: as_csv(rows), SCORES_JSON: as_json(evaluation, rows), REPORT_HTML: as_html(evaluation, pictures)}
    for name, content in {**{name: text.encode() for name, text in texts.items()}, **pictures}.items():
        with replacing(output / name) as temporary:
            temporary.write_bytes(content)
    with replacing(output / SCORES_NC) as temporary:
        as_dataset(evaluation, rows).to_netcdf(temporary, engine="netcdf4")
    return [output / name for name in FILES if name != MAPS_PNG or evaluation.example is not None]


def ready(output: Path, *, overwrite: bool) -> None:
    """OutputError, before hours of scoring, if the folder holds scores already or cannot be made."""
    existing = [name for name in FILES if (output / name).exists()]
    if existing and not overwrite:
        raise OutputError(f"{output / existing[0]} exists already.\nChoose another --output, or replace it with --overwrite.")
    nearest = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OutputError(f"cannot write to {output}: {nearest} is {'read-only' if nearest.is_dir() else 'a file'}")


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font lacks is drawn as boxes
        figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
    return content.getvalue()


def plain(name: str) -> str:
    """A name as matplotlib shows it unchanged: no $ for formulas, no _ at its start, which would hide it in a legend."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def draw_scores(evaluation: Evaluation, rows: Iterable[Mapping]) -> Figure:
    """CSI and frequency bias against lead time, one panel for each threshold, with the intervals where there are any."""
    panels = ("csi", "frequency_bias")
    figure, axes = _panels(len(panels), len(evaluation.thresholds), width=3.4, height=3, sharex=True, sharey="row")
    curves: dict[tuple, list] = {}
    for row in rows:
        if row["lead_minutes"] is not None and row["against"] is None and row["score"] in panels:
            key = (panels.index(row["score"]), evaluation.thresholds.index(row["threshold"]), row["forecaster"])
            curves.setdefault(key, []).append((row["lead_minutes"], row["value"], row["low"], row["high"]))
    colours = {name: f"C{n}" for n, name in enumerate(evaluation.blocks)}
    for (row, column, name), points in curves.items():
        minutes, value, low, high = np.transpose(points)
        axes[row, column].plot(minutes, value, marker=".", label=plain(name), color=colours[name])
        axes[row, column].fill_between(minutes, low, high, alpha=0.15, linewidth=0, color=colours[name])
    for column, threshold in enumerate(evaluation.thresholds):
        axes[0, column].set_title(f"≥ {threshold:g} {unit(evaluation)}", fontsize=10)
        axes[1, column].axhline(1, color="black", linewidth=0.8)
        axes[1, column].set_xlabel("lead time, minutes")
    for axis, label in zip(axes[:, 0], ("CSI", "frequency bias"), strict=True):
        axis.set_ylabel(label)
    for axis in axes.flat:
        axis.set_xlim(left=0)
        axis.set_ylim(0, min(axis.get_ylim()[1], HIGHEST_BIAS))
        axis.grid(alpha=0.3)
    axes[0, -1].legend(fontsize=8)
    return figure


def draw_maps(evaluation: Evaluation) -> Figure:
    """Observed and forecast frames of the example case: one row for each lead, one column for each forecaster."""
    example = evaluation.example
    columns = {"observed": example.observed, **example.forecasts}
    y, x = example.observed.shape[1:]
    width = 2.8 if len(columns) <= 5 else 14 / len(columns)
    figure, axes = _panels(len(example.lead_minutes), len(columns), width=width, height=np.clip(width * y / x, 0.5, 6))
    colours, norm = colour_scale(evaluation)
    for column, (name, fields) in enumerate(columns.items()):
        axes[0, column].set_title(plain(name), fontsize=10)
        for row, field in enumerate(fields):
            image = axes[row, column].imshow(field, cmap=colours, norm=norm, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, minutes in enumerate(example.lead_minutes):
        axes[row, 0].set_ylabel(f"+{minutes:g} min", fontsize=10)
    figure.colorbar(image, ax=axes, label=unit(evaluation), shrink=0.8, pad=0.01, aspect=40, extend="max", format="{x:g}")
    title = f"{plain(example.record)}, forecast from {str(example.reference).replace('T', ' ').removesuffix(':00')} UTC"
    figure.suptitle(f"{title} (grey: missing)", fontsize=11)
    return figure


def _panels(rows: int, columns: int, *, width: float, height: float, **shared) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns + 1, height * rows + 0.6), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def unit(evaluation: Evaluation) -> str:
    return "mm/h" if is_rain(evaluation) else ""


def colour_scale(evaluation: Evaluation) -> tuple[Colormap, Normalize]:
    """Colours of rain from 0.1 to 100 mm/h, white when dry, grey when missing; one scale for a quantity in [0, 1]."""
    if not is_rain(evaluation):
        return matplotlib.colormaps["magma"].with_extremes(bad=MISSING_COLOUR), Normalize(0, 1)
    colours = ListedColormap(RAIN_COLOURS).with_extremes(under="white", over="#7b2cbf", bad=MISSING_COLOUR)
    return colours, BoundaryNorm(RAIN_LEVELS, len(RAIN_COLOURS))


def as_html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """One page that needs nothing beside it."""
    images = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for name, content in pictures.items()
    )
    records = html.escape(", ".join(evaluation.records))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>nowcast: scores</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
        "pre{overflow-x:auto;background:#f4f4f4;padding:1em}img{max-width:100%;display:block;margin:1em 0}</style>"
        f"<h1>Scores of {html.escape(', '.join(evaluation.blocks))}</h1>"
        f"<p>{evaluation.num_cases:,} cases of {records}; every forecaster on the same cases and under one common mask. "
        "An event is a value at or above the threshold; counts are pooled over cases.</p>"
        f"<pre>{html.escape(table(evaluation))}</pre>{images}<p>nowcast {__version__}</p></html>\n"
    )


def draw_training(metrics: Path) -> Figure:
    """Loss of training and validation, and CSI beside persistence, against the step, from metrics.jsonl."""
    events = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, axes = _panels(1, 2, width=4.5, height=3.5)
    left, right = axes[0]
    for split in ("training", "validation"):
        mine = [event for event in events if event["split"] == split]
        left.plot([e["step"] for e in mine], [e["loss"] for e in mine], marker=".", label=split)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend()
    validation = [event for event in events if event["split"] == "validation"]
    for n, threshold in enumerate(validation[0]["csi"] if validation else ()):
        for key, style, label in (("csi", ".-", f"≥ {threshold}"), ("persistence_csi", ":", None)):
            values = [np.nan if e[key][threshold] is None else e[key][threshold] for e in validation]
            right.plot([e["step"] for e in validation], values, style, color=f"C{n}", label=label)
    right.set(xlabel="step", ylabel="CSI (dotted: persistence)")
    if validation:
        right.legend()
    return figure
