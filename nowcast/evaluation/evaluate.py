"""Score forecasters against records, all on the same cases.

A cell counts at a lead time only if the observation and all forecasts are known there (common mask). Sums are kept by block (a
UTC day of a record), from which confidence intervals are computed.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from nowcast.dataset.windows import Windows
from nowcast.errors import DataError, NotEnoughFrames, UsageError
from nowcast.evaluation.examples import Example, ScoredCase, choose, make_example
from nowcast.evaluation.explanations import explain_no_case, explain_no_overlap, explain_not_yet
from nowcast.evaluation.member_examples import Points, find_points
from nowcast.evaluation.missing import Remarks, baselines_without_forecasts, common_mask, remark_missing
from nowcast.evaluation.probabilities import Case, Probabilities
from nowcast.evaluation.provenance import about
from nowcast.evaluation.result import Evaluation, nearest_threshold
from nowcast.evaluation.windows import MINUTE, find_cases, with_absent
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.places.locating import locate
from nowcast.netcdf.record import Record, log_readings, with_own_names
from nowcast.prediction.cases import Selection, usable_past
from nowcast.prediction.gauges import Place
from nowcast.prediction.running_sums import overlap
from nowcast.runtime import distributed
from nowcast.runtime.libraries import freed_memory_kept
from nowcast.runtime.progress import track
from nowcast.scores import Setup, tallies
from nowcast.scores.boxes import left_out
from nowcast.scores.distribution import RATES
from nowcast.scores.pixels import Sums, csi
from nowcast.scores.sums import Tally

log = logging.getLogger(__name__)


@freed_memory_kept()
def evaluate(
    forecasters: Mapping[str, Forecaster],
    records: Sequence[Record],
    *,
    selection: Selection,
    thresholds: Sequence[float],
    examples: bool = False,
    places: Sequence[Place] = (),
) -> Evaluation:
    """Score all forecasters on the cases of the records that every forecaster can forecast; absent frames are missing.

    A baseline that forecasts nothing in any case is left out, unless it is the first. What else is left out is in `about`, too.
    Several processes share the cases, and all return the whole evaluation. With `examples`, the first process forecasts a few
    cases again and keeps their fields for pictures, and members at the gauges `places`. One case at a time is in memory, and
    up to 1 MB of sums per day of a record. Raises DataError (exit 3) if no case is complete, no gauge lies in a record or a
    forecaster does not fit one, UsageError (2) if forecasters or records do not fit each other.
    """
    records = with_own_names(records)  # cases, gauges and blocks refer to records by name
    _check_quantities(records)
    points, remarks, forecasters = find_points(records, places), Remarks(), dict(forecasters)
    while True:
        probabilities = Probabilities.of(forecasters, thresholds, RATES if records[0].quantity.is_rain else ())
        whole = with_absent(forecasters, records)
        all_windows = find_cases(forecasters, whole, selection, remarks)
        evaluation = _scored(forecasters, whole, all_windows, thresholds, probabilities)
        if not (empty := baselines_without_forecasts(evaluation, forecasters, remarks)):
            break
        forecasters = {name: forecaster for name, forecaster in forecasters.items() if name not in empty}
    if not evaluation.num_cases:
        raise DataError(explain_no_case(all_windows, evaluation))
    remark_missing(evaluation, {record.name: len(own) for record, own in zip(whole, all_windows, strict=True)}, remarks)
    evaluation.about |= {"left_out": list(remarks)} if remarks else {}
    if examples and distributed.is_first():
        given = evaluation, forecasters, whole, all_windows, points, probabilities
        evaluation.examples = [_example(*given, *ranked) for ranked in choose(evaluation.cases).items()]
    return evaluation


def _scored(
    forecasters: Mapping[str, Forecaster],
    records: Sequence[Record],
    all_windows: Sequence[Windows],
    thresholds: Sequence[float],
    probabilities: Probabilities | None,
) -> Evaluation:
    """Score all cases, shared by all processes; the result may have none."""
    step, leads = _time_step(forecasters, records, all_windows), all_windows[0].lead_frames
    log_readings(records)
    minutes = (np.arange(1, leads + 1) * step / MINUTE).tolist()
    evaluation = Evaluation(tuple(minutes), tuple(map(float, thresholds)), records[0].quantity)
    for record, windows in zip(records, all_windows, strict=True):
        if len(windows):
            _score_record(evaluation, forecasters, record, windows, probabilities)
    evaluation = _joined(evaluation)
    evaluation.about = about(forecasters, records, evaluation.cases, leads * step)
    return evaluation


def _check_quantities(records: Sequence[Record]) -> None:
    """Raise DataError (exit 3) for records of different quantities."""
    if different := [record for record in records if record.quantity != records[0].quantity]:
        raise DataError(
            f"{different[0].name} holds {different[0].quantity} but {records[0].name} holds {records[0].quantity}.\n"
            "Evaluate them one by one."
        )


def _time_step(
    forecasters: Mapping[str, Forecaster], records: Sequence[Record], all_windows: Sequence[Windows]
) -> np.timedelta64:
    """Return the time step of all cases; DataError (exit 3) if there are none, UsageError (2) for different time steps.

    Raises NotEnoughFrames (exit 75) if the valid times have not been observed yet.
    """
    steps = {windows.time_step: record.name for record, windows in zip(records, all_windows, strict=True) if len(windows)}
    if not steps:
        if none_yet := explain_not_yet(forecasters, records, all_windows):
            raise NotEnoughFrames(none_yet)
        has_files = any(forecaster.reference_times is not None for forecaster in forecasters.values())
        no_case = explain_no_case(all_windows, records=records, has_files=has_files)
        raise DataError(explain_no_overlap(forecasters, records) or no_case)
    if len(steps) > 1:
        listed = ", ".join(f"{name} {step / MINUTE:g} min" for step, name in steps.items())
        raise UsageError(f"the records are forecast in different time steps ({listed}): evaluate them one by one")
    return next(iter(steps))


def _joined(evaluation: Evaluation) -> Evaluation:
    """Merge the evaluations of all processes."""
    evaluation, *others = distributed.gather(evaluation)
    for other in others:
        evaluation.merge(other)
    evaluation.sort()
    return evaluation


def _score_record(
    evaluation: Evaluation,
    forecasters: Mapping[str, Forecaster],
    record: Record,
    windows: Windows,
    probabilities: Probabilities | None,
) -> None:
    """Add this process's share of a record's cases to the evaluation."""
    before, setup = evaluation.num_cases, _setup(evaluation, record)
    if probabilities and probabilities.has_sums:
        step = windows.time_step / MINUTE
        for what in left_out(record.grid.shape, windows.lead_frames, step, record.grid.spacing_km):
            log.info("%s: %s", record.name, what)
        if told := overlap(record, windows.time_step):
            log.warning("%s", told)
    own_share = windows.positions[distributed.rank() :: distributed.size()]
    lead_times = np.arange(1, windows.lead_frames + 1) * windows.time_step
    forecasters = {name: forecaster.on_record(record, windows.time_step) for name, forecaster in forecasters.items()}
    damage = Damage(record)
    for positions in track(own_share, f"scoring {record.name}", unit="case"):
        past = damage.frames(positions[: windows.input_frames])
        if any(usable_past(past, forecaster) is None for forecaster in forecasters.values()):
            continue  # too many frames without any observation, or the newest
        observed = damage.frames(positions[windows.input_frames :])
        reference = record.times[positions[windows.input_frames - 1]]
        fields, exceedances = _forecasts(forecasters, past, reference, lead_times, probabilities)
        known = common_mask(evaluation, forecasters, observed, fields, exceedances)
        if known.any():
            case_tallies = tallies(fields, observed, known, setup)
            if probabilities:
                case = Case(reference, lead_times, observed, known, record.grid.spacing_km)
                case_tallies = _with_probabilities(case_tallies, probabilities, forecasters, case, fields, exceedances)
            _add_case(evaluation, record, reference, case_tallies)
    damage.check()
    if evaluation.num_cases > before:
        evaluation.records.append(record.name)
    evaluation.not_scored[record.name] = len(own_share) - (evaluation.num_cases - before)


def _add_case(evaluation: Evaluation, record: Record, reference: np.datetime64, case_tallies: Mapping[str, Tally]) -> None:
    """Add the sums of one case, by forecaster, to those of its day."""
    block = (record.name, str(reference.astype("datetime64[D]")))
    for name, tally in case_tallies.items():
        evaluation.add(name, block, tally)
    evaluation.num_cases += 1
    first = next((tally["pairs"] for tally in case_tallies.values() if "pairs" in tally), None)
    evaluation.cases += [_scored_case(evaluation, record, reference, first)] if first else []


def _with_probabilities(
    tallies: Mapping[str, Tally],
    probabilities: Probabilities,
    forecasters: Mapping[str, Forecaster],
    case: Case,
    fields: Mapping[str, np.ndarray],
    exceedances: Mapping[str, np.ndarray],
) -> dict[str, Tally]:
    """Return the tallies with the sums of probabilities added.

    tallies: by forecaster; those that give only probabilities have none
    """
    complete = {}
    for name, forecaster in forecasters.items():
        sums = probabilities.sums_of(name, forecaster, case, field=fields.get(name), exceedance=exceedances.get(name))
        complete[name] = Tally({**(tallies[name].kinds if name in tallies else {}), **sums})
    return complete


def _setup(evaluation: Evaluation, record: Record) -> Setup:
    if not np.isfinite(record.grid.spacing_km).all():
        log.info("%s: no scores by scale or wavelength, because its grid spacing in km is unknown", record.name)
    return Setup(evaluation.thresholds, record.grid.spacing_km, evaluation.quantity.data_range)


def _forecasts(
    forecasters: Mapping[str, Forecaster],
    past: np.ndarray,
    reference: np.datetime64,
    lead_times: np.ndarray,
    probabilities: Probabilities | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the fields (lead, y, x) and the probabilities (threshold, lead, y, x), each by the forecasters that give them."""
    fields, exceedances = {}, {}
    for name, forecaster in forecasters.items():
        thresholds = probabilities.thresholds_of(name) if probabilities else ()
        field, exceedance = forecaster.forecast_one(usable_past(past, forecaster), reference, lead_times, thresholds)
        if field is not None:
            fields[name] = field
        if exceedance is not None:
            exceedances[name] = exceedance
    return fields, exceedances


