"""report.html: what was scored on what, the tables, the diagrams and the cases to look at, in one file.

The page needs nothing beside it and runs no script: its content security policy forbids both. Its words, names and numbers
are put into page.html (a Jinja template), which escapes every one of them.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from nowcast import __version__
from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.evaluation.examples import Example
from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.report.diagrams import (
    HIGHEST_RATIO,
    Style,
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
from nowcast.report.maps import moment, svg
from nowcast.report.page_tables import Table, about_tables, heading, level_name, probability_tables, score_tables
from nowcast.report.probability_diagrams import draw_ranks, draw_reliability, draw_roc
from nowcast.report.sentences import findings
from nowcast.report.table import confidence, number
from nowcast.scores.ensemble import ensemble_size

MOST_THRESHOLDS = 6  # that have diagrams of their own; the tables have all
SPECTRUM_LEADS = 2
TABLES_TEXT = (
    "In brackets the 95 % interval. “–” is undefined, because nothing was observed or forecast; it is never counted as 0."
)
_FORMATS = {b"GIF8": "gif", b"\x89PNG": "png"}


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
        Section("Scores", TABLES_TEXT, tables=score_tables(evaluation, rows)),
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
    return environment.get_template("page.html").render(
        names=list(evaluation.blocks),
        summary=_summary(evaluation),
        about=about_tables(evaluation),
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
        f"An event is a value at or above a threshold: {thresholds} {evaluation.quantity.unit}".rstrip() + ".",
        "Counts are added over all cases before a score is computed from them.",
        confidence(evaluation),
    ]


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _warnings(evaluation: Evaluation) -> list[str]:
    """What must not be overlooked."""
    found = []
    for name, facts in evaluation.about.get("forecasters", {}).items():
        if number := facts.get("num_cases_in_training", 0):
            text = f"{number:,} of the {evaluation.num_cases:,} cases lie in the time that {name} was trained on"
            found.append(f"{text}: its scores on these are no forecast of how good it will be.")
    return found


def _by_lead(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Section:
    chosen, groups = _shown(evaluation), []
    for score, label in (("csi", "CSI"), ("frequency_bias", "frequency bias")):
        titles = [f"{label} {level_name(evaluation, threshold)}" for threshold in chosen]
        top = highest(rows, score)
        groups.append([_curve(rows, score, how, label, *of, top=top) for of in zip(titles, chosen, strict=True)])
    having = {row["score"] for row in rows}
    scores = [s for s in ("mae", "rmse", "correlation", "ssim") if s in having]
    groups.append([_curve(rows, score, how, heading(score), heading(score)) for score in scores])
    text = (
        "How fast each forecast loses its skill. Shaded are 95 % intervals, where there are enough days for them. Read the "
        "frequency bias beside CSI: far below 1, the rain is missing from the forecast; far above, there is too much."
    )
    return Section("Scores against lead time", text, groups, legend=True)


def _shown(evaluation: Evaluation) -> list[float]:
    """The thresholds that have diagrams of their own."""
    return [evaluation.thresholds[n] for n in evenly_spaced(len(evaluation.thresholds), MOST_THRESHOLDS)]


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
    level, unit_ = evaluation.thresholds[nearest_threshold(evaluation)], evaluation.quantity.unit
    text = (
        "First two: best is the upper right corner. Along a grey curve CSI is the same; along a dashed line the "
        "frequency bias, whose value stands at its end: above the diagonal too much rain is forecast, below it too little. "
        "Last: a line that falls with the threshold is a forecast that smooths its heavy rain away (cut off at 1/8 and 8)."
    )
    pictures = [
        _drawn("All leads pooled, by threshold", draw_performance(rows, how)),
        _drawn(f"{level_name(evaluation, level)}, by lead time in minutes", draw_performance(rows, how, threshold=level)),
        _drawn("Frequency bias by threshold, all leads pooled", draw_bias(rows, how, unit_)),
    ]
    return Section("Performance diagrams and bias", text, [pictures], legend=True, large=True)


def _scales(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    if any(row["score"] == "fss" for row in rows):
        text = (
            "How well rain is placed when it may be off by so much: the fraction of the area with rain is compared in windows "
            "of each scale. Above the dashed line, half way between a random forecast and a perfect one, it is useful."
        )
        pictures = [_drawn(f"FSS {level_name(evaluation, t)}", draw_fss(rows, how, t)) for t in _shown(evaluation)]
        yield Section("Fractions skill score by scale", text, [pictures], legend=True)


def _spectra(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    sums = {name: evaluation.total(name, "spectra") for name in evaluation.forecasters_with("spectra")}
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
    for lead in evenly_spaced(len(evaluation.lead_minutes), SPECTRUM_LEADS):
        cases = np.maximum(first.num_cases[lead], 1)
        forecasts = {name: mine.power_f[lead] / cases for name, mine in sums.items()}
        figure = draw_spectrum(np.array(first.wavelengths_km), first.power_o[lead] / cases, forecasts, how)
        pictures.append(_drawn(f"Power at +{evaluation.lead_minutes[lead]:g} min", figure))
    pictures.append(_drawn("Forecast / observed power", draw_spectrum_ratio(rows, how)))
    resolution = heading("effective_resolution")
    pictures.append(_curve(rows, "effective_resolution", how, resolution, resolution.capitalize()))
    yield Section("Spectra", text, [pictures], legend=True)


def _probabilities(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Iterable[Section]:
    names = evaluation.forecasters_with("probabilities")
    if not names:
        return
    text = (
        "Reliability: of all pixels that were given a probability, the share that had the event; on the diagonal it is what it "
        "should be, below it the forecast is too sure of rain. ROC: the farther to the upper left, the better events and "
        "non-events are told apart. Ranks: a reliable ensemble is flat, one with too little spread is high at both ends. "
        "A deterministic forecast is an ensemble of one; the probability of extrapolation is the share of the cells around "
        "with the event, in a disc that grows with lead time (Germann & Zawadzki, 2004)."
    )
    sums = {name: evaluation.total(name, "probabilities").pooled() for name in names}
    levels = [(evaluation.thresholds.index(threshold), level_name(evaluation, threshold)) for threshold in _shown(evaluation)]
    groups = [
        [_drawn(f"Reliability {level}", draw_reliability(sums, column, how)) for column, level in levels],
        [_drawn(f"ROC {level}", draw_roc(sums, column, how)) for column, level in levels],
    ]
    members = {name: evaluation.total(name, "members").pooled() for name in evaluation.forecasters_with("members")}
    ensembles = {name: mine for name, mine in members.items() if ensemble_size(mine)[0] > 1}
    if members:
        scores = [score for score in ("crps_fair", "spread", "mean_rmse") if ensembles or score == "crps_fair"]
        groups.append([_curve(rows, score, how, heading(score), heading(score)) for score in scores])
        ranked = [_drawn(f"Ranks: {name}", draw_ranks(mine, how[name])) for name, mine in ensembles.items()]
        groups[-1] += ranked
    yield Section("Probabilities", text, groups, tables=list(probability_tables(evaluation, rows)), legend=True)


def _cases(evaluation: Evaluation, maps: Sequence[bytes], animations: Sequence[bytes]) -> Iterable[Section]:
    if not evaluation.examples:
        return
    first, level = evaluation.forecasters_with("pairs")[0], evaluation.thresholds[nearest_threshold(evaluation)]
    block = evaluation.examples[0].block
    text = (
        f"Ranked by the CSI of {first} at {level:g} {evaluation.quantity.unit}, all leads pooled, among the wetter half of "
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
