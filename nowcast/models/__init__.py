"""MODELS: the networks by name. A new one is a file here with its config and module, and one line below.

Every model is called as `model(past, num_leads)`: past (case, time, 2, y, x), the values and their validity ->
forecast values (case, lead, y, x) in float32; its grid is any that has at least `cell_multiple` cells each way.
"""

from torch import nn

from nowcast.config import NamedSection, Section, check, lookup
from nowcast.models.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig, Multiscale, MultiscaleConfig

MODELS: dict[str, tuple[type[Section], type[nn.Module]]] = {
    "encoder_forecaster": (EncoderForecasterConfig, EncoderForecaster),
    "multiscale": (MultiscaleConfig, Multiscale),
}


def model_config(section: NamedSection) -> Section:
    """The checked config of the model that `[model]` names; UsageError for an unknown name or key."""
    kind, _ = lookup(MODELS, section.name, where="model.name")
    return check(kind, section.model_dump(), where="model")


def make_model(config: Section) -> nn.Module:
    """The untrained network of a checked config."""
    _, module = MODELS[config.name]
    return module(config)


def num_parameters(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
