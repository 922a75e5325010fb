"""Prepare the guidance for a model that takes it: compute it for each case, and fit its correction."""

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

PLACED_CASES = 4000  # largest number of training cases to which the correction of each grid cell is fitted
FITTED_CASES = 1000  # largest number of training cases to which the correction is fitted


def keep_guidance(batches: Batches, number: int, label: str, *, side: int = 0) -> Batches:
    """Make `batches` draw from `number` kept cases with guidance, which is computed now unless it is in the cache.

    label: name of the split, for the progress
    side: of the kept cases, cells, if larger than the crops drawn from them
    returns: batches of the kept cases at their full size

    Raises OutputError (exit 5) if the cache cannot be written or its disk is too small.
    """
    kept = batches.with_crop(side) if 0 < batches.crop < side else batches
    batches.kept = kept.kept = keep_cases(
        kept, number, guidance, rates=len(RATES), margin=MARGIN, missing=MISSING, version=VERSION, label=label
    )
    return kept


def fit_correction(model: Guided, batches: Batches) -> None:
    """Fit the correction of the guidance, and that of each grid cell, to training cases, before the first step."""
    model.correct_guidance(_count(batches))
    if model.grid:
        model.set_place(_fit_place(model, batches))
        use_place(model, batches)
        model.correct_guidance(_count(batches))


def use_place(model: Guided, *all_batches: Batches) -> None:
    """Make batches add the model's correction of each grid cell to their guidance."""
    for batches in all_batches:
        batches.kept = replace(batches.kept, placed=model.place.apply if model.grid else None)


def _count(batches: Batches) -> np.ndarray:
    """Count the cells of FITTED_CASES by their guidance: (lead, rate, bin, 2)."""
    cases = track(range(min(len(batches.kept.cases), FITTED_CASES)), "fitting the guidance", unit="case")
    return sum(calibration.count_guidance(batches.kept.guidance(n), _future(batches, n)) for n in cases)


def _fit_place(model: Guided, batches: Batches) -> Place:
    """Fit the correction of each grid cell; the two halves of the data are days with even and odd numbers."""
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
