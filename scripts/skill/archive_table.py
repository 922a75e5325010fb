"""The table of archives.py: scores of every forecaster with intervals over days, and ratios to S-PROG and the cascade.

Scores are of the counts pooled over all leads, unless a lead is named. An interval is the central 95 % of a bootstrap over
days; both sides of a ratio are drawn with the same days. “–” is what is undefined, or an interval of too few days.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.evaluation.result import Evaluation
from nowcast.scores.bootstrap import quantiles, resample
from nowcast.scores.distribution import integral_of_brier
from nowcast.scores.exceedance import ExceedanceSums, brier, brier_skill
from nowcast.scores.pixels import csi, frequency_bias
from nowcast.scores.sums import Tally

SHOWN = (0.5, 1.0, 5.0, 10.0)  # mm/h
AGAINST = ("sprog", "cascade")
BIAS_RANGE = (0.8, 1.25)


def crps(sums: Tally) -> np.ndarray:
    """Return the continuous ranked probability score (lead, 1), mm/h, of the stated probabilities."""
    return integral_of_brier(brier(sums["probabilities"]), sums["probabilities"].thresholds)[..., None]


SCORES: Mapping[str, Callable[[Tally], np.ndarray]] = {
    "csi": lambda sums: csi(sums["pairs"]),
    "bias": lambda sums: frequency_bias(sums["pairs"]),
    "brier_skill": lambda sums: brier_skill(sums["probabilities"]),
    "crps": crps,
}


@dataclass(frozen=True)
class Interval:
    """A score or a ratio with its 95 % interval; arrays (threshold,), or (lead, threshold) by lead."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Scored:
    """Scores of an evaluation and their resamples over days."""

    def __init__(self, evaluation: Evaluation):
        self.evaluation, self.names = evaluation, list(evaluation.blocks)
        days = {name: _by_day(evaluation, name) for name in self.names}
        self.num_days = len(next(iter(days.values())))
        totals = {name: sum(blocks.values()) for name, blocks in days.items()}
        drawn = {name: resample(list(blocks.values())) for name, blocks in days.items()}
        self._sums = {(False, True): totals, (True, True): drawn}  # (is resampled, is by lead) -> sums
        for is_drawn, sums in ((False, totals), (True, drawn)):
            self._sums[is_drawn, False] = {name: side if side is None else side.pooled() for name, side in sums.items()}

    def of(self, score: str, name: str, *, by_lead: bool = False, against: str | None = None) -> Interval:
        """Return a forecaster's score, or its ratio to that of another one."""
        value, draws = (self._value(score, name, against, by_lead=by_lead, drawn=drawn) for drawn in (False, True))
        low, high = quantiles(draws) if draws is not None else (np.full_like(value, np.nan),) * 2
        return Interval(value, low, high)

    def _value(self, score: str, name: str, against: str | None, *, by_lead: bool, drawn: bool) -> np.ndarray | None:
        sides = [self._sums[drawn, by_lead][side] for side in (name, against) if side is not None]
        if None in sides:
            return None
        values = [SCORES[score](side) for side in sides]
        values = [value if by_lead else value[..., 0, :] for value in values]
        if against is None:
            return values[0]
        return np.divide(*values, out=np.full_like(values[0], np.nan), where=values[1] != 0)


def _by_day(evaluation: Evaluation, name: str) -> dict[str, Tally]:
    """Sum the blocks of one day."""
    days: dict[str, Tally] = {}
    for (_, day), block in sorted(evaluation.blocks[name].items(), key=lambda item: item[0][1]):
        block = Tally({"pairs": block["pairs"], "probabilities": _in_one_class(block["probabilities"])})
        days[day] = days[day] + block if day in days else block
    return days


def _in_one_class(sums: ExceedanceSums) -> ExceedanceSums:
    """Merge the classes of probability, which no score of the table needs, to save memory."""
    by_class = {name: array for name, array in sums.arrays().items() if "class" in sums.axes()[name]}
    joined = {name: array.sum(axis=-1, keepdims=True) for name, array in by_class.items()}
    return replace(sums, percents=(0,), **joined)


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def shown(interval: Interval, at: Any) -> str:
    """For example `1.041 (1.020 to 1.066)`."""
    value = number(interval.value[at])
    if not math.isfinite(interval.low[at]):
        return value
    return f"{value} ({number(interval.low[at])} to {number(interval.high[at])})"


