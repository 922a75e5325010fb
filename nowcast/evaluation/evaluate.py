"""Forecasters + records -> sums -> scores with intervals.

Every forecaster is scored on the same cases under one common mask: a pixel counts at a lead only where the observation and
every forecast are known. Sums are kept by block (a record's UTC day), so that intervals can be drawn from them.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import DataError, UsageError
from nowcast.evaluation.examples import Example, ScoredCase, choose, make_example
from nowcast.evaluation.probabilities import Case, Probabilities
from nowcast.evaluation.provenance import about
from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.forecasters.forecaster import Forecaster, most_past_frames, num_leads, on_record, time_step
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection
from nowcast.runtime import distributed
from nowcast.runtime.progress import track
from nowcast.scores import DATA_RANGES, Setup, tallies
from nowcast.scores.pixels import Sums, csi
from nowcast.scores.sums import Tally

log = logging.getLogger(__name__)
Source = Forecaster | FileForecaster
MINUTE = np.timedelta64(60, "s")


def evaluate(
    sources: Mapping[str, Source],
    records: Sequence[Record],
    *,
    selection: Selection,
    thresholds: Sequence[float],
    examples: bool = False,
) -> Evaluation:
    """Score every source on all cases that the records hold and all sources can forecast.

    Several processes score their shares, and all get the whole; with `examples` the first of them forecasts a few cases
    again, to be looked at. Memory is bounded by one case. Raises DataError (exit 3)
    where no case is complete or the sources do not fit the records, UsageError (2) where they do not fit each other.
    """
    if different := [record for record in records if record.quantity != records[0].quantity]:
        raise DataError(
            f"{different[0].name} holds {different[0].quantity} but {records[0].name} holds {records[0].quantity}.\n"
            "Evaluate them one by one."
        )
    probabilities = Probabilities.of(sources, thresholds)
    planned = [_windows(sources, record, selection) for record in records]
    steps = {windows.time_step: record.name for record, windows in zip(records, planned, strict=True) if len(windows)}
    if not steps:
        raise DataError(_not_in_time(sources, records) or _no_case(planned))
    if len(steps) > 1:
        found = ", ".join(f"{name} {step / MINUTE:g} min" for step, name in steps.items())
        raise UsageError(f"the records are forecast in different time steps ({found}): evaluate them one by one")
    step, leads = next(iter(steps)), planned[0].lead_frames
    minutes = tuple((np.arange(1, leads + 1) * step / MINUTE).tolist())
    evaluation = Evaluation(minutes, tuple(map(float, thresholds)), records[0].quantity)
    for record, windows in zip(records, planned, strict=True):
        if len(windows):
            _score_record(evaluation, sources, record, windows, probabilities)
    evaluation, *others = distributed.gather(evaluation)
    for other in others:
        evaluation.merge(other)
    evaluation.sort()
    evaluation.about = about(sources, records, evaluation.cases)
    if not evaluation.num_cases:
        raise DataError(_no_case(planned, evaluation))
    for name in (name for name, number in evaluation.silent.items() if number):
        number = evaluation.silent[name]
        log.warning("%s: forecasts nothing but missing values in %d cases, which so count for nobody", name, number)
    if examples and distributed.is_first():
        chosen = choose(evaluation.cases)
        evaluation.examples = [_example(evaluation, sources, records, planned, *ranked) for ranked in chosen.items()]
    return evaluation


def _windows(sources: Mapping[str, Source], record: Record, selection: Selection) -> Windows:
    """The cases of a record that every source can forecast, each with the most past frames that one of them uses."""
    windows = find_windows(
        record.times,
        input_frames=max(most_past_frames(source) for source in sources.values()),
        lead_frames=_common_leads(sources.values(), record),
        time_step=_common_step(sources, record),
    )
    chosen = selection.select(record.times)[windows.reference_positions]
    references = record.times[windows.reference_positions]
    for source in sources.values():
        if isinstance(source, FileForecaster):
            chosen &= np.isin(references, source.file.reference_times)
    return windows.select(chosen)


def _common_leads(sources, record: Record) -> int:
    found = [
        source.num_leads(record) if isinstance(source, FileForecaster) else num_leads(source)
        for source in sources
        if hasattr(source, "lead_frames")
    ]
    return min(found) if found else num_leads(next(iter(sources)))


def _common_step(sources: Mapping[str, Source], record: Record) -> np.timedelta64:
    steps = {name: source.time_step(record) for name, source in sources.items() if hasattr(source, "time_step")}
    if len(set(steps.values())) > 1:
        found = ", ".join(f"{name} {step / MINUTE:g} min" for name, step in steps.items())
        raise UsageError(f"the forecasters have different time steps on {record.name} ({found}): evaluate them one by one")
    return next(iter(steps.values())) if steps else time_step(next(iter(sources.values())), record)


def _not_in_time(sources: Mapping[str, Source], records: Sequence[Record]) -> str | None:
    """Why files of forecasts have no case, where their times are what is wrong."""
    files = {name: source.file.reference_times for name, source in sources.items() if isinstance(source, FileForecaster)}
    spans = "; ".join(f"{record.name} goes from {record.times[0]}Z to {record.times[-1]}Z" for record in records)
    for name, times in files.items():
        if not any(np.isin(times, record.times).any() for record in records):
            inside = any(((times >= record.times[0]) & (times <= record.times[-1])).any() for record in records)
            told = "no frame at any of these times" if inside else "no overlap in time"
            return f"{name} has forecasts from {_span(times)}: {told}.\n{spans}."
    common = set.intersection(*(set(times.tolist()) for times in files.values())) if files else {()}
    if not common:
        found = "; ".join(f"{name} from {_span(times)}" for name, times in files.items())
        return (
            f"the files of forecasts have no reference time in common: {found}.\n"
            "The files of one forecaster are named by their folder, or by a glob in quotes."
        )
    return None


def _span(times: np.ndarray) -> str:
    return f"{times[0]}Z" if len(times) == 1 else f"{times[0]}Z to {times[-1]}Z"


def _no_case(planned: Sequence[Windows], evaluation: Evaluation | None = None) -> str:
    """Why there is nothing to score, from the account of all records, or from what was found in reading them."""
    account = sum((windows.account for windows in planned[1:]), planned[0].account)
    frames = (
        f"{planned[0].input_frames} past and {planned[0].lead_frames} future frames {planned[0].time_step / MINUTE:g} min apart"
    )
    if not account.num_windows:
        return f"no complete case of {frames} to score.\n{'; '.join(line.strip() for line in account.lines())}."
    if not any(len(windows) for windows in planned):
        asked = "in the times asked for, with a forecast in every file that is named"
        return f"none of the {account.num_windows:,} complete cases of {frames} is {asked}."
    silent = [name for name, number in (evaluation.silent if evaluation else {}).items() if number == evaluation.num_read]
    if silent:
        return f"{silent[0]} forecasts nothing but missing values in all {evaluation.num_read:,} cases: nothing can be scored."
    return f"no case of {frames} to score: each has a past frame without any observation, or no pixel known to all."


def _score_record(
    evaluation: Evaluation,
    sources: Mapping[str, Source],
    record: Record,
    windows: Windows,
    probabilities: Probabilities | None,
) -> None:
    before, setup = evaluation.num_cases, _setup(evaluation, record)
    mine = windows.positions[distributed.rank() :: distributed.size()]
    lead_times = np.arange(1, windows.lead_frames + 1) * windows.time_step
    sources = {name: on_record(source, record, windows.time_step) for name, source in sources.items()}
    for positions in track(mine, f"scoring {record.name}", unit="case"):
        past = record.read(positions[: windows.input_frames])
        if np.isnan(past).all(axis=(1, 2)).any():
            continue  # nobody can be asked to forecast from an empty frame
        observed = record.read(positions[windows.input_frames :])
        reference = record.times[positions[windows.input_frames - 1]]
        forecasts, chances = _forecasts(sources, past, reference, lead_times, probabilities)
        evaluation.num_read += 1
        known = np.isfinite(observed)
        for name in sources:
            said = [np.isfinite(forecasts[name])] if name in forecasts else []
            said += [np.isfinite(chances[name])] if name in chances else []
            known &= np.logical_and.reduce([finite if finite.ndim == 3 else finite.all(axis=0) for finite in said])
            evaluation.silent[name] = evaluation.silent.get(name, 0) + (not all(finite.any() for finite in said))
        if not known.any():
            continue
        block = (record.name, str(reference.astype("datetime64[D]")))
        found = tallies(forecasts, observed, known, setup)
        if probabilities:
            case = Case(reference, lead_times, observed, known)
            found = _with_probabilities(found, probabilities, sources, case, forecasts, chances)
        for name, tally in found.items():
            evaluation.add(name, block, tally)
        evaluation.num_cases += 1
        first = next((tally["pairs"] for tally in found.values() if "pairs" in tally), None)
        evaluation.cases += [_scored_case(evaluation, record, reference, first)] if first else []
    if evaluation.num_cases > before:
        evaluation.records.append(record.name)
    if left_out := len(mine) - (evaluation.num_cases - before):
        log.warning(
            "%s: left out %d of %d cases, where a whole frame is missing or no pixel is known to all",
            record.name, left_out, len(mine),
        )  # fmt: skip


def _with_probabilities(
    found: Mapping[str, Tally],
    probabilities: Probabilities,
    sources: Mapping[str, Source],
    case: Case,
    forecasts: Mapping[str, np.ndarray],
    chances: Mapping[str, np.ndarray],
) -> dict[str, Tally]:
    """Every source's sums with those of probabilities beside them; what gives probabilities alone has these alone."""
    whole = {}
    for name, source in sources.items():
        its = probabilities.sums_of(name, source, case, forecast=forecasts.get(name), given=chances.get(name))
        whole[name] = Tally({**(found[name].kinds if name in found else {}), **its})
    return whole


