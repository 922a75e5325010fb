"""The contract of a Logger: where a training sends what it records."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

LOGS = "logs"  # folder of a run for the files of loggers that have many
NETWORK = "network"


@dataclass(frozen=True)
class Start:
    """The start of a run, or of its continuation after `--resume`.

    output: the run folder
    step: of the last validation; events after it are repeated; -1: the run is new
    config: the config, as JSON values
    """

    output: Path
    step: int
    config: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Return the folder of the run for the files of loggers."""
        return self.output / LOGS


class Logger(ABC):
    """Takes the events of metrics.jsonl and pictures of a few cases. Made, with a `Start`, when the training begins.

    An exception ends the logger, with a warning, and never the training.
    """

    requires: ClassVar[str | None] = None  # module that it imports
    package: ClassVar[str | None] = None  # what pip calls it
    takes_pictures: ClassVar[bool] = True

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the module that it requires can be imported."""
        return cls.requires is None or importlib.util.find_spec(cls.requires) is not None

    @abstractmethod
    def __init__(self, start: Start): ...

    @abstractmethod
    def record(self, event: Mapping[str, Any]) -> None:
        """Take an event: step, split ("training" or "validation"), loss, and scores, as metrics.jsonl has them."""

    def show(self, step: int, pictures: Sequence[np.ndarray]) -> None:  # noqa: B027
        """Take the pictures of a validation.

        pictures: (row, column, RGB) uint8, always of the same cases
        """

    def close(self) -> None:  # noqa: B027
        """Write what is not written yet."""


def numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an event by score and forecaster, such as `loss/training` and `csi_1/extrapolation`.

    The scores of the weights before the first step have their name, such as `untrained`, in place of `network`.
    """
    numbers, network = {}, event.get("weights", NETWORK)
    for key, value in event.items():
        if key in ("step", "split", "unit", "weights", "time"):
            continue
        who, _, score = key.rpartition("_") if key.endswith(("_csi", "_mae")) else ("", "", key)
        by_threshold = value if isinstance(value, Mapping) else {"": value}
        for threshold, number in by_threshold.items():
            if number is None:
                continue
            name = f"{score}_{threshold}" if threshold else score
            is_score = score in ("csi", "mae")
            numbers[f"{name}/{who or network}" if is_score else f"{name}/{event['split']}"] = float(number)
    return numbers
