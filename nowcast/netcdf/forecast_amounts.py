"""Interpret the numbers of forecast files where one file alone is ambiguous: intervals of amounts, totals, codes for dry."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.forecast_layout import ForecastLayout
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.rain.dryness import SAMPLE, refine, row_step, sampled
from nowcast.netcdf.record import most_frequent_step
from nowcast.netcdf.times.forecast import Times
from nowcast.runtime.log_lines import warn_once

_ZERO = np.timedelta64(0, "s")


class File(Protocol):
    """The attributes of a forecast file that this module needs."""

    path: Path
    layout: ForecastLayout
    times: Times
    grid: Grid


def with_intervals(files: Sequence[File], leads: np.ndarray) -> list[File]:
    """Return the files with the interval of their amounts, which does not follow from a single file with one lead time.

    leads: (lead,) timedelta64[s] of all files together

    Amounts whose interval is the whole lead time are totals where there are several lead times. Raises DataError (exit 3) for
    amounts over an unknown interval, and for files whose intervals differ.
    """
    kinds = {file.layout.amounts for file in files}
    if kinds == {""}:
        return list(files)
    forecast = leads[leads > _ZERO]
    are_totals = kinds <= {"whole", "total"} and len(forecast) > 1
    step = most_frequent_step(leads) if len(forecast) > 1 else np.timedelta64("NaT", "s")
    shared: dict[ForecastLayout, ForecastLayout] = {}
    settled = []
    for file in files:
        if file.layout not in shared:
            shared[file.layout] = _settled(file, forecast, step, are_totals=are_totals)
        settled.append(replace(file, layout=shared[file.layout]))
    for file in settled:
        own, first = file.layout.conversion.describe, settled[0].layout.conversion.describe
        if own != first:
            raise DataError(
                f"{file.path} holds amounts in {own} but {settled[0].path} holds amounts in {first}.\n"
                "Expected one forecaster's files: name the others by themselves."
            )
    return settled


def _settled(file: File, forecast: np.ndarray, step: np.timedelta64, *, are_totals: bool) -> ForecastLayout:
    """Return the layout of a file with its interval: stated, else the step between the lead times `forecast` (lead,)."""
    layout, amounts = file.layout, file.layout.amounts
    if amounts == "whole":
        amounts = "total" if are_totals else "stated"
    if amounts in ("stated", "spaced"):
        return replace(layout, amounts=amounts)
    if np.isnat(step) and amounts == "total" and len(forecast):
        step, amounts = forecast[0], "stated"
    seconds = None if np.isnat(step) else int(step.astype(np.int64))
    return replace(layout, amounts=amounts, conversion=layout.field.conversion(interval_seconds=seconds, where=str(file.path)))


def of_steps(files: Sequence[File], leads: np.ndarray) -> list[File]:
    """Return files of totals, to be divided by the step between the lead times (lead,)."""
    seconds = int(most_frequent_step(leads).astype(np.int64))
    return [
        replace(f, layout=replace(f.layout, conversion=f.layout.field.conversion(interval_seconds=seconds, where=str(f.path))))
        for f in files
    ]


def with_undeclared(files: Sequence[File], selection: Callable[[File, int], dict]) -> list[File]:
    """Return the files with undeclared codes for dry and for missing, found in a sample of fields, added to their packing.

    selection: returns the indices to read from a file at a position, counted over its time dimensions
    """
    layout = files[0].layout
    if layout.kind == "probability" or not layout.quantity.is_rain:
        return list(files)
    every, sample = row_step(files[0].grid.shape), []
    alike = [file for file in files if file.layout.field == layout.field]
    for file in (alike[number] for number in sampled(len(alike))):
        positions = sampled(file.times.valid.size, max(SAMPLE // len(alike), 1))
        # a damaged file is reported when it is read
        with (
            contextlib.suppress(DataError, OSError, RuntimeError, IndexError, KeyError, ValueError),
            OPEN_FILES.lock,
            OPEN_FILES.briefly(file.path) as dataset,
        ):
            for position in positions:
                stored = layout.field.stored(dataset, selection(file, int(position)), turned=(False, False))
                sample.append(stored.reshape(-1, *file.grid.shape)[:SAMPLE, ::every].copy())
    if not sample:
        return list(files)
    packing, remark = refine(np.concatenate(sample), layout.field.packing, layout.conversion)
    if remark:
        warn_once(files[0].path, f"{layout.field.variable}: {remark}")
    field = replace(layout.field, packing=packing)
    return [replace(f, layout=replace(f.layout, field=field)) if f.layout.field == layout.field else f for f in files]
