"""Prepare the guidance that a model of `takes_guidance` corrects: keep it for each case, and fit its correction."""

from dataclasses import replace

import numpy as np
import torch

from nowcast.dataset.batches import Batches
from nowcast.dataset.kept_cases import keep_cases
from nowcast.models.guided import calibration
from nowcast.models.guided.guidance import MARGIN, MISSING, RATES, VERSION, guidance
from nowcast.models.guided.network import Guided
from nowcast.models.guided.place import Place, PlaceSums
from nowcast.runtime.progress import track

PLACED_CASES = 4000  # most training cases that the correction of each place is fitted to
FITTED_CASES = 1000  # most training cases that the correction is fitted to


def keep_guidance(batches: Batches, number: int, label: str, *, side: int = 0) -> Batches:
    """Make `batches` draw from `number` cases with their guidance, which is computed now unless the cache holds it.

    label: of the split, for the progress
    side: of the kept cases, in cells, if that is more than the crops that are drawn from them
    returns: the kept cases as batches of their own side

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small.
    """
    kept = batches.with_crop(side) if 0 < batches.crop < side else batches
    batches.kept = kept.kept = keep_cases(
        kept, number, guidance, rates=len(RATES), margin=MARGIN, missing=MISSING, version=VERSION, label=label
    )
    return kept


def fit_correction(model: Guided, batches: Batches) -> None:
    """Fit the correction of the guidance and that of each place to cases of training, before the first step."""
    model.correct_guidance(_count(batches))
    if model.grid:
        model.set_place(_fit_place(model, batches))
        use_place(model, batches)
        model.correct_guidance(_count(batches))


def use_place(model: Guided, *all_batches: Batches) -> None:
    """Make batches add the model's correction of each place to the guidance that they keep."""
    for batches in all_batches:
        batches.kept = replace(batches.kept, placed=model.place.apply if model.grid else None)


def _count(batches: Batches) -> np.ndarray:
    """Count the cells of FITTED_CASES by their guidance: (lead, rate, bin, 2)."""
    cases = track(range(min(len(batches.kept.cases), FITTED_CASES)), "fitting the guidance", unit="case")
    return sum(calibration.count_guidance(batches.kept.guidance(n), _future(batches, n)) for n in cases)


def _fit_place(model: Guided, batches: Batches) -> Place:
    """Fit the correction of each place; its two halves are the days with even and with odd numbers."""
    leads = batches.series[0].windows.lead_frames
    odds = torch.stack([model.intercept[:leads], model.slope[:leads]], dim=-1).cpu().double().numpy()
    sums, kept = PlaceSums(model.grid, odds), batches.kept
    for number in track(range(min(len(kept.cases), PLACED_CASES)), "fitting places", unit="case"):
        series, window, top, left = kept.cases[number]
        day = batches.day_of(series, window)
        sums.add(kept.guidance(number), _future(batches, number), half=day % 2, top=top, left=left)
    return sums.fitted()


def _future(batches: Batches, number: int) -> np.ndarray:
    """Return the future frames of a kept case, (lead, y, x) mm/h."""
    case = batches.kept.cases[number]
    return batches.read(case)[batches.series[case[0]].windows.input_frames :].float().numpy()
