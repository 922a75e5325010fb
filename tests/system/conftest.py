"""Inputs that the tests of the command line share."""

import pytest
from makers import rain, tiny_experiment, tiny_run, write_record


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Inputs that no command may change: a record, a short one, a config and a trained run."""
    from nowcast import config

    folder = tmp_path_factory.mktemp("inputs")
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    write_record(folder / "short.nc", rain(frames=3, shape=(24, 28)))
    (folder / "tiny.toml").write_text(config.write(tiny_experiment([record])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        tiny_run(folder / "run", [record])
    return folder
