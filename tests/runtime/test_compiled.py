"""A library is compiled anew when its source, or a header that it includes, has changed."""

import ctypes

import pytest

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
