"""Train on the CPU, without the picture of the training curves, which takes longer; and compare runs bit for bit."""

import json

import pytest
import torch

from makers import rain, write_record
from nowcast.commands.train import train_run
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint
from nowcast.training.run_folder import METRICS


def train(experiment, output, *, resume=False, overwrite=False, draw=lambda _: None):
    return train_run(experiment, output, resume=resume, overwrite=overwrite, device="cpu", draw=draw)


def straight_run(folder, make_experiment):
    """Make a folder with a record, a cache and `straight`, an uninterrupted run of make_experiment(records); return it."""
    record = write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28), missing=0.02))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        train(make_experiment([record]), folder / "straight")
    return folder


def assert_same(one, other):
    for name in (LAST, BEST):
        mine, theirs = read_checkpoint(one / name), read_checkpoint(other / name)
        assert set(mine.tensors) == set(theirs.tensors)
        for key, tensor in mine.tensors.items():
            assert torch.equal(tensor, theirs.tensors[key]), f"{name}: {key}"
        assert {**mine.metadata, "config": None} == {**theirs.metadata, "config": None}
    assert events(one) == events(other)


def events(run):
    """What metrics.jsonl says but for the speed."""
    speed = ("windows_per_second", "waiting_share")
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in speed} for line in lines]
