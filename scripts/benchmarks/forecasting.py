#!/usr/bin/env python3
"""Measure the time and memory of a forecast of 12 frames from 4: networks, extrapolation, and Lucas–Kanade of pysteps.

Each forecaster runs in a process of its own. It is loaded, makes one forecast to warm up, and is timed for the second.
Memory is the peak of the whole process, with Python and its libraries. All are timed in turn in every round. Times are the
median over the rounds with the range, ratios the median of the ratios in each round. A network is a run folder, a
checkpoint, an exported .onnx file (run by ONNX Runtime), or a config, which is run with untrained weights, as they take the
same time. Frames are real ones from NOWCAST_SHARED if it has them, repeated or cut to the grid, else synthetic. pysteps is
left out if it is not installed.

    python scripts/benchmarks/forecasting.py configs/radar.toml --grids 512x512 1226x760 --rounds 5
    python scripts/benchmarks/forecasting.py runs/radar --grids 4400x3800 --rounds 3
    python scripts/benchmarks/forecasting.py runs/radar radar.onnx --grids 512x512
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))

import make_rain

PAST, LEADS = 4, 12
RECORD = Path("radar") / "fmi" / "20160928.nc"
FIRST = 20  # the first frame used of the record, with rain over half of the grid
BASELINES = ("extrapolation", "pysteps")
ROOT = Path(__file__).resolve().parents[2]
Grid = tuple[int, int]
Result = dict[str, float]  # "seconds", "bytes"


def past_frames(grid: Grid) -> np.ndarray:
    """Return past frames (time, y, x) mm/h, NaN missing: fields repeated side by side and cut to the grid."""
    fields = _real_frames()
    fields = _synthetic_frames() if fields is None else fields
    repeats = [-(-size // have) for size, have in zip(grid, fields.shape[1:], strict=True)]
    fields = np.tile(fields, (1, *repeats))
    top, left = ((have - size) // 2 for have, size in zip(fields.shape[1:], grid, strict=True))  # the rain is in the middle
    return np.ascontiguousarray(fields[:, top : top + grid[0], left : left + grid[1]], np.float32)


def _real_frames() -> np.ndarray | None:
    path = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared")) / RECORD
    if not path.is_file():
        return None
    from nowcast.netcdf.opening import open_records

    (record,) = open_records([path])
    return record.read(range(FIRST, FIRST + PAST))


def _synthetic_frames() -> np.ndarray:
    """Return synthetic rain (time, y, x), mm/h, that moves by (1, 2) cells per frame."""
    (field,) = make_rain.gaussian_fields(1, 1024, np.random.default_rng(1))
    rain = make_rain.to_rain(field, 0.52)
    return np.stack([np.roll(rain, (k, 2 * k), (0, 1)) for k in range(PAST)])


def open_named(name: str):
    """Open a forecaster. Imports only what it needs, since imports count as memory."""
    if name in BASELINES:
        from nowcast.forecasters import baselines

        return baselines.BASELINES[name]()
    if name.endswith(".onnx"):
        return Exported(name)
    import torch

    from nowcast.forecasters import open_forecaster

    if not name.endswith(".toml"):
        return open_forecaster(name, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        _write_fresh(Path(name), Path(folder))
        return open_forecaster(folder, device=torch.device("cpu"))


class Exported:
    """An exported network in ONNX Runtime, on as many threads as torch would use."""

    def __init__(self, name: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
        self.session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        self.input_frames = int(self.session.get_modelmeta().custom_metadata_map["input_frames"])

    def forecast(self, past: np.ndarray, num_leads: int) -> np.ndarray:
        """Forecast like a Forecaster, but always with as many lead times as the network was exported with."""
        from nowcast.motion import motion

        past = past[:, -self.input_frames :]
        given = {each.name for each in self.session.get_inputs()}
        inputs = {"past": past} | ({"motion": motion(past[0])[None]} if "motion" in given else {})
        return self.session.run(None, inputs)[0]


def _write_fresh(path: Path, folder: Path) -> None:
    """Write a checkpoint of a config with untrained weights."""
    from nowcast import config
    from nowcast.models import make_model, model_config
    from nowcast.models.checkpoint import BEST, write_checkpoint

    experiment = config.read(path, [])
    metadata = {"config": config.as_dict(experiment), "input_frames": experiment.data.input_frames, "lead_frames": LEADS,
             "time_steps": [300, 300], "quantity": "rain_rate"}  # fmt: skip
    model = make_model(model_config(experiment.model))
    write_checkpoint(folder / BEST, metadata, {f"model.{key}": value for key, value in model.state_dict().items()})


def measure_here(name: str, frames: Path) -> Result:
    """Measure the seconds of the second forecast, and the peak memory of this process in bytes."""
    import resource

    forecaster, past = open_named(name), np.load(frames)[None]
    if forecaster.input_frames > PAST:
        raise SystemExit(f"{name} needs {forecaster.input_frames} past frames; this benchmark has {PAST}")
    for _ in range(2):
        began = time.perf_counter()
        forecaster.forecast(past, LEADS)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "bytes": peak * (1 if sys.platform == "darwin" else 1024)}


def measure(name: str, frames: Path) -> Result:
    """Call `measure_here` in a new process."""
    command = [sys.executable, __file__, name, "--measure-here", str(frames)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(names: list[str], grid: Grid, rounds: int) -> list[dict[str, Result]]:
    """Measure all forecasters in turn in every round; return the results of each round by name."""
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "past.npy"
        np.save(frames, past_frames(grid))
        return [{name: measure(name, frames) for name in names} for _ in range(rounds)]


def rows(grid: Grid, results: list[dict[str, Result]]) -> list[str]:
    """Return a row of the Markdown table for each forecaster."""
    lines = []
    for name in results[0]:
        cells = [f"{grid[0]} × {grid[1]}", f"`{name}`"]
        for key, form in (("seconds", "{:.2f}".format), ("bytes", lambda b: f"{b / 1e6:,.0f}")):
            values = [one[name][key] for one in results]
            cells.append(f"{form(median(values))} ({form(min(values))}–{form(max(values))})")
            ratios = [one[name][key] / one["pysteps"][key] for one in results if "pysteps" in one]
            cells.append(f"{median(ratios):.2f}" if ratios else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def grid_of(text: str) -> Grid:
    y, x = text.split("x")
    return int(y), int(x)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="run folders, checkpoints or configs")
    parser.add_argument("--grids", type=grid_of, nargs="+", default=[(512, 512), (1226, 760)], metavar="YxX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure-here", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.measure_here:
        print(json.dumps(measure_here(args.networks[0], args.measure_here)))
        return
    installed = [name for name in BASELINES if name != "pysteps" or importlib.util.find_spec("pysteps")]
    print(f"{LEADS} frames from {PAST} on {os.cpu_count()} cores; median of {args.rounds} rounds (range).\n")
    print("| grid | forecaster | seconds | ÷ pysteps | MB | ÷ pysteps |\n| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for grid in args.grids:
        print("\n".join(rows(grid, measure_all([*args.networks, *installed], grid, args.rounds))), flush=True)


if __name__ == "__main__":
    main()
