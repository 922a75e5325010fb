"""Compute the sums of probability scores of a case, for the forecasters that give probabilities.

As soon as one forecaster is probabilistic (an ensemble, a file of probabilities, a network that forecasts them), all are
scored by probabilities: a deterministic forecast is taken as an ensemble of one member. A forecaster that gives a field as
well is scored by both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.errors import UsageError
from nowcast.evaluation.windows import MINUTE
from nowcast.forecasters.forecaster import Forecaster
from nowcast.scores.boxes import BoxSums
from nowcast.scores.distribution import RATES, RateSums, add_distribution, add_ensemble
from nowcast.scores.ensemble import EnsembleSums, add_members
from nowcast.scores.exceedance import ExceedanceSums, add_probabilities
from nowcast.scores.spectra import WAVELENGTHS_KM, SpectrumSums, add_member_spectra
from nowcast.scores.sums import Additive

_TOLERANCE = 1e-4  # relative; thresholds that differ by less are the same one, converted from another unit


@dataclass(frozen=True)
class Case:
    """One case to score: reference time, lead times, observation and common mask (lead, y, x), cell size."""

    reference: np.datetime64
    lead_times: np.ndarray
    observed: np.ndarray
    known: np.ndarray
    spacing_km: tuple[float, float] = (np.nan, np.nan)


@dataclass(frozen=True)
class Probabilities:
    """What to score in probabilities.

    matched: for each forecaster with probabilities, its thresholds (mm/h) and their positions in `thresholds`
    rates: mm/h, over which the CRPS is integrated; () for quantities other than rain, which have no CRPS
    """

    thresholds: tuple[float, ...]
    most_members: int
    matched: Mapping[str, tuple[tuple[float, ...], tuple[int, ...]]]
    fixed: frozenset[str] = frozenset()  # forecasters with probabilities of their own thresholds only
    rates: tuple[float, ...] = RATES

    @classmethod
    def of(
        cls, forecasters: Mapping[str, Forecaster], thresholds: Sequence[float], rates: Sequence[float] = RATES
    ) -> "Probabilities | None":
        """Return what to score for these forecasters and thresholds; None if no forecaster is probabilistic.

        Raises UsageError (exit 2) if a file has none of the thresholds.
        """
        thresholds = tuple(map(float, thresholds))
        if not any(forecaster.is_probabilistic for forecaster in forecasters.values()):
            return None
        matched, fixed = {}, frozenset(name for name, each in forecasters.items() if each.has_fixed_thresholds)
        for name, forecaster in forecasters.items():
            if forecaster.thresholds and forecaster.has_fixed_thresholds:
                matched[name] = _match(name, forecaster.thresholds, thresholds)
            elif forecaster.thresholds:
                matched[name] = (thresholds, tuple(range(len(thresholds))))
        most_members = max(forecaster.num_members for forecaster in forecasters.values())
        return cls(thresholds, most_members, matched, fixed, tuple(rates))

    def thresholds_of(self, name: str) -> tuple[float, ...]:
        """Return the thresholds (mm/h, ascending) whose probabilities a forecaster must give: those scored, and `rates`.

        () if it gives no probabilities.
        """
        if name not in self.matched:
            return ()
        return tuple(sorted({*self.matched[name][0], *(() if name in self.fixed else self.rates)}))

    def position(self, name: str, column: int) -> int | None:
        """Return the position in `thresholds_of` of the scored threshold number `column`; None if it is not there."""
        own, columns = self.matched[name]
        return self.thresholds_of(name).index(own[columns.index(column)]) if column in columns else None

    def sums_of(
        self, name: str, forecaster: Forecaster, case: Case, *, field: np.ndarray | None, exceedance: np.ndarray | None
    ) -> dict[str, Additive]:
        """Return the sums of one case by kind: "probabilities", "distribution" for the CRPS, and those of `_of_members`.

        field: (lead, y, x) mm/h, or None
        exceedance: (threshold, lead, y, x) from 0 to 1, of `thresholds_of`; None: the fractions of members that reach each

        A forecaster with probabilities of its own has no "members". If ensembles are scored, the sums over time and area of
        all fields are scored too.
        """
        num_leads = len(case.observed)
        sums, rates = ExceedanceSums.zeros(num_leads, self.thresholds), RateSums.zeros(num_leads, self.rates)
        kinds: dict[str, Additive] = {"probabilities": sums}
        if self.rates and (exceedance is None or name not in self.fixed):
            kinds["distribution"] = rates
        if exceedance is not None:
            asked, (own, columns) = self.thresholds_of(name), self.matched[name]
            for n in range(num_leads):
                lead = (case.observed[n], case.known[n])
                add_probabilities(sums, n, exceedance[[asked.index(t) for t in own], n], *lead, columns)
                if "distribution" in kinds:
                    add_distribution(rates, n, exceedance[[asked.index(rate) for rate in self.rates], n], *lead)
            return kinds | self._of_boxes(case, field)
        return kinds | self._of_members(forecaster, case, field, sums, rates)

    def _of_members(
        self, forecaster: Forecaster, case: Case, field: np.ndarray, exceedance: ExceedanceSums, rates: RateSums
    ) -> dict[str, Additive]:
        """Fill in `exceedance` and `rates`; return "members", and where there are ensembles of rain their sums and spectra."""
        num_leads, is_ensemble = len(case.observed), forecaster.num_members > 1
        kinds: dict[str, Additive] = {"members": EnsembleSums.zeros(num_leads, most_members=self.most_members)}
        boxes = self.boxes(case) if self.has_sums else None
        if is_ensemble:
            kinds["member_spectra"] = SpectrumSums.empty(num_leads, wavelengths_km=WAVELENGTHS_KM)
        for n, lead_time in enumerate(case.lead_times):
            members = forecaster.members_at(case.reference, lead_time) if is_ensemble else field[n][None]
            pairs = (n, members, case.observed[n], case.known[n])
            add_members(exceedance, kinds["members"], *pairs)
            add_ensemble(rates, *pairs)
            if is_ensemble:
                add_member_spectra(kinds["member_spectra"], *pairs, case.spacing_km)
            if boxes:
                boxes.add(*pairs)
        return kinds | (boxes.kinds if boxes else {})

    def _of_boxes(self, case: Case, field: np.ndarray | None) -> dict[str, Additive]:
        """Return the sums over time and area of a field (lead, y, x), as for one member; {} if they are not scored."""
        if field is None or not self.has_sums:
            return {}
        boxes = self.boxes(case)
        for n, rain in enumerate(field):
            boxes.add(n, rain[None], case.observed[n], case.known[n])
        return boxes.kinds

    @property
    def has_sums(self) -> bool:
        """Return whether sums of 30 and 60 minutes are scored: if there is an ensemble of rain."""
        return self.most_members > 1 and bool(self.rates)

    def boxes(self, case: Case) -> BoxSums:
        """Return the sums of the rain of 30 and 60 minutes of an ensemble over a case, to be filled in."""
        step = case.lead_times[0] / MINUTE
        return BoxSums(len(case.lead_times), step, case.spacing_km, most_members=self.most_members)


def default_thresholds(forecasters: Iterable[Forecaster]) -> tuple[float, ...]:
    """Return the thresholds (mm/h, ascending) of the first probabilistic forecaster that has any; () if there is none."""
    return next((tuple(sorted(each.thresholds)) for each in forecasters if each.is_probabilistic and each.thresholds), ())


def _match(name: str, own: Sequence[float], scored: Sequence[float]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the thresholds of a forecaster that are scored, and the position of each among the scored ones."""
    pairs = [(threshold, n) for n, t in enumerate(scored) for threshold in own if abs(threshold - t) <= _TOLERANCE * t]
    if not pairs:
        listed_own, listed = (", ".join(f"{value:g}" for value in values) for values in (own, scored))
        raise UsageError(
            f"{name} gives probabilities of {listed_own} mm/h and none of the thresholds {listed}.\n"
            f"Use --thresholds {listed_own.replace(' ', '')}."
        )
    return tuple(threshold for threshold, _ in pairs), tuple(n for _, n in pairs)
