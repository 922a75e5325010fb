"""Write records with damaged frames."""

import os
import re

import netCDF4
import numpy as np

from makers import write_record


def damage(path, frames):
    """Flip a byte in the stored chunk of each of these frames."""
    content = bytearray(path.read_bytes())
    chunks = [match.start() for match in re.finditer(re.escape(b"\x78\x5e"), bytes(content))]  # where zlib streams begin
    for frame in frames:
        content[chunks[frame] + 40] ^= 255
    path.write_bytes(content)


def write_by_frame(path, fields):
    """Write a record as `write_record` does, with one chunk per frame."""
    write_record(path, fields)
    stored = path.with_suffix(".stored")
    with netCDF4.Dataset(path) as source, netCDF4.Dataset(stored, "w") as file:
        for name, dim in source.dimensions.items():
            file.createDimension(name, dim.size)
        for name, old in source.variables.items():
            chunks = (1, *old.shape[1:]) if old.ndim == 3 else None
            options = {"zlib": True, "complevel": 4, "chunksizes": chunks, "fill_value": np.float32(-9999)} if chunks else {}
            new = file.createVariable(name, old.dtype, old.dimensions, **options)
            new.setncatts({key: value for key, value in vars(old).items() if key != "_FillValue"})
            new[...] = old[...]
    os.replace(stored, path)
    return path
