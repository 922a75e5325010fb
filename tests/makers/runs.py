"""Train on the CPU, without the picture of the training curves, which takes longer; and a run without interruption."""

import pytest

from makers import rain, write_record
from nowcast.commands.train import train_run


def train(experiment, output, *, resume=False, overwrite=False, draw=lambda _: None):
    return train_run(experiment, output, resume=resume, overwrite=overwrite, device="cpu", draw=draw)


def straight_run(folder, make_experiment):
    """Make a folder with a record, a cache and `straight`, an uninterrupted run of make_experiment(records); return it."""
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        train(make_experiment([record]), folder / "straight")
    return folder
