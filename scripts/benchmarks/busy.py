#!/usr/bin/env python3
"""Time a training and its forecast on idle cores and beside busy processes, and check that all results are identical.

In each round a training and a forecast run as commands of their own, once idle and once beside the busy processes. Times are
medians in seconds. Results are the bytes of best.safetensors and config.toml, and the forecast file except its history.
Exit code 1 if two results differ.

    python scripts/benchmarks/busy.py configs/quickstart.toml --record data/sample.nc --rounds 5 --set training.steps=60
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import netCDF4

from nowcast.runtime.device import num_cores

STATES = ("idle", "busy")


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Context manager that keeps `number` cores busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def seconds_of(*words: str | Path) -> float:
    """Run a nowcast command; return its time, s."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "nowcast", *map(str, words), "-q", "--overwrite"], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def digests(run: Path, forecast: Path) -> tuple[str, str]:
    """Return hashes of the files of a training, and of a forecast file without its history."""
    trained = hashlib.sha256((run / "best.safetensors").read_bytes() + (run / "config.toml").read_bytes())
    forecast_digest = hashlib.sha256()
    with netCDF4.Dataset(forecast) as file:
        file.set_auto_mask(False)
        forecast_digest.update(str({key: value for key, value in file.__dict__.items() if key != "history"}).encode())
        for name, variable in file.variables.items():
            forecast_digest.update(f"{name} {variable.__dict__}".encode() + variable[...].tobytes())
    return trained.hexdigest(), forecast_digest.hexdigest()


def measure(config: str, record: str, settings: Sequence[str], *, rounds: int, busy: int, folder: Path) -> bool:
    """Measure and print; return whether all results were identical."""
    times: dict[tuple[str, str], list[float]] = {(what, state): [] for what in ("train", "predict") for state in STATES}
    answers = []
    run, forecast = folder / "run", folder / "forecast.nc"
    changed = [word for setting in settings for word in ("--set", setting)]
    for _ in range(rounds):
        for state in STATES:
            with busy_processes(busy if state == "busy" else 0):
                times["train", state].append(seconds_of("train", config, "--data", record, *changed, "--output", run))
                times["predict", state].append(seconds_of("predict", run, record, "--output", forecast))
            answers.append(digests(run, forecast))
    for what, found in zip(("train", "predict"), zip(*answers, strict=True), strict=True):
        idle, beside = (median(times[what, state]) for state in STATES)
        ratio, number = f"{beside / idle:.2f} times", f"{len(set(found))} different of {len(found)} results"
        print(f"{what:8} idle {idle:.1f} s, busy {beside:.1f} s, {ratio}; {number}", flush=True)
    return len(set(answers)) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--record", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=num_cores(), help="busy processes (default: one for each core)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = measure(args.config, args.record, args.set, rounds=args.rounds, busy=args.busy, folder=Path(folder))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
