"""The contract of a Forecaster: what prediction and evaluation may ask of a network, a baseline or a forecast file.

Every method and attribute has a default here, except the name, the number of past frames and `forecast`. Fields are
rain rate in mm/h (or another quantity in its own unit), float32, NaN missing; network values never leave `Network`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nowcast.errors import NotEnoughFrames, UsageError, counted
from nowcast.netcdf.record import Record

if TYPE_CHECKING:
    from nowcast.forecasters.members.structure import Structure

DEFAULT_LEADS = 12  # lead times that a forecaster without a number of its own forecasts


class Forecaster(ABC):
    """Anything that maps past frames to future frames: a trained network, a baseline, or forecasts stored in files."""

    # What it is
    name: str
    description: str = ""  # one sentence for the report; of a baseline how it forecasts
    citation: str = "none"  # paper that a forecast file names in its attribute `references`
    probability_citation: str = ""  # paper of the method behind its probabilities, if that is another
    files: tuple[Path, ...] = ()  # files that it was read from, which no output may replace
    reading: Mapping[str, Any] | None = None  # keyword arguments of `open_records` for its records; None: the defaults
    always_scored: ClassVar[bool] = False  # whether `nowcast evaluate` scores it even if it is not named

    # What it takes
    input_frames: int  # fewest past frames
    max_absent: int = 0  # number of past frames, except the newest, that may be missing as a whole
    cells_km: Sequence[Sequence[float]] = ()  # sizes (y, x) of the cells that it was trained on
    time_steps: Sequence[int] = ()  # s, ascending, of its training data; () if it forecasts at any time step

    # What it gives
    makes_forecasts: bool = True  # False for forecast files: they hold forecasts and cannot make new ones
    lead_frames: int | None = None  # largest number of lead times; None: any number
    reference_times: np.ndarray | None = None  # reference times that it has forecasts for (datetime64); None: any
    variable: str | None = None  # of forecast files: the variable that is read
    num_members: int = 1  # ensemble members; above 1 `members_at` gives them
    default_members: int = 1  # default number of members of a forecaster that is meant as an ensemble
    is_ensemble: bool = False  # True if it draws members: members/ensemble.py
    structure: "Structure | None" = None  # of the noise of its members; None: the default (members/default_structure.py)
    scale: tuple[float, float] = (1.0, 5.0)  # size of the cells, km, and time step, minutes, that its members are drawn for
    members_citation: str = "Bowler, Pierce & Seed (2006), doi 10.1256/qj.04.100 (the members)"
    thresholds: tuple[float, ...] = ()  # mm/h whose exceedance probabilities it gives by default; () if it gives none
    has_fixed_thresholds: bool = False  # True for files, which hold the probabilities of `thresholds` only
    # True if it is to be scored by probabilities, and all forecasters beside it too
    is_probabilistic: bool = False

    @property
    def most_past_frames(self) -> int:
        """Return the largest number of past frames that change its forecast: at least `input_frames`."""
        return self.input_frames

    @property
    def gives_members(self) -> bool:
        """Return whether it gives members; by default if it gives probabilities, from which they are drawn."""
        return self.makes_forecasts and bool(self.thresholds)

    @property
    def num_leads(self) -> int:
        """Return the default number of lead times."""
        return DEFAULT_LEADS if self.lead_frames is None else self.lead_frames

    @property
    def source(self) -> str:
        """Return the text that identifies it in a forecast file's attribute `source`."""
        return self.name

    def describe(self) -> dict[str, Any]:
        """Return its description for score files: the texts `kind` and `what`; a network adds checkpoint and periods."""
        frames = counted(self.most_past_frames, "past frame")
        return {"kind": "baseline", "what": f"{self.description or self.name} ({frames})"}

    def seen(self, split: str) -> list[list[str]]:
        """Return the time spans (record, start, end) of its "training" or "validation"; empty if it was not trained."""
        return []

    def knows_spacing(self, record: Record) -> bool:
        """Return whether it was trained on cells of the size of this record's, within 1 %."""
        return record.grid.has_spacing(self.cells_km)

    def own_time_step(self, record: Record) -> np.timedelta64 | None:
        """Return the time step at which it has to forecast `record`; None if any is possible.

        Raises DataError (exit 3) if the record does not fit the forecaster: another quantity, grid or time step.
        """
        return None

    def time_step(self, record: Record) -> np.timedelta64:
        """Return the time step at which it forecasts `record`: its own, else that of the record.

        Raises DataError (exit 3) as `own_time_step`, NotEnoughFrames (75) if the record has no time step.
        """
        own = self.own_time_step(record)
        if own is not None:
            return own
        if np.isnat(record.time_step):
            raise NotEnoughFrames(
                f"{record.name} has a single frame: its time step, and so the lead times, are unknown.\n"
                "Give the frames before it as well."
            )
        return record.time_step

    def check_grid(self, grid: tuple[int, int], name: str) -> None:  # noqa: B027
        """Raise DataError (exit 3) if it cannot forecast a grid of this (y, x) shape; `name` is that of the record."""

    def leads_on(self, record: Record) -> int | None:
        """Return how many lead times it can forecast on `record`; None for any number."""
        return self.lead_frames

    def leads_without_frame(self, record: Record) -> tuple[int, int]:
        """Return how many lead times up to the last one scored have no frame in this record, and how many there are."""
        return 0, self.lead_frames or 0

    def limit_leads(self, leads: int) -> None:
        """Forecast this number of lead times from now on. Raises UsageError (exit 2) if it is made for fewer."""
        if self.lead_frames is not None and leads > self.lead_frames:
            raise UsageError(f"--leads {leads}: '{self.name}' forecasts {counted(self.lead_frames, 'lead time')} at most")
        self.lead_frames = leads

    def on_record(self, record: Record, step: np.timedelta64) -> "Forecaster":
        """Return the forecaster adapted to the time step and cell size of a record; by default only its members change."""
        adapted, km = copy.copy(self), float(np.sqrt(np.prod(record.grid.spacing_km)))
        adapted.scale = km if np.isfinite(km) else self.scale[0], float(step / np.timedelta64(60, "s"))
        return adapted

    def cases_at_once(self, grid: tuple[int, int]) -> int:
        """Return the number of cases on a grid of this (y, x) shape that is fastest to forecast in one call."""
        return 1

    @abstractmethod
    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Forecast the next `num_leads` frames.

            past: (case, time, y, x) mm/h, newest frame last, NaN missing
            returns: (case, lead, y, x) mm/h, float32, NaN where nothing is known

        Raises UsageError (exit 2) for fewer past frames than `input_frames`.
        """

    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast fields and the probabilities of reaching each threshold (mm/h).

            past: (case, time, y, x) mm/h, newest frame last, NaN missing
            returns: (case, lead, y, x) mm/h, and (case, lead, threshold, y, x) float32 from 0 to 1; NaN in both alike

        Raises UsageError (exit 2) if it gives no probabilities, or for too few past frames.
        """
        raise UsageError(f"{self.name} gives no probabilities.\nUse extrapolation, or a network that was trained for them.")

    def forecast_one(
        self, past: np.ndarray, reference: np.datetime64, lead_times: np.ndarray, thresholds: Sequence[float] = ()
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the field and the probabilities of one case for evaluation; None for each that it does not give.

            past: (time, y, x) mm/h, the last frame at `reference`
            lead_times: (lead,) timedelta64, equally spaced
            returns: (lead, y, x) mm/h or None, and (threshold, lead, y, x) from 0 to 1 or None

        Forecast files override it to look the case up by its reference time. Without `thresholds` there are no probabilities.
        """
        if not thresholds:
            return self.forecast(past[None], len(lead_times))[0], None
        field, probabilities = self.forecast_and_exceedance(past[None], len(lead_times), thresholds)
        return field[0], probabilities[0].swapaxes(0, 1)

    def members(self, past: np.ndarray, num_leads: int, num_members: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Draw members of one case, lead by lead; by default from the probabilities.

            past: (time, y, x) mm/h, newest frame last, NaN missing
            yields: (member, y, x) mm/h, float32, NaN missing; the same for the same past and seed, the first of many as of few

        Raises UsageError (exit 2) if it gives no probabilities, or for too few past frames.
        """
        from nowcast.forecasters.members.default_structure import DEFAULT
        from nowcast.forecasters.members.draw import members
        from nowcast.scores.distribution import RATES

        exceedance = self.exceedance_by_lead(past, num_leads, RATES)
        km, minutes = self.scale
        own = self.structure is not None
        structure = self.structure if own else DEFAULT
        return members(past, exceedance, num_leads, num_members, seed, structure, of_this_radar=own, km=km, minutes=minutes)

    def exceedance_by_lead(self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
        """Return the probabilities of one case lead by lead; by default those of all leads are computed at once.

            past: (time, y, x) mm/h, newest frame last, NaN missing
            yields: (threshold, y, x) from 0 to 1, NaN missing

        Raises UsageError (exit 2) as `forecast_and_exceedance`.
        """
        return iter(self.forecast_and_exceedance(past[None], num_leads, thresholds)[1][0])

    def members_at(self, reference: np.datetime64, lead_time: np.timedelta64) -> np.ndarray:
        """Return the ensemble members (member, y, x), mm/h; called only if `num_members` is above 1."""
        raise NotImplementedError(f"{self.name} is no ensemble")

    def check_past(self, past: np.ndarray) -> np.ndarray:
        """Return the past (case, time, y, x) as float32. Raises UsageError (exit 2) for fewer frames than `input_frames`."""
        past = np.asarray(past, np.float32)
        if past.ndim != 4:
            raise ValueError(f"past has shape {past.shape}: expected (case, time, y, x)")
        if past.shape[1] < self.input_frames:
            raise UsageError(f"{self.name} needs {counted(self.input_frames, 'past frame')} but got {past.shape[1]}")
        return past
