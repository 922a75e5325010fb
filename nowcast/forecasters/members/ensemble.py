"""A forecaster as an ensemble of its members."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nowcast.errors import UsageError, counted
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.record import Record
from nowcast.netcdf.writing.members import packed, unpacked

MOST_MEMBERS = 1000


class Ensemble(Forecaster):
    """The members of a forecaster, the same in each call with the same past frames and seed.

    Its forecast is the mean of the members, its probabilities are fractions of members. All else is taken from the forecaster.
    """

    is_ensemble = True
    is_probabilistic = True

    def __init__(self, forecaster: Forecaster, num_members: int, seed: int = 0):
        if not forecaster.gives_members:
            raise UsageError(
                f"{forecaster.name} gives no members: it has no probabilities.\n"
                "Use extrapolation, or a network that was trained for probabilities."
            )
        self.forecaster, self.num_members, self.seed = forecaster, num_members, seed
        self.name, self.description, self.citation = forecaster.name, forecaster.description, forecaster.citation
        self.probability_citation, self.files = forecaster.members_citation, forecaster.files
        self.input_frames, self.max_absent, self.time_steps = (
            forecaster.input_frames,
            forecaster.max_absent,
            forecaster.time_steps,
        )
        self._kept: tuple[np.datetime64, list[np.ndarray]] | None = None

    @property
    def reading(self) -> Any:
        return self.forecaster.reading

    @property
    def most_past_frames(self) -> int:
        return self.forecaster.most_past_frames

    @property
    def lead_frames(self) -> int | None:
        return self.forecaster.lead_frames

    @property
    def source(self) -> str:
        return self.forecaster.source

    def describe(self) -> dict[str, Any]:
        """Return the description of the forecaster, with the number of members and the seed."""
        description = self.forecaster.describe()
        return description | {"what": f"{description['what']}; {counted(self.num_members, 'member')}, seed {self.seed}"}

    def seen(self, split: str) -> list[list[str]]:
        return self.forecaster.seen(split)

    @property
    def cells_km(self) -> Sequence[Sequence[float]]:
        return self.forecaster.cells_km

    def own_time_step(self, record: Record) -> np.timedelta64 | None:
        return self.forecaster.own_time_step(record)

    def check_grid(self, grid: tuple[int, int], name: str) -> None:
        self.forecaster.check_grid(grid, name)

    def leads_on(self, record: Record) -> int | None:
        return self.forecaster.leads_on(record)

    def limit_leads(self, leads: int) -> None:
        self.forecaster.limit_leads(leads)

    def on_record(self, record: Record, step: np.timedelta64) -> "Ensemble":
        return Ensemble(self.forecaster.on_record(record, step), self.num_members, self.seed)

    def draw(self, past: np.ndarray, num_leads: int) -> Iterator[np.ndarray]:
        """Yield the members (member, y, x) mm/h of one case lead by lead; past (time, y, x)."""
        return self.forecaster.members(past, num_leads, self.num_members, self.seed)

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        means = [[members.mean(axis=0) for members in self.draw(case, num_leads)] for case in self.check_past(past)]
        return np.array(means, np.float32)

    def forecast_one(
        self, past: np.ndarray, reference: np.datetime64, lead_times: np.ndarray, thresholds: Sequence[float] = ()
    ) -> tuple[np.ndarray, None]:
        """Draw the members of one case, keep them, packed, for `members_at`, and return their mean (lead, y, x), mm/h."""
        means, kept = [], []
        for members in self.draw(past, len(lead_times)):
            kept.append(packed(members))
            means.append(unpacked(kept[-1]).mean(axis=0))
        self._kept = reference, kept, lead_times
        return np.stack(means), None

    def members_at(self, reference: np.datetime64, lead_time: np.timedelta64) -> np.ndarray:
        kept_reference, kept, lead_times = self._kept
        assert kept_reference == reference, "only the members of the last case are kept"
        return unpacked(kept[int(np.flatnonzero(lead_times == lead_time)[0])])
