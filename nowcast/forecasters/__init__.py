"""Open any Forecaster by name: a baseline, a trained network, or forecasts stored in files.

The contract that all of them implement is in forecaster.py. A new baseline is a class in baselines.py and a line in BASELINES.
"""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nowcast.config.schema import PRETRAINED, nearest_name
from nowcast.errors import CheckpointError, UsageError
from nowcast.forecasters.baselines import BASELINES, ENSEMBLES
from nowcast.forecasters.forecast_files import ForecastFiles
from nowcast.forecasters.forecaster import Forecaster
from nowcast.netcdf.files import expand, is_netcdf_name, netcdf_files
from nowcast.netcdf.forecast_reader import read_forecast
from nowcast.runtime import distributed

if TYPE_CHECKING:
    import torch

OTHER_NAMES = {  # names of baselines in other programs
    **dict.fromkeys(("optical_flow", "advection", "semi_lagrangian", "dis", "rainymotion"), "extrapolation"),
    **dict.fromkeys(("eulerian", "last_frame"), "persistence"),
    **dict.fromkeys(("lucas_kanade",), "pysteps"),
    "s-prog": "sprog",
}


def device_for(names: Iterable[str | Forecaster], asked: "str | torch.device") -> "torch.device | None":
    """Return the device that forecasters are opened on; None if they need none, unless there are several processes.

    Baselines and forecasts in files need no torch, which takes longer to import than a baseline to forecast.
    Raises UsageError (exit 2) if there is no such device.
    """
    if asked in ("auto", "cpu") and distributed.size() == 1 and not any(map(_may_be_network, names)):
        return None
    from nowcast.runtime.device import pick_device

    return pick_device(asked)


def _may_be_network(name: str | Forecaster) -> bool:
    """Return whether it is the included network, or by its path a run folder or a checkpoint."""
    is_baseline = isinstance(name, Forecaster) or name in BASELINES or name in ENSEMBLES
    return not is_baseline and (name == PRETRAINED or not _is_of_files(Path(name)))


def open_forecaster(
    name: str, *, device: "torch.device | None", variable: str | None = None, units: str | None = None
) -> Forecaster:
    """Open the baseline of that name, a run folder, a checkpoint, "pretrained", or NetCDF forecasts.

    device: that of a network; see `device_for`

    NetCDF forecasts are one file, a folder or a glob; `variable` is read if they have it,
    in `units` if they state none. Raises CheckpointError (exit 4) if `name` is none of these, UsageError (2) if there is
    no such NetCDF file, DataError (3) for NetCDF files without forecasts.
    """
    path = Path(name)
    if name in BASELINES or name in ENSEMBLES:
        return (BASELINES | ENSEMBLES)[name]()
    if name != PRETRAINED and _is_of_files(path):
        return _open_files(name, variable, units)
    from nowcast.forecasters.network import Network  # here, so that the others can be used without loading torch
    from nowcast.models.checkpoint import PRETRAINED_FILE, checkpoints, read_checkpoint

    if name == PRETRAINED:
        return Network(read_checkpoint(name), name, device=device, files=[PRETRAINED_FILE])
    if not path.exists():
        raise CheckpointError(f"no such run folder, checkpoint, forecast file or baseline: {name} ({_suggestion(name)})")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    files = checkpoints(path) if path.is_dir() else [path]
    return Network(read_checkpoint(path), folder.name, device=device, files=files)


def _suggestion(name: str) -> str:
    """Return the name that was probably meant, or a list of all names, for a message."""
    from nowcast.models import MODELS
    from nowcast.models import OTHER_NAMES as OTHER_MODELS

    if (Path("runs") / name).is_dir():
        return f"did you mean runs/{name}?"
    runs = [str(folder) for folder in Path("runs").glob("*")]
    near = nearest_name(name, [*BASELINES, *ENSEMBLES, PRETRAINED, *runs], OTHER_NAMES)
    if near:
        return f"did you mean {near}?"
    known = f"known: {', '.join([PRETRAINED, *BASELINES])}, run folders, checkpoints and forecast files"
    return f"that is a type of network, which you have to train first; {known}" if name in {*MODELS, *OTHER_MODELS} else known


def spread_runs(names: Sequence[str | Forecaster]) -> list[str | Forecaster]:
    """Expand each glob that matches run folders or checkpoints, such as runs/*; other matches of it are left out.

    Forecasters that are already open stay as they are. Raises UsageError (exit 2) for an empty list.
    """
    if not names:
        raise UsageError("no forecaster is given.\nExpected a run, a baseline, files of forecasts, or several.")
    spread: list[str | Forecaster] = []
    for name in names:
        matches = sorted(glob.glob(name)) if isinstance(name, str) and _is_glob(Path(name)) else []
        spread += [match for match in matches if _is_run(Path(match))] or [name]
    return spread


def _is_run(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path.is_dir() and any(path.glob("*.safetensors")))


def _is_of_files(path: Path) -> bool:
    """Return whether it names NetCDF forecasts: a glob, a file, even if there is none, which `expand` says, or a folder."""
    return _is_glob(path) or is_netcdf_name(path.name) or _holds_forecasts(path)


def _open_files(where: str, variable: str | None, units: str | None) -> ForecastFiles:
    # not strict: the variable may be that of the observations
    forecast = read_forecast(where, variable=variable, strict=False, units=units)
    return ForecastFiles(forecast, _name_of_files(Path(where)), files=expand(where))


def _name_of_files(path: Path) -> str:
    """Return the name that scores give forecasts in files: that of the file, or of its folder if there are several."""
    if _is_glob(path):
        return path.absolute().parent.name
    return path.stem if is_netcdf_name(path.name) else path.resolve().name


def _is_glob(path: Path) -> bool:
    return not path.exists() and bool(set("*?[") & set(str(path)))


def _holds_forecasts(path: Path) -> bool:
    """Return whether it is a folder of NetCDF files and not a run folder."""
    if not path.is_dir() or (path / "config.toml").exists() or any(path.glob("*.safetensors")):
        return False
    return any(True for _ in netcdf_files(path))
