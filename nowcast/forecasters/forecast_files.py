"""Anything that maps past frames to future frames is a Forecaster: a trained network or a baseline, by one call.

Both sides of the call are mm/h with NaN for missing; network values exist only inside `Network`.
"""

import logging
from collections.abc import Sequence

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.forecast_reader import Forecasts
from nowcast.netcdf.grid import difference
from nowcast.netcdf.record import Record

log = logging.getLogger(__name__)


class FileForecaster:
    """Forecasts made earlier, by anyone, in forecast files: they can be scored, but not asked for other times.

    A lead time of 0, the analysis that some centres file with their forecasts, is no forecast and left out.
    """

    input_frames = 1

    def __init__(self, file: Forecasts, name: str):
        self.file, self.name = file, name
        self.lead_times = file.lead_times[file.lead_times > np.timedelta64(0, "s")]
        self.lead_frames = len(self.lead_times)
        if not self.lead_frames:
            raise DataError(f"{name} has no lead time above 0.\nRight would be forecasts for later than their reference time.")

    def time_step(self, record: Record) -> np.timedelta64:
        """The step between its leads on this record; DataError where grid, quantity or leads do not fit it."""
        leads = self._leads_on(record)
        if len(leads) < self.lead_frames:
            told = "%s: left out %d of %d lead times, at which %s, a frame every %s, has none"
            log.warning(
                told, self.name, self.lead_frames - len(leads), self.lead_frames, record.name, _minutes(record.time_step)
            )
        self._tell_of_projections(record)
        return leads[0]

    def _tell_of_projections(self, record: Record) -> None:
        stated = [grid.mapping_attributes.get("grid_mapping_name") for grid in (self.file.grid, record.grid)]
        if (stated[0] is None) != (stated[1] is None):
            without, other = (self.name, record.name) if stated[0] is None else (record.name, self.name)
            log.info("%s states no map projection: taken to be that of %s, whose coordinates are the same", without, other)

    def num_leads(self, record: Record) -> int:
        """How many of its leads this record has frames for."""
        return len(self._leads_on(record))

    def _leads_on(self, record: Record) -> np.ndarray:
        """The lead times whose valid times this record can have frames at: 1, 2, 3, … of one time step."""
        if self.file.quantity != record.quantity:
            raise DataError(f"{self.name} forecasts {self.file.quantity} but {record.name} holds {record.quantity}")
        if differs := difference(self.file.grid, record.grid):
            raise DataError(f"{self.name} is not on the grid of {record.name}: {differs}.\nRegrid one of them first.")
        leads, step = self.lead_times, record.time_step
        if not np.isnat(step):
            leads = leads[leads % step == np.timedelta64(0, "s")]
        if not len(leads):
            raise DataError(
                f"{self.name} has lead times of {_minutes(*self.lead_times)}, {record.name} a frame every {_minutes(step)}.\n"
                "Right would be observations at the times that are forecast."
            )
        if (leads != np.arange(1, len(leads) + 1) * leads[0]).any():
            raise DataError(f"{self.name} has lead times that are not 1, 2, 3, … of one time step: {_minutes(*leads)}")
        return leads

    def forecast_at(self, reference: np.datetime64, lead_times: np.ndarray) -> np.ndarray:
        """(lead, y, x) mm/h of the forecast from that time; of an ensemble its mean."""
        return self.file.read(self._case(reference), self._positions(lead_times))

    def members_at(self, reference: np.datetime64, lead_time: np.timedelta64) -> np.ndarray:
        """(member, y, x) mm/h of the forecast from that time."""
        return self.file.members(self._case(reference), self._positions([lead_time])[0])

    def probabilities_at(self, reference: np.datetime64, lead_time: np.timedelta64, thresholds: Sequence[float]) -> np.ndarray:
        """(threshold, y, x) of 0 to 1, of some of `self.file.thresholds`."""
        columns = [self.file.thresholds.index(threshold) for threshold in thresholds]
        return self.file.probabilities(self._case(reference), self._positions([lead_time])[0], columns)

    def _case(self, reference: np.datetime64) -> int:
        return int(np.flatnonzero(self.file.reference_times == reference)[0])

    def _positions(self, lead_times: Sequence[np.timedelta64]) -> list[int]:
        return np.searchsorted(self.file.lead_times, np.asarray(lead_times, "timedelta64[s]")).tolist()


def _minutes(*steps: np.timedelta64) -> str:
    """As "5, 10, 15, … 60 min", for a message."""
    numbers = [f"{step / np.timedelta64(60, 's'):g}" for step in steps]
    return ", ".join(numbers if len(numbers) < 6 else [*numbers[:3], f"… {numbers[-1]}"]) + " min"
