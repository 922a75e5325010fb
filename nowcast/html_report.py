"""report.html: what was scored on what, the tables, the diagrams and the cases to look at, in one file.

The page needs nothing beside it and runs no script: its content security policy forbids both. Its words, names and numbers
are put into report.html (a Jinja template), which escapes every one of them.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from nowcast import __version__
from nowcast.diagrams import (
    HIGHEST_RATIO,
    Style,
    curves,
    draw_bias,
    draw_fss,
    draw_lead,
    draw_performance,
    draw_spectrum,
    draw_spectrum_ratio,
    highest,
    panel,
    styles,
)
from nowcast.examples import Example
from nowcast.findings import findings
from nowcast.metrics import SCORES
from nowcast.pictures import moment, svg, unit
from nowcast.probability_diagrams import draw_ranks, draw_reliability, draw_roc
from nowcast.probability_scores import PROBABILITY_SCORES, ensemble_size
from nowcast.score_files import confidence, number
from nowcast.scored import EVERY_SCORE, Evaluation, nearest_threshold
from nowcast.thinning import spread

MOST_THRESHOLDS = 6  # that have diagrams of their own; the tables have all
SPECTRUM_LEADS = 2
MOST_NAMED = 4  # training spans; there can be thousands
TABLE_LEADS = 12  # columns
UNDEFINED = "–"
_ACRONYMS = ("csi", "pod", "far", "pofd", "hss", "hk", "ets", "f1", "mae", "mse", "rmse", "ssim", "fss")
_NAMES = {name: name.upper() for name in _ACRONYMS} | {
    **{name: name.replace("brier", "Brier").replace("_", " ") for name in PROBABILITY_SCORES},
    "b_mae": "B-MAE",
    "b_mse": "B-MSE",
    "fss_useful": "useful FSS",
    "brier": "Brier score",
    "crps_fair": "fair CRPS",
    "crps_ecdf": "CRPS (ecdf)",
    "roc_area": "ROC area",
    "mean_rmse": "RMSE of the mean",
}
_FORMATS = {b"GIF8": "gif", b"\x89PNG": "png"}


@dataclass(frozen=True)
class Table:
    """Text in rows; the first column names the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    closed: bool = False  # opened by a click


@dataclass(frozen=True)
class Picture:
    """An image inside the page; `wide` ones have a line of their own."""

    title: str
    content: bytes
    wide: bool = False

    @property
    def source(self) -> str:
        kind = _FORMATS.get(self.content[:4], "svg+xml")
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Section:
    """A heading, what to see below it, and tables or groups of pictures, which may be `large`.

    A `legend` gives the forecasters' colours.
    """

    title: str
    text: str
    pictures: Sequence[Sequence[Picture]] = ()
    tables: Sequence[Table] = ()
    legend: bool = False
    large: bool = False


