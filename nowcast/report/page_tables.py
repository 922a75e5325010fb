"""Make the tables of report.html: records and forecasters, scores with confidence intervals, differences to baselines."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.evaluation.result import Evaluation, nearest_threshold, units_of
from nowcast.quantity import Quantity
from nowcast.report.diagrams import curves
from nowcast.report.maps import moment, span
from nowcast.report.sentences import UNDEFINED, number
from nowcast.scores import FIELD_KINDS, SCORES
from nowcast.scores.boxes import BOXES_KM, SUM_MINUTES

MOST_NAMED = 4  # training spans listed for a network; there can be thousands
TABLE_LEADS = 12  # most lead times in a table
MOST_COLUMNS = 8  # of numbers with intervals that fit beside one another
_ZERO = r"[+−]?0(\.0+)?"  # `number` writes only 0 so
_NOTHING = re.compile(rf"–|{_ZERO}( \[{_ZERO}, {_ZERO}\])?")  # a cell that is undefined or 0, as both ends of its interval
_ACRONYMS = ("csi", "pod", "far", "pofd", "hss", "hk", "ets", "f1", "mae", "mse", "rmse", "ssim", "fss")
_NAMES = {name: name.upper() for name in _ACRONYMS} | {
    **{
        name: name.replace("brier", "Brier").replace("_", " ")
        for name, score in SCORES.items()
        if score.kind not in FIELD_KINDS
    },
    "b_mae": "B-MAE",
    "b_mse": "B-MSE",
    "fss_useful": "useful FSS",
    "brier": "Brier score",
    "crps": "CRPS",
    "crps_fair": "fair CRPS",
    "crps_ecdf": "CRPS (ecdf)",
    "roc_area": "ROC area",
    "mean_rmse": "RMSE of the mean",
}


@dataclass(frozen=True)
class Table:
    """A table of text; the first column holds the names of the rows. Without rows it is a sentence, the note."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    closed: bool = False  # True: shown after a click on its title


def fitted(tables: Iterable[Table]) -> list[Table]:
    """Return tables without columns of zeros, turned round or cut where they are too wide for a page."""
    return [part for table in tables for part in _cut(_turned(_without_zeros(table)))]


def _without_zeros(table: Table) -> Table:
    """Return a table without the columns that are 0 or undefined in every row; its note says which."""
    is_shown = [True, *(not all(_NOTHING.fullmatch(row[n]) for row in table.rows) for n in range(1, len(table.header)))]
    if all(is_shown) or not table.rows:
        return table
    names = [name for name, shown in zip(table.header, is_shown, strict=True) if not shown]
    left_out = f"Left out, because 0 or undefined for all: {'; '.join(names)}."  # names hold commas
    if sum(is_shown) == 1:
        return replace(
            table, header=table.header[:1], rows=[], note="left out, because every score is 0 or undefined for all forecasters."
        )
    rows = [[cell for cell, shown in zip(row, is_shown, strict=True) if shown] for row in table.rows]
    header = [name for name, shown in zip(table.header, is_shown, strict=True) if shown]
    return replace(table, header=header, rows=rows, note=f"{table.note} {left_out}".strip())


def _turned(table: Table) -> Table:
    """Return a table with rows and columns exchanged if that makes it narrow enough."""
    if len(table.header) <= 1 + MOST_COLUMNS or len(table.rows) >= len(table.header) - 1:
        return table
    header, *rows = zip(table.header, *table.rows, strict=True)
    return replace(table, header=["", *header[1:]], rows=[list(row) for row in rows])


