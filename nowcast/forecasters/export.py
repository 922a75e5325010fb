"""Export a trained network to one file that runs without nowcast: ONNX (.onnx), or a program of torch.export (.pt2).

    input `past`: (case, time, y, x) float32 mm/h, NaN missing, newest frame last
    output `forecast`: (case, lead, y, x) float32 mm/h, NaN where every past frame is missing

Transform, validity mask and padding are part of the file. It takes any number of cases and any grid, unless the network is
made for one grid. A network that needs the motion of the rain takes it as a second input, and gives probabilities as a second
output, for one case on one grid (moving.py). The file is written only if its forecast equals the network's own.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from nowcast import __version__
from nowcast.errors import NowcastError, UsageError
from nowcast.forecasters.baselines import DRY_THRESHOLD
from nowcast.forecasters.export_formats import FORMATS, Forecast, quiet, without_paths
from nowcast.forecasters.fields import forecast_rain
from nowcast.forecasters.moving import Moving, moving_rain
from nowcast.forecasters.network import Network
from nowcast.motion import motion
from nowcast.runtime.outputs import may_write, replacing

log = logging.getLogger(__name__)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # mm/h, and relative: largest difference from the network's own forecast
CALLS = {
    ".onnx": 'onnxruntime.InferenceSession("{path}").run(None, {{"past": past}})[0]',
    ".pt2": 'torch.export.load("{path}").module()(torch.from_numpy(past))',
}
FLOW = "nowcast.motion.motion(past[0])[None]"  # the Python expression of the second input
MOVING_CALLS = {
    ".onnx": f'onnxruntime.InferenceSession("{{path}}").run(None, {{{{"past": past, "motion": {FLOW}}}}})',
    ".pt2": f'torch.export.load("{{path}}").module()(*map(torch.from_numpy, (past, {FLOW})))',
}
MOVING_TOLERANCE = 1e-2  # with guidance or motion: the cascade divides rounding errors by 1 - correlation², down to .0002
UNEQUAL = 1e-3  # fraction of cells that may differ, because a rounding error can cross a threshold


def check_output(output: Path, *, overwrite: bool) -> None:
    """Check format, packages and path before a checkpoint is read; raise UsageError (exit 2) or OutputError (5)."""
    if output.suffix not in FORMATS:
        raise UsageError(f"{output}: the ending of the name sets the format, and must be {' or '.join(FORMATS)}")
    missing = [name for name in PACKAGES if output.suffix == ".onnx" and find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} is not installed: pip install {' '.join(PACKAGES)}, or write a .pt2")
    may_write(output, overwrite=overwrite)


def needs_motion(network: Network) -> bool:
    """Return whether the exported program takes the motion of the rain and gives probabilities, for one case on one grid."""
    return network.experiment.data.coordinates == "lagrangian" or bool(network.thresholds)


def export(network: Network, output: Path, grid: tuple[int, int] | None = None, *, overwrite: bool = True) -> str:
    """Write a network, in float32 on the CPU, to `output`; return the Python expression that forecasts with the file.

    grid: (y, x), for a network that needs the motion of the rain and is not made for one grid

    Raises UsageError (exit 2) for a network that the format cannot hold and for a grid that is missing or not needed,
    OutputError (5) if the file cannot be written or, without `overwrite`, exists.
    """
    grid = _grid_for(network, grid)
    make, load = FORMATS[output.suffix]
    log.info("exporting %s: seconds to minutes, the longer the more layers and frames it has", network.name)
    if network.precision != torch.float32:
        log.info("%s forecasts in bfloat16 here and its file in float32: their rounding differs", network.name)
    try:
        if grid:
            content = make(moving_program(network, grid), description(network, grid))
            check_moving(load(content), network, grid)
        else:
            content = make(program(network), description(network))
            check(load(content), network)
    except (NowcastError, MemoryError):
        raise
    except Exception as error:  # exporters raise errors of many types for what they do not support
        model = network.experiment.model.name
        raise UsageError(f"{network.name} ({model}) cannot be exported to {output.suffix}: {_reason(error)}") from error
    with replacing(output, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)
    return (MOVING_CALLS if grid else CALLS)[output.suffix].format(path=output)


def _grid_for(network: Network, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the grid (y, x) that a program is exported for; None if it takes any grid."""
    if not needs_motion(network):
        if grid:
            raise UsageError(f"{network.name} is exported for {'its' if network.model.grid else 'any'} grid: leave out --grid")
        return None
    grid = grid or network.model.grid
    if grid is None:
        raise UsageError(
            f"{network.name} needs the motion of the rain, and is exported for one grid.\n"
            "Give its rows and columns: --grid 640,710"
        )
    network.check_grid(grid, "--grid")
    return grid


def _reason(error: BaseException) -> str:
    """Return the first line of the error that caused all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def description(network: Network, grid: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the description of a network for its file, as texts and numbers; grid: (y, x) that it is exported for."""
    moving = {
        "motion": "motion (case, 2, y, x), float32, cells per frame in the order (y, x), of nowcast.motion.motion(past[case])",
        "probabilities": "probabilities (case, lead, threshold, y, x), float32, of reaching each threshold",
        "thresholds": list(network.thresholds),
    }
    extra, grid = moving if grid else {}, grid or network.model.grid
    return extra | {
        "nowcast_version": __version__,
        "checkpoint_sha256": network.digest,
        "model": network.experiment.model.name,
        "quantity": network.quantity.name,
        "units": network.quantity.units,
        "missing": "NaN",
        "input": "past (case, time, y, x), float32, newest frame last, row 0 northernmost",
        "output": "forecast (case, lead, y, x), float32",
        "input_frames": network.input_frames,
        "lead_frames": network.lead_frames,
        "time_steps_seconds": network.time_steps,
        "grid": list(grid) if grid else "any",
    }


