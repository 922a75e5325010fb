"""Decide how the files of a record are read: unit conversion, interval, undeclared codes; warn if something is doubtful."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from nowcast.errors import DataError
from nowcast.netcdf.files import OPEN_FILES
from nowcast.netcdf.places.grid import Grid
from nowcast.netcdf.rain.dryness import DOUBT, SAMPLE, refine, row_step, sampled
from nowcast.netcdf.rain.packing import Packing
from nowcast.netcdf.rain.statements import Doubt, fitting
from nowcast.netcdf.rain.units import AMOUNT_NAMES, RATE_NAMES, REFLECTIVITY_NAMES, Conversion
from nowcast.netcdf.rain.variable import Field
from nowcast.netcdf.record import FrameLayout, Record
from nowcast.netcdf.times.intervals import ROUNDED, Interval
from nowcast.runtime.log_lines import is_first, named_file, warn_once

log = logging.getLogger(__name__)
_EVEN_FRAMES = 4  # number of evenly spaced frames that determine the time step of a file, or that it has changed
_ADVICE = 'If the amounts cover other intervals, state them: time bounds, or cell_methods = "time: sum (interval: …)"'
_MOST_FIELDS = 8  # largest number of different fields (such as packings) of a record that are sampled
_KINDS = {"amount": "an amount", "rate": "a rate", "reflectivity": "a reflectivity"}
# names of variables; `rain_from_reflectivity` is rain
_REFLECTIVITY, _RAIN = (re.compile(words, re.IGNORECASE) for words in ("dbz|reflectiv", "rain|precip|rate|rr|qpe|mm"))


class File(Protocol):
    """The attributes of a file of a record that this module needs."""

    path: Path
    field: Field
    grid: Grid
    times: np.ndarray
    interval: Interval | None
    doubt: Doubt | None
    sequence_length: int
    mean_seconds: float | None


class Samples(Protocol):
    """A store of results of sampling files, such as the index of opening.py."""

    def recall(self, what: str, paths: Sequence[Path]) -> str | None:
        """Return the stored result `what` of sampling these files; None if there is none, or if a file has changed."""

    def remember(self, what: str, paths: Sequence[Path], result: str) -> None:
        """Store the result `what` of sampling these files."""


def settled(file: File, step: np.timedelta64) -> File:
    """Return a file with the interval that a number without a unit means, if only one fits the time step of the record.

    A weak number is no interval, but no longer doubted if it is the time step.
    """
    if file.interval or not (file.doubt and file.doubt.number) or np.isnat(step):
        return file
    seconds = float(step / np.timedelta64(1, "s"))
    found = fitting(file.doubt.number, seconds)
    if file.doubt.is_weak:
        return replace(file, doubt=None) if found and abs(found[0] - seconds) <= ROUNDED * seconds else file
    return replace(file, interval=Interval(found[0], file.doubt.where), doubt=None) if len(found) == 1 else file


def make_layouts(
    files: Sequence[File], step: np.timedelta64, zr_a: float, zr_b: float, samples: Samples | None = None
) -> tuple[FrameLayout, ...]:
    """Return the layout of each file. An accumulation without a stated interval is assumed to cover the time step: that of its
    file if that has enough evenly spaced frames, else that of the record.

    samples: stored results of earlier samples

    Raises DataError (exit 3) for units that cannot be used.
    """
    layouts: dict = {}
    alike: dict[Field, list[File]] = {}
    conversions: dict[Field, Conversion] = {}
    keys = [_key(file) for file in files]
    for key, file in zip(keys, files, strict=True):
        alike.setdefault(file.field, []).append(file)
        if key not in layouts:
            conversion, source = _conversion(file, key[-1] or step, zr_a, zr_b)
            unsure = file.field.kind == "amount" and (file.interval is None or file.interval.is_spacing)
            turned, length = file.grid.turned, file.sequence_length
            layouts[key] = FrameLayout(file.field, conversion, turned, length, source, unsure, file.mean_seconds)
            conversions.setdefault(file.field, conversion)
            _warn_of_own_step(file, key[-1], step)
            _warn_of_array(file, conversion)
    _warn_of_intervals(files)
    _warn_of_kinds(files, step)
    refined = dict(_all_refined(alike, conversions, samples))
    layouts = {key: replace(layout, field=refined[layout.field]) for key, layout in layouts.items()}
    return tuple(layouts[key] for key in keys)


def _all_refined(
    alike: Mapping[Field, Sequence[File]], conversions: Mapping[Field, Conversion], samples: Samples | None
) -> Iterator[tuple[Field, Field]]:
    """Yield each field with undeclared codes added. Of many fields some are sampled; the others get the codes of these."""
    chosen = [list(alike)[n] for n in sampled(len(alike), _MOST_FIELDS)]
    found: dict[Field, list[Packing]] = {}
    for field in chosen:
        refined = _refined(field, alike[field], conversions[field], samples)
        found.setdefault(_unscaled(field), []).append(refined.packing)
        yield field, refined
    for field in alike.keys() - set(chosen):
        told = found.get(_unscaled(field), [])
        missing = tuple(dict.fromkeys(number for packing in told for number in packing.missing))
        dry = told[0].dry if told and all(packing.dry == told[0].dry for packing in told) else field.packing.dry
        packing = replace(field.packing, missing=missing or field.packing.missing, dry=dry)
        yield field, field if packing == field.packing else replace(field, packing=packing)


def _unscaled(field: Field) -> Field:
    """Return a field without its scale, offset and range, which may differ between the files of one archive."""
    return replace(field, packing=replace(field.packing, scale_factor=1.0, add_offset=0.0, low=-np.inf, high=np.inf))


def _key(file: File) -> tuple:
    return file.field, file.interval, file.mean_seconds, file.grid.turned, file.sequence_length, own_step(file)


def own_step(file: File) -> np.timedelta64 | None:
    """Return the time step of a file's own frames, assumed as the interval of its amounts; None if it has too few frames."""
    if file.field.kind != "amount" or file.interval or len(file.times) < _EVEN_FRAMES:
        return None
    steps = np.unique(np.abs(np.diff(file.times)))
    return steps[0] if len(steps) == 1 and steps[0] > np.timedelta64(0, "s") else None


