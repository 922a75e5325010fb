"""Read forecast files of nowcast, pysteps and other CF programs: deterministic, ensembles and probabilities.

A file, or a folder or glob of files, holds the forecasts of one forecaster: one case for each reference time. Reference times,
lead times and members may be in one file or spread over several. Fields are read when they are needed, with row 0 northernmost.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.attributes import TRAINING_PERIODS, maker, text
from nowcast.netcdf.classic_header import NoWholeFile
from nowcast.netcdf.files import OPEN_FILES, expand, library_errors, unreadable
from nowcast.netcdf.forecast_amounts import of_steps, with_intervals, with_undeclared
from nowcast.netcdf.forecast_layout import ForecastLayout, own_members, read_layout
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.places.grid import Grid, read_grid
from nowcast.netcdf.rain.packing import NOISE
from nowcast.netcdf.rain.totals import MOST_READ, never_falls
from nowcast.netcdf.rain.units import check_given
from nowcast.netcdf.record import keep_chunks, most_frequent_step
from nowcast.netcdf.times.cases import order_cases
from nowcast.netcdf.times.forecast import Times
from nowcast.quantity import Quantity
from nowcast.runtime.log_lines import is_first

log = logging.getLogger(__name__)
_ABOVE_ONE = 1.001  # largest probability that a rounding error explains


@dataclass(frozen=True, eq=False)
class _File:
    path: Path
    layout: ForecastLayout
    times: Times
    grid: Grid
    source: str
    members: tuple[int, ...]  # numbers of the members in the file, in the order of its fields; () if unknown
    training: str | None = None  # text of its global attribute TRAINING_PERIODS


@dataclass(frozen=True, eq=False)
class Forecasts:
    """The forecasts of one forecaster: one case per reference time, all with the same lead times. Made by `read_forecast`.

    reference_times: (case,) datetime64[s]
    lead_times: (lead,) timedelta64[s]
    sources: (case, lead, part, 2), the index of a file and the position in it, counted over its time dimensions; files with
        different members of one forecast are its parts
    """

    grid: Grid
    quantity: Quantity
    kind: str  # "deterministic", "ensemble" or "probability"
    num_members: int
    thresholds: tuple[float, ...]  # mm/h, of probabilities; () for fields
    conversion: str  # of units, for messages, such as "m s-1 -> mm/h"
    reference_times: np.ndarray
    lead_times: np.ndarray
    sources: np.ndarray
    files: tuple[_File, ...]
    source: str = ""  # name of the forecaster; "" if unknown
    are_totals: bool = False  # amounts since the start of the forecast, read as differences of lead times

    def read(self, case: int, leads: Sequence[int] | None = None) -> np.ndarray:
        """Read the fields of a case at these leads (default: all); of an ensemble its mean, NaN where any member is NaN.

            returns: (lead, y, x) float32 mm/h, NaN missing, row 0 northernmost

        Raises TypeError for probabilities, which have no such field, and DataError (exit 3) for a damaged file.
        """
        if self.kind == "probability":
            raise TypeError("exceedance probabilities are no rain rates")
        leads = range(len(self.lead_times)) if leads is None else leads
        if self.kind == "ensemble":
            means = [self.members(case, lead).mean(axis=0, dtype=np.float64) for lead in leads]
            return np.stack(means).astype(np.float32)
        self._require(case)
        return np.concatenate([self._read(case, *run) for run in self._runs(case, leads)])

    def members(self, case: int, lead: int) -> np.ndarray:
        """Read the members at one lead, (member, y, x) mm/h, in order of number; a deterministic forecast has one member."""
        self._require(case)
        parts = [self._read(case, lead, 1, part=part) for part in range(self.sources.shape[2])]
        fields = np.concatenate(parts).reshape(self.num_members, *self.grid.shape)
        numbers = self._numbers(self.sources[case, lead, :, 0])
        return fields if numbers == sorted(numbers) else fields[np.argsort(numbers)]

    @property
    def member_numbers(self) -> tuple[int, ...]:
        """Return the numbers of the members, ascending: 0, 1, … if files do not state them, or cases have other ones."""
        parts = np.unique(self.sources[..., 0].reshape(-1, self.sources.shape[2]), axis=0)
        stated = {tuple(sorted(self._numbers(files))) for files in parts}
        return stated.pop() if len(stated) == 1 and () not in stated else tuple(range(self.num_members))

    def _numbers(self, files: Sequence[int]) -> list[int]:
        """Return the numbers of the members in files, of each file ascending; [] unless every member has one."""
        numbers = [number for file in files for number in sorted(self.files[file].members)]
        return numbers if len(numbers) == self.num_members else []

    def probabilities(self, case: int, lead: int, columns: Sequence[int]) -> np.ndarray:
        """Read the probabilities at one lead of the thresholds at these positions.

            returns: (threshold, y, x) from 0 to 1

        Raises DataError (exit 3) for values below 0 or above 1, such as percent with wrong units.
        """
        values = np.concatenate([self._read(case, lead, 1, threshold=column) for column in columns])
        lowest, highest = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
        if lowest < -NOISE or highest > _ABOVE_ONE:
            file = self.files[self.sources[case, lead, 0, 0]]
            field, end = file.layout.field, lowest if lowest < -NOISE else highest
            raise DataError(
                f'{file.path}: {field.variable} goes to {end / file.layout.conversion.scale:g} in units "{field.units}".\n'
                'Expected probabilities from 0 to 1, or the units "%".'
            )
        return np.clip(values, 0, 1, out=values)

    def _require(self, case: int) -> None:
        if not 0 <= case < len(self.reference_times):
            raise IndexError(f"case {case} of {len(self.reference_times)}")

    def _runs(self, case: int, leads: Sequence[int]) -> list[tuple[int, int]]:
        """Return (first lead, count) of each run of consecutive leads in one file, which is read at once."""
        runs: list[tuple[int, int]] = []
        for lead in leads:
            if runs and lead == sum(runs[-1]) and self._follows(case, lead):
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((lead, 1))
        return runs

    def _follows(self, case: int, lead: int) -> bool:
        """Return whether a lead directly follows the one before it along the last time dimension of the same file."""
        (file, position), before = self.sources[case, lead, 0], self.sources[case, lead - 1, 0]
        last = self.files[file].times.valid.shape[-1:]
        return bool(last) and (before == (file, position - 1)).all() and position % last[0] > 0

    def _read(self, case: int, lead: int, count: int, *, threshold: int = 0, part: int = 0) -> np.ndarray:
        """Read `count` leads from `lead` on, of one part: (member or lead, y, x)."""
        self._require(case)
        fields = self._read_stored(case, lead, count, threshold=threshold, part=part)
        if not self.are_totals:
            return fields
        before = self._read_stored(case, lead - 1, 1, part=part) if lead else np.zeros_like(fields[:1] if count > 1 else fields)
        before = np.concatenate([before, fields[:-1]]) if count > 1 else before
        # amounts were divided by one time step, although lead times may be further apart
        apart = np.diff(self.lead_times, prepend=np.timedelta64(0, "s"))
        steps = apart[lead : lead + count] / most_frequent_step(self.lead_times)
        rates = (fields - before) / np.where(steps > 0, steps, np.nan).astype(np.float32)[:, None, None]
        return np.maximum(rates, 0)

    def _read_stored(self, case: int, lead: int, count: int, *, threshold: int = 0, part: int = 0) -> np.ndarray:
        number, position = (int(n) for n in self.sources[case, lead, part])
        file = self.files[number]
        frames = _selection(file, position, count, threshold)
        with OPEN_FILES.lock:
            try:
                dataset = OPEN_FILES.get(file.path)
                keep_chunks(dataset.variables[file.layout.field.variable], file.layout.field, also=file.layout.member_dim)
                fields = file.layout.field.read(dataset, frames, file.layout.conversion, turned=file.grid.turned)
            except (OSError, RuntimeError, IndexError, KeyError, ValueError) as error:
                raise unreadable(error, f"{file.path}: case {case} cannot be read", "The file is damaged.") from error
        fields = fields.reshape(-1, *self.grid.shape)
        return fields[np.argsort(file.members)] if len(file.members) > 1 else fields  # totals are differenced by member


def _selection(file: _File, position: int, count: int, threshold: int) -> dict[str, int | slice]:
    """Return the index of each frame dimension: `count` frames along the last time dimension, all members, one threshold."""
    layout, shape = file.layout, file.times.valid.shape
    frames: dict = dict(zip(layout.time_dims, (int(n) for n in np.unravel_index(position, shape)), strict=True))
    if count > 1:
        frames[layout.time_dims[-1]] = slice(frames[layout.time_dims[-1]], frames[layout.time_dims[-1]] + count)
    if layout.member_dim:
        frames[layout.member_dim] = slice(None)
    if layout.threshold_dim:
        frames[layout.threshold_dim] = threshold
    return frames


def read_forecast(
    where: str | Path, *, variable: str | None = None, strict: bool = True, units: str | None = None,
    zr_a: float = 200.0, zr_b: float = 1.6,
) -> Forecasts:  # fmt: skip
    """Open a forecast file, or a folder or glob of files as one forecaster's. Reads coordinates, and a few fields.

    variable: name of the variable; None: found by its CF attributes
    strict: whether every file must have the variable; otherwise files without it are searched for rain
    units: units of the variable, for files that state none
    zr_a, zr_b: Z = zr_a R^zr_b, for reflectivity

    Of several files, unusable ones are left out, with a warning. Raises UsageError (exit 2) if there are no files,
    or for wrong units or a wrong Z-R relation, DataError (3) if none can be used, or files differ in grid, kind or lead times.
    """
    check_given(units, zr_a, zr_b)
    files = _open_usable(expand(where), where, variable=variable, strict=strict, units=units, zr_a=zr_a, zr_b=zr_b)
    _say_inferred(files, where)
    references, leads, sources = order_cases(files, str(where))
    files = with_undeclared(with_intervals(files, leads), lambda file, position: _selection(file, position, 1, 0))
    layout, num_parts = files[0].layout, sources.shape[2]
    forecasts = Forecasts(
        grid=files[0].grid,
        quantity=layout.quantity,
        kind="ensemble" if num_parts > 1 else layout.kind,
        num_members=num_parts * layout.num_members,
        thresholds=layout.thresholds,
        conversion=layout.conversion.describe,
        reference_times=references,
        lead_times=leads,
        sources=sources,
        files=tuple(files),
        source=files[0].source,
    )
    if not _are_totals(forecasts):
        return forecasts
    message = "%s: %s is taken as the total since the start of the forecast; rates are differences"
    log.info(message, where, layout.field.variable)
    files = of_steps(files, leads)
    return replace(forecasts, are_totals=True, files=tuple(files), conversion=files[0].layout.conversion.describe)


def forecast_in(where: str | Path, *, variable: str | None = None, units: str | None = None) -> Forecasts | None:
    """Open the forecasts of a file, folder or glob as `read_forecast` does; None if the first whole file is a record.

    A file without a lead time above 0 is an analysis, which is read as a record.
    """
    for path in expand(where):
        try:
            first = read_forecast(path, variable=variable, units=units)
        except NoWholeFile:
            continue
        except DataError:
            return None
        if not (first.lead_times > np.timedelta64(0, "s")).any():
            return None
        return read_forecast(where, variable=variable, units=units)
    return None


def probabilities_beside(forecasts: Forecasts, where: str | Path, variable: str) -> Forecasts | None:
    """Return the probabilities in forecast files: of a variable with this name, or as their only content; else None."""
    if forecasts.kind == "probability":
        return forecasts
    try:
        beside = read_forecast(where, variable=variable, strict=False)
    except DataError:  # other variables may be ambiguous
        return None
    return beside if beside.kind == "probability" else None


def _are_totals(forecasts: Forecasts) -> bool:
    """Return whether amounts are totals since the start: stated, or because they never decrease in the first and last case."""
    amounts = {file.layout.amounts for file in forecasts.files}
    if not amounts <= {"assumed", "spaced"}:
        return "total" in amounts
    cases = sorted({0, len(forecasts.reference_times) - 1})
    leads = range(min(len(forecasts.lead_times), MOST_READ))
    return any(never_falls(forecasts.read(case, leads)) for case in cases)


def _say_inferred(files: Sequence[_File], where: str | Path) -> None:
    """Log what reference times are taken from that no file states; once, since `inspect` opens the files more often."""
    for inferred in sorted({file.times.inferred for file in files} - {None}):
        if is_first(Path(where, "any"), inferred):
            log.info("%s: no forecast_reference_time is stated; it is taken from %s", where, inferred)


def _open_usable(paths: Sequence[Path], where: str | Path, **reading: Any) -> list[_File]:
    """Open the files that can be used, with a warning if some cannot. Raises DataError (exit 3) if none can be used."""
    files: list[_File] = []
    errors: list[DataError] = []
    shared: dict = {}
    for path in paths:
        try:
            file = _open(path, **reading)
        except DataError as error:
            errors.append(error)
            continue
        _require_alike(file, files[0] if files else file)
        # thousands of files share the same coordinates and network: keep one object
        same = {name: shared.setdefault((name, getattr(file, name)), getattr(file, name)) for name in ("layout", "training")}
        files.append(replace(file, grid=shared.setdefault(file.grid.turned, file.grid), **same))
    if errors and not files:
        raise errors[0]
    if errors and is_first(Path(where, "any"), str(errors[0])):  # files are opened again for probabilities
        log.warning("left out %d of %d files of %s; the first because: %s", len(errors), len(paths), where, errors[0])
    return files


def _open(path: Path, **reading: Any) -> _File:
    with OPEN_FILES.lock, library_errors(path), OPEN_FILES.briefly(path) as dataset:
        layout, times = read_layout(dataset, str(path), **reading)
        grid = read_grid(dataset, layout.field, str(path))
        members = own_members(dataset, layout, path)
        return _File(path, layout, times, grid, maker(dataset), members, text(dataset, TRAINING_PERIODS))


def _require_alike(file: _File, first: _File) -> None:
    """Raise DataError (exit 3) if a file has another grid, quantity, kind, number of members or thresholds than the first."""
    advice = "Expected one forecaster's files: name the others by themselves."
    if differs := difference(file.grid, first.grid):
        raise DataError(f"{file.path} is not on the grid of {first.path}: {differs}.\n{advice}")
    for own, expected in zip(_contents(file.layout), _contents(first.layout), strict=True):
        if own != expected:
            raise DataError(f"{file.path} holds {own} but {first.path} holds {expected}.\n{advice}")


def _contents(layout: ForecastLayout) -> tuple[Quantity, str, str]:
    """Return quantity, kind and thresholds as text for messages."""
    ensemble = f"{layout.num_members} member{'' if layout.num_members == 1 else 's'}"
    kinds = {"deterministic": "one forecast", "ensemble": ensemble, "probability": "probabilities"}
    thresholds = ", ".join(f"{threshold:g}" for threshold in layout.thresholds)
    return layout.quantity, kinds[layout.kind], f"the thresholds {thresholds}"
