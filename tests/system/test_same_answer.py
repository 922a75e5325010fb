"""The same command twice gives the same answer to the bit, also beside busy processes."""

import subprocess
import sys

import netCDF4
import numpy as np
import pytest
from makers import ROOT, rain, tiny_experiment, write_record

from nowcast import config

pytestmark = pytest.mark.slow
BESIDE = 2  # processes that compute at the same time
BOTH = """
import os, sys
import nowcast.commands.predict, nowcast.commands.train, nowcast.report.training_curves
from nowcast.cli import main

def answer(folder):
    os.chdir(folder)
    for words in (["train", "../tiny.toml", "--output", "run", "-q"],
                  ["predict", "run", "../rain.nc", "--output", "forecast.nc", "-q"]):
        try:
            main(words)
        except SystemExit as end:
            if end.code:
                os._exit(1)
    os._exit(0)

copies = [os.fork() or answer(folder) for folder in sys.argv[1:]]  # of a process that has imported all and computed nothing
assert not any(os.waitpid(copy, 0)[1] for copy in copies)
"""


def content(path):
    """All values and attributes of a forecast file, but for its history."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        values = {name: (variable[...].tobytes(), str(variable.__dict__)) for name, variable in file.variables.items()}
        return values, {key: str(value) for key, value in file.__dict__.items() if key != "history"}


def test_a_training_and_its_forecast_are_the_same_beside_each_other(tmp_path, monkeypatch):
    record = write_record(tmp_path / "rain.nc", rain(frames=30, shape=(72, 80)))
    wanted = tiny_experiment([record], steps=3, precision="auto", batch_size="auto", validate_every=2)
    (tmp_path / "tiny.toml").write_text(config.write(wanted))
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for library in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        monkeypatch.setenv(library, "2")

    def answers(*names):
        """What a process that starts now answers in each of these folders, at the same time."""
        folders = [tmp_path / name for name in names]
        for folder in folders:
            folder.mkdir()
        subprocess.run([sys.executable, "-c", BOTH, *folders], check=True, timeout=600)
        written = [[(folder / "run" / file).read_bytes() for file in ("best.safetensors", "config.toml")] for folder in folders]
        return [(*bytes_, content(folder / "forecast.nc")) for bytes_, folder in zip(written, folders, strict=True)]

    (idle,) = answers("idle")
    assert np.frombuffer(idle[2][0]["precip_intensity"][0], np.uint8).any()
    found = answers(*(f"busy{number}" for number in range(BESIDE)))  # each of two threads: more than there are cores
    assert [each == idle for each in found] == [True] * BESIDE
