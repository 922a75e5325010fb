"""Where the real radar records are, one thread each for tests that run side by side, and the seed."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from pathlib import Path

import numpy as np
import pytest
from makers import SHARED


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real radar records and digits; a test that asks for it skips where it is absent."""
    if not (SHARED / "radar").is_dir():
        pytest.skip(f"no radar records under {SHARED} (set NOWCAST_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def seeded():
    """The same random tensors in every run; a test that needs no torch does not import it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch):
    """Make the diagrams of a report without rendering them, which takes most of its time; tests/report renders them."""
    from nowcast.report import maps

    monkeypatch.setattr(maps, "svg", lambda _: b"<svg/>")
    monkeypatch.setattr(maps, "drawn", lambda _: np.zeros((1, 1, 3), np.uint8))
