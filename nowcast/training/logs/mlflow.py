"""MLflow without a server: `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri RUN/logs/mlflow`.

Files, and not the database that MLflow prefers: that one needs more than `mlflow-skinny`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from nowcast.training.logs.logger import Logger, Start, numbers

RUN_ID = "run_id"  # file with the id of the run, which goes on after --resume


class MLflow(Logger):
    """Writes files of MLflow into the folder logs/mlflow of the run; no server is asked."""

    requires: ClassVar[str | None] = "mlflow"
    package: ClassVar[str | None] = "mlflow"

    def __init__(self, start: Start):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        folder = start.folder / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        self.client, known = MlflowClient(folder.absolute().as_uri()), folder / RUN_ID
        if known.is_file():
            self.run = known.read_text(encoding="utf-8")
            self.client.update_run(self.run, status="RUNNING")
            return
        experiment = self.client.create_experiment("nowcast")
        self.run = self.client.create_run(experiment, run_name=start.output.absolute().name).info.run_id
        known.write_text(self.run, encoding="utf-8")
        for section, values in start.config.items():
            for key, value in values.items():
                self.client.log_param(self.run, f"{section}.{key}", str(value)[:500])

    def record(self, event: Mapping[str, Any]) -> None:
        now = round(1000 * time.time())
        for name, value in numbers(event).items():
            self.client.log_metric(self.run, name, value, timestamp=now, step=event["step"])

    def show(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        for number, picture in enumerate(pictures, 1):
            self.client.log_image(self.run, picture, key=f"case {number}", step=step)

    def close(self) -> None:
        self.client.set_terminated(self.run)
