"""Training a network that corrects guidance: it resumes, starts from another run, and refuses what guidance is not made for."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from makers import expect, rain, tiny_experiment, write_record
from makers.guided import SECTIONS, guided_experiment
from makers.runs import straight_run, train

from nowcast import config
from nowcast.commands.train import dry_run_summary
from nowcast.dataset.archive import open_archive
from nowcast.errors import Stopped, UsageError
from nowcast.forecasters import open_forecaster
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint, write_checkpoint
from nowcast.models.guided.calibration import correction, count_guidance
from nowcast.models.guided.network import Guided
from nowcast.training.experiment import resolve
from nowcast.training.learner import Learner
from nowcast.training.run_folder import METRICS
from nowcast.training.trainer import Trainer

CPU = torch.device("cpu")
FITTED = ("intercept", "slope", "entropy")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A record, the cache, and `straight`: a run that nothing disturbed."""
    return straight_run(tmp_path_factory.mktemp("guided"), guided_experiment)


@pytest.fixture
def cached(place, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(place / "cache"))


def trainer(experiment, output):
    output.mkdir(exist_ok=True)
    made = Trainer(Learner(experiment, CPU), open_archive(experiment.data), output)
    made.prepare_data()
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_before_the_first_step_the_guidance_is_corrected_to_the_kept_cases(place, tmp_path):
    made = trainer(guided_experiment([place / "rain.nc"]), tmp_path / "run")
    batches, model, counts = made.batches, made.learner.model, 0
    assert len(batches.kept.cases) == 7
    assert len(made.validation_batches.kept.cases) == 4
    for number, case in enumerate(batches.kept.cases):
        counts = counts + count_guidance(batches.kept.guidance(number), batches.read(case)[2:].float().numpy())
    fitted, entropy = correction(counts)
    assert model.intercept[:3].numpy() == pytest.approx(fitted[..., 0], abs=1e-5)
    assert model.slope[:3].numpy() == pytest.approx(fitted[..., 1], abs=1e-5)
    assert model.entropy.numpy() == pytest.approx(entropy.clip(min=1e-6), abs=1e-5)
    average = made.learner.forecasting_weights()
    assert torch.equal(average["intercept"], model.intercept)
    with torch.no_grad():  # nothing is learnt yet, so the loss over all kept cases would be 1; that of a batch is near
        assert 0.2 < made.learner.batch_loss(batches[0]).item() < 5


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_the_run_folder_has_calibrated_cuts_and_scores(place):
    straight = read_checkpoint(place / "straight")
    tensors = straight.tensors_of("model")
    assert tensors["cuts"].abs().max() > 0
    assert tensors["head.weight"].abs().max() > 0
    losses = [line for line in (place / "straight" / METRICS).read_text().splitlines() if '"validation"' in line]
    assert len(losses) == 3  # with that of the weights before the first step
    assert "NaN" not in "".join(losses)


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_what_is_fixed_before_the_first_step_is_so_in_the_average_too(place):
    last = read_checkpoint(place / "straight" / LAST)
    weights, averaged = last.tensors_of("model"), last.tensors_of("average")
    assert set(FITTED) <= set(Guided.fixed) & set(weights)
    for name in set(Guided.fixed) & set(weights):
        assert torch.equal(averaged[name], weights[name]), name
    assert not torch.equal(averaged["head.weight"], weights["head.weight"])


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_resumed_run_equals_a_straight_one(place, tmp_path):
    experiment = guided_experiment([place / "rain.nc"])
    first = trainer(experiment, tmp_path / "resumed")
    apply = first.learner.apply_gradients

    def apply_then_signal(step, **rate):
        apply(step, **rate)
        if step + 1 == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    first.learner.apply_gradients = apply_then_signal
    with pytest.raises(Stopped, match="stopped at step 4, state saved"):
        first.run()
    train(experiment, tmp_path / "resumed", resume=True)
    straight, resumed = (read_checkpoint(folder / LAST) for folder in (place / "straight", tmp_path / "resumed"))
    assert set(straight.tensors) == set(resumed.tensors)
    for name, tensor in straight.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    assert straight.metadata == resumed.metadata


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_run_that_starts_from_another_keeps_its_correction(place, tmp_path):
    other = write_record(tmp_path / "other.nc", 3 * rain(frames=40, shape=(24, 28), motion=(2, 0), seed=5))
    train(guided_experiment([other], steps=2, start_from=str(place / "straight")), tmp_path / "run")
    train(guided_experiment([other], steps=2), tmp_path / "new")
    before, found, new = (read_checkpoint(path).tensors_of("model") for path in
                          (place / "straight", tmp_path / "run", tmp_path / "new"))  # fmt: skip
    for name in FITTED:
        assert torch.equal(found[name], before[name]), name
        assert not torch.equal(found[name], new[name]), name
    assert not torch.equal(found["head.weight"], before["head.weight"])


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_run_that_is_older_than_the_shift_forecasts_resumes_and_is_started_from(place, tmp_path):
    shutil.copytree(place / "straight", tmp_path / "older")
    for name in (BEST, LAST):
        checkpoint = read_checkpoint(tmp_path / "older" / name)
        tensors = {key: value for key, value in checkpoint.tensors.items() if not key.endswith(".shift")}
        assert len(tensors) < len(checkpoint.tensors)
        metadata = {key: value for key, value in checkpoint.metadata.items() if key != "format"}
        write_checkpoint(tmp_path / "older" / name, metadata, tensors)
    older = open_forecaster(str(tmp_path / "older"), device=CPU)
    assert not older.model.shift.any()
    assert np.isfinite(older.forecast_and_exceedance(rain(frames=2, shape=(24, 28))[None], 3, (1.0,))[1]).any()
    experiment = guided_experiment([place / "rain.nc"])
    steps = experiment.training.steps + 2
    longer = experiment.model_copy(update={"training": experiment.training.model_copy(update={"steps": steps})})
    train(longer, tmp_path / "older", resume=True)
    assert "model.shift" in read_checkpoint(tmp_path / "older" / LAST).tensors
    train(guided_experiment([place / "rain.nc"], steps=2, start_from=str(tmp_path / "older")), tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"data": {"coordinates": "lagrangian"}},
            r"'guided' takes guidance on the cells of the grid: data\.coordinates = 'grid'",
        ),
        (
            {"transform": {"name": "log", "offset": 0.1}},
            r"guidance that is made with \[transform\] name = 'log', offset = 0\.5",
        ),
        (
            {"transform": {"name": "dbz"}},
            r"guidance that is made with \[transform\] name = 'log', offset = 0\.5, ceiling = 100",
        ),
        ({"model": {"name": "encoder_forecaster"}}, r"'relative_exceedance' compares with guidance but .* takes none"),
        ({"model": {"name": "probabilistic"}}, r"'relative_exceedance' compares with guidance but .* takes none"),
        (
            {"loss": {"name": "relative_exceedance", "thresholds": [0.1, 0.3, 5]}},
            r"no probabilities of 0\.3 mm/h\ngive some of 0\.1, 0\.5, 1, 2, 5, 10, 20, 50 mm/h for .* = 'relative_exceedance'$",
        ),
        ({"loss": {"name": "mae"}}, r"loss\.name = 'mae' takes values but model\.name = 'guided' gives distributions"),
    ],
)
def test_what_does_not_fit_guidance_is_refused(changed, says):
    tree = config.as_dict(tiny_experiment(["x.nc"])) | SECTIONS
    changed = {name: tree[name] | keys if name == "data" else keys for name, keys in changed.items()}
    with pytest.raises(UsageError, match=says) as caught:
        resolve(config.from_dict(tree | changed, source="test"))
    assert caught.value.exit_code == 2


