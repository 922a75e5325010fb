"""nowcast: radar archive in NetCDF -> trained, verified precipitation nowcaster -> forecasts in CF NetCDF.

Nothing heavy is imported here: `nowcast --help` must answer at once. The names of the Python interface (api.py, described in
data/python.md) are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nowcast import api, errors, models, scores
    from nowcast.api import Net, Run, Scores, evaluate, load, open_records, train

_MODULES = ("api", "errors", "models", "scores")
_NAMES = ("Net", "Run", "Scores", "evaluate", "load", "open_records", "train")
__all__ = ["Net", "Run", "Scores", "__version__", "api", "errors", "evaluate", "load", "models", "open_records", "scores",
           "train"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nowcast.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module("nowcast.api"), name)
    raise AttributeError(f"module 'nowcast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
