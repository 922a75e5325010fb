"""The tables of scores that `nowcast evaluate` prints on the terminal. Undefined values are "–"."""

import math
from collections.abc import Sequence

import numpy as np

from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.report.sentences import findings
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import LEVEL, MIN_BLOCKS, NUM_SAMPLES, SEED
from nowcast.scores.ensemble import ensemble_size
from nowcast.scores.sums import Additive

TABLE_LEADS = 12  # most lead times in the table; the files hold all of them


def table(evaluation: Evaluation) -> str:
    """Return the tables as text, then the findings in words, then what the intervals are based on.

    The tables are: scores pooled over lead times, CSI by lead time, FSS by scale, power ratio by wavelength, probabilities.
    """
    tables = [_pooled(evaluation), _csi_by_lead(evaluation), _fss_by_scale(evaluation), _power_ratio(evaluation)]
    tables.append(_probabilities(evaluation))
    lines = [line for rows in tables if rows for line in (*_align(rows), "")]
    return "\n".join([*lines, *findings(evaluation), confidence(evaluation)])


def _pooled(evaluation: Evaluation) -> list[list[str]]:
    header = ["pooled over leads", *(f"{name}≥{t:g}" for name in ("CSI", "bias") for t in evaluation.thresholds)]
    rows = [[*header, "MAE", "RMSE", "corr", "cases", "pairs"]]
    for name in evaluation.forecasters_with("pairs"):
        total = evaluation.total(name).pooled()
        scores = [*SCORES["csi"](total)[0], *SCORES["frequency_bias"](total)[0]]
        scores += [SCORES[score](total)[0] for score in ("mae", "rmse", "correlation")]
        rows.append([name, *map(number, scores), f"{evaluation.num_cases:,}", f"{int(total.num_pairs[0]):,}"])
    return rows


def _csi_by_lead(evaluation: Evaluation) -> list[list[str]]:
    middle, leads = nearest_threshold(evaluation), np.arange(len(evaluation.lead_minutes))
    shown = leads[:: math.ceil(len(leads) / TABLE_LEADS)]
    rows = [[f"CSI≥{evaluation.thresholds[middle]:g} at minute", *(f"{evaluation.lead_minutes[n]:g}" for n in shown)]]
    for name in evaluation.forecasters_with("pairs"):
        rows.append([name, *map(number, SCORES["csi"](evaluation.total(name))[shown, middle])])
    return rows


def _fss_by_scale(evaluation: Evaluation) -> list[list[str]]:
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


def _power_ratio(evaluation: Evaluation) -> list[list[str]]:
    """Return forecast / observed power, pooled over lead times, at every second wavelength that a grid resolves."""
    sums = _pooled_sums(evaluation, "spectra")
    if not sums or not (observed := next(iter(sums.values())).power_o[0] > 0).any():
        return []
    wavelengths = np.array(next(iter(sums.values())).wavelengths_km)
    shown = np.flatnonzero(observed & (np.arange(len(wavelengths)) % 2 == 0))
    rows = [["power ratio at km", *(f"{wavelengths[n]:g}" for n in shown), "resolution, km"]]
    for name, spectra in sums.items():
        power_ratio, resolution = SCORES["spectrum_ratio"](spectra)[0, shown], SCORES["effective_resolution"](spectra)[0]
        rows.append([name, *map(number, power_ratio), "–" if math.isnan(resolution) else f"{resolution:.1f}"])
    return rows


def _pooled_sums(evaluation: Evaluation, kind: str) -> dict[str, Additive]:
    """Return the sums of one kind, pooled over lead times, for each forecaster that has them."""
    return {name: evaluation.total(name, kind).pooled() for name in evaluation.forecasters_with(kind)}


def _probabilities(evaluation: Evaluation) -> list[list[str]]:
    """Return Brier scores, ROC areas and scores of ensembles, pooled over lead times; no rows without probabilities."""
    if not evaluation.forecasters_with("probabilities"):
        return []
    by_threshold = {"brier": "Brier", "roc_area": "ROC area"}
    of_members = {"crps_fair": "CRPS fair", "crps_ecdf": "CRPS ecdf", "spread_skill": "spread/RMSE"}
    header = [f"{short}≥{t:g}" for short in by_threshold.values() for t in evaluation.thresholds]
    rows = [["probabilities, pooled over leads", *header, *of_members.values(), "members"]]
    for name in evaluation.forecasters_with("probabilities"):
        tally = evaluation.tally(name).pooled()
        scores = [value for score in by_threshold for value in SCORES[score](tally)[0]]
        has_members = "members" in tally
        scores += [SCORES[score](tally)[0] if has_members else math.nan for score in of_members]
        size = f"{ensemble_size(tally['members'])[0]:g}" if has_members else number(math.nan)
        rows.append([name, *map(number, scores), size])
    return rows


def confidence(evaluation: Evaluation) -> str:
    """Return one line that says what the confidence intervals are based on."""
    blocks = f"{evaluation.num_blocks} block{'s' if evaluation.num_blocks != 1 else ''}"
    if evaluation.num_blocks < MIN_BLOCKS:
        return (
            f"No confidence intervals: the cases are from {blocks}, at least {MIN_BLOCKS} are needed "
            "(a block is one day of one record)."
        )
    cases = f"{evaluation.num_cases / evaluation.num_blocks:.3g} cases per block on average"
    method = f"{NUM_SAMPLES} resamples, seed {SEED}; differences are paired"
    return f"Intervals: {100 * LEVEL:g} % block bootstrap over {blocks} (a block is one day of one record), {cases}; {method}."


def number(value: float) -> str:
    """Return a value with three decimals, "–" if it is undefined."""
    return "–" if not math.isfinite(value) else f"{value:.3f}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows
    ]
