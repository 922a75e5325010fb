#!/usr/bin/env python3
"""Make a large synthetic archive for tests: one file a day, a frame every five minutes, 900 × 900 cells, mostly dry.

A few days are generated and compressed. Each day of the archive is a copy of one of them with its own date, so a year
(105,120 frames, 170 GB decoded) is written in a minute and takes two gigabytes. On some days cells of rain move across the
circle that the radar observes; the other days are dry. Outside the circle all is missing.

    python scripts/data/make_archive.py --output archive --days 365
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np

FRAMES, STEP_SECONDS = 288, 300
SCALE, FILL = 0.01, -1  # mm/h per count; the count of a missing cell
WET_DAYS, DRY_DAYS = 2, 6  # numbers of days that are generated
CELLS, REACH = 6, 45  # number of rain cells on a wet day; radius of each in grid cells


def observed(size: int) -> np.ndarray:
    """Return the circle (y, x) that the radar observes: bool."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    return np.hypot(y, x) <= 0.49 * size


def day(size: int, rng: np.random.Generator, num_cells: int) -> Iterator[np.ndarray]:
    """Yield the frames (y, x) of a day, int16 in 0.01 mm/h."""
    known = observed(size)
    offsets = np.arange(-REACH, REACH + 1)
    shape = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (REACH / 3) ** 2))
    starts, places = rng.integers(0, FRAMES - 60, num_cells), rng.uniform(0.2 * size, 0.8 * size, (num_cells, 2))
    motion, heaviest = rng.uniform(-2.5, 2.5, 2), rng.uniform(3, 60, num_cells)
    for frame in range(FRAMES):
        rain = np.zeros((size + 2 * REACH, size + 2 * REACH))
        for start, place, peak in zip(starts, places, heaviest, strict=True):
            age = (frame - start) / 60
            y, x = np.round(place + motion * (frame - start)).astype(int)
            if 0 < age < 1 and min(y, x) >= 0 and max(y, x) < size:
                rain[y : y + 2 * REACH + 1, x : x + 2 * REACH + 1] += peak * np.sin(np.pi * age) * shape
        rain = rain[REACH:-REACH, REACH:-REACH]
        yield np.where(known, np.round(np.where(rain < 0.1, 0, rain) / SCALE), FILL).astype(np.int16)


def write_day(path: Path, frames: Iterator[np.ndarray], size: int) -> None:
    """Write the frames of a day as CF NetCDF."""
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"Conventions": "CF-1.11", "title": "A day of a made-up radar archive", "source": "make_archive.py"})
        for name, number in (("time", FRAMES), ("y", size), ("x", size)):
            file.createDimension(name, number)
        time = file.createVariable("time", "i4", ("time",))
        time.setncatts({"standard_name": "time", "units": "seconds since 2000-01-01", "calendar": "standard"})
        time[:] = STEP_SECONDS * np.arange(FRAMES)
        for name, step in (("y", -1000.0), ("x", 1000.0)):
            coordinate = file.createVariable(name, "f8", (name,))
            coordinate.setncatts({"standard_name": f"projection_{name}_coordinate", "units": "m"})
            coordinate[:] = step * (np.arange(size) - (size - 1) / 2)
        storage = {"zlib": True, "complevel": 1, "chunksizes": (1, size, size), "fill_value": np.int16(FILL)}
        rate = file.createVariable("rainfall_rate", "i2", ("time", "y", "x"), **storage)
        rate.setncatts({"standard_name": "rainfall_rate", "units": "mm h-1", "scale_factor": SCALE})
        rate.set_auto_maskandscale(False)
        for position, frame in enumerate(frames):
            rate[position] = frame


def write_archive(folder: Path, *, days: int, size: int, start: np.datetime64, seed: int) -> None:
    """Write one file for each of `days` days, named by its date."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        made_days = [Path(made) / str(number) for number in range(WET_DAYS + DRY_DAYS)]
        for number, path in enumerate(made_days):
            write_day(path, day(size, rng, CELLS if number < WET_DAYS else 0), size)
        for date in start + np.arange(days):
            path = folder / f"{date}.nc"
            shutil.copyfile(made_days[rng.integers(len(made_days))], path)
            with netCDF4.Dataset(path, "a") as file:
                file["time"].units = f"seconds since {date}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("archive"))
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--size", type=int, default=900, help="cells along y and along x")
    parser.add_argument("--start", type=lambda text: np.datetime64(text, "D"), default=np.datetime64("2021-01-01"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_archive(args.output, days=args.days, size=args.size, start=args.start, seed=args.seed)
    total = sum(path.stat().st_size for path in args.output.glob("*.nc"))
    print(f"{args.output}: {args.days} files, {args.days * FRAMES:,} frames, {total / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
