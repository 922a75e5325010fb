"""The run folder: what is in it, how one begins, and how one is resumed."""

import json
import logging
from pathlib import Path

from nowcast.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, read_checkpoint
from nowcast.errors import CheckpointError, OutputError

log = logging.getLogger(__name__)
CONFIG, METRICS, LOG, PICTURE = "config.toml", "metrics.jsonl", "log.txt", "training.png"


def check_free(output: Path, *, overwrite: bool) -> None:
    """OutputError (exit 5) when the folder holds a run already and may not lose it."""
    if not overwrite and any((output / name).exists() for name in (BEST, LAST, CONFIG)):
        raise OutputError(f"{output} holds a run already: --resume goes on with it, --overwrite replaces it")


def begin(output: Path, config_text: str, *, overwrite: bool) -> None:
    """Make the run folder with its config.

    Raises OutputError (exit 5) when the folder holds a run already, or cannot be made.
    """
    check_free(output, overwrite=overwrite)
    if any((output / name).exists() for name in (BEST, LAST, CONFIG)):
        for name in (BEST, LAST, PREVIOUS, METRICS, CONFIG, LOG, PICTURE):
            (output / name).unlink(missing_ok=True)
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / CONFIG).write_text(config_text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot make the run folder {output}: {error.strerror}") from None


def resumable(output: Path) -> Checkpoint:
    """The checkpoint to go on from: `last`, or `previous` where that is damaged; CheckpointError (exit 4) without one."""
    found = [output / name for name in (LAST, PREVIOUS) if (output / name).is_file()]
    if not found:
        raise CheckpointError(f"{output} holds no {LAST} to resume from")
    try:
        return read_checkpoint(found[0])
    except CheckpointError as error:
        if len(found) == 1:
            raise
        log.warning("%s; going on from %s", error, found[1].name)
        return read_checkpoint(found[1])


def forget_after(metrics: Path, step: int) -> None:
    """Drop the events that a resumed run will write again."""
    if metrics.is_file():
        events = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        kept = "".join(json.dumps(event) + "\n" for event in events if event["step"] <= step)
        metrics.write_text(kept, encoding="utf-8")