def warn_of_other_steps(times: np.ndarray, guessed: np.ndarray, step: np.timedelta64, path: Path, variable: str) -> None:
    """Warn if amounts without a stated interval are evenly spaced by another time step than assumed.

    times: (frame,) datetime64[s], ascending
    guessed: (frame,) whether the frame is an amount whose interval is only assumed to be `step`
    """
    if len(times) < _EVEN_FRAMES:
        return
    steps, taken = (np.lib.stride_tricks.sliding_window_view(each, size)
                    for each, size in ((np.diff(times), _EVEN_FRAMES - 1), (guessed, _EVEN_FRAMES)))  # fmt: skip
    others = np.flatnonzero((steps == steps[:, :1]).all(axis=1) & (steps[:, 0] != step) & taken.all(axis=1))
    if len(others):
        apart, used = (value / np.timedelta64(60, "s") for value in (steps[others[0], 0], step))
        where = f"from {times[others[0]]}Z on frames are {apart:g} min apart"
        warn_once(path, f"{variable} states no interval and is divided by {used:g} min, but {where}.\n{_ADVICE}")


def _warn_of_own_step(file: File, own: np.timedelta64 | None, step: np.timedelta64) -> None:
    """Warn, once per folder, if the amounts of a file are divided by its own time step and that of the record differs."""
    if own and own != step and is_first(file.path, "own time step"):
        apart, others = (value / np.timedelta64(60, "s") for value in (own, step))
        said = f"states no interval and is divided by {apart:g} min, its own time step; that of the record is {others:g} min"
        log.warning("%s: %s %s.\n%s", named_file(file.path), file.field.variable, said, _ADVICE)


