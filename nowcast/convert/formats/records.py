"""NetCDF that nowcast reads as records, among them BoM's: the stored numbers of frames, with what they mean.

`arrays` reads files with it: with groups or without units by way of a plain file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import Numbers, Options, Original, Series
from nowcast.convert.place import Axis, GivenGrid, Place
from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES, unreadable
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.rain.packing import decode
from nowcast.netcdf.rain.units import meaning
from nowcast.netcdf.record import FrameLayout, Record, keep_chunks
from nowcast.netcdf.times.intervals import time_bounds


def scan(path: Path, options: Options) -> list[Original]:
    """Return the frames of a file. Raises DataError (exit 3) if it holds no rain that is known, or nowcast made it."""
    return frames_of(opened(path, options.variable), path)


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield frames, (y, x) as stored, rows in the order of the file. Raises DataError (exit 3) for damaged frames."""
    yield from stored(path, numbers, opened(path, options.variable).layouts[0])


def opened(path: Path, variable: str | None) -> Record:
    """Open a file as a record. Raises DataError (exit 3) if it cannot be, or holds sequences."""
    (record,) = open_records([path], variable=variable)
    if record.layouts[0].sequence_length:
        raise DataError(f"{path} holds sequences of frames without their own times.\nExpected frames over time, y and x.")
    return record


def frames_of(record: Record, path: Path) -> list[Original]:
    """Return the frames of a record of one file, by their positions in it."""
    layout = record.layouts[0]
    place = Place(Axis(0.0, 1.0, record.grid.shape[0]), Axis(0.0, 1.0, record.grid.shape[1]), given=GivenGrid(record.grid))
    about = (
        ("title", f"Radar record {record.variable}"),
        ("institution", record.institution or "unknown"),
        ("source", f"NetCDF, variable {record.variable}"),
    )
    series = Series(record.variable, place, numbers_of(path, layout).storage, _interval(layout), about)
    times = record.stamps if len(record.stamps) else record.times
    positions = [int(position) for _, position in record.frame_sources]
    bounds = _bounds(path, layout, record.times) if series.interval is not None else None
    return [
        Original(time, position, series, bounds=None if bounds is None else (bounds[position, 0], bounds[position, 1]))
        for time, position in zip(times, positions, strict=True)
    ]


def _bounds(path: Path, layout: FrameLayout, times: np.ndarray) -> np.ndarray | None:
    """Return the start and end of each frame of a file in its order, (frame, 2) datetime64[s]; None if it does not tell."""
    with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
        bounds = time_bounds(dataset, layout.field, times, str(path))
    return None if bounds is None else np.sort(bounds.reshape(-1, 2), axis=1)


def _interval(layout: FrameLayout) -> float | None:
    """Return the minutes that amounts were summed over; None for rates and reflectivity."""
    if layout.field.kind != "amount" or layout.field.decibel:
        return None
    return round(60 * meaning(layout.field.units).scale / layout.conversion.scale, 6)


def numbers_of(path: Path, layout: FrameLayout) -> Numbers:
    """Return what the stored numbers of a file mean."""
    field, packing = layout.field, layout.field.packing
    if field.decibel:
        return Numbers(np.dtype("f4"))
    with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
        kind = dataset.variables[field.variable].dtype.newbyteorder("=")
    kind = np.dtype(kind.str.replace("i", "u")) if packing.unsigned else kind
    unpack = layout.conversion.unpacking(packing.scale_factor, packing.add_offset)
    dry = packing.dry[0] if packing.dry else None
    return Numbers(kind, unpack.scale, unpack.offset, packing.missing, dry, bool(unpack.zr))


def stored(path: Path, numbers: Sequence[int], layout: FrameLayout) -> Iterator[np.ndarray]:
    """Yield frames of an open file by their positions, (y, x) as stored. Raises DataError (exit 3) for damaged ones."""
    meant = numbers_of(path, layout)
    for number in numbers:
        try:
            with OPEN_FILES.lock:
                dataset = OPEN_FILES.get(path)
                keep_chunks(dataset.variables[layout.field.variable], layout.field)
                (selection,) = layout.selections(number, 1)
                raw = np.squeeze(layout.field.stored(dataset, selection, turned=(False, False)))
        except (OSError, RuntimeError, IndexError) as error:
            raise unreadable(error, f"{path} has a damaged frame {number}", "Expected a whole file.") from error
        yield _stored(np.atleast_2d(raw), layout, meant)
    OPEN_FILES.close()


def _stored(raw: np.ndarray, layout: FrameLayout, meant: Numbers) -> np.ndarray:
    packing = layout.field.packing
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if layout.field.decibel:
        return meant.store(decode(raw, packing, layout.conversion))
    raw = raw.view(meant.kind) if packing.unsigned else raw
    for number in packing.dry[1:]:
        raw = np.where(raw == number, packing.dry[0], raw)
    out = meant.store(raw)
    out[(raw < packing.low) | (raw > packing.high)] = meant.storage.fill
    return out