def as_html(
    evaluation: Evaluation, rows: Sequence[Mapping], maps: Sequence[bytes], animations: Sequence[bytes], *, command: str = ""
) -> str:
    """The page, from the tidy rows; `maps` and `animations` are the pictures of the evaluation's examples."""
    how = styles(evaluation.blocks)
    sections = [
        _tables(evaluation, rows),
        _by_lead(evaluation, rows, how),
        _performance(evaluation, rows, how),
        *_scales(evaluation, rows, how),
        *_spectra(evaluation, rows, how),
        *_probabilities(evaluation, rows, how),
        *_cases(evaluation, maps, animations),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        names=list(evaluation.blocks),
        summary=_summary(evaluation),
        about=[*_about_records(evaluation), *_about_forecasters(evaluation)],
        warnings=_warnings(evaluation),
        findings=findings(evaluation),
        sections=sections,
        legend=how,
        command=command,
        version=__version__,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _summary(evaluation: Evaluation) -> list[str]:
    """What was done, in a few sentences."""
    thresholds = ", ".join(f"{threshold:g}" for threshold in evaluation.thresholds)
    first, last = evaluation.lead_minutes[0], evaluation.lead_minutes[-1]
    records = len(evaluation.records)
    cases, days = evaluation.num_cases, evaluation.num_blocks
    what = f"{cases:,} case{_s(cases)} of {records} record{_s(records)}, on {days} day{_s(days)}"
    mask = "the observation and every forecast are known"
    return [
        f"{what}, were forecast for {first:g} to {last:g} minutes ahead.",
        f"Every forecaster is scored on the same cases and under one mask: a pixel counts at a lead time only where {mask}.",
        f"An event is a value at or above a threshold: {thresholds} {unit(evaluation.quantity)}".rstrip() + ".",
        "Counts are added over all cases before a score is computed from them.",
        confidence(evaluation),
    ]


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _about_records(evaluation: Evaluation) -> Iterable[Table]:
    records = evaluation.about.get("records", [])
    header = ["record", "variable", "observed", "frames", "step", "grid", "cases", "first case", "last case", "institution"]
    rows = [
        [
            record["name"],
            record["variable"],
            f"{moment(record['first_frame'])} to {moment(record['last_frame'])}",
            f"{record['num_frames']:,}",
            f"{record['step_minutes']:g} min",
            record["grid"],
            f"{record['num_cases']:,}",
            moment(record["first_case"]),
            moment(record["last_case"]),
            record["institution"],
        ]
        for record in records
    ]
    if rows:
        yield Table("Observed", header, rows)
    else:
        yield Table("Observed", ["record"], [[name] for name in evaluation.records])


def _about_forecasters(evaluation: Evaluation) -> Iterable[Table]:
    rows = []
    for name, facts in evaluation.about.get("forecasters", {}).items():
        trained = [f"{record}, {moment(start)} to {moment(end)}" for record, start, end in facts.get("trained_on", [])]
        named = "; ".join(trained[:MOST_NAMED]) + (f"; and {len(trained) - MOST_NAMED:,} more" if trained[MOST_NAMED:] else "")
        rows.append([name, facts["kind"], facts["what"], facts.get("digest", ""), named])
    if rows:
        yield Table("Forecasters", ["forecaster", "kind", "what it is", "checkpoint SHA-256", "trained on"], rows)


def _warnings(evaluation: Evaluation) -> list[str]:
    """What must not be overlooked."""
    found = []
    for name, facts in evaluation.about.get("forecasters", {}).items():
        if number := facts.get("num_cases_in_training", 0):
            text = f"{number:,} of the {evaluation.num_cases:,} cases lie in the time that {name} was trained on"
            found.append(f"{text}: its scores on these are no forecast of how good it will be.")
    return found


def _tables(evaluation: Evaluation, rows: Sequence[Mapping]) -> Section:
    text = (
        "In brackets the 95 % interval. “–” is undefined, because nothing was observed or forecast; it is never counted as 0."
    )
    found = _overall(rows)
    by_threshold = [_by_threshold(evaluation, found, score) for score in ("csi", "frequency_bias")]
    tables = [*by_threshold, _errors(evaluation, found), _csi_by_lead(evaluation, rows), *_differences(evaluation, found)]
    return Section("Scores", text, tables=[*tables, *_full_tables(evaluation, found)])


def _overall(rows: Sequence[Mapping]) -> dict[tuple, Mapping]:
    """The rows of all leads pooled, by forecaster, the baseline it is compared with or None, score, threshold and scale."""
    columns = ("forecaster", "against", "score", "threshold", "scale_km")
    return {tuple(row[column] for column in columns): row for row in rows if row["lead_minutes"] is None}


def _by_threshold(evaluation: Evaluation, found: Mapping[tuple, Mapping], score: str) -> Table:
    header = ["forecaster", *_levels(evaluation)]
    cells = [
        [name, *(_cell(found.get((name, None, score, t, None))) for t in evaluation.thresholds)] for name in evaluation.blocks
    ]
    name = _heading(score)
    return Table(f"{name[0].upper()}{name[1:]}, all leads pooled", header, cells)


def _levels(evaluation: Evaluation) -> list[str]:
    return [_level(evaluation, threshold) for threshold in evaluation.thresholds]


def _level(evaluation: Evaluation, threshold: float) -> str:
    return f"≥ {threshold:g} {unit(evaluation.quantity)}".rstrip()


def _errors(evaluation: Evaluation, found: Mapping[tuple, Mapping]) -> Table:
    scores = [name for name, score in SCORES.items() if score.axes == ("lead",)]
    cells = []
    for name in evaluation.having("pairs"):
        values = [_cell(found.get((name, None, score, None, None))) for score in scores]
        pairs = found[name, None, "mae", None, None]["num_pairs"]
        cells.append([name, *values, f"{evaluation.num_cases:,}", f"{pairs:,}"])
    return Table(
        "Scores without a threshold, all leads pooled", ["forecaster", *map(_heading, scores), "cases", "pairs"], cells
    )


def _heading(score: str) -> str:
    units = {"mm h-1": "mm/h", "mm2 h-2": "(mm/h)²", "km": "km"}.get(EVERY_SCORE[score].units)
    name = _NAMES.get(score, score.replace("_", " "))
    return name + (f", {units}" if units else "")


def _cell(row: Mapping | None, form: str = ".3f") -> str:
    if row is None or not math.isfinite(row["value"]):
        return UNDEFINED
    given = math.isfinite(row["low"]) and math.isfinite(row["high"])
    text = f"{row['value']:{form}}" + (f" [{row['low']:{form}}, {row['high']:{form}}]" if given else "")
    return text.replace("-", "−")


def _csi_by_lead(evaluation: Evaluation, rows: Sequence[Mapping]) -> Table:
    threshold = evaluation.thresholds[nearest_threshold(evaluation)]
    leads = [evaluation.lead_minutes[n] for n in spread(len(evaluation.lead_minutes), TABLE_LEADS)]
    found = curves(rows, "csi", threshold=threshold)
    values = {(name, lead): value for name, points in found.items() for lead, value in points[:, :2].tolist()}
    cells = [[name, *(number(values[name, lead]) for lead in leads)] for name in found]
    title = f"CSI {_level(evaluation, threshold)} by lead time, minutes"
    return Table(title, ["forecaster", *(f"{lead:g}" for lead in leads)], cells)


def _differences(evaluation: Evaluation, found: Mapping[tuple, Mapping]) -> Iterable[Table]:
    """CSI and errors less those of each baseline, of the forecasters that are no baselines (or of all, where all are)."""
    names = [name for name in evaluation.blocks if name not in evaluation.baselines] or evaluation.baselines
    header = ["", *(f"CSI {level}" for level in _levels(evaluation)), _heading("mae"), _heading("rmse")]
    wanted = [*(("csi", t) for t in evaluation.thresholds), ("mae", None), ("rmse", None)]
    level = evaluation.thresholds[0]
    pairs = [(n, other) for n in names for other in evaluation.baselines if (n, other, "csi", level, None) in found]
    cells = [
        [f"{name} − {other}", *(_cell(found.get((name, other, score, t, None)), "+.3f") for score, t in wanted)]
        for name, other in pairs
    ]
    if cells:
        note = (
            "Above 0 is better for CSI, below 0 for the errors. Intervals are paired: both sides are drawn from the same days. "
            "An interval on one side of 0 is more than chance."
        )
        yield Table("Difference to each baseline, all leads pooled", header, cells, note)


def _full_tables(evaluation: Evaluation, found: Mapping[tuple, Mapping]) -> Iterable[Table]:
    """Every score at every threshold, and FSS at every scale."""
    scores = [name for name, score in SCORES.items() if score.axes == ("lead", "threshold")]
    scales = sorted({scale for _, _, score, _, scale in found if score == "fss"})
    for threshold in evaluation.thresholds:
        level = _level(evaluation, threshold)
        cells = [[name, *(_cell(found.get((name, None, s, threshold, None))) for s in scores)] for name in evaluation.blocks]
        yield Table(f"All scores {level}, all leads pooled", ["forecaster", *map(_heading, scores)], cells, closed=True)
        if scales:
            cells = [[n, *(_cell(found.get((n, None, "fss", threshold, s))) for s in scales)] for n in evaluation.blocks]
            header = ["forecaster", *(f"{scale:g} km" for scale in scales)]
            yield Table(f"FSS {level} by scale, all leads pooled", header, cells, closed=True)


def _by_lead(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Section:
    chosen, groups = _shown(evaluation), []
    for score, label in (("csi", "CSI"), ("frequency_bias", "frequency bias")):
        titles = [f"{label} {_level(evaluation, threshold)}" for threshold in chosen]
        top = highest(rows, score)
        groups.append([_curve(rows, score, how, label, *of, top=top) for of in zip(titles, chosen, strict=True)])
    having = {row["score"] for row in rows}
    scores = [s for s in ("mae", "rmse", "correlation", "ssim") if s in having]
    groups.append([_curve(rows, score, how, _heading(score), _heading(score)) for score in scores])
    text = (
        "How fast each forecast loses its skill. Shaded are 95 % intervals, where there are enough days for them. Read the "
        "frequency bias beside CSI: far below 1, the rain is missing from the forecast; far above, there is too much."
    )
    return Section("Scores against lead time", text, groups, legend=True)


def _shown(evaluation: Evaluation) -> list[float]:
    """The thresholds that have diagrams of their own."""
    return [evaluation.thresholds[n] for n in spread(len(evaluation.thresholds), MOST_THRESHOLDS)]


def _curve(
    rows: Sequence[Mapping],
    score: str,
    how: Mapping[str, Style],
    label: str,
    title: str,
    threshold: float | None = None,
    *,
    top: float | None = None,
) -> Picture:
    figure, axes = panel()
    draw_lead(axes, rows, score, how, label=label, threshold=threshold, top=top)
    return _drawn(title, figure)


def _drawn(title: str, figure: Figure) -> Picture:
    return Picture(title, svg(figure))


def _performance(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Section:
    level, unit_ = evaluation.thresholds[nearest_threshold(evaluation)], unit(evaluation.quantity)
    text = (
        "First two: best is the upper right corner. Along a grey curve CSI is the same; along a dashed line the "
        "frequency bias, whose value stands at its end: above the diagonal too much rain is forecast, below it too little. "
        "Last: a line that falls with the threshold is a forecast that smooths its heavy rain away (cut off at 1/8 and 8)."
    )
    pictures = [
        _drawn("All leads pooled, by threshold", draw_performance(rows, how)),
        _drawn(f"{_level(evaluation, level)}, by lead time in minutes", draw_performance(rows, how, threshold=level)),
        _drawn("Frequency bias by threshold, all leads pooled", draw_bias(rows, how, unit_)),
    ]
    return Section("Performance diagrams and bias", text, [pictures], legend=True, large=True)


def _scales(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    if any(row["score"] == "fss" for row in rows):
        text = (
            "How well rain is placed when it may be off by so much: the fraction of the area with rain is compared in windows "
            "of each scale. Above the dashed line, half way between a random forecast and a perfect one, it is useful."
        )
        pictures = [_drawn(f"FSS {_level(evaluation, t)}", draw_fss(rows, how, t)) for t in _shown(evaluation)]
        yield Section("Fractions skill score by scale", text, [pictures], legend=True)


def _spectra(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    sums = {name: evaluation.total(name, "spectra") for name in evaluation.having("spectra")}
    first = next(iter(sums.values()), None)
    if first is None or not first.power_o.any():
        return
    text = (
        "How much detail there is at each wavelength, wherever it lies. A forecast whose line falls below the observed one "
        "(black) is blurred. Its effective resolution is the wavelength below which it has less than half of the observed "
        "power (dashed); what it shows at shorter ones is not what weather looks like. The third picture "
        f"pools all leads, and is cut off at {HIGHEST_RATIO:g}."
    )
    pictures = []
    for lead in spread(len(evaluation.lead_minutes), SPECTRUM_LEADS):
        cases = np.maximum(first.num_cases[lead], 1)
        forecasts = {name: mine.power_f[lead] / cases for name, mine in sums.items()}
        figure = draw_spectrum(np.array(first.wavelengths_km), first.power_o[lead] / cases, forecasts, how)
        pictures.append(_drawn(f"Power at +{evaluation.lead_minutes[lead]:g} min", figure))
    pictures.append(_drawn("Forecast / observed power", draw_spectrum_ratio(rows, how)))
    resolution = _heading("effective_resolution")
    pictures.append(_curve(rows, "effective_resolution", how, resolution, resolution.capitalize()))
    yield Section("Spectra", text, [pictures], legend=True)


def _probabilities(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    names = evaluation.having("probabilities")
    if not names:
        return
    text = (
        "Reliability: of all pixels that were given a probability, the share that had the event; on the diagonal it is what it "
        "should be, below it the forecast is too sure of rain. ROC: the farther to the upper left, the better events and "
        "non-events are told apart. Ranks: a reliable ensemble is flat, one with too little spread is high at both ends. "
        "A deterministic forecast is an ensemble of one."
    )
    sums = {name: evaluation.total(name, "probabilities").pooled() for name in names}
    levels = [(evaluation.thresholds.index(threshold), _level(evaluation, threshold)) for threshold in _shown(evaluation)]
    groups = [
        [_drawn(f"Reliability {level}", draw_reliability(sums, column, how)) for column, level in levels],
        [_drawn(f"ROC {level}", draw_roc(sums, column, how)) for column, level in levels],
    ]
    members = {name: evaluation.total(name, "members").pooled() for name in evaluation.having("members")}
    ensembles = {name: mine for name, mine in members.items() if ensemble_size(mine)[0] > 1}
    if members:
        scores = [score for score in ("crps_fair", "spread", "mean_rmse") if ensembles or score == "crps_fair"]
        groups.append([_curve(rows, score, how, _heading(score), _heading(score)) for score in scores])
        ranked = [_drawn(f"Ranks: {name}", draw_ranks(mine, how[name])) for name, mine in ensembles.items()]
        groups[-1] += ranked
    yield Section("Probabilities", text, groups, tables=list(_probability_tables(evaluation, rows)), legend=True)


def _probability_tables(evaluation: Evaluation, rows: Sequence[Mapping]) -> Iterable[Table]:
    found, by_threshold = _overall(rows), [name for name, score in PROBABILITY_SCORES.items() if score.needs_threshold]
    names = evaluation.having("probabilities")
    for threshold in evaluation.thresholds:
        cells = [[name, *(_cell(found.get((name, None, s, threshold, None))) for s in by_threshold)] for name in names]
        title = f"Probabilities of {_level(evaluation, threshold)}, all leads pooled"
        yield Table(title, ["forecaster", *map(_heading, by_threshold)], cells)
    of_members = [name for name, score in PROBABILITY_SCORES.items() if not score.needs_threshold]
    names = evaluation.having("members")
    cells = [[name, *(_cell(found.get((name, None, score, None, None))) for score in of_members)] for name in names]
    if cells:
        yield Table("Ensembles, all leads pooled", ["forecaster", *map(_heading, of_members)], cells)


def _cases(evaluation: Evaluation, maps: Sequence[bytes], animations: Sequence[bytes]) -> Iterable[Section]:
    if not evaluation.examples:
        return
    first, level = evaluation.having("pairs")[0], evaluation.thresholds[nearest_threshold(evaluation)]
    block = evaluation.examples[0].block
    text = (
        f"Ranked by the CSI of {first} at {level:g} {unit(evaluation.quantity)}, all leads pooled, among the wetter half of "
        "the cases. Lower rows: forecast minus observed, green too much and brown too little. Grey is missing, north is up."
    )
    if block > 1:
        text += f" For display, each pixel is the mean of {block} × {block} grid cells."
    pictures = []
    for example, still, moving in zip(evaluation.examples, maps, animations, strict=True):
        pictures.append(Picture(f"{_case(example)}: maps", still, wide=True))
        pictures.append(Picture(f"{_case(example)}: animation", moving, wide=True))
    yield Section("Cases to look at", text, [pictures])


def _case(example: Example) -> str:
    case = example.case
    return f"The {example.rank} case: {case.record}, from {moment(case.reference)}, CSI {number(case.csi)}"
