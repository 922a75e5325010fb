"""MODELS: the networks by name. A new one is a file here with its config and module, and one line below.

Every model is called as `model(past, num_leads)`: past (case, time, 2, y, x), the values and their validity ->
forecast values (case, lead, y, x) in float32. Its grid is any that has at least `cell_multiple` cells each way, or where
it has an attribute `grid` that (y, x) alone. With `learns_from_future` it takes `future` and `done` while it trains.
One that forecasts a distribution gives its parameters, (case, lead, parameter, y, x); `point` and `exceedance` read them.
"""

from torch import Tensor, nn

from nowcast.config.schema import NamedSection, Section, check, lookup
from nowcast.models.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from nowcast.models.many_to_many import ManyToMany, ManyToManyConfig
from nowcast.models.multiscale import ConvGRUConfig, Multiscale, MultiscaleConfig, TrajGRUConfig
from nowcast.models.next_frame import NextFrame, NextFrameConfig
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig, stride_for
from nowcast.models.vector_lstm import CNNLSTM, FCLSTM, CNNLSTMConfig, FCLSTMConfig

MODELS: dict[str, tuple[type[Section], type[nn.Module]]] = {
    "encoder_forecaster": (EncoderForecasterConfig, EncoderForecaster),
    "probabilistic": (ProbabilisticConfig, Probabilistic),
    "multiscale": (MultiscaleConfig, Multiscale),
    "convgru": (ConvGRUConfig, Multiscale),
    "trajgru": (TrajGRUConfig, Multiscale),
    "next_frame": (NextFrameConfig, NextFrame),
    "many_to_many": (ManyToManyConfig, ManyToMany),
    "cnn_lstm": (CNNLSTMConfig, CNNLSTM),
    "fc_lstm": (FCLSTMConfig, FCLSTM),
}


def model_config(section: NamedSection) -> Section:
    """The checked config of the model that `[model]` names; UsageError for an unknown name or key."""
    kind, _ = lookup(MODELS, section.name, where="model.name")
    return check(kind, section.model_dump(), where="model")


def make_model(config: Section) -> nn.Module:
    """The untrained network of a checked config."""
    _, module = MODELS[config.name]
    return module(config)


def point_values(model: nn.Module, outputs: Tensor, past: Tensor, *, cuts: Tensor | None = None, first_lead: int = 1) -> Tensor:
    """What the outputs for the network input `past` forecast: network values (case, lead, y, x).

    The outputs themselves, or of a model of distributions, whose first lead may be a later one, the values whose areas are
    those of the newest frame; `cuts` are its `match` where that is known.
    """
    if not hasattr(model, "point"):
        return outputs
    if cuts is None:
        cuts = model.match(*model.sample(outputs, past, stride_for(past.shape[-2:])), first_lead)
    return model.point(outputs, cuts)


def num_parameters(model: nn.Module) -> int:
    """How many numbers the model holds, batch normalisation's running statistics included (as Keras counts)."""
    return sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
