"""Implement `nowcast export`: open a trained network and write it in a format that can be used without nowcast."""

import re
from pathlib import Path

import torch

from nowcast.errors import UsageError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES
from nowcast.forecasters.network import Network
from nowcast.runtime.outputs import may_write

OLDEST_FOR_PT2 = "2.10"  # of torch: programs that 2.8 cannot save, and 2.9 loads with gradients


def export_run(run: str, output: Path, *, grid: str | None, overwrite: bool) -> str:
    """Write a trained network for use without nowcast; return the Python expression that forecasts with the file.

    grid: rows and columns, as in 640,710, for a network that needs the motion of the rain

    Raises UsageError (exit 2) for anything but a trained network, for an invalid grid, and for a .pt2 with an older torch.
    """
    from nowcast.forecasters import export

    export.check_output(output, overwrite=overwrite)
    if output.suffix == ".pt2" and torch.__version__ < OLDEST_FOR_PT2:
        raise UsageError(f"a .pt2 needs torch {OLDEST_FOR_PT2} or newer, and this is {torch.__version__}.\nWrite an .onnx.")
    sizes = re.fullmatch(r"(\d{1,5}),(\d{1,5})", grid or "1,1")
    if not sizes:
        raise UsageError(f"--grid {grid}: write rows and columns, such as 640,710")
    opened = None if run in BASELINES else open_forecaster(run, device=torch.device("cpu"))
    if not isinstance(opened, Network):
        raise UsageError(f"{run} is not a trained network: export takes a run folder or a checkpoint")
    may_write(output, overwrite=overwrite, inputs=opened.files)
    return export.export(opened, output, (int(sizes[1]), int(sizes[2])) if grid else None, overwrite=overwrite)
