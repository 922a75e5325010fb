"""KINDS: the kinds of sums that scores are computed from, and how each is filled in from fields.

To add a kind of sums: write a class derived from `Additive` and a function that fills in one lead time; then add a line to
KINDS. Evaluations then add it over processes, write it to scores.nc and pool it from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.quantity import RAIN_RATE
from nowcast.scores import boxes, distribution, ensemble, exceedance, pixels, spatial, spectra
from nowcast.scores.sums import Additive, Tally

Fields = Sequence[np.ndarray]


@dataclass(frozen=True)
class Setup:
    """Settings of the sums of a record: thresholds, scales and grid spacing."""

    thresholds: tuple[float, ...] = pixels.THRESHOLDS  # mm/h
    spacing_km: tuple[float, float] = (np.nan, np.nan)  # (y, x) distance between cells, NaN if unknown
    data_range: float = RAIN_RATE.data_range  # of the structural similarity, mm/h
    scales_km: tuple[float, ...] = spatial.SCALES_KM


@dataclass(frozen=True)
class Kind:
    """A kind of sums: its class, the parameters it is made with, and the function that fills it in.

    `add(totals, lead, forecasts, observed, known, setup)` fills in one lead time of one case, for several forecasters: their
    fields (y, x), the observed field (y, x) and the common mask. Kinds without `parameters` and `add` are made from ensembles
    or probabilities, not from one field per forecaster: see `add_members`, `add_probabilities`, `add_distribution`,
    `add_member_spectra` and `BoxSums`.
    """

    sums: type[Additive]
    parameters: Callable[[Setup], dict] | None = None
    add: Callable[[Sequence[Additive], int, Fields, np.ndarray, np.ndarray, Setup], None] | None = None


KINDS: dict[str, Kind] = {
    "pairs": Kind(
        pixels.Sums,
        lambda setup: {"thresholds": setup.thresholds},
        lambda *arguments: pixels.add_pairs(*arguments[:-1]),
    ),
    "windows": Kind(
        spatial.WindowSums,
        lambda setup: {"thresholds": setup.thresholds, "scales_km": setup.scales_km},
        lambda *arguments: spatial.add_windows(*arguments[:-1], arguments[-1].spacing_km),
    ),
    "similarity": Kind(
        spatial.SimilaritySums,
        lambda setup: {"data_range": setup.data_range},
        lambda *arguments: spatial.add_similarity(*arguments[:-1]),
    ),
    "spectra": Kind(
        spectra.SpectrumSums,
        lambda setup: {"wavelengths_km": spectra.WAVELENGTHS_KM},
        lambda *arguments: spectra.add_spectra(*arguments[:-1], arguments[-1].spacing_km),
    ),
    "probabilities": Kind(exceedance.ExceedanceSums),
    "members": Kind(ensemble.EnsembleSums),
    "distribution": Kind(distribution.RateSums),
    "member_spectra": Kind(spectra.SpectrumSums),
    **{f"members_{minutes}_min": Kind(boxes.BoxMembers) for minutes in boxes.SUM_MINUTES},
    **{f"probabilities_{minutes}_min": Kind(boxes.BoxProbabilities) for minutes in boxes.SUM_MINUTES},
}
FIELD_KINDS = tuple(name for name, kind in KINDS.items() if kind.add)


def tallies(
    forecasts: Mapping[str, np.ndarray],
    observed: np.ndarray,
    known: np.ndarray,
    setup: Setup,
    *,
    kinds: Sequence[str] = FIELD_KINDS,
) -> dict[str, Tally]:
    """Compute the sums of one case for each forecast.

    forecasts: (lead, y, x) mm/h, by name
    observed: (lead, y, x) mm/h
    known: (lead, y, x) bool, where pairs count; all fields must be finite there
    returns: a Tally of these `kinds` of sums for each name

    Works lead by lead, so temporary arrays hold one frame only.
    """
    num_leads, names = len(observed), list(forecasts)
    totals = {kind: [_empty(kind, setup, num_leads) for _ in names] for kind in kinds}
    for lead in range(num_leads):
        fields = [forecasts[name][lead] for name in names]
        for kind, totals_of_kind in totals.items():
            KINDS[kind].add(totals_of_kind, lead, fields, observed[lead], known[lead], setup)
    for total in (total for totals_of_kind in totals.values() for total in totals_of_kind):
        if "num_whole_cases" in total.axes():
            total.num_whole_cases[...] = total.num_cases.max(axis=0)
    return {name: Tally({kind: totals_of_kind[n] for kind, totals_of_kind in totals.items()}) for n, name in enumerate(names)}


def _empty(kind: str, setup: Setup, num_leads: int) -> Additive:
    return KINDS[kind].sums.empty(num_leads, **KINDS[kind].parameters(setup))
