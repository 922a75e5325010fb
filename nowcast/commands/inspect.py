"""Describe a record: times and gaps, unit, location, missing and wet cells, and the number of training windows.

Forecasts are described by their reference times, lead times, members and thresholds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.dataset.packed import WET_RATE
from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError, UsageError, counted
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.forecast_reader import Forecasts, forecast_in, probabilities_beside
from nowcast.netcdf.forecast_writer import PROBABILITY
from nowcast.netcdf.index import open_with_index
from nowcast.netcdf.places.earth import locate
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.record import Record
from nowcast.plan.fingerprint import RAINY
from nowcast.quantity import Quantity
from nowcast.runtime.progress import track

NUM_FORECASTS = 24  # largest number of forecast fields that are read, with all their members
SAMPLE = 200  # largest number of frames read for the percentages; from a longer record, evenly spaced frames are read
INPUT_FRAMES, LEAD_FRAMES, MAX_ABSENT = 4, 12, 1  # windows are counted with these defaults of a config
MOST_GAPS, SHOWN_GAPS = 100, 4  # number of longest gaps listed in JSON and in text
_MINUTE = np.timedelta64(60, "s")


def inspect_files(paths: Sequence[str], *, variable: str | None = None, units: str | None = None) -> list[dict[str, Any]]:
    """Describe files that hold forecasts; open the others together as records, and folders and globs with any record in them.

    Raises DataError (exit 3) for a file that holds neither, UsageError (exit 2) if there are no files.
    """
    reading = {"variable": variable, "units": units}
    opened = {path: forecast_in(path, **reading) if Path(path).is_file() else None for path in paths}
    try:
        records = _records(opened, **reading)
    except DataError:
        opened |= {path: forecast_in(path, **reading) for path, forecasts in opened.items() if forecasts is None}
        records = _records(opened, **reading)
    described = [inspect_record(record) for record in records]
    return described + [inspect_forecasts(forecasts, path) for path, forecasts in opened.items() if forecasts is not None]


def _records(opened: Mapping[str, Forecasts | None], **reading: str | None) -> list[Record]:
    """Open the records of the paths that hold no forecasts."""
    observed = [path for path, forecasts in opened.items() if forecasts is None]
    return open_with_index(observed, **reading) if observed else []


def inspect_record(record: Record) -> dict[str, Any]:
    """Describe one record as JSON values.

    `missing_percent` is of all cells, `wet_percent` of the known cells, of `num_frames_read` frames. `gaps` are the longest:
    the frames before and after, and how many frames are absent between them. `corners` are latitude and longitude of the
    outermost corners of the grid, NW, NE, SE, SW; null if `place` says why they are not known.

    Raises DataError (exit 3) if no frame can be read.
    """
    whole = record.with_absent(MAX_ABSENT)
    windows = find_windows(
        whole.times, input_frames=INPUT_FRAMES, lead_frames=LEAD_FRAMES, time_step=record.time_step,
        absent=whole.is_absent, max_absent=MAX_ABSENT,
    )  # fmt: skip
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
        "time_step_minutes": None if np.isnat(step) else float(step / _MINUTE),
        "longest_run": _longest_run(record),
        "num_gaps": int((np.diff(record.times) > step).sum()),
        "gaps": _gaps(record),
        **_grid(record.grid, record.name),
        **_statistics(record),
        "windows": {"input_frames": INPUT_FRAMES, "lead_frames": LEAD_FRAMES, **windows.account.as_dict()},
        "account": windows.account.lines(),
    }


def _longest_run(record: Record) -> int:
    """Return the largest number of consecutive frames without a gap."""
    breaks = np.flatnonzero(np.diff(record.times) != record.time_step) + 1
    return int(np.diff([0, *breaks, len(record)]).max())


def _gaps(record: Record) -> list[dict[str, Any]]:
    """Return the longest gaps, in order of time: the frames before and after, and the number of frames absent between."""
    times, step = record.times, record.time_step
    gaps = np.flatnonzero(np.diff(times) > step)
    absent = np.diff(times)[gaps] / step - 1
    longest = np.sort(np.argsort(-absent, kind="stable")[:MOST_GAPS])
    return [
        {"after": f"{times[gaps[n]]}Z", "before": f"{times[gaps[n] + 1]}Z", "num_absent": round(float(absent[n]), 1)}
        for n in longest
    ]


def _grid(grid: Grid, name: str) -> dict[str, Any]:
    """Return the size of a grid, its cells and directions, and its place on the earth."""
    return {
        "grid": list(grid.shape),
        "spacing_km": [round(float(s), 4) if np.isfinite(s) else None for s in grid.spacing_km],
        "y_ascending": bool(grid.y_ascending),
        "x_descending": bool(grid.x_descending),
        "placed": bool(grid.is_placed),
        "grid_mapping": grid.mapping_attributes.get("grid_mapping_name"),
        **_place(grid, name),
    }


def _place(grid: Grid, name: str) -> dict[str, Any]:
    """Return the corners of the grid on the earth, or why they are not known."""
    try:
        corners = locate(grid, name).corners
    except (DataError, UsageError) as error:
        return {"corners": None, "place": str(error).replace(f"{name} ", "", 1)}
    if not np.isfinite(corners).all():
        return {"corners": None, "place": "corners that the map projection does not reach"}
    return {"corners": corners.round(4).tolist(), "place": None}


def _statistics(record: Record) -> dict[str, Any]:
    """Read frames, and return the percentages of missing and wet cells, the maximum, and the number of frames with rain."""
    chosen = np.unique(np.linspace(0, len(record.times) - 1, min(SAMPLE, len(record.times))).round().astype(int))
    known = total = rainy = 0
    wet = dict.fromkeys((WET_RATE, 1.0, 5.0), 0)
    highest, damage = -np.inf, Damage(record)
    for _, frame in zip(track(chosen, f"reading {record.name}", unit="frame"), damage.in_order(chosen), strict=True):
        values = frame[np.isfinite(frame)]
        known, total = known + values.size, total + frame.size
        for threshold in wet:
            wet[threshold] += int((values >= threshold).sum())
        rainy += bool((values >= WET_RATE).sum() >= RAINY * max(values.size, 1))
        highest = max(highest, float(values.max(initial=-np.inf)))
    if damage.all_failed:
        raise damage.first
    return {
        "num_frames_read": len(chosen),
        "num_rainy_frames": rainy,
        "damaged": damage.lines(),
        "missing_percent": round(100 * (1 - known / total), 2),
        "wet_percent": {f"{t:g}": round(100 * n / known, 3) if known else None for t, n in wet.items()},
        "maximum": round(highest, 3) if known else None,
    }


def inspect_forecasts(forecasts: Forecasts, path: str) -> dict[str, Any]:
    """Describe the forecasts of a file, folder or glob as JSON values.

    `missing_percent` is of all cells of all members, `wet_percent` and `maximum` of the known ones, of `num_fields_read`
    fields; of probabilities there is only the first. `thresholds` are those of probabilities, which may lie beside fields.
    Raises DataError (exit 3) if no field can be read.
    """
    probabilities = probabilities_beside(forecasts, path, PROBABILITY)
    times, leads = forecasts.reference_times, forecasts.lead_times / _MINUTE
    name = Path(path).stem or str(path)
    return {
        "name": name,
        "files": len(forecasts.files),
        "variable": forecasts.files[0].layout.field.variable,
        "quantity": forecasts.quantity.name,
        "kind": forecasts.kind,
        "source": forecasts.source,
        "num_members": forecasts.num_members,
        "thresholds": list(probabilities.thresholds) if probabilities else [],
        "readings": [forecasts.conversion],
        "start": f"{times[0]}Z",
        "end": f"{times[-1]}Z",
        "num_reference_times": len(times),
        "lead_minutes": [round(float(lead), 2) for lead in leads],
        **_grid(forecasts.grid, name),
        **_forecast_statistics(forecasts),
    }


def _forecast_statistics(forecasts: Forecasts) -> dict[str, Any]:
    """Read some lead times, and return the percentages of missing and wet cells, the maximum, and the number of fields."""
    num_leads, is_rate = len(forecasts.lead_times), forecasts.kind != "probability"
    num = len(forecasts.reference_times) * num_leads
    wet, highest = dict.fromkeys((WET_RATE, 1.0, 5.0), 0), -np.inf
    known = total = fields_read = 0
    for number in np.unique(np.linspace(0, num - 1, min(NUM_FORECASTS, num)).round().astype(int)):
        place = divmod(int(number), num_leads)
        fields = forecasts.members(*place) if is_rate else forecasts.probabilities(*place, range(len(forecasts.thresholds)))
        values = fields[np.isfinite(fields)]
        known, total, fields_read = known + values.size, total + fields.size, fields_read + len(fields)
        wet = {threshold: number + int((values >= threshold).sum()) for threshold, number in wet.items()}
        highest = max(highest, float(values.max(initial=-np.inf)))
    return {
        "num_fields_read": fields_read,
        "missing_percent": round(100 * (1 - known / total), 2),
        "wet_percent": {f"{t:g}": round(100 * n / known, 3) if known else None for t, n in wet.items()} if is_rate else None,
        "maximum": round(highest, 3) if known and is_rate else None,
    }


def next_step(paths: Sequence[str], inspected: Sequence[dict[str, Any]], **reading: str | None) -> tuple:
    """Return the suggested next command, its arguments and options; reading: variable and units."""
    options = {f"--{name}": value for name, value in reading.items()}
    if "lead_minutes" in inspected[0]:
        return "nowcast evaluate", paths, {"--observations": ..., "--variable": reading["variable"], "--output": "scores/"}
    return "nowcast plan", paths, {"--output": "my.toml"} | options


def as_lines(inspected: Sequence[dict[str, Any]]) -> list[str]:
    """Return the descriptions of records and forecasts as text, in lines."""
    return [line for each in inspected for line in (_forecast_lines if "lead_minutes" in each else _lines)(each)]


def _forecast_lines(forecasts: dict[str, Any]) -> list[str]:
    leads, num, kind, source = (forecasts[name] for name in ("lead_minutes", "num_members", "kind", "source"))
    span = forecasts["start"] + (f" to {forecasts['end']}" if forecasts["num_reference_times"] > 1 else "")
    fields = {"ensemble": [counted(num, "member")], "deterministic": ["one field each"]}.get(kind, [])
    thresholds = ", ".join(f"{threshold:g}" for threshold in forecasts["thresholds"])
    holds = ", and ".join(fields + ([f"probabilities of {thresholds} mm/h or more"] if thresholds else []))
    return [
        f"{forecasts['name']}  ({counted(forecasts['files'], 'file')}, variable {forecasts['variable']})",
        f"  holds    forecasts{f' of {source}' if source else ''}: {holds}",
        f"  times    {counted(forecasts['num_reference_times'], 'reference time')}, {span}",
        f"  leads    {counted(len(leads), 'lead time')}, {leads[0]:g}{f' to {leads[-1]:g}' if len(leads) > 1 else ''} min",
        *_grid_lines(forecasts),
        f"  values   {_values(forecasts)}",
    ]


def _lines(record: dict[str, Any]) -> list[str]:
    step = ", no time step" if record["time_step_minutes"] is None else f" every {record['time_step_minutes']:g} min"
    files = counted(record["files"], "file")
    return [
        f"{record['name']}  ({files}, variable {record['variable']})",
        f"  times    {record['start']} to {record['end']}, {counted(record['num_frames'], 'frame')}{step}",
        f"  gaps     {_gap_text(record)}",
        *_grid_lines(record),
        f"  values   {_values(record)}",
        f"  network  {_network(record)}",
        *(f"  damaged  {line}" for line in record["damaged"]),
    ]


def _grid_lines(described: dict[str, Any]) -> list[str]:
    """Return the lines of unit, grid and place."""
    spacing = " × ".join("?" if s is None else f"{s:g}" for s in described["spacing_km"])
    (y, x), mapping = described["grid"], described["grid_mapping"] or "no grid mapping"
    return [
        *(f"  unit     {reading}" for reading in described["readings"]),
        f"  grid     {y} × {x} cells of {spacing} km, {_directions(described)}, {mapping}",
        *(f"  place    {line}" for line in _place_lines(described)),
    ]


def _gap_text(record: dict[str, Any]) -> str:
    """Return the text about gaps, with the times of the longest ones."""
    if not record["gaps"]:
        return "none"
    longest = sorted(record["gaps"], key=lambda gap: -gap["num_absent"])[:SHOWN_GAPS]
    shown = [gap for gap in record["gaps"] if gap in longest]
    listed = "; ".join(
        f"{gap['after']} to {gap['before']}, {gap['num_absent']:g} frame{'' if gap['num_absent'] == 1 else 's'} absent"
        for gap in shown
    )
    return f"{record['num_gaps']:,}{', the longest' if len(shown) < record['num_gaps'] else ''}: {listed}"


def _place_lines(record: dict[str, Any]) -> list[str]:
    """Return the corners in degrees, or why they are not known."""
    if record["corners"] is None:
        return [f"unknown: it {line}" if n == 0 else line for n, line in enumerate(record["place"].splitlines())]
    named = zip(("NW", "NE", "SE", "SW"), record["corners"], strict=True)
    corners = [
        f"{name} {abs(lat):.3f} °{'S' if lat < 0 else 'N'} {abs(lon):.3f} °{'W' if lon < 0 else 'E'}"
        for name, (lat, lon) in named
    ]
    return ["corners " + ", ".join(corners)]


def _directions(record: dict[str, Any]) -> str:
    """Return the direction of rows and columns in the file, and whether it is stated, as text."""
    y = f"y {'up' if record['y_ascending'] else 'down'}" + ("" if record["placed"] else " (no coordinates say so)")
    return y + (", x from the east" if record["x_descending"] else "")


def _values(record: dict[str, Any]) -> str:
    thing = "frame" if "num_frames_read" in record else "field"
    read = f"{counted(record[f'num_{thing}s_read'], thing)} read"
    if record["wet_percent"] is None:
        return f"{record['missing_percent']:g} % of the cells missing ({read})"
    if record["maximum"] is None:
        return f"all missing ({read})"
    unit = f" {Quantity.named(record['quantity']).unit}".rstrip()
    wet = ", ".join(f"{percent:g} % have ≥ {threshold}{unit}" for threshold, percent in record["wet_percent"].items())
    missing = f"{record['missing_percent']:g} % of the cells missing"
    return f"{missing}; of the others {wet}; maximum {record['maximum']:g}{unit} ({read})"


def _network(record: dict[str, Any]) -> str:
    """Return the text about training: number, frames and minutes of windows, and how many frames have rain."""
    step, kept, *dropped = record["time_step_minutes"], *(line.strip() for line in record["account"])
    if step is None:
        return "none: one frame is no window"
    window = f"{INPUT_FRAMES} past + {LEAD_FRAMES} future frames, {(INPUT_FRAMES - 1) * step:g} + {LEAD_FRAMES * step:g} min"
    if not record["windows"]["num_windows"]:
        dropped.append(
            f"the longest run without a gap has {counted(record['longest_run'], 'frame')} (nowcast plan tries shorter windows)"
        )
    rainy = (
        f"{record['num_rainy_frames']:,} of {counted(record['num_frames_read'], 'frame')} read have rain in 1 % of the cells"
    )
    return f"{'; '.join([f'{kept} ({window})', *dropped])}; {rainy}"
