"""Draw a record or a forecast file as panels of its frames (PNG) or as an animation (GIF).

Frames are read one at a time and averaged to fewer cells for display, so the memory does not grow with the record.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, NotEnoughFrames, UsageError
from nowcast.evaluation.coarsen import block_means, block_size, evenly_spaced
from nowcast.netcdf.forecast_reader import Forecasts, read_forecast
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.raster import nearest, tolerance
from nowcast.quantity import Quantity
from nowcast.report.maps import MapGrid, colour_scale, gif, ground_aspect, moment, plain, png, short
from nowcast.runtime.outputs import may_write, replacing

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".gif")
NEWEST = 12  # number of frames of a record that are drawn by default
MOST_PANELS, MOST_FRAMES = 12, 120  # of a picture and of an animation; of more frames, evenly spaced ones are drawn
PANEL_INCHES, ANIMATION_INCHES = 2.7, 6.0  # width of a panel and of an animation
PANEL_CELLS, ANIMATION_CELLS = 320, 640  # largest number of cells drawn along y or x; larger grids are averaged in blocks
Times = tuple[np.datetime64 | None, np.datetime64 | None]


@dataclass(frozen=True)
class Frames:
    """The frames to draw, and the text beside them.

    `read(n)` returns frame n (y, x), row 0 northernmost, NaN missing. `labels` give the time of each frame.
    """

    title: str
    labels: Sequence[str]
    read: Callable[[int], np.ndarray]
    quantity: Quantity
    label: str  # beside the colour scale
    extent_km: tuple[float, float]
    shape: tuple[int, int]
    is_forecast: bool = False


def plot(
    path: str,
    output: Path,
    *,
    variable: str | None = None,
    reference: np.datetime64 | None = None,
    span: Times = (None, None),
    overwrite: bool = False,
) -> Frames:
    """Draw a forecast or a record, and return what was drawn.

    Of a forecast file, the forecast from the time `reference` is drawn (default: the newest). Of a record, the frames in
    `span` are drawn (default: the newest).

    Raises UsageError (exit 2) for an output that ends in neither .png nor .gif and for times of the wrong kind, DataError
    (exit 3) for files that cannot be used, OutputError (exit 5) for an output that exists already or cannot be written, and
    NotEnoughFrames (exit 75) if there is no forecast or frame at the times given.
    """
    check_output(output, overwrite=overwrite)
    frames = open_frames(path, variable, reference, span)
    with replacing(output) as temporary:
        temporary.write_bytes(_animation(frames) if output.suffix == ".gif" else _panels(frames))
    return frames


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise UsageError (exit 2) or OutputError (exit 5) for an output that cannot be written, before anything is read."""
    if output.suffix not in SUFFIXES:
        raise UsageError(f"--output {output}: end the name in .png for panels or in .gif for an animation")
    may_write(output, overwrite=overwrite, instead="another --output")


def open_frames(path: str, variable: str | None, reference: np.datetime64 | None, span: Times) -> Frames:
    """Open the forecast or the record that `plot` draws. Raises UsageError (exit 2) for times of the other kind."""
    forecasts = _open_forecast(path, variable)
    if forecasts is None:
        return _record_frames(_open_record(path, variable), path, reference, span)
    if any(time is not None for time in span):
        raise UsageError(f"{path} holds forecasts: choose one by --reference-time; --start and --end are for records")
    return _forecast_frames(forecasts, path, reference)


def _open_forecast(path: str, variable: str | None) -> Forecasts | None:
    """Open a forecast file. Return None for any other file: it is then read as a record, which reports its errors."""
    try:
        forecasts = read_forecast(path, variable=variable)
    except DataError:
        return None
    # A file whose only lead time is 0 is an analysis, which is drawn as a record.
    return forecasts if (forecasts.lead_times > np.timedelta64(0, "s")).any() else None


def _open_record(path: str, variable: str | None) -> Record:
    records = open_records([path], variable=variable)
    if len(records) > 1:
        named = ", ".join(record.name for record in records[:4]) + (", …" if len(records) > 4 else "")
        raise UsageError(f"{path} holds {len(records)} records on different grids ({named}): plot one of them")
    return records[0]


def _record_frames(record: Record, path: str, reference: np.datetime64 | None, span: Times) -> Frames:
    if reference is not None:
        raise UsageError(f"{path} is a record: choose frames by --start and --end; --reference-time is for forecasts")
    chosen = _positions_in(record, span)
    return Frames(
        title=f"{plain(short(record.name, 40))}, {moment(record.times[chosen[0]])} to {moment(record.times[chosen[-1]])}",
        labels=[moment(record.times[n]) for n in chosen],
        read=lambda n: record.read([chosen[n]])[0],
        quantity=record.quantity,
        label=record.quantity.unit,
        extent_km=_extent(record.grid),
        shape=record.grid.shape,
    )


