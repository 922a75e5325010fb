"""Where the real radar records are, one thread each for tests that run side by side, and the seed."""

import gc
import logging
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # likewise: as nowcast's command has threads wait (runtime/libraries.py)
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")  # before OpenCV is: of small fields threads take twice the time
os.environ.pop("COLUMNS", None)  # readline sets it in pytest's process, and xdist's workers take it for that of a terminal

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from makers import SHARED

gc.set_threshold(20_000)  # new objects until the garbage collector begins, from 700: 6 % of the time, 12 % of that of imports
settings.register_profile("busy", deadline=None)  # an example may take any time: on busy cores many take over .2 s now and then
settings.load_profile("busy")


def pytest_collection_finish():
    """Spare the garbage collector what stays to the end: going through some million objects of imports takes a second."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(autouse=True)
def log_as_imported():
    """Log as before any command ran in this process: with -q it would leave only warnings to the tests after it."""
    logger = logging.getLogger("nowcast")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own; nothing is in it, and it is not made yet."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def workplace(tmp_path, monkeypatch, cache) -> Path:
    """An empty current folder of the test's own, which then holds what a command leaves behind; and a cache beside it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(autouse=True)
def hardly_drawn(request, monkeypatch):
    """Make the picture of each training tiny: drawing it takes longer than a tiny training. `drawn` leaves it as it is."""
    if "nowcast.commands.train" in sys.modules and "drawn" not in request.fixturenames:
        from matplotlib.figure import Figure

        from nowcast.report import training_curves

        monkeypatch.setattr(training_curves, "draw_training", lambda _: Figure((0.1, 0.1)))


@pytest.fixture
def drawn():
    """Have the pictures of trainings drawn as users get them."""


@pytest.fixture
def undrawn(monkeypatch):
    """Make reports without drawing or rendering their diagrams, which takes most of their time; tests/report draws them."""
    from nowcast.report import folder, maps, page, sections

    pixel, own = np.zeros((1, 1, 3), np.uint8), {"draw_members", "draw_sums"}  # these give pictures, whose pixels are none
    for module in (folder, page, sections):
        for name in vars(module).keys() - own:
            if name.startswith("draw_"):
                monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(page, "panel", lambda: (None, None))
    for module in (page, sections):
        monkeypatch.setattr(module, "svg", lambda _: b"<svg/>")
    for module in (folder, maps):
        monkeypatch.setattr(module, "drawn", lambda _: pixel)
    monkeypatch.setattr(maps.MapGrid, "pixels", lambda _: pixel)
