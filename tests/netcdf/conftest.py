"""What the tests of forecast files share, and those of the index."""

import pytest


@pytest.fixture(params=["one", "many"])
def single(request) -> bool:
    """Whether the file holds a single forecast, with dimensions (time, y, x), or several."""
    return request.param == "one"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The cache folder, one of its own."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