def _warn_of_array(file: File, conversion: Conversion) -> None:
    """Warn of amounts in memory that state no interval: start_time and time bounds of a Dataset are not in its DataArrays."""
    if file.field.kind == "amount" and file.interval is None and isinstance(named_file(file.path), str):
        said = f"states no interval and is divided by {conversion.interval_seconds / 60:g} min, the time step"
        cure = 'Give the Dataset with its start_time or time bounds, or state it: cell_methods = "time: sum over 15 minutes"'
        warn_once(file.path, f"{file.field.variable} {said}.\n{cure}")


def _warn_of_intervals(files: Sequence[File]) -> None:
    """Warn, once in a folder, of sums or means whose stated intervals differ: those of an hour among those of five minutes."""
    covered = [(file.interval.seconds if file.interval else file.mean_seconds, file) for file in files]
    stated = {seconds: file for seconds, file in reversed(covered) if seconds}
    if not stated or max(stated) <= (1 + ROUNDED) * min(stated):
        return
    (least, one), (most, other) = ((each, stated[each]) for each in (min(stated), max(stated)))
    what = f"is {'summed' if one.interval else 'a mean'} over"
    said = f"{one.field.variable} {what} {least:g} s, but {other.field.variable} in {other.path.name} over {most:g} s"
    warn_once(one.path, f"{said}. Different products belong in folders of their own")


def _warn_of_kinds(files: Sequence[File], step: np.timedelta64) -> None:
    """Warn, once in a folder, of files of unlike kinds: reflectivity beside rates, or these beside sums of an hour."""
    first: dict[str, File] = {}
    for file in files:
        is_long = file.interval and abs(file.interval.seconds - step / np.timedelta64(1, "s")) > ROUNDED * file.interval.seconds
        is_reflectivity = file.field.kind == "reflectivity"
        first.setdefault("reflectivity" if is_reflectivity else "sum" if is_long else "rate", file)
    if len(first) < 2 or all(file.interval for file in first.values()):  # `_warn_of_intervals` tells of sums alone
        return
    one, other = list(first.values())[:2]
    said, another = (
        _KINDS[each.field.kind] + (f" over {each.interval.seconds:g} s" if each.interval else "") for each in (one, other)
    )
    said = f"{one.field.variable} is {said}, but {other.field.variable} in {other.path.name} {another}"
    warn_once(one.path, f"{said}. Different products belong in folders of their own")


def _conversion(file: File, step: np.timedelta64, zr_a: float, zr_b: float) -> tuple[Conversion, str]:
    """Return the conversion to mm/h and, of an amount, where its interval is stated."""
    seconds, source = (file.interval.seconds, file.interval.source) if file.interval else (None, "")
    if file.field.kind == "amount" and seconds is None and not np.isnat(step):
        seconds, source = int(step.astype(np.int64)), "the time step: no interval is stated"
        if file.doubt and not abs(file.doubt.seconds - seconds) <= ROUNDED * seconds:
            said = f"{file.field.variable} is divided by {seconds:g} s, the time step, but {file.doubt.where}"
            warn_once(file.path, f"{said}.\n{_ADVICE}")
    if file.field.has_given_units:
        source = "; ".join(filter(None, [source, "units given by the user; the file states none of rain"]))
    conversion = file.field.conversion(interval_seconds=seconds, zr_a=zr_a, zr_b=zr_b, where=str(file.path))
    warn_of_contradiction(file.interval, file.path, file.field.variable)
    _warn_of_name(file)
    stated = file.field.stated_zr
    if file.field.kind == "reflectivity" and stated and not np.allclose(stated, (zr_a, zr_b)):
        used = f"Z = {zr_a:g} R^{zr_b:g} is used (data.zr_a, data.zr_b)"
        warn_once(file.path, f"{file.field.variable} states Z = {stated[0]:g} R^{stated[1]:g}, but {used}")
    return conversion, source


def _warn_of_name(file: File) -> None:
    """Warn, once per folder, if the name is that of a rate, an amount or a reflectivity but the units are those of another."""
    field, read = file.field, _KINDS.get(file.field.kind or "")
    named, what = _named_kind(field)
    if read and named and named != read and not field.has_given_units:
        said = f'{field.variable} is read as {read}, by its units "{field.units}"'
        warn_once(file.path, f"{said}, but its {what} is that of {named}. One of the two is wrong")


