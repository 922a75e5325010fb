"""Whether a run may go on from its checkpoint: what it learns, and from what, must be what it was.

Of `[training]` everything may change but `optimizer` and `ema`, whose state is in the checkpoint; of the rest nothing.
Records may lie elsewhere than before if they hold the same windows.

Weights to begin a training with: those of another run (`training.start_from`), and nothing else of it.

They are taken only where they mean the same: equal quantity, units, transform and model, and every tensor of one shape.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from nowcast import config
from nowcast.config.schema import Experiment, NamedSection
from nowcast.dataset.archive import Archive
from nowcast.errors import CheckpointError, NowcastError, UsageError
from nowcast.models import model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.transform import make_transform
from nowcast.quantity import Quantity
from nowcast.training.experiment import resolve

FIXED = {"training.optimizer", "training.ema"}
FREE = {"data.records"}  # the windows themselves are compared
SHOWN = 4


def check_resumable(checkpoint: Checkpoint, experiment: Experiment, plan: Archive) -> None:
    """CheckpointError (exit 4), with every key and both values, where the resolved experiment is another than the run's."""
    try:
        before = dict(_flat(config.as_dict(resolve(config.from_dict(checkpoint.facts["config"], source="its config")))))
    except (NowcastError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be resumed from: {error}") from None
    now = dict(_flat(config.as_dict(experiment)))
    found = [key for key in {**before, **now} if _matters(key) and before.get(key) != now.get(key)]
    if found:
        listed = [f"{key} = {now.get(key)} (before: {before.get(key)})" for key in found[:SHOWN]]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise CheckpointError(
            f"the config is not that of {checkpoint.path}: {', '.join(listed)}{more}.\n"
            "Resume with the config of the run, or begin a new one; of [training] all but optimizer and ema may change."
        )
    _check_windows(checkpoint, plan, now, before)


def _matters(key: str) -> bool:
    return key in FIXED or not (key.startswith("training.") or key in FREE)


def _check_windows(checkpoint: Checkpoint, plan: Archive, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    known = checkpoint.facts.get("windows_sha256")
    if known is None or known == plan.digest:
        return
    then, today = checkpoint.facts.get("windows"), plan.num_windows("training")
    then = then.get("training") if isinstance(then, Mapping) else "unknown"
    paths = (now["data.records"], before["data.records"])
    moved = f"data.records = {paths[0]} (before: {paths[1]}), " if paths[0] != paths[1] else ""
    raise CheckpointError(
        f"the records do not hold the windows of {checkpoint.path}: {moved}training windows = {today} (before: {then}).\n"
        "Resume with the records as they were, or begin a new run."
    )


def _flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def fitting_weights(
    checkpoint: Checkpoint, name: str, model: nn.Module, experiment: Experiment, *, quantity: Quantity
) -> dict[str, Tensor]:
    """The weights that the checkpoint `name` forecasts with, for a `model` of this resolved `experiment`.

    Raises CheckpointError (exit 4) where quantity, units, transform or model differ, with what would be right.
    """
    facts = checkpoint.facts
    for what, mine in (("quantity", quantity.name), ("units", quantity.units)):
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
