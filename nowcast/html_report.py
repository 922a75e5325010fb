"""report.html: what was scored on what, the tables, the diagrams and the cases to look at, in one file.

The page needs nothing beside it and runs no script: its content security policy forbids both. Its words, names and numbers
are put into report.html (a Jinja template), which escapes every one of them.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from nowcast import __version__
from nowcast.diagrams import Style, draw_bias, draw_lead, draw_performance, highest, panel, styles
from nowcast.evaluation import Evaluation, nearest_threshold
from nowcast.examples import Example
from nowcast.metrics import SCORES
from nowcast.pictures import moment, svg, unit
from nowcast.score_files import confidence, number
from nowcast.thinning import spread

MOST_THRESHOLDS = 6  # that have diagrams of their own; the tables have all
MOST_NAMED = 4  # training spans; there can be thousands
TABLE_LEADS = 12  # columns
_ACRONYMS = {"csi", "pod", "far", "pofd", "hss", "hk", "ets", "f1", "mae", "mse", "rmse", "ssim", "fss"}
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
    """A heading, what to see below it, and tables or groups of pictures. A `legend` gives the forecasters' colours."""

    title: str
    text: str
    pictures: Sequence[Sequence[Picture]] = ()
    tables: Sequence[Table] = ()
    legend: bool = False


