"""A small network that corrects guidance: the sections of its config, and an experiment."""

from makers import tiny_experiment
from nowcast import config
from nowcast.models.guided.guidance import TRANSFORM

SECTIONS = {
    "transform": TRANSFORM.model_dump(),
    "model": {"name": "guided", "hidden_channels": [4], "kernel_sizes": [3], "patch": 2},
    "loss": {"name": "relative_exceedance"},
}


def guided_experiment(records, *, data=None, model=None, **training):
    """`tiny_experiment` with the guided network and 7 kept cases; `data` and `model` are further keys of their sections."""
    tree = config.as_dict(tiny_experiment(records, **training)) | SECTIONS
    tree["data"] |= {"kept_cases": 7, **(data or {})}
    tree["model"] = tree["model"] | (model or {})
    return config.from_dict(tree, source="test")
