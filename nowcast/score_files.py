"""The scores as text and files: the table, scores.nc, scores.csv and scores.json.

Undefined values are "–" in the table, empty in CSV, null in JSON and NaN in NetCDF.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from nowcast import __version__
from nowcast.evaluation import Evaluation
from nowcast.metrics import MIN_BLOCKS, SCORES, Sums

COLUMNS = ("forecaster", "lead_minutes", "threshold", "scale_km", "score", "value", "low", "high", "num_cases", "num_pairs")
SCORES_NC, SCORES_CSV, SCORES_JSON = "scores.nc", "scores.csv", "scores.json"
TABLE_LEADS = 12  # columns; of more leads the table shows some, the files hold all


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


def is_rain(evaluation: Evaluation) -> bool:
    return evaluation.quantity == "rain_rate"
