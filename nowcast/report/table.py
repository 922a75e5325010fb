"""The tables of scores that `nowcast evaluate` prints on the terminal. Undefined values are "–".

Tables that are wider than the terminal are divided by score, and tables by lead time or wavelength show fewer of them, which a
line below says. The files and the other formats always hold everything.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from nowcast.errors import counted
from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.report.sentences import findings, number, seen_cases
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import LEVEL, MIN_BLOCKS, NUM_SAMPLES, SEED
from nowcast.scores.boxes import SUM_MINUTES
from nowcast.scores.ensemble import ensemble_size
from nowcast.scores.sums import Additive, Tally

ANY_WIDTH = 1 << 20  # characters in a line, where there is no terminal
TABLE_LEADS = 12  # most lead times in the table; the files hold all of them
DIFFERENCES = {"csi": "CSI", "mae": "MAE", "rmse": "RMSE", "brier": "Brier", "crps": "CRPS"}  # scores that are compared
GAP = 2  # blanks between columns
Rows = list[list[str]]
Columns = Mapping[str, Sequence[str]]  # the cells of a column, by its heading


def table(evaluation: Evaluation, width: int = ANY_WIDTH, *, rows: Sequence[Mapping] | None = None) -> str:
    """Return the tables as text, then the findings in words, then what the intervals are based on.

    width: characters in a line; only a word that is longer, such as a forecaster's name, makes a longer line
    rows: those of the evaluation, if they are known already

    Warnings about cases seen in training come before the tables. The tables are: scores pooled over lead
    times, CSI by lead time, FSS by scale, power ratio by wavelength, probabilities, sums of members, paired differences between
    the forecasters.
    """
    tables = [
        *_pooled(evaluation, width),
        _csi_by_lead(evaluation, width),
        _fss_by_scale(evaluation),
        _power_ratio(evaluation, width),
        *_probabilities(evaluation, width),
        *_sums(evaluation, width),
        *_differences(evaluation, rows, width),
    ]
    lines = [line for warning in seen_cases(evaluation) for line in (*_wrapped(warning, width), "")]
    noted = [each if isinstance(each, tuple) else (each, "") for each in tables]
    for shown, note in (each for each in noted if each[0]):
        titled, shown = _titled(shown, width)
        lines += [*titled, *(line for part in _stacked(shown, width) for line in (*_align(part), ""))]
        lines[-1:] = [*_wrapped(note, width), ""] if note else [""]
    sentences = [*findings(evaluation), confidence(evaluation)]
    return "\n".join([*lines, *(line for sentence in sentences for line in _wrapped(sentence, width))])


def _pooled(evaluation: Evaluation, width: int) -> list[Rows]:
    names = evaluation.forecasters_with("pairs")
    if not names:
        return []
    totals = [evaluation.total(name).pooled() for name in names]
    groups = [_by_threshold(evaluation, *score, totals) for score in (("CSI", "csi"), ("bias", "frequency_bias"))]
    errors = {short: [number(SCORES[score](total)[0]) for total in totals] for short, score in
              (("MAE", "mae"), ("RMSE", "rmse"), ("corr", "correlation"))}  # fmt: skip
    pairs = [f"{int(total.num_pairs[0]):,}" for total in totals]
    groups.append(("", {**errors, "cases": [f"{evaluation.num_cases:,}"] * len(names), "pairs": pairs}))
    return _side_by_side("pooled over leads", names, groups, width)


def _by_threshold(evaluation: Evaluation, label: str, score: str, totals: Sequence) -> tuple[str, Columns]:
    """Return a group of columns, one for each threshold: a score of sums over one lead, of every forecaster."""
    values = [SCORES[score](total)[0] for total in totals]
    return label, {f"≥{t:g}": [number(own[n]) for own in values] for n, t in enumerate(evaluation.thresholds)}


def _side_by_side(title: str, names: Sequence[str], groups: Sequence[tuple[str, Columns]], width: int) -> list[Rows]:
    """Return one table with the columns of all groups, or where it would be too wide a table for each group."""
    together = [(f"{label}{head}", cells) for label, columns in groups for head, cells in columns.items()]
    rows = _rows(title, names, together)
    if len(_align(rows)[0]) <= width:
        return [rows]
    return [_rows(f"{label}, {title}" if label else title, names, list(columns.items())) for label, columns in groups]


def _rows(title: str, names: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> Rows:
    heads, cells = zip(*columns, strict=True)
    return [[title, *heads], *([name, *row] for name, row in zip(names, zip(*cells, strict=True), strict=True))]


def _csi_by_lead(evaluation: Evaluation, width: int) -> tuple[Rows, str]:
    middle, minutes = nearest_threshold(evaluation), evaluation.lead_minutes
    names = evaluation.forecasters_with("pairs")
    title = f"CSI≥{evaluation.thresholds[middle]:g} at minute"
    shown = _evenly(len(minutes), min(TABLE_LEADS, _room(title, names, width)))
    rows = [[title, *(f"{minutes[n]:g}" for n in shown)]]
    rows += [[name, *map(number, SCORES["csi"](evaluation.total(name))[shown, middle])] for name in names]
    return rows if names else [], _left_out("lead times", len(shown), len(minutes))


def _room(title: str, names: Sequence[str], width: int) -> int:
    """Return how many columns of numbers below ten fit beside the names."""
    return max((width - max(map(len, [title, *names]))) // (len("0.000") + GAP), 1)


def _evenly(total: int, most: int) -> np.ndarray:
    """Return at most `most` of the positions below `total`, each as far from the next; the last one if all fit evenly."""
    step = math.ceil(total / most)
    return np.arange(total)[step - 1 :: step]


def _left_out(what: str, shown: int, total: int) -> str:
    return f"{shown} of {total} {what}; --format csv or --output has all." if shown < total else ""


def _fss_by_scale(evaluation: Evaluation) -> Rows:
    """Return FSS pooled over lead times at the threshold of the table by lead time; no rows if no window is fully known."""
    middle = nearest_threshold(evaluation)
    sums = _pooled_sums(evaluation, "windows")
    if not any(windows.num_pairs.any() for windows in sums.values()):
        return []
    scales = next(iter(sums.values())).scales_km
    rows = [[f"FSS≥{evaluation.thresholds[middle]:g} at km", *(f"{scale:g}" for scale in scales), "useful from"]]
    for name, windows in sums.items():
        useful = SCORES["fss_useful"](evaluation.total(name).pooled())[0, middle]
        rows.append([name, *map(number, SCORES["fss"](windows)[0, middle]), number(useful)])
    return rows


def _power_ratio(evaluation: Evaluation, width: int) -> tuple[Rows, str]:
    """Return forecast / observed power, pooled over lead times, at every second wavelength that a grid resolves.

    Of an ensemble that of its mean, and in a row of its own that of its members.
    """
    sums = _pooled_sums(evaluation, "spectra")
    sums |= {f"{name} members": spectra for name, spectra in _pooled_sums(evaluation, "member_spectra").items()}
    if not sums or not (observed := next(iter(sums.values())).power_o[0] > 0).any():
        return [], ""
    title, last = "power ratio at km", "resolution, km"
    wavelengths, resolved = np.array(next(iter(sums.values())).wavelengths_km), np.flatnonzero(observed)
    most = _room(title, list(sums), width - len(last) - GAP)
    shown = resolved[resolved % 2 == 0]
    shown = shown[:: math.ceil(len(shown) / most)] if len(shown) else resolved
    rows = [[title, *(f"{wavelengths[n]:g}" for n in shown), last]]
    for name, spectra in sums.items():
        power_ratio, resolution = SCORES["spectrum_ratio"](spectra)[0, shown], SCORES["effective_resolution"](spectra)[0]
        rows.append([name, *map(number, power_ratio), "–" if math.isnan(resolution) else f"{resolution:.1f}"])
    return rows, _left_out("wavelengths", len(shown), len(resolved))


def _pooled_sums(evaluation: Evaluation, kind: str) -> dict[str, Additive]:
    """Return the sums of one kind, pooled over lead times, for each forecaster that has them."""
    return {name: evaluation.total(name, kind).pooled() for name in evaluation.forecasters_with(kind)}


def _probabilities(evaluation: Evaluation, width: int) -> list[Rows]:
    """Return Brier scores, ROC areas and scores of ensembles, pooled over lead times; no rows without probabilities."""
    names = evaluation.forecasters_with("probabilities")
    totals = [evaluation.tally(name).pooled() for name in names]
    if not names:
        return []
    groups = [_by_threshold(evaluation, *score, totals) for score in (("Brier", "brier"), ("ROC area", "roc_area"))]
    scores = {"CRPS": _scores_of("crps", totals)}
    sizes = [ensemble_size(tally["members"])[0] if "members" in tally else math.nan for tally in totals]
    if any(size > 1 for size in sizes):
        of_members = {"CRPS fair": "crps_fair", "CRPS ecdf": "crps_ecdf", "spread/RMSE": "spread_skill"}
        scores |= {short: _scores_of(score, totals) for short, score in of_members.items()}
        scores["members"] = [f"{size:g}" if math.isfinite(size) else number(size) for size in sizes]
    return _side_by_side("probabilities, pooled over leads", names, [*groups, ("", scores)], width)


def _sums(evaluation: Evaluation, width: int) -> list[tuple[Rows, str]]:
    """Return scores of the rain of 30 and 60 minutes at cells and in boxes, pooled over lead times; none without ensembles.

    A note says which boxes are nowhere known throughout an interval.
    """
    tables: list[tuple[Rows, str]] = []
    for minutes in SUM_MINUTES:
        sums = _pooled_sums(evaluation, f"members_{minutes}_min")
        if not sums:
            continue
        sides = next(iter(sums.values())).boxes_km
        scored = [n for n in range(len(sides)) if any(each.num_pairs[0, n] for each in sums.values())]
        groups = []
        for short, score in (("CRPS fair", "crps_fair"), ("spread/RMSE", "spread_skill")):
            values = [SCORES[f"sum_{minutes}_min_{score}"](each)[0] for each in sums.values()]
            heads = {n: f" {sides[n]:g} km" if sides[n] else " cells" for n in scored}
            groups.append((short, {head: [number(own[n]) for own in values] for n, head in heads.items()}))
        absent = ", ".join(f"{side:g} km" for n, side in enumerate(sides) if n not in scored)
        if scored:
            made = _side_by_side(f"rain of {minutes} minutes, mm, pooled over leads", list(sums), groups, width)
            note = f"No box of {absent} is known throughout {minutes} minutes." if absent else ""
            tables += [(rows, note if rows is made[-1] else "") for rows in made]
    return tables


def _scores_of(score: str, totals: Sequence[Tally]) -> list[str]:
    """Return a score of sums over one lead, "–" for a forecaster without sums of its kind."""
    kind = SCORES[score].kind
    return [number(SCORES[score](tally)[0] if kind in tally else math.nan) for tally in totals]


def _differences(evaluation: Evaluation, rows: Sequence[Mapping] | None, width: int) -> list[Rows]:
    """Return for each two forecasters that are no baselines the differences of their scores, with paired intervals."""
    names = [name for name in evaluation.forecasters_with("pairs") if name not in evaluation.baselines]
    if len(names) < 2:
        return []
    found = {}
    for row in rows if rows is not None else evaluation.rows():
        if row["against"] in names and row["lead_minutes"] is None:
            found.setdefault((row["forecaster"], row["against"]), {})[row["score"], row["threshold"]] = row
    tables: list[Rows] = []
    for (name, other), by_score in found.items():
        parts = ["value", "low", "high"] if evaluation.num_blocks >= MIN_BLOCKS else ["value"]
        labels = [f"{name} − {other}", "  95 % from", "  to"][: len(parts)]
        groups: dict[str, dict[str, list[str]]] = {}
        for (score, threshold), row in by_score.items():
            if score in DIFFERENCES:
                group, head = (DIFFERENCES[score], f"≥{threshold:g}") if threshold is not None else ("", DIFFERENCES[score])
                groups.setdefault(group, {})[head] = [_signed(row[part]) for part in parts]
        tables += _side_by_side("difference, pooled", labels, list(groups.items()), width)
    return tables


def _signed(value: float) -> str:
    return number(value, "+.3f").replace("-", "−")


def confidence(evaluation: Evaluation) -> str:
    """Return one line that says what the confidence intervals are based on."""
    blocks = counted(evaluation.num_blocks, "block")
    if evaluation.num_blocks < MIN_BLOCKS:
        return (
            f"No confidence intervals: the cases are from {blocks}, at least {MIN_BLOCKS} are needed "
            "(a block is one day of one record)."
        )
    cases = f"cases per block on average: {evaluation.num_cases / evaluation.num_blocks:.3g}"
    method = f"{NUM_SAMPLES} resamples, seed {SEED}; differences are paired"
    return f"Intervals: {100 * LEVEL:g} % block bootstrap over {blocks} (a block is one day of one record), {cases}; {method}."


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(sentence, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _titled(rows: Rows, width: int) -> tuple[list[str], Rows]:
    """Return the title as a line of its own, and the table without it, where the title alone makes the table too wide."""
    title, names = rows[0][0], [row[0] for row in rows[1:]]
    if len(_align(rows)[0]) <= width or len(title) <= max(map(len, names)):
        return [], rows
    return _wrapped(title, width), [["", *rows[0][1:]], *rows[1:]]


def _stacked(rows: Rows, width: int) -> list[Rows]:
    """Divide a table that is too wide into several with as many columns as fit, and at least one, below the same names."""
    first, *columns = (max(map(len, column)) for column in zip(*rows, strict=True))
    parts, room = [[0]], width - first
    for n, column in enumerate(columns, 1):
        if room < column + GAP and len(parts[-1]) > 1:
            parts.append([0])
            room = width - first
        parts[-1].append(n)
        room -= column + GAP
    return [[[row[n] for n in part] for row in rows] for part in parts]


def _align(rows: Rows) -> list[str]:
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = " " * GAP
    return [gap.join([row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], others, strict=True))]) for row in rows]
