"""Child processes of tests: programs that import a test module, torchrun; scripts of this repository, also in this process."""

import contextlib
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import cv2

from makers import ROOT


def run_beside(test_file, program, *arguments, prefix=(), timeout=120):
    """Run a Python `program` that can import the module of `test_file` by its name, and the makers.

    `prefix` are words before the command, such as strace and its options: without any the program runs in a copy of a process
    that has imported what takes the longest. Returns the finished process, output as text.
    """
    folder, words = Path(test_file).parent, list(map(str, arguments))
    if not prefix:
        with (
            tempfile.TemporaryDirectory() as place,
            Forked(run_program, program, words, env=os.environ, folder=Path(place), path=folder) as process,
        ):
            return process.wait(timeout)
    folders = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    words = [*map(str, prefix), sys.executable, "-c", program, *words]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=timeout)


def run_script(name, *arguments, **environment):
    """Run scripts/`name` with these arguments and environment variables; return the finished process, its output as text."""
    words = [sys.executable, ROOT / "scripts" / name, *arguments]
    added = {key: str(value) for key, value in environment.items()}
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, env=os.environ | added)


def call_script(name, *arguments, **environment):
    """Run scripts/`name` as `run_script` does, but in this process, which has already imported the slow packages."""
    words = [str(ROOT / "scripts" / name), *map(str, arguments)]
    added = {key: str(value) for key, value in environment.items()}
    out, err, code, threads = io.StringIO(), io.StringIO(), 0, cv2.getNumThreads()
    beside = [str(Path(words[0]).parent), *sys.path]
    with contextlib.ExitStack() as stack:
        stack.callback(cv2.setNumThreads, threads)
        for changed in (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ, added),
                        mock.patch.object(sys, "argv", words), mock.patch.object(sys, "path", beside)):  # fmt: skip
            stack.enter_context(changed)
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code, text = (end.code or 0, "") if isinstance(end.code, int | None) else (1, f"{end.code}\n")
            err.write(text)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


IMPORTED = (
    "torch._dynamo", "torch.distributed.run", "nowcast.commands.evaluate", "nowcast.commands.plan", "nowcast.commands.train",
    "nowcast.report.folder",
)  # fmt: skip


class Forked:
    """A function with these arguments and this environment, in a fork of a process with the slow imports done.

    Its output goes to a file of `folder` for each stream, and so does that of the processes that it starts. It runs in the
    current folder of its start, or in `path`, from which it can import too.
    """

    _server = multiprocessing.get_context("forkserver")
    _server.set_forkserver_preload([*IMPORTED])

    def __init__(self, function, *arguments, env, folder, path=None):
        self.stdout, self.stderr = folder / "forked.out", folder / "forked.err"
        where = (str(path or Path.cwd()), bool(path))
        given = function, arguments, dict(env), (self.stdout, self.stderr), where
        self._process = self._server.Process(target=_in_copy, args=given)

    def __enter__(self):
        self._process.start()
        self.pid = self._process.pid
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.join()

    def wait(self, timeout=240):
        """Wait for the end of the process; return exit code, stdout and stderr, as `subprocess.run` does."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"not done after {timeout} s\n{self.stderr.read_text()}"
        texts = (path.read_text(encoding="utf-8") for path in (self.stdout, self.stderr))
        return subprocess.CompletedProcess("forked", self._process.exitcode, *texts)

    def is_running(self):
        return self._process.is_alive()


def _in_copy(function, arguments, env, streams, where):
    """Run the function in the copied process."""
    for number, path in enumerate(streams, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(env)
    multiprocessing.set_start_method(None, force=True)  # the default start method for its own processes
    folder, is_imported_from = where
    os.chdir(folder)
    if is_imported_from:
        sys.path.insert(0, folder)
    function(*arguments)


def run_torchrun(words):
    """Run torchrun with these arguments."""
    import torch.distributed.run

    torch.distributed.run.main(list(map(str, words)))


def run_nowcast(words):
    """Run nowcast with these arguments."""
    from nowcast.cli import main

    main(list(map(str, words)))


def run_program(program, words):
    """Run `python -c PROGRAM WORDS`."""
    sys.argv = ["-c", *words]
    exec(program, {"__name__": "__main__"})
