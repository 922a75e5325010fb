"""Time the conversion of a day of RADOLAN: `nowcast convert` of 288 files of 900 × 900 cells, in a process of its own.

    python scripts/benchmarks/converting.py
    python scripts/benchmarks/converting.py --frames 24 --processes 1
    python scripts/benchmarks/converting.py --beside

The files are synthetic: smooth rain that moves, a tenth of the cells wet, a fifth missing, compressed as DWD does. Printed is
one JSON object: seconds, seconds of CPU, frames a second, the megabytes of the files and of the record, and the load of the
machine. `--beside` reads the same files with pysteps as well, which unpacks and decodes them and writes nothing.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = 900  # cells, of DWD's national grid
START = np.datetime64("2020-06-01T00:00:00")
NO_DATA = 0x29C4
# program for `--beside`: pysteps cannot read compressed files
READING = """
import gzip, pathlib, sys, tempfile
from pysteps.io.importers import import_dwd_radolan
with tempfile.TemporaryDirectory() as folder:
    unpacked = pathlib.Path(folder, "frame.bin")
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        unpacked.write_bytes(gzip.decompress(path.read_bytes()))
        import_dwd_radolan(str(unpacked), "RY")
"""


def rain(seed: int) -> np.ndarray:
    """Return rain (y, x), uint16 counts of 0.01 mm, a tenth above 0, on twice the grid so that it can move."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(2 * SIZE, 2 * SIZE)).astype(np.float32), 12, mode="wrap")
    noise /= noise.std()
    return np.clip((noise - 1.28) * 60, 0, 4000).astype(np.uint16)


def write_files(folder: Path, frames: int, *, seed: int = 0) -> int:
    """Write `frames` RADOLAN files, one every 5 minutes; return their total size, bytes."""
    field, total = rain(seed), 0
    y, x = np.ogrid[:SIZE, :SIZE]
    outside = (y - SIZE / 2) ** 2 + (x - SIZE / 2) ** 2 > (0.5 * SIZE) ** 2
    for number in range(frames):
        moved = field[number : number + SIZE, 2 * number : 2 * number + SIZE].copy()
        moved[outside] = NO_DATA
        moment = (START + number * np.timedelta64(300, "s")).item()
        rest = f"VS 3SW   2.21.0PR E-02INT   5GP{SIZE:4d}x{SIZE:4d}MS 10<boo,ros>\x03"
        header = f"RY{moment:%d%H%M}10000{moment:%m%y}BY{2 * SIZE * SIZE + 26 + len(rest):7d}{rest}"
        data = gzip.compress(header.encode() + moved.astype("<u2").tobytes(), 6, mtime=0)
        (folder / f"raa01-ry_10000-{moment:%y%m%d%H%M}-dwd---bin.gz").write_bytes(data)
        total += len(data)
    return total


def timed(command: list) -> tuple[float, float, str]:
    """Run a command; return elapsed time and CPU time, s, and its output."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def measure(frames: int, processes: int | None, *, beside: bool = False) -> dict:
    """Convert `frames` files, with `beside` read them with pysteps too; return the results to print."""
    with tempfile.TemporaryDirectory() as name:
        files, output = Path(name) / "files", Path(name) / "archive"
        files.mkdir()
        num_bytes = write_files(files, frames)
        command = [sys.executable, "-m", "nowcast", "convert", files, "--output", output, "-q"]
        command += ["--processes", str(processes)] if processes else []
        seconds, cpu, printed = timed(command)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        record_bytes = sum(Path(path).stat().st_size for path in printed.split())
        others = timed([sys.executable, "-c", READING, files])[:2] if beside else ()
    named = zip(("pysteps_seconds", "pysteps_cpu_seconds"), others, strict=False)
    return {
        "frames": frames, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2),
        "frames_per_second": round(frames / seconds, 1), "files_mb": round(num_bytes / 1e6, 1),
        "record_mb": round(record_bytes / 1e6, 1), "peak_mb": round(peak / 1e3), "load": round(os.getloadavg()[0], 1),
    } | {name: round(value, 2) for name, value in named}  # fmt: skip


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=288, help="files of five minutes each; at most 450")
    parser.add_argument("--processes", type=int, help="processes that convert; default: one for each core")
    parser.add_argument("--beside", action="store_true", help="read the files with pysteps too")
    options = parser.parse_args()
    print(json.dumps(measure(options.frames, options.processes, beside=options.beside), indent=1))


if __name__ == "__main__":
    main()
