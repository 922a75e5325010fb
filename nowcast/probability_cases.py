"""The probabilities in a case: which sources give any, where these are known, and the sums of every source beside them.

Where one forecaster is an ensemble or gives probabilities, the others are scored as what they then are: ensembles of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.errors import UsageError
from nowcast.forecaster import FileForecaster, Forecaster
from nowcast.probability import EnsembleSums, ExceedanceSums, add_members, add_probabilities
from nowcast.sums import Additive

_ALIKE = 1e-4  # thresholds that differ by less are the same, written in another unit


@dataclass(frozen=True)
class Case:
    """One case of a record: its reference time, its lead times, the observation (lead, y, x) and where all is known."""

    reference: np.datetime64
    lead_times: np.ndarray
    observed: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Probabilities:
    """What is scored of probabilities. `matched`: for sources that give them, their thresholds and the places of these."""

    thresholds: tuple[float, ...]
    most_members: int
    matched: Mapping[str, tuple[tuple[float, ...], tuple[int, ...]]]

    @classmethod
    def of(cls, sources: Mapping[str, Forecaster | FileForecaster], thresholds: Sequence[float]) -> "Probabilities | None":
        """None where all forecasts are deterministic. Raises UsageError where a source has none of the thresholds."""
        thresholds = tuple(map(float, thresholds))
        files = {name: source.file for name, source in sources.items() if isinstance(source, FileForecaster)}
        if all(file.kind == "deterministic" for file in files.values()):
            return None
        matched = {
            name: _match(name, file.thresholds, thresholds) for name, file in files.items() if file.kind == "probability"
        }
        return cls(thresholds, max((file.num_members for file in files.values()), default=1), matched)

    def read(
        self, sources: Mapping[str, Forecaster | FileForecaster], reference: np.datetime64, lead_times: np.ndarray
    ) -> dict[str, np.ndarray]:
        """(threshold, lead, y, x) of 0 to 1, NaN missing, of the sources that give probabilities."""
        given = {}
        for name, (thresholds, _) in self.matched.items():
            leads = [sources[name].probabilities_at(reference, lead, thresholds) for lead in lead_times]
            given[name] = np.stack(leads, axis=1)
        return given

    def sums_of(self, source: Forecaster | FileForecaster, case: Case, forecast: np.ndarray) -> dict[str, Additive]:
        """The sums of a case by kind, of members (lead by lead, as many as there are) or of a deterministic forecast."""
        exceedance = ExceedanceSums.zeros(len(case.observed), self.thresholds)
        ensemble = EnsembleSums.zeros(len(case.observed), most_members=self.most_members)
        has_members = isinstance(source, FileForecaster) and source.file.kind == "ensemble"
        for n, lead_time in enumerate(case.lead_times):
            members = source.members_at(case.reference, lead_time) if has_members else forecast[n][None]
            add_members(exceedance, ensemble, n, members, case.observed[n], case.known[n])
        return {"probabilities": exceedance, "members": ensemble}

    def sums_given(self, name: str, case: Case, given: np.ndarray) -> dict[str, Additive]:
        """The sums of a case by kind, of probabilities (threshold, lead, y, x)."""
        total = ExceedanceSums.zeros(len(case.observed), self.thresholds)
        for n in range(len(case.observed)):
            add_probabilities(total, n, given[:, n], case.observed[n], case.known[n], self.matched[name][1])
        return {"probabilities": total}


def given_thresholds(sources: Mapping[str, Forecaster | FileForecaster]) -> tuple[float, ...]:
    """The thresholds of the first source that gives probabilities, in order; none where there is no such source."""
    files = (source.file for source in sources.values() if isinstance(source, FileForecaster))
    return next((tuple(sorted(file.thresholds)) for file in files if file.kind == "probability"), ())


def _match(name: str, given: Sequence[float], thresholds: Sequence[float]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    pairs = [(g, n) for n, t in enumerate(thresholds) for g in given if abs(g - t) <= _ALIKE * t]
    if not pairs:
        own, asked = (", ".join(f"{value:g}" for value in values) for values in (given, thresholds))
        raise UsageError(
            f"{name} gives probabilities of {own} mm/h and none of the thresholds {asked}.\n"
            f"Right would be --thresholds {own.replace(' ', '')}."
        )
    return tuple(g for g, _ in pairs), tuple(n for _, n in pairs)
