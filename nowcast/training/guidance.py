"""Prepare the guidance that a model of `takes_guidance` corrects: keep it for each case, and fit its correction."""

import logging

from nowcast.dataset.batches import Batches
from nowcast.dataset.kept_cases import keep_cases
from nowcast.models.guided import calibration
from nowcast.models.guided.guidance import MARGIN, MISSING, RATES, VERSION, guidance
from nowcast.models.guided.network import Guided

log = logging.getLogger(__name__)
FITTED_CASES = 1000  # most training cases that the correction is fitted to


def keep_guidance(batches: Batches, number: int, label: str) -> None:
    """Make `batches` draw from `number` cases with their guidance, which is computed now unless the cache holds it.

    label: of the split, for the progress

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small.
    """
    batches.kept = keep_cases(
        batches, number, guidance, rates=len(RATES), margin=MARGIN, missing=MISSING, version=VERSION, label=label
    )


def fit_correction(model: Guided, batches: Batches) -> None:
    """Fit intercept and slope of the guidance to the kept cases of training, before the first step."""
    counts, kept = 0, batches.kept
    for number, case in enumerate(kept.cases[:FITTED_CASES]):
        future = batches.read(case)[batches.series[case[0]].windows.input_frames :].float().numpy()
        counts = counts + calibration.count_guidance(kept.guidance(number), future)
    model.correct_guidance(counts)
