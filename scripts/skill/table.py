"""Make the table of services.py: the scores of every record, their averages and ratios, and whether the goals are met.

A figure is a score pooled over all lead times. Figures are averaged over the records of a service, and then over services
with equal weights. A figure that is undefined for one forecaster, such as a CSI without any event, is left out of the
average for all forecasters. An average of no figure is undefined: “–” in the table, null in JSON.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from record import read_cases

from nowcast.evaluation.score_files import SCORES_JSON
from nowcast.forecasters.baselines import BASELINES
from nowcast.scores.pixels import THRESHOLDS

NETWORK = "network"
FORECASTERS = (NETWORK, *BASELINES)
# name of a figure -> score, threshold (mm/h) and scale (km) in scores.json
FIGURES = {
    **{f"CSI≥{threshold:g}": ("csi", threshold, None) for threshold in THRESHOLDS},
    **{f"bias≥{threshold:g}": ("frequency_bias", threshold, None) for threshold in THRESHOLDS},
    "MSE": ("mse", None, None),
    "RMSE": ("rmse", None, None),
    "MAE": ("mae", None, None),
    "FSS≥1": ("fss", 1.0, 10.0),
    "resolution": ("effective_resolution", None, None),
}
# figures in the table of all figures
SHOWN = [figure for figure in FIGURES if figure not in ("bias≥0.5", "bias≥10")]
RATIOS = ("CSI≥0.5", "CSI≥1", "CSI≥5", "CSI≥10", "MSE", "MAE", "FSS≥1")
AGAINST = ("extrapolation", "pysteps", "sprog")
# On these records, and on all with a time step of QUICK, the network must not be worse than extrapolation.
NEARLY_DRY = ("dwd/ry_20200101_dry", "meteofrance/nw_201608_gappy")
QUICK = 2.0  # minutes
NEVER_WORSE = ("CSI≥0.5", "CSI≥1")  # figures by which it must not be worse

Values = Mapping[str, Mapping[str, float]]  # forecaster -> figure -> value


@dataclass(frozen=True)
class Scored:
    """One record: the cases scored, and the figures of each forecaster; no figures if the network cannot forecast it."""

    fold: str
    service: str
    record: str
    cases: Mapping[str, Any]
    num_cases: int
    values: Values

    @property
    def name(self) -> str:
        return f"{self.service}/{self.record}"

    @property
    def refused(self) -> str | None:
        return self.cases.get("refused")

    @property
    def is_watched(self) -> bool:
        """Return whether this is a record on which the network must not be worse than extrapolation."""
        return self.name in NEARLY_DRY or self.cases.get("record_minutes") == QUICK


@dataclass(frozen=True)
class Goal:
    """A goal for a figure, the required bound, the value, and the result."""

    goal: str
    wanted: str
    found: str
    result: str


def read_scored(output: Path, folds: Mapping[str, Sequence[str]]) -> list[Scored]:
    """Read all records of these services that are scored, in the order of services."""
    scored = []
    for fold, services in folds.items():
        for service in services:
            for folder in sorted((output / f"fold_{fold}" / service).glob("*/")):
                if cases := read_cases(folder):
                    scores = None if "refused" in cases else json.loads((folder / SCORES_JSON).read_text(encoding="utf-8"))
                    values, number = (figures(scores), scores["num_cases"]) if scores else ({}, 0)
                    scored.append(Scored(fold, service, folder.name, cases, number, values))
    return scored


def figures(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the figures of each forecaster from the content of scores.json; the first forecaster is the network."""
    pooled = {
        (row["forecaster"], row["score"], row["threshold"], row["scale_km"]): row["value"]
        for row in scores["scores"]
        if row["lead_minutes"] is None and row["against"] is None
    }
    names = {NETWORK: next(iter(scores["about"]["forecasters"]))} | {name: name for name in BASELINES}
    return {role: {f: _number(pooled.get((name, *where))) for f, where in FIGURES.items()} for role, name in names.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def average(parts: Sequence[Values]) -> dict[str, dict[str, float]]:
    """Average each figure over the parts where it is defined for all forecasters; NaN if there are none."""
    defined = {f: [part for part in parts if all(math.isfinite(part[n][f]) for n in FORECASTERS)] for f in FIGURES}
    return {n: {f: mean(part[n][f] for part in defined[f]) for f in FIGURES} for n in FORECASTERS}


def mean(values: Iterable[float]) -> float:
    """Compute the mean; NaN for no values."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def ratio(values: Values, against: str, figure: str) -> float:
    """Compute network ÷ baseline; NaN if the baseline's figure is 0 or one of the two is undefined."""
    below = values[against][figure]
    return values[NETWORK][figure] / below if below else math.nan


@dataclass(frozen=True)
class Summary:
    """Figures averaged over the records of each service, and over services."""

    services: Mapping[str, Values]
    overall: Values

    def mean_ratio(self, against: str, figure: str) -> float:
        """Compute the mean of the ratios of services, where these are defined."""
        ratios = (ratio(values, against, figure) for values in self.services.values())
        return mean(value for value in ratios if math.isfinite(value))

    def ratio_of_means(self, against: str, figure: str) -> float:
        return ratio(self.overall, against, figure)


def summarise(scored: Sequence[Scored]) -> Summary:
    parts: dict[str, list[Values]] = {}
    for record in scored:
        if not record.refused:
            parts.setdefault(record.service, []).append(record.values)
    services = {service: average(values) for service, values in parts.items()}
    return Summary(services, average(list(services.values())))


def goals(scored: Sequence[Scored], summary: Summary, *, complete: bool) -> list[Goal]:
    """Judge all goals. Unless all records are scored (`complete`), no goal counts as met."""
    bounds = [("pysteps", "CSI≥0.5", 1.105), ("pysteps", "CSI≥1", 1.105), ("pysteps", "CSI≥5", 1.05), ("pysteps", "MSE", 0.843)]
    bounds += [("sprog", figure, 1.03) for figure in ("CSI≥0.5", "CSI≥1", "CSI≥5")]
    judged = [_against(summary, *bound, complete=complete) for bound in bounds]
    by_service = {(service, f): ratio(values, "extrapolation", f)
                  for service, values in summary.services.items() for f in NEVER_WORSE}  # fmt: skip
    judged.append(_never_worse("no service lost to extrapolation, CSI≥0.5 and ≥1", by_service, complete=complete))
    bias = summary.overall[NETWORK]["bias≥5"]
    judged.append(Goal("bias≥5", "0.7 to 1.3", number(bias), _result([bias], 0.7 <= bias <= 1.3, complete)))
    watched = {(r.name, f): ratio(r.values, "extrapolation", f)
               for r in scored if r.is_watched and not r.refused for f in NEVER_WORSE}  # fmt: skip
    what = f"no loss to extrapolation on records of {QUICK:g}-minute steps and nearly dry ones, CSI≥0.5 and ≥1"
    judged.append(_never_worse(what, watched, complete=complete))
    return judged


def _against(summary: Summary, against: str, figure: str, bound: float, *, complete: bool) -> Goal:
    """Judge a bound on a ratio. It must hold for the mean of the services' ratios and for the ratio of their means."""
    both = summary.mean_ratio(against, figure), summary.ratio_of_means(against, figure)
    is_error = figure == "MSE"
    met = all(value <= bound if is_error else value >= bound for value in both)
    found = f"{number(both[0])} (of the means: {number(both[1])})"
    return Goal(f"{figure} ÷ {against}", f"{'≤' if is_error else '≥'} {bound:g}", found, _result(both, met, complete))


def _never_worse(what: str, ratios: Mapping[tuple[str, str], float], *, complete: bool) -> Goal:
    """Judge that no ratio is below 1. Undefined ratios (no event, or no hit of the baseline) do not count."""
    defined = {where: value for where, value in ratios.items() if math.isfinite(value)}
    lost = sorted((value, *where) for where, value in defined.items() if value < 1)
    lowest = number(min(defined.values(), default=math.nan))
    named = ": " + ", ".join(f"{where} {figure} {number(value)}" for value, where, figure in lost) if lost else ""
    return Goal(what, "≥ 1", f"lowest {lowest}{named}", _result(list(defined.values()), bool(defined) and not lost, complete))


def _result(figures: Sequence[float], met: bool, complete: bool) -> str:
    """Return "met" or "missed"; "open" until all records are scored, unless the goal is missed already."""
    known = bool(figures) and all(map(math.isfinite, figures))
    if complete:
        return "met" if met else "missed"
    return "open" if met or not known else "missed"


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table with a first column of text and further columns of numbers."""
    line = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, line, *rows)]


def ratio_rows(summary: Summary, against: str, num_cases: Mapping[str, int]) -> list[list[str]]:
    rows = [
        [service, f"{num_cases[service]}", *(number(ratio(values, against, f)) for f in RATIOS)]
        for service, values in summary.services.items()
    ]
    total = f"{sum(num_cases.values())}"
    rows.append(["mean of the ratios", total, *(number(summary.mean_ratio(against, f)) for f in RATIOS)])
    rows.append(["ratio of the means", total, *(number(summary.ratio_of_means(against, f)) for f in RATIOS)])
    return rows


def absolute_rows(summary: Summary) -> list[list[str]]:
    averages = [*summary.services.items(), ("mean over services", summary.overall)]
    return [[where, name, *(number(values[name][f]) for f in SHOWN)] for where, values in averages for name in FORECASTERS]


def record_rows(scored: Sequence[Scored]) -> list[list[str]]:
    rows = []
    for record in scored:
        if record.refused:
            rows.append([record.name, record.fold, "not forecast", *["–"] * (3 + len(RATIOS))])
            continue
        seen = "yes" if record.cases["seen"] else "no"
        facts = [f"{record.num_cases} × {record.cases['leads']}", f"{record.cases['step_minutes']:g}", seen]
        ratios = [number(ratio(record.values, "extrapolation", f)) for f in RATIOS]
        rows.append([record.name, record.fold, record.cases["network"], *facts, *ratios])
    return rows


def as_markdown(scored: Sequence[Scored], summary: Summary, found: Sequence[Goal], missing: Sequence[str]) -> str:
    """Return the whole text: notes, ratios to each baseline, all figures, records and goals."""
    num_cases = {service: sum(r.num_cases for r in scored if r.service == service) for service in summary.services}
    lines = [*_notes(scored, missing), ""]
    for against in AGAINST:
        rows = ratio_rows(summary, against, num_cases)
        lines += [f"**Network ÷ {against}**", "", *markdown(["service", "cases", *RATIOS], rows), ""]
    units = {"MAE": "MAE, mm/h", "RMSE": "RMSE, mm/h", "FSS≥1": "FSS≥1, 10 km", "resolution": "resolution, km"}
    header = ["service", "forecaster", *(units.get(figure, figure) for figure in SHOWN)]
    lines += ["**All figures**", "", *markdown(header, absolute_rows(summary)), ""]
    header = ["record", "fold", "network", "cases × leads", "step, min", "seen", *RATIOS]
    lines += ["**Records, network ÷ extrapolation**", "", *markdown(header, record_rows(scored)), "", "**Goals**", ""]
    lines += markdown(["goal", "wanted", "found", ""], [list(asdict(goal).values()) for goal in found])
    return "\n".join(lines) + "\n"


def _notes(scored: Sequence[Scored], missing: Sequence[str]) -> list[str]:
    networks = ", ".join(sorted({f"{r.cases['network']}{_step(r.cases)}" for r in scored}))
    averaged = "averaged over the records of a service and then over services"
    undefined = "what is undefined for one forecaster (–) is left out of the average for all"
    notes = [f"Network: {networks}. Figures are of all leads pooled, {averaged}; {undefined}."]
    if seen := sorted({record.service for record in scored if record.cases.get("seen")}):
        warning = "their figures are not of radar that it has never seen"
        notes.append(f"**The network was trained or validated on records of {', '.join(seen)}: {warning}.**")
    notes += [f"Not forecast: {r.name}, since {r.refused}" for r in scored if r.refused]
    if missing:
        notes.append(f"Not scored yet: {', '.join(missing)}.")
    return "\n\n".join(notes).splitlines()


def _step(cases: Mapping[str, Any]) -> str:
    return f" (step {cases['step']:,})" if "step" in cases else ""


def write_table(output: Path, folds: Mapping[str, Sequence[str]], names: Sequence[str]) -> str:
    """Write skill.md and skill.json for those of the records `names` that are scored; return the text of skill.md."""
    scored = read_scored(output, folds)
    summary = summarise(scored)
    missing = [name for name in names if name not in {record.name for record in scored}]
    complete = not missing and not any(record.refused or record.cases["seen"] for record in scored)
    found = goals(scored, summary, complete=complete)
    text = as_markdown(scored, summary, found, missing)
    (output / "skill.md").write_text(text, encoding="utf-8")
    (output / "skill.json").write_text(json.dumps(_as_json(scored, summary, found), indent=1, allow_nan=False) + "\n")
    return text


def _as_json(scored: Sequence[Scored], summary: Summary, found: Sequence[Goal]) -> Any:
    ratios = {a: {f: [summary.mean_ratio(a, f), summary.ratio_of_means(a, f)] for f in FIGURES} for a in AGAINST}
    facts = {"records": [asdict(r) for r in scored], "services": summary.services, "mean_over_services": summary.overall}
    facts |= {"mean_of_ratios_and_ratio_of_means": ratios, "goals": [asdict(goal) for goal in found]}
    return _without_nan(facts)


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
