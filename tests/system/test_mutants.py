"""Damaged files: whatever was done to the bytes, every command answers in words and in time.

Each mutant is a valid file with bytes flipped, cut off or moved about, drawn from its number alone. It goes through the four
commands in a process of its own, so that a crash of the NetCDF library is seen as the signal it ends with. What `inspect`
refuses the others refuse as well, as they open it alike: they are asked only of every REFUSED-th of these.
"""

import faulthandler
import gc
import json
import os
import signal
import traceback

import numpy as np
import pytest
from makers import command, rain
from makers.commands import reading_commands
from makers.stored import write

pytestmark = pytest.mark.slow

NUMBER = int(os.environ.get("NOWCAST_MUTANTS", 200))  # of each format
REFUSED = 5
BATCH = 20  # mutants to a child: a fork costs as much as two commands
SECONDS = 20  # that a mutant may take; the slowest takes one
FORMATS = ("NETCDF3_CLASSIC", "NETCDF4")
CODES = {0, 3, 75}
QUICK = ("--every", 30, "--leads", 2, "--thresholds", 1)  # options of evaluate: with 4 past frames every frame is read


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


def outcomes(mutants, path):
    """(number, command, exit code, error) of each command on each of {number: bytes}, as the children tell them.

    A signal ends a child: it stands in place of the code, and a new child goes on with the next mutant.
    """
    numbers, found = list(mutants), []
    while numbers:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reader)
            answer({number: mutants[number] for number in numbers}, path, writer)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as pipe:
            found += (lines := [json.loads(line) for line in pipe])
        _, status = os.waitpid(child, 0)
        done = {number for number, name, *_ in lines if name == "done"}
        numbers = [number for number in numbers if number not in done]
        if os.WIFSIGNALED(status):
            found.append([numbers.pop(0), "process", -os.WTERMSIG(status), signal.Signals(os.WTERMSIG(status)).name])
    return found


def answer(mutants, path, writer):
    """The child: runs every command on every mutant and writes a line for each; it never returns."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    gc.disable()  # a collection would copy the parent's memory
    for number, content in mutants.items():
        signal.alarm(SECONDS)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        for name, words in reading_commands(path, path.parent, evaluate=QUICK).items():
            try:
                code, _, err = command(*words)
            except BaseException:
                code, err = 1, traceback.format_exc()
            os.write(writer, f"{json.dumps([number, name, code, err])}\n".encode())
            if name == "inspect" and code == 3 and number % REFUSED:
                break
        os.write(writer, f"{json.dumps([number, 'done', 0, ''])}\n".encode())
    os._exit(0)


@pytest.mark.parametrize("format", FORMATS)
def test_mutants_are_answered_in_words(tmp_path, monkeypatch, format):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mutant.nc"
    content = whole(tmp_path / "whole.nc", format).read_bytes()
    for words in reading_commands(tmp_path / "whole.nc", tmp_path, evaluate=QUICK).values():
        assert command(*words)[0] == 0  # and what they import and set up is there for every child
    answers = []
    for first in range(0, NUMBER, BATCH):
        batch = range(first, min(first + BATCH, NUMBER))
        answers += outcomes({number: mutant(content, number) for number in batch}, path)
    assert not [answer for answer in answers if answer[1] == "process"]
    assert {number for number, name, *_ in answers if name == "done"} == set(range(NUMBER))
    for name in ("predict", "evaluate", "train"):
        assert {0, 3} <= {code for _, each, code, _ in answers if each == name}
    wrong = [answer for answer in answers if answer[2] not in CODES or (answer[2] and len(answer[3].splitlines()) > 4)]
    assert not wrong, "\n".join(f"{format} {number}: {name} {code}\n{err}" for number, name, code, err in wrong)


def test_a_crash_and_a_traceback_would_be_seen(tmp_path, monkeypatch):
    def broken(*words):
        content = (tmp_path / "mutant.nc").read_bytes()
        if content == b"crash" and "evaluate" in words:
            faulthandler.disable()  # it would tell of the crash that is meant
            os.kill(os.getpid(), signal.SIGSEGV)
        if content == b"bug":
            raise AttributeError("bug")
        return 3, "", "error"

    monkeypatch.setitem(globals(), "command", broken)
    found = outcomes({REFUSED: b"crash", 2: b"bug", 2 * REFUSED: b"", 3: b""}, tmp_path / "mutant.nc")
    codes = {(number, name): code for number, name, code, _ in found}
    assert codes[REFUSED, "process"] == -signal.SIGSEGV
    assert {codes[2, name] for name in ("inspect", "predict", "evaluate", "train")} == {1}
    assert {codes[2 * REFUSED, name] for name in ("inspect", "predict", "evaluate", "train")} == {3}
    assert {name for number, name in codes if number == 3} == {"inspect", "done"}
