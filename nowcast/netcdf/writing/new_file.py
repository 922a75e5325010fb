"""Create a NetCDF-4 file with a grid: complete or not at all, and read back before it gets its final name."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.errors import DataError, OutputError
from nowcast.netcdf.files import OPEN_FILES, open_dataset
from nowcast.netcdf.places.grid import Carried, Grid
from nowcast.runtime.outputs import free_space, may_write, replacing, size

COMPRESSION = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
_REFERENCES = {"bounds", "climatology", "coordinates", "grid_mapping", "cell_measures", "ancillary_variables"}  # not copied
_PROJ4 = ("proj4", "proj4_params", "proj4_string", "proj_string")  # attributes of a grid mapping that hold a PROJ string


@contextlib.contextmanager
def new_file(
    path: Path,
    grid: Grid,
    attributes: Mapping[str, object],
    is_as_written: Callable[[netCDF4.Dataset], bool],
    *,
    overwrite: bool,
) -> Iterator[netCDF4.Dataset]:
    """Create a file with global attributes and a grid; it gets its final name after the block has filled it.

    is_as_written: returns whether the file, read back, holds what was written

    Files are read back because not every full or failing disk reports an error. Raises OutputError (exit 5) if the file
    exists, cannot be written or differs when read back; then no file is left.
    """
    may_write(path, overwrite=overwrite)
    with replacing(path, overwrite=overwrite) as partial:
        with writing(path):
            dataset = netCDF4.Dataset(partial, "w", format="NETCDF4")
        try:
            with writing(path):
                _write_globals(dataset, grid, attributes)
                _write_grid(dataset, grid)
            yield dataset
        finally:
            with writing(path):
                dataset.close()
        try:
            with OPEN_FILES.lock, open_dataset(partial) as dataset:
                same = is_as_written(dataset)
        except (DataError, OSError, RuntimeError, IndexError) as error:
            raise OutputError(f"{path} cannot be written: it cannot be read back ({str(error).splitlines()[0]}).") from error
        if not same:
            raise OutputError(f"{path} cannot be written: it does not read back as it was written.\nIs the disk failing?")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the lock of the NetCDF library for calls that write; their errors become OutputError (exit 5).

    Do not wait for another thread inside: it may need the lock.
    """
    try:
        with OPEN_FILES.lock:
            yield
    except (OSError, RuntimeError) as error:
        reason, free = getattr(error, "strerror", None) or error, "unknown"
        with contextlib.suppress(OSError):
            free = size(free_space(path.parent))
        hint = f"Is the disk full (free: {free}), or the folder read-only?"
        raise OutputError(f"{path} cannot be written: {reason}.\n{hint}") from error


def _write_globals(dataset, grid: Grid, attributes: Mapping[str, object]) -> None:
    proj4 = [grid.mapping_attributes[name] for name in _PROJ4 if name in grid.mapping_attributes]
    projection = {"projection": proj4[0]} if proj4 else {}  # pysteps looks for it here
    dataset.setncatts({"Conventions": "CF-1.11", **attributes, **projection})


def _write_grid(dataset, grid: Grid) -> None:
    for dim, coordinate in ((grid.y_name, grid.rows), (grid.x_name, grid.columns)):
        dataset.createDimension(dim, len(coordinate.values))
        variable = dataset.createVariable(coordinate.name, "f8", (dim,), fletcher32=True)
        for attribute, value in coordinate.attributes.items():
            if attribute not in _REFERENCES:
                limit = attribute.startswith("valid_") or attribute == "actual_range"  # of the type of the coordinate
                variable.setncattr(attribute, np.asarray(value, np.float64) if limit else value)
        variable[:] = coordinate.values
    for other in grid.carried:
        _write_other(dataset, other)
    if grid.mapping_name:
        dataset.createVariable(grid.mapping_name, "i4").setncatts(grid.mapping_attributes)


def _write_other(dataset, other: Carried) -> None:
    """Write an auxiliary coordinate as it was stored, with its packing."""
    own = {name: value for name, value in other.attributes.items() if name not in _REFERENCES}
    options = {"fill_value": own.pop("_FillValue", None), "zlib": True, "fletcher32": True}
    variable = dataset.createVariable(other.name, other.stored.dtype, other.dims, **options)
    variable.set_auto_maskandscale(False)
    variable.setncatts(own)
    variable[...] = other.stored


def auxiliary(grid: Grid) -> list[str]:
    """Return the names of the coordinates that differ from their dimension, which `coordinates` must list."""
    names = [grid.rows.name, grid.columns.name, *(other.name for other in grid.carried)]
    return [name for name in names if name not in (grid.y_name, grid.x_name)]
