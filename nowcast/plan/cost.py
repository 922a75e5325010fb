"""Compute time and memory of a training step from the config, independent of the load of the machine.

The operations of a step are counted for the network's weights and for the fields at full resolution, such as the log-odds of
every rate, and divided by the speed of this machine (speed.py). The constants are of steps measured on 2026-11-28 on one core,
with 8 to 64 channels, 4 and 12 lead frames and 64 to 160 cells a side: the arithmetic is within 30 % of these. Those of
validations are of 256 × 256 cells, on the same day.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nowcast.config.schema import Data, Experiment
from nowcast.models import make_model, model_config
from nowcast.models.guided.guidance import MARGIN, RATES

WEIGHT_OPERATIONS = 3  # of a weight, per place of the network and frame: 6 with its gradient, in one of encoder and forecaster
FIELD_OPERATIONS = {"guided": 50e3, "probabilistic": 80e3, "encoder_forecaster": 5e3}  # per cell and lead frame
FIELD_BYTES = {"guided": 500, "probabilistic": 1200, "encoder_forecaster": 300}  # per case, cell and lead frame
STATE_BYTES = 40  # per case, place of the network, frame and channel
PROCESS_BYTES = 6e8  # memory of the process without a step
READING = {"guided": 1.1, "probabilistic": 1.4, "encoder_forecaster": 1.1}  # time with reading, and with finding the motion
VALIDATION_SHARE = 0.7  # operations of a validation relative to a step: without gradients, with calibration and scores
VALIDATION_BYTES = 150  # per case of a batch, cell and lead frame of a whole grid
COMPARED = 0.5  # operations of the extrapolation that a validation scores, relative to those of the guidance
GUIDANCE_OPERATIONS = (3e9, 80e3, 17e3)  # per case, per cell, per cell and lead frame


@dataclass(frozen=True)
class Cost:
    """Time, s, and memory, bytes, of one step; time, s, of the guidance of one case, 0 for models without guidance.

    validation_seconds: time per case of each validation, if on whole grids; 0 if on crops
    first_validation_seconds: additional time per case of the first validation, for guidance and baselines
    """

    step_seconds: float
    memory_bytes: float
    guidance_seconds: float = 0.0
    validation_seconds: float = 0.0
    first_validation_seconds: float = 0.0


def operations(experiment: Experiment, shape: Sequence[int], *, batch_size: int) -> float:
    """Return the number of operations of a step with `batch_size` cases of `shape` (y, x) cells."""
    data, model = experiment.data, model_config(experiment.model)
    cells, frames = math.prod(shape), data.input_frames + data.lead_frames
    num_weights = sum(weights.numel() for weights in make_model(model).parameters())
    weights = WEIGHT_OPERATIONS * num_weights * frames * cells / model.patch**2
    return batch_size * (weights + FIELD_OPERATIONS[model.name] * data.lead_frames * cells)


def memory(experiment: Experiment, shape: Sequence[int], *, batch_size: int) -> float:
    """Return the memory, bytes, of a process in a step with `batch_size` cases of `shape` (y, x) cells."""
    data, model = experiment.data, model_config(experiment.model)
    cells, frames = math.prod(shape), data.input_frames + data.lead_frames
    states = STATE_BYTES * sum(model.hidden_channels) * frames * cells / model.patch**2
    return PROCESS_BYTES + batch_size * (states + FIELD_BYTES[model.name] * data.lead_frames * cells)


def validation_memory(data: Data, grid: Sequence[int], *, batch_size: int) -> float:
    """Return the memory, bytes, of a process in a validation with batches of whole grids of (y, x) cells."""
    return PROCESS_BYTES + batch_size * VALIDATION_BYTES * data.lead_frames * math.prod(grid)


def kept_shape(data: Data, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the (y, x) cells of a kept case on a grid of `shape` (y, x) cells."""
    return tuple(min(max(data.crop, data.kept_crop), side) if data.crop else side for side in shape)


def validation_operations(experiment: Experiment, grid: Sequence[int]) -> float:
    """Return the number of operations of forecasting and scoring one case on a whole grid of (y, x) cells."""
    return VALIDATION_SHARE * operations(experiment, grid, batch_size=1)


def guidance_operations(data: Data, shape: Sequence[int]) -> float:
    """Return the number of operations of the guidance of one kept case on a grid of `shape` (y, x) cells."""
    margin = 2 * MARGIN if data.crop else 0
    cells = math.prod(min(kept + margin, side) for kept, side in zip(kept_shape(data, shape), shape, strict=True))
    case, cell, lead = GUIDANCE_OPERATIONS
    return case + cells * (cell + lead * data.lead_frames)


def guidance_bytes(data: Data, shape: Sequence[int]) -> int:
    """Return the size, bytes, of the guidance of one kept case on a grid of `shape` (y, x) cells."""
    return data.lead_frames * len(RATES) * math.prod(kept_shape(data, shape))
