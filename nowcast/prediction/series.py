"""Compute time series of rain at gauges and in catchments, of records and forecasts: rate, sums and exceedance.

A record is treated as one case whose leads are all its frames. `exceedance` is the fraction of a place (gauge or catchment)
that reaches a threshold, 0 or 1 at a gauge; for an ensemble, the mean of that over the members; for probabilities, their mean
over the place, which is the expected fraction.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nowcast.errors import DataError, NotEnoughFrames, UsageError
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.forecast_reader import Forecasts, forecast_in, probabilities_beside
from nowcast.netcdf.forecast_writer import PROBABILITY
from nowcast.netcdf.index import open_with_index
from nowcast.netcdf.places.earth import locate
from nowcast.netcdf.places.grid import Grid, carried
from nowcast.netcdf.record import Record, log_readings
from nowcast.prediction.gauges import Place
from nowcast.prediction.running_sums import check_sums, covered, running_sums
from nowcast.prediction.weights import Weights, weigh
from nowcast.runtime.progress import Progress

log = logging.getLogger(__name__)
_MINUTE, _ZERO = np.timedelta64(60, "s"), np.timedelta64(0, "s")
Span = tuple[np.datetime64 | None, np.datetime64 | None]


@dataclass(frozen=True)
class Wanted:
    """What to compute: sums (minutes) and exceedance of thresholds (mm/h), for frames and reference times within a span."""

    sums: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    span: Span = (None, None)


@dataclass(frozen=True, eq=False)
class Series:
    """The rain at places from one source. NaN is missing.

    reference_times: (case,) datetime64[s]; NaT of a record
    times: (case, lead) datetime64[s]
    rates: (case, lead, place) mm/h
    known: (case, lead, place) fraction of the place that is known
    sums: (case, lead, sum, place) mm, of the minutes up to the time
    exceedance: (case, lead, threshold, place) from 0 to 1
    members: (case, lead, member, place) mm/h; no members if it is not an ensemble
    member_sums: (case, lead, sum, member, place) mm
    member_numbers: (member,) as the files number them, else 0, 1, …
    """

    source: str
    weights: Weights
    wanted: Wanted
    reference_times: np.ndarray
    times: np.ndarray
    rates: np.ndarray
    known: np.ndarray
    sums: np.ndarray
    exceedance: np.ndarray
    members: np.ndarray
    member_sums: np.ndarray
    member_numbers: tuple[int, ...] = ()

    @property
    def is_forecast(self) -> bool:
        """Whether it holds forecasts, from reference times."""
        return not np.isnat(self.reference_times).any()


@dataclass(frozen=True)
class Sources:
    """Opened inputs: records, and forecasts by name, each with its probabilities or None."""

    records: tuple[Record, ...]
    forecasts: dict[str, tuple[Forecasts, Forecasts | None]]

    @property
    def files(self) -> list[Path]:
        """Return the files that are read."""
        own = [path for record in self.records for path in record.paths]
        return own + [file.path for forecasts, _ in self.forecasts.values() for file in forecasts.files]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the thresholds of the first forecast with probabilities, mm/h; () without."""
        pairs = self.forecasts.values()
        return next((each.thresholds for pair in pairs for each in pair if each is not None and each.thresholds), ())


def open_sources(arguments: Sequence[str], *, variable: str | None, units: str | None = None) -> Sources:
    """Open each argument (file, folder or glob) as forecasts; those without forecasts are opened together as records.

    Each source has a name of its own: a table tells sources apart by name.

    Raises UsageError (exit 2) if there are no files, DataError (exit 3) for files that cannot be used or do not hold rain.
    """
    opened_forecasts, observed = [], []
    for argument in arguments:
        if (opened := _open_forecasts(argument, variable, units)) is None:
            observed.append(argument)
            continue
        path = Path(argument)
        name = path.resolve().name if path.is_dir() else path.stem if path.exists() else path.absolute().parent.name
        opened_forecasts.append((name, opened))
    records = open_with_index(observed, variable=variable, units=units) if observed else []
    forecasts = _named(opened_forecasts, {record.name for record in records})
    for name, quantity in [(r.name, r.quantity) for r in records] + [(n, f.quantity) for n, (f, _) in forecasts.items()]:
        if not quantity.is_rain:
            raise DataError(f"{name} holds {quantity}.\nExpected rain: sums and thresholds are those of a rain rate.")
    return Sources(tuple(records), forecasts)


def _named(
    opened: Sequence[tuple[str, tuple[Forecasts, Forecasts | None]]], records: set[str]
) -> dict[str, tuple[Forecasts, Forecasts | None]]:
    """Return the forecasts by name. One named like a record gets the word "forecast", one named like another a number."""
    forecasts: dict[str, tuple[Forecasts, Forecasts | None]] = {}
    for name, each in opened:
        name = f"{name} forecast" if name in records else name
        numbered = (f"{name} {number}" for number in itertools.count(2))
        used = records | forecasts.keys() | {other for other, _ in opened}
        forecasts[name if name not in forecasts.keys() | records else next(n for n in numbered if n not in used)] = each
    return forecasts


