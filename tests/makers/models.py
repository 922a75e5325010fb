"""A small untrained network of every entry of MODELS."""

import torch

from nowcast import config
from nowcast.config import NamedSection
from nowcast.forecasters.network import Network
from nowcast.models import make_model, model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.guided.guidance import TRANSFORM
from nowcast.models.transform import make_transform
from nowcast.training.experiment import resolve

LOG = make_transform(NamedSection(name="log"))
TWO_SCALES = {
    "hidden_channels": [4, 6], "kernel_sizes": [3, 3], "down_channels": [4, 6], "down_kernels": [3, 3],
    "strides": [2, 2], "up_kernels": [4, 4],
}  # fmt: skip
SMALL = {
    "encoder_forecaster": {"hidden_channels": [5, 4], "kernel_sizes": [3, 3], "patch": 2, "peepholes": True},
    "probabilistic": {"hidden_channels": [5, 4], "kernel_sizes": [3, 3], "patch": 2},
    "guided": {"hidden_channels": [5, 4], "kernel_sizes": [3, 3], "patch": 2},
    "multiscale": {**TWO_SCALES, "peepholes": True},
    "convgru": TWO_SCALES,
    "trajgru": {**TWO_SCALES, "links": [3, 2]},
    "next_frame": {"hidden_channels": [4, 4], "kernel_sizes": [3, 3], "patch": 2, "output": "linear", "activation": "tanh"},
    "many_to_many": {"hidden_channels": [4, 4], "kernel_sizes": [3, 3], "patch": 2},
    "cnn_lstm": {"grid": [12, 12], "channels": [4, 5], "hidden": 6},
    "fc_lstm": {"grid": [12, 12], "hidden": [6, 5], "output": "linear", "validity_channel": True},
}  # fmt: skip
FIXED_GRID = {"cnn_lstm", "fc_lstm"}
OF_DISTRIBUTIONS = {"probabilistic": 6, "guided": 8}  # and their number of parameters
LOSS_OF = {"probabilistic": "exceedance", "guided": "relative_exceedance"}
# its forced training is another path; a case in a batch is normalised with the others while it trains
EVALUATED = {"next_frame", "many_to_many"}


def build(name, **keys):
    torch.manual_seed(0)
    model = make_model(model_config(NamedSection(name=name, **SMALL[name] | keys)))
    if name == "guided":  # its correction begins at 0
        torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.eval() if name in EVALUATED else model


def run(model, past, num_leads, seed=0):
    """Run a model, with random guidance if it needs any, which is the same for the first cases and leads of a larger run."""
    generator = torch.Generator().manual_seed(seed)
    blank = model.blank_inputs(len(past), num_leads, past.shape[-2:])
    whole = {name: torch.randint(-60, 20, (8, 8, *value.shape[2:]), generator=generator, dtype=torch.int8)
             for name, value in blank.items()}  # fmt: skip
    return model(past, num_leads, **{name: value[: len(past), :num_leads] for name, value in whole.items()})


def untrained_network(name, *, coordinates="grid", device="cpu", **keys):
    """Return a forecaster with random weights: 2 past frames, 3 lead times, 5-minute steps; `keys` of its model section."""
    from makers import tiny_experiment

    tree = config.as_dict(resolve(tiny_experiment(["x.nc"])))
    tree["model"] = {"name": name, **SMALL[name], **keys}
    tree["data"]["coordinates"] = coordinates
    if name in OF_DISTRIBUTIONS:
        tree["loss"] = {"name": LOSS_OF[name]}
    if name == "guided":
        tree["transform"] = TRANSFORM.model_dump()
    experiment = resolve(config.from_dict(tree, source="test"))
    torch.manual_seed(1)
    weights = make_model(model_config(experiment.model)).state_dict()
    metadata = {"config": config.as_dict(experiment), "input_frames": 2, "lead_frames": 3, "time_steps": [300],
             "quantity": "rain_rate"}  # fmt: skip
    checkpoint = Checkpoint(metadata, {f"model.{key}": value for key, value in weights.items()}, "")
    return Network(checkpoint, name, device=torch.device(device))
