"""What the tests of forecast files share."""

import pytest


@pytest.fixture(params=["one", "many"])
def single(request) -> bool:
    """Whether the file holds a single forecast, with dimensions (time, y, x), or several."""
    return request.param == "one"
