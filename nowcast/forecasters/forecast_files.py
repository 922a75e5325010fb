"""Forecasts stored in files, ours or anyone's, as a Forecaster: they are scored like forecasts made now."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.errors import DataError, UsageError, counted
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.seen import read_seen
from nowcast.netcdf.forecast_reader import Forecasts
from nowcast.netcdf.places.comparison import difference
from nowcast.netcdf.record import Record
from nowcast.netcdf.times.intervals import ROUNDED
from nowcast.netcdf.times.raster import nearest, tolerance

log = logging.getLogger(__name__)
_MINUTE = np.timedelta64(60, "s")


def unlike(forecasts: Forecasts, record: Record) -> str | None:
    """Return a warning if a forecast amount or mean covers a longer interval than a frame of a record, or a shorter one."""
    if np.isnat(record.time_step):
        return None
    layout, minutes = forecasts.files[0].layout, record.time_step / _MINUTE
    variable, forecast = layout.field.variable, (layout.interval_seconds or 0) / 60
    observed, what = (record.interval_seconds or 0) / 60, "amounts" if layout.amounts else "means"
    if forecast > max(minutes, observed * (1 + ROUNDED)):
        frame = f"a single frame of {record.name}, which has a time step of {_minutes(record.time_step)}"
        return f"{variable} holds {what} over {forecast:g} min, but each is compared with {frame}."
    leads = forecasts.lead_times[forecasts.lead_times > np.timedelta64(0, "s")]
    apart = np.diff(leads, prepend=np.timedelta64(0, "s")).min() / _MINUTE
    if observed > (forecast or apart) * (1 + ROUNDED):
        field = f"{what} over {forecast:g} min" if forecast else f"rates every {apart:g} min"
        each = f"each is compared with a single field of {variable}, which has {field}"
        return f"{record.name} holds {'amounts' if record.are_amounts else 'means'} over {observed:g} min, but {each}."
    return None


class ForecastFiles(Forecaster):
    """Forecasts that were made earlier: they can be scored, but not asked for other reference times.

    Fields, ensemble members or exceedance probabilities, as the files hold them. A lead time of 0 (the analysis that some
    centres store with their forecasts) is no forecast and is left out.
    """

    input_frames = 1
    makes_forecasts = False
    has_fixed_thresholds = True

    def __init__(self, forecasts: Forecasts, name: str, *, files: Sequence[Path] = ()):
        self.forecasts, self.name = forecasts, name
        self.files = tuple(files) or tuple(file.path for file in forecasts.files)
        self.lead_times = forecasts.lead_times[forecasts.lead_times > np.timedelta64(0, "s")]
        self.lead_frames = len(self.lead_times)
        if not self.lead_frames:
            raise DataError(f"{name} has no lead time above 0.\nExpected forecasts for later than their reference time.")
        self.reference_times = forecasts.reference_times
        self.variable = forecasts.files[0].layout.field.variable
        self.num_members = forecasts.num_members
        self.gives_fields = forecasts.kind != "probability"
        self.thresholds = () if self.gives_fields else forecasts.thresholds
        self.is_probabilistic = forecasts.kind != "deterministic"
        self._seen = read_seen((file.training for file in forecasts.files if file.training), name)
        self.cells_km = self._seen.cells_km

    def seen(self, split: str) -> list[list[str]]:
        """Return the spans (record, start, end) seen by the network that made the forecasts, if the files state them."""
        return self._seen.spans[split]

    def describe(self) -> dict[str, Any]:
        """Return kind, file name, number of members and reference times, and `trained_on`."""
        files, times = self.forecasts.files, self.reference_times
        name = files[0].path.name + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")
        members = f", {self.num_members} members" if self.num_members > 1 else ""
        what = f"{name}{members}: {counted(len(times), 'reference time')} from {times[0]}Z"
        trained = [[record, start.removesuffix("Z"), end.removesuffix("Z")] for record, start, end in self.seen("training")]
        kind = f"{self.forecasts.kind} forecasts in files"
        return {"kind": kind, "what": what} | ({"trained_on": trained} if trained else {})

    def own_time_step(self, record: Record) -> np.timedelta64:
        """Return the step between the lead times on this record, and report what is assumed of it.

        Raises DataError (exit 3) if quantity, grid or lead times do not fit the record.
        """
        leads = self._leads_on(record)
        self._report_projections(record)
        log.info("%s: %s", self.name, self.forecasts.conversion)
        if told := unlike(self.forecasts, record):
            log.warning("%s", told)
        return leads[0]

    def _report_projections(self, record: Record) -> None:
        """Log if only one of forecasts and record states its map projection, or its location at all."""
        stated = [grid.mapping_attributes.get("grid_mapping_name") for grid in (self.forecasts.grid, record.grid)]
        if (stated[0] is None) != (stated[1] is None):
            without, other = (self.name, record.name) if stated[0] is None else (record.name, self.name)
            log.info("%s states no map projection: assumed to be that of %s, whose coordinates are the same", without, other)
        if self.forecasts.grid.is_placed != record.grid.is_placed:
            without, other = (record.name, self.name) if self.forecasts.grid.is_placed else (self.name, record.name)
            log.warning("%s does not state where its cells are: assumed to be those of %s, which has as many", without, other)

    def leads_on(self, record: Record) -> int:
        """Return the number of lead times at which this record can have frames."""
        return len(self._leads_on(record))

    def leads_without_frame(self, record: Record) -> tuple[int, int]:
        leads, own = self._leads_on(record), self.lead_times
        if len(leads) == self.lead_frames:  # no later ones are asked for
            own = own[own <= leads[-1] + tolerance(record.time_step)]
        return len(own) - len(leads), len(own)

    def _leads_on(self, record: Record) -> np.ndarray:
        """Return the lead times at which this record can have frames: 1, 2, 3, … times one time step."""
        if self.forecasts.quantity != record.quantity:
            raise DataError(f"{self.name} forecasts {self.forecasts.quantity} but {record.name} holds {record.quantity}")
        if differs := difference(self.forecasts.grid, record.grid):
            raise DataError(f"{self.name} is not on the grid of {record.name}: {differs}.\nRegrid one of them first.")
        leads, step = self.lead_times, record.time_step
        if not np.isnat(step):
            is_exact = leads % step == np.timedelta64(0, "s")
            leads = leads[is_exact] if is_exact.any() else _near_multiples(leads, step)
        leads = leads[: self.lead_frames]  # --leads counts those that are scored, as it does for other forecasters
        if not len(leads):
            raise DataError(
                f"{self.name} has lead times of {_minutes(*self.lead_times)}, {record.name} a frame every {_minutes(step)}.\n"
                "Expected observations at the forecast times."
            )
        if (leads != np.arange(1, len(leads) + 1) * leads[0]).any():
            raise DataError(f"{self.name} has lead times that are not 1, 2, 3, … of one time step: {_minutes(*leads)}")
        return leads

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Raise UsageError (exit 2) for any past (case, time, y, x): files hold forecasts and cannot make new ones."""
        raise UsageError(f"{self.name} is a forecast file, which cannot make new forecasts; give a run or a baseline")

    def forecast_one(
        self, past: np.ndarray, reference: np.datetime64, lead_times: np.ndarray, thresholds: Sequence[float] = ()
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Look up the forecast from `reference`; the past is not used. Shapes as `Forecaster.forecast_one`."""
        field = self.forecast_at(reference, lead_times) if self.gives_fields else None
        if not thresholds:
            return field, None
        return field, np.stack([self.probabilities_at(reference, lead, thresholds) for lead in lead_times], axis=1)

    def forecast_at(self, reference: np.datetime64, lead_times: np.ndarray) -> np.ndarray:
        """Return the forecast (lead, y, x), mm/h, from a reference time; of an ensemble the mean."""
        return self.forecasts.read(self._case(reference), self._positions(lead_times))

    def members_at(self, reference: np.datetime64, lead_time: np.timedelta64) -> np.ndarray:
        """Return the members (member, y, x), mm/h, of the forecast from a reference time."""
        return self.forecasts.members(self._case(reference), self._positions([lead_time])[0])

    def probabilities_at(self, reference: np.datetime64, lead_time: np.timedelta64, thresholds: Sequence[float]) -> np.ndarray:
        """Return the probabilities (threshold, y, x), 0 to 1, of some of the file's own thresholds."""
        columns = [self.thresholds.index(threshold) for threshold in thresholds]
        return self.forecasts.probabilities(self._case(reference), self._positions([lead_time])[0], columns)

    def _case(self, reference: np.datetime64) -> int:
        """Return the case that starts nearest to a frame's time, which may be some seconds off."""
        return int(nearest(self.reference_times, np.array([reference]))[0][0])

    def _positions(self, lead_times: Sequence[np.timedelta64]) -> list[int]:
        return nearest(self.forecasts.lead_times, np.asarray(lead_times, "timedelta64[s]"))[0].tolist()


def _near_multiples(leads: np.ndarray, step: np.timedelta64) -> np.ndarray:
    """Return the multiples of a time step (lead,) nearest to lead times, which may be some seconds off like those of frames."""
    multiples = np.round(leads / step).astype(np.int64) * step
    return np.unique(multiples[(np.abs(leads - multiples) <= tolerance(step)) & (multiples > np.timedelta64(0, "s"))])


def _minutes(*steps: np.timedelta64) -> str:
    """Return lead times as "5, 10, 15, … 60 min", for a message."""
    numbers = [f"{step / np.timedelta64(60, 's'):g}" for step in steps]
    return ", ".join(numbers if len(numbers) < 6 else [*numbers[:3], f"… {numbers[-1]}"]) + " min"
