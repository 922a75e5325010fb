"""Findings in words: what the scores are based on, up to which lead time a forecaster is better, and gains from smoothing."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from nowcast.evaluation.result import Evaluation
from nowcast.forecasters.baselines import BASELINES
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import MIN_BLOCKS, difference_interval
from nowcast.scores.ensemble import ensemble_size

LOST_AREA = 0.8  # frequency bias below which a forecast is reported to have lost rain area
LESS = 0.9  # ratio of its bias to the baseline's below which the bias counts as smaller
MOST_SPANS = 2  # most spans of lead times listed in a sentence; more are counted instead
COARSER = 1.5  # ratio of effective resolutions above which a forecast is reported to be smoother than the baseline


def seen_cases(evaluation: Evaluation) -> list[str]:
    """Return warnings of networks that were trained, chosen or calibrated on cases that they are scored on here."""
    warnings = []
    for name, description in evaluation.about.get("forecasters", {}).items():
        counts = (description.get(f"num_cases_{what}", 0) for what in ("in_training", "in_validation", "at_seen_times"))
        trained, chosen, alike = (_share(number, evaluation.num_cases) for number in counts)
        if trained:
            warnings.append(f"Beware: '{name}' was trained on {trained}: these scores are too good.")
        if chosen:
            warnings.append(f"Beware: '{name}' was chosen or calibrated on {chosen}: these scores are a little too good.")
        if alike:
            warnings.append(
                f"Beware: '{name}' has seen a record of another name at the times of {alike}: if it is the same radar, these "
                "scores are too good."
            )
    return warnings


def quoted(name: str) -> str:
    """Return the name of a forecaster for a sentence; that of a run or a file stands in quotes."""
    return name if name in BASELINES else f"'{name}'"


def _share(number: int, total: int) -> str:
    if number < total:
        return f"{number:,} of the {total:,} cases" if number else ""
    return f"all {total:,} cases" if total > 1 else "the one case"


def findings(evaluation: Evaluation) -> list[str]:
    """Return sentences: warnings about few data, what was scored, CSI compared with each baseline, gains from smoothing.

    Baselines are compared with each other only if nothing else was scored.
    """
    others = [name for name in evaluation.forecasters_with("pairs") if name not in evaluation.baselines]
    pairs = [*itertools.combinations(others, 2), *itertools.product(others, evaluation.baselines)]
    if not others:
        pairs = [(name, before) for before, name in itertools.combinations(evaluation.baselines, 2)]
    sentences = [*_few_data(evaluation), *_what_was_scored(evaluation)]
    sentences += [_csi_comparison(evaluation, name, baseline) for name, baseline in pairs]
    sentences += [text for name in others or evaluation.baselines for text in _gains_from_smoothing(evaluation, name)]
    return sentences


def _few_data(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.num_cases == 1:
        yield "Only one case was scored: the scores of other cases can be very different."
    if not (names := evaluation.forecasters_with("pairs")):
        return
    total = evaluation.total(names[0])
    never = [t for t, n in zip(evaluation.thresholds, (total.hits + total.misses).sum(axis=0), strict=True) if not n]
    if never:
        values = f"{_listed(never)}{_unit(evaluation)}"
        yield f"No value of {values} or more was observed: at such a threshold there can only be false alarms."


def _what_was_scored(evaluation: Evaluation) -> Iterator[str]:
    """Yield which scores of a forecaster are those of its ensemble mean or of its probabilities."""
    for name in evaluation.forecasters_with("members"):
        if (size := ensemble_size(evaluation.total(name, "members").pooled())[0]) > 1:
            yield (
                f"{quoted(name)} has {size:g} members: its scores of a single field, such as CSI and MAE, are those of the "
                "ensemble mean, which is smoother than each member."
            )
    for name in evaluation.forecasters_with("probabilities"):
        if name not in evaluation.forecasters_with("pairs"):
            yield f"{quoted(name)} gives only probabilities: it has no scores of a single field, such as CSI and MAE."
        elif _states_probabilities(evaluation, name):
            yield (
                f"{quoted(name)} gives a field and probabilities: its Brier scores, ROC areas and CRPS are those of the "
                "probabilities, all other scores those of the field."
            )


def _states_probabilities(evaluation: Evaluation, name: str) -> bool:
    """Whether a forecast has probabilities of its own, other than the shares of members that follow from its field."""
    is_stated = name not in evaluation.forecasters_with("members")
    return bool(is_stated and evaluation.total(name, "probabilities").num_forecast[..., 1:-1].any())


def _csi_comparison(evaluation: Evaluation, name: str, baseline: str) -> str:
    """Return at which lead times CSI is higher than the baseline's, by threshold, and where with 95 % confidence."""
    csi = SCORES["csi"]
    better = csi(evaluation.total(name)) > csi(evaluation.total(baseline))
    if not better.any():
        return f"{quoted(name)} has a higher CSI than {quoted(baseline)} at no lead time."
    text = f"{quoted(name)} has a higher CSI than {quoted(baseline)} {_spans(evaluation, better)}"
    if evaluation.num_blocks >= MIN_BLOCKS:
        blocks = ([tally["pairs"] for tally in evaluation.blocks[side].values()] for side in (name, baseline))
        significant = difference_interval(*blocks, csi)[0] > 0
        text += _with_confidence(evaluation, better, significant)
    return f"{text}."


