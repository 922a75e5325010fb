"""The cascade: the guidance that a network learns to correct, with log-odds corrected, and cuts set, on validation days.

It is the strongest forecast without learning, and so what a trained network is compared with (archives.py). It is the network
of nowcast/models/guided before its first step: its log-odds are corrected by an intercept and a slope for each lead and
threshold (logistic regression), and rain is forecast where they reach a cut that gives as many rainy cells as were observed:
frequency bias 1 on the validation days.
"""

from collections.abc import Sequence

import numpy as np
import torch

from nowcast.forecasters.fields import forecast_fields
from nowcast.forecasters.forecaster import Forecaster
from nowcast.models.guided import calibration
from nowcast.models.guided.guidance import RATES, TRANSFORM, guidance
from nowcast.models.guided.network import Guided, GuidedConfig

THRESHOLDS = RATES  # mm/h
PAST, LEADS = 4, 12  # frames


def count(past: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Count the cells of a case by their guidance: (lead, threshold, bin, 2).

    past, future: (time, y, x) mm/h, NaN missing
    """
    return calibration.count_guidance(guidance(past, len(future)), future)


def calibrated(counts: np.ndarray) -> Guided:
    """Return an untrained network, corrected and cut by counts (lead, threshold, bin, 2)."""
    model = Guided(GuidedConfig(hidden_channels=(1, 1))).eval()  # untrained, it contributes nothing; the smallest network
    model.correct_guidance(counts)
    return model


class Cascade(Forecaster):
    """Calibrated odds, and the field that they give. With `reference_times` only those cases are evaluated."""

    name = "cascade"
    description = "the guidance before anything is learnt, with its odds corrected and cut on validation days"
    input_frames, lead_frames = PAST, LEADS
    thresholds, is_probabilistic = THRESHOLDS, True

    def __init__(self, model: Guided, reference_times: np.ndarray | None = None):
        self.model, self.reference_times = model, reference_times

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        return self.forecast_and_exceedance(past, num_leads, ())[0]

    @torch.inference_mode()
    def forecast_and_exceedance(
        self, past: np.ndarray, num_leads: int, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        past = np.ascontiguousarray(self.check_past(past)[:, -PAST:], np.float32)
        guided = torch.from_numpy(np.stack([guidance(case, num_leads) for case in past]))
        rain = torch.from_numpy(past)
        fields = forecast_fields(self.model, TRANSFORM, rain, num_leads, thresholds=thresholds, guidance=guided).numpy()
        return fields[:, :, 0], fields[:, :, 1:]
