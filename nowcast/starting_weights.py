"""Weights to begin a training with: those of another run (`training.start_from`), and nothing else of it.

They are taken only where they mean the same: equal quantity, units, transform and model, and every tensor of one shape.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nowcast.checkpoint import Checkpoint
from nowcast.config import Experiment, NamedSection
from nowcast.errors import CheckpointError, UsageError
from nowcast.models import model_config
from nowcast.transform import make_transform


def fitting_weights(
    checkpoint: Checkpoint, name: str, model: nn.Module, experiment: Experiment, *, quantity: str, units: str
) -> dict[str, Tensor]:
    """The weights that the checkpoint `name` forecasts with, for a `model` of this resolved `experiment`.

    Raises CheckpointError (exit 4) where quantity, units, transform or model differ, with what would be right.
    """
    facts = checkpoint.facts
    for what, mine in (("quantity", quantity), ("units", units)):
        if facts.get(what) != mine:
            raise CheckpointError(
                f"training.start_from = {name}: trained on {facts.get(what)} but the records hold {mine} ({what}); "
                f"use records of {facts.get(what)} or another run"
            )
    theirs = _sections(facts, name)
    _refuse("transform", experiment.transform.model_dump(mode="json"), theirs["transform"], name)
    weights = checkpoint.part("average") or checkpoint.part("model")
    _check_shapes(model.state_dict(), weights, experiment.model.model_dump(mode="json"), theirs["model"], name)
    _refuse("model", experiment.model.model_dump(mode="json"), theirs["model"], name)
    return weights


def _sections(facts: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The checkpoint's `[transform]` and `[model]` with every key, also those that are newer than it."""
    try:
        named = {section: NamedSection(**facts["config"][section]) for section in ("transform", "model")}
        found = {"transform": make_transform(named["transform"]), "model": model_config(named["model"])}
    except (UsageError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"training.start_from = {name}: its config cannot be used ({reason})") from None
    return {section: value.model_dump(mode="json") for section, value in found.items()}


def _different(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """The first key whose value is another, or that only one of the two has."""
    return next((key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)), None)


def _refuse(section: str, mine: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> None:
    key = _different(mine, theirs)
    if key is not None:
        raise CheckpointError(
            f"training.start_from = {name}: {section}.{key} is {theirs.get(key)!r} there and {mine.get(key)!r} here; "
            f"take its [{section}] or another run"
        )


def _check_shapes(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], my_keys: Mapping, their_keys: Mapping, name: str
) -> None:
    for key in {**mine, **theirs}:
        here, there = (tuple(tensors[key].shape) if key in tensors else None for tensors in (mine, theirs))
        if here != there:
            changed = _different(my_keys, their_keys)
            values = f"{their_keys.get(changed)!r} there and {my_keys.get(changed)!r} here"
            cause = f"\nmodel.{changed} is {values}" if changed else ""
            raise CheckpointError(
                f"training.start_from = {name}: {key} has shape {_shown(there)} there and {_shown(here)} here{cause}"
            )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else " × ".join(map(str, shape)) or "of one number"
