"""Trainings on the CPU, without a picture, which takes longer than they do; and one that nothing disturbed."""

import pytest

from makers import rain, write_record
from nowcast.commands.train import train_run


def train(experiment, output, *, resume=False, overwrite=False, draw=lambda _: None):
    return train_run(experiment, output, resume=resume, overwrite=overwrite, device="cpu", draw=draw)


def straight_run(folder, make_experiment):
    """A folder with a record, a cache, and `straight`: the run of make_experiment(records); return the folder."""
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        train(make_experiment([record]), folder / "straight")
    return folder
