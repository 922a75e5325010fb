"""A library is compiled anew when its source, or a header beside it, has changed."""

import ctypes

import pytest

from nowcast.runtime import compiled
from nowcast.runtime.compiled import POINTER, Source


def test_a_changed_header_gives_another_library(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "told.c").write_text('#include "number.h"\nvoid told(int *out, int threads) { *out = NUMBER; }\n')
    found = []
    for number in (3, 4):
        (tmp_path / "number.h").write_text(f"#define NUMBER {number}\n")
        library = compiled.load(Source(tmp_path / "told.c", "numbers", {"told": [POINTER]}))
        if library is None:
            pytest.skip("no C compiler")
        out = ctypes.c_int(0)
        library.told(ctypes.addressof(out), 1)
        found.append(out.value)
    assert found == [3, 4]