def _with_confidence(evaluation: Evaluation, better: np.ndarray, significant: np.ndarray) -> str:
    if (better == significant).all():
        return ", everywhere with 95 % confidence"
    spans = _spans(evaluation, significant, skip_empty=True) if significant.any() else "at no lead time"
    return f"; with 95 % confidence {spans}"


def _spans(evaluation: Evaluation, flags: np.ndarray, *, skip_empty: bool = False) -> str:
    """Return where the flags (lead, threshold) are set: "up to 45 minutes at 1 mm/h, up to 25 at 5, not at all at 10".

    With `skip_empty`, thresholds without a flag are left out.
    """
    columns = [_runs(flags[:, column]) for column in range(flags.shape[1])]
    if len(columns) > 1 and all(runs == columns[0] for runs in columns):
        return f"{_joined(evaluation, columns[0])} minutes at every threshold"
    phrases = []
    for runs, threshold in zip(columns, evaluation.thresholds, strict=True):
        if skip_empty and not runs:
            continue
        minutes, unit = ("", "") if phrases else (" minutes", _unit(evaluation))
        phrases.append(f"{_joined(evaluation, runs)}{minutes if runs else ''} at {threshold:g}{unit}")
    return ", ".join(phrases)


def _joined(evaluation: Evaluation, runs: Sequence[tuple[int, int]]) -> str:
    minutes = evaluation.lead_minutes
    if len(runs) > MOST_SPANS:
        return f"at {sum(end - start + 1 for start, end in runs)} of {len(minutes)} lead times up to {minutes[runs[-1][1]]:g}"
    return " and ".join(_span(minutes, *run) for run in runs) or "not at all"


def _span(minutes: Sequence[float], start: int, end: int) -> str:
    if start == 0:
        return f"up to {minutes[end]:g}"
    return f"from {minutes[start]:g} to {minutes[end]:g}" if start != end else f"at {minutes[end]:g}"


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last position of every run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]


def _gains_from_smoothing(evaluation: Evaluation, name: str) -> Iterator[str]:
    """Yield a sentence for each baseline with a higher MSE, if the forecast has lost rain area or detail compared with it."""
    own = evaluation.tally(name).pooled()
    own_bias = SCORES["frequency_bias"](own)[0]
    for baseline in evaluation.baselines:
        if baseline == name:
            continue
        other = evaluation.tally(baseline).pooled()
        errors = [SCORES["mse"](tally)[0] for tally in (own, other)]
        bias = SCORES["frequency_bias"](other)[0]
        has_lost_area = (own_bias < LOST_AREA) & (own_bias < LESS * bias)
        losses = [_area(evaluation, n, own_bias, bias, baseline) for n in np.flatnonzero(has_lost_area)]
        if "spectra" in own and "spectra" in other:
            resolution = [SCORES["effective_resolution"](tally)[0] for tally in (own, other)]
            if resolution[0] > COARSER * resolution[1]:
                losses.append(f"has lost detail finer than {resolution[0]:.0f} km ({baseline}: {resolution[1]:.0f} km)")
        if errors[0] < errors[1] and losses:
            yield (
                f"{quoted(name)} has a lower MSE than {baseline} ({errors[0]:.3g} against {errors[1]:.3g}) but "
                f"{', '.join(losses)}: part of the lower MSE comes from smoothing."
            )


def _area(evaluation: Evaluation, column: int, own_bias: np.ndarray, bias: np.ndarray, baseline: str) -> str:
    threshold = f"{evaluation.thresholds[column]:g}{_unit(evaluation)}"
    return f"forecasts {own_bias[column]:.0%} of the observed area at {threshold} ({baseline}: {bias[column]:.0%})"


def _unit(evaluation: Evaluation) -> str:
    return f" {evaluation.quantity.unit}".rstrip()


def _listed(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:g}" for number in numbers)
