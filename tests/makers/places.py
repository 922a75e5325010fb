"""Write records with coordinates in the different ways found in archives; the field is RAIN, in any order of dimensions."""

import netCDF4
import numpy as np

from makers.stored import START

RAIN = np.arange(60, dtype=np.float32).reshape(2, 5, 6)  # mm/h, (time, y, x), row 0 northernmost, column 0 westernmost
LATITUDES = 50.04 - 0.01 * np.arange(5)  # from the north
LONGITUDES = 5 + 0.015 * np.arange(6)  # from the west
NORTH = {"standard_name": "latitude", "units": "degrees_north"}
EAST = {"standard_name": "longitude", "units": "degrees_east"}
MAP_Y = {"standard_name": "projection_y_coordinate", "units": "m"}
MAP_X = {"standard_name": "projection_x_coordinate", "units": "m"}


def placed(
    path, coordinates=(), *, indices=(), dims=("y", "x"), order="tyx", turned=(False, False), mapping=None, **attributes
):
    """Write RAIN over `dims` with coordinates (name, dims, values, attributes) given from the north and west; return the path.

    indices: further coordinates, in the order of the file; order: of time, y and x in the file; turned: whether to write rows
    from the south, and columns from the east; mapping: attributes of `crs`; attributes: of the variable.
    """
    steps = dict(zip(dims, (-1 if turn else 1 for turn in turned), strict=True))
    counts = {name for name, *_ in indices}
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip(("time", *dims), RAIN.shape, strict=True):
            file.createDimension(dim, size)
        time = file.createVariable("time", "i4", ("time",))
        time.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01"})
        time[:] = START + 300 * np.arange(2)
        for name, own, values, declared in [*coordinates, *indices]:
            values = np.asarray(values)
            if name not in counts:
                values = values[tuple(slice(None, None, steps.get(dim.removesuffix("_b"), 1)) for dim in own)]
            for dim, size in zip(own, values.shape, strict=True):
                if dim not in file.dimensions:
                    file.createDimension(dim, size)
            variable = file.createVariable(name, values.dtype, own, fill_value=declared.get("_FillValue"))
            variable.set_auto_maskandscale(False)
            variable.setncatts({key: value for key, value in declared.items() if key != "_FillValue"})
            variable[...] = values
        if mapping:
            file.createVariable("crs", "i4").setncatts(mapping)
        names = dict(zip("tyx", ("time", *dims), strict=True))
        rain = file.createVariable("rr", "f4", tuple(names[axis] for axis in order))
        rain.setncatts({"standard_name": "rainfall_rate", "units": "mm/h"} | attributes)
        rain[:] = RAIN[:, :: steps[dims[0]], :: steps[dims[1]]].transpose(["tyx".index(axis) for axis in order])
    return path


def along(dims=("y", "x"), names=("lat", "lon"), north=0.0, east=0.0, kind="f8"):
    """Latitude over one dimension, longitude over the other."""
    y, x = ((LATITUDES + north).astype(kind), (LONGITUDES + east).astype(kind))
    return [(names[0], dims[:1], y, NORTH), (names[1], dims[1:], x, EAST)]


def over(dims=("y", "x"), names=("lat", "lon"), north=0.0, east=0.0, declared=(NORTH, EAST)):
    """Latitude and longitude, each over both dimensions."""
    degrees = np.meshgrid(LATITUDES + north, LONGITUDES + east, indexing="ij")
    return [(name, dims, values, each) for name, values, each in zip(names, degrees, declared, strict=True)]


def edges(names=("lat_edges", "lon_edges"), declared=(NORTH, EAST)):
    """Latitude and longitude of the edges of rows and columns alone, one more than there are of them."""
    y, x = LATITUDES[0] + 0.005 - 0.01 * np.arange(6), LONGITUDES[0] - 0.0075 + 0.015 * np.arange(7)
    return [(names[0], ("y_b",), y, declared[0]), (names[1], ("x_b",), x, declared[1])]


def corners(declared=(NORTH, EAST), of_cells=False):
    """Latitude and longitude of the corners of the grid, or of those of each cell, alone."""
    both = np.meshgrid(*(values for _, _, values, _ in edges()), indexing="ij")
    parts = [[degrees[a : 5 + a, b : 6 + b] for a, b in ((0, 0), (0, 1), (1, 1), (1, 0))] for degrees in both]
    values, dims = ([np.stack(each, -1) for each in parts], ("y", "x", "v")) if of_cells else (both, ("y_b", "x_b"))
    return [(name, dims, *each) for name, *each in zip(("lat_b", "lon_b"), values, declared, strict=True)]


def packed(coordinates):
    """The same coordinates as int16 in thousandths of a degree from 40 and from 0."""
    return [
        (name, dims, np.round((values - offset) * 1000).astype("i2"), declared | {"scale_factor": 0.001, "add_offset": offset})
        for (name, dims, values, declared), offset in zip(coordinates, (40.0, 0.0), strict=True)
    ]


def timed(coordinates, moving=0.0):
    """The same coordinates with a time in front of their dimensions, in degrees per frame."""
    frames = np.arange(2)[:, None, None] * moving
    return [(name, ("time", *dims), values + frames, declared) for name, dims, values, declared in coordinates]


def index(first=0, step=1, dims=("y", "x"), **declared):
    """Numbers of rows and of columns, with these attributes."""
    sizes = RAIN.shape[1:]
    return [
        (dim, (dim,), (first + np.arange(size)[::step]).astype("f8"), declared) for dim, size in zip(dims, sizes, strict=True)
    ]


def on_map(names=("y", "x"), dims=("y", "x"), y0=0.0, x0=0.0, size=1000.0, declared=(MAP_Y, MAP_X)):
    """Coordinates of a map, of cells of `size`."""
    y, x = y0 - size * np.arange(5), x0 + size * np.arange(6)
    return [(names[0], dims[:1], y, declared[0]), (names[1], dims[1:], x, declared[1])]
