"""NetCDF and Zarr stores. NetCDF that nowcast can read is read by `records`, the rest by xarray.

Frames of Zarr stores, and of files with groups or without units, are written in small numbers as plain NetCDF to a temporary
folder, and read as records.
"""

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nowcast.convert.formats import records
from nowcast.convert.original import ZARR, Options, Original
from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.places.axes import angle
from nowcast.netcdf.places.grid import Grid, carried, read_grid
from nowcast.netcdf.rain.candidates import rank
from nowcast.netcdf.rain.dryness import refine, row_step, sampled
from nowcast.netcdf.rain.packing import decode
from nowcast.netcdf.rain.totals import refusal, total_of
from nowcast.netcdf.rain.units import RAIN_NAMES, meaning
from nowcast.netcdf.rain.variable import Field, find_field
from nowcast.netcdf.record import FrameLayout, Record
from nowcast.netcdf.writing.new_file import writing
from nowcast.runtime.log_lines import standing_for, warn_once
from nowcast.runtime.signals import held

_AT_ONCE = 8  # frames in a temporary file
_FIRST = 4  # frames from which grid and units are read
_BOUNDS = re.compile(r"_(bnds|bounds)$", re.IGNORECASE)
_PLAIN = (str, int, float, np.number)  # types of attributes that every NetCDF file can hold


def _is_plain(path: Path, options: Options) -> bool:
    """Return whether nowcast can read a file directly: NetCDF with the rain outside of groups, and with units."""
    return not (path.is_dir() or options.units or _is_grouped(path, options.variable))


def _is_grouped(path: Path, variable: str | None) -> bool:
    """Return whether a file has groups, and the variable or all rain is inside them."""
    try:
        with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
            variables = dataset.variables
            is_outside = variable in variables if variable else any(rank(dataset, name) is not None for name in variables)
            return bool(dataset.groups) and not is_outside
    except DataError:
        return False


