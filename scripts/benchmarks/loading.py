#!/usr/bin/env python3
"""Measure windows per second of this project's loader, of a plain loop of xarray `isel`, and of xbatcher's BatchGenerator.

Each row of the table is the same synthetic rain in a NetCDF-4 file with other chunks: one frame, or blocks of 16 frames and
64 × 64 cells, with zlib and without. All readers return windows of float32 mm/h, NaN missing, at random places, on one
thread, from files in the page cache. "first epoch" opens and packs the record and then reads each window once. "later" is
the loader during training after that, in batches of `--batch`; "turned" is the same with flips and rotations. "copied" is a
copy by NumPy from a float32 record in memory, always to the same place. The crops of xbatcher lie on a lattice; it is left
out if it is not installed. All are timed in turn in every round. Rates are the median over the rounds with the range,
ratios the median of the ratios in each round.

    python scripts/benchmarks/loading.py --crops 0 128
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import netCDF4
import numpy as np
import torch
import xarray

from nowcast.dataset.batches import Batches, Series
from nowcast.dataset.loader import load
from nowcast.dataset.packed import pack
from nowcast.dataset.windows import find_windows
from nowcast.netcdf.opening import open_records

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))

import make_rain

VARIABLE = "rainfall_rate"
BLOCK = (16, 64, 64)  # chunk of a file in blocks: frames and cells
AUGMENTATION = ("flips", "rotations")
NAMES = {
    "plain": "xarray `isel`",
    "xbatcher": "xbatcher",
    "copied": "copied in memory",
    "first": "ours, first epoch",
    "later": "ours, later",
    "turned": "ours, later, turned",
}


@dataclass(frozen=True)
class Storage:
    """Chunks and compression of a file."""

    blocks: bool
    zlib: bool

    @property
    def name(self) -> str:
        chunks = "blocks of 16 × 64 × 64" if self.blocks else "one frame a chunk"
        return f"{chunks}, {'zlib 4' if self.zlib else 'not compressed'}"


STORAGES = tuple(Storage(blocks, zlib) for blocks in (False, True) for zlib in (False, True))


def moving_rain(frames: int, shape: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    """Yield `frames` fields (y, x) mm/h of rain that moves but does not evolve, which would take half a second a frame."""
    (field,) = make_rain.gaussian_fields(1, 2 ** int(np.ceil(np.log2(2 * max(shape)))), np.random.default_rng(seed))
    rain, observed = make_rain.to_rain(field, 0.52).astype(np.float32), make_rain.observed_mask(shape)
    for k in range(frames):
        yield np.where(observed, np.roll(rain, (k, 2 * k), (0, 1))[: shape[0], : shape[1]], np.nan)


def write(path: Path, rain: Iterator[np.ndarray], sizes: tuple[int, int, int], storage: Storage, stored: str) -> None:
    """Write a record as in archives: int16 in 0.01 mm/h with a fill value, or float32."""
    with netCDF4.Dataset(path, "w") as file:
        for name, step, size in zip(("time", "y", "x"), (300, -1000, 1000), sizes, strict=True):
            file.createDimension(name, size)
            file.createVariable(name, "i4", (name,))[:] = step * np.arange(size)
        file["time"].units = "seconds since 2020-06-01"
        for name in "yx":
            file[name].setncatts({"standard_name": f"projection_{name}_coordinate", "units": "m"})
        fill = make_rain.FILL if stored == "int16" else np.float32(np.nan)
        options = {"zlib": storage.zlib, "complevel": 4, "fill_value": fill}
        chunks = np.minimum(BLOCK if storage.blocks else (1, *sizes[1:]), sizes)
        variable = file.createVariable(VARIABLE, stored, ("time", "y", "x"), chunksizes=chunks, **options)
        variable.setncatts({"standard_name": VARIABLE, "units": "mm h-1"})
        if stored == "int16":
            variable.scale_factor = np.float32(make_rain.SCALE)  # float32, so that xarray decodes to float32 and not 64
        variable.set_auto_maskandscale(False)
        for position, frame in enumerate(rain):
            counts = np.round(np.nan_to_num(frame) / make_rain.SCALE)
            variable[position] = frame if stored == "float32" else np.where(np.isnan(frame), fill, counts)


def plain_windows(path: Path, length: int, crop: int, seed: int) -> Iterator[np.ndarray]:
    """Yield windows (frame, y, x) read by `isel`, the simplest way with xarray."""
    rng = np.random.default_rng(seed)
    with xarray.open_dataset(path, engine="netcdf4") as dataset:
        field = dataset[VARIABLE]
        sizes = [length, crop or field.sizes["y"], crop or field.sizes["x"]]
        while True:
            starts = [rng.integers(total - size + 1) for total, size in zip(field.shape, sizes, strict=True)]
            corner = {dim: slice(at, at + size) for dim, at, size in zip(field.dims, starts, sizes, strict=True)}
            yield field.isel(corner).values


def copied_windows(fields: np.ndarray, length: int, crop: int, seed: int) -> Iterator[np.ndarray]:
    """Yield windows (frame, y, x) copied from fields in memory, all to the same place."""
    rng = np.random.default_rng(seed)
    sizes = [length, crop or fields.shape[1], crop or fields.shape[2]]
    window = np.empty(sizes, np.float32)
    while True:
        starts = [rng.integers(total - size + 1) for total, size in zip(fields.shape, sizes, strict=True)]
        np.copyto(window, fields[tuple(slice(at, at + size) for at, size in zip(starts, sizes, strict=True))])
        yield window


def xbatcher_windows(path: Path, length: int, crop: int, seed: int) -> Iterator[np.ndarray]:
    """Yield windows (frame, y, x) of a BatchGenerator, which start at any frame, in random order."""
    from xbatcher import BatchGenerator

    rng = np.random.default_rng(seed)
    with xarray.open_dataset(path, engine="netcdf4") as dataset:
        sizes = {"time": length} | {dim: crop or dataset.sizes[dim] for dim in "yx"}
        batches = BatchGenerator(dataset[[VARIABLE]], input_dims=sizes, input_overlap={"time": length - 1})
        while True:
            yield batches[int(rng.integers(len(batches)))][VARIABLE].values


def has_xbatcher() -> bool:
    try:
        import xbatcher  # noqa: F401
    except ImportError:
        return False
    return True


def packed_series(path: Path, length: int) -> Series:
    """Return the packed frames of a record and all its windows; pack it if it is not in the cache."""
    (record,) = open_records([path])
    past = min(4, length - 1)
    windows = find_windows(record.times, input_frames=past, lead_frames=length - past, time_step=record.time_step)
    return Series(record.name, pack(record), windows)


def rate(windows: Iterator, seconds: float, each: int = 1) -> float:
    """Measure windows per second of an iterator that yields `each` at a time; the first item is not timed."""
    next(windows)
    began, number = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        next(windows)
        number += each
    return number / elapsed


def epoch_seconds(batches: Batches) -> float:
    """Measure the seconds to read each window once; the last batch may include windows of the next epoch."""
    began = time.perf_counter()
    for _ in load(batches, 0, -(-batches.num_windows // batches.batch_size), workers=0):
        pass
    return time.perf_counter() - began


def measure(path: Path, args: argparse.Namespace, seed: int) -> dict[int, dict[str, float]]:
    """Measure the windows per second of each reader, by crop. Our loader starts with an empty cache."""
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        os.environ["NOWCAST_CACHE"] = cache
        began = time.perf_counter()
        series = packed_series(path, args.window)
        packing = time.perf_counter() - began
        rates_by_crop = {crop: measure_crop(path, series, packing, args, crop, seed) for crop in args.crops}
    with xarray.open_dataset(path, engine="netcdf4") as dataset:
        fields = dataset[VARIABLE].values
    for crop, rates in rates_by_crop.items():
        rates["copied"] = rate(copied_windows(fields, args.window, crop, seed), args.seconds)
    return rates_by_crop


def measure_crop(
    path: Path, series: Series, packing: float, args: argparse.Namespace, crop: int, seed: int
) -> dict[str, float]:
    """Measure the windows per second of each reader for one crop; `packing`: seconds that packing took."""

    def ours(sampler: str, augmentation: tuple[str, ...] = ()) -> Batches:
        return Batches([series], batch_size=args.batch, crop=crop, seed=seed, sampler=sampler, augmentation=augmentation)

    rates = {"first": len(series.windows) / (packing + epoch_seconds(ours("each")))}
    rates["plain"] = rate(plain_windows(path, args.window, crop, seed), args.seconds)
    if has_xbatcher():
        rates["xbatcher"] = rate(xbatcher_windows(path, args.window, crop, seed), args.seconds)
    for name, augmentation in (("later", ()), ("turned", AUGMENTATION)):
        batches = load(ours(args.sampler, augmentation), 0, 1 << 30, workers=0)
        rates[name] = rate(batches, args.seconds, args.batch)
    return rates


def table(rounds: dict[Storage, list[dict[str, float]]]) -> list[str]:
    """Return a Markdown table: a row per storage, with windows per second as median (range), and ratios to the plain loop."""
    lines = [f"| chunks | {' | '.join(NAMES.values())} | later ÷ plain | turned ÷ plain | copied ÷ plain |"]
    lines.append(f"| --- |{' ---: |' * (len(NAMES) + 3)}")
    for storage, measured in rounds.items():
        cells = [_figure([one[name] for one in measured]) if name in measured[0] else "not installed" for name in NAMES]
        ratios = [f"{median(one[name] / one['plain'] for one in measured):.1f}" for name in ("later", "turned", "copied")]
        lines.append(f"| {storage.name} | {' | '.join([*cells, *ratios])} |")
    return lines


def _figure(values: list[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


def run(args: argparse.Namespace, folder: Path) -> str:
    """Measure everything; return the tables as text."""
    torch.set_num_threads(1)
    shape = tuple(args.shape)
    paths = {storage: folder / f"record_{number}.nc" for number, storage in enumerate(STORAGES)}
    for storage, path in paths.items():
        write(path, moving_rain(args.frames, shape, seed=1), (args.frames, *shape), storage, args.stored)
    rounds: dict[int, dict[Storage, list]] = {crop: {storage: [] for storage in STORAGES} for crop in args.crops}
    for seed, (storage, path) in itertools.product(range(args.rounds), paths.items()):
        for crop, rates in measure(path, args, seed).items():
            rounds[crop][storage].append(rates)
    texts = []
    for crop, measured in rounds.items():
        size = f"{crop} × {crop} crops of " if crop else ""
        about = f"{args.window} frames, {size}{args.shape[0]} × {args.shape[1]} cells, stored as {args.stored}"
        texts += [f"Windows per second, {about}; median of {args.rounds} rounds (range).", "", *table(measured), ""]
    return "\n".join(texts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frames", type=int, default=2000, help="frames of the record: many, as the library caches 64 MiB of chunks"
    )
    parser.add_argument("--shape", type=int, nargs=2, default=(256, 256), metavar=("Y", "X"))
    parser.add_argument("--window", type=int, default=20, help="frames of a window")
    parser.add_argument("--crops", type=int, nargs="+", default=[0, 128], help="a table for each; 0: whole frames")
    parser.add_argument("--batch", type=int, default=4, help="windows of a batch, ours only")
    parser.add_argument("--sampler", default="uniform", choices=("uniform", "rain", "each"), help="ours only")
    parser.add_argument("--stored", default="int16", choices=("int16", "float32"), help="data type in the file")
    parser.add_argument("--seconds", type=float, default=0.5, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder for the files, which are removed at the end; default: temporary")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # xbatcher's
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(run(args, Path(folder)))


if __name__ == "__main__":
    main()
