"""What people look at: the table, scores.nc / .csv / .json, pictures, report.html, and the curve of a training.

Undefined values are "–" in tables, empty in CSV, null in JSON and NaN in NetCDF. Pictures have north at the top.
"""

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr

from nowcast import __version__
from nowcast.errors import OutputError
from nowcast.evaluation import Evaluation
from nowcast.atomic import replacing
from nowcast.metrics import MIN_BLOCKS, SCORES, Sums

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

COLUMNS = ("forecaster", "lead_minutes", "threshold", "scale_km", "score", "value", "low", "high", "num_cases", "num_pairs")
SCORES_NC, SCORES_CSV, SCORES_JSON = "scores.nc", "scores.csv", "scores.json"
LEADS_PNG, MAPS_PNG, REPORT_HTML = "scores_by_lead.png", "forecasts.png", "report.html"
RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
MISSING_COLOUR = "#d9d9d9"


def table(evaluation: Evaluation) -> str:
    """The scores pooled over leads, then CSI by lead at the threshold nearest to 1, as text."""
    pooled = {name: evaluation.total(name).pooled() for name in evaluation.blocks}
    header = ["pooled over leads", *(f"CSI≥{t:g}" for t in evaluation.thresholds), *(f"bias≥{t:g}" for t in evaluation.thresholds)]
    header += ["MAE", "RMSE", "corr", "cases", "pairs"]
    rows = [header]
    for name, total in pooled.items():
        scores = [*SCORES["csi"](total)[0], *SCORES["frequency_bias"](total)[0]]
        scores += [SCORES[score](total)[0] for score in ("mae", "rmse", "correlation")]
        rows.append([name, *map(number, scores), f"{evaluation.num_cases:,}", f"{int(total.num_pairs[0]):,}"])
    return "\n".join([*_align(rows), "", *_align(_csi_by_lead(evaluation)), "", confidence(evaluation)])


def _csi_by_lead(evaluation: Evaluation) -> list[list[str]]:
    middle = nearest_threshold(evaluation)
    minutes = [f"{m:g}" for m in evaluation.lead_minutes]
    rows = [[f"CSI≥{evaluation.thresholds[middle]:g} at minute", *minutes]]
    for name in evaluation.blocks:
        rows.append([name, *map(number, SCORES["csi"](evaluation.total(name))[:, middle])])
    return rows


def confidence(evaluation: Evaluation) -> str:
    """One line on what the intervals rest on."""
    blocks = f"{evaluation.num_blocks} block{'s' if evaluation.num_blocks != 1 else ''} (a record's day)"
    if evaluation.num_blocks < MIN_BLOCKS:
        return f"No interval can be given: {blocks}, at least {MIN_BLOCKS} are needed."
    return f"Intervals: 95 % block bootstrap over {blocks}, 1000 samples, seed 0."


def nearest_threshold(evaluation: Evaluation) -> int:
    """The index of the threshold nearest to 1 on a logarithmic scale."""
    return int(np.argmin(np.abs(np.log(np.maximum(evaluation.thresholds, 1e-9)))))


def number(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.3f}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows]


def as_csv(rows: Iterable[Mapping]) -> str:
    """Tidy CSV with one header line; undefined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if _undefined(value) else value for key, value in row.items()})
    return text.getvalue()


def as_json(evaluation: Evaluation, rows: Iterable[Mapping]) -> str:
    """One object: what was scored on what, and the tidy rows; undefined is null."""
    facts = {
        "nowcast": __version__,
        "quantity": evaluation.quantity,
        "records": evaluation.records,
        "num_cases": evaluation.num_cases,
        "num_blocks": evaluation.num_blocks,
        "lead_minutes": evaluation.lead_minutes,
        "thresholds": evaluation.thresholds,
    }
    scores = [{key: None if _undefined(value) else value for key, value in row.items()} for row in rows]
    return json.dumps(facts | {"scores": scores}, indent=1, allow_nan=False) + "\n"


def _undefined(value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_dataset(evaluation: Evaluation) -> xr.Dataset:
    """Scores by (forecaster, lead_time[, threshold]), and the sums by block from which they can be pooled with others."""
    names = list(evaluation.blocks)
    blocks = list(evaluation.blocks[names[0]])
    data: dict[str, tuple] = {}
    for score_name, score in SCORES.items():
        dims = ("forecaster", "lead_time", "threshold")[: 3 if score.needs_threshold else 2]
        values = np.stack([score(evaluation.total(name)) for name in names])
        data[score_name] = (dims, values, {"long_name": score.long_name, "units": score.units})
    for part in Sums.zeros(1).arrays():
        stacked = np.stack([[evaluation.blocks[name][block].arrays()[part] for block in blocks] for name in names])
        data[f"block_{part}"] = (("forecaster", "block", "lead_time", "threshold")[: stacked.ndim], stacked)
    coordinates = {
        "forecaster": names,
        "lead_time": ("lead_time", np.array(evaluation.lead_minutes), {"units": "minutes", "standard_name": "forecast_period"}),
        "threshold": ("threshold", np.array(evaluation.thresholds)),
        "block": [" ".join(block) for block in blocks],
    }
    return xr.Dataset(data, coordinates, {"title": "Scores of nowcasts", "source": f"nowcast {__version__}"})


def write(evaluation: Evaluation, output: Path, *, overwrite: bool = False) -> list[Path]:
    """Write scores.nc, .csv, .json, the pictures and report.html to the folder `output`; returns their paths.

    Raises OutputError (exit 5) where one of them exists already or cannot be written.
    """
    ready(output, overwrite=overwrite)
    rows = list(evaluation.rows())
    pictures = {LEADS_PNG: png(draw_scores(evaluation)), MAPS_PNG: png(draw_maps(evaluation))}
    texts = {SCORES_CSV: as_csv(rows), SCORES_JSON: as_json(evaluation, rows), REPORT_HTML: as_html(evaluation, pictures)}
    for name, content in {**{name: text.encode() for name, text in texts.items()}, **pictures}.items():
        with replacing(output / name) as temporary:
            temporary.write_bytes(content)
    with replacing(output / SCORES_NC) as temporary:
        as_dataset(evaluation).to_netcdf(temporary, engine="netcdf4")
    return [output / name for name in (REPORT_HTML, SCORES_CSV, SCORES_JSON, SCORES_NC, LEADS_PNG, MAPS_PNG)]


def ready(output: Path, *, overwrite: bool) -> None:
    """Make the folder; OutputError if it holds scores already and `overwrite` is not given."""
    if (output / SCORES_CSV).exists() and not overwrite:
        raise OutputError(f"{output} holds scores already: choose another --output or give --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from None


def png(figure: Figure) -> bytes:
    """The figure as PNG; the figure is closed."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return content.getvalue()


