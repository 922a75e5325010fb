"""Check that a checkpoint fits a training: before a run resumes, and before it starts with another run's weights.

Resume: the config must be that of the run, except `[training]`, where all keys but `optimizer` and `ema`, whose state is in the
checkpoint, and `start_from`, whose weights were taken before the first step, may change. The records may have moved, but must
give the same windows on the same grids, with the same rain. Keys that the run did not have yet get the values that correspond
to its behaviour.

Start (`training.start_from`): only the weights are used, so quantity, units, `[transform]` and `[model]` must be equal. A
warning is logged if the weights were trained on windows of the validation.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nowcast import config
from nowcast.config.schema import Data, Experiment, NamedSection, Splits, Training
from nowcast.dataset.archive import Archive
from nowcast.dataset.draws import Series
from nowcast.dataset.packed import PackedFrames
from nowcast.dataset.windows import Windows
from nowcast.errors import CheckpointError, NowcastError, UsageError
from nowcast.forecasters.seen import spans_of_checkpoint
from nowcast.models import model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.model import Model
from nowcast.models.transform import make_transform
from nowcast.quantity import Quantity
from nowcast.training.experiment import resolve

FIXED = {"training.optimizer", "training.ema", "training.start_from"}  # may not change when a run resumes
FREE = {"data.records"}  # may change: the windows themselves are compared
NEWER = {"max_absent": 0}  # keys of [data] that older checkpoints lack, with the values of those runs
VALIDATED = ("batch_size", "validation_cases")  # keys of [training] that choose the cases of a validation
STATISTICS = ("missing fraction", "wet fraction", "mean of 1 - exp(-rain)")  # of frames, as in PackedFrames
SAME = 1e-6  # relative difference of statistics that rounding on another processor may make, but a changed frame exceeds
MOST_SHOWN = 4  # differences that a message lists


def as_the_run(experiment: Experiment, checkpoint: Checkpoint) -> Experiment:
    """Set keys of `[data]` that are neither in the config nor in the checkpoint to resume to the values of that run."""
    known, given = _data_of(checkpoint), experiment.data.model_fields_set
    missing = {key: value for key, value in NEWER.items() if key not in known and key not in given}
    return experiment.model_copy(update={"data": experiment.data.model_copy(update=missing)}) if missing else experiment


def _data_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the `[data]` of a checkpoint's config; nothing where it is damaged, which `check_resumable` reports."""
    stored = checkpoint.metadata.get("config")
    data = stored.get("data") if isinstance(stored, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def check_resumable(checkpoint: Checkpoint, experiment: Experiment, archive: Archive) -> None:
    """Raise CheckpointError (exit 4), naming keys and both values, if the resolved experiment differs from that of the run."""
    try:
        stored = config.from_dict(checkpoint.metadata["config"], source="its config")
        before = dict(config.flat(config.as_dict(resolve(as_the_run(stored, checkpoint)))))
    except (NowcastError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be resumed from: {error}") from None
    now = dict(config.flat(config.as_dict(experiment)))
    changed = [key for key in {**before, **now} if _must_stay(key) and before.get(key) != now.get(key)]
    if changed:
        raise CheckpointError(
            f"the config is not that of {checkpoint.path}: {_listed(changed, now, before)}.\n"
            "Resume with the config of the run, or begin a new one; "
            "of [training] all but optimizer, ema and start_from may change."
        )
    _check_windows(checkpoint, archive, now, before)


def other_validation(checkpoint: Checkpoint, training: Training) -> list[str]:
    """Return a warning if a resumed run now validates on other cases than those that gave its best loss.

    The cases that a batch draws depend on its number and its size.
    """
    state, stored = checkpoint.metadata["state"], checkpoint.metadata["config"]["training"]
    now = {f"training.{key}": getattr(training, key) for key in VALIDATED}
    before = {f"training.{key}": stored.get(key) for key in VALIDATED}
    changed = [key for key in now if now[key] != before[key]]
    if not changed or state["best_loss"] is None:
        return []
    best = f"{state['best_loss']:.5g} at step {state['best_step']:,}"
    what = f"validations take other cases than before, by {_listed(changed, now, before)}"
    return [f"{what}: their losses do not compare with the best so far, {best}"]


def check_same(given: Experiment, run: Experiment, *, source: str, output: Path, settings: Sequence[str] = ()) -> None:
    """Check that a config given to resume a run equals that of the run, except for keys in `settings`.

    given: the config with the settings; run: that of the run folder `output`; settings: SECTION.KEY=VALUE

    Raises CheckpointError (exit 4), naming keys and both values. The records may have moved.
    """
    now, before = (dict(config.flat(config.as_dict(resolve(each)))) for each in (given, run))
    newer = {f"data.{key}" for key in NEWER if key not in given.data.model_fields_set}
    free = {*FREE, *newer, *map(config.named_key, settings)}
    changed = [key for key in {**before, **now} if key not in free and now.get(key) not in ("auto", before.get(key))]
    if changed:
        raise CheckpointError(
            f"{source} is not the config of {output}: {_listed(changed, now, before)}.\n"
            f"Leave it out: nowcast train --resume {output} uses the run's own config."
        )


def _listed(changed: Sequence[str], now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    listed = [f"{key} = {now.get(key)} (before: {before.get(key)})" for key in changed[:MOST_SHOWN]]
    return ", ".join(listed) + (f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else "")


def _must_stay(key: str) -> bool:
    return key in FIXED or not (key.startswith("training.") or key in FREE)


def _check_windows(checkpoint: Checkpoint, archive: Archive, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raise CheckpointError where the archive's windows or grids are not those of the run.

    now, before: the values of the config by their dotted keys
    """
    paths = (now["data.records"], before["data.records"])
    moved = f"data.records = {paths[0]} (before: {paths[1]})" if paths[0] != paths[1] else ""
    if checkpoint.metadata.get("windows_sha256", archive.digest) != archive.digest:
        then, today = checkpoint.metadata.get("windows"), archive.num_windows("training")
        then = then.get("training") if isinstance(then, Mapping) else "unknown"
        given = ", ".join(filter(None, [moved, f"training windows = {today} (before: {then})"]))
        what = f"do not hold the windows of {checkpoint.path}: {given}"
        if before.get("data.splits.by") == "records":
            what += "; or that run was trained when nowcast still took windows near another split"
    elif checkpoint.metadata.get("grids_sha256", archive.grids_digest) != archive.grids_digest:  # not in older checkpoints
        what = (
            f"lie elsewhere than those of {checkpoint.path}, by their coordinates or projection{': ' if moved else ''}{moved}"
        )
    else:
        return
    raise CheckpointError(f"the records {what}.\nResume with the records as they were, or begin a new run.")


def frame_statistics(series: Sequence[Series]) -> list[list[float]]:
    """Return the mean of each of STATISTICS over the frames of all windows, for each series; unknown ones count as 0."""
    return [_means(each.frames, np.unique(each.windows.positions)) for each in series]


def _means(frames: PackedFrames, used: np.ndarray) -> list[float]:
    return [
        float(np.nansum(values[used], dtype=np.float64) / len(used)) for values in (frames.missing, frames.wet, frames.rain)
    ]


def check_frames(checkpoint: Checkpoint, series: Sequence[Series]) -> None:
    """Raise CheckpointError (exit 4) where the frames of all windows have other statistics than when the run was trained.

    The times and grids are the same: the run would go on with other rain, and compare its losses with those of the old rain.
    """
    now, then = frame_statistics(series), checkpoint.metadata.get("frame_statistics")  # not in older checkpoints
    for each, values, before in zip(series, now, then or (), strict=False):
        for what, value, old in zip(STATISTICS, values, before, strict=True):
            if not np.isclose(value, old, rtol=SAME, atol=0):
                raise CheckpointError(
                    f"{each.name} holds other values than when {checkpoint.path} was trained: {what} {value:.8g} "
                    f"(before: {old:.8g}).\nResume with the records as they were, or begin a new run."
                )


def fitting_weights(
    checkpoint: Checkpoint, name: str, model: Model, experiment: Experiment, *, quantity: Quantity
) -> dict[str, Tensor]:
    """Return the weights that a checkpoint forecasts with, if they fit the `model` of this resolved experiment.

    name: the checkpoint's name in `training.start_from`, for messages

    Raises CheckpointError (exit 4) where quantity, units, transform or model differ; the message says what would fit.
    """
    metadata = checkpoint.metadata
    for item, value in (("quantity", quantity.name), ("units", quantity.units)):
        if metadata.get(item) != value:
            raise CheckpointError(
                f"training.start_from = {name}: trained on {metadata.get(item)} but the records hold {value} ({item}); "
                f"use records of {metadata.get(item)} or another run"
            )
    stored = _sections(metadata, name)
    _check_section("transform", experiment.transform.model_dump(mode="json"), stored["transform"], name)
    weights = model.completed(checkpoint.tensors_of("average") or checkpoint.tensors_of("model"))
    _check_shapes(model.state_dict(), weights, experiment.model.model_dump(mode="json"), stored["model"], name)
    _check_section("model", experiment.model.model_dump(mode="json"), stored["model"], name)
    return weights


def seen_windows(checkpoint: Checkpoint, name: str, archive: Archive) -> list[str]:
    """Return warnings about validation windows on which the checkpoint of `training.start_from` was trained.

    name: the checkpoint's name in `training.start_from`
    """
    metadata = checkpoint.metadata
    splits = Splits()
    with suppress(NowcastError):  # a config of another version
        splits = config.from_dict(metadata["config"], source=name).data.splits
    spans, sizes = spans_of_checkpoint(metadata, "training", splits), metadata.get("spacing_km", [])
    total, trained, alike = archive.num_windows("validation"), 0, 0
    for record, windows in zip(archive.records, archive.windows["validation"], strict=True):
        has_spacing = record.grid.has_spacing(sizes)
        own = _within(record.times, windows, [times for other, *times in spans if other == record.name])
        renamed = _within(record.times, windows, [times for other, *times in spans if other != record.name and has_spacing])
        trained, alike = trained + int(own.sum()), alike + int((renamed & ~own).sum())
    warnings = []
    if trained:
        warnings.append(f"Beware: '{name}' was trained on {_share(trained, total)}: their loss and scores are too good.")
    if alike:
        warnings.append(
            f"Beware: '{name}' has seen a record of another name at the times of {_share(alike, total)}: if it is the same "
            "radar, their loss and scores are too good."
        )
    return warnings


def unlike_start(checkpoint: Checkpoint, name: str, data: Data, archive: Archive) -> list[str]:
    """Return warnings if the checkpoint of `training.start_from` was trained with other time steps or coordinates.

    name: the checkpoint's name in `training.start_from`
    """
    metadata, warnings = checkpoint.metadata, []
    before, now = metadata.get("time_steps") or [], archive.time_steps()
    if before and now and not min(before) <= now[0] <= now[-1] <= max(before):
        steps = [", ".join(f"{seconds / 60:g}" for seconds in each) for each in (before, now)]
        warnings.append(f"Beware: '{name}' was trained with time steps of {steps[0]} min, these records have {steps[1]} min.")
    with suppress(KeyError, TypeError):
        if (stored := metadata["config"]["data"]["coordinates"]) != data.coordinates:
            warnings.append(f"Beware: '{name}' was trained with data.coordinates = {stored!r}, not {data.coordinates!r}.")
    return warnings


def _within(times: np.ndarray, windows: Windows, spans: Sequence[Sequence[str]]) -> np.ndarray:
    """Return a mask (window,) of the windows with a future frame within a span [start, end].

    times: (time,) datetime64 of the record
    """
    reference, last = times[windows.reference_positions], times[windows.positions[:, -1]]
    inside = np.zeros(len(windows), bool)
    for start, end in (np.array([time.removesuffix("Z") for time in span], "datetime64[s]") for span in spans):
        inside |= (start <= last) & (reference < end)
    return inside


def _share(number: int, total: int) -> str:
    return f"all {total:,} validation windows" if number == total else f"{number:,} of the {total:,} validation windows"


def _sections(metadata: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return the checkpoint's `[transform]` and `[model]`, with defaults for keys that are newer than the checkpoint."""
    try:
        named = {section: NamedSection(**metadata["config"][section]) for section in ("transform", "model")}
        sections = {"transform": make_transform(named["transform"]), "model": model_config(named["model"])}
    except (UsageError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"training.start_from = {name}: its config cannot be used ({reason})") from None
    return {section: value.model_dump(mode="json") for section, value in sections.items()}


def _first_difference(needed: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """Return the first key whose values differ or that one of the two lacks; None if they are equal."""
    return next((key for key in {**needed, **stored} if needed.get(key) != stored.get(key)), None)


def _check_section(section: str, needed: Mapping[str, Any], stored: Mapping[str, Any], name: str) -> None:
    key = _first_difference(needed, stored)
    if key is not None:
        raise CheckpointError(
            f"training.start_from = {name}: {section}.{key} is {stored.get(key)!r} in it and {needed.get(key)!r} in the config;"
            f" use its [{section}] or another run"
        )


def _check_shapes(
    needed: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    needed_keys: Mapping,
    stored_keys: Mapping,
    name: str,
) -> None:
    """Raise CheckpointError for the first tensor whose shape differs, with the key of `[model]` that differs."""
    for key in {**needed, **stored}:
        needed_shape, stored_shape = (tuple(tensors[key].shape) if key in tensors else None for tensors in (needed, stored))
        if needed_shape != stored_shape:
            changed = _first_difference(needed_keys, stored_keys)
            values = f"{stored_keys.get(changed)!r} in it and {needed_keys.get(changed)!r} in the config"
            cause = f"\nmodel.{changed} is {values}" if changed else ""
            raise CheckpointError(
                f"training.start_from = {name}: {key} has shape {_shown(stored_shape)} in it and {_shown(needed_shape)} in the "
                f"model{cause}"
            )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else " × ".join(map(str, shape)) or "of one number"
