"""Snapshots: the checkpoints that a training writes, and the metadata about the training that each of them carries.

`best` holds the forecasting weights, `last` everything that a resumed run needs, `previous` the `last` before it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nowcast import __version__, config
from nowcast.dataset.archive import Archive
from nowcast.dataset.draws import Series
from nowcast.errors import CheckpointError
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, write_checkpoint
from nowcast.netcdf.record import Record
from nowcast.runtime import distributed
from nowcast.training.compatibility import check_frames, frame_statistics
from nowcast.training.learner import Learner
from nowcast.training.state import TrainingState

OPTIMIZER_COPIES = {"adamw": 2, "adam": 2, "adadelta": 2, "rmsprop": 1, "sgd": 1}  # tensors kept per weight tensor


class Snapshots:
    """The checkpoints of one run folder. Of several processes only the first one writes."""

    def __init__(self, learner: Learner, archive: Archive, output: Path, *, num_steps: int):
        self.learner, self.archive, self.output, self.num_steps = learner, archive, output, num_steps
        self.launch = distributed.launch()
        self.last_is_damaged = False
        self.restored: Checkpoint | None = None
        self.frame_statistics: list[list[float]] | None = None

    def take_frames(self, series: Sequence[Series]) -> None:
        """Keep statistics of the packed frames for the checkpoints.

        Raises CheckpointError (exit 4) where those of the restored checkpoint were others.
        """
        if self.restored:
            check_frames(self.restored, series)
        self.restored = None  # frees its tensors
        self.frame_statistics = frame_statistics(series)

    def save_best(self, state: TrainingState) -> None:
        """Write `best`, the forecasting weights. Raises OutputError (exit 5)."""
        if distributed.is_first():
            weights = {f"model.{name}": value for name, value in self.learner.forecasting_weights().items()}
            write_checkpoint(self.output / BEST, self._metadata(state), weights)

    def save_last(self, state: TrainingState) -> None:
        """Write `last`, and keep the one before it as `previous`. Raises OutputError (exit 5)."""
        if not distributed.is_first():
            return
        metadata = self._metadata(state) | {"state": state.as_dict(), "num_steps": self.num_steps, "launch": self.launch}
        keep = None if self.last_is_damaged else self.output / PREVIOUS
        write_checkpoint(self.output / LAST, metadata, self.learner.state_tensors(), keep=keep)
        self.last_is_damaged = False

    def restore(self, checkpoint: Checkpoint) -> TrainingState:
        """Give the learner what a `last` or `previous` checkpoint holds; return the state of the training.

        Raises CheckpointError (exit 4) where the checkpoint does not fit the config.
        """
        try:
            self.learner.restore(checkpoint)
            state = TrainingState.from_dict(checkpoint.metadata["state"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            message = str(error).splitlines()[0]
            raise CheckpointError(f"the checkpoint in {self.output} does not fit the config: {message}") from None
        # resumed from `previous` because `last` is damaged, which must not replace the good one
        self.last_is_damaged, self.restored = checkpoint.path.name == PREVIOUS, checkpoint
        return state

    def num_bytes(self) -> tuple[int, int]:
        """Return the approximate sizes of `best` and `last` on disk, bytes."""
        weights = sum(value.nbytes for value in self.learner.model.state_dict().values())
        copies = OPTIMIZER_COPIES[self.learner.settings.optimizer]
        return weights, weights * (1 + copies + bool(self.learner.average))

    def _metadata(self, state: TrainingState) -> dict[str, Any]:
        """Return the JSON object that every checkpoint carries: what it was trained on, how far, and with which config."""
        learner, archive = self.learner, self.archive
        return {
            "version": __version__,
            "torch": str(torch.__version__),
            "config": config.as_dict(learner.experiment),
            "quantity": archive.quantity.name,
            "units": archive.quantity.units,
            "input_frames": learner.experiment.data.input_frames,
            "lead_frames": learner.experiment.data.lead_frames,
            "time_steps": archive.time_steps(),
            "spacing_km": sorted({_spacing_km(record) for record in archive.records}),
            "spans": {split: archive.spans(split) for split in ("training", "validation")},
            "stretches": {split: archive.stretches(split) for split in ("training", "validation")},
            "windows": {split: archive.num_windows(split) for split in ("training", "validation")},
            "windows_sha256": archive.digest,
            "grids_sha256": archive.grids_digest,
            **({"frame_statistics": self.frame_statistics} if self.frame_statistics else {}),
            "precision": learner.precision_name,
            "step": state.step,
            "best_loss": state.as_dict()["best_loss"],
            **({"started_from": learner.started_from} if learner.started_from else {}),
        }


def _spacing_km(record: Record) -> tuple[float, ...]:
    """Return the grid spacing (y, x) in km, rounded; 0 where it is unknown."""
    return tuple(round(float(km), 4) if math.isfinite(km) else 0.0 for km in record.grid.spacing_km)
