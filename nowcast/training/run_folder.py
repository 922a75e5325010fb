"""The run folder: what is in it, how one begins, and how one is resumed."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nowcast.errors import CheckpointError, OutputError
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, checkpoints, read_checkpoint
from nowcast.runtime.outputs import free_space, making_folder, remove_stale, replacing, size

log = logging.getLogger(__name__)
CONFIG, METRICS, LOG, PICTURE = "config.toml", "metrics.jsonl", "log.txt", "training.png"


@contextlib.contextmanager
def claimed(output: Path, *, overwrite: bool, num_bytes: int) -> Iterator[None]:
    """Around what comes before the training: no time is spent on a run that could not be written, and none is left behind.

    num_bytes: what its checkpoints will take. Raises OutputError (exit 5) when the folder holds a run already, cannot be
    made or written, or is on too full a disk. An old run stays as it is until `begin`.
    """
    check_free(output, overwrite=overwrite)
    with making_folder(output):
        remove_stale(output)
        old = sum(path.stat().st_size for path in checkpoints(output))
        check_room(output, num_bytes - old)
        yield


def check_free(output: Path, *, overwrite: bool) -> None:
    """OutputError (exit 5) when the folder holds a run, or what is left of one, and may not lose it."""
    if overwrite:
        return
    if is_resumable(output):
        raise OutputError(f"{output} holds a run already: --resume goes on with it, --overwrite replaces it")
    if (output / BEST).exists():
        raise OutputError(f"{output} holds a trained network, {BEST}, and nothing to resume from: --overwrite replaces it")
    if (output / CONFIG).exists():
        raise OutputError(f"{output} holds a {CONFIG} but no checkpoint, so nothing to resume: --overwrite begins it anew")


def check_room(output: Path, num_bytes: int) -> None:
    """OutputError (exit 5) where the disk has less room than the checkpoints will take."""
    if (free := free_space(output)) < num_bytes:
        raise OutputError(
            f"the checkpoints in {output} take {size(num_bytes)} more and its disk has {size(free)} free.\n"
            "Make room, or choose another disk with --output."
        )


def begin(output: Path, config_text: str) -> None:
    """Leave the folder with nothing of an old run, and with the config of the new one. Raises OutputError (exit 5)."""
    try:
        for name in (BEST, LAST, PREVIOUS, METRICS, LOG, PICTURE):
            (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot replace the run in {output}: {error.strerror}") from None
    write_config(output, config_text)


def write_config(output: Path, config_text: str) -> None:
    with replacing(output / CONFIG) as temporary:
        temporary.write_text(config_text, encoding="utf-8")


def is_resumable(output: Path) -> bool:
    """There is something to go on from, whole or not."""
    return any((output / name).exists() for name in (LAST, PREVIOUS))


def resumable(output: Path) -> Checkpoint:
    """The checkpoint to go on from: `last`, or `previous` where that is damaged; CheckpointError (exit 4) without one."""
    found = [output / name for name in (LAST, PREVIOUS) if (output / name).is_file()]
    if not found:
        begun = "; it was stopped before its first checkpoint: begin it anew with --overwrite"
        raise CheckpointError(f"{output} holds no {LAST} to resume from{begun if (output / CONFIG).exists() else ''}")
    if found[0].name == PREVIOUS:
        log.warning("%s is absent; going on from %s", output / LAST, PREVIOUS)
    try:
        return read_checkpoint(found[0])
    except CheckpointError as error:
        if len(found) == 1:
            raise
        log.warning("%s; going on from %s", error, found[1].name)
        return read_checkpoint(found[1])


def append_event(metrics: Path, event: dict[str, Any]) -> None:
    """Add a line to metrics.jsonl, a new one also where the last was cut off by a full disk or a kill."""
    line = json.dumps(event, allow_nan=False).encode() + b"\n"
    with metrics.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)


def read_events(metrics: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    events = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "step" in event:
                events.append(event)
    return events


def forget_after(metrics: Path, step: int) -> None:
    """Drop the events that a resumed run will write again, and lines that were cut off."""
    if not metrics.is_file():
        return
    kept = "".join(json.dumps(event) + "\n" for event in read_events(metrics) if event["step"] <= step).encode()
    if kept != metrics.read_bytes():
        with replacing(metrics) as temporary:
            temporary.write_bytes(kept)