def draw_scores(evaluation: Evaluation) -> Figure:
    """CSI (solid) against lead time, one panel per threshold, and the frequency bias below it."""
    columns = len(evaluation.thresholds)
    figure, axes = plt.subplots(2, columns, figsize=(3.4 * columns, 6), sharex=True, squeeze=False)
    for column, threshold in enumerate(evaluation.thresholds):
        for row, (score, label) in enumerate((("csi", "CSI"), ("frequency_bias", "frequency bias"))):
            axis = axes[row, column]
            for name in evaluation.blocks:
                axis.plot(evaluation.lead_minutes, SCORES[score](evaluation.total(name))[:, column], marker=".", label=name)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.set_title(f"{label}, ≥ {threshold:g} {unit(evaluation.quantity)}", fontsize=10)
        axes[1, column].axhline(1, color="black", linewidth=0.8)
        axes[1, column].set_xlabel("lead time, minutes")
    axes[0, 0].legend(fontsize=8)
    return figure


def draw_maps(evaluation: Evaluation) -> Figure:
    """Observed and forecast frames of the example case: one row per forecaster, one column per lead."""
    example = evaluation.example
    rows = {"observed": example.observed, **example.forecasts}
    shape = example.observed.shape[1:]
    size = 2.6
    figure, axes = plt.subplots(
        len(rows), len(example.lead_minutes), squeeze=False, layout="constrained",
        figsize=(size * len(example.lead_minutes) + 1, size * len(rows) * shape[0] / shape[1] + 0.6),
    )  # fmt: skip
    colours, norm = colour_scale(evaluation.quantity)
    for row, (name, fields) in enumerate(rows.items()):
        for column, minutes in enumerate(example.lead_minutes):
            axis = axes[row, column]
            image = axis.imshow(fields[column], cmap=colours, norm=norm, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"+{minutes:g} min", fontsize=9)
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
    figure.colorbar(image, ax=axes, label=unit(evaluation.quantity), shrink=0.6)
    figure.suptitle(f"{example.record}, from {example.reference}Z (grey: missing)", fontsize=10)
    return figure


def colour_scale(quantity: str):
    """Colours of rain from 0.1 to 100 mm/h, white when dry, grey when missing; greys for a quantity in [0, 1]."""
    if quantity != "rain_rate":
        return matplotlib.colormaps["magma"], matplotlib.colors.Normalize(0, 1)
    colours = ListedColormap(RAIN_COLOURS, under="white", over="#7b2cbf", bad=MISSING_COLOUR)
    return colours, BoundaryNorm(RAIN_LEVELS, len(RAIN_COLOURS))


def unit(quantity: str) -> str:
    return "mm/h" if quantity == "rain_rate" else "(1)"


def as_html(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """One page that needs nothing beside it."""
    images = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for name, content in pictures.items()
    )
    records = html.escape(", ".join(evaluation.records))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>nowcast: scores</title>'
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for split in ("training", "validation"):
        mine = [event for event in events if event["split"] == split]
        left.plot([e["step"] for e in mine], [e["loss"] for e in mine], marker=".", label=split)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend()
    validation = [event for event in events if event["split"] == "validation"]
    for n, threshold in enumerate(validation[0]["csi"] if validation else ()):
        for key, style in (("csi", "-"), ("persistence_csi", ":")):
            values = [np.nan if e[key][threshold] is None else e[key][threshold] for e in validation]
            right.plot([e["step"] for e in validation], values, style, color=f"C{n}", label=f"≥ {threshold}" if style == "-" else None)
    right.set(xlabel="step", ylabel="CSI (dotted: persistence)")
    if validation:
        right.legend()
    return figure
