"""The training and validation periods of a network: from its checkpoint, and as text in forecast files, to detect leakage.

The text is JSON in the global attribute TRAINING_PERIODS: {"training": {"knmi": ["2010-08-26T00:00:00Z/2010-08-26T06:00:00Z"]},
"validation": {…}, "cells_km": [[1.0, 1.0]]}.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nowcast.config.schema import Splits
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.attributes import TRAINING_PERIODS

log = logging.getLogger(__name__)
SPLITS = ("training", "validation")


@dataclass(frozen=True)
class Seen:
    """Training and validation periods of networks: spans (record, start, end) of each split, and cell sizes (y, x), km."""

    spans: dict[str, list[list[str]]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    cells_km: list[tuple[float, float]] = field(default_factory=list)


def spans_of_checkpoint(metadata: Mapping[str, Any], split: str, splits: Splits) -> list[list[str]]:
    """Return the spans (record, start, end) whose frames trained a checkpoint, or chose and calibrated it ("validation").

    Older checkpoints have one span per record, even if a split by days took only some of its days.

    metadata: of the checkpoint
    splits: of its config
    """
    if split in (stretches := metadata.get("stretches", {})):
        before = metadata.get("started_from", {}).get("seen", [])  # of the network whose weights it started from
        return stretches[split] + (before if split == "training" else [])
    spans = metadata.get("spans", {}).get(split, [])
    if splits.by != "days":
        return spans
    return [
        [name, f"{day}T00:00:00Z", f"{day}T23:59:59Z"]
        for name, *ends in spans
        for day in np.arange(*np.array([end.removesuffix("Z") for end in ends], "datetime64[D]") + np.array([0, 1]))
        if day.astype(int) % splits.every_days in splits.days[split]
    ]


def as_text(forecaster: Forecaster) -> str:
    """Return the training and validation periods of a forecaster as JSON; "" if it was not trained."""
    seen: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        for record, start, end in forecaster.seen(split):
            seen.setdefault(split, {}).setdefault(record, []).append(f"{start}/{end}")
    return json.dumps(seen | {"cells_km": forecaster.cells_km}, ensure_ascii=False) if seen else ""


def read_seen(texts: Iterable[str], where: str) -> Seen:
    """Return the periods in texts of `as_text` combined; an invalid text is left out with a warning that names `where`."""
    seen = Seen()
    for text in dict.fromkeys(texts):
        try:
            own = json.loads(text)
            spans = {split: list(_spans(own.get(split, {}))) for split in SPLITS}
            cells = np.array(own.get("cells_km", []), float).reshape(-1, 2)
        except (ValueError, TypeError, AttributeError, RecursionError):
            message = "%s: %s is not a list of periods: whether these cases were seen in training is unknown"
            log.warning(message, where, TRAINING_PERIODS)
            continue
        for split in SPLITS:
            seen.spans[split].extend(spans[split])
        seen.cells_km.extend(map(tuple, cells.tolist()))
    return seen


def _spans(records: dict[str, Sequence[str]]) -> Iterable[list[str]]:
    for record, periods in records.items():
        for period in periods:
            start, end = period.split("/")
            for time in (start, end):
                np.datetime64(time.removesuffix("Z"), "s")  # raises ValueError for what is no time
            yield [record, start, end]