def table(scored: Scored) -> list[str]:
    """Return the tables as lines of Markdown."""
    thresholds = scored.evaluation.thresholds
    columns = [thresholds.index(threshold) for threshold in SHOWN]
    heads = [f"≥ {threshold:g} mm/h" for threshold in SHOWN]
    lines: list[str] = []

    def add(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines.extend([f"**{title}**", "", *_markdown(["forecaster", *header], rows), ""])

    for score, title in (("csi", "CSI, all leads"), ("bias", "Frequency bias, all leads")):
        add(title, heads, [[n, *(shown(scored.of(score, n), c) for c in columns)] for n in scored.names])
    for against in (name for name in AGAINST if name in scored.names):
        of_others = [(n, scored.of("csi", n, against=against)) for n in scored.names if n != against]
        add(f"CSI ÷ {against}, all leads", heads, [[n, *(shown(r, c) for c in columns)] for n, r in of_others])
    every = range(len(thresholds))
    rows = [[n, *(shown(scored.of("brier_skill", n), c) for c in every)] for n in scored.names]
    add("Brier skill, all leads", [f"≥ {threshold:g} mm/h" for threshold in thresholds], rows)
    add("CRPS, all leads", ["mm/h"], [[n, shown(scored.of("crps", n), 0)] for n in scored.names])
    minutes = [f"{m:g} min" for m in scored.evaluation.lead_minutes]
    for threshold, column in zip(SHOWN, columns, strict=True):
        by_lead = [(n, scored.of("csi", n, by_lead=True).value[:, column]) for n in scored.names]
        add(f"CSI ≥ {threshold:g} mm/h by lead", minutes, [[n, *map(number, values)] for n, values in by_lead])
    return lines


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows)]


def shortfalls(scored: Scored, network: str) -> list[str]:
    """Return a line for each goal, relative to the cascade, that the network misses."""
    thresholds, found = scored.evaluation.thresholds, []
    columns = [(thresholds.index(threshold), threshold) for threshold in SHOWN]
    ratio, bias = scored.of("csi", network, against="cascade"), scored.of("bias", network).value
    by_lead = scored.of("csi", network, by_lead=True, against="cascade")
    for column, threshold in columns:
        if not ratio.low[column] > 1:
            found.append(f"CSI ≥ {threshold:g} mm/h ÷ cascade is {shown(ratio, column)}: not above 1 with its interval")
        if not BIAS_RANGE[0] <= bias[column] <= BIAS_RANGE[1]:
            found.append(f"frequency bias ≥ {threshold:g} mm/h is {number(bias[column])}")
        for lead in np.flatnonzero(by_lead.high[:, column] < 1):
            minutes = scored.evaluation.lead_minutes[lead]
            found.append(f"CSI ≥ {threshold:g} mm/h at {minutes:g} min ÷ cascade is {shown(by_lead, (lead, column))}")
    for other in ("cascade", "extrapolation"):
        skills = [scored.of("brier_skill", name).value for name in (network, other)]
        worse = [f"{threshold:g}" for threshold, a, b in zip(thresholds, *skills, strict=True) if not a > b]
        if worse:
            found.append(f"Brier skill is not above that of {other} at {', '.join(worse)} mm/h")
        values = [scored.of("crps", name).value[0] for name in (network, other)]
        if not values[0] < values[1]:
            found.append(f"CRPS is {number(values[0])} mm/h, that of {other} {number(values[1])}")
    return found


def as_json(scored: Scored) -> dict[str, Any]:
    """Return every score, interval and ratio, pooled and by lead; null where undefined."""
    results = {"thresholds": scored.evaluation.thresholds, "lead_minutes": scored.evaluation.lead_minutes,
             "num_cases": scored.evaluation.num_cases, "num_days": scored.num_days, "scores": {}}  # fmt: skip
    for name in scored.names:
        for against in (None, *(a for a in AGAINST if a in scored.names and a != name)):
            key = name if against is None else f"{name} ÷ {against}"
            results["scores"][key] = {
                score: {"pooled": _listed(scored.of(score, name, against=against)),
                        "by_lead": _listed(scored.of(score, name, against=against, by_lead=True))}
                for score in SCORES
            }  # fmt: skip
    return results


def _listed(interval: Interval) -> dict[str, Any]:
    parts = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: np.where(np.isfinite(a), a.astype(object), None).tolist() for key, a in parts.items()}


def write_table(evaluation: Evaluation, output: Path, *, archive: str, test: Path | None, network: str | None = None) -> str:
    """Write archive.md and archive.json; return the text of the first."""
    scored = Scored(evaluation)
    days = "days 8 and 9 of other records" if test else "day 7"
    lines = [f"# {archive}, {days} of every ten: {evaluation.num_cases} cases on {scored.num_days} days", "", *table(scored)]
    if network:
        missed = shortfalls(scored, network) or ["none"]
        lines += [f"**Goals that {network} misses**", "", *(f"- {line}" for line in missed), ""]
    text = "\n".join(lines)
    (output / "archive.md").write_text(text, encoding="utf-8")
    (output / "archive.json").write_text(json.dumps(as_json(scored), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return text
