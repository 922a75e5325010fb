"""Damaged files: whatever was done to the bytes, every command answers in words and in time.

Each mutant is a valid file with bytes flipped, cut off or moved about, drawn from its number alone. It goes through the four
commands in a process of its own, so that a crash of the NetCDF library is seen as the signal it ends with.
"""

import json
import os
import signal
import traceback

import numpy as np
import pytest
import tomli_w
from makers import command, rain, tiny_experiment
from stored import write

from nowcast import config
from nowcast.commands import dry_run_facts  # noqa: F401  imported once, and not by every child
from nowcast.report import table  # noqa: F401

NUMBER = int(os.environ.get("NOWCAST_MUTANTS", 200))  # of each format
SECONDS = 20  # that a mutant may take; the slowest takes one
FORMATS = ("NETCDF3_CLASSIC", "NETCDF4")
CODES = {0, 3, 75}


def whole(path, format):
    """20 frames of 16 × 16 cells, packed; in NetCDF-4 compressed, a frame a chunk."""
    stored = np.round(rain(frames=20, shape=(16, 16)) * 10).astype("i2")
    return write(path, stored, format=format, fill=np.int16(-1), scale_factor=np.float32(0.1))


def mutant(content, number):
    """The bytes of a mutant: half of what is flipped or overwritten lies in the first kilobytes, where the header is."""
    rng = np.random.default_rng([7, number])
    changed = np.frombuffer(content, np.uint8).copy()

    def place(length=1):
        return int(rng.integers(max(min(len(content), rng.choice((4096, len(content)))) - length, 1)))

    match number % 4:
        case 0:  # one bit
            changed[place()] ^= 1 << rng.integers(8)
        case 1:  # several bytes
            for _ in range(rng.integers(2, 40)):
                changed[place()] = rng.integers(256)
        case 2:  # the end is lost
            changed = changed[: rng.integers(len(content))]
        case 3:  # a piece comes again in another place, or goes
            length = int(rng.integers(1, 600))
            piece = changed[(start := place(length)) : start + length].copy()
            where = place(length)
            how = rng.integers(4)
            if how == 0:
                changed[where : where + length] = piece[: len(changed) - where]
            elif how == 1:
                changed = np.insert(changed, where, piece)
            elif how == 2:
                changed = np.delete(changed, slice(where, where + length))
            else:
                changed[where : where + length] = rng.choice((0, 255))
    return changed.tobytes()


def outcomes(path, calls):
    """[name, exit code, error] of each command, from a child process; the signal or the traceback that ended it."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        found = []
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            for name, words in calls.items():
                found.append((name, None, "began"))
                code, _, err = command(*words)
                found[-1] = (name, code, err)
        except BaseException:
            found[-1] = (found[-1][0], 1, traceback.format_exc())
        finally:
            os.write(writer, json.dumps(found).encode()[:60_000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return [("process", -os.WTERMSIG(status), signal.Signals(os.WTERMSIG(status)).name)]
    return json.loads(said)


@pytest.mark.parametrize("format", FORMATS)
def test_mutants_are_answered_in_words(tmp_path, monkeypatch, format):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    content = whole(tmp_path / "whole.nc", format).read_bytes()
    path, recipe = tmp_path / "mutant.nc", tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(config.as_dict(tiny_experiment([path]))))
    calls = {
        "inspect": ("inspect", path),
        "predict": ("predict", "persistence", path, "--output", tmp_path / "forecast.nc", "--overwrite"),
        "evaluate": ("evaluate", "persistence", "--observations", path, "--every", 30),
        "train": ("train", recipe, "--dry-run"),
    }
    path.write_bytes(content)
    assert {code for _, code, _ in outcomes(path, calls)} == {0}
    wrong = []
    for number in range(NUMBER):
        path.write_bytes(mutant(content, number))
        for name, code, err in outcomes(path, calls):
            if code not in CODES or (code and len(err.splitlines()) > 4):
                wrong.append(f"{format} {number}: {name} {code}\n{err}")
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong)
