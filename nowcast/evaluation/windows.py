"""Find the cases of records that all forecasters can forecast.

As in training and forecasting, a case may have an absent frame: a past one is missing as a whole, if the forecasters allow it;
a future one is not scored.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nowcast.config.schema import Data
from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import UsageError, counted
from nowcast.evaluation.missing import Remarks, grouped, together
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection, can_forecast

MINUTE = np.timedelta64(60, "s")
UNSCORED = "%s: left out %d of %s, since the observations lack frames there, or another file the forecast"
FEWER_LEADS = "%s: only %d of %s %s scored, since %s has no more"
NO_FRAME = "%s: left out %d of %s, because %s has no frame then (its time step is %g min)"
SHORT_RECORDS = "no record has %d past and %d future frames without a gap: only %s scored"
NO_CASE = "%s: not scored, since nowhere are %d past and %d future frames without a gap"
MAX_ABSENT = Data().max_absent  # frames of a case, unless a network allows more


def with_absent(forecasters: Mapping[str, Forecaster], records: Sequence[Record]) -> list[Record]:
    """Return the records with absent frames inserted, as many in a row as a case may have."""
    return [record.with_absent(_most_absent(forecasters)) for record in records]


def _most_absent(forecasters: Mapping[str, Forecaster]) -> int:
    return max(MAX_ABSENT, *(forecaster.max_absent for forecaster in forecasters.values()))


def find_cases(
    forecasters: Mapping[str, Forecaster], records: Sequence[Record], selection: Selection, remarks: Remarks
) -> list[Windows]:
    """Return the cases of each record; if there is no complete case, those with fewer lead times.

    Remarks on records without a case at any time, on reference times of forecast files that are not among the cases, unless
    `every` leaves some out, and on lead times that a record or another forecaster lacks.
    """
    all_windows = _find_cases(forecasters, records, selection, remarks)
    if any(windows.account.num_windows for windows in all_windows):
        _remark_no_case(records, all_windows, remarks)
    _remark_fewer_leads(forecasters, records, remarks)
    references = [record.times[each.reference_positions] for record, each in zip(records, all_windows, strict=True)]
    for name, forecaster in forecasters.items():
        times = forecaster.reference_times
        if times is None or selection.every is not None or not any(map(len, references)):
            continue
        asked = np.ones(len(times), bool)
        asked &= True if selection.start is None else times >= selection.start
        asked &= True if selection.end is None else times <= selection.end
        scored = [np.isin(record.frames_at(times), own) for record, own in zip(records, references, strict=True)]
        if number := int((asked & ~np.any(scored, axis=0)).sum()):
            remarks.add(UNSCORED, name, number, counted(int(asked.sum()), "reference time"))
    return all_windows


def _find_cases(
    forecasters: Mapping[str, Forecaster], records: Sequence[Record], selection: Selection, remarks: Remarks
) -> list[Windows]:
    steps = [_common_step(forecasters, record) for record in records]
    leads = [_common_leads(forecasters, record) for record in records]
    with_all_leads = [_windows(forecasters, *each, selection) for each in zip(records, steps, leads, strict=True)]
    if any(windows.account.num_windows for windows in with_all_leads):
        return with_all_leads
    for fewer in range(min(leads) - 1, 0, -1):
        with_fewer_leads = [_windows(forecasters, *each, fewer, selection) for each in zip(records, steps, strict=True)]
        if any(windows.account.num_windows for windows in with_fewer_leads):
            remarks.add(SHORT_RECORDS, with_fewer_leads[0].input_frames, min(leads), _are(fewer))
            return with_fewer_leads
    return with_all_leads


def _remark_no_case(records: Sequence[Record], all_windows: Sequence[Windows], remarks: Remarks) -> None:
    """Remark on records that are too short, or have too many gaps, for a case; other records are scored."""
    pairs = zip(records, all_windows, strict=True)
    frames = {record.name: (each.input_frames, each.lead_frames) for record, each in pairs if not each.account.num_windows}
    for numbers, names in grouped(frames):
        remarks.add(NO_CASE, together(names), *numbers)


def _windows(
    forecasters: Mapping[str, Forecaster], record: Record, step: np.timedelta64, leads: int, selection: Selection
) -> Windows:
    """Return the cases of a record that all forecasters can forecast, with as many past frames as any of them uses."""
    past = max(forecaster.most_past_frames for forecaster in forecasters.values())
    absent = record.is_absent
    windows = find_windows(
        record.times, input_frames=past, lead_frames=leads, time_step=step,
        absent=absent, max_absent=_most_absent(forecasters),
    )  # fmt: skip
    known = ~absent[windows.positions[:, past - 1 :: -1]]  # newest first
    enough = np.ones(len(windows), bool)
    for case in np.flatnonzero(~known.all(axis=1)):
        enough[case] = all(can_forecast(known[case], forecaster) for forecaster in forecasters.values())
    windows = windows.only(enough)
    chosen = selection.select(record, windows.reference_positions)
    references = record.times[windows.reference_positions]
    for forecaster in forecasters.values():
        if forecaster.reference_times is not None:
            chosen &= np.isin(references, record.frames_at(forecaster.reference_times))
    return windows.select(chosen)


def _common_leads(forecasters: Mapping[str, Forecaster], record: Record) -> int:
    """Return the number of lead times that all forecasters can forecast."""
    limits = [leads for forecaster in forecasters.values() if (leads := forecaster.leads_on(record)) is not None]
    return min(limits) if limits else next(iter(forecasters.values())).num_leads


def _are(number: int) -> str:
    return f"{counted(number, 'lead time')} {'is' if number == 1 else 'are'}"


def _remark_fewer_leads(forecasters: Mapping[str, Forecaster], records: Sequence[Record], remarks: Remarks) -> None:
    """Remark on forecasters with more lead times than fit a record, and once on those with more than another can forecast.

    Forecasters of which the same is to say are named together.
    """
    warned = set()
    for record in records:
        numbers = {name: leads for name, each in forecasters.items() if (leads := each.leads_on(record)) is not None}
        without = {name: forecasters[name].leads_without_frame(record) for name in numbers}
        for (number, own), names in grouped({name: each for name, each in without.items() if each[0]}):
            step = record.time_step / MINUTE
            remarks.add(NO_FRAME, together(names), number, counted(own, "lead time"), record.name, step)
        fewest = min(numbers, key=numbers.__getitem__, default=None)
        more = {name: leads for name, leads in numbers.items() if leads > numbers[fewest] and name not in warned}
        for leads, names in grouped(more):
            total = f"{counted(leads, 'lead time')} {'is' if numbers[fewest] == 1 else 'are'}"
            whose = "its" if len(names) == 1 else "their"
            remarks.add(FEWER_LEADS, together(names), numbers[fewest], whose, total, fewest)
        warned |= more.keys()


def _common_step(forecasters: Mapping[str, Forecaster], record: Record) -> np.timedelta64:
    """Return the time step at which all forecasters forecast; UsageError (exit 2) if they need different ones."""
    own = {name: forecaster.own_time_step(record) for name, forecaster in forecasters.items()}
    own = {name: step for name, step in own.items() if step is not None}
    if len(set(own.values())) > 1:
        steps = ", ".join(f"{name} {step / MINUTE:g} min" for name, step in own.items())
        raise UsageError(f"the forecasters have different time steps on {record.name} ({steps}): evaluate them one by one")
    return next(iter(own.values())) if own else next(iter(forecasters.values())).time_step(record)
