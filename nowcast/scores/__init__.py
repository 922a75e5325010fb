"""SCORES: every score as a function of sums that add, and KINDS: how the sums of each kind are made from fields.

A score's function takes the sums of its kind and gives an array with the score's axes. To add a score: its function in the
module of its sums, and a line in SCORES. To add a kind of sums: an `Additive`, a function that fills in a lead, and a line in
KINDS.

Scores of probabilities as functions of their sums, and what diagrams of them show.

Like the scores of `metrics` they use the last axes of the sums, and what is undefined (0/0) is NaN. Classes of
probability are those of `probability`, one percent wide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nowcast.quantity import RAIN_RATE
from nowcast.scores import ensemble, exceedance, pixels, spatial, spectra
from nowcast.scores.ensemble import crps_ecdf, crps_fair, mean_rmse, spread, spread_skill
from nowcast.scores.exceedance import brier, brier_reliability, brier_resolution, brier_skill, brier_uncertainty, roc_area
from nowcast.scores.pixels import THRESHOLDS, Sums, csi, mae, sums
from nowcast.scores.spatial import SCALES_KM, SimilaritySums, WindowSums
from nowcast.scores.spectra import WAVELENGTHS_KM, SpectrumSums
from nowcast.scores.sums import Additive, Tally

__all__ = ["KINDS", "SCORES", "THRESHOLDS", "Score", "Setup", "Sums", "csi", "mae", "sums", "tallies"]


@dataclass(frozen=True)
class Setup:
    """What the sums of a record's cases are made for. `spacing_km` is (y, x), NaN where the grid does not tell."""

    thresholds: tuple[float, ...] = THRESHOLDS
    spacing_km: tuple[float, float] = (np.nan, np.nan)
    data_range: float = RAIN_RATE.data_range
    scales_km: tuple[float, ...] = SCALES_KM


