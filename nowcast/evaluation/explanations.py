"""Explain why there is nothing to score: times that are not observed yet, no time in common, no complete case."""

from collections.abc import Mapping, Sequence

import numpy as np

from nowcast.dataset.windows import Windows
from nowcast.evaluation.missing import all_cases
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.windows import MINUTE
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import spans


def explain_not_yet(
    forecasters: Mapping[str, Forecaster], records: Sequence[Record], all_windows: Sequence[Windows]
) -> str | None:
    """Return a message if the times of forecast files, or of a whole case, have not been observed yet; else None."""
    end = max(record.times[-1] for record in records)
    for name, forecaster in forecasters.items():
        times = forecaster.reference_times
        if times is not None and ((times >= end) & (times < end + np.timedelta64(1, "D"))).all():
            return f"{name} has forecasts from {_span(times)}, which are not observed yet: the record ends at {end}Z."
    return explain_no_case(all_windows) if not any(windows.account.num_windows for windows in all_windows) else None


def explain_no_overlap(forecasters: Mapping[str, Forecaster], records: Sequence[Record]) -> str | None:
    """Return a message if forecast files have no cases because of their reference times; else None."""
    files = {name: f.reference_times for name, f in forecasters.items() if f.reference_times is not None}
    for name, times in files.items():
        if all(np.isnat(record.frames_at(times)).all() for record in records):
            inside = any(((times >= record.times[0]) & (times <= record.times[-1])).any() for record in records)
            reason = "no frame at any of these times" if inside else "no overlap in time"
            return f"{name} has forecasts from {_span(times)}: {reason}.\n{spans(records)}."
    common = set.intersection(*(set(times.tolist()) for times in files.values())) if files else {()}
    if not common:
        references = "; ".join(f"{name} from {_span(times)}" for name, times in files.items())
        return (
            f"the files of forecasts have no reference time in common: {references}.\n"
            "The files of one forecaster are named by their folder, or by a glob in quotes."
        )
    return None


def _span(times: np.ndarray) -> str:
    return f"{times[0]}Z" if len(times) == 1 else f"{times[0]}Z to {times[-1]}Z"


def explain_no_case(
    all_windows: Sequence[Windows],
    evaluation: Evaluation | None = None,
    *,
    records: Sequence[Record] = (),
    has_files: bool = True,
) -> str:
    """Return a message about why there is nothing to score, from the windows of all records or the cases that were read.

    records: whose times are told where the range asked for has no case
    has_files: whether forecast files are among the forecasters
    """
    account = sum((windows.account for windows in all_windows[1:]), all_windows[0].account)
    first = all_windows[0]
    frames = f"{first.input_frames} past and {first.lead_frames} future frames {first.time_step / MINUTE:g} min apart"
    if not account.num_windows:
        lines, enough = "; ".join(line.strip() for line in account.lines()), first.input_frames + 1
        return f"no complete case of {frames} to score.\n{lines}. {enough} frames in a row are enough for a case."
    if not any(len(windows) for windows in all_windows):
        asked = "in the range of times asked for" + " and has a forecast in every forecast file" * has_files
        number = account.num_windows
        subject = (
            f"none of the {number:,} complete cases of {frames} is"
            if number > 1
            else f"the one complete case of {frames} is not"
        )
        return f"{subject} {asked}." + f"\n{spans(records)}." * bool(records)
    numbers = evaluation.all_missing if evaluation else {}
    if name := next((name for name, number in numbers.items() if number == evaluation.num_read), None):
        return f"{name} forecasts nothing but missing values in {all_cases(evaluation.num_read)}: nothing can be scored."
    reasons = "each has a past frame without any observation, or no pixel known in all forecasts and the observation"
    return f"no case of {frames} to score: {reasons}."