def scan(path: Path, options: Options) -> list[Original]:
    """Return the frames of a store or file. Raises DataError (exit 3) if no rain is found in it, or totals since a start."""
    if _is_plain(path, options):
        return records.scan(path, options)
    with _dataset(path, options) as (dataset, name), tempfile.TemporaryDirectory() as folder:
        record = _described(dataset, name, Path(folder), path)
        _refuse_totals(record, dataset, path)
        return records.frames_of(record, record.paths[0])


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield frames, (y, x) as stored, numbers ascending. Raises DataError (exit 3) for damaged ones."""
    if _is_plain(path, options):
        yield from records.read(path, numbers, options)
        return
    with _dataset(path, options) as (dataset, name), tempfile.TemporaryDirectory() as folder:
        layout = _described(dataset, name, Path(folder), path).layouts[0]
        for block in _batched(numbers):
            temporary = Path(folder) / f"{block[0]}.nc"
            _write(_frames(dataset, layout.field, block), layout.field.variable, temporary)
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
        with warnings.catch_warnings():  # xarray recommends consolidated metadata, which the user of a store cannot choose
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
            tree = xarray.open_datatree(
                path.absolute(), engine=engine, mask_and_scale=False, decode_times=False, chunks=None, cache=False
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be opened ({str(error)[:100]}).\nExpected a whole store or file.") from error
    try:
        dataset, name = _chosen(tree, options, path)
        if engine == "zarr":
            dataset = _without_default_fills(dataset, path)
        if options.units and name and not _states_others(dataset[name].attrs, options.units, name, path):
            dataset = dataset.assign({name: dataset[name].assign_attrs(units=options.units)})
        try:
            yield dataset, name
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged ({str(error)[:100]}).\nExpected a whole store or file.") from error
    finally:
        tree.close()


def _without_default_fills(dataset, path: Path):
    """Return the dataset of a store where 0 is missing in no variable that has it as an ordinary number; warn about rain.

    Version 2 has fill_value = 0 by default, for chunks that were never written, which xarray takes as the missing value: all
    dry cells would be missing.
    """
    for name, values in dataset.variables.items():
        declared = dict(values.attrs)
        fill = declared.pop("_FillValue", None)
        if not np.isscalar(fill) or fill != 0 or declared.get("add_offset", 0) != 0 or declared.get("missing_value") == 0:
            continue
        values = values.copy(deep=False)
        values.attrs = declared
        dataset = dataset.assign({name: values})
        if values.ndim >= 2 and _says_rain(declared):
            said = f"{name}: 0, the fill_value of the store and Zarr's default, is taken as dry"
            warn_once(path, f"{said}. If it means missing, state that by an attribute missing_value = 0")
    return dataset


def _states_others(declared: dict, given: str, name: str, path: Path) -> bool:
    """Return whether a variable states units of rain that differ from those given by the user; log a warning if so.

    Those of an amount without a stated interval may be given as a rate, such as mm/5min.
    """
    stated = str(declared.get("units") or declared.get("unit") or "")
    meant, wanted = meaning(stated), meaning(given)
    if meant is None or wanted is None or meant == wanted or meant.kind == "dimensionless":
        return False
    if (meant.kind, wanted.kind) == ("amount", "rate"):
        return False
    warn_once(path, f'{name} states units "{stated}", which are used; "{given}" (--units) is for files that state none')
    return True


def _chosen(tree, options: Options, path: Path) -> tuple:
    """Return the dataset of the group with the variable, or of the only group with rain, and the name of its only field.

    If no group has units of rain, the first one with a field over y and x is chosen. Raises DataError (exit 3) if several
    groups have rain, or no group has a field.
    """
    group, _, name = (options.variable or "").rpartition("/")
    names, with_rain, others = [], [], []
    for node in tree.subtree:
        dataset = _with_outer(node)
        own = node.to_dataset(inherit=False).data_vars  # not those of its parent groups, which are searched themselves
        fields = [field for field, values in own.items() if values.ndim >= 2 and field not in _bounds(dataset)]
        rain = [field for field in fields if _says_rain(dataset[field].attrs)]
        names += [f"{node.path.rstrip('/')}/{field}".lstrip("/") for field in rain or fields]
        if name in dataset and (not group or node.path.strip("/") == group.strip("/")):
            return dataset, name
        if not name and fields:
            (with_rain if rain else others).append((dataset, fields[0] if len(fields) == 1 else None))
    if len(with_rain) == 1 or (others and not with_rain):
        return (with_rain or others)[0]
    listed = ", ".join(names[:8]) or "no fields"
    raise DataError(f"{path} has {listed}.\nExpected {options.variable or 'a field over y and x'}; --variable names one.")


def _with_outer(node):
    """Return the dataset of a group, with the coordinates, bounds and attributes of its parent groups that apply to it."""
    dataset = node.to_dataset()
    for parent in node.parents:
        outer = parent.to_dataset()
        bounds = _bounds(outer)
        fitting = [
            name for name, values in outer.variables.items()
            if name not in dataset and set(values.dims[:-1] if name in bounds else values.dims) <= set(dataset.sizes)
        ]  # fmt: skip
        attributes = {name: value for name, value in outer.attrs.items() if name.isidentifier() and isinstance(value, _PLAIN)}
        dataset = dataset.assign({name: outer[name].variable for name in fitting}).assign_attrs(attributes | dataset.attrs)
    return dataset


def _bounds(dataset) -> set[str]:
    """Return the names of bounds of coordinates: those named by an attribute, and `…_bnds`."""
    named = {str(values.attrs.get(key)) for values in dataset.variables.values() for key in ("bounds", "climatology")}
    return {
        name for name, values in dataset.variables.items()
        if values.shape[-1:] == (2,) and (name in named or _BOUNDS.search(str(name)))
    }  # fmt: skip


def _says_rain(declared: dict) -> bool:
    parsed = meaning(str(declared.get("units", "")))
    return declared.get("standard_name") in RAIN_NAMES or (parsed is not None and parsed.kind != "dimensionless")


def _described(dataset, name: str | None, folder: Path, path: Path) -> Record:
    """Return a record of all frames: grid and codes from some frames, times and interval from a dry file of four cells.

    That file is the only one of the record. `path` is the original, which messages name.
    """
    field, grid = _field_and_grid(dataset, name, folder / "first.nc", path)
    small = dataset.isel({field.y_dim: slice(2), field.x_dim: slice(2)})
    values = small[field.variable]
    empty = values.copy(data=np.zeros(values.shape, values.dtype))
    temporary = folder / f"{path.stem}.nc"
    _write(small.assign({field.variable: empty}), field.variable, temporary)
    try:
        with standing_for(temporary, path):
            record = records.opened(temporary, field.variable)
    except DataError as error:
        raise DataError(str(error).replace(str(temporary), str(path))) from None
    finally:
        OPEN_FILES.close_one(temporary)
    layout = replace(record.layouts[0], turned=grid.turned)
    field = _with_codes(dataset, layout, len(record.frame_sources), path)
    return replace(record, grid=grid, layouts=(replace(layout, field=field),))


def _field_and_grid(dataset, name: str | None, temporary: Path, path: Path) -> tuple[Field, Grid]:
    """Return the field and the grid of a dataset, read from a temporary file of a few frames."""
    fields = [dataset[name]] if name else [values for values in dataset.data_vars.values() if values.ndim > 2]
    dims = [dim for field in fields for dim, size in zip(field.dims, field.shape, strict=True) if size > 1]
    dims.sort(key=lambda dim: not _counts_time(dataset, dim))
    is_series = bool(fields) and sum(size > 1 for size in fields[0].shape) > 2
    _write(dataset.isel({dims[0]: slice(_FIRST)}) if is_series else dataset, name, temporary)
    with OPEN_FILES.lock, OPEN_FILES.briefly(temporary) as file:
        field = find_field(file, str(path), name)
        grid = read_grid(file, field, str(path))
    return field, carried(grid, temporary)


def _frames(dataset, field: Field, numbers: Sequence[int]):
    """Return the dataset of some frames; the whole one if it has a single frame."""
    return dataset.isel({field.frame_dims[0]: list(numbers)}) if field.frame_dims else dataset


def _stored(dataset, field: Field, numbers: Sequence[int]) -> np.ndarray:
    """Return frames (frame, y, x) as they are stored, on large grids only some rows."""
    values = _frames(dataset, field, numbers)[field.variable]
    values = values.transpose(*field.frame_dims, ..., field.y_dim, field.x_dim)
    stored = values[..., :: row_step(values.shape[-2:]), :].to_numpy().reshape(len(numbers), -1, values.shape[-1])
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def _with_codes(dataset, layout: FrameLayout, num_frames: int, path: Path) -> Field:
    """Return the field with undeclared codes, found in a few frames, added to its packing, as records have it."""
    field = layout.field
    if not field.quantity.is_rain:
        return field
    packing, remark = refine(_stored(dataset, field, sampled(num_frames)), field.packing, layout.conversion)
    if remark:
        warn_once(path, f"{field.variable}: {remark}")
    return replace(field, packing=packing)


def _refuse_totals(record: Record, dataset, path: Path) -> None:
    """Raise DataError (exit 3) for totals since the start of a run, as for records."""
    layout = record.layouts[0]

    def read(place: range) -> np.ndarray:
        numbers = record.frame_sources[list(place), 1]
        return decode(_stored(dataset, layout.field, numbers), layout.field.packing, layout.conversion)

    if layout.may_be_total and (said := total_of(read, len(record))):
        raise DataError(refusal(f"{path}: {record.variable}, which {said},"))


def _write(dataset, name: str | None, path: Path) -> None:
    """Write frames with their coordinates, bounds and grid mappings as plain NetCDF. Raises OutputError (exit 5)."""
    kept = dataset
    if name:
        bounds, dims = _bounds(dataset), set(dataset[name].dims)
        beside = [
            other
            for other, values in dataset.data_vars.items()
            if values.ndim < 2 or (set(values.dims) <= dims and angle(other, values.attrs))
            or (other in bounds and set(values.dims[:-1]) <= dims)
        ]  # fmt: skip
        kept = dataset[[name, *(other for other in beside if other != name)]]
    kept = kept.load().drop_encoding().assign_attrs()  # a copy, whose attributes are replaced
    halves = [other for other, values in kept.variables.items() if values.dtype == np.float16]  # which NetCDF lacks
    kept = kept.assign({other: kept[other].astype(np.float32) for other in halves})
    for each in (kept, *kept.variables.values()):
        each.attrs = _writable(each.attrs)
    with writing(path), held():
        kept.to_netcdf(path, engine="netcdf4", encoding={each: {"_FillValue": None} for each in kept.variables
                                                        if "_FillValue" not in kept[each].attrs})  # fmt: skip


def _writable(declared: dict) -> dict:
    """Return the attributes that NetCDF can hold: not the objects, nulls and nested lists that Zarr's JSON may have."""
    # NetCDF has neither true nor false, and `_Unsigned` is text in it
    held = {name: float(value) if isinstance(value, np.float16) else value for name, value in declared.items()}
    texts = {name: str(value).lower() if isinstance(value, bool | np.bool_) else value for name, value in held.items()}
    lists = {name: value if isinstance(value, list | tuple | np.ndarray) else [value] for name, value in texts.items()}
    return {
        name: value for name, value in texts.items()
        if "/" not in name and all(isinstance(each, _PLAIN) and not isinstance(each, bool) for each in lists[name])
    }  # fmt: skip


def _counts_time(dataset, dim: str) -> bool:
    """Return whether a dimension is called time, or its coordinate has units such as `hours since …`."""
    along = [values for values in dataset.variables.values() if values.dims == (dim,)]
    return dim.lower() == "time" or any("since" in str(values.attrs.get("units", "")) for values in along)
