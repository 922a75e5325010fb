"""MODELS: the networks by name.

To add one, write a file here with its config (a `Section`) and its `Model` (the contract is in model.py), and add a line below.
ConvLSTM, ConvLSTMCell and CellOptions are here as layers for networks of your own: data/python.md.
"""

from torch import nn

from nowcast.config.schema import NamedSection, Section, check, lookup
from nowcast.models.convlstm import CellOptions, ConvLSTM, ConvLSTMCell
from nowcast.models.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from nowcast.models.guided.network import Guided, GuidedConfig
from nowcast.models.many_to_many import ManyToMany, ManyToManyConfig
from nowcast.models.model import Model
from nowcast.models.multiscale import ConvGRUConfig, Multiscale, MultiscaleConfig, TrajGRUConfig
from nowcast.models.next_frame import NextFrame, NextFrameConfig
from nowcast.models.probabilistic.network import Probabilistic, ProbabilisticConfig
from nowcast.models.vector_lstm import CNNLSTM, FCLSTM, CNNLSTMConfig, FCLSTMConfig

__all__ = ["MODELS", "CellOptions", "ConvLSTM", "ConvLSTMCell", "make_model", "model_config", "num_parameters"]
MODELS: dict[str, tuple[type[Section], type[Model]]] = {
    "encoder_forecaster": (EncoderForecasterConfig, EncoderForecaster),
    "probabilistic": (ProbabilisticConfig, Probabilistic),
    "guided": (GuidedConfig, Guided),
    "multiscale": (MultiscaleConfig, Multiscale),
    "convgru": (ConvGRUConfig, Multiscale),
    "trajgru": (TrajGRUConfig, Multiscale),
    "next_frame": (NextFrameConfig, NextFrame),
    "many_to_many": (ManyToManyConfig, ManyToMany),
    "cnn_lstm": (CNNLSTMConfig, CNNLSTM),
    "fc_lstm": (FCLSTMConfig, FCLSTM),
}
# names in other programs of these networks, and of others that are not here
OTHER_NAMES = {
    **dict.fromkeys(("convlstm", "conv_lstm", "lstm", "predrnn", "unet", "rainnet"), "encoder_forecaster"),
    **dict.fromkeys(("gru", "conv_gru"), "convgru"),
    "traj_gru": "trajgru",
    "keras": "next_frame",
}


def model_config(section: NamedSection) -> Section:
    """Return the checked config of the model that `[model]` names; UsageError (exit 2) for an unknown name or key."""
    kind, _ = lookup(MODELS, section.name, where="model.name", others=OTHER_NAMES)
    return check(kind, section.model_dump(), where="model")


def make_model(config: Section) -> Model:
    """Return the untrained network of a checked config."""
    _, module = MODELS[config.name]
    return module(config)


def num_parameters(model: nn.Module) -> int:
    """Return the number of parameters, including running statistics of batch normalisation (as Keras counts)."""
    return sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