def _positions_in(record: Record, span: Times) -> np.ndarray:
    if span == (None, None):
        return np.arange(max(len(record) - NEWEST, 0), len(record))
    start, end = span
    if start is not None and end is not None and start > end:
        raise UsageError(f"--start {start} is after --end {end}")
    chosen = np.flatnonzero(record.is_between(start, end))
    if not len(chosen):
        extent = f"it goes from {record.times[0]}Z to {record.times[-1]}Z"
        raise NotEnoughFrames(f"{record.name} has no frame in the times asked for; {extent}")
    return chosen


def _forecast_frames(forecasts: Forecasts, path: str, reference: np.datetime64 | None) -> Frames:
    times = forecasts.reference_times
    case = len(times) - 1
    if reference is not None:
        position, off = nearest(times, np.array([reference]))
        case = int(position[0]) if off[0] <= tolerance(forecasts.lead_times[0]) else None
    if case is None:
        span = f"{len(times):,} reference times from {times[0]}Z to {times[-1]}Z"
        available = span if len(times) > 1 else f"only {times[0]}Z"
        raise NotEnoughFrames(f"{path} has no forecast from {reference}Z.\nIt has {available}.")
    leads = forecasts.lead_times
    description, read = _reader(forecasts, case)
    return Frames(
        title=f"{plain(short(Path(path).name, 40))}, {description} from {moment(times[case])}",
        labels=[f"+{lead / np.timedelta64(60, 's'):g} min, {str(times[case] + lead)[11:16]}" for lead in leads],
        read=read,
        quantity=forecasts.quantity if forecasts.kind != "probability" else Quantity.named("probability"),
        label=forecasts.quantity.unit if forecasts.kind != "probability" else "probability",
        extent_km=_extent(forecasts.grid),
        shape=forecasts.grid.shape,
        is_forecast=True,
    )


def _reader(forecasts: Forecasts, case: int) -> tuple[str, Callable[[int], np.ndarray]]:
    """Return what the fields of a case are, and a function that reads one by its lead time's number.

    Of probabilities for several thresholds, those of the threshold nearest to 1 mm/h are drawn.
    """
    if forecasts.kind != "probability":
        description = f"mean of {forecasts.num_members} members" if forecasts.kind == "ensemble" else "forecast"
        return description, lambda lead: forecasts.read(case, [lead])[0]
    column = int(np.argmin(np.abs(np.log(np.maximum(forecasts.thresholds, 1e-9)))))
    description = f"probability of {forecasts.thresholds[column]:g} {forecasts.quantity.unit} or more"
    return description, lambda lead: forecasts.probabilities(case, lead, [column])[0]


def _extent(grid: Grid) -> tuple[float, float]:
    """Return the size of a grid along y and x, in km."""
    return grid.shape[0] * grid.spacing_km[0], grid.shape[1] * grid.spacing_km[1]


def _choose_frames(frames: Frames, most: int) -> list[int]:
    chosen = evenly_spaced(len(frames.labels), most)
    if len(chosen) < len(frames.labels):
        log.info("drawing %d of %d frames, evenly spaced; choose fewer by --start and --end", len(chosen), len(frames.labels))
    return chosen


def picture_title(frames: Frames, block: int) -> str:
    averaged = f"; pixels are means of {block} × {block} cells" if block > 1 else ""
    return f"{frames.title}\n(grey: missing{averaged})"


def _panels(frames: Frames) -> bytes:
    chosen, block = _choose_frames(frames, MOST_PANELS), block_size(frames.shape, PANEL_CELLS)
    aspect = ground_aspect(frames.shape, frames.extent_km)
    columns = min(len(chosen), max(1, round(math.sqrt(len(chosen) * max(aspect, 0.5) * 1.3))))
    rows = math.ceil(len(chosen) / columns)
    grid = MapGrid(rows, columns, aspect, width=PANEL_INCHES, title=picture_title(frames, block), above=0.22)
    for panel, n in enumerate(chosen):
        row, column = divmod(panel, columns)
        grid.paste(row, column, block_means(frames.read(n), block), colour_scale(frames.quantity))
        grid.label(row, column, frames.labels[n])
    return png(_with_scales(grid, frames).pixels())


def _animation(frames: Frames) -> bytes:
    chosen, block = _choose_frames(frames, MOST_FRAMES), block_size(frames.shape, ANIMATION_CELLS)
    aspect = ground_aspect(frames.shape, frames.extent_km)
    grid = MapGrid(1, 1, aspect, width=ANIMATION_INCHES / max(aspect, 1), title=picture_title(frames, block), above=0.22)
    label = grid.label(0, 0, "")

    def show(n: int) -> None:
        grid.paste(0, 0, block_means(frames.read(chosen[n]), block), colour_scale(frames.quantity))
        label.set_text(frames.labels[chosen[n]])

    return gif(_with_scales(grid, frames), show, len(chosen), frames.quantity)


def _with_scales(grid: MapGrid, frames: Frames) -> MapGrid:
    """Add the scale of distance and the colour scale."""
    grid.draw_distance(frames.extent_km[1])
    grid.scale(colour_scale(frames.quantity), frames.label, extend="max" if frames.quantity.is_rain else "neither")
    return grid
