"""Child processes of tests: Python programs that import a test module, and the scripts of this repository."""

import os
import subprocess
import sys
from pathlib import Path

from makers import ROOT


def run_beside(test_file, program, *arguments, prefix=(), timeout=120):
    """Run a Python `program` that can import the module of `test_file` by its name, and the makers.

    `prefix` are words before the command, such as strace and its options. Returns the finished process, output as text.
    """
    folders = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    words = [*prefix, sys.executable, "-c", program, *arguments]
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=Path(test_file).parent, env=environment, timeout=timeout
    )


def run_script(name, *arguments, **environment):
    """Run scripts/`name` with these arguments and additions to the environment; return the finished process, output as text."""
    words = [sys.executable, ROOT / "scripts" / name, *arguments]
    added = {key: str(value) for key, value in environment.items()}
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, env=os.environ | added)
