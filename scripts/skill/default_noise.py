#!/usr/bin/env python3
"""Measure the default structure of members' noise, for extrapolation, on records of one time step and cell size.

Uses up to `--cases` wet cases per record, spread over its windows of 4 past and 12 future frames, and of these only the
middle of the grid. The tables are printed as in nowcast/forecasters/members/default_structure.py, which is used by forecasters
without a measured structure; so the records need an open licence.

    python scripts/skill/default_noise.py fmi/20160928.nc mch/20150515.nc mch/20170131.nc
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from members import LEADS, PAST, cases_of

from nowcast.errors import NowcastError, UsageError
from nowcast.forecasters.baselines import Extrapolation
from nowcast.forecasters.members.draw import DRY
from nowcast.forecasters.members.keep import middle
from nowcast.forecasters.members.measure import Case, measure
from nowcast.forecasters.members.structure import Structure
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.scores.distribution import RATES

MOST_RATIO = 1.05  # largest ratio of cell sizes or time steps between records
SHOWN_LEADS = (0, 1, 2, 3, 5, 7, 9, 11)  # lead times of the table; those between are interpolated


def measured(records: Sequence[Record], *, cases: int, side: int) -> tuple[Structure, int]:
    """Measure the structure on the middle (side, side) of records; return it and the number of cases.

    Raises UsageError (exit 2) for records of different time steps or cell sizes, or smaller than `side`.
    """
    scales = np.array([Extrapolation().on_record(record, record.time_step).scale for record in records])
    if (scales.max(axis=0) > MOST_RATIO * scales.min(axis=0)).any():
        raise UsageError(f"the records have cells of different km or time steps of different minutes: {scales.tolist()}")
    km, minutes = scales.mean(axis=0)
    chosen_cases = [case_of(record, positions, side) for record in records for positions in cases_of(record, (), cases)]
    grids = {case.observed.shape[1:] for case in chosen_cases}
    if len(grids) != 1:
        raise UsageError(f"the middles of the records have {len(grids)} different shapes; give a smaller --side")
    return measure(lambda: iter(chosen_cases), grids.pop(), LEADS, km=float(km), minutes=float(minutes)), len(chosen_cases)


def case_of(record: Record, positions: np.ndarray, side: int) -> Case:
    """Return the middle of a case with the probabilities of extrapolation."""
    frames = middle(record.read(positions), side)
    past, observed = frames[:PAST], np.where(frames[PAST:] < DRY, 0, frames[PAST:])  # NaN stays NaN
    probabilities = Extrapolation().on_record(record, record.time_step).exceedance_by_lead(past, LEADS, RATES)
    return Case(past, observed, np.stack(list(probabilities)))


def table(structure: Structure) -> str:
    """Return the structure as Python constants, as in default_structure.py."""
    rows = list(SHOWN_LEADS)
    power = structure.power[:, rows]
    lines = [
        f"MINUTES = [{', '.join(f'{value:g}' for value in structure.minutes[rows])}]",
        f"KM = [{', '.join(f'{value:.2f}' for value in structure.km)}]",
        "# fmt: off",
        *constant("POWER", "logarithm, a row for each lead time", power - power.max(axis=2, keepdims=True), digits=2),
        *constant("MEMORY", "correlation with the previous lead time", structure.memory[:, rows], digits=3),
        "# fmt: on",
        f"SHARED = {structure.shared:.2f}",
    ]
    return "\n".join(lines)


def constant(name: str, what: str, tables: np.ndarray, *, digits: int) -> Iterator[str]:
    """Yield the lines of a constant with the tables (noise, lead, wave) of both noises."""
    yield f"{name} = ["
    for noise, rows_of_noise in zip(("where it rains", "how hard"), tables, strict=True):
        yield f"    [  # {noise}: {what}"
        yield from (f"        [{', '.join(f'{value:.{digits}f}' for value in row)}]," for row in rows_of_noise)
        yield "    ],"
    yield "]"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+")
    parser.add_argument("--cases", type=int, default=6, help="wet cases per record")
    parser.add_argument("--side", type=int, default=256, help="cells of the middle of each grid that are measured")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    try:
        structure, number = measured(open_records(arguments.records), cases=arguments.cases, side=arguments.side)
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"# {number} cases of {len(arguments.records)} files\n{table(structure)}")


if __name__ == "__main__":
    main()
