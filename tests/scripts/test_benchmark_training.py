"""The benchmark of training steps runs in one command and prints a row for each recipe."""

import re

import pytest
from makers import ROOT, rain, write_record
from makers.processes import call_script


@pytest.mark.slow
def test_recipes_stand_in_one_table(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    times = [f"2020-01-{day:02d}T{minute // 60:02d}:{minute % 60:02d}" for day in range(1, 11) for minute in range(0, 100, 5)]
    record = write_record(tmp_path / "rain.nc", rain(frames=len(times), shape=(64, 64)), times=times)
    options = ["--data", record, "--rounds", "1", "--set", "data.crop=32", "--set", 'data.splits.by="days"',
               "--set", "training.validation_cases=4", "--set", "training.batch_size=2",
               "--set", "data.lead_frames=6", "--set", "model.hidden_channels=[8, 8]",
               "--set", "data.kept_cases=6"]  # fmt: skip
    done = call_script("benchmarks/training.py", ROOT / "configs/radar.toml", ROOT / "configs/archive.toml", *options)
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()[2:]
    assert head.startswith("| recipe | windows / s | ÷ first | data, ms | motion | cascade | forward | loss | backward |")
    assert [row.split(" | ")[0] for row in rows] == ["| radar.toml", "| archive.toml"]
    assert " | 1.00 | " in rows[0]
    for row in rows:
        numbers, others = row.split(".toml")[1].removesuffix(" |").rsplit(" | ", 1)
        speed, _, *parts, share = re.findall(r"[\d.]+", numbers)
        assert float(speed) > 0
        assert len(parts) == 8
        assert all(float(of) >= 10 for of in re.findall(r"[\d.]+", others))
        assert 0 < float(share) < 150  # the layers are timed a second time, so a busy machine may spoil their share


@pytest.mark.slow
def test_a_record_that_is_not_there_is_named(tmp_path):
    done = call_script("benchmarks/training.py", ROOT / "configs/archive.toml", "--data", tmp_path / "absent.nc")
    assert done.returncode == 2
    assert "absent.nc" in done.stderr


@pytest.mark.slow
def test_without_a_record_any_recipe_takes_random_fields(tmp_path):
    options = ["--rounds", "1", "--set", "training.batch_size=1", "--set", "data.input_frames=2", "--set", "data.lead_frames=2"]
    done = call_script("benchmarks/training.py", ROOT / "configs/quickstart.toml", ROOT / "configs/many_to_many.toml", *options)
    assert done.returncode == 0, done.stderr
    quickstart, other = (re.findall(r"[\d.]+", row.split(".toml")[1]) for row in done.stdout.splitlines()[4:])
    assert float(quickstart[4]) > 0, "the cascade"
    assert other[3:5] == ["0", "0"], "neither motion nor cascade"
