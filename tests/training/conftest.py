import pytest
from makers import rain, write_record


@pytest.fixture
def record(tmp_path):
    """The path of a record that a tiny training takes."""
    return write_record(tmp_path / "rain.nc", rain(frames=40, shape=(24, 28)))
