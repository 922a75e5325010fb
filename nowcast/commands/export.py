"""What each command does once its arguments are parsed: the parts put together. Imports everything heavy."""

from pathlib import Path

import torch

from nowcast.errors import UsageError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.network import Network
from nowcast.runtime.outputs import may_write


def export_run(run: str, output: Path, *, overwrite: bool) -> str:
    """Write a trained network for use without nowcast; returns the Python expression that calls it."""
    from nowcast.forecasters import export

    export.check_output(output, overwrite=overwrite)
    opened = None if run in BASELINES else open_forecaster(run, device=torch.device("cpu"))
    if not isinstance(opened, Network):
        raise UsageError(f"{run} is no trained network: export takes a run folder or a checkpoint")
    may_write(output, overwrite=overwrite, inputs=opened.files)
    return export.export(opened, output)
