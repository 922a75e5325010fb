"""What was scored on what, in words: records with their spans and grids, forecasters with their checkpoints.

Everything is text or numbers, so that it can be kept beside the scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nowcast.evaluation.examples import ScoredCase
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.forecasters.forecaster import Forecaster, most_past_frames
from nowcast.forecasters.network import Network
from nowcast.models import num_parameters
from nowcast.netcdf.forecast_reader import Forecasts
from nowcast.netcdf.record import Record

MINUTE = np.timedelta64(60, "s")


def of_records(records: Sequence[Record], cases: Sequence[ScoredCase]) -> list[dict[str, Any]]:
    """One entry for each record that has cases: observed span, frames, step, grid, and the cases' reference times."""
    found = []
    for record in records:
        references = sorted(case.reference for case in cases if case.record == record.name)
        if references:
            found.append(_of_record(record) | {
                "num_cases": len(references), "first_case": str(references[0]), "last_case": str(references[-1]),
            })  # fmt: skip
    return found


def _of_record(record: Record) -> dict[str, Any]:
    dy, dx = record.grid.spacing_km
    spacing = f", {dy:.3g} × {dx:.3g} km" if np.isfinite(dy * dx) else ""
    return {
        "name": record.name,
        "variable": record.variable,
        "first_frame": str(record.times[0]),
        "last_frame": str(record.times[-1]),
        "num_frames": len(record),
        "step_minutes": float(record.time_step / MINUTE),
        "grid": f"{record.grid.shape[0]} × {record.grid.shape[1]}{spacing}",
        "institution": record.institution or "",
    }


def of_forecaster(source: Forecaster | FileForecaster, cases: Sequence[ScoredCase]) -> dict[str, Any]:
    """What a forecaster is; of a network also its checkpoint's digest and how many of the cases it was trained on."""
    if isinstance(source, FileForecaster):
        return {"kind": f"{source.file.kind} forecasts in files", "what": _of_files(source.file)}
    if not isinstance(source, Network):
        frames = most_past_frames(source)
        what = (type(source).__doc__ or source.name).splitlines()[0].rstrip(".")
        return {"kind": "baseline", "what": f"{what} ({frames} past frame{'' if frames == 1 else 's'})"}
    model = source.experiment.model.name
    size = f"{num_parameters(source.model):,} parameters, {source.input_frames} past frames"
    spans = source.facts.get("spans", {}).get("training", [])
    return {
        "kind": "network",
        "what": f"{model}, {size}",
        "digest": source.digest,
        "trained_on": [[name, start.removesuffix("Z"), end.removesuffix("Z")] for name, start, end in spans],
        "num_cases_in_training": num_within(cases, spans),
    }


def _of_files(forecasts: Forecasts) -> str:
    files, times = forecasts.files, forecasts.reference_times
    named = files[0].path.name + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")
    members = f", {forecasts.num_members} members" if forecasts.num_members > 1 else ""
    return f"{named}{members}: {len(times):,} reference time{'' if len(times) == 1 else 's'} from {times[0]}Z"


def num_within(cases: Sequence[ScoredCase], spans: Sequence[Sequence[str]]) -> int:
    """How many cases start within a span (record, start, end) of a record of the same name."""
    by_name: dict[str, list[tuple[np.datetime64, np.datetime64]]] = {}
    for name, start, end in spans:
        by_name.setdefault(name, []).append((_time(start), _time(end)))
    return sum(any(a <= case.reference <= b for a, b in by_name.get(case.record, ())) for case in cases)


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "s")


def about(
    sources: Mapping[str, Forecaster | FileForecaster], records: Sequence[Record], cases: Sequence[ScoredCase]
) -> dict[str, Any]:
    """Both, by `records` and `forecasters`."""
    return {
        "records": of_records(records, cases),
        "forecasters": {name: of_forecaster(source, cases) for name, source in sources.items()},
    }