def as_html(
    evaluation: Evaluation, rows: Sequence[Mapping], maps: Sequence[bytes], animations: Sequence[bytes], *, command: str = ""
) -> str:
    """The page, from the tidy rows; `maps` and `animations` are the pictures of the evaluation's examples."""
    how = styles(evaluation.blocks)
    sections = [
        _tables(evaluation, rows),
        _by_lead(evaluation, rows, how),
        _performance(evaluation, rows, how),
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
    return [
        f"{evaluation.num_cases:,} case{_s(evaluation.num_cases)} of {records} record{_s(records)}, on {evaluation.num_blocks} "
        f"day{_s(evaluation.num_blocks)}, were forecast for {first:g} to {last:g} minutes ahead.",
        "Every forecaster is scored on the same cases and under one common mask: a pixel counts at a lead time only where "
        "the observation and every forecast are known.",
        f"An event is a value at or above a threshold ({thresholds} {unit(evaluation.quantity)}). "
        "Counts are added over all cases before a score is computed from them.",
        confidence(evaluation),
    ]


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _about_records(evaluation: Evaluation) -> Iterable[Table]:
    records = evaluation.about.get("records", [])
    header = ["record", "frames", "step", "grid", "cases", "first case", "last case", "institution"]
    rows = [
        [
            record["name"],
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
    overall = {(r["forecaster"], r["score"], r["threshold"]): r for r in rows if _is_overall(r)}
    names, pairs = list(evaluation.blocks), {name: evaluation.total(name).pooled() for name in evaluation.blocks}
    found = []
    for score, title in (("csi", "CSI"), ("frequency_bias", "Frequency bias")):
        header = ["forecaster", *(f"≥ {t:g} {unit(evaluation.quantity)}" for t in evaluation.thresholds)]
        cells = [[name, *(_cell(overall[name, score, t]) for t in evaluation.thresholds)] for name in names]
        found.append(Table(f"{title}, all leads pooled", header, cells))
    errors = [name for name, score in SCORES.items() if not score.needs_threshold]
    header = ["forecaster", *(_heading(name) for name in errors), "cases", "pairs"]
    cells = [
        [name, *(_cell(overall[name, score, None]) for score in errors),
         f"{evaluation.num_cases:,}", f"{int(pairs[name].num_pairs[0]):,}"]
        for name in names
    ]  # fmt: skip
    found.append(Table("Errors and correlation, all leads pooled", header, cells))
    found.append(_csi_table(evaluation, rows))
    found += _full_tables(evaluation, overall)
    text = "In brackets the 95 % interval. “–” is undefined, because nothing was observed or forecast; it is never counted as 0."
    return Section("Scores", text, tables=found)


def _is_overall(row: Mapping) -> bool:
    return row["lead_minutes"] is None and row["scale_km"] is None


def _heading(score: str) -> str:
    units = {"mm h-1": "mm/h", "mm2 h-2": "(mm/h)²"}.get(SCORES[score].units)
    name = score.upper() if score in _ACRONYMS else score.replace("_", " ")
    return name + (f", {units}" if units else "")


def _cell(row: Mapping) -> str:
    spread = f" [{number(row['low'])}, {number(row['high'])}]"
    return number(row["value"]) + ("" if "–" in spread else spread)


def _csi_table(evaluation: Evaluation, rows: Sequence[Mapping]) -> Table:
    threshold = evaluation.thresholds[nearest_threshold(evaluation.thresholds)]
    leads = [evaluation.lead_minutes[n] for n in spread(len(evaluation.lead_minutes), TABLE_LEADS)]
    values = {
        (row["forecaster"], row["lead_minutes"]): number(row["value"])
        for row in rows
        if row["score"] == "csi" and row["threshold"] == threshold
    }
    cells = [[name, *(values[name, lead] for lead in leads)] for name in evaluation.blocks]
    title = f"CSI ≥ {threshold:g} {unit(evaluation.quantity)} by lead time, minutes"
    return Table(title, ["forecaster", *(f"{lead:g}" for lead in leads)], cells)


def _full_tables(evaluation: Evaluation, overall: Mapping[tuple, Mapping]) -> Iterable[Table]:
    """Every categorical score at every threshold."""
    scores = [name for name, score in SCORES.items() if score.needs_threshold]
    for threshold in evaluation.thresholds:
        cells = [[name, *(_cell(overall[name, score, threshold]) for score in scores)] for name in evaluation.blocks]
        title = f"All scores ≥ {threshold:g} {unit(evaluation.quantity)}, all leads pooled"
        yield Table(title, ["forecaster", *map(_heading, scores)], cells, closed=True)


def _by_lead(evaluation: Evaluation, rows: Sequence[Mapping], how: Mapping[str, Style]) -> Section:
    chosen = [evaluation.thresholds[n] for n in spread(len(evaluation.thresholds), MOST_THRESHOLDS)]
    groups = []
    for score, label in (("csi", "CSI"), ("frequency_bias", "frequency bias")):
        titles = [f"{label} ≥ {threshold:g} {unit(evaluation.quantity)}" for threshold in chosen]
        top = highest(rows, score)
        groups.append([_curve(rows, score, how, label, *of, top=top) for of in zip(titles, chosen, strict=True)])
    labels = [(score, _heading(score)) for score in ("mae", "rmse", "correlation")]
    groups.append([_curve(rows, score, how, label, label) for score, label in labels])
    text = (
        "How fast each forecast loses its skill. Shaded are 95 % intervals, where there are enough days for them. Read the "
        "frequency bias beside CSI: far below 1, the rain is missing from the forecast; far above, there is too much."
    )
    return Section("Scores against lead time", text, groups, legend=True)


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
    level, unit_ = evaluation.thresholds[nearest_threshold(evaluation.thresholds)], unit(evaluation.quantity)
    text = (
        "Left and middle: best is the upper right corner. Along a grey curve CSI is the same; along a dashed line the frequency "
        "bias, whose value stands at the line's end: above the diagonal too much rain is forecast, below it too little. Right: "
        "a line that falls with the threshold is a forecast that smooths its heavy rain away (cut off at 1/8 and 8)."
    )
    pictures = [
        _drawn("All leads pooled, by threshold", draw_performance(rows, how)),
        _drawn(f"≥ {level:g} {unit_}, by lead time in minutes", draw_performance(rows, how, threshold=level)),
        _drawn("Frequency bias by threshold, all leads pooled", draw_bias(rows, how, unit_)),
    ]
    return Section("Performance diagrams and bias", text, [pictures], legend=True)


def _cases(evaluation: Evaluation, maps: Sequence[bytes], animations: Sequence[bytes]) -> Iterable[Section]:
    if not evaluation.examples:
        return
    first, level = next(iter(evaluation.blocks)), evaluation.thresholds[nearest_threshold(evaluation.thresholds)]
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
