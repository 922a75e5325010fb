"""Check arguments given in Python and convert them for the commands: paths, observations, times and thresholds."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from types import UnionType
from typing import Any

import numpy as np
import xarray as xr

from nowcast.errors import UsageError
from nowcast.netcdf.rain.data_arrays import stored
from nowcast.quantity import are_thresholds
from nowcast.scores.functions import numbers

RECORDS = "NetCDF files, folders or globs"
LABELLED = xr.DataArray | xr.Dataset


def listed(given: Any, single: type | UnionType) -> Iterable:
    """Return several things as they are, and one thing, also of the type `single`, in a list."""
    return given if isinstance(given, Iterable) and not isinstance(given, single) else [given]


def as_path(given: Any, name: str, *, expected: str) -> str:
    """Return a path as text, with ~ expanded. Raises UsageError (exit 2) for other types."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{name}: got the type {type(given).__name__}, which is not a path.\nExpected {expected}.")
    return os.path.expanduser(os.fspath(given))


def as_paths(given: Any, name: str, *, expected: str = RECORDS) -> list[str]:
    """Return one or several paths as texts. Raises UsageError (exit 2) for other types, and for an empty list."""
    paths = [as_path(each, name, expected=expected) for each in listed(given, str | LABELLED)]
    if not paths:
        raise UsageError(f"{name}: the list is empty.\nExpected {expected}.")
    return paths


def as_variable(given: Any) -> str | None:
    """Return the name of a variable, or several names as one text with commas. Raises UsageError (exit 2) for other types."""
    names = list(listed(given, str))
    if given is not None and not (names and all(isinstance(name, str) for name in names)):
        raise UsageError(f'variable = {given!r}: write the name of a variable, such as "rainfall_rate"')
    return None if given is None else ",".join(names)


@contextmanager
def observed(given: Any) -> Iterator[list[str]]:
    """Yield the paths of observations; arrays are written to files that exist within the block only.

    Raises UsageError (exit 2) for other types, DataError (3) for arrays that NetCDF cannot hold.
    """
    with ExitStack() as stack:
        paths = [
            stack.enter_context(stored(_of_numbers(each))) if isinstance(each, LABELLED) else each
            for each in listed(given, str | LABELLED)
        ]
        yield as_paths(paths, "observations", expected=f"a DataArray (time, y, x), or {RECORDS}")


def _of_numbers(array: xr.DataArray | xr.Dataset) -> xr.DataArray | xr.Dataset:
    """Return an array of observations. Raises UsageError (exit 2) for a DataArray of bool, as rain >= 1, with units of rain."""
    if isinstance(array, xr.DataArray) and array.dtype.kind == "b":
        raise UsageError("observations: got a DataArray of bool.\nExpected rain: give thresholds, such as 1, to score events.")
    return array


def as_time(given: Any, name: str, *, whole_day: bool = False) -> np.datetime64:
    """Return a time in UTC, to the second; without a time zone as UTC. Raises UsageError (exit 2) for other types.

    whole_day: whether a date without a time means the last second of the day
    """
    time = given.values[()] if isinstance(given, xr.DataArray) else given[()] if isinstance(given, np.ndarray) else given
    if isinstance(time, datetime) and time.tzinfo:
        time = time.astimezone(UTC).replace(tzinfo=None)
    if not isinstance(time, date | np.datetime64) or time != time:  # NaT differs from itself
        shown = " ".join(repr(given).split())[:80]
        raise UsageError(f"{name} = {shown}: not a time; write it as 2016-09-28T15:00 (UTC), or as a datetime")
    is_date = time.dtype == "M8[D]" if isinstance(time, np.datetime64) else not isinstance(time, datetime)
    return np.datetime64(time, "s") + np.timedelta64(86399 if whole_day and is_date else 0, "s")


def as_thresholds(given: Any) -> tuple[float, ...] | None:
    """Return one or several thresholds (mm/h) as a tuple; None for None. Raises UsageError (exit 2) for anything else."""
    if given is None:
        return None
    levels = numbers(given)
    if not are_thresholds(levels):
        raise UsageError(f"thresholds = {given!r}: write ascending numbers above 0, in mm/h, such as [0.5, 1, 5]")
    return levels
