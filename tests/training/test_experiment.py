"""Parts of an experiment that do not fit together are refused before any data are read, with exit code 2."""

import pytest
from makers import expect, tiny_experiment

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
