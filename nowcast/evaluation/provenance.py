"""Describe the records of an evaluation with time spans and grids, and the forecasters with checkpoints.

Everything is text or numbers, so that it can be written into the score files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nowcast.evaluation.examples import ScoredCase
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.seen import SPLITS
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


def describe_forecaster(
    forecaster: Forecaster, records: Sequence[Record], cases: Sequence[ScoredCase], horizon: np.timedelta64
) -> dict[str, Any]:
    """Return a forecaster's description; of a network also how many of the cases it has seen.

    horizon: the longest lead time

    These are cases with an observation from its training (`num_cases_in_training`) or validation (`num_cases_in_validation`)
    periods, and cases in these periods in a record of another name with the same cell size (`num_cases_at_seen_times`),
    which may be the same radar.
    """
    description = forecaster.describe()
    seen = {split: forecaster.seen(split) for split in SPLITS}
    if "trained_on" in description or any(seen.values()):
        counted = {split: within(cases, spans, horizon) for split, spans in seen.items()}
        spans = [span for spans in seen.values() for span in spans]
        alike = [record.name for record in records if forecaster.knows_spacing(record)]
        renamed = [(name, *times) for name in alike for other, *times in spans if other != name]
        in_validation = counted["validation"] & ~counted["training"]
        at_seen_times = within(cases, renamed, horizon) & ~counted["training"] & ~counted["validation"]
        description |= {
            "num_cases_in_training": int(counted["training"].sum()),
            "num_cases_in_validation": int(in_validation.sum()),
            "num_cases_at_seen_times": int(at_seen_times.sum()),
        }
    return description


def within(cases: Sequence[ScoredCase], spans: Sequence[Sequence[str]], horizon: np.timedelta64) -> np.ndarray:
    """Return a mask (case,) of the cases with a future frame within a span (record, start, end) of the record of that name.

    horizon: the longest lead time
    """
    by_name: dict[str, list[tuple[np.datetime64, np.datetime64]]] = {}
    for name, start, end in spans:
        by_name.setdefault(name, []).append((_time(start), _time(end)))
    inside = (
        any(start <= case.reference + horizon and case.reference < end for start, end in by_name.get(case.record, ()))
        for case in cases
    )
    return np.fromiter(inside, bool, len(cases))


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "s")


def about(
    forecasters: Mapping[str, Forecaster], records: Sequence[Record], cases: Sequence[ScoredCase], horizon: np.timedelta64
) -> dict[str, Any]:
    """Return the descriptions `records` and `forecasters` of an evaluation; horizon: the longest lead time."""
    described = {name: describe_forecaster(each, records, cases, horizon) for name, each in forecasters.items()}
    return {"records": describe_records(records, cases), "forecasters": described}
