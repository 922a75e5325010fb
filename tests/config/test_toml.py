"""Config text: comments, any text and times are written on one line and read back as they were."""

import tomllib
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import ROOT, tiny_experiment
from makers.archives import MINUTES, START, series
from makers.configs import commented_keys

from nowcast import config
from nowcast.config.toml import read_comments, rewritten, write_commented
from nowcast.errors import UsageError
from nowcast.plan.frames import choose_frames
from nowcast.training.experiment import resolve

REFERENCE = ROOT / "configs" / "radar.toml"


def test_a_commented_config_is_read_back_with_its_comments(tmp_path):
    text = REFERENCE.read_text(encoding="utf-8")
    comments = read_comments(text)
    assert comments == {key: comment for key, comment in commented_keys(REFERENCE).items() if comment}
    experiment = resolve(config.read(REFERENCE))
    written = rewritten(text, experiment)
    (tmp_path / "again.toml").write_text(written, encoding="utf-8")
    assert resolve(config.read(tmp_path / "again.toml")) == experiment
    assert read_comments(written) == comments
    assert written.splitlines()[:2] == text.splitlines()[:2]


def test_comments_are_kept_however_a_key_is_written():
    lines = ["[data]", 'records=["site#1.nc", "b\\"c.nc"]  # two radars', "  input_frames = 4 # past # frames", "lead_frames=3"]
    assert read_comments("\n".join(lines)) == {"data.records": "two radars", "data.input_frames": "past # frames"}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_written_on_one_line(text):
    line = f"key = {config_text_inline([text, 1, True, 0.5])}"
    assert "\n" not in line
    assert tomllib.loads(line)["key"] == [text, 1, True, 0.5]


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), st.integers(0, 9), max_size=4))
def test_any_key_is_written_so_that_it_is_read_back(table):
    line = f"key = {config_text_inline({**table, 'inner': {'a b': 1, 'c.d': 2, '': 3}})}"
    assert "\n" not in line
    assert tomllib.loads(line)["key"] == {**table, "inner": {"a b": 1, "c.d": 2, "": 3}}


def test_keys_have_quotes_only_where_they_must():
    assert config_text_inline({"a b": 1, "c-d_3": 2, "e.f": 3, 4: 5}) == '{"a b" = 1, c-d_3 = 2, "e.f" = 3, 4 = 5}'


def config_text_inline(value):
    from nowcast.config.toml import inline

    return inline(value)


def test_values_of_python_become_settings():
    given = {
        "training.steps": np.int64(5), "training.ema": np.float64(0.5), "data.records": [Path("a b.nc"), "c.nc"],
        "model.hidden_channels": np.array([4, 8]), "data.splits": {"test": [[np.datetime64("2020-01-01", "ns"), START.item()]]},
        "data.sampler": "rain",
    }  # fmt: skip
    tree = config.as_dict(tiny_experiment(["absent.nc"]))
    made = config.with_settings(tree, config.as_settings(given), source="given")
    assert (made.training.steps, made.training.ema, made.data.sampler) == (5, 0.5, "rain")
    assert made.data.records == ("a b.nc", "c.nc")
    assert made.model.hidden_channels == [4, 8]
    assert made.data.splits.test[0][0] == datetime(2020, 1, 1)
    assert config.plain({"data": {"records": (Path("a.nc"),), "crop": np.int32(8)}}) == {
        "data": {"records": ["a.nc"], "crop": 8}
    }
    assert config.as_settings(None) == []
    with pytest.raises(UsageError, match=r"^--set training\.steps = None: write a number, text, a time"):
        config.as_settings({"training.steps": None})
    with pytest.raises(UsageError, match=r"^--set \['a=1'\]: write a dict of values by dotted key"):
        config.as_settings(["a=1"])


def test_spans_are_written_as_times():
    chosen_ = choose_frames([series(12, start=START + 5 * MINUTES)])
    experiment = resolve(config.read(REFERENCE))
    data = experiment.data.model_copy(update={"splits": chosen_.splits})
    text = write_commented(experiment.model_copy(update={"data": data}), {})
    assert config.with_settings(tomllib.loads(text), (), source="text").data.splits == chosen_.splits


@pytest.mark.parametrize(("setting", "says"), [
    ("data.input_frame=4", r"--set data\.input_frame=4: unknown key data\.input_frame; did you mean input_frames\?"),
    ("training.steps=many", r"--set training\.steps=many: training\.steps = 'many': it should be"),
])  # fmt: skip
def test_what_is_wrong_in_a_setting_is_not_said_of_the_file(setting, says):
    with pytest.raises(UsageError, match=rf"^{says}"):
        config.with_settings(config.as_dict(tiny_experiment(["a.nc"])), [setting], source="a.toml")
    with pytest.raises(UsageError, match=rf"^{says}"):
        config.with_settings(config.as_dict(tiny_experiment(["a.nc"])), ["training.steps=5", setting], source="a.toml")
    tree = config.as_dict(tiny_experiment(["a.nc"]))
    tree["data"]["input_frame"] = 4
    with pytest.raises(UsageError, match=r"^a\.toml: unknown key data\.input_frame"):
        config.with_settings(tree, ["training.steps=9"], source="a.toml")


@pytest.mark.parametrize(
    ("text", "value"), [(".25", 0.25), ("1.", 1.0), ("-.5e-3", -0.0005), ("[.75, .25,0.]", [0.75, 0.25, 0.0]), ("1e-3", 0.001)]
)
def test_a_setting_may_leave_out_the_zero_beside_the_point(text, value):
    tree = {}
    with pytest.raises(UsageError, match=r"unknown key data\.new"):
        config.with_settings(tree, [f"data.new={text}"], source="a.toml")
    assert tree["data"]["new"] == value
