#!/usr/bin/env python3
"""Measure time and memory of ensemble members and of pysteps' STEPS on the same cores, and the file size.

Forecasts start from the newest frames of a record, or from synthetic rain on a grid `--grid Y,X`. Members are written to a file
as `nowcast predict` does, so their time includes writing; that of STEPS does not. Each runs in a process of its own. The time
is nearly proportional to the number of members, so few are enough for the ratio.

    python scripts/benchmarks/ensembles.py --grid 256,256 --members 24
    python scripts/benchmarks/ensembles.py --record radar/fmi/20160928.nc --members 4
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nowcast.errors import NowcastError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import DRY_THRESHOLD, Steps
from nowcast.forecasters.members.ensemble import Ensemble
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict
from nowcast.runtime.device import pick_device

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))

import make_rain

LEADS, PAST = 12, 4


def synthetic_rain(grid: tuple[int, int]) -> np.ndarray:
    """Return synthetic rain (time, y, x), mm/h, that moves by (1, 2) cells per frame, on a grid of this shape."""
    (_, rain), *_ = make_rain.make_events(PAST, grid, (1.0, 2.0), seed=0)
    return rain.astype(np.float32)


def run(arguments: argparse.Namespace) -> None:
    """Run one of the two; print CPU time and elapsed time, s, peak memory, GB, and file size, MB."""
    record: Record | None = open_records([arguments.record])[0] if arguments.record else None
    past = record.read(range(len(record) - PAST, len(record))) if record else synthetic_rain(tuple(arguments.grid))
    start, cores, size = time.perf_counter(), time.process_time(), 0.0
    if arguments.only == "steps":
        for members in Steps().members(past, LEADS, arguments.members):
            assert (np.nan_to_num(members) >= DRY_THRESHOLD).any()
    elif record:
        forecaster = Ensemble(open_forecaster(arguments.forecaster, device=pick_device("cpu")), arguments.members)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "members.nc"
            predict(forecaster, [record], path, selection=Selection(), folder=False)
            size = path.stat().st_size / 1e6
    else:
        forecaster = Ensemble(open_forecaster(arguments.forecaster, device=pick_device("cpu")), arguments.members)
        for members in forecaster.draw(past, LEADS):
            assert (np.nan_to_num(members) >= DRY_THRESHOLD).any()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{time.process_time() - cores:.1f} {time.perf_counter() - start:.1f} {memory:.2f} {size:.1f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", help="NetCDF record whose newest frames are forecast")
    parser.add_argument("--grid", type=lambda text: [int(n) for n in text.split(",")], default=[256, 256], metavar="Y,X")
    parser.add_argument("--forecaster", default="extrapolation")
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--only", choices=("members", "steps"), help="run only this one, in this process")
    arguments = parser.parse_args(argv)
    if arguments.only:
        run(arguments)
        return
    results = {}
    for name in ("members", "steps"):
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--only", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
        results[name] = [float(number) for number in done.stdout.split()[-4:]]
        print("{}: {:.1f} s of a core, {:.1f} s, {:.2f} GB, file {:.1f} MB".format(name, *results[name]), flush=True)
    print(f"members ÷ steps: {results['members'][0] / results['steps'][0]:.3f} of the seconds of a core")


if __name__ == "__main__":
    try:
        main()
    except NowcastError as error:
        sys.exit(f"{error}")
