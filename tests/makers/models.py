"""A small untrained network of every entry of MODELS."""

import torch

from nowcast.config import NamedSection
from nowcast.models import make_model, model_config
from nowcast.models.transform import make_transform

LOG = make_transform(NamedSection(name="log"))
TWO_SCALES = {
    "hidden_channels": [4, 6], "kernel_sizes": [3, 3], "down_channels": [4, 6], "down_kernels": [3, 3],
    "strides": [2, 2], "up_kernels": [4, 4],
}  # fmt: skip
SMALL = {
    "encoder_forecaster": {"hidden_channels": [5, 4], "kernel_sizes": [3, 3], "patch": 2, "peepholes": True},
    "probabilistic": {"hidden_channels": [5, 4], "kernel_sizes": [3, 3], "patch": 2},
    "multiscale": {**TWO_SCALES, "peepholes": True},
    "convgru": TWO_SCALES,
    "trajgru": {**TWO_SCALES, "links": [3, 2]},
    "next_frame": {"hidden_channels": [4, 4], "kernel_sizes": [3, 3], "patch": 2, "output": "linear", "activation": "tanh"},
    "many_to_many": {"hidden_channels": [4, 4], "kernel_sizes": [3, 3], "patch": 2},
    "cnn_lstm": {"grid": [12, 12], "channels": [4, 5], "hidden": 6},
    "fc_lstm": {"grid": [12, 12], "hidden": [6, 5], "output": "linear", "validity_channel": True},
}  # fmt: skip
FIXED_GRID = {"cnn_lstm", "fc_lstm"}
OF_DISTRIBUTIONS = {"probabilistic"}
# its forced training is another path; a case in a batch is normalised with the others while it trains
EVALUATED = {"next_frame", "many_to_many"}


def build(name, **keys):
    torch.manual_seed(0)
    model = make_model(model_config(NamedSection(name=name, **SMALL[name] | keys)))
    return model.eval() if name in EVALUATED else model
