"""Describe a record: its grid, times, gaps, missing and wet cells, and the windows that a training would find in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nowcast.dataset.packed import WET_RATE
from nowcast.dataset.windows import find_windows
from nowcast.netcdf.record import Damage, Record
from nowcast.quantity import Quantity
from nowcast.runtime.progress import track

SAMPLE = 200  # largest number of frames read for the percentages; from a longer record, evenly spaced frames are read
INPUT_FRAMES, LEAD_FRAMES, MAX_ABSENT = 4, 12, 1  # of the windows that are counted: the defaults of a config


def inspect_record(record: Record) -> dict[str, Any]:
    """Describe one record as JSON values.

    `missing_percent` is of all cells, `wet_percent` of the known cells, of `num_frames_read` frames.

    Raises DataError (exit 3) if no frame can be read.
    """
    whole = record.with_absent(MAX_ABSENT)
    windows = find_windows(
        whole.times, input_frames=INPUT_FRAMES, lead_frames=LEAD_FRAMES, time_step=record.time_step,
        absent=whole.is_absent, max_absent=MAX_ABSENT,
    )  # fmt: skip
    steps = np.diff(record.times)
    step = record.time_step
    return {
        "name": record.name,
        "files": len(record.paths),
        "variable": record.variable,
        "quantity": record.quantity.name,
        "readings": record.readings,
        "units": record.units,
        "start": f"{record.times[0]}Z",
        "end": f"{record.times[-1]}Z",
        "num_frames": len(record.times),
        "time_step_minutes": None if np.isnat(step) else float(step / np.timedelta64(60, "s")),
        "num_gaps": int((steps > step).sum()),
        "grid": list(record.grid.shape),
        "spacing_km": [round(float(s), 4) if np.isfinite(s) else None for s in record.grid.spacing_km],
        "y_ascending": bool(record.grid.y_ascending),
        "x_descending": bool(record.grid.x_descending),
        "placed": bool(record.grid.is_placed),
        "grid_mapping": record.grid.mapping_attributes.get("grid_mapping_name"),
        **_statistics(record),
        "windows": {"input_frames": INPUT_FRAMES, "lead_frames": LEAD_FRAMES, **windows.account.as_dict()},
        "account": windows.account.lines(),
    }


def _statistics(record: Record) -> dict[str, Any]:
    """Read frames, and return the percentages of missing and wet cells and the maximum."""
    chosen = np.unique(np.linspace(0, len(record.times) - 1, min(SAMPLE, len(record.times))).round().astype(int))
    known = total = 0
    wet = dict.fromkeys((WET_RATE, 1.0, 5.0), 0)
    highest, damage = -np.inf, Damage(record)
    for position in track(chosen, f"reading {record.name}", unit="frame"):
        frame = damage.read(position)
        values = frame[np.isfinite(frame)]
        known, total = known + values.size, total + frame.size
        for threshold in wet:
            wet[threshold] += int((values >= threshold).sum())
        highest = max(highest, float(values.max(initial=-np.inf)))
    if damage.all_failed:
        raise damage.first
    return {
        "num_frames_read": len(chosen),
        "damaged": damage.lines(),
        "missing_percent": round(100 * (1 - known / total), 2),
        "wet_percent": {f"{t:g}": round(100 * n / known, 3) if known else None for t, n in wet.items()},
        "maximum": round(highest, 3) if known else None,
    }


def as_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the descriptions of records as text, in lines."""
    return [line for record in records for line in _lines(record)]


def _lines(record: dict[str, Any]) -> list[str]:
    spacing = " × ".join("?" if s is None else f"{s:g}" for s in record["spacing_km"])
    y, x = record["grid"]
    step = "no time step" if record["time_step_minutes"] is None else f"every {record['time_step_minutes']:g} min"
    frames, gaps = _count(record["num_frames"], "frame"), _count(record["num_gaps"], "gap")
    files, mapping = _count(record["files"], "file"), record["grid_mapping"] or "no grid mapping"
    return [
        f"{record['name']}  ({files}, variable {record['variable']})",
        f"  times    {record['start']} to {record['end']}, {frames} {step}, {gaps}",
        f"  grid     {y} × {x} cells of {spacing} km, {_directions(record)}, {mapping}",
        f"  values   {_values(record)} ({_count(record['num_frames_read'], 'frame')} read)",
        f"  windows  {INPUT_FRAMES} + {LEAD_FRAMES} frames: {'; '.join(line.strip() for line in record['account'])}",
        *(f"  reads    {reading}" for reading in record["readings"]),
        *(f"  damaged  {line}" for line in record["damaged"]),
    ]


def _directions(record: dict[str, Any]) -> str:
    """Return which way rows run in the file, whether it says so, and whether columns start in the east."""
    y = f"y {'up' if record['y_ascending'] else 'down'}" + ("" if record["placed"] else " (no coordinates say so)")
    return y + (", x from the east" if record["x_descending"] else "")


def _values(record: dict[str, Any]) -> str:
    if record["maximum"] is None:
        return "all missing"
    unit = f" {Quantity.named(record['quantity']).unit}".rstrip()
    wet = ", ".join(f"≥ {threshold}{unit}: {percent:g} %" for threshold, percent in record["wet_percent"].items())
    return f"{record['missing_percent']:g} % missing; {wet}; maximum {record['maximum']:g}{unit}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' if number != 1 else ''}"
