"""Whether a run may go on from its checkpoint: what it learns, and from what, must be what it was.

Of `[training]` everything may change but `optimizer` and `ema`, whose state is in the checkpoint; of the rest nothing.
Records may lie elsewhere than before if they hold the same windows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from nowcast import config
from nowcast.checkpoint import Checkpoint
from nowcast.config import Experiment
from nowcast.errors import CheckpointError, NowcastError
from nowcast.planning import Plan
from nowcast.training import resolve

FIXED = {"training.optimizer", "training.ema"}
FREE = {"data.records"}  # the windows themselves are compared
SHOWN = 4


def check_resumable(checkpoint: Checkpoint, experiment: Experiment, plan: Plan) -> None:
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


def _check_windows(checkpoint: Checkpoint, plan: Plan, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
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
