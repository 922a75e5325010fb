"""Write the members of ensembles as CF-1.11 NetCDF-4, one frame of one member at a time; completely or not at all.

One reference time: `(time, realization, y, x)`, since CDO reads no other order. Many: `(forecast_reference_time,
forecast_period, realization, y, x)`. The rest is as in forecast_writer.py. Rates are packed to 0.01 mm/h in two bytes, heavier
ones to about 1 % (`rounded`).
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import netCDF4
import numpy as np

from nowcast.netcdf.accumulations import Accumulation
from nowcast.netcdf.attributes import OWN_RAIN
from nowcast.netcdf.forecast_writer import (
    RAIN_ATTRIBUTES,
    SUM_ATTRIBUTES,
    create_many,
    create_single,
    create_sum_times,
    create_variable,
    write_case_times,
)
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.writing.new_file import new_file, writing

REALIZATION_ATTRIBUTES = {"standard_name": "realization", "units": "1"}  # as improver has them
SCALE, FILL = 0.01, np.int16(netCDF4.default_fillvals["i2"])  # mm/h or mm
MOST = 32767  # units of SCALE
# (a, b): values from a units of SCALE on are rounded to multiples of b units, so that files stay small
COARSE = ((200, 2), (500, 5), (1000, 10), (2000, 20), (5000, 50))
ROUNDING = "from 2, 5, 10, 20 and 50 on rounded to multiples of 0.02, 0.05, 0.1, 0.2 and 0.5"


def write_members(
    path: Path,
    cases: Iterable[tuple[np.datetime64, Iterator[np.ndarray]]],
    *,
    num_members: int,
    grid: Grid,
    lead_times: np.ndarray,
    attributes: dict,
    single: bool,
    sums: Sequence[Accumulation] = (),
    overwrite: bool = False,
) -> None:
    """Write members to a file, lead by lead.

        cases: (reference time, members), of which each lead is (member, y, x) mm/h, row 0 northernmost, NaN missing
        lead_times, attributes, single, sums: as in `forecast_writer.write_forecast`

    Raises OutputError (exit 5) if the file exists or cannot be written; then none is left.
    """
    path, seconds = Path(path), np.asarray(lead_times, "timedelta64[s]").astype(np.int64)
    checksums: dict[tuple, int] = {}

    def is_as_written(dataset) -> bool:
        dataset.set_auto_maskandscale(False)
        frames = (zlib.crc32(np.ascontiguousarray(dataset[name][index])) for name, index in checksums)
        return all(found == expected for found, expected in zip(frames, checksums.values(), strict=True))

    with new_file(path, grid, attributes, is_as_written, overwrite=overwrite) as dataset:
        for number, (reference, members) in enumerate(cases):
            reference = np.datetime64(reference, "s")
            assert not (single and number), "one reference time to a file of this layout"
            with writing(path):
                if not number:
                    first = reference
                    _create(dataset, grid, first, seconds, num_members, sums, single=single)
                if not single:
                    write_case_times(dataset, number, reference - first, seconds, sums)
            checksums |= _write_case(dataset, path, None if single else number, members, grid, sums)


def _create(
    dataset, grid: Grid, reference: np.datetime64, seconds: np.ndarray, num_members: int, sums: Sequence, *, single: bool
) -> None:
    (create_single if single else create_many)(dataset, reference, seconds)
    dataset.createDimension("realization", num_members)
    number = dataset.createVariable("realization", "i4", ("realization",), fletcher32=True)
    number.setncatts(REALIZATION_ATTRIBUTES)
    number[:] = np.arange(num_members)
    times = ("time",) if single else ("forecast_reference_time", "forecast_period")
    variable = create_variable(dataset, grid, OWN_RAIN, "i2", (*times, "realization"), FILL)
    variable.setncatts(RAIN_ATTRIBUTES | {"scale_factor": SCALE, "comment": f"in mm h-1 {ROUNDING}"})
    for each in sums:
        dims, coordinates = create_sum_times(dataset, each, reference)
        variable = create_variable(dataset, grid, each.name, "i2", (*dims, "realization"), FILL, coordinates)
        variable.setncatts(
            SUM_ATTRIBUTES | each.described(single=single) | {"scale_factor": SCALE, "comment": f"in mm {ROUNDING}"}
        )


def _write_case(
    dataset, path: Path, case: int | None, members: Iterator[np.ndarray], grid: Grid, sums: Sequence[Accumulation]
) -> dict[tuple, int]:
    """Write the members of one case and their sums lead by lead; return the checksum of each frame by variable and index."""
    checksums, running = {}, {each.name: 0.0 for each in sums}

    def write(name: str, lead: int, fields: np.ndarray) -> None:
        for member, field in enumerate(fields):
            stored = packed(field[:: -1 if grid.y_ascending else 1, :: -1 if grid.x_descending else 1])
            index = (lead, member) if case is None else (case, lead, member)
            checksums[name, index] = zlib.crc32(stored)
            with writing(path):
                dataset[name][index] = stored

    for lead, fields in enumerate(members):
        write(OWN_RAIN, lead, fields)
        for each in sums:
            running[each.name] = running[each.name] + fields
            interval, position = divmod(lead, each.num_leads)
            if position == each.num_leads - 1:
                write(each.name, interval, running[each.name] * np.float32(each.minutes / 60 / each.num_leads))
                running[each.name] = 0.0
    return checksums


def packed(field: np.ndarray) -> np.ndarray:
    """Pack rates (…, y, x), mm/h, or sums, mm, as int16 in units of SCALE, as `rounded`."""
    missing = np.isnan(field)
    return np.ascontiguousarray(np.where(missing, FILL, rounded(np.where(missing, 0, field))).astype(np.int16))


def unpacked(stored: np.ndarray) -> np.ndarray:
    """Unpack values stored by `packed` (…, y, x), as a reader of the file does: float32, NaN missing."""
    # in float64, since 10 times 0.01 is below 0.1 in float32
    return np.where(stored == FILL, np.nan, stored * SCALE).astype(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round values (…, y, x) to multiples of SCALE, large ones more coarsely (COARSE); return them in units of SCALE."""
    exact = values / np.float32(SCALE)
    units = np.rint(exact)
    for least, step in COARSE:
        coarse = exact >= least
        units[coarse] = np.rint(exact[coarse] / step) * step
    return np.minimum(units, MOST)


def most_below(rate: float) -> float:
    """Return the most rain, mm/h, that stays below a rate, mm/h, in a file: little more is `rounded` up to it."""
    step = max(step for least, step in ((0, 1), *COARSE) if least < round(rate / SCALE))
    return rate - 0.51 * step * SCALE  # a little more than half a step, for the digits of float32
