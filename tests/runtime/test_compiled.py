"""A library is compiled anew when its source, or a header that it includes, has changed, and when it is damaged."""

import ctypes
import hashlib
import logging
import os
import subprocess
import sys

import pytest
from makers.damage import cut, empty, zeros_from

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, Source


@pytest.mark.parametrize("header", ["number.h", "shared/number.h"])
def test_a_changed_header_gives_another_library(header, tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "told.c").write_text(f'#include "{header}"\nvoid told(int *out, int threads) {{ *out = NUMBER; }}\n')
    found = []
    for number in (3, 4):
        (tmp_path / header).write_text(f"#define NUMBER {number}\n")
        library = compiled.load(Source(tmp_path / "told.c", "numbers", {"told": [POINTER]}))
        if library is None:
            pytest.skip("no C compiler")
        out = ctypes.c_int(0)
        library.told(ctypes.addressof(out), 1)
        found.append(out.value)
    assert found == [3, 4]


SCRIPT = """
import ctypes, sys
from pathlib import Path
from nowcast.runtime.compiled import POINTER, Source, load

library, out = load(Source(Path(sys.argv[1]), "numbers", {"told": [POINTER]})), ctypes.c_int(0)
library.told(ctypes.addressof(out), 1)
print(out.value)
"""


def half_zero(path):
    """Make the second half of a file zero."""
    zeros_from(path.stat().st_size // 2)(path)


def without_digest(path):
    """Damage a library of an earlier version, which has no SHA-256 beside it."""
    cut(path)
    path.with_suffix(".sha256").unlink()


def other_digest(path):
    """Leave nothing in the file with the SHA-256."""
    empty(path.with_suffix(".sha256"))


@pytest.mark.parametrize("damage", [cut, half_zero, empty, without_digest, other_digest])
def test_a_damaged_library_is_compiled_anew(damage, tmp_path, cache):
    """To load it ended the process by a signal."""
    source = tmp_path / "told.c"
    source.write_text("static int table[5000] = {1, 2, 3}; int *all = table; void told(int *out, int n) { *out = all[2]; }\n")
    argv = [sys.executable, "-c", SCRIPT, source]
    first = subprocess.run(argv, capture_output=True, text=True)
    if "no C compiler found" in first.stderr:
        pytest.skip("no C compiler")
    (library,) = cache.rglob("*.so")
    content = library.read_bytes()
    damage(library)
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert library.read_bytes() == content
    digest = hashlib.sha256(content).hexdigest()
    assert library.with_suffix(".sha256").read_text() == f"{digest}  {library.name}\n"


def test_a_library_that_is_whole_is_not_compiled_anew(tmp_path, cache, caplog):
    caplog.set_level(logging.INFO, "nowcast")
    (tmp_path / "told.c").write_text("void told(int *out, int n) { *out = 7; }\n")
    for _ in range(2):
        compiled.load.cache_clear()
        if compiled.load(Source(tmp_path / "told.c", "numbers", {"told": [POINTER]})) is None:
            pytest.skip("no C compiler")
    assert sum(message.startswith("compiled told.c") for message in caplog.messages) == 1
    assert sorted(os.path.splitext(path.name)[1] for path in cache.rglob("told*")) == [".sha256", ".so"]


def test_a_cache_that_cannot_be_written_is_told_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "file"))
    compiled.forget()
    for name in ("a", "b"):
        (tmp_path / f"{name}.c").touch()
        assert compiled.load(Source(tmp_path / f"{name}.c", name, {})) is None
    compiled.forget()
    (message,) = caplog.messages
    assert message.startswith("the cache cannot be written ([Errno 20] Not a directory: ")
    assert message.endswith("); set NOWCAST_CACHE: a are computed in torch, which takes more time")
