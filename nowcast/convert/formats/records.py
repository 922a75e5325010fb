"""NetCDF that nowcast reads as records, such as BoM's: the stored values of frames, with their encoding.

`arrays` uses it for all NetCDF, after rewriting files with groups or without units as plain NetCDF.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nowcast.convert.original import Encoding, Options, Original, Series
from nowcast.convert.place import Axis, Place, RecordGrid
from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES, unreadable
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.rain.packing import decode
from nowcast.netcdf.rain.units import meaning
from nowcast.netcdf.record import FrameLayout, Record, keep_chunks
from nowcast.netcdf.times.intervals import time_bounds


def scan(path: Path, options: Options) -> list[Original]:
    """Return the frames of a file. Raises DataError (exit 3) if no rain is found in it, or nowcast wrote it."""
    return frames_of(opened(path, options.variable), path)


def read(path: Path, numbers: Sequence[int], options: Options) -> Iterator[np.ndarray]:
    """Yield frames, (y, x) as stored, rows in the order of the file. Raises DataError (exit 3) for damaged frames."""
    yield from stored(path, numbers, opened(path, options.variable).layouts[0])


def opened(path: Path, variable: str | None) -> Record:
    """Open a file as a record. Raises DataError (exit 3) if it is not one, or holds sequences."""
    (record,) = open_records([path], variable=variable)
    if record.layouts[0].sequence_length:
        raise DataError(f"{path} holds sequences of frames without their own times.\nExpected frames over time, y and x.")
    return record


def frames_of(record: Record, path: Path) -> list[Original]:
    """Return the frames of a record of one file, with their positions in it."""
    layout = record.layouts[0]
    place = Place(
        Axis(0.0, 1.0, record.grid.shape[0]), Axis(0.0, 1.0, record.grid.shape[1]), record_grid=RecordGrid(record.grid)
    )
    about = (
        ("title", f"Radar record {record.variable}"),
        ("institution", record.institution or "unknown"),
        ("source", f"NetCDF, variable {record.variable}"),
    )
    series = Series(record.variable, place, encoding_of(path, layout).storage, _interval(layout), about)
    times = record.stamps if len(record.stamps) else record.times
    positions = [int(position) for _, position in record.frame_sources]
    bounds = _bounds(path, layout, record.times) if series.interval is not None else None
    return [
        Original(time, position, series, bounds=None if bounds is None else (bounds[position, 0], bounds[position, 1]))
        for time, position in zip(times, positions, strict=True)
    ]


def _bounds(path: Path, layout: FrameLayout, times: np.ndarray) -> np.ndarray | None:
    """Return start and end of each frame in the order of the file, (frame, 2) datetime64[s]; None if not stated."""
    with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
        bounds = time_bounds(dataset, layout.field, times, str(path))
    return None if bounds is None else np.sort(bounds.reshape(-1, 2), axis=1)


def _interval(layout: FrameLayout) -> float | None:
    """Return the accumulation interval of amounts, minutes; None for rates and reflectivity."""
    if layout.field.kind != "amount" or layout.field.decibel:
        return None
    return round(60 * meaning(layout.field.units).scale / layout.conversion.scale, 6)


def encoding_of(path: Path, layout: FrameLayout) -> Encoding:
    """Return the encoding of the stored values of a file."""
    field, packing = layout.field, layout.field.packing
    if field.decibel:
        return Encoding(np.dtype("f4"))
    with OPEN_FILES.lock, OPEN_FILES.briefly(path) as dataset:
        kind = dataset.variables[field.variable].dtype.newbyteorder("=")
    kind = np.dtype(kind.str.replace("i", "u")) if packing.unsigned else kind
    unpack = layout.conversion.unpacking(packing.scale_factor, packing.add_offset)
    dry = packing.dry[0] if packing.dry else None
    return Encoding(kind, unpack.scale, unpack.offset, packing.missing, dry, bool(unpack.zr))


def stored(path: Path, numbers: Sequence[int], layout: FrameLayout) -> Iterator[np.ndarray]:
    """Yield frames of an open file by their positions, (y, x) as stored. Raises DataError (exit 3) for damaged ones."""
    encoding = encoding_of(path, layout)
    for number in numbers:
        try:
            with OPEN_FILES.lock:
                dataset = OPEN_FILES.get(path)
                keep_chunks(dataset.variables[layout.field.variable], layout.field)
                (selection,) = layout.selections(number, 1)
                raw = np.squeeze(layout.field.stored(dataset, selection, turned=(False, False)))
        except (OSError, RuntimeError, IndexError) as error:
            raise unreadable(error, f"{path} has a damaged frame {number}", "Expected a whole file.") from error
        yield _stored(np.atleast_2d(raw), layout, encoding)
    OPEN_FILES.close()


def _stored(raw: np.ndarray, layout: FrameLayout, encoding: Encoding) -> np.ndarray:
    packing = layout.field.packing
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if layout.field.decibel:
        return encoding.store(decode(raw, packing, layout.conversion))
    raw = raw.view(encoding.kind) if packing.unsigned else raw
    for number in packing.dry[1:]:
        raw = np.where(raw == number, packing.dry[0], raw)
    out = encoding.store(raw)
    out[(raw < packing.low) | (raw > packing.high)] = encoding.storage.fill
    return out
