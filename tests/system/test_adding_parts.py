"""The code blocks of the pages on how to add a part run as they stand: what they add trains, forecasts and is scored."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from makers import command, rain, tiny_experiment, write_record

from nowcast import config, models, scores
from nowcast.config.schema import NamedSection
from nowcast.forecasters import baselines
from nowcast.models import losses, transform

PACKAGE = Path(models.__file__).parents[1]
PAGES = [PACKAGE / "models" / "README.md", PACKAGE / "scores" / "README.md", PACKAGE / "forecasters" / "README.md"]
REGISTRIES = [models.MODELS, losses.LOSSES, transform.TRANSFORMS, scores.SCORES, baselines.BASELINES]


@pytest.fixture
def added():
    """Run the ```python blocks of the pages; yield the names that they added, and take them out again."""
    before = [dict(registry) for registry in REGISTRIES]
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            exec(compile(block, str(page), "exec"), {"__name__": "added_part"})
    yield {name for registry, old in zip(REGISTRIES, before, strict=True) for name in registry.keys() - old.keys()}
    for registry, old in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(old)


@pytest.fixture
def record(tmp_path):
    return write_record(tmp_path / "rain.nc", rain(frames=24, shape=(32, 36)))


def run(*words):
    """Run a nowcast command in this process and return what it prints."""
    code, out, err = command(*words)
    assert not code, err
    return out


def train(record, folder, **sections):
    """Train for two steps with these sections, {name: keys}, and return the run folder."""
    named = {section: NamedSection(**keys) for section, keys in sections.items()}
    experiment = tiny_experiment([record], steps=2, validate_every=1).model_copy(update=named)
    path = folder / f"{sections['model']['name']}.toml"
    path.write_text(config.write(experiment), encoding="utf-8")
    run("train", path, "--output", folder / "run")
    return folder / "run"


def test_the_pages_add_one_part_of_each_kind(added):
    assert added == {"trend", "logistic", "huber", "square_root", "success_ratio", "recent_mean"}


@pytest.mark.slow
def test_a_plain_model_loss_transform_baseline_and_score_work_together(added, record, tmp_path, undrawn):
    sections = {"model": {"name": "trend"}, "loss": {"name": "huber"}, "transform": {"name": "square_root"}}
    trained = train(record, tmp_path, **sections)
    run("predict", trained, record, "--output", tmp_path / "forecast.nc")
    table = run("evaluate", trained, "recent_mean", "--observations", record, "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(table)) if row["score"] == "success_ratio" and not row["against"]]
    assert {"recent_mean", trained.name} <= {row["forecaster"] for row in rows}
    values = [float(row["value"]) for row in rows if row["value"] and row["forecaster"] == "recent_mean"]
    assert values
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.slow
def test_a_model_of_a_distribution_trains_and_its_probabilities_are_scored(added, record, tmp_path, undrawn):
    trained = train(record, tmp_path, model={"name": "logistic"}, loss={"name": "exceedance"})
    run("predict", trained, record, "--probabilities", "--output", tmp_path / "forecast.nc")
    table = run("evaluate", trained, "--observations", record, "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(table)) if row["score"] == "brier" and row["forecaster"] == trained.name]
    assert any(row["value"] and np.isfinite(float(row["value"])) for row in rows)
