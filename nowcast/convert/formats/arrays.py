"""NetCDF, and Zarr stores. NetCDF that nowcast can read is that of `records`; the rest is read by xarray.

Of stores, and of files with groups or without units, some frames at a time are written as plain NetCDF to a temporary folder,
and read as records.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.formats import records
from nowcast.convert.original import ZARR, Options, Original
from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES
from nowcast.runtime.signals import held

_AT_ONCE = 8  # frames in a temporary file
_FIRST = 4  # frames that tell grid, units and interval


def _is_plain(path: Path, options: Options) -> bool:
    """Return whether nowcast can read a file as it is: NetCDF with variables outside of groups, whose units are told."""
    return not (path.is_dir() or options.units or _is_grouped(path))


def _is_grouped(path: Path) -> bool:
    try:
        with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
            return bool(dataset.groups) and not dataset.variables
    except DataError:
        return False


def scan(path: Path, options: Options) -> list[Original]:
    """Return the frames of a store or file. Raises DataError (exit 3) if it holds no rain that is known."""
    if _is_plain(path, options):
        return records.scan(path, options)
    with _dataset(path, options) as (dataset, name), tempfile.TemporaryDirectory() as folder:
        record, dim = _first(dataset, name, Path(folder), path)
        originals = records.frames_of(record, record.paths[0])
        OPEN_FILES.close()
        if dim is None:
            return originals
        times = _times(dataset, dim, path)
    series = originals[0].series
    return [Original(time, number, series) for number, time in enumerate(times)]


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield frames, (y, x) as stored, numbers ascending. Raises DataError (exit 3) for damaged ones."""
    if _is_plain(path, options):
        yield from records.read(path, numbers, options)
        return
    with _dataset(path, options) as (dataset, name), tempfile.TemporaryDirectory() as folder:
        record, dim = _first(dataset, name, Path(folder), path)
        layout = record.layouts[0]
        for block in _batched(numbers):
            chosen = dataset if dim is None else dataset.isel({dim: list(block)})
            temporary = Path(folder) / f"{block[0]}.nc"
            _write(chosen, name, temporary)
            yield from records.stored(temporary, range(len(block)), layout)
            temporary.unlink()


def _batched(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    numbers = tuple(numbers)
    yield from (numbers[first : first + _AT_ONCE] for first in range(0, len(numbers), _AT_ONCE))


@contextlib.contextmanager
def _dataset(path: Path, options: Options) -> Iterator[tuple]:
    """Open a store or file; yield the dataset, undecoded, of the group that holds the variable, and its name."""
    import xarray

    engine = "zarr" if path.is_dir() else "netcdf4"
    if engine == "zarr":
        ZARR.load("Zarr stores")
    try:
        tree = xarray.open_datatree(
            path.absolute(), engine=engine, mask_and_scale=False, decode_times=False, chunks=None, cache=False
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be opened ({str(error)[:100]}).\nExpected a whole store or file.") from error
    try:
        dataset, name = _chosen(tree, options, path)
        if options.units and name:
            dataset = dataset.assign({name: dataset[name].assign_attrs(units=options.units)})
        try:
            yield dataset, name
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged ({str(error)[:100]}).\nExpected a whole store or file.") from error
    finally:
        tree.close()


def _chosen(tree, options: Options, path: Path) -> tuple:
    """Return the dataset of the group that holds the variable; of several groups the first with a field over y and x."""
    group, _, name = (options.variable or "").rpartition("/")
    found = []
    for node in tree.subtree:
        dataset = node.to_dataset()
        fields = [field for field, values in dataset.data_vars.items() if values.ndim >= 2]
        found += [f"{node.path.rstrip('/')}/{field}".lstrip("/") for field in fields]
        if name in dataset and (not group or node.path.strip("/") == group.strip("/")):
            return dataset, name
        if not name and fields:
            return dataset, fields[0] if len(fields) == 1 else None
    has = ", ".join(found[:8]) or "no fields"
    raise DataError(f"{path} has {has}.\nExpected {options.variable or 'a field over y and x'}; --variable names one.")


def _first(dataset, name: str | None, folder: Path, path: Path) -> tuple:
    """Return a record of the first frames, and the dimension over frames; None if there is one frame."""
    fields = [dataset[name]] if name else [values for values in dataset.data_vars.values() if values.ndim > 2]
    dims = [dim for field in fields for dim, size in zip(field.dims, field.shape, strict=True) if size > 1][:1]
    is_series = bool(fields) and sum(size > 1 for size in fields[0].shape) > 2
    temporary = folder / "first.nc"
    _write(dataset.isel({dims[0]: slice(_FIRST)}) if is_series else dataset, name, temporary)
    try:
        record = records.opened(temporary, name)
    except DataError as error:
        raise DataError(str(error).replace(str(temporary), str(path))) from None
    frame_dims = record.layouts[0].field.frame_dims
    return record, frame_dims[0] if frame_dims else None


def _write(dataset, name: str | None, path: Path) -> None:
    """Write frames with their coordinates and grid mappings as plain NetCDF."""
    kept = dataset
    if name:
        beside = [other for other, values in dataset.data_vars.items() if values.ndim < 2]
        kept = dataset[[name, *(other for other in beside if other != name)]]
    kept = kept.load().drop_encoding()
    with OPEN_FILES.lock, held():
        kept.to_netcdf(path, engine="netcdf4", encoding={each: {"_FillValue": None} for each in kept.variables
                                                        if "_FillValue" not in kept[each].attrs})  # fmt: skip


def _times(dataset, dim: str, path: Path) -> np.ndarray:
    """Return the times over a dimension: (frame,) datetime64[s]. Raises DataError (exit 3) without."""
    import xarray

    names = [dim, *(name for name, values in dataset.variables.items() if values.dims == (dim,))]
    for name in names:
        if name in dataset.variables and "since" in str(dataset[name].attrs.get("units", "")):
            decoded = xarray.decode_cf(dataset[[name]].drop_vars([o for o in dataset[[name]].coords if o != name]))[name]
            return decoded.values.astype("datetime64[s]")
    raise DataError(f"{path} has no times over {dim}.\nExpected numbers with units such as seconds since 1970-01-01.")
