"""Anything that maps past frames to future frames is a Forecaster: a trained network or a baseline, by one call.

Both sides of the call are mm/h with NaN for missing; network values exist only inside `Network`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nowcast.errors import CheckpointError
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.forecast_files import FileForecaster
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.forecast_reader import read_forecast

if TYPE_CHECKING:
    import torch

FORECAST_SUFFIXES = {".nc", ".nc4", ".cdf"}


def open_forecaster(name: str, *, device: "torch.device", variable: str | None = None) -> Forecaster | FileForecaster:
    """The baseline of that name, the network of a run folder or checkpoint or "pretrained", or the forecasts of NetCDF files.

    These may be one file, a folder or a glob; `variable` is theirs, where they have it. Raises CheckpointError (exit 4)
    where there is none of these, DataError (3) for NetCDF files without forecasts.
    """
    path = Path(name)
    if name in BASELINES:
        return BASELINES[name]()
    from nowcast.forecasters.network import Network  # baselines do without torch
    from nowcast.models.checkpoint import PRETRAINED, read_checkpoint

    if name == PRETRAINED:
        return Network(read_checkpoint(name), name, device=device)
    if _is_glob(path):
        return FileForecaster(read_forecast(name, variable=variable), path.absolute().parent.name)
    if not path.exists():
        raise CheckpointError(f"no such run folder, checkpoint or baseline: {name} (baselines: {', '.join(BASELINES)})")
    if path.suffix in FORECAST_SUFFIXES:
        return FileForecaster(read_forecast(path, variable=variable), path.stem)
    if _holds_forecasts(path):
        return FileForecaster(read_forecast(path, variable=variable), path.resolve().name)
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return Network(read_checkpoint(path), folder.name, device=device)


def _is_glob(path: Path) -> bool:
    return not path.exists() and bool(set("*?[") & set(str(path)))


def _holds_forecasts(path: Path) -> bool:
    """Whether it is a folder of NetCDF files, and not of a run."""
    if not path.is_dir() or (path / "config.toml").exists() or any(path.glob("*.safetensors")):
        return False
    return any(file.suffix in FORECAST_SUFFIXES for pattern in ("*", "*/*") for file in path.glob(pattern))