def _named_kind(field: Field) -> tuple[str | None, str]:
    """Return the kind that the standard name of a field means, else that of a reflectivity by its own name, and which name."""
    names = ((RATE_NAMES, "rate"), (AMOUNT_NAMES, "amount"), (REFLECTIVITY_NAMES, "reflectivity"))
    kind = next((kind for these, kind in names if field.standard_name in these), None)
    if kind:
        return _KINDS[kind], f"standard name {field.standard_name}"
    is_reflectivity = _REFLECTIVITY.search(field.variable) and not _RAIN.search(field.variable)
    return (_KINDS["reflectivity"], "name") if is_reflectivity else (None, "")


def warn_of_contradiction(interval: Interval | None, path: Path, variable: str) -> None:
    """Warn, once per folder, if two statements of the interval of an amount contradict each other."""
    if interval and interval.contradiction:
        said = f"{variable} is divided by {interval.seconds:g} s ({interval.source})"
        warn_once(path, f"{said}, but {interval.contradiction} contradicts it")


def _refined(field: Field, files: Sequence[File], conversion: Conversion, samples: Samples | None) -> Field:
    """Return the field with undeclared codes, found in a few frames, added to its packing."""
    if not field.quantity.is_rain:
        return field
    chosen, frames = [files[number] for number in sampled(len(files))], max(SAMPLE // len(files), 1)
    what, paths = f"packing {field!r} {conversion!r} {frames}", [file.path for file in chosen]
    text = samples.recall(what, paths) if samples is not None else None
    if text is None:
        sample, is_whole = _sample(field, chosen, conversion, frames)
        if not len(sample):
            return field
        packing, remark = refine(sample, field.packing, conversion)
        if samples is not None and is_whole:  # a file that cannot be read now may be readable the next time
            samples.remember(what, paths, json.dumps([list(packing.missing), list(packing.dry), remark]))
    else:
        missing, dry, remark = json.loads(text)
        packing = replace(field.packing, missing=tuple(missing), dry=tuple(dry))
    if remark:
        if DOUBT in remark:
            is_first(files[0].path, DOUBT)  # no second warning when frames are read
        warn_once(files[0].path, f"{field.variable}: {remark}")
    return field if repr(packing) == repr(field.packing) else replace(field, packing=packing)


def _sample(field: Field, files: Sequence[File], conversion: Conversion, frames: int) -> tuple[np.ndarray, bool]:
    """Read some frames of each file (frame, y, x) as they are stored, on large grids only some rows; return whether all are."""
    sample, every, num_read = [], row_step(files[0].grid.shape), 0
    for file in files:
        layout = FrameLayout(field, conversion, file.grid.turned, file.sequence_length)
        positions = sampled(len(file.times), frames)
        chosen = [selection for position in positions for selection in layout.selections(int(position), 1)]
        # a damaged file or frame is reported when it is read
        with (
            contextlib.suppress(DataError, OSError, RuntimeError, IndexError, KeyError, ValueError),
            OPEN_FILES.lock,
            OPEN_FILES.briefly(file.path) as dataset,
        ):
            for selection in chosen:
                stored = field.stored(dataset, selection, turned=(False, False)).reshape(1, *file.grid.shape)
                sample.append(stored[:, ::every].copy())
            num_read += 1
    return np.concatenate(sample) if sample else np.zeros(0), num_read == len(files)


def described(record: Record, sources: np.ndarray) -> tuple[list[Path], str]:
    """Return the files that hold frames of a record, and all else that the values of these frames depend on, as text.

    sources: (frame, 2) as `Record.frame_sources`
    """
    files, numbers = np.unique(sources[:, 0], return_inverse=True)
    frames = np.stack([numbers, sources[:, 1]], axis=1).tolist()
    return [record.paths[file] for file in files], json.dumps([frames, [repr(record.layouts[file]) for file in files]])
