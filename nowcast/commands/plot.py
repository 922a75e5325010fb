"""Implement `nowcast plot`: check the arguments, open the record or the forecast, and draw it."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, NotEnoughFrames, UsageError
from nowcast.forecasters.forecast_files import unlike
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.forecast_reader import Forecasts, forecast_in
from nowcast.netcdf.forecast_writer import PROBABILITY
from nowcast.netcdf.index import open_with_index
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.places.locating import locate
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.raster import nearest, tolerance
from nowcast.quantity import Quantity
from nowcast.report.maps import PROBABILITY as PROBABILITY_QUANTITY
from nowcast.report.maps import moment, plain, short, span
from nowcast.report.pictures.animation import require_video
from nowcast.report.pictures.frame_maps import ANIMATIONS, PANELS, Frames, Series, draw
from nowcast.runtime.outputs import may_write, replacing

log = logging.getLogger(__name__)
MEMBERS = 4  # number of members that are drawn after the mean of an ensemble
NEWEST = 12  # number of frames of a record that are drawn by default
MINUTE = np.timedelta64(60, "s")
Times = tuple[np.datetime64 | None, np.datetime64 | None]


def plot(
    path: str,
    output: Path,
    *,
    variable: str | None = None,
    units: str | None = None,
    reference: np.datetime64 | None = None,
    span: Times = (None, None),
    observations: Sequence[str] = (),
    threshold: float | None = None,
    with_motion: bool = False,
    overwrite: bool = False,
) -> Frames:
    """Draw a forecast or a record, and return what was drawn.

    Of a forecast file, the forecast from the time `reference` is drawn (default: the newest), beside observations if given; of
    an ensemble the mean and a few members; with a `threshold` (mm/h) the probability of reaching it. Of a record, the frames
    in `span` are drawn (default: the newest).

    Raises UsageError (exit 2) for an output of an unknown kind and for options that do not fit what is drawn, DataError
    (exit 3) for files that cannot be used, OutputError (exit 5) for an output that exists already or cannot be written, and
    NotEnoughFrames (exit 75) if there is no forecast or frame at the times given.
    """
    suffix = check_output(output, overwrite=overwrite)
    frames = open_frames(path, variable, reference, span, observations=observations, threshold=threshold, units=units)
    with replacing(output, overwrite=overwrite) as temporary:
        draw(frames, temporary, suffix, with_motion=with_motion)
    return frames


def check_output(output: Path, *, overwrite: bool) -> str:
    """Return the kind of picture, such as ".png", by the ending of the output's name.

    Raises UsageError (exit 2) or OutputError (exit 5) for an output that cannot be written, before anything is read.
    """
    suffix = output.suffix.lower()
    if suffix not in (*PANELS, *ANIMATIONS):
        raise UsageError(
            f"--output {output}: the ending of the name must say what to draw.\n"
            f"End it in {', '.join(PANELS)} for panels, in {' or '.join(ANIMATIONS)} for an animation."
        )
    if suffix == ".mp4":
        require_video()
    may_write(output, overwrite=overwrite, instead="another --output")
    return suffix


def open_frames(
    path: str,
    variable: str | None,
    reference: np.datetime64 | None,
    span: Times,
    *,
    observations: Sequence[str] = (),
    threshold: float | None = None,
    units: str | None = None,
) -> Frames:
    """Open the forecast or the record that `plot` draws. Raises UsageError (exit 2) for options of the other kind."""
    forecasts = _open_forecast(path, variable, threshold, units)
    if forecasts is None:
        if given := [name for name, value in (("--observations", observations), ("--threshold", threshold)) if value]:
            raise UsageError(f"{path} is a record: {given[0]} is for forecasts")
        return _record_frames(_open_record([path], variable, units), path, reference, span)
    if any(time is not None for time in span):
        raise UsageError(f"{path} holds forecasts: choose one by --reference-time; --start and --end are for records")
    observed = _open_record(observations, None, units) if observations else None
    return _forecast_frames(forecasts, path, reference, observed, threshold)


def _open_forecast(path: str, variable: str | None, threshold: float | None, units: str | None) -> Forecasts | None:
    """Open forecasts. Return None for any other file: it is then read as a record, which reports its errors.

    Raises DataError (exit 3) for several files that hold forecasts but do not fit together.
    """
    failed: DataError | None = None
    # nowcast writes probabilities beside the field; in other files they are the only content
    for name in (*((PROBABILITY,) if threshold and not variable else ()), variable):
        try:
            if forecasts := forecast_in(path, variable=name, units=units):
                return forecasts
        except DataError as error:
            failed = error
    if failed:
        raise failed
    return None


def _open_record(paths: Sequence[str], variable: str | None, units: str | None) -> Record:
    records = open_with_index(paths, variable=variable, units=units)
    if len(records) > 1:
        named = ", ".join(record.name for record in records[:4]) + (", …" if len(records) > 4 else "")
        raise UsageError(f"{' '.join(paths)} holds {len(records)} records on different grids ({named}): plot one of them")
    return records[0]


def _record_frames(record: Record, path: str, reference: np.datetime64 | None, within: Times) -> Frames:
    if reference is not None:
        raise UsageError(f"{path} is a record: choose frames by --start and --end; --reference-time is for forecasts")
    chosen = _positions_in(record, within)
    times, damage = record.times[chosen], Damage(record)

    def read(n: int) -> np.ndarray:
        field = damage.read(chosen[n])
        if n == len(chosen) - 1:
            damage.check()
        return field

    return Frames(
        title=f"{plain(short(record.name, 40))}, observed {span(times[0], times[-1])}",
        labels=[moment(time) for time in times],
        series=[Series("observed", read, _steady(times, record.time_step))],
        quantity=record.quantity,
        label=record.quantity.unit,
        spacing_km=record.grid.spacing_km,
        shape=record.grid.shape,
        locator=locate(record.grid),
        minutes=record.time_step / MINUTE,
    )


def _steady(times: np.ndarray, step: np.timedelta64) -> list[int]:
    """Return, for each of the times (time,), the position of the first time of its evenly spaced run."""
    first, positions = 0, []
    for n in range(len(times)):
        if n and times[n] - times[n - 1] != step:
            first = n
        positions.append(first)
    return positions


def _positions_in(record: Record, within: Times) -> np.ndarray:
    if within == (None, None):
        return np.arange(max(len(record) - NEWEST, 0), len(record))
    start, end = within
    if start is not None and end is not None and start > end:
        raise UsageError(f"--start {start} is after --end {end}")
    chosen = np.flatnonzero(record.is_between(start, end))
    if not len(chosen):
        extent = f"it goes from {record.times[0]}Z to {record.times[-1]}Z"
        raise NotEnoughFrames(f"{record.name} has no frame in the times asked for; {extent}")
    return chosen


def _forecast_frames(
    forecasts: Forecasts, path: str, reference: np.datetime64 | None, observed: Record | None, threshold: float | None
) -> Frames:
    case = _case(forecasts, path, reference)
    leads, start = forecasts.lead_times, forecasts.reference_times[case]
    what, read, is_probability = _reader(forecasts, path, case, threshold)
    name = forecasts.source or Path(path).name
    steps = np.diff(leads)
    steady = _steady(leads, steps[0] if len(steps) else leads[0])
    of_members = _members(forecasts, case) if forecasts.kind == "ensemble" and threshold is None else {"forecast": read}
    series = [Series(side, read_side, steady) for side, read_side in of_members.items()]
    if observed is not None:
        event = _threshold(forecasts, threshold) if is_probability else None
        series.insert(0, _observed(observed, forecasts, path, start, event))
    return Frames(
        title=f"{plain(short(name, 40))}: {what}{_averaged(forecasts)} from {moment(start)}",
        labels=[f"+{lead / MINUTE:g} min, {moment(start + lead)[11:]}" for lead in leads],
        series=series,
        quantity=Quantity.named(PROBABILITY_QUANTITY) if is_probability else forecasts.quantity,
        label=PROBABILITY_QUANTITY if is_probability else forecasts.quantity.unit,
        spacing_km=forecasts.grid.spacing_km,
        shape=forecasts.grid.shape,
        locator=locate(forecasts.grid),
        minutes=float((steps[0] if len(steps) else leads[0]) / MINUTE),
        is_forecast=True,
    )


def _averaged(forecasts: Forecasts) -> str:
    """Return the interval over which amounts were averaged, for a title; "" for rates."""
    seconds = forecasts.files[0].layout.conversion.interval_seconds
    return f", averaged over {seconds / 60:g} min," if seconds else ""


def _case(forecasts: Forecasts, path: str, reference: np.datetime64 | None) -> int:
    """Return the number of the forecast from a reference time, of the newest one for None."""
    times = forecasts.reference_times
    if reference is None:
        return len(times) - 1
    position, off = nearest(times, np.array([reference]))
    if off[0] <= tolerance(forecasts.lead_times[0]):
        return int(position[0])
    span = f"{len(times):,} reference times from {times[0]}Z to {times[-1]}Z"
    available = span if len(times) > 1 else f"only {times[0]}Z"
    raise NotEnoughFrames(f"{path} has no forecast from {reference}Z.\nIt has {available}.")


def _reader(
    forecasts: Forecasts, path: str, case: int, threshold: float | None
) -> tuple[str, Callable[[int], np.ndarray], bool]:
    """Return a title for the fields of a case, a function that reads one by lead number, and whether they are probabilities.

    Probabilities are those of the requested threshold, else of the one nearest to 1 mm/h.
    """
    if forecasts.kind == "probability":
        event = _threshold(forecasts, threshold)
        column = forecasts.thresholds.index(event)
        what = f"probability of {_event(forecasts, event)} or more, forecast"
        return what, lambda lead: forecasts.probabilities(case, lead, [column])[0], True
    if threshold is None:
        what = f"mean and some of {forecasts.num_members} members" if forecasts.kind == "ensemble" else "forecast"
        return what, lambda lead: forecasts.read(case, [lead])[0], False
    if forecasts.kind != "ensemble":
        raise UsageError(
            f"--threshold {threshold:g}: {path} holds no probabilities.\n"
            "Write them with nowcast predict … --probabilities, or leave --threshold out."
        )
    what = f"share of {forecasts.num_members} members with {_event(forecasts, threshold)} or more, forecast"
    return what, lambda lead: _reaches(forecasts.members(case, lead), threshold).mean(axis=0), True


def _event(forecasts: Forecasts, threshold: float) -> str:
    return f"{threshold:g} {forecasts.quantity.unit}".rstrip()


def _members(forecasts: Forecasts, case: int) -> dict[str, Callable[[int], np.ndarray]]:
    """Return functions that read the mean and each of the first MEMBERS members of a case by the lead time's number."""

    @lru_cache(maxsize=NEWEST)
    def fields(lead: int) -> np.ndarray:
        members = forecasts.members(case, lead)
        return np.stack([members.mean(axis=0), *members[:MEMBERS]])

    names = ["mean", *(f"member {number}" for number in forecasts.member_numbers[:MEMBERS])]
    return {name: partial(lambda side, lead: fields(lead)[side], side) for side, name in enumerate(names)}


