"""What the scores say in words, where numbers alone mislead: who is better for how long, and who wins by being smooth."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from nowcast.evaluation.result import Evaluation
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import MIN_BLOCKS, difference_interval
from nowcast.scores.ensemble import ensemble_size

LOST_AREA = 0.8  # frequency bias below which rain is said to be lost
LESS = 0.9  # of the other's bias: what is nearer to it is no difference
MOST_SPANS = 2  # of lead times in a sentence; more are counted
COARSER = 1.5  # ratio of effective resolutions from which on a forecast is said to be smoother


def findings(evaluation: Evaluation) -> list[str]:
    """Sentences: what the scores rest on where that is little, how long each forecaster beats each baseline, smooth wins.

    Baselines are compared among themselves only where nothing else was scored.
    """
    others = [name for name in evaluation.forecasters_with("pairs") if name not in evaluation.baselines]
    pairs = [(name, baseline) for name in others for baseline in evaluation.baselines]
    if not others:
        pairs = [(name, before) for before, name in itertools.combinations(evaluation.baselines, 2)]
    found = [*_thin_ground(evaluation), *_what_kind(evaluation)]
    found += [_how_long(evaluation, name, baseline) for name, baseline in pairs]
    found += [text for name in others or evaluation.baselines for text in _smooth_win(evaluation, name)]
    return found


def _thin_ground(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.num_cases == 1:
        yield "One case was scored: this is what happened once, not what to expect."
    if not (having := evaluation.forecasters_with("pairs")):
        return
    total = evaluation.total(having[0])
    never = [t for t, n in zip(evaluation.thresholds, (total.hits + total.misses).sum(axis=0), strict=True) if not n]
    if never:
        yield f"Nothing of {_listed(never)}{_unit(evaluation)} or more was observed: only false alarms can be told there."


def _what_kind(evaluation: Evaluation) -> Iterator[str]:
    """Which scores are not of a forecaster's own field."""
    for name in evaluation.forecasters_with("members"):
        if (size := ensemble_size(evaluation.total(name, "members").pooled())[0]) > 1:
            yield f"{name} has {size:g} members: the scores of a single field are of their mean, which is smoother than each."
    for name in evaluation.forecasters_with("probabilities"):
        if name not in evaluation.forecasters_with("pairs"):
            yield f"{name} gives probabilities alone: it has no scores of a field."
        elif _states_probabilities(evaluation, name):
            yield f"{name} gives probabilities beside its field: Brier score and ROC are of these, the others of the field."


def _states_probabilities(evaluation: Evaluation, name: str) -> bool:
    """Whether probabilities of a single forecast are not the 0 and 1 that its field comes to."""
    is_one = ensemble_size(evaluation.total(name, "members").pooled())[0] == 1
    return bool(is_one and evaluation.total(name, "probabilities").num_forecast[..., 1:-1].any())


def _how_long(evaluation: Evaluation, name: str, baseline: str) -> str:
    """To which lead time CSI is higher than the baseline's, at each threshold; and where surely so."""
    csi = SCORES["csi"]
    better = csi(evaluation.total(name)) > csi(evaluation.total(baseline))
    if not better.any():
        return f"{name} has a higher CSI than {baseline} at no lead time."
    text = f"{name} has a higher CSI than {baseline} {_spans(evaluation, better)}"
    if evaluation.num_blocks >= MIN_BLOCKS:
        blocks = ([tally["pairs"] for tally in evaluation.blocks[side].values()] for side in (name, baseline))
        surely = difference_interval(*blocks, csi)[0] > 0
        text += _how_surely(evaluation, better, surely)
    return f"{text}."


def _how_surely(evaluation: Evaluation, better: np.ndarray, surely: np.ndarray) -> str:
    if (better == surely).all():
        return ", all of it with 95 % confidence"
    return f"; with 95 % confidence {_spans(evaluation, surely, only_there=True) if surely.any() else 'at no lead time'}"


def _spans(evaluation: Evaluation, true: np.ndarray, *, only_there: bool = False) -> str:
    """Where the (lead, threshold) flags are set: "to 45 minutes at 1 mm/h, to 25 at 5, not at all at 10".

    `only_there` leaves out the thresholds at which none is.
    """
    columns = [_runs(true[:, column]) for column in range(true.shape[1])]
    if len(columns) > 1 and all(runs == columns[0] for runs in columns):
        return f"{_joined(evaluation, columns[0])} minutes at every threshold"
    parts = []
    for runs, threshold in zip(columns, evaluation.thresholds, strict=True):
        if only_there and not runs:
            continue
        minutes, unit = ("", "") if parts else (" minutes", _unit(evaluation))
        parts.append(f"{_joined(evaluation, runs)}{minutes if runs else ''} at {threshold:g}{unit}")
    return ", ".join(parts)


def _joined(evaluation: Evaluation, runs: Sequence[tuple[int, int]]) -> str:
    minutes = evaluation.lead_minutes
    if len(runs) > MOST_SPANS:
        return f"at {sum(end - start + 1 for start, end in runs)} of {len(minutes)} lead times to {minutes[runs[-1][1]]:g}"
    return " and ".join(_span(minutes, *run) for run in runs) or "not at all"


def _span(minutes: Sequence[float], start: int, end: int) -> str:
    if start == 0:
        return f"to {minutes[end]:g}"
    return f"from {minutes[start]:g} to {minutes[end]:g}" if start != end else f"at {minutes[end]:g}"


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last position of every run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]


def _smooth_win(evaluation: Evaluation, name: str) -> Iterator[str]:
    """A lower MSE than a baseline's that goes with lost rain or lost detail."""
    mine = evaluation.tally(name).pooled()
    lost = SCORES["frequency_bias"](mine)[0]
    for baseline in evaluation.baselines:
        if baseline == name:
            continue
        theirs = evaluation.tally(baseline).pooled()
        errors = [SCORES["mse"](side)[0] for side in (mine, theirs)]
        kept = SCORES["frequency_bias"](theirs)[0]
        with_less = (lost < LOST_AREA) & (lost < LESS * kept)
        facts = [_area(evaluation, n, lost, kept, baseline) for n in np.flatnonzero(with_less)]
        if "spectra" in mine and "spectra" in theirs:
            resolution = [SCORES["effective_resolution"](side)[0] for side in (mine, theirs)]
            if resolution[0] > COARSER * resolution[1]:
                facts.append(f"has lost detail finer than {resolution[0]:.0f} km ({baseline}: {resolution[1]:.0f} km)")
        if errors[0] < errors[1] and facts:
            yield (
                f"{name} has a lower MSE than {baseline} ({errors[0]:.3g} against {errors[1]:.3g}) but "
                f"{', '.join(facts)}: part of that win is smoothness."
            )


def _area(evaluation: Evaluation, column: int, lost: np.ndarray, kept: np.ndarray, baseline: str) -> str:
    where = f"{evaluation.thresholds[column]:g}{_unit(evaluation)}"
    return f"forecasts {lost[column]:.0%} of the observed area at {where} ({baseline}: {kept[column]:.0%})"


def _unit(evaluation: Evaluation) -> str:
    return f" {evaluation.quantity.unit}".rstrip()


def _listed(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:g}" for number in numbers)
