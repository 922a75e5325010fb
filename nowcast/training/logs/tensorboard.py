"""TensorBoard: `tensorboard --logdir RUN/logs/tensorboard`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from nowcast.training.logs.logger import Logger, Start, numbers


class TensorBoard(Logger):
    """Writes event files for TensorBoard into the folder logs/tensorboard of the run."""

    requires: ClassVar[str | None] = "tensorboard"
    package: ClassVar[str | None] = "tensorboard"

    def __init__(self, start: Start):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step + 1 if start.step >= 0 else None)

    def record(self, event: Mapping[str, Any]) -> None:
        for name, value in numbers(event).items():
            self.writer.add_scalar(name, value, event["step"])
        self.writer.flush()

    def show(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        for number, picture in enumerate(pictures, 1):
            self.writer.add_image(f"cases/{number}", picture, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
