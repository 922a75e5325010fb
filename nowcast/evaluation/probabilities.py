"""The probabilities in a case: which sources give any, where these are known, and the sums of every source beside them.

Where a file is an ensemble or gives probabilities, or a network gives them, every source is scored by its own: those of a
deterministic one are those of an ensemble of one. What gives a field as well is scored by both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.errors import UsageError
from nowcast.forecasters.baselines import Baseline
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.forecasters.forecaster import Forecaster, own_thresholds
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums, add_probabilities
from nowcast.scores.sums import Additive

_ALIKE = 1e-4  # thresholds that differ by less are the same, written in another unit
Source = Forecaster | FileForecaster


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
    def of(cls, sources: Mapping[str, Source], thresholds: Sequence[float]) -> "Probabilities | None":
        """None where no file and no network gives any: what baselines give is scored beside those alone.

        Raises UsageError where a file has none of the thresholds.
        """
        thresholds = tuple(map(float, thresholds))
        if not any(_is_asked_for(source) for source in sources.values()):
            return None
        matched = {name: (thresholds, tuple(range(len(thresholds)))) for name, s in sources.items() if own_thresholds(s)}
        files = {name: source.file for name, source in sources.items() if isinstance(source, FileForecaster)}
        matched |= {
            name: _match(name, file.thresholds, thresholds) for name, file in files.items() if file.kind == "probability"
        }
        return cls(thresholds, max((file.num_members for file in files.values()), default=1), matched)

    def asked_of(self, name: str) -> tuple[float, ...]:
        """The thresholds of which this source's own probabilities are scored; none for one that gives none."""
        return self.matched[name][0] if name in self.matched else ()

    def sums_of(
        self, name: str, source: Source, case: Case, *, forecast: np.ndarray | None, given: np.ndarray | None
    ) -> dict[str, Additive]:
        """The sums of a case by kind: of the probabilities (threshold, lead, y, x) that a source gives, and of its members.

        Without `given`, probabilities are the shares of members; a deterministic forecast (lead, y, x) is an ensemble of
        one. Without `forecast`, there are probabilities alone.
        """
        exceedance = ExceedanceSums.zeros(len(case.observed), self.thresholds)
        if given is not None:
            for n in range(len(case.observed)):
                add_probabilities(exceedance, n, given[:, n], case.observed[n], case.known[n], self.matched[name][1])
        if forecast is None:
            return {"probabilities": exceedance}
        # where a source states its probabilities, those of its field as an ensemble of one are not looked at
        shares = exceedance if given is None else ExceedanceSums.zeros(len(case.observed), ())
        ensemble = EnsembleSums.zeros(len(case.observed), most_members=self.most_members)
        has_members = isinstance(source, FileForecaster) and source.file.kind == "ensemble"
        for n, lead_time in enumerate(case.lead_times):
            members = source.members_at(case.reference, lead_time) if has_members else forecast[n][None]
            add_members(shares, ensemble, n, members, case.observed[n], case.known[n])
        return {"probabilities": exceedance, "members": ensemble}


def _is_asked_for(source: Source) -> bool:
    """Whether someone means its probabilities to be scored: a baseline stands beside whatever is scored."""
    if isinstance(source, FileForecaster):
        return source.file.kind != "deterministic"
    return bool(own_thresholds(source)) and not isinstance(source, Baseline)


def given_thresholds(sources: Mapping[str, Source]) -> tuple[float, ...]:
    """The thresholds of the first file or network that gives probabilities, in order; none where there is none."""
    for source in sources.values():
        if isinstance(source, FileForecaster) and source.file.kind == "probability":
            return tuple(sorted(source.file.thresholds))
        if not isinstance(source, FileForecaster) and _is_asked_for(source):
            return tuple(sorted(own_thresholds(source)))
    return ()


def _match(name: str, given: Sequence[float], thresholds: Sequence[float]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    pairs = [(g, n) for n, t in enumerate(thresholds) for g in given if abs(g - t) <= _ALIKE * t]
    if not pairs:
        own, asked = (", ".join(f"{value:g}" for value in values) for values in (given, thresholds))
        raise UsageError(
            f"{name} gives probabilities of {own} mm/h and none of the thresholds {asked}.\n"
            f"Right would be --thresholds {own.replace(' ', '')}."
        )
    return tuple(g for g, _ in pairs), tuple(n for _, n in pairs)
