"""scripts/skill/learning_curve.py: networks of few and many days are trained, scored on the same cases, and drawn."""

import json

import learning_curve
import numpy as np
import pytest
from archives import open_record
from makers import rain, write_record

DAY = np.datetime64("2020-05-28T00:00:00")  # day number 0 of ten
MINUTE = np.timedelta64(60, "s")
FRAMES = 18
TINY = ("data.kept_cases=4", "data.crop=0", "training.batch_size=2", "training.validation_cases=4", "training.validate_every=2",
        "model.hidden_channels=[4, 4]")  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An archive of two cycles with rain on days 0, 1, 2, 3, 6 and 7 of each."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "cache"))
    starts = [DAY + (1440 * (10 * cycle + day)) * MINUTE for cycle in range(2) for day in (0, 1, 2, 3, 6, 7)]
    assert int(DAY.astype("datetime64[D]").astype(int)) % 10 == 0
    times = np.concatenate([start + 5 * MINUTE * np.arange(FRAMES) for start in starts])
    fields = np.concatenate([rain(frames=FRAMES, shape=(32, 32), seed=seed) for seed in range(len(starts))])
    (tmp_path / "archives" / "taasrad").mkdir(parents=True)
    write_record(tmp_path / "archives" / "taasrad" / "rain.nc", fields, times=list(times))
    return tmp_path


def test_few_days_are_spread_over_those_with_rain(folder):
    record = open_record(folder / "archives" / "taasrad")
    splits, number = learning_curve.splits(record, 3)
    assert number == 3
    starts = [np.datetime64(start) for start, _ in splits.training]
    assert [int(start.astype("datetime64[D]").astype(int)) % 10 for start in starts] == [1, 0, 2]
    assert [len(spans) for spans in (splits.validation, splits.test)] == [2, 2]
    assert learning_curve.splits(record, 0)[1] == 8
    assert learning_curve.splits(record, 30)[1] == 8


def test_few_days_take_fewer_steps_and_what_is_given_comes_last():
    assert learning_curve.settings_of(3, None, []) == [
        "data.kept_cases=750",
        "training.steps=400",
        "training.validate_every=100",
    ]
    assert learning_curve.settings_of(0, 2, ["data.kept_cases=4"])[-3:] == [
        "training.steps=2", "training.validate_every=1", "data.kept_cases=4"]  # fmt: skip


@pytest.mark.slow
def test_a_curve_is_trained_scored_and_drawn(folder, capsys):
    options = [word for setting in TINY for word in ("--set", setting)]
    learning_curve.main(["--archive", "taasrad", "--archives", str(folder / "archives"), "--output", str(folder / "out"),
                         "--days", "3", "30", "0", "--steps", "2", "--cases", "4", "--device", "cpu", *options])  # fmt: skip
    facts = json.loads((folder / "out" / "taasrad.json").read_text())
    assert [point["days"] for point in facts["points"]] == [3, 8]  # of 30 days there are only 8
    assert facts["num_cases"] == 4
    assert all(0 < value < 3 for point in facts["points"] for value in point["value"] if value == value)
    assert "| training days |" in capsys.readouterr().out
    learning_curve.main(["--picture", str(folder / "out" / "taasrad.json"), "--output", str(folder / "curve.png")])
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
