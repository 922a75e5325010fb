"""Findings as sentences: comparison with baselines by lead time, basis of the scores, gains from smoothing."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.forecasters.baselines import BASELINES
from nowcast.scores import SCORES
from nowcast.scores.bootstrap import MIN_BLOCKS, difference_interval
from nowcast.scores.ensemble import ensemble_size
from nowcast.scores.sums import Tally

LOST_AREA = 0.8  # frequency bias below which a forecast is reported to have lost rain area
LESS = 0.9  # ratio of its bias to the baseline's below which the bias counts as smaller
MOST_SPANS = 2  # most spans of lead times listed in a sentence; more are counted instead
ROUNDING = 1e-9  # a score below this is the rounding error of its sums: 0
UNDEFINED = "–"
COARSER = 1.5  # ratio of effective resolutions above which a forecast is reported to be smoother than the baseline


def headline(evaluation: Evaluation, rows: Sequence[Mapping]) -> str:
    """Return one sentence that compares CSI at the threshold nearest to 1 mm/h: by how much and up to which lead time.

    The first forecaster that is no baseline is compared with the best baseline. `rows` are those of the evaluation.
    """
    csi, column = SCORES["csi"], nearest_threshold(evaluation)
    event = f"{evaluation.thresholds[column]:g}{_unit(evaluation)}"
    scored = {name: float(csi.pooled(evaluation.tally(name))[0, column]) for name in evaluation.forecasters_with("pairs")}
    if not scored:
        return f"No field was scored at {event}: the scores of probabilities follow."
    if not _is_observed(evaluation)[column]:
        return f"{event} or more was never observed: no forecast can have a CSI above 0 there, so none is better than another."
    others = [name for name in scored if name not in evaluation.baselines]
    name = others[0] if others else max(scored, key=scored.__getitem__)
    rivals = [other for other in scored if other in evaluation.baselines and other != name] or [o for o in others if o != name]
    if not rivals:
        text = f"{scored_field(evaluation, name)} has a CSI of {number(scored[name])} at {event}; nothing was scored beside it."
        return text[0].upper() + text[1:]
    rival = max(rivals, key=scored.__getitem__)
    best_of = f", the best of {len(rivals)} baselines," if len(rivals) > 1 and rival in evaluation.baselines else ""
    difference = scored[name] - scored[rival]
    row = _difference_row(rows, name, rival, evaluation.thresholds[column])
    is_certain = row is None or not math.isfinite(row["low"]) or row["low"] > 0 or row["high"] < 0
    is_equal = round(difference, 3) == 0 or not is_certain
    compared = "about as good as" if is_equal else "better than" if difference > 0 else "worse than"
    better = csi(evaluation.total(name))[:, column] > csi(evaluation.total(rival))[:, column]
    when = _when(evaluation, better)
    return (
        f"At {event}, {scored_field(evaluation, name)} is {compared} {quoted(rival)}{best_of or ','} with a CSI of "
        f"{number(scored[name])} against {number(scored[rival])} ({_by_how_much(row, difference, evaluation.num_blocks)}), all "
        f"lead times taken together; lead by lead it is better {when}."
    )


def _when(evaluation: Evaluation, flags: np.ndarray) -> str:
    """Return at which lead times flags (lead,) are set, as the end of a sentence."""
    last = f"{evaluation.lead_minutes[-1]:g} minutes"
    if flags.all():
        return f"at every lead time, up to {last}"
    runs = _runs(flags)
    return f"{_joined(evaluation, runs)} minutes ahead" if runs else "at no lead time"


def _difference_row(rows: Sequence[Mapping], name: str, rival: str, threshold: float) -> Mapping | None:
    """Return the row of the difference of CSI, name minus rival, all lead times pooled; None if they were not compared.

    Each two forecasters have rows in one order only (see `compared_with`): those of the other order are turned round.
    """
    columns = ("forecaster", "against", "score", "threshold", "lead_minutes")
    found = {tuple(row[column] for column in columns): row for row in rows if row["score"] == "csi"}
    if row := found.get((name, rival, "csi", threshold, None)):
        return row
    row = found.get((rival, name, "csi", threshold, None))
    return row and {**row, "value": -row["value"], "low": -row["high"], "high": -row["low"]}


def _by_how_much(row: Mapping | None, difference: float, num_blocks: int) -> str:
    """Return a difference of CSI with its interval, such as "+0.012, 95 % confidence +0.004 to +0.020".

    With enough blocks there is none where many resamples hold no event: nearly all rain fell on few days.
    """
    text = number(difference, "+.3f")
    if row is None or not math.isfinite(row["low"]):
        days = "days" if num_blocks < MIN_BLOCKS else "days with such events"
        return f"{text}; too few {days} for a confidence interval".replace("-", "−")
    return f"{text}, 95 % confidence {number(row['low'], '+.3f')} to {number(row['high'], '+.3f')}".replace("-", "−")


def number(value: float, form: str = ".3f") -> str:
    """Return a value with the decimals of `form`, or with one digit where these are all 0; "–" if it is undefined.

    form: ".3f", ".4f" or "+.3f", with a sign before every number
    """
    if not math.isfinite(value):
        return UNDEFINED
    if abs(value) < ROUNDING:
        return f"{0.0:{form}}"
    text = f"{value:{form}}"
    return text if float(text) else f"{value:{'+' if form.startswith('+') else ''}.1g}"


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


def scored_field(evaluation: Evaluation, name: str) -> str:
    """Return the name of the field that is scored, for a sentence: the forecaster, or the mean of its members."""
    size = _num_members(evaluation, name)
    return f"the mean of the {size:g} members of {quoted(name)}" if size > 1 else quoted(name)


def _num_members(evaluation: Evaluation, name: str) -> float:
    """Return how many members a forecaster has, 1 if it is no ensemble."""
    if name not in evaluation.forecasters_with("members"):
        return 1.0
    return float(ensemble_size(evaluation.total(name, "members").pooled())[0])


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
    if pairs and _is_observed(evaluation).any():  # elsewhere no CSI is above 0, and the sentences above say so
        sentences += [_csi_comparison(evaluation, name, baseline) for name, baseline in pairs]
    sentences += [text for name in others or evaluation.baselines for text in _gains_from_smoothing(evaluation, name)]
    return sentences


def _few_data(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.num_cases == 1:
        yield "Only one case was scored: other cases can give very different scores."
    if not evaluation.forecasters_with("pairs"):
        return
    never = [t for t, is_observed in zip(evaluation.thresholds, _is_observed(evaluation), strict=True) if not is_observed]
    if never:
        values = f"{_listed(never)}{_unit(evaluation)}"
        yield f"{values} or more was never observed: there, every forecast of it is a false alarm."


def _is_observed(evaluation: Evaluation) -> np.ndarray:
    """Return for each threshold whether an event was observed; elsewhere CSI is 0 or undefined. Needs pairs."""
    total = evaluation.total(evaluation.forecasters_with("pairs")[0])
    return (total.hits + total.misses).sum(axis=0) > 0


def _what_was_scored(evaluation: Evaluation) -> Iterator[str]:
    """Yield sentences about which scores are those of an ensemble mean or of probabilities."""
    for name in evaluation.forecasters_with("members"):
        if (size := _num_members(evaluation, name)) > 1:
            yield (
                f"{quoted(name)} has {size:g} members: its scores of a single field, such as CSI and MAE, are those of the "
                "ensemble mean, which is smoother than each member; its Brier scores and CRPS are those of the fractions of "
                "members, and are worse the fewer members there are."
            )
    both = [name for name in evaluation.forecasters_with("pairs") if _states_probabilities(evaluation, name)]
    if both:
        give, of_these = ("gives", "its") if len(both) == 1 else ("give", "their")
        scores = f"{of_these} Brier scores, ROC areas and CRPS come from those"
        yield f"{_names(both)} {give} probabilities beside the field: {scores}."
    for name in evaluation.forecasters_with("probabilities"):
        if name not in evaluation.forecasters_with("pairs"):
            yield f"{quoted(name)} gives only probabilities: it has no scores of a single field, such as CSI and MAE."


def _states_probabilities(evaluation: Evaluation, name: str) -> bool:
    """Whether a forecast has probabilities of its own, other than the shares of members that follow from its field."""
    is_stated = name in evaluation.forecasters_with("probabilities") and name not in evaluation.forecasters_with("members")
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
    """Return where the flags (lead, threshold) are set: "up to 45 minutes at 1 and 2 mm/h, not at all at 10 mm/h".

    With `skip_empty`, thresholds without a flag are left out, and always those that were never observed.
    """
    columns = [tuple(_runs(flags[:, column])) for column in range(flags.shape[1])]
    is_observed = _is_observed(evaluation)
    if is_observed.all() and len(columns) > 1 and all(runs == columns[0] for runs in columns):
        return f"{_joined(evaluation, columns[0])} minutes at every threshold"
    alike: dict[tuple, list[float]] = {}
    for runs, threshold in zip(
        itertools.compress(columns, is_observed), itertools.compress(evaluation.thresholds, is_observed), strict=True
    ):
        if runs or not skip_empty:
            alike.setdefault(runs, []).append(threshold)
    phrases = [
        f"{_joined(evaluation, runs)}{' minutes' if runs else ''} at {_listed(thresholds, 'and')}{_unit(evaluation)}"
        for runs, thresholds in sorted(alike.items(), key=lambda item: not item[0])  # "not at all" comes last
    ]
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
    """Yield a sentence on the baselines with a higher MSE, if the forecast has lost rain area or detail compared with them."""
    own = evaluation.tally(name).pooled()
    error, bias = SCORES["mse"](own)[0], SCORES["frequency_bias"](own)[0]
    beaten, lost, coarser = {}, np.zeros(len(bias), bool), False
    for baseline in evaluation.baselines:
        other = evaluation.tally(baseline).pooled()
        if baseline == name or not error < SCORES["mse"](other)[0]:
            continue
        has_lost = (bias < LOST_AREA) & (bias < LESS * SCORES["frequency_bias"](other)[0])
        is_coarser = "spectra" in own and "spectra" in other and _resolution(own) > COARSER * _resolution(other)
        if has_lost.any() or is_coarser:
            beaten[baseline] = other
            lost, coarser = lost | has_lost, coarser or is_coarser
    if not beaten:
        return
    errors = ", ".join(f"{quoted(other)} {SCORES['mse'](tally)[0]:.3g}" for other, tally in beaten.items())
    losses = [_areas(evaluation, np.flatnonzero(lost), bias, beaten)] if lost.any() else []
    if coarser:
        others = [_resolution(tally) for tally in beaten.values() if "spectra" in tally]
        losses.append(f"it has no detail finer than {_resolution(own):.0f} km (theirs: {_range(others, '{:.0f}', ' km')})")
    yield f"Part of the low MSE of {quoted(name)}, {error:.3g} ({errors}), comes from smoothing: {'; '.join(losses)}."


def _resolution(tally: Tally) -> float:
    """Return the effective resolution in km."""
    return float(SCORES["effective_resolution"](tally)[0])


def _areas(evaluation: Evaluation, columns: Sequence[int], bias: np.ndarray, beaten: Mapping[str, Tally]) -> str:
    """Return what share of the observed area is forecast at each of the thresholds in `columns`; the first one in full."""
    texts = []
    for column in columns:
        others = [100 * SCORES["frequency_bias"](tally)[0][column] for tally in beaten.values()]
        of, whose = ("", "") if texts else (" of the observed area", "theirs: ")
        threshold = f"{evaluation.thresholds[column]:g}{_unit(evaluation)}"
        texts.append(f"{100 * bias[column]:.0f} %{of} at {threshold} ({whose}{_range(others, '{:.0f}', ' %')})")
    return f"it forecasts {', '.join(texts)}"


def _range(values: Sequence[float], form: str, unit: str) -> str:
    """Return values as a range, such as "4 to 8 km"; the one value if all are shown alike."""
    known = sorted(value for value in values if math.isfinite(value)) or [math.nan]
    first, last = (form.format(known[n]) for n in (0, -1))
    return f"{first}{unit}" if first == last else f"{first} to {last}{unit}"


def _names(names: Sequence[str]) -> str:
    """Return quoted names as a list in words."""
    return " and ".join(filter(None, (", ".join(map(quoted, names[:-1])), quoted(names[-1]))))


def _unit(evaluation: Evaluation) -> str:
    return f" {evaluation.quantity.unit}".rstrip()


def _listed(numbers: Sequence[float], word: str = "or") -> str:
    texts = [f"{number:g}" for number in numbers]
    return f" {word} ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
