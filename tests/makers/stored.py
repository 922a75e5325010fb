"""Write NetCDF files from stored (packed) values, with any dimensions, packing and attributes."""

import netCDF4
import numpy as np

from nowcast.netcdf.opening import open_records

START = 1_600_000_200  # seconds since 1970: 2020-09-13 12:30


def write(path, stored, *, dims=("time", "y", "x"), fill=None, times=None, name="rr", format="NETCDF4", **attributes):
    """Write a file of one variable with these `stored` values, unchanged; dims of any order and number, y descending."""
    stored = np.asarray(stored)
    with netCDF4.Dataset(path, "w", format=format) as file:
        for dim, size in zip(dims, stored.shape, strict=True):
            file.createDimension(dim, size)
        num_times = stored.shape[dims.index("time")] if "time" in dims else 1
        times = START + 300 * np.arange(num_times) if times is None else times
        time = file.createVariable("time", "i4", ("time",) if "time" in dims else ())
        time.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01"})
        time[...] = times
        for dim, step in (("y", -1000.0), ("x", 1000.0)):
            if dim in dims:
                coordinate = file.createVariable(dim, "f8", (dim,))
                coordinate.setncatts({"standard_name": f"projection_{dim}_coordinate", "units": "m"})
                coordinate[:] = step * np.arange(len(file.dimensions[dim]))
        endian = "big" if stored.dtype.byteorder == ">" else "native"
        variable = file.createVariable(name, stored.dtype, dims, fill_value=fill, endian=endian)
        variable.setncatts({"units": "mm h-1"} | attributes)
        variable.set_auto_maskandscale(False)
        variable[...] = stored
    return path


def edit(path):
    return netCDF4.Dataset(path, "a")


def open_one(path, **options):
    (record,) = open_records([path], **options)
    return record


def read_one(path, **options):
    record = open_one(path, **options)
    return record.read(range(len(record)))


def add_variable(path, name, dims=("time", "y", "x"), value=5.0, **attributes):
    with edit(path) as file:
        variable = file.createVariable(name, "f4", dims)
        variable.setncatts(attributes)
        variable[...] = value
