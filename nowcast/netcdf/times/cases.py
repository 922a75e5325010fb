"""Put the forecasts of several files in order: a case for each reference time, all with the same lead times and members."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.times.forecast import Times
from nowcast.netcdf.times.raster import nominal_times

log = logging.getLogger(__name__)
_MINUTE = np.timedelta64(60, "s")
_SHOWN = 6  # numbers of members that a message lists


class File(Protocol):
    """The attributes of a forecast file that this module needs.

    members: numbers of its members, in the order of its fields; () if unknown
    """

    path: Path
    times: Times
    members: tuple[int, ...]


def order_cases(files: Sequence[File], where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reference times (case,), the lead times (lead,) and the sources of the fields, in order of time.

        sources: (case, lead, part, 2), the index of a file and the position in it, counted over its time dimensions; the
            parts are files with different members of one forecast, in order of member number

    Raises DataError (exit 3) for a duplicated forecast or member, or if lead times or members differ between forecasts.
    """
    references = np.concatenate([file.times.references.ravel() for file in files])
    leads = np.concatenate([file.times.valid.ravel() for file in files]) - references
    number = np.repeat(np.arange(len(files)), [file.times.valid.size for file in files])
    position = np.concatenate([np.arange(file.times.valid.size) for file in files])
    if not len(leads):
        raise DataError(f"{where} has no forecasts: a dimension of its times is 0 long.\nExpected at least one lead time.")
    first = np.array([min(file.members, default=-1) for file in files])[number]
    order = np.lexsort((first, leads, references))
    references, leads, sources = references[order], leads[order], np.stack([number, position], axis=-1)[order]
    is_next = np.append(True, (references[1:] != references[:-1]) | (leads[1:] != leads[:-1]))
    for n in np.flatnonzero(~is_next):
        _require_other_member(files[sources[n - 1, 0]], files[sources[n, 0]], references[n], leads[n])
    begins = np.flatnonzero(is_next)
    _require_same_members(files, where, references[begins], leads[begins], np.split(sources[:, 0], begins[1:]))
    parts = sources.reshape(len(begins), -1, 2)
    references, leads = _same_leads(files, where, references[begins], leads[begins], parts[:, 0, 0])
    return references, leads, parts.reshape(len(references), len(leads), -1, 2)


def _require_other_member(one: File, other: File, reference: np.datetime64, lead: np.timedelta64) -> None:
    """Raise DataError (exit 3) unless two files that hold the same forecast hold different members of it."""
    valid = reference + lead
    if one.path == other.path:
        raise DataError(
            f"{one.path}: the forecast from {reference}Z has the valid time {valid}Z twice.\nExpected every time once."
        )
    what = f"the forecast from {reference}Z for {valid}Z"
    if not (one.members or other.members):
        raise DataError(
            f"{what} is in two files, {one.path} and {other.path}.\n"
            "Expected one: leave the other out. Members are told apart by a coordinate `realization`, or names as member_01.nc."
        )
    if not (one.members and other.members):
        known, unknown = (one, other) if one.members else (other, one)
        raise DataError(
            f"{what}: {known.path} holds {_named(known.members)} but {unknown.path} does not say which it holds.\n"
            "Expected files that all do, by a coordinate `realization` or by names such as member_01.nc."
        )
    if twice := sorted(set(one.members) & set(other.members)):
        raise DataError(
            f"{what}: {_named(twice)} is in two files, {one.path} and {other.path}.\n"
            "Expected each member once: leave the other out."
        )


def _require_same_members(
    files: Sequence[File], where: str, references: np.ndarray, leads: np.ndarray, groups: Sequence[np.ndarray]
) -> None:
    """Raise DataError (exit 3) if the number of members differs between forecasts, or the members between lead times of a case.

    groups: for each forecast and lead time the numbers of the files with its parts
    """
    held = [tuple(sorted(member for n in group for member in files[n].members)) for group in groups]
    before = 0
    for n, group in enumerate(groups):
        is_same_case = references[n] == references[before]
        are_told = len(group) > 1 or min(len(held[n]), len(held[before])) > 1  # the number of one may be that in its name
        if len(group) != len(groups[before]) or (are_told and is_same_case and held[n] != held[before]):
            raise DataError(
                f"{where}: the forecast from {references[n]}Z for {(references + leads)[n]}Z has {_named(held[n])} but that "
                f"from {references[before]}Z for {(references + leads)[before]}Z has {_named(held[before])}.\n"
                "Expected the same members at each time: one of their files may be absent."
            )
        before = before if is_same_case else n


def _same_leads(
    files: Sequence[File], where: str, references: np.ndarray, leads: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return reference times (case,) and lead times (lead,) on a regular raster; arguments have one entry per field, in order.

    Raises DataError (exit 3) if lead times differ between reference times.
    """
    starts = np.flatnonzero(np.append(True, references[1:] != references[:-1]))
    evened = [_even(reference, own) for reference, own in zip(references[starts], np.split(leads, starts[1:]), strict=True)]
    cases = [(*case, file) for case, file in zip(evened, numbers[starts], strict=True)]
    if moved := sum(len(case[1]) for case in cases) - int((np.concatenate([case[1] for case in cases]) == leads).sum()):
        log.warning("%s: moved %d of %d lead times by some seconds, so that they are evenly spaced", where, moved, len(leads))
    for reference, case_leads, file in cases:
        if not np.array_equal(case_leads, cases[0][1]):
            raise DataError(
                f"{where}: lead times differ between reference times.\n"
                f"{_span(cases[0][1])} from {cases[0][0]}Z ({files[cases[0][2]].path.name}), "
                f"{_span(case_leads)} from {reference}Z ({files[file].path.name}); expected the same for all."
            )
    return np.array([case[0] for case in cases]), cases[0][1]


def _even(reference: np.datetime64, leads: np.ndarray) -> tuple[np.datetime64, np.ndarray]:
    """Return reference time and lead times (lead,) of a case on a regular raster, as for the times of frames."""
    times = np.append(reference, reference + leads[leads > np.timedelta64(0, "s")])
    nominal = nominal_times(times)
    if (nominal == times).all():
        return reference, leads
    evened = nominal[1:] - nominal[0]
    return nominal[0], np.concatenate([leads[: len(leads) - len(evened)], evened])


def _span(leads: np.ndarray) -> str:
    return f"{len(leads)} to {leads[-1] / _MINUTE:g} min"


def _named(members: Sequence[int]) -> str:
    """Return "member 3" or "members 0, 1, 2, …", for messages."""
    if len(members) == 1:
        return f"member {members[0]}"
    listed = [str(member) for member in members[:_SHOWN]] + (["…"] if len(members) > _SHOWN else [])
    return f"the {len(members)} members {', '.join(listed)}" if members else "no member"
