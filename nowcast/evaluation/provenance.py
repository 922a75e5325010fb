"""Describe what was scored on what: records with their time spans and grids, forecasters with their checkpoints.

Everything is text or numbers, so that it can be written into the score files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nowcast.evaluation.examples import ScoredCase
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.record import Record

MINUTE = np.timedelta64(60, "s")


def describe_records(records: Sequence[Record], cases: Sequence[ScoredCase]) -> list[dict[str, Any]]:
    """Return an entry for each record that has cases: time span, frames, time step, grid, first and last reference time."""
    entries = []
    for record in records:
        references = sorted(case.reference for case in cases if case.record == record.name)
        if references:
            entries.append(_describe_record(record) | {
                "num_cases": len(references), "first_case": str(references[0]), "last_case": str(references[-1]),
            })  # fmt: skip
    return entries


def _describe_record(record: Record) -> dict[str, Any]:
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


def describe_forecaster(forecaster: Forecaster, cases: Sequence[ScoredCase]) -> dict[str, Any]:
    """Return a forecaster's description; of a network also how many of the cases lie in the time that it was trained on."""
    description = forecaster.describe()
    if "trained_on" in description:
        description["num_cases_in_training"] = num_within(cases, description["trained_on"])
    return description


def num_within(cases: Sequence[ScoredCase], spans: Sequence[Sequence[str]]) -> int:
    """Return how many cases have a reference time within a span (record, start, end) of the record of the same name."""
    by_name: dict[str, list[tuple[np.datetime64, np.datetime64]]] = {}
    for name, start, end in spans:
        by_name.setdefault(name, []).append((_time(start), _time(end)))
    return sum(any(a <= case.reference <= b for a, b in by_name.get(case.record, ())) for case in cases)


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "s")


def about(forecasters: Mapping[str, Forecaster], records: Sequence[Record], cases: Sequence[ScoredCase]) -> dict[str, Any]:
    """Return what was scored on what: `records` and `forecasters`."""
    return {
        "records": describe_records(records, cases),
        "forecasters": {name: describe_forecaster(forecaster, cases) for name, forecaster in forecasters.items()},
    }