def test_some_of_the_rates_of_the_guidance_may_be_thresholds():
    tree = config.as_dict(tiny_experiment(["x.nc"])) | SECTIONS
    resolve(config.from_dict(tree | {"loss": {"name": "relative_exceedance", "thresholds": [1, 5.0]}}, source="test"))


@pytest.mark.parametrize("further", [(), ("--dry-run",)])
def test_guidance_of_another_quantity_is_refused(workplace, further):
    cloud = {"variable": "cloud", "standard_name": "cloud_area_fraction", "units": "1"}
    write_record("cloud.nc", np.full((40, 24, 28), 0.5), **cloud)
    experiment = guided_experiment(["cloud.nc"], data={"variable": "cloud"})
    (workplace / "guided.toml").write_text(config.write(experiment))
    says = (r"model\.name = 'guided' takes guidance, which is made for the rain rate, but cloud holds dimensionless\.\n"
            r"Use records of the rain rate, or another model\.\n$")  # fmt: skip
    expect(3, "train", "guided.toml", "--output", "run", *further, says=says)


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_dry_run_measures_it_and_finds_a_batch_that_fits(place):
    summary = dry_run_summary(guided_experiment([place / "rain.nc"], batch_size="auto"), "cpu")
    assert summary["config"]["training"]["batch_size"] >= 1
    assert summary["seconds_per_step"] > 0
    assert summary["estimated_memory_mb"] > 0
    assert summary["config"]["data"]["kept_cases"] == 7