Fields = Sequence[np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of sums: its class, the facts it is made with, and `add(totals, lead, forecasts, observed, known, setup)`.

    `add` fills one lead of one case into the sums of several forecasters: their fields (y, x), the observed field and the
    common mask. Kinds without it are not made from one field for each forecaster, see probability.
    """

    sums: type[Additive]
    facts: Callable[[Setup], dict] | None = None
    add: Callable[[Sequence[Additive], int, Fields, np.ndarray, np.ndarray, Setup], None] | None = None


KINDS: dict[str, Kind] = {
    "pairs": Kind(
        Sums,
        lambda setup: {"thresholds": setup.thresholds},
        lambda *case: pixels.add_pairs(*case[:-1]),
    ),
    "windows": Kind(
        WindowSums,
        lambda setup: {"thresholds": setup.thresholds, "scales_km": setup.scales_km},
        lambda *case: spatial.add_windows(*case[:-1], case[-1].spacing_km),
    ),
    "similarity": Kind(
        SimilaritySums,
        lambda setup: {"data_range": setup.data_range},
        lambda *case: spatial.add_similarity(*case[:-1]),
    ),
    "spectra": Kind(
        SpectrumSums,
        lambda setup: {"wavelengths_km": WAVELENGTHS_KM},
        lambda *case: spectra.add_spectra(*case[:-1], case[-1].spacing_km),
    ),
    "probabilities": Kind(exceedance.ExceedanceSums),
    "members": Kind(ensemble.EnsembleSums),
}
FIELD_KINDS = tuple(kind for kind, how in KINDS.items() if how.add)


def tallies(
    forecasts: Mapping[str, np.ndarray],
    observed: np.ndarray,
    known: np.ndarray,
    setup: Setup,
    *,
    kinds: Sequence[str] = FIELD_KINDS,
) -> dict[str, Tally]:
    """The sums of these kinds of one case, for each forecast by name: (lead, y, x) in mm/h, under the mask `known`.

    What is known must be finite. Temporaries are of one lead.
    """
    num_leads, names = len(observed), list(forecasts)
    totals = {kind: [_empty(kind, setup, num_leads) for _ in names] for kind in kinds}
    for lead in range(num_leads):
        fields = [forecasts[name][lead] for name in names]
        for kind, mine in totals.items():
            KINDS[kind].add(mine, lead, fields, observed[lead], known[lead], setup)
    for total in (total for mine in totals.values() for total in mine):
        if "num_whole_cases" in total.axes():
            total.num_whole_cases[...] = total.num_cases.max(axis=0)
    return {name: Tally({kind: mine[n] for kind, mine in totals.items()}) for n, name in enumerate(names)}


def _empty(kind: str, setup: Setup, num_leads: int) -> Additive:
    return KINDS[kind].sums.empty(num_leads, **KINDS[kind].facts(setup))


@dataclass(frozen=True)
class Score:
    """One score: called with sums of its kind, or a Tally, it gives an array with its axes, "lead" first.

    `best` is None where no number is best of itself. Of what is not `compared`, no difference to another forecaster is made.
    """

    function: Callable[[Additive], np.ndarray]
    long_name: str
    range: tuple[float, float]
    best: float | None
    axes: tuple[str, ...] = ("lead",)
    units: str = "1"
    kind: str = "pairs"
    compared: bool = True

    def __call__(self, s: Additive | Tally) -> np.ndarray:
        return self.function(s[self.kind] if isinstance(s, Tally) else s)

    def pooled(self, s: Additive | Tally) -> np.ndarray:
        """The score of the sums over all leads, with its axes but "lead" of length 1."""
        return self(s.pooled())

    def mean_over_leads(self, s: Additive | Tally) -> np.ndarray:
        """The mean of the scores of each lead, without the axis "lead"; NaN if any lead's score is. Not the pooled score."""
        return self(s).mean(axis=-len(self.axes))

    @property
    def needs_threshold(self) -> bool:
        return "threshold" in self.axes


_INF = float("inf")
_COUNTS = ("lead", "threshold")


SCORES = {
    "csi": Score(pixels.csi, "critical success index", (0, 1), 1, _COUNTS),
    "pod": Score(pixels.pod, "probability of detection", (0, 1), 1, _COUNTS),
    "far": Score(pixels.far, "false alarm ratio", (0, 1), 0, _COUNTS),
    "pofd": Score(pixels.pofd, "probability of false detection", (0, 1), 0, _COUNTS),
    "frequency_bias": Score(pixels.frequency_bias, "frequency bias", (0, _INF), 1, _COUNTS),
    "hss": Score(pixels.hss, "Heidke skill score", (-1, 1), 1, _COUNTS),
    "hk": Score(pixels.hk, "Hanssen-Kuipers discriminant", (-1, 1), 1, _COUNTS),
    "ets": Score(pixels.ets, "equitable threat score", (-1 / 3, 1), 1, _COUNTS),
    "f1": Score(pixels.f1, "F1 score", (0, 1), 1, _COUNTS),
    "accuracy": Score(pixels.accuracy, "accuracy", (0, 1), 1, _COUNTS),
    "fss": Score(spatial.fss, "fractions skill score", (0, 1), 1, ("lead", "threshold", "scale"), kind="windows"),
    "fss_useful": Score(pixels.fss_useful, "fractions skill score from which on it is useful", (0.5, 1), None, _COUNTS,
                        compared=False),
    "mae": Score(pixels.mae, "mean absolute error", (0, _INF), 0, units="mm h-1"),
    "mse": Score(pixels.mse, "mean squared error", (0, _INF), 0, units="mm2 h-2"),
    "rmse": Score(pixels.rmse, "root mean squared error", (0, _INF), 0, units="mm h-1"),
    "bias": Score(pixels.bias, "mean error", (-_INF, _INF), 0, units="mm h-1"),
    "b_mae": Score(pixels.b_mae, "balanced mean absolute error", (0, _INF), 0, units="mm h-1"),
    "b_mse": Score(pixels.b_mse, "balanced mean squared error", (0, _INF), 0, units="mm2 h-2"),
    "correlation": Score(pixels.correlation, "Pearson correlation", (-1, 1), 1),
    "uncentred_correlation": Score(pixels.uncentred_correlation, "uncentred correlation", (-1, 1), 1),
    "ssim": Score(spatial.ssim, "structural similarity", (-1, 1), 1, kind="similarity"),
    "spectrum_ratio": Score(spectra.spectrum_ratio, "forecast power / observed power", (0, _INF), 1, ("lead", "wavelength"),
                            kind="spectra"),
    "effective_resolution": Score(spectra.effective_resolution, "effective resolution", (0, _INF), None, units="km",
                                  kind="spectra"),
}  # fmt: skip


_BY_THRESHOLD = {"axes": ("lead", "threshold"), "kind": "probabilities"}
_OF_MEMBERS = {"kind": "members"}
_RATE = {"kind": "members", "units": "mm h-1"}
PROBABILITY_SCORES = {
    "brier": Score(brier, "Brier score", (0, 1), 0, **_BY_THRESHOLD),
    "brier_reliability": Score(brier_reliability, "reliability term of the Brier score", (0, 1), 0, **_BY_THRESHOLD),
    "brier_resolution": Score(brier_resolution, "resolution term of the Brier score", (0, 0.25), 0.25, **_BY_THRESHOLD),
    "brier_uncertainty": Score(brier_uncertainty, "uncertainty term of the Brier score", (0, 0.25), None, **_BY_THRESHOLD,
                               compared=False),
    "brier_skill": Score(brier_skill, "Brier skill score", (-_INF, 1), 1, **_BY_THRESHOLD),
    "roc_area": Score(roc_area, "area under the ROC curve", (0, 1), 1, **_BY_THRESHOLD),
    "crps_ecdf": Score(crps_ecdf, "continuous ranked probability score", (0, _INF), 0, **_RATE),
    "crps_fair": Score(crps_fair, "fair continuous ranked probability score", (-_INF, _INF), 0, **_RATE),
    "spread": Score(spread, "ensemble spread", (0, _INF), None, **_RATE, compared=False),
    "mean_rmse": Score(mean_rmse, "RMSE of the ensemble mean", (0, _INF), 0, **_RATE),
    "spread_skill": Score(spread_skill, "spread / RMSE of the mean", (0, _INF), 1, **_OF_MEMBERS),
}  # fmt: skip