def _cut(table: Table) -> Iterable[Table]:
    """Yield a table in parts of at most MOST_COLUMNS columns beside the names."""
    count = len(table.header) - 1
    num_parts = max(math.ceil(count / MOST_COLUMNS), 1)
    for part in range(num_parts):
        columns = [0, *range(1 + part * count // num_parts, 1 + (part + 1) * count // num_parts)]
        is_last = part == num_parts - 1
        yield replace(
            table,
            title=table.title if not part else f"{table.title} (continued)",
            header=[table.header[n] for n in columns],
            rows=[[row[n] for n in columns] for row in table.rows],
            note=table.note if is_last else "",
        )


def about_tables(evaluation: Evaluation) -> list[Table]:
    """Return the tables that describe the records and the forecasters."""
    return [*_about_records(evaluation), *_about_forecasters(evaluation)]


def _about_records(evaluation: Evaluation) -> Iterable[Table]:
    records = evaluation.about.get("records", [])
    header = ["record", "variable", "observed", "frames", "grid", "cases", "institution"]
    rows = [
        [
            record["name"],
            record["variable"],
            _span(record["first_frame"], record["last_frame"]),
            f"{record['num_frames']:,} every {record['step_minutes']:g} min",
            record["grid"],
            f"{record['num_cases']:,}, {_span(record['first_case'], record['last_case'])}",
            record["institution"],
        ]
        for record in records
    ]
    if rows:
        yield Table("Observed", header, rows)
    else:
        yield Table("Observed", ["record"], [[name] for name in evaluation.records])


def _span(first: str, last: str) -> str:
    return span(np.datetime64(first, "s"), np.datetime64(last, "s"))


def _about_forecasters(evaluation: Evaluation) -> Iterable[Table]:
    rows = []
    for name, description in evaluation.about.get("forecasters", {}).items():
        trained = [f"{record}, {moment(start)} to {moment(end)}" for record, start, end in description.get("trained_on", [])]
        named = "; ".join(trained[:MOST_NAMED]) + (f"; and {len(trained) - MOST_NAMED:,} more" if trained[MOST_NAMED:] else "")
        rows.append([name, description["kind"], description["what"], description.get("digest", ""), named])
    if rows:
        yield Table("Forecasters", ["forecaster", "kind", "what it is", "checkpoint SHA-256", "trained on"], rows)


def score_tables(evaluation: Evaluation, rows: Sequence[Mapping]) -> list[Table]:
    """Return the main tables of scores, then closed ones with every score, as wide as the page."""
    overall = _overall(rows)
    by_threshold = [_by_threshold(evaluation, overall, score) for score in ("csi", "frequency_bias")]
    tables = [*by_threshold, _errors(evaluation, overall), _csi_by_lead(evaluation, rows), *_differences(evaluation, overall)]
    return fitted([*tables, *_full_tables(evaluation, overall)])


def _overall(rows: Sequence[Mapping]) -> dict[tuple, Mapping]:
    """Return the rows for all lead times, by (forecaster, baseline or None, score, threshold, scale)."""
    columns = ("forecaster", "against", "score", "threshold", "scale_km")
    return {tuple(row[column] for column in columns): row for row in rows if row["lead_minutes"] is None}


def _by_threshold(evaluation: Evaluation, overall: Mapping[tuple, Mapping], score: str) -> Table:
    header = ["forecaster", *_levels(evaluation)]
    cells = [
        [name, *(_cell(overall.get((name, None, score, t, None))) for t in evaluation.thresholds)] for name in evaluation.blocks
    ]
    name = heading(score, evaluation.quantity)
    return Table(f"{name[0].upper()}{name[1:]}, all leads pooled", header, cells)


def _levels(evaluation: Evaluation) -> list[str]:
    return [level_name(evaluation, threshold) for threshold in evaluation.thresholds]


def level_name(evaluation: Evaluation, threshold: float) -> str:
    """Return the name of an event, such as "≥ 1 mm/h"."""
    return f"≥ {threshold:g} {evaluation.quantity.unit}".rstrip()


def _errors(evaluation: Evaluation, overall: Mapping[tuple, Mapping]) -> Table:
    scores = [name for name, score in SCORES.items() if score.kind in FIELD_KINDS and score.axes == ("lead",)]
    cells = []
    for name in evaluation.forecasters_with("pairs"):
        values = [_cell(overall.get((name, None, score, None, None))) for score in scores]
        pairs = overall[name, None, "mae", None, None]["num_pairs"]
        cells.append([name, *values, f"{evaluation.num_cases:,}", f"{pairs:,}"])
    return Table(
        "Scores without a threshold, all leads pooled", ["forecaster", *_headings(evaluation, scores), "cases", "pairs"], cells
    )


def heading(score: str, quantity: Quantity) -> str:
    """Return the name of a score of a quantity for people, with its unit."""
    units = {"mm h-1": "mm/h", "mm2 h-2": "(mm/h)²", "km": "km", "mm": "mm"}.get(units_of(SCORES[score], quantity))
    name = _NAMES.get(score, score.replace("_", " "))
    return name + (f", {units}" if units else "")


def _headings(evaluation: Evaluation, scores: Iterable[str]) -> list[str]:
    return [heading(score, evaluation.quantity) for score in scores]


def _cell(row: Mapping | None, form: str = ".3f") -> str:
    if row is None or not math.isfinite(row["value"]):
        return UNDEFINED
    has_interval = math.isfinite(row["low"]) and math.isfinite(row["high"])
    interval = f" [{number(row['low'], form)}, {number(row['high'], form)}]" if has_interval else ""
    text = number(row["value"], form) + interval
    return text.replace("-", "−")


def _csi_by_lead(evaluation: Evaluation, rows: Sequence[Mapping]) -> Table:
    threshold = evaluation.thresholds[nearest_threshold(evaluation)]
    leads = [evaluation.lead_minutes[n] for n in evenly_spaced(len(evaluation.lead_minutes), TABLE_LEADS)]
    csi = curves(rows, "csi", threshold=threshold)
    values = {(name, lead): value for name, points in csi.items() for lead, value in points[:, :2].tolist()}
    cells = [[name, *(number(values[name, lead]) for lead in leads)] for name in csi]
    title = f"CSI {level_name(evaluation, threshold)} by lead time, minutes"
    return Table(title, ["forecaster", *(f"{lead:g}" for lead in leads)], cells)


def _differences(evaluation: Evaluation, overall: Mapping[tuple, Mapping]) -> Iterable[Table]:
    """Yield a table of CSI, MAE and RMSE minus those of each baseline; baselines themselves only if nothing else was scored."""
    names = [name for name in evaluation.blocks if name not in evaluation.baselines] or evaluation.baselines
    header = ["", *(f"CSI {level}" for level in _levels(evaluation)), *_headings(evaluation, ("mae", "rmse"))]
    wanted = [*(("csi", t) for t in evaluation.thresholds), ("mae", None), ("rmse", None)]
    level = evaluation.thresholds[0]
    pairs = [(n, other) for n in names for other in evaluation.baselines if (n, other, "csi", level, None) in overall]
    cells = [
        [f"{name} − {other}", *(_cell(overall.get((name, other, score, t, None)), "+.3f") for score, t in wanted)]
        for name, other in pairs
    ]
    if cells:
        note = (
            "Above 0 is better for CSI, below 0 for MAE and RMSE. Intervals are paired: both forecasters are resampled "
            "with the same days. If an interval does not contain 0, the difference is significant at the 5 % level."
        )
        yield Table("Difference to each baseline, all leads pooled", header, cells, note)


def _full_tables(evaluation: Evaluation, overall: Mapping[tuple, Mapping]) -> Iterable[Table]:
    """Yield closed tables of every score at each threshold, and of FSS at each scale."""
    scores = [name for name, score in SCORES.items() if score.kind == "pairs" and score.needs_threshold]
    scales = sorted({scale for _, _, score, _, scale in overall if score == "fss"})
    for threshold in evaluation.thresholds:
        level = level_name(evaluation, threshold)
        cells = [[name, *(_cell(overall.get((name, None, s, threshold, None))) for s in scores)] for name in evaluation.blocks]
        yield Table(f"All scores {level}, all leads pooled", ["forecaster", *_headings(evaluation, scores)], cells, closed=True)
        if scales:
            cells = [[n, *(_cell(overall.get((n, None, "fss", threshold, s))) for s in scales)] for n in evaluation.blocks]
            header = ["forecaster", *(f"{scale:g} km" for scale in scales)]
            yield Table(f"FSS {level} by scale, all leads pooled", header, cells, closed=True)


def probability_tables(evaluation: Evaluation, rows: Sequence[Mapping]) -> list[Table]:
    """Return tables of the scores of probabilities at each threshold, and of the scores of ensembles, as wide as the page."""
    overall, by_threshold = _overall(rows), [name for name, score in SCORES.items() if score.kind == "probabilities"]
    names, tables = evaluation.forecasters_with("probabilities"), []
    for threshold in evaluation.thresholds:
        keys = [[(name, None, score, threshold, None) for score in by_threshold] for name in names]
        cells = [[name, *(_cell(overall.get(key), ".4f") for key in own)] for name, own in zip(names, keys, strict=True)]
        title = f"Probabilities of {level_name(evaluation, threshold)}, all leads pooled"
        tables.append(Table(title, ["forecaster", *_headings(evaluation, by_threshold)], cells))
    kinds = ("distribution", "members")
    of_members = [name for name, score in SCORES.items() if score.kind in kinds]
    names = [name for name in evaluation.blocks if any(name in evaluation.forecasters_with(kind) for kind in kinds)]
    cells = [[name, *(_cell(overall.get((name, None, score, None, None))) for score in of_members)] for name in names]
    if cells:
        header = ["forecaster", *_headings(evaluation, of_members)]
        tables.append(Table("Distributions and ensembles, all leads pooled", header, cells))
    return fitted(tables)


def sum_tables(evaluation: Evaluation, rows: Sequence[Mapping]) -> list[Table]:
    """Return a table of the scores of the rain of 30 and of 60 minutes, at cells and in boxes, as wide as the page."""
    overall, tables = _overall(rows), []
    for minutes in SUM_MINUTES:
        names = evaluation.forecasters_with(f"members_{minutes}_min")
        if not names:
            continue
        places = {side: f"{side:g} km" if side else "cells" for side in BOXES_KM}
        scores = {"crps_fair": "fair CRPS, mm", "mean_rmse": "RMSE of the mean, mm", "spread_skill": "spread / RMSE"}
        header = [f"{short}, {place}" for short in scores.values() for place in places.values()]
        keys = [(f"sum_{minutes}_min_{score}", None, side) for score in scores for side in places]
        cells = [[name, *(_cell(overall.get((name, None, *key))) for key in keys)] for name in names]
        tables.append(Table(f"Rain of {minutes} minutes, all leads pooled", ["forecaster", *header], cells))
    return fitted(tables)
