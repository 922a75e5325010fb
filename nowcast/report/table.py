"""The scores as text and files: the table, scores.nc, scores.csv and scores.json.

Undefined values are "–" in the table, empty in CSV, null in JSON and NaN in NetCDF.
"""

import math
from collections.abc import Sequence

import numpy as np

from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.evaluation.score_files import any_tally
from nowcast.report.sentences import findings
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import LEVEL, MIN_BLOCKS, NUM_SAMPLES, SEED
from nowcast.scores.ensemble import ensemble_size
from nowcast.scores.sums import Additive

TABLE_LEADS = 12  # columns; of more leads the table shows some, the files hold all


def table(evaluation: Evaluation) -> str:
    """As text: scores pooled over leads, CSI by lead, FSS by scale, power by wavelength, then what they say in words."""
    parts = [_pooled(evaluation), _csi_by_lead(evaluation), _fss_by_scale(evaluation), _power_kept(evaluation)]
    parts.append(_of_probabilities(evaluation))
    lines = [line for rows in parts if rows for line in (*_align(rows), "")]
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
    """Pooled over leads, at the threshold of the table by lead; no rows where no window of any scale is known."""
    middle = nearest_threshold(evaluation)
    having = _pooled_of(evaluation, "windows")
    if not any(windows.num_pairs.any() for windows in having.values()):
        return []
    scales = next(iter(having.values())).scales_km
    rows = [[f"FSS≥{evaluation.thresholds[middle]:g} at km", *(f"{scale:g}" for scale in scales), "useful from"]]
    for name, windows in having.items():
        useful = SCORES["fss_useful"](evaluation.total(name).pooled())[0, middle]
        rows.append([name, *map(number, SCORES["fss"](windows)[0, middle]), number(useful)])
    return rows


def _power_kept(evaluation: Evaluation) -> list[list[str]]:
    """Pooled over leads, at every second wavelength that any grid has."""
    having = _pooled_of(evaluation, "spectra")
    if not having or not (there := next(iter(having.values())).power_o[0] > 0).any():
        return []
    wavelengths = np.array(next(iter(having.values())).wavelengths_km)
    shown = np.flatnonzero(there & (np.arange(len(wavelengths)) % 2 == 0))
    rows = [["power kept at km", *(f"{wavelengths[n]:g}" for n in shown), "resolution, km"]]
    for name, spectra in having.items():
        kept, resolution = SCORES["spectrum_ratio"](spectra)[0, shown], SCORES["effective_resolution"](spectra)[0]
        rows.append([name, *map(number, kept), "–" if math.isnan(resolution) else f"{resolution:.1f}"])
    return rows


def _pooled_of(evaluation: Evaluation, kind: str) -> dict[str, Additive]:
    """The pooled sums of one kind by forecaster, of those that have it."""
    having = [name for name in evaluation.blocks if kind in any_tally(evaluation, name)]
    return {name: evaluation.total(name, kind).pooled() for name in having}


def _of_probabilities(evaluation: Evaluation) -> list[list[str]]:
    """Brier scores, ROC areas and what ensembles have, pooled over leads; nothing where all forecasts are deterministic."""
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
    """One line on what the intervals rest on."""
    blocks = f"{evaluation.num_blocks} block{'s' if evaluation.num_blocks != 1 else ''} (a record's day)"
    if evaluation.num_blocks < MIN_BLOCKS:
        return f"No interval can be given: {blocks}, at least {MIN_BLOCKS} are needed."
    each = f"on average {evaluation.num_cases / evaluation.num_blocks:.3g} cases each"
    how = f"{NUM_SAMPLES} samples, seed {SEED}; differences are paired"
    return f"Intervals: {100 * LEVEL:g} % block bootstrap over {blocks}, {each}; {how}."


def number(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.3f}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows
    ]