def _open_forecasts(argument: str, variable: str | None, units: str | None) -> tuple[Forecasts, Forecasts | None] | None:
    """Return the forecasts that files hold, and their probabilities; None for records."""
    forecasts = forecast_in(argument, variable=variable, units=units)
    return forecasts and (forecasts, probabilities_beside(forecasts, argument, PROBABILITY))


def make_series(sources: Sources, places: Sequence[Place], wanted: Wanted) -> list[Series]:
    """Compute the series of all sources, records first.

    Raises DataError (exit 3) if a source does not say where it is or no place lies in it, UsageError (exit 2) for sums or
    thresholds that a source cannot give, NotEnoughFrames (exit 75) if it has nothing in the span.
    """
    weigher = _Weigher(places)
    readers = [_record_reader(record, weigher, wanted) for record in sources.records]
    readers += [_forecast_reader(name, *both, weigher, wanted) for name, both in sources.forecasts.items()]
    log_readings(sources.records)
    series = [read() for read in readers]
    for each in series:
        _report_unknown(each)
    return series


class _Weigher:
    """Computes the weights of cells in places, once per grid."""

    def __init__(self, places: Sequence[Place]):
        self.places = places
        self.known: dict[tuple, Weights] = {}

    def __call__(self, grid: Grid, name: str) -> Weights:
        key = (grid.key, grid.mapping_name, grid.others)
        if key not in self.known:
            self.known[key] = weigh(self.places, locate(grid, name), name)
        return self.known[key]


def _record_reader(record: Record, weigher: _Weigher, wanted: Wanted) -> Callable[[], Series]:
    """Check all that can be checked before frames are read; return a function that reads them."""
    chosen = np.flatnonzero(record.is_between(*wanted.span))
    if not len(chosen):
        extent = f"It goes from {record.times[0]}Z to {record.times[-1]}Z."
        raise NotEnoughFrames(f"{record.name} has no frame in the times asked for.\n{extent}")
    check_sums(wanted.sums, record.time_step, covered(record.time_step, record.interval_seconds), record.name)
    weights = weigher(record.grid, record.name)
    return partial(_of_record, record, chosen, weights, wanted)


def _forecast_reader(
    name: str, forecasts: Forecasts, probabilities: Forecasts | None, weigher: _Weigher, wanted: Wanted
) -> Callable[[], Series]:
    """Check all that can be checked before fields are read; return a function that reads them."""
    (start, end), references = wanted.span, forecasts.reference_times
    is_late, is_early = start is not None and references < start, end is not None and references > end
    cases = np.flatnonzero(~(np.zeros(len(references), bool) | is_late | is_early))
    if not len(cases):
        extent = f"It has forecasts from {references[0]}Z to {references[-1]}Z."
        raise NotEnoughFrames(f"{name} has no forecast in the times asked for.\n{extent}")
    step = _lead_step(forecasts)
    check_sums(wanted.sums, step, covered(step, _interval(forecasts)), name)
    columns = _columns(name, probabilities, wanted.thresholds)
    weights = weigher(carried(forecasts.grid, forecasts.files[0].path), name)
    return partial(_of_forecasts, name, forecasts, probabilities, cases, columns, weights, wanted)


def _lead_step(forecasts: Forecasts) -> np.timedelta64:
    """Return the shortest time between lead times, from the reference time on."""
    return np.diff(forecasts.lead_times[forecasts.lead_times > _ZERO], prepend=_ZERO).min()


def _interval(forecasts: Forecasts) -> float | None:
    """Return the interval of forecast amounts and means, s; None of instants, of totals, and where it is only assumed."""
    layout = forecasts.files[0].layout
    return None if forecasts.are_totals or layout.amounts == "assumed" else layout.interval_seconds


def _of_record(record: Record, chosen: np.ndarray, weights: Weights, wanted: Wanted) -> Series:
    damage, earlier = Damage(record), _frames_before(record, chosen[0], wanted.sums)
    frames = [*earlier, *chosen]
    fields = (field[None] for field in damage.in_order(frames))
    reached = itertools.repeat(_reached(weights, wanted.thresholds), len(frames))
    with Progress(f"reading {record.name}", total=len(frames), unit="frame") as progress:
        rates, known, exceedance, _ = _means(fields, reached, weights, progress)
    damage.check()
    times = record.times[frames]
    sums = running_sums(rates, times, record.time_step, wanted.sums, covered(record.time_step, record.interval_seconds))
    nothing, none = np.array(["NaT"], "datetime64[s]"), np.zeros((1, len(chosen), 0, rates.shape[1]))
    shown = [values[None, len(earlier) :] for values in (times, rates, known, sums, exceedance)]
    return Series(
        record.name, weights, wanted, nothing, *shown, none, np.zeros((1, len(chosen), len(wanted.sums), 0, rates.shape[1]))
    )


