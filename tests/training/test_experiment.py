"""Parts of an experiment that do not fit together are refused before any data are read, with exit code 2."""

import pytest
from makers import command, expect, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.errors import UsageError
from nowcast.training.experiment import resolve


def with_parts(**changed):
    """The tiny experiment with other keys of [model] and [loss]; its record does not exist."""
    return config.from_dict(config.as_dict(tiny_experiment(["absent.nc"])) | changed, source="test")


LINEAR = r"config: loss\.name = 'bce' takes values from 0 to 1: model\.output = 'sigmoid', not 'linear'"


@pytest.mark.parametrize("model", ["encoder_forecaster", "many_to_many", "convgru", "cnn_lstm"])
def test_a_cross_entropy_of_unlimited_values_is_refused(model):
    with pytest.raises(UsageError, match=rf"^{LINEAR}$"):
        resolve(with_parts(model={"name": model}, loss={"name": "bce"}))
    resolve(with_parts(model={"name": model, "output": "sigmoid"}, loss={"name": "bce"}))
    resolve(with_parts(model={"name": "next_frame"}, loss={"name": "bce"}))  # whose output is a sigmoid by default


@pytest.mark.parametrize("further", [(), ("--dry-run",)])
def test_no_data_are_read_before(workplace, further):
    (workplace / "tiny.toml").write_text(config.write(with_parts(loss={"name": "bce"})))
    expect(2, "train", "tiny.toml", "--output", "run", *further, says=LINEAR)


def test_rotations_that_have_no_effect_are_told_once(workplace):
    """The cells of 24 × 28 are no square, which a quarter turn would leave as it is."""
    record = write_record("rain.nc", rain(frames=40, shape=(24, 28)))
    tree = config.as_dict(tiny_experiment([record], steps=1))
    train, warning = ("train", "tiny.toml", "--output", "run"), "rotations have no effect on whole grids of 24 × 28 cells"
    for crop, augmentation, told in ((0, ["rotations"], 1), (16, ["rotations"], 0), (0, ["flips"], 0)):
        data = tree["data"] | {"crop": crop, "augmentation": augmentation}
        (workplace / "tiny.toml").write_text(config.write(config.from_dict(tree | {"data": data}, source="test")))
        code, _, err = command(*train, "--dry-run")
        assert (code, err.count(warning)) == (0, told)
    (workplace / "tiny.toml").write_text(
        config.write(config.from_dict(tree | {"data": data | {"augmentation": ["rotations"]}}, source="test"))
    )
    code, _, err = command(*train)
    assert (code, err.count(warning), (workplace / "run" / "log.txt").read_text().count(warning)) == (0, 1, 1)
