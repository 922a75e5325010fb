"""Make report.html: records and forecasters, tables, diagrams and example cases, in one file.

The page loads no other file and runs no script; its content security policy forbids both. Texts and numbers are filled into
page.html (a Jinja template), which escapes all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nowcast import __version__
from nowcast.errors import counted
from nowcast.evaluation.coarsen import evenly_spaced
from nowcast.evaluation.examples import Example
from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.report.diagrams import (
    HIGHEST_BIAS,
    HIGHEST_RATIO,
    Style,
    draw_bias,
    draw_fss,
    draw_lead,
    draw_named_lines,
    draw_performance,
    draw_spectrum,
    draw_spectrum_ratio,
    forecaster_styles,
    highest,
    panel,
)
from nowcast.report.maps import moment, svg
from nowcast.report.page_tables import about_tables, heading, level_name, probability_tables, score_tables
from nowcast.report.probability_diagrams import draw_ranks, draw_reliability, draw_roc
from nowcast.report.sections import Picture, Section, drawn, members_section, sums_section
from nowcast.report.sentences import findings, headline, number, scored_field, seen_cases
from nowcast.report.table import confidence
from nowcast.scores.ensemble import ensemble_size

MOST_THRESHOLDS = 8  # most thresholds that have diagrams of their own; the tables have all
SPECTRUM_LEADS = 2  # most lead times that have a diagram of the spectrum
TABLES_TEXT = (
    "In brackets: the 95 % confidence interval. “–”: undefined, because nothing was observed or forecast; never counted as 0."
)


def as_html(
    evaluation: Evaluation, rows: Sequence[Mapping], pictures: Mapping[str, Sequence[bytes | None]], *, command: str = ""
) -> str:
    """Return the page; `rows` are the evaluation's, `pictures` those of its example cases, by what they show."""
    styles = forecaster_styles(evaluation.blocks)
    sections = [
        Section("Records and forecasters", "", tables=about_tables(evaluation), words=True),
        Section("Scores", TABLES_TEXT, tables=score_tables(evaluation, rows)),
        _by_lead(evaluation, rows, styles),
        _performance(evaluation, rows, styles),
        *_scales(evaluation, rows, styles),
        *_spectra(evaluation, rows, styles),
        *_probabilities(evaluation, rows, styles),
        *sums_section(evaluation, rows, styles),
        *_cases(evaluation, pictures),
        *members_section(evaluation, rows, styles),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html").render(
        names=list(evaluation.blocks),
        headline=headline(evaluation, rows),
        picture=_headline_picture(evaluation, rows, styles),
        summary=_summary(evaluation),
        warnings=[*seen_cases(evaluation), *evaluation.about.get("left_out", [])],
        findings=findings(evaluation),
        sections=sections,
        legend=styles,
        command=command,
        version=__version__,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _summary(evaluation: Evaluation) -> list[str]:
    """Return a few sentences on what was scored and how."""
    thresholds = ", ".join(f"{threshold:g}" for threshold in evaluation.thresholds)
    first, last = evaluation.lead_minutes[0], evaluation.lead_minutes[-1]
    records = len(evaluation.records)
    cases, days = evaluation.num_cases, len({day for _, day in next(iter(evaluation.blocks.values()))})
    ahead = f"{first:g} to {last:g}" if first != last else f"{first:g}"
    what = f"{counted(cases, 'case')} of {counted(records, 'record')}, on {counted(days, 'day')}"
    mask = "the observation and every forecast are known"
    return [
        f"{what}, {'was' if cases == 1 else 'were'} forecast for {ahead} minutes ahead.",
        f"All forecasters are scored on the same cases and pixels: a pixel counts at a lead time only where {mask}.",
        f"An event is a value at or above a threshold: {thresholds} {evaluation.quantity.unit}".rstrip() + ".",
        "Counts are added over all cases before a score is computed from them.",
        confidence(evaluation),
    ]


def _headline_picture(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Picture:
    """Return the picture at the top: CSI by lead time at the threshold of the first sentence, with names beside the lines."""
    threshold = evaluation.thresholds[nearest_threshold(evaluation)]
    title = f"CSI {level_name(evaluation, threshold)} by lead time: how much of the rain was forecast in its place"
    return Picture(title, svg(draw_named_lines(rows, "csi", styles, label="CSI", threshold=threshold)), wide=True)


def _by_lead(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Section:
    thresholds, groups = _shown(evaluation), []
    for score, label in (("csi", "CSI"), ("frequency_bias", "frequency bias")):
        titles = [f"{label} {level_name(evaluation, threshold)}" for threshold in thresholds]
        top = highest(rows, score)
        titled = zip(titles, thresholds, strict=True)
        groups.append([_curve(rows, score, styles, label, title, threshold, top=top) for title, threshold in titled])
    scored = {row["score"] for row in rows}
    scores = [score for score in ("mae", "rmse", "correlation", "ssim") if score in scored]
    groups.append([_curve(rows, score, styles, *2 * [heading(score, evaluation.quantity)]) for score in scores])
    text = (
        "How fast each forecast loses its skill. Shaded: 95 % confidence intervals, if there are enough days. Read frequency "
        "bias together with CSI: if it is far below 1, the forecast lacks rain; if it is far above 1, it has too much "
        f"(axis cut off at {HIGHEST_BIAS:g})." + _left_out(evaluation)
    )
    return Section("Scores against lead time", text, groups, legend=True)


def _shown(evaluation: Evaluation) -> list[float]:
    """Return the thresholds that have diagrams of their own."""
    return [evaluation.thresholds[n] for n in evenly_spaced(len(evaluation.thresholds), MOST_THRESHOLDS)]


def _left_out(evaluation: Evaluation) -> str:
    """Return a sentence on the thresholds without diagrams; "" if all have some."""
    left_out = [f"{threshold:g}" for threshold in evaluation.thresholds if threshold not in _shown(evaluation)]
    named = f"{', '.join(left_out)} {evaluation.quantity.unit}".rstrip()
    return f" Diagrams for {named} are left out; the tables have all thresholds." if left_out else ""


def _curve(
    rows: Sequence[Mapping],
    score: str,
    styles: Mapping[str, Style],
    label: str,
    title: str,
    threshold: float | None = None,
    *,
    top: float | None = None,
) -> Picture:
    figure, axes = panel()
    draw_lead(axes, rows, score, styles, label=label, threshold=threshold, top=top)
    return drawn(title, figure)


def _performance(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Section:
    level, unit = evaluation.thresholds[nearest_threshold(evaluation)], evaluation.quantity.unit
    text = (
        "First two diagrams: the best forecast is in the upper right corner. Grey curves have equal CSI (numbers at "
        "the right), dashed lines equal frequency bias (number on the line): above the diagonal too much rain "
        "is forecast, below it too little. Where points lie close together, some have no label. "
        "Last diagram: a line that falls with the threshold is that of a forecast that smooths out heavy rain (axis cut off at "
        "1/8 and 8)."
    )
    pictures = [
        drawn("All leads pooled, by threshold", draw_performance(rows, styles)),
        drawn(f"{level_name(evaluation, level)}, by lead time in minutes", draw_performance(rows, styles, threshold=level)),
        drawn("Frequency bias by threshold, all leads pooled", draw_bias(rows, styles, unit)),
    ]
    return Section("Performance diagrams and bias", text, [pictures], legend=True, large=True)


def _scales(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Iterable[Section]:
    if any(row["score"] == "fss" for row in rows):
        text = (
            "How well rain is placed if displacements up to the scale are allowed: the area fraction with rain is compared in "
            "windows of that size. Above the dashed line, half way between a random and a perfect one, a forecast is useful."
        )
        pictures = [drawn(f"FSS {level_name(evaluation, t)}", draw_fss(rows, styles, t)) for t in _shown(evaluation)]
        yield Section("Fractions skill score by scale", text, [pictures], legend=True)


def _spectra(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Iterable[Section]:
    sums = {name: evaluation.total(name, "spectra") for name in evaluation.forecasters_with("spectra")}
    first = next(iter(sums.values()), None)
    if first is None or not first.power_o.any():
        return
    text = (
        "How much detail there is at each wavelength, independent of where it is. A forecast whose line is below the observed "
        "one (black) is too smooth. Its effective resolution is the wavelength below which it has less than half of the "
        "observed power (dashed). Forecast / observed power is pooled over lead times "
        f"(axis cut off at {HIGHEST_RATIO:g})."
    )
    pictures = []
    observed = np.flatnonzero(first.power_o.any(axis=1))  # a lead time may have no pixel, and so no power to draw
    for lead in observed[evenly_spaced(len(observed), SPECTRUM_LEADS)]:
        cases = np.maximum(first.num_cases[lead], 1)
        forecasts = {name: spectrum.power_f[lead] / cases for name, spectrum in sums.items()}
        power_o, unit = first.power_o[lead] / cases, evaluation.quantity.unit
        figure = draw_spectrum(np.array(first.wavelengths_km), power_o, forecasts, styles, unit)
        pictures.append(drawn(f"Power at +{evaluation.lead_minutes[lead]:g} min", figure))
    pictures.append(drawn("Forecast / observed power", draw_spectrum_ratio(rows, styles)))
    resolution = heading("effective_resolution", evaluation.quantity)
    pictures.append(_curve(rows, "effective_resolution", styles, resolution, resolution.capitalize()))
    yield Section("Spectra", text, [pictures], legend=True)


def _probabilities(evaluation: Evaluation, rows: Sequence[Mapping], styles: Mapping[str, Style]) -> Iterable[Section]:
    names = evaluation.forecasters_with("probabilities")
    if not names:
        return
    text = (
        "Reliability: the observed frequency of the event where a probability was forecast; a reliable forecast is on the "
        "diagonal, below it the probabilities are too high. ROC: the closer to the upper left corner, the better the forecast "
        "discriminates events from non-events. Ranks: the histogram of a reliable ensemble is flat, one of too little "
        "spread is high at both ends. A deterministic forecast counts as an ensemble of one member. The probability of "
        "extrapolation is the fraction of cells with the event in a disc that grows with lead time (Germann & Zawadzki, 2004)."
    )
    sums = {name: evaluation.total(name, "probabilities").pooled() for name in names}
    levels = [(evaluation.thresholds.index(threshold), level_name(evaluation, threshold)) for threshold in _shown(evaluation)]
    groups = [
        [drawn(f"Reliability {level}", draw_reliability(sums, column, styles)) for column, level in levels],
        [drawn(f"ROC {level}", draw_roc(sums, column, styles)) for column, level in levels],
    ]
    members = {name: evaluation.total(name, "members").pooled() for name in evaluation.forecasters_with("members")}
    ensembles = {name: ensemble for name, ensemble in members.items() if ensemble_size(ensemble)[0] > 1}
    crps = ["crps"] if evaluation.forecasters_with("distribution") else []
    if scores := [*crps, *(["crps_fair", "spread", "mean_rmse"] if ensembles else [])]:
        groups.append([_curve(rows, score, styles, *2 * [heading(score, evaluation.quantity)]) for score in scores])
        ranked = [drawn(f"Ranks: {name}", draw_ranks(ensemble, styles[name])) for name, ensemble in ensembles.items()]
        groups[-1] += ranked
    text += _left_out(evaluation)
    yield Section("Probabilities", text, groups, tables=probability_tables(evaluation, rows), legend=True)


def _cases(evaluation: Evaluation, pictures: Mapping[str, Sequence[bytes | None]]) -> Iterable[Section]:
    if not evaluation.examples:
        return
    first, level = evaluation.forecasters_with("pairs")[0], evaluation.thresholds[nearest_threshold(evaluation)]
    event = f"{level:g} {evaluation.quantity.unit}".rstrip()
    text = (
        f"Ranked by the CSI of {scored_field(evaluation, first)} at {event}, all leads pooled, "
        "among the wetter half of the cases. Lower rows: forecast minus observed; green is too much, brown too little. Grey is "
        "missing, north is up."
    )
    text += _averaged(evaluation.examples)
    if any(example.probabilities for example in evaluation.examples):
        text += (
            f" Probabilities are those of {event} or more, for ensembles the fraction of members; "
            "beside them is where it was observed."
        )
    shown = [
        Picture(f"{_case(example)}: {what}", made[n], wide=True)
        for n, example in enumerate(evaluation.examples)
        for what, made in pictures.items()
        if made[n]
    ]
    yield Section("Cases to look at", text, [shown])


def _averaged(examples: Sequence[Example]) -> str:
    """Return a sentence on the grid cells of a pixel, by case where they differ; "" if each cell is a pixel."""
    blocks = {example.rank: example.block for example in examples}
    if len(set(blocks.values())) == 1:
        block = examples[0].block
        return f" For display, each pixel is the mean of {block} × {block} grid cells." if block > 1 else ""
    named = ", ".join(f"{block} × {block} in the {rank} case" for rank, block in blocks.items() if block > 1)
    return f" For display, each pixel is the mean of several grid cells: {named}."


def _case(example: Example) -> str:
    case = example.case
    return f"The {example.rank} case: {case.record}, from {moment(case.reference)}, CSI {number(case.csi)}"