def _frames_before(record: Record, first: int, minutes: Sequence[int]) -> np.ndarray:
    """Return the positions of the frames before the first one shown that its sums over so many minutes need."""
    since = record.times[first] - max(minutes, default=0) * _MINUTE
    return np.flatnonzero((record.times > since) & (np.arange(len(record.times)) < first))


def _of_forecasts(
    name: str,
    forecasts: Forecasts,
    probabilities: Forecasts | None,
    cases: np.ndarray,
    columns: Sequence[int],
    weights: Weights,
    wanted: Wanted,
) -> Series:
    references, leads = forecasts.reference_times[cases], np.flatnonzero(forecasts.lead_times > _ZERO)
    times, found = references[:, None] + forecasts.lead_times[leads], []
    with Progress(f"reading {name}", total=times.size, unit="field") as progress:
        for case in cases:
            fields = (_members(forecasts, case, lead) for lead in leads)
            reached = [_probable(probabilities, case, lead, columns, weights)
                       if columns else _reached(weights, wanted.thresholds) for lead in leads]  # fmt: skip
            found.append(_means(fields, reached, weights, progress))
    rates, known, exceedance, members = map(np.stack, zip(*found, strict=True))
    if forecasts.kind != "ensemble":
        members = members[:, :, :0]
    numbers = forecasts.member_numbers[: members.shape[2]]
    if forecasts.kind == "probability":
        rates = np.full_like(rates, np.nan)  # what was read are probabilities
    step = _lead_step(forecasts)
    how = (step, wanted.sums, covered(step, _interval(forecasts)))
    sums = np.stack([running_sums(*case, *how) for case in zip(rates, times, strict=True)])
    flat = [running_sums(case.reshape(len(case), -1), of, *how) for case, of in zip(members, times, strict=True)]
    member_sums = np.stack(flat).reshape(*sums.shape[:3], *members.shape[2:])
    return Series(name, weights, wanted, references, times, rates, known, sums, exceedance, members, member_sums, numbers)


def _members(forecasts: Forecasts, case: int, lead: int) -> np.ndarray:
    """Read the members (member, y, x), mm/h; for probabilities the first threshold, which shows the known cells."""
    if forecasts.kind == "probability":
        return forecasts.probabilities(case, lead, [0])
    return forecasts.members(case, lead)


def _columns(name: str, probabilities: Forecasts | None, thresholds: Sequence[float]) -> list[int]:
    """Return the positions of thresholds among those of a forecast's probabilities; none if it has none."""
    if probabilities is None:
        return []
    if absent := [level for level in thresholds if level not in probabilities.thresholds]:
        there = ", ".join(f"{level:g}" for level in probabilities.thresholds)
        raise UsageError(f"{name} has no probabilities of {absent[0]:g} mm/h.\nIt has those of {there}.")
    return [probabilities.thresholds.index(level) for level in thresholds]


def _reached(weights: Weights, thresholds: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of members (member, y, x) for the fraction that reaches each threshold, (threshold, place)."""
    return lambda members: np.mean([weights.exceeding(member, thresholds) for member in members], axis=0)


def _probable(
    probabilities: Forecasts, case: int, lead: int, columns: Sequence[int], weights: Weights
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function for the mean probability of each threshold (threshold, place); it ignores its argument."""
    return lambda _: np.stack([weights.mean(field)[0] for field in probabilities.probabilities(case, lead, columns)])


def _means(
    fields: Iterable[np.ndarray],
    reached: Iterable[Callable[[np.ndarray], np.ndarray]],
    weights: Weights,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute means over places of fields (member, y, x), one per frame.

    returns: rates and known fractions (frame, place), exceedance (frame, threshold, place), rates (frame, member, place)
    """
    found = []
    for members, exceeding in zip(fields, reached, strict=True):
        means, shares = zip(*(weights.mean(member) for member in members), strict=True)
        found.append((np.mean(means, axis=0), np.min(shares, axis=0), exceeding(members), np.stack(means)))
        progress.advance()
    return tuple(map(np.stack, zip(*found, strict=True)))


def _report_unknown(series: Series) -> None:
    """Log a warning for sums that are missing everywhere, and for places that are never completely known."""
    for n, minutes in enumerate(series.wanted.sums):
        if np.isnan(series.sums[:, :, n]).all() and not np.isnan(series.rates).all():
            end = (series.times[0, -1] - series.reference_times[0]) / _MINUTE
            why = f"its leads end after {end:g}" if series.is_forecast else "it has no such run of frames without a gap"
            log.warning("%s: no sum over %d minutes: %s", series.source, minutes, why)
    best = series.known.max(axis=(0, 1))
    for place, inside, most in zip(series.weights.places, series.weights.covered, best, strict=True):
        if inside > 0 and most < inside - 0.005:
            log.warning('"%s": at most %.3g %% of it is ever known in %s', place.name, 100 * most, series.source)