def _setup(evaluation: Evaluation, record: Record) -> Setup:
    if not np.isfinite(record.grid.spacing_km).all():
        log.info("%s: no scores by scale or wavelength, as its grid does not tell kilometres", record.name)
    data_range = DATA_RANGES.get(evaluation.quantity, 1.0)
    return Setup(evaluation.thresholds, record.grid.spacing_km, data_range)


def _forecasts(
    sources: Mapping[str, Source],
    past: np.ndarray,
    reference: np.datetime64,
    lead_times: np.ndarray,
    probabilities: Probabilities | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By source the field (lead, y, x) and what is scored of its probabilities (threshold, lead, y, x), where it has them."""
    fields, chances = {}, {}
    for name, source in sources.items():
        asked = probabilities.asked_of(name) if probabilities else ()
        if isinstance(source, FileForecaster):
            if source.file.kind != "probability":
                fields[name] = source.forecast_at(reference, lead_times)
            if asked:
                chances[name] = np.stack([source.probabilities_at(reference, lead, asked) for lead in lead_times], axis=1)
        elif asked:
            field, exceedance = source.forecast_and_exceedance(past[None], len(lead_times), asked)
            fields[name], chances[name] = field[0], exceedance[0].swapaxes(0, 1)
        else:
            fields[name] = source.forecast(past[None], len(lead_times))[0]
    return fields, chances


def _scored_case(evaluation: Evaluation, record: Record, reference: np.datetime64, first: Sums) -> ScoredCase:
    pooled, column = first.pooled(), nearest_threshold(evaluation)
    num_events = int(pooled.hits[0, column] + pooled.misses[0, column])
    return ScoredCase(record.name, reference, float(csi(pooled)[0, column]), num_events)


def _example(
    evaluation: Evaluation,
    sources: Mapping[str, Source],
    records: Sequence[Record],
    planned: Sequence[Windows],
    rank: str,
    case: ScoredCase,
) -> Example:
    """Read and forecast one case again, and keep what is shown of it."""
    record, windows = next(pair for pair in zip(records, planned, strict=True) if pair[0].name == case.record)
    references = record.times[windows.positions[:, windows.input_frames - 1]]
    positions = windows.positions[np.flatnonzero(references == case.reference)[0]]
    past, observed = record.read(positions[: windows.input_frames]), record.read(positions[windows.input_frames :])
    lead_times = np.arange(1, windows.lead_frames + 1) * windows.time_step
    forecasts, _ = _forecasts(sources, past, case.reference, lead_times)
    return make_example(rank, case, evaluation.lead_minutes, observed, forecasts, spacing_km=record.grid.spacing_km)
