"""The run folder: its files, the checks before a run begins or resumes, and the lines of metrics.jsonl."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nowcast.errors import CheckpointError, OutputError
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, checkpoints, read_checkpoint
from nowcast.runtime.outputs import free_space, locked, making_folder, remove_stale, replacing, size
from nowcast.training.logs.csv_file import METRICS_CSV
from nowcast.training.logs.logger import LOGS

log = logging.getLogger(__name__)
CONFIG, METRICS, LOG, PICTURE = "config.toml", "metrics.jsonl", "log.txt", "training.png"


@contextlib.contextmanager
def claimed(output: Path, held: contextlib.ExitStack, *, overwrite: bool, num_bytes: int) -> Iterator[None]:
    """Context manager around the preparation of a training. Fails early if the run folder cannot be written.

    A folder created by it is removed again if the block fails; an old run stays unchanged until `begin`.

    held: keeps the folder locked until it is closed
    num_bytes: size of the checkpoints of the run

    Raises OutputError (exit 5) where the folder already holds a run and `overwrite` is false, another training is writing to
    it, it cannot be made or written, or is on a disk that is too full.
    """
    with making_folder(output):
        held.enter_context(locked(output))
        check_free(output, overwrite=overwrite)
        remove_stale(output)
        old = sum(path.stat().st_size for path in checkpoints(output))
        check_room(output, num_bytes - old)
        yield


def check_free(output: Path, *, overwrite: bool) -> None:
    """Raise OutputError (exit 5) where the folder holds a run, or a part of one, and `overwrite` is false."""
    if overwrite:
        return
    if is_resumable(output):
        raise OutputError(f"{output} already holds a run: --resume continues it, --overwrite replaces it")
    if (output / BEST).exists():
        raise OutputError(f"{output} holds a trained network, {BEST}, and nothing to resume from: --overwrite replaces it")
    if (output / CONFIG).exists():
        raise OutputError(f"{output} holds a {CONFIG} but no checkpoint to resume from: --overwrite starts it again")


def check_room(output: Path, num_bytes: int) -> None:
    """Raise OutputError (exit 5) where the disk has less than `num_bytes` free for the checkpoints."""
    if (free := free_space(output)) < num_bytes:
        raise OutputError(
            f"the checkpoints in {output} take {size(num_bytes)} more and its disk has {size(free)} free.\n"
            "Make room, or choose another disk with --output."
        )


def begin(output: Path, config_text: str) -> None:
    """Delete the files of an old run and write the new run's config. Raises OutputError (exit 5)."""
    try:
        for name in (BEST, LAST, PREVIOUS, METRICS, METRICS_CSV, LOG, PICTURE):
            (output / name).unlink(missing_ok=True)
        if (output / LOGS).is_dir() and not (output / LOGS).is_symlink():
            shutil.rmtree(output / LOGS)
    except OSError as error:
        raise OutputError(f"cannot replace the run in {output}: {error.strerror}") from None
    write_config(output, config_text)


def write_config(output: Path, config_text: str) -> None:
    """Write config.toml. Raises OutputError (exit 5)."""
    with replacing(output / CONFIG) as temporary:
        temporary.write_text(config_text, encoding="utf-8")


def is_resumable(output: Path) -> bool:
    """Return whether there is a `last` or `previous` checkpoint, damaged or not."""
    return any((output / name).exists() for name in (LAST, PREVIOUS))


def resumable(output: Path) -> Checkpoint:
    """Read the checkpoint to resume from: `last`, or `previous` where `last` is damaged or absent.

    Raises CheckpointError (exit 4) where neither can be read.
    """
    paths = [output / name for name in (LAST, PREVIOUS) if (output / name).is_file()]
    if not paths:
        begun = "; it was stopped before its first checkpoint: start it again with --overwrite"
        raise CheckpointError(f"{output} holds no {LAST} to resume from{begun if (output / CONFIG).exists() else ''}")
    if paths[0].name == PREVIOUS:
        log.warning("%s is absent; going on from %s", output / LAST, PREVIOUS)
    try:
        return read_checkpoint(paths[0])
    except CheckpointError as error:
        if len(paths) == 1:
            raise
        log.warning("%s; going on from %s", error, paths[1].name)
        return read_checkpoint(paths[1])


def append_event(metrics: Path, event: dict[str, Any]) -> None:
    """Add an event to metrics.jsonl, on a line of its own even where the last line was cut off by a full disk or a kill.

    Raises OSError.
    """
    line = json.dumps(event, allow_nan=False).encode() + b"\n"
    with metrics.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)


def read_events(metrics: Path) -> list[dict[str, Any]]:
    """Read the events of metrics.jsonl; skip lines that were cut off."""
    events = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "step" in event:
                events.append(event)
    return events


def first_validation(metrics: Path) -> dict[str, Any]:
    """Return the event of the validation before the first step; empty where metrics.jsonl has none or cannot be read."""
    events = []
    with contextlib.suppress(OSError):
        if metrics.is_file():  # a device such as /dev/full never ends
            events = read_events(metrics)
    return next((event for event in events if event["step"] == 0 and event.get("split") == "validation"), {})


def forget_after(metrics: Path, step: int) -> None:
    """Delete the events after `step`, which a resumed run will write again, and lines that were cut off."""
    if not metrics.is_file():
        return
    kept = "".join(json.dumps(event) + "\n" for event in read_events(metrics) if event["step"] <= step).encode()
    if kept != metrics.read_bytes():
        with replacing(metrics) as temporary:
            temporary.write_bytes(kept)
