"""What people look at: the table, scores.nc / .csv / .json, pictures, report.html, and the curve of a training.

Undefined values are "–" in tables, empty in CSV, null in JSON and NaN in NetCDF. Pictures have north at the top.
"""

import base64
import csv
import html
import io
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from nowcast import __version__
from nowcast.atomic import replacing
from nowcast.errors import OutputError
from nowcast.evaluation import Evaluation
from nowcast.metrics import MIN_BLOCKS, SCORES, Sums
from nowcast.run_folder import read_events

COLUMNS = ("forecaster", "lead_minutes", "threshold", "scale_km", "score", "value", "low", "high", "num_cases", "num_pairs")
SCORES_NC, SCORES_CSV, SCORES_JSON = "scores.nc", "scores.csv", "scores.json"
LEADS_PNG, MAPS_PNG, REPORT_HTML = "scores_by_lead.png", "forecasts.png", "report.html"
FILES = (REPORT_HTML, SCORES_CSV, SCORES_JSON, SCORES_NC, LEADS_PNG, MAPS_PNG)
TABLE_LEADS = 12  # columns; of more leads the table shows some, the files hold all
HIGHEST_BIAS = 3.0  # where the picture is cut off: with few events a frequency bias can be anything
RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # mm/h
RAIN_COLOURS = ("#c9e8f5", "#8fcdec", "#4a9fd8", "#1f68b0", "#2b8a3e", "#8ac926", "#ffd60a", "#f77f00", "#d00000")
MISSING_COLOUR = "#d9d9d9"


def table(evaluation: Evaluation) -> str:
    """The scores pooled over leads, then CSI by lead at the threshold nearest to 1, as text."""
    pooled = {name: evaluation.total(name).pooled() for name in evaluation.blocks}
    header = [
        "pooled over leads",
        *(f"CSI≥{t:g}" for t in evaluation.thresholds),
        *(f"bias≥{t:g}" for t in evaluation.thresholds),
    ]
    header += ["MAE", "RMSE", "corr", "cases", "pairs"]
    rows = [header]
    for name, total in pooled.items():
        scores = [*SCORES["csi"](total)[0], *SCORES["frequency_bias"](total)[0]]
        scores += [SCORES[score](total)[0] for score in ("mae", "rmse", "correlation")]
        rows.append([name, *map(number, scores), f"{evaluation.num_cases:,}", f"{int(total.num_pairs[0]):,}"])
    return "\n".join([*_align(rows), "", *_align(_csi_by_lead(evaluation)), "", confidence(evaluation)])


def _csi_by_lead(evaluation: Evaluation) -> list[list[str]]:
    middle, leads = nearest_threshold(evaluation), np.arange(len(evaluation.lead_minutes))
    shown = leads[:: math.ceil(len(leads) / TABLE_LEADS)]
    rows = [[f"CSI≥{evaluation.thresholds[middle]:g} at minute", *(f"{evaluation.lead_minutes[n]:g}" for n in shown)]]
    for name in evaluation.blocks:
        rows.append([name, *map(number, SCORES["csi"](evaluation.total(name))[shown, middle])])
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
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows
    ]


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


def as_dataset(evaluation: Evaluation, rows: Iterable[Mapping]) -> xr.Dataset:
    """The rows as arrays: `csi`, `csi_low`, `csi_high` by lead, `csi_pooled…` and `csi_mean_over_leads…` of all leads.

    Beside them stand the sums by block, which can be added to those of other evaluations.
    """
    names = list(evaluation.blocks)
    blocks = list(evaluation.blocks[names[0]])
    coordinates = {
        "forecaster": names,
        "lead_minutes": ("lead_minutes", np.array(evaluation.lead_minutes), {"long_name": "lead time", "units": "min"}),
        "threshold": ("threshold", np.array(evaluation.thresholds), {"units": "mm h-1" if is_rain(evaluation) else "1"}),
        "block": [" ".join(block) for block in blocks],
    }
    sizes = {"forecaster": names, "lead_minutes": evaluation.lead_minutes, "threshold": evaluation.thresholds}
    data = _score_arrays(rows, {dim: len(values) for dim, values in sizes.items()})
    for part in Sums.zeros(1).arrays():
        stacked = np.stack([[evaluation.blocks[name][block].arrays()[part] for block in blocks] for name in names])
        data[f"block_{part}"] = (("forecaster", "block", "lead_minutes", "threshold")[: stacked.ndim], stacked)
    data["num_cases"] = ((), evaluation.num_cases, {"long_name": "number of cases"})
    return xr.Dataset(data, coordinates, {"title": "Scores of nowcasts", "source": f"nowcast {__version__}"})


def _score_arrays(rows: Iterable[Mapping], sizes: Mapping[str, int]) -> dict[str, tuple]:
    """(dims, values, attributes) by name. The rows of a name come in the order of its dims."""
    dims, values = {}, {}
    for row in rows:
        by_lead = row["lead_minutes"] is not None
        name = row["score"] if by_lead or row["score"] not in SCORES else f"{row['score']}_pooled"
        given = {"forecaster": True, "lead_minutes": by_lead, "threshold": row["threshold"] is not None}
        for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            dims[name + suffix] = tuple(dim for dim, there in given.items() if there)
            values.setdefault(name + suffix, []).append(row[column])
    arrays = {}
    for name, found in dims.items():
        plain_name, suffixes = re.fullmatch("(.+?)((?:_pooled|_mean_over_leads|_low|_high)*)", name).groups()
        score = SCORES[plain_name]
        facts = {"long_name": score.long_name + suffixes.replace("_", " "), "units": score.units}
        arrays[name] = (found, np.reshape(values[name], [sizes[dim] for dim in found]), facts)
    return arrays


def write(evaluation: Evaluation, rows: Sequence[Mapping], output: Path, *, overwrite: bool = False) -> list[Path]:
    """Write scores.nc, .csv, .json, the pictures and report.html to the folder `output`; returns their paths.

    Raises OutputError (exit 5) where one of them exists already or cannot be written.
    """
    ready(output, overwrite=overwrite)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from None
    pictures = {LEADS_PNG: png(draw_scores(evaluation, rows)), MAPS_PNG: png(draw_maps(evaluation))}
    texts = {SCORES_CSV: as_csv(rows), SCORES_JSON: as_json(evaluation, rows), REPORT_HTML: as_html(evaluation, pictures)}
    for name, content in {**{name: text.encode() for name, text in texts.items()}, **pictures}.items():
        with replacing(output / name) as temporary:
            temporary.write_bytes(content)
    with replacing(output / SCORES_NC) as temporary:
        as_dataset(evaluation, rows).to_netcdf(temporary, engine="netcdf4")
    return [output / name for name in FILES]


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
        if row["lead_minutes"] is not None and row["score"] in panels:
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


def is_rain(evaluation: Evaluation) -> bool:
    return evaluation.quantity == "rain_rate"


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
    events = read_events(metrics)
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