def _reaches(fields: np.ndarray, threshold: float) -> np.ndarray:
    """Return 1 where fields (…, y, x) reach a threshold, 0 where they do not, NaN where they are missing."""
    return np.where(np.isnan(fields), np.nan, fields >= threshold).astype(np.float32)


def _threshold(forecasts: Forecasts, threshold: float | None) -> float:
    """Return the requested threshold of the file, mm/h; for None the one nearest to 1 mm/h."""
    if forecasts.kind != "probability":
        return float(threshold)
    known = np.array(forecasts.thresholds)
    if threshold is None:
        return forecasts.thresholds[int(np.argmin(np.abs(np.log(np.maximum(known, 1e-9)))))]
    if not np.isclose(known, threshold, rtol=1e-4).any():
        listed = ", ".join(f"{each:g}" for each in known)
        raise UsageError(
            f"--threshold {threshold:g}: the file holds the probabilities of {listed} {forecasts.quantity.unit}".rstrip()
        )
    return forecasts.thresholds[int(np.argmin(np.abs(known - threshold)))]


def _observed(record: Record, forecasts: Forecasts, path: str, start: np.datetime64, event: float | None) -> Series:
    """Return the observations at the valid times of a forecast, missing without a frame; with `event`, where they reach it.

    Raises DataError (exit 3) for a record of another grid or quantity.
    """
    if differs := difference(record.grid, forecasts.grid):
        raise DataError(f"{record.name} is not on the grid of {path}: {differs}.\nRegrid one of them first.")
    if record.quantity != forecasts.quantity:
        raise DataError(f"{record.name} holds {record.quantity} but {path} holds {forecasts.quantity}")
    valid = start + forecasts.lead_times
    times = record.frames_at(valid)
    if np.isnat(times).all():
        raise NotEnoughFrames(
            f"{record.name} has no frame at the valid times of the forecast, {valid[0]}Z to {valid[-1]}Z.\n"
            f"It goes from {record.times[0]}Z to {record.times[-1]}Z."
        )

    if told := unlike(forecasts, record):
        log.warning("%s", told)
    damage = Damage(record)

    def read(lead: int) -> np.ndarray:
        if np.isnat(times[lead]):
            return np.full(record.grid.shape, np.nan, np.float32)
        field = damage.read(int(np.searchsorted(record.times, times[lead])))
        if lead == len(times) - 1:
            damage.warn()
        return field if event is None else _reaches(field, event)

    name = "observed" if event is None else f"observed ≥ {event:g}"
    return Series(name, read, _steady(forecasts.lead_times, np.diff(forecasts.lead_times)[:1].sum()))