def _scored_case(evaluation: Evaluation, record: Record, reference: np.datetime64, first: Sums) -> ScoredCase:
    pooled, column = first.pooled(), nearest_threshold(evaluation)
    num_events = int(pooled.hits[0, column] + pooled.misses[0, column])
    return ScoredCase(record.name, reference, float(csi(pooled)[0, column]), num_events)


def _example(
    evaluation: Evaluation,
    forecasters: Mapping[str, Forecaster],
    records: Sequence[Record],
    all_windows: Sequence[Windows],
    points: Mapping[str, Points],
    probabilities: Probabilities | None,
    rank: str,
    case: ScoredCase,
) -> Example:
    """Read and forecast one case again, and return the fields that the report shows."""
    record, windows = next(pair for pair in zip(records, all_windows, strict=True) if pair[0].name == case.record)
    references = record.times[windows.positions[:, windows.input_frames - 1]]
    positions = windows.positions[np.flatnonzero(references == case.reference)[0]]
    past, observed = np.split(Damage(record).frames(positions), [windows.input_frames])
    lead_times = np.arange(1, windows.lead_frames + 1) * windows.time_step
    forecasters = {name: forecaster.on_record(record, windows.time_step) for name, forecaster in forecasters.items()}
    forecasts, exceedances = _forecasts(forecasters, past, case.reference, lead_times, probabilities)
    column = nearest_threshold(evaluation)
    at = {name: probabilities.position(name, column) for name in exceedances}
    return make_example(
        rank,
        case,
        evaluation.lead_minutes,
        observed,
        forecasts,
        spacing_km=record.grid.spacing_km,
        locator=locate(record.grid),
        threshold=evaluation.thresholds[column],
        probabilities={name: exceedances[name][n] for name, n in at.items() if n is not None},
        ensembles={
            name: partial(_members, forecaster, case.reference, lead_times)
            for name, forecaster in forecasters.items()
            if forecaster.num_members > 1
        },
        points=points.get(record.name),
    )


def _members(forecaster: Forecaster, reference: np.datetime64, lead_times: np.ndarray, lead: int) -> np.ndarray:
    """Return the members (member, y, x), mm/h, at a lead time by its number."""
    return forecaster.members_at(reference, lead_times[lead])
