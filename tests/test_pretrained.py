"""The network that comes with the package: described in its card, opened by name, better than extrapolation on unseen radar."""

import re

import numpy as np
import pytest
import torch
from makers import command, rain, write_record

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.errors import CheckpointError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES
from nowcast.models.checkpoint import PRETRAINED, PRETRAINED_FILE, read_checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.scores.pixels import csi, sums
from nowcast.training.experiment import resolve

CPU = torch.device("cpu")
CARD = PRETRAINED_FILE.with_name("README.md").read_text(encoding="utf-8")
TESTS = ("bom", "knmi", "smhi")  # services whose records are kept for tests
RECIPE = PRETRAINED_FILE.parents[1] / "plan" / "radar.toml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def facts():
    return read_checkpoint(PRETRAINED).metadata


def test_it_is_small_and_tells_no_path_of_the_machine_that_trained_it(facts):
    assert PRETRAINED_FILE.stat().st_size < 12e6
    records = facts["config"]["data"]["records"]
    assert records
    assert not any(record.startswith("/") for record in records)
    assert not {record.split("/")[0] for record in records} & set(TESTS)


def test_it_is_of_the_recipe(facts):
    recipe = config.as_dict(resolve(config.read(RECIPE)))
    trained = config.as_dict(config.from_dict(facts["config"], source="pretrained"))  # keys that are newer have their defaults
    recipe["training"].pop("precision")  # "auto": what the machine of the training has
    assert trained["training"].pop("precision") in ("float32", "bfloat16")
    for section in ("transform", "model", "loss", "training"):
        assert trained[section] == recipe[section]
    assert trained["data"]["coordinates"] == "lagrangian"


def test_its_card_names_what_it_was_trained_on(facts):
    for _, first, last in [*facts["spans"]["training"], *facts["spans"]["validation"]]:
        assert re.search(rf"{first[:10]} {first[11:16]} to {last[11:16]}", CARD), first


@pytest.mark.slow
def test_it_is_a_forecaster_by_name(tmp_path, undrawn):
    write_record(tmp_path / "a.nc", rain(frames=16, shape=(40, 44)))  # of one case
    code, out, err = command("predict", PRETRAINED, "a.nc", "--output", "f.nc", "--device", "cpu", "--probabilities")
    assert (code, out) == (0, "f.nc\n"), err
    scored = ("--observations", "a.nc", "--output", "scores", "--thresholds", "1", "--device", "cpu")
    code, out, err = command("evaluate", PRETRAINED, *scored)
    assert code == 0, err
    code, _, err = command("predict", PRETRAINED, "a.nc", "--output", str(PRETRAINED_FILE), "--device", "cpu", "--overwrite")
    assert code == 5, err


@pytest.mark.slow
def test_a_training_begins_with_it(tmp_path):
    path = write_record(tmp_path / "a.nc", rain(frames=60, shape=(40, 40), motion=(1, 1)))
    settings = [f'data.records=["{path}"]', "training.start_from=pretrained", "training.steps=1", "training.warmup_steps=0",
                "training.learning_rate=1e-9", "training.validation_cases=3", "data.crop=32",
                'data.splits.by="fractions"']  # fmt: skip
    train_run(config.read(RECIPE, settings), tmp_path / "run", resume=False, overwrite=False, device="cpu")
    found, begun = (read_checkpoint(name).tensors_of("model") for name in (tmp_path / "run", PRETRAINED))
    assert torch.allclose(found["width"], begun["width"], atol=1e-6)
    assert begun["width"].abs().max() > 0


def test_a_folder_of_that_name_is_reached_by_its_path(tmp_path):
    (tmp_path / "pretrained").mkdir()
    with pytest.raises(CheckpointError, match=r"pretrained holds no best\.safetensors"):
        read_checkpoint("./pretrained")


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 20])
def test_on_radar_it_has_not_seen_it_beats_extrapolation(shared, first):
    (record,) = open_records([shared / "radar" / "bom" / "melbourne_20180616.nc"])
    window = record.read(range(first, first + 16))[None]
    sources = open_forecaster(PRETRAINED, device=CPU), BASELINES["extrapolation"]()
    forecasts = [source.forecast(window[:, :4], 12) for source in sources]
    known = np.logical_and.reduce([np.isfinite(field[0]) for field in (window[:, 4:], *forecasts)])
    network, extrapolation = (csi(sums(f[0], window[0, 4:], known, (0.5, 1.0)).pooled())[0] for f in forecasts)
    assert (network > extrapolation).all()
