"""A save that is killed or fails at any system call leaves a whole checkpoint, the last good one, and no stray files."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from makers.processes import run_beside

from nowcast.errors import OutputError
from nowcast.models import checkpoint
from nowcast.models.checkpoint import LAST, PREVIOUS, read_checkpoint, write_checkpoint
from nowcast.runtime import outputs
from nowcast.runtime.outputs import remove_stale, replacing, temporary_path
from nowcast.training.run_folder import resumable

CALLS = {"open", "write", "fsync", "close", "replace", "link", "unlink", "listdir", "stat", "kill"}
TENSORS = {"model.weight": torch.arange(300.0)}
LAST_STEP = 7  # of the good checkpoint before the save that fails


class System:
    """Stands in for `os`: calls are counted, writes come in thirds, and before the n-th call `fail` is called."""

    def __init__(self, n, fail):
        self.n, self.fail, self.count = n, fail, 0

    def __getattr__(self, name):
        call = getattr(os, name)
        if name not in CALLS:
            return call

        def counted(*args, **options):
            self.count += 1
            if self.count == self.n:
                self.fail(name)
            if name == "write":
                args = (args[0], args[1][: max(len(args[1]) // 3, 400)])
            return call(*args, **options)

        return counted


def prepare(folder):
    """`previous` and `last` of steps 6 and 7."""
    folder.mkdir()
    for step in (LAST_STEP - 1, LAST_STEP):
        save(folder, step)


def save(folder, step):
    write_checkpoint(folder / LAST, {"step": step}, TENSORS, keep=folder / PREVIOUS)


def save_with(system, folder):
    """The save of step 8 through `system`."""
    real = outputs.os, checkpoint.os
    outputs.os = checkpoint.os = system
    try:
        save(folder, LAST_STEP + 1)
    finally:
        outputs.os, checkpoint.os = real


def num_calls(tmp_path):
    system = System(0, None)
    prepare(tmp_path / "counted")
    save_with(system, tmp_path / "counted")
    assert system.count > 15
    return system.count


def check(folder):
    """What every interrupted save must leave; the next save clears the rest away."""
    final = [name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    steps = [read_checkpoint(folder / name).metadata["step"] for name in final]  # raises for a torn one
    assert resumable(folder).metadata["step"] == max(steps) >= LAST_STEP
    assert len(list(folder.iterdir())) <= len(final) + 1
    save(folder, LAST_STEP + 2)
    assert sorted(path.name for path in folder.iterdir()) == [LAST, PREVIOUS]
    assert resumable(folder).metadata["step"] == LAST_STEP + 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_save_that_fails_at_any_system_call_loses_nothing(tmp_path, number):
    def fail(name):
        raise OSError(number, os.strerror(number))

    failures, total = [], num_calls(tmp_path)
    for n in range(1, total + 1):
        folder = tmp_path / f"call{n}"
        prepare(folder)
        try:
            save_with(System(n, fail), folder)
        except OutputError as error:
            failures.append(str(error))
        check(folder)
    assert 10 < len(failures) < total  # what only tidies up may fail unnoticed
    needs = r"; [\d.]+ kB are needed, [\d.]+ .B are free\.\nMake room" if number != errno.EIO else ""
    for message in failures:
        assert re.match(rf"cannot write {tmp_path}/call\d+/{LAST}: {os.strerror(number)}{needs}", message)


def kill_at_every_call(parent):
    """A child for every call, which is killed before it; runs in a process of its own."""
    total = num_calls(parent)
    for n in range(1, total + 1):
        folder = parent / f"call{n}"
        prepare(folder)
        child = os.fork()
        if not child:
            save_with(System(n, lambda _: os.kill(os.getpid(), signal.SIGKILL)), folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return total


@pytest.mark.slow
def test_a_save_that_is_killed_at_any_system_call_loses_nothing(tmp_path):
    program = "import sys, pathlib, test_checkpoint_saving as t; print(t.kill_at_every_call(pathlib.Path(sys.argv[1])))"
    done = run_beside(__file__, program, tmp_path)
    assert done.returncode == 0, done.stderr
    leftovers = 0
    for n in range(1, int(done.stdout) + 1):
        leftovers += any(path.name.endswith(".partial") for path in (tmp_path / f"call{n}").iterdir())
        check(tmp_path / f"call{n}")
    assert leftovers > 3, "a kill leaves a temporary file, which the next save removes"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_calls_that_are_counted_are_those_of_the_system(tmp_path):
    """Between its first and its last system call on the folder a save makes no other that changes anything."""
    prepare(tmp_path / "run")
    program = "import sys, pathlib, test_checkpoint_saving; test_checkpoint_saving.save(pathlib.Path(sys.argv[1]), 8)"
    calls = "openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat,ftruncate"
    trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", f"trace={calls}", "-o", tmp_path / "trace"]
    done = run_beside(__file__, program, tmp_path / "run", prefix=trace)
    if "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    lines = [line.split(None, 1)[1] for line in (tmp_path / "trace").read_text().splitlines()]
    mine = [line for line in lines if str(tmp_path / "run") in line and ("O_RDONLY" not in line or "fsync" in line)]
    kinds = [line.split("(")[0] for line in mine]
    assert kinds == ["openat", "write", "fsync", "rename", "fsync", "rename", "fsync", "unlink"]


def test_temporaries_of_processes_that_are_gone_are_removed_and_no_others(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = temporary_path(tmp_path / "a")
    names = {
        mine.name: True,
        mine.name.replace(f".{os.getpid()}-", f".{gone.pid}-"): False,
        mine.name.replace(f".{os.getpid()}-", ".1-"): True,  # process 1 is always there
        mine.name.replace("@", "@elsewhere"): True,
        ".a.partial": True,
        "a.partial": True,
    }
    for name in names:
        (tmp_path / name).write_text("")
    old = mine.name.replace("@", "@long-ago-elsewhere")
    (tmp_path / old).mkdir()
    os.utime(tmp_path / old, (0, 0))
    written = mine.name.replace("@", "@being-written-elsewhere")  # the time of a folder does not tell of writing to its files
    (tmp_path / written).mkdir()
    (tmp_path / written / "frames.npy").write_text("")
    os.utime(tmp_path / written, (0, 0))
    names[written] = True
    remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


def test_two_writes_of_one_process_do_not_share_a_temporary(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_appears_meanwhile_is_kept_unless_asked(tmp_path):
    def write(**options):
        with replacing(tmp_path / "a", **options) as temporary:
            temporary.write_text("mine")
            (tmp_path / "a").write_text("another's")

    with pytest.raises(OutputError, match=r"a exists already\.\nChoose another name"):
        write(overwrite=False)
    assert (tmp_path / "a").read_text() == "another's"
    write()
    assert (tmp_path / "a").read_text() == "mine"


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path):
    path = tmp_path / ("ü" * 127)  # 254 bytes
    with replacing(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"
