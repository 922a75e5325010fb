#!/usr/bin/env python3
"""Measure commands on a folder of one file per frame: the first time, and again when the files are in the index of the cache.

Prints CPU seconds, those of starting the program included. Needs 13 kB of disk for each file.

    python scripts/benchmarks/opening.py --files 3000
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import netCDF4
import numpy as np

START, STEP_SECONDS = 1_590_969_600, 300
SHAPE = 48, 37  # cells


def write_frame(path: Path, field: np.ndarray, seconds: int) -> None:
    """Write a field (y, x), mm/h, as a CF file of one frame on a grid of 2 km."""
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.11"
        for name, values, facts in (
            ("time", [seconds], {"standard_name": "time", "units": "seconds since 1970-01-01"}),
            ("y", -2000.0 * np.arange(SHAPE[0]), {"standard_name": "projection_y_coordinate", "units": "m"}),
            ("x", 2000.0 * np.arange(SHAPE[1]), {"standard_name": "projection_x_coordinate", "units": "m"}),
        ):
            file.createDimension(name, len(values))
            variable = file.createVariable(name, "f8", (name,))
            variable.setncatts(facts)
            variable[:] = values
        crs = file.createVariable("crs", "i4")
        crs.setncatts({"grid_mapping_name": "azimuthal_equidistant", "latitude_of_projection_origin": 57.0,
                       "longitude_of_projection_origin": 12.0})  # fmt: skip
        rain = file.createVariable("rainfall_rate", "f4", ("time", "y", "x"), fill_value=np.float32(-1), zlib=True)
        rain.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1", "grid_mapping": "crs"})
        rain[:] = field[None]


def write_folder(folder: Path, num_files: int) -> None:
    """Write a shower that crosses the grid from west to east every 40 frames."""
    folder.mkdir()
    y, x = np.indices(SHAPE)
    for number in range(num_files):
        shower = 20 * np.exp(-((y - 24) ** 2 + (x - number % 40) ** 2) / 50) - 0.1
        path = folder / f"{number:06}.nc"
        write_frame(path, np.maximum(shower, 0), START + STEP_SECONDS * number)
        os.utime(path, (START, START))  # what has just been written is opened again


def cpu_seconds(*arguments: str | Path, cache: Path) -> float:
    """Return the CPU seconds that a nowcast command takes with this cache."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "nowcast", *map(str, arguments), "-q"]
    environment = os.environ | {"NOWCAST_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Write the folder, and print a line for each command: the first time and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000, help="number of files, one frame each")
    num_files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as place:
        folder, output, cache = Path(place, "radar"), Path(place, "forecast.nc"), Path(place, "cache")
        write_folder(folder, num_files)
        commands = {"inspect": ("inspect", folder)}
        for name in ("persistence", "extrapolation"):
            commands[f"predict {name}"] = ("predict", name, folder, "--output", output, "--overwrite")
        commands["evaluate persistence"] = ("evaluate", "persistence", "--observations", folder, "--every", "1440")
        for name, arguments in commands.items():
            shutil.rmtree(cache, ignore_errors=True)
            first, again = (cpu_seconds(*arguments, cache=cache) for _ in range(2))
            print(f"{name}: {first:.1f} s, again {again:.1f} s: {first / again:.1f} times faster")


if __name__ == "__main__":
    main()
