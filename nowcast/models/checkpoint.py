"""Read and write checkpoints: files that describe themselves, written completely or not at all.

A checkpoint is a safetensors file with tensors and, in its metadata, a canonical JSON text (`nowcast`) and the SHA-256
(`sha256`) of that text and of every tensor's name, dtype, shape and bytes. The SHA-256 detects flipped bits, which neither
safetensors nor torch.load does. No pickle is ever read, and the sizes in the header are checked before memory is allocated.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nowcast.config.schema import PRETRAINED
from nowcast.errors import CheckpointError, MemoryLimitError
from nowcast.runtime.memory import total_memory
from nowcast.runtime.outputs import remove_stale, replacing, size, write_synced

FORMAT = 1  # number of this file format
MAX_HEADER_BYTES = 16 << 20
LONGEST_STEP, MOST_FRAMES = 366 * 86400, 1000  # s, and frames: limits of plausible numbers in a checkpoint, as in a config
PRETRAINED_FILE = Path(__file__).resolve().parents[1] / "pretrained" / "radar.safetensors"
BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    `metadata` is the JSON object: config, units, time spans, step, …. `tensors` are named `model.…`, `average.…` (moving
    average of the weights) and `optimizer.…`. `digest` is the SHA-256.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    digest: str
    path: Path = Path()  # of the file that it was read from

    def tensors_of(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix.`; the prefix is removed from their names."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def write_checkpoint(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], *, keep: Path | None = None
) -> str:
    """Write a checkpoint and return its SHA-256; an older file at `path` is renamed to `keep`, if given.

    If the process is killed or anything fails, a complete checkpoint remains under one of the two names, provided that there
    was one before. Raises OutputError (exit 5) if the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = _canonical({"format": FORMAT, **metadata})
    digest = _digest(text, tensors)
    content = _in_order(save(tensors, metadata={"nowcast": text, "sha256": digest}))
    remove_stale(path.parent)
    with replacing(path, num_bytes=len(content)) as temporary:
        write_synced(temporary, content)  # complete on disk before the old file loses its name
        if keep is not None and path.exists():
            os.replace(path, keep)
    return digest


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which come in random order, so that equal checkpoints are equal files."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return b"".join([struct.pack("<Q", len(text)), text, memoryview(content)[8 + length :]])


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint: a file, the best one in a run folder (else the last), or "pretrained", the one in the package.

    Raises CheckpointError (exit 4) if it is absent, not a checkpoint, truncated, damaged or of a newer format, and
    MemoryLimitError (7) if it does not fit in this machine's memory.
    """
    path = PRETRAINED_FILE if path == PRETRAINED else find(Path(path))
    try:
        _check_header(path)
        _check_size(path)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
        tensors = load(content)
        text, digest = header["__metadata__"]["nowcast"], header["__metadata__"]["sha256"]
        metadata = dict(json.loads(text))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{path} is not a nowcast checkpoint or is damaged ({type(error).__name__})") from None
    if _digest(text, tensors) != digest:
        raise CheckpointError(f"{path} is damaged: its contents do not match its SHA-256; use another checkpoint of the run")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {metadata.get('format')!r}; this version of nowcast reads format {FORMAT}")
    return Checkpoint(metadata, tensors, digest, path)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that are in a run folder: best, last and previous."""
    return [folder / name for name in (BEST, LAST, PREVIOUS) if (folder / name).is_file()]


def find(path: Path) -> Path:
    """Return the path itself, or the best (else the last) checkpoint in a run folder.

    Raises CheckpointError (exit 4) if there is none.
    """
    if path.is_dir():
        for name in (BEST, LAST, PREVIOUS):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(f"{path} holds no {BEST}: is it a run folder, and has its training begun?")
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint or run folder: {path}")
    return path


def _check_header(path: Path) -> None:
    """Raise CheckpointError (exit 4) if the file does not begin like a safetensors file with a header of plausible size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if header is None or header > min(MAX_HEADER_BYTES, size - 8):
        raise CheckpointError(f"{path} is not a nowcast checkpoint (not a safetensors file, or truncated)")


def _check_size(path: Path) -> None:
    """Raise MemoryLimitError (exit 7) if the file, which may be a sparse one of a terabyte, does not fit in memory."""
    needed, available = 2 * path.stat().st_size, total_memory()  # the file's bytes, and the tensors made from them
    if needed > available:
        raise MemoryLimitError(f"{path} takes {size(needed)} of memory to read and this machine has {size(available)}")


def _canonical(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def bounded_frames(frames: int) -> int:
    """Return a number of frames if it is possible in a config, else raise ValueError."""
    if not 1 <= int(frames) <= MOST_FRAMES:
        raise ValueError(f"{str(frames)[:40]} frames")
    return int(frames)


def bounded_steps(values: list) -> list[int]:
    """Return time steps in seconds, ascending; raise ValueError if they cannot be time steps."""
    steps = [int(value) for value in values]
    if not steps or steps != sorted(steps) or not 0 < steps[0] <= steps[-1] <= LONGEST_STEP:
        raise ValueError(f"time steps of {str(steps)[:40]} s")
    return steps
