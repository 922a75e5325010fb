"""Do what `nowcast export` is asked for: open a trained network and write it in a format that needs no nowcast."""

from pathlib import Path

import torch

from nowcast.errors import UsageError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.network import Network
from nowcast.runtime.outputs import may_write


def export_run(run: str, output: Path, *, overwrite: bool) -> str:
    """Write a trained network for use without nowcast; return the Python expression that forecasts with the file.

    Raises UsageError (exit 2) for anything but a trained network.
    """
    from nowcast.forecasters import export

    export.check_output(output, overwrite=overwrite)
    opened = None if run in BASELINES else open_forecaster(run, device=torch.device("cpu"))
    if not isinstance(opened, Network):
        raise UsageError(f"{run} is no trained network: export takes a run folder or a checkpoint")
    may_write(output, overwrite=overwrite, inputs=opened.files)
    return export.export(opened, output)
