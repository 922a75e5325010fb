"""Weights & Biases without a connection: `wandb sync RUN/logs/wandb/offline-run-*` sends it later, if you want to."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from nowcast.training.logs.logger import Logger, Start, numbers


class WandB(Logger):
    """Writes an offline run of Weights & Biases into the folder logs/wandb of the run; nothing is sent."""

    requires: ClassVar[str | None] = "wandb"
    package: ClassVar[str | None] = "wandb"

    def __init__(self, start: Start):
        import wandb

        start.folder.mkdir(parents=True, exist_ok=True)
        name = start.output.absolute().name
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self.image = wandb.Image
        self.run = wandb.init(
            project="nowcast", name=name, dir=str(start.folder), config=dict(start.config), mode="offline", settings=settings
        )

    def record(self, event: Mapping[str, Any]) -> None:
        self.run.log(numbers(event), step=event["step"])

    def show(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        self.run.log({f"cases/{n}": self.image(picture) for n, picture in enumerate(pictures, 1)}, step=step)

    def close(self) -> None:
        self.run.finish()
