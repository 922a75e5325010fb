"""LOGGERS: the destinations of logs besides metrics.jsonl, by the names in `training.loggers`.

To add one, write a `Logger` (logger.py) and add a line below.
"""

from collections.abc import Sequence

from nowcast.errors import UsageError
from nowcast.training.logs.csv_file import CsvFile
from nowcast.training.logs.logger import Logger
from nowcast.training.logs.mlflow import MLflow
from nowcast.training.logs.tensorboard import TensorBoard
from nowcast.training.logs.wandb import WandB

LOGGERS: dict[str, type[Logger]] = {"csv": CsvFile, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def check_installed(names: Sequence[str]) -> None:
    """Raise UsageError (exit 2), before any work, where the package of a logger is missing."""
    for name in names:
        if not LOGGERS[name].is_installed():
            raise UsageError(
                f"training.loggers has {name!r}, and {LOGGERS[name].requires} is not installed.\n"
                f"Install it: pip install {LOGGERS[name].package}; or leave it out of training.loggers."
            )