class _Whole(nn.Module):
    """The whole forecast, mm/h to mm/h. Padding is cut off by index: the exporter would fix the grid's size for a slice."""

    def __init__(self, network: Network):
        super().__init__()
        self.model, self.transform, self.num_leads = _without_norms(network.model), network.transform, network.lead_frames
        self.is_rain = network.quantity.is_rain

    def forward(self, past: Tensor) -> Tensor:
        y, x = past.shape[-2:]
        multiple = self.model.cell_multiple
        after = [multiple * ((size + multiple - 1) // multiple) - size for size in (x, y)]
        padded = F.pad(past, (0, after[0], 0, after[1]), value=math.nan)
        forecast = forecast_rain(self.model, self.transform, padded, self.num_leads)
        forecast = forecast.index_select(2, torch.arange(y)).index_select(3, torch.arange(x))
        if not self.is_rain:
            return forecast
        wet = torch.nan_to_num(past).amax(dim=(1, 2, 3), keepdim=True) >= DRY_THRESHOLD
        return torch.where(wet | torch.isnan(forecast), forecast, 0.0)  # as in Network


class _Scaled(nn.Module):
    """A trained batch normalisation as scale and shift, because exporting it directly would fix the number of cases."""

    def __init__(self, norm: nn.BatchNorm3d):
        super().__init__()
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale.detach().view(-1, 1, 1, 1))
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).detach().view(-1, 1, 1, 1))

    def forward(self, values: Tensor) -> Tensor:
        return values.clone(memory_format=torch.contiguous_format) * self.scale + self.shift


def _without_norms(model: nn.Module) -> nn.Module:
    """Return a copy of a model with its batch normalisations replaced by scales and shifts."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm3d):
                setattr(parent, name, _Scaled(child))
    return model.eval()


def program(network: Network) -> ExportedProgram:
    """Return the network as a graph of torch operations, for any number of cases and any grid that it takes."""
    sizes = {0: torch.export.Dim.DYNAMIC}
    if not network.model.grid:
        sizes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    past = _random_past(network, *_grids(network)[0], cases=2)
    # strict would trace Python itself, in half as much time again; without it models must not take len() of a tensor, which
    # would make the number of cases a constant
    with quiet(), torch.no_grad():
        whole = _Whole(network).requires_grad_(False)
        return without_paths(torch.export.export(whole, (past,), dynamic_shapes=(sizes,), strict=False))


def check(forecast: Forecast, network: Network) -> None:
    """Raise ValueError if a file's forecast differs from the network's, for another grid and number of cases than exported."""
    past = _random_past(network, *_grids(network)[1], cases=1)
    with torch.no_grad():
        expected = forecast_rain(network.model, network.transform, past, network.lead_frames).numpy()
    exported = forecast(past.numpy())
    if not np.allclose(exported, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        raise ValueError(f"its forecast differs by up to {np.nanmax(np.abs(exported - expected)):.2g} from the network's")


def moving_program(network: Network, grid: tuple[int, int]) -> ExportedProgram:
    """Return a network that needs the motion of the rain as a graph of torch operations, for one case on a grid (y, x)."""
    past = torch.zeros(1, network.input_frames, *grid)
    with quiet(), torch.no_grad():
        whole = Moving(network, network.thresholds).requires_grad_(False)
        return without_paths(torch.export.export(whole, (past, torch.zeros(1, 2, *grid)), strict=False))


def check_moving(forecast: Forecast, network: Network, grid: tuple[int, int]) -> None:
    """Raise ValueError if a file's forecast or probabilities differ from the network's; log how long both take."""
    past = moving_rain(network, *grid)
    outputs, seconds = _second_call(lambda: forecast(past, motion(past[0])[None]))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if network.thresholds:
        expected, own_seconds = _second_call(
            lambda: network.forecast_and_exceedance(past, network.lead_frames, network.thresholds)
        )
    else:
        field, own_seconds = _second_call(lambda: network.forecast(past, network.lead_frames))
        expected = (field,)
    log.info("a forecast of %d × %d cells takes %.2f s, with the motion; that of nowcast itself %.2f s",
             *grid, seconds, own_seconds)  # fmt: skip
    for what, own, other in zip(("forecast", "probabilities")[: len(outputs)], outputs, expected, strict=True):
        different = ~np.isclose(own, other, rtol=MOVING_TOLERANCE, atol=MOVING_TOLERANCE, equal_nan=True)
        log.info("%s: %.4f %% of the values differ by more than %g", what, 100 * different.mean(), MOVING_TOLERANCE)
        if different.mean() > UNEQUAL:
            raise ValueError(f"{100 * different.mean():.2g} % of its {what} differ from the network's")


def _second_call(make: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function twice; return what the second call gave, and its seconds: a first one may compile C and fill caches."""
    make()
    began = time.perf_counter()
    return make(), time.perf_counter() - began


def _grids(network: Network) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a grid to export with and another to check with; unless fixed, neither is a multiple of `cell_multiple`."""
    if grid := network.model.grid:
        return grid, grid
    multiple = network.model.cell_multiple
    return (5 * multiple + 1, 7 * multiple + 1), (8 * multiple - 1, 6 * multiple + 3)


def _random_past(network: Network, y: int, x: int, *, cases: int) -> Tensor:
    """Return random rain with cells that are missing in some frames, and cells that are missing in all."""
    generator = torch.Generator().manual_seed(y)
    past = 20 * torch.rand(cases, network.input_frames, y, x, generator=generator) ** 4
    past[torch.rand(past.shape, generator=generator) < 0.1] = torch.nan
    past[..., : y // 3, : x // 3] = torch.nan
    return past
