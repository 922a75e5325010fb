"""Verification scores. SCORES holds every score, as a function of sums that add over cases, blocks and processes.

To add a score: write its function in the module of its sums (pixels, spatial, spectra, exceedance, ensemble, distribution),
with its formula, range, best value, other names, when it is NaN, and its source; then add a line to SCORES. The kind of its
sums tells what a score judges: those in FIELD_KINDS a single field, "probabilities" exceedance probabilities, "members"
ensembles, "distribution" whole distributions, "members_30_min" and "probabilities_30_min" the rain of 30 minutes of ensembles,
"member_spectra" the power of members.

Those of ARRAY_KINDS are also functions of arrays by their names, such as
`nowcast.scores.csi(forecast, observed, threshold=1.0)`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nowcast.scores import boxes, distribution, ensemble, exceedance, pixels, spatial, spectra
from nowcast.scores.functions import plain
from nowcast.scores.kinds import FIELD_KINDS, KINDS, Setup, tallies
from nowcast.scores.pixels import THRESHOLDS
from nowcast.scores.sums import Score

__all__ = ["FIELD_KINDS", "KINDS", "SCORES", "THRESHOLDS", "Score", "Setup", "tallies"]

_INF = float("inf")
_TABLE = ("lead", "threshold")  # axes of the scores of contingency tables
_EVENT = {"axes": ("lead", "threshold"), "kind": "probabilities"}
_MEMBERS = {"kind": "members", "units": "mm h-1"}
ARRAY_KINDS = (*FIELD_KINDS, "probabilities", "members", "distribution")  # of the scores that are functions of arrays

# scores.csv and scores.nc hold the scores in this order
SCORES: dict[str, Score] = {
    "csi": Score(pixels.csi, "critical success index", (0, 1), 1, _TABLE),
    "pod": Score(pixels.pod, "probability of detection", (0, 1), 1, _TABLE),
    "far": Score(pixels.far, "false alarm ratio", (0, 1), 0, _TABLE),
    "pofd": Score(pixels.pofd, "probability of false detection", (0, 1), 0, _TABLE),
    "frequency_bias": Score(pixels.frequency_bias, "frequency bias", (0, _INF), 1, _TABLE),
    "hss": Score(pixels.hss, "Heidke skill score", (-1, 1), 1, _TABLE),
    "hk": Score(pixels.hk, "Hanssen-Kuipers discriminant", (-1, 1), 1, _TABLE),
    "ets": Score(pixels.ets, "equitable threat score", (-1 / 3, 1), 1, _TABLE),
    "f1": Score(pixels.f1, "F1 score", (0, 1), 1, _TABLE),
    "accuracy": Score(pixels.accuracy, "accuracy", (0, 1), 1, _TABLE),
    "fss": Score(spatial.fss, "fractions skill score", (0, 1), 1, ("lead", "threshold", "scale"), kind="windows"),
    "fss_useful": Score(pixels.fss_useful, "fractions skill score from which on it is useful", (0.5, 1), None, _TABLE,
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
    "brier": Score(exceedance.brier, "Brier score", (0, 1), 0, **_EVENT),
    "brier_reliability": Score(exceedance.brier_reliability, "reliability term of the Brier score", (0, 1), 0, **_EVENT),
    "brier_resolution": Score(exceedance.brier_resolution, "resolution term of the Brier score", (0, 0.25), 0.25, **_EVENT),
    "brier_uncertainty": Score(exceedance.brier_uncertainty, "uncertainty term of the Brier score", (0, 0.25), None, **_EVENT,
                               compared=False),
    "brier_skill": Score(exceedance.brier_skill, "Brier skill score", (-_INF, 1), 1, **_EVENT),
    "roc_area": Score(exceedance.roc_area, "area under the ROC curve", (0, 1), 1, **_EVENT),
    "crps": Score(distribution.crps, "continuous ranked probability score of the distribution", (0, _INF), 0,
                  kind="distribution", units="mm h-1"),
    "crps_ecdf": Score(ensemble.crps_ecdf, "continuous ranked probability score", (0, _INF), 0, **_MEMBERS),
    "crps_fair": Score(ensemble.crps_fair, "fair continuous ranked probability score", (-_INF, _INF), 0, **_MEMBERS),
    "spread": Score(ensemble.spread, "ensemble spread", (0, _INF), None, **_MEMBERS, compared=False),
    "mean_rmse": Score(ensemble.mean_rmse, "RMSE of the ensemble mean", (0, _INF), 0, **_MEMBERS),
    "spread_skill": Score(ensemble.spread_skill, "spread / RMSE of the mean", (0, _INF), 1, kind="members"),
}  # fmt: skip


def _of_sums(minutes: int) -> dict[str, Score]:
    """Return the scores of the rain of so many minutes, mm, of ensembles, at cells and in boxes."""
    members = {"kind": f"members_{minutes}_min", "axes": ("lead", "box")}
    amounts = {"kind": f"probabilities_{minutes}_min", "axes": ("lead", "box", "amount")}
    names = ("crps_fair", "spread", "mean_rmse", "spread_skill")
    scores = {name: replace(SCORES[name], units={"mm h-1": "mm"}.get(SCORES[name].units, "1"), **members) for name in names}
    scores |= {name: replace(SCORES[name], **amounts) for name in ("brier", "brier_reliability", "brier_skill", "roc_area")}
    return {
        f"sum_{minutes}_min_{name}": replace(score, long_name=f"{score.long_name}, rain of {minutes} minutes")
        for name, score in scores.items()
    }


SCORES["member_spectrum_ratio"] = replace(
    SCORES["spectrum_ratio"], long_name="power of members / observed power", kind="member_spectra"
)
for _minutes in boxes.SUM_MINUTES:
    SCORES |= _of_sums(_minutes)


def __getattr__(name: str) -> Callable[..., float | np.ndarray]:
    if name not in SCORES or SCORES[name].kind not in ARRAY_KINDS:
        raise AttributeError(f"module 'nowcast.scores' has no attribute {name!r}")
    return plain(name, SCORES[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name, score in SCORES.items() if score.kind in ARRAY_KINDS)})
