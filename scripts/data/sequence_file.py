"""Write synthetic sequences as CF NetCDF, with dimensions (sequence, time, y, x), of a quantity from 0 to 1 in units "1"."""

import os
from collections.abc import Iterable
from pathlib import Path

import netCDF4
import numpy as np

STEP_SECONDS = 60  # time step; any would do, as the sequences belong to no real time


def write_sequences(path: Path, sequences: Iterable[np.ndarray], *, title: str, source: str) -> int:
    """Write sequences (time, y, x) of values in [0, 1], packed in bytes; return their number.

    The file is complete or does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with netCDF4.Dataset(partial, "w") as file:
            file.setncatts({"Conventions": "CF-1.11", "title": title, "source": source})
            count = _fill(file, sequences)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _fill(file: netCDF4.Dataset, sequences: Iterable[np.ndarray]) -> int:
    data, number = None, -1
    for number, sequence in enumerate(sequences):
        if data is None:
            data = _create(file, sequence.shape)
        data[number] = np.round(sequence * 255).astype(np.uint8)
    return number + 1


def _create(file: netCDF4.Dataset, shape: tuple[int, int, int]) -> netCDF4.Variable:
    for name, size in zip(("sequence", "time", "y", "x"), (None, *shape), strict=True):
        file.createDimension(name, size)
    time = file.createVariable("time", "i4", ("time",))
    time.setncatts({"standard_name": "time", "units": "seconds since 2000-01-01 00:00:00", "calendar": "standard"})
    time[:] = np.arange(shape[0]) * STEP_SECONDS
    dims = ("sequence", "time", "y", "x")
    data = file.createVariable("intensity", "u1", dims, zlib=True, complevel=4, chunksizes=(1, *shape), fill_value=False)
    data.setncatts({"long_name": "intensity", "units": "1", "scale_factor": 1 / 255, "add_offset": 0.0})
    data.set_auto_maskandscale(False)
    return data
