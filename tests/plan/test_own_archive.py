"""The archive recipe as a plan adapts it: crop, width, kept cases, steps and validations follow from archive and time."""

import tomllib
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import ROOT
from makers.archives import made_up, series

from nowcast import config
from nowcast.config.toml import write_commented
from nowcast.models import make_model, model_config
from nowcast.models.guided.guidance import TRANSFORM
from nowcast.plan import own_archive
from nowcast.plan.basis import ARCHIVE
from nowcast.plan.cost import Cost
from nowcast.plan.frames import choose_frames
from nowcast.plan.own_archive import choose_for_archive, num_cases
from nowcast.plan.references import path_of, reference_choices
from nowcast.plan.training import archive_length, cases_on_disk, choose_archive_training, choose_training
from nowcast.training.experiment import resolve

RECIPE = reference_choices(ARCHIVE).experiment()
GIVEN = RECIPE.training
CROP, USES = RECIPE.data.crop, GIVEN.steps * GIVEN.batch_size / RECIPE.data.kept_cases
MANY = 10**9


def archive(shape=(300, 300), *, days=60, frames=60, km=(1.0, 1.0)):
    return replace(series(*[frames] * days, gap_hours=24 - frames / 12), shape=shape, spacing_km=km)


def chosen(part, *, width=1.0, hours=2.0, seconds=1.0, guidance=0.1, validation=0.0, once=0.0, room=MANY, **facts):
    found, frames = made_up([part], num_rainy_days=50, **facts), choose_frames([part])
    size = next(size for size in own_archive.sizes(found, reference_choices(ARCHIVE)) if size.width == width)
    made, cost = reference_choices(ARCHIVE), Cost(seconds, 5e8, guidance, validation, once)
    choose_for_archive(found, frames, size, made)
    length = archive_length(found, frames, size, made.experiment(), hours=hours, cost=cost, room=room)
    choose_archive_training(made, length)
    choose_training(made, size, length, cost=cost, device_name="cpu")
    return resolve(made.experiment()), made, length


def test_what_the_guidance_needs_and_nothing_decides_is_the_recipe():
    experiment, _, _ = chosen(archive(), motion=30.0, top=500.0)
    assert config.as_dict(experiment)["transform"] == TRANSFORM.model_dump()
    assert experiment.data.coordinates == "grid"
    assert (experiment.model.name, experiment.model.trust) == ("guided", 1.0)
    assert (experiment.model.patch, experiment.model.kernel_sizes) == (RECIPE.model.patch, RECIPE.model.kernel_sizes)
    assert config.as_dict(experiment)["loss"] == config.as_dict(resolve(RECIPE))["loss"]
    assert (experiment.training.learning_rate, experiment.training.early_stopping) == (GIVEN.learning_rate, 0)


@pytest.mark.parametrize(
    ("shape", "crop"),
    [((CROP // 2, CROP), 0), ((CROP, CROP), 0), ((CROP * 5 // 4, CROP * 6 // 5), 0), ((CROP * 3 // 2, CROP), 0),
     ((CROP * 2, CROP), CROP), ((900, 900), CROP)],
)  # fmt: skip
def test_a_grid_about_as_large_as_the_crop_is_taken_whole(shape, crop):
    assert chosen(archive(shape))[0].data.crop == crop


def test_more_whole_grids_make_a_batch_where_they_are_small():
    batches = {side: chosen(archive((side, CROP)))[0].training.batch_size for side in (CROP // 4, CROP // 2, CROP)}
    assert batches == {CROP // 4: 2 * GIVEN.batch_size, CROP // 2: 2 * GIVEN.batch_size, CROP: GIVEN.batch_size}


def test_stretched_cells_are_not_turned():
    assert chosen(archive(km=(1.1, 0.7)))[0].data.augmentation == ("flips",)
    assert chosen(archive(km=(1.1, 1.0)))[0].data.augmentation == ("flips", "rotations")


@pytest.mark.parametrize(("shape", "augmentation"), [((CROP // 2, CROP), ("flips",)), ((CROP, CROP), ("flips", "rotations"))])
def test_whole_grids_that_are_not_square_are_not_turned(shape, augmentation):
    assert chosen(archive(shape))[0].data.augmentation == augmentation


def test_cases_are_windows_with_rain_at_each_place_of_a_crop():
    found = made_up([archive((2 * CROP, 3 * CROP))], rainy_frames=0.25)
    assert num_cases(found, (CROP, CROP), 1000) == 1000 * 0.25 * 6
    assert num_cases(found, found.series[0].shape, 1000) == 250


def test_the_time_pays_for_steps_guidance_and_validations():
    experiment, made, length = chosen(archive(days=200), hours=2.0, validation=1.0, once=3.0)
    steps, kept = experiment.training.steps, experiment.data.kept_cases
    validating = experiment.training.validation_cases * (3.0 + 9 * 1.0)
    spent = 1.1 * steps * 1.0 + kept * 0.1 + validating
    assert experiment.training.validation_cases == 120
    assert length.validation_hours == pytest.approx(validating / 3600)
    assert made.comments["training.validation_cases"].endswith("all validations take about 0.4 h")
    assert 0.9 * 7200 <= spent <= 1.01 * 7200
    assert spent / 3600 == pytest.approx(length.hours)
    assert kept == pytest.approx(steps * GIVEN.batch_size / USES, rel=0.1), "cases are used as often as in the recipe"
    assert made.comments["training.steps"] == "about 2 h, with 1 s a step on cpu; as many as fit into 2 h"


def test_validations_on_large_grids_become_fewer_and_smaller():
    """They take a quarter of the time at most, unless even the fewest take longer: then the plan says so by its hours."""
    cases, validations = {}, {}
    for seconds in (0.0, 2.0, 10.0, 25.0, 200.0):
        experiment, _, length = chosen(archive(), hours=2.0, validation=seconds, once=2 * seconds)
        cases[seconds], validations[seconds] = experiment.training.validation_cases, length.validations
        assert experiment.training.steps / experiment.training.validate_every == pytest.approx(length.validations, rel=0.1)
        assert seconds == 200 or length.validation_hours <= 0.25 * 2
    assert cases == {0.0: 120, 2.0: 81, 10.0: 25, 25.0: 14, 200.0: 8}
    assert validations == {0.0: 8, 2.0: 8, 10.0: 4, 25.0: 2, 200.0: 2}
    assert length.hours > 2


def test_twice_the_time_gives_twice_the_steps():
    short, long = (chosen(archive(days=200), hours=hours)[0].training.steps for hours in (1, 2))
    assert long == pytest.approx(2 * short, rel=0.1)


def test_few_windows_give_few_cases_and_each_is_used_once_in_each_orientation():
    experiment, made, _ = chosen(archive((64, 64), days=30, frames=20), seconds=0.01, guidance=0.0, rainy_frames=0.5)
    windows = choose_frames([archive((64, 64), days=30, frames=20)]).num_training
    assert experiment.data.kept_cases == pytest.approx(windows * 0.5, rel=0.1)
    assert experiment.training.steps == pytest.approx(8 * windows * 0.5 / experiment.training.batch_size, rel=0.1)
    assert "once in each of its orientations" in made.comments["training.steps"]
    assert experiment.training.validation_cases < GIVEN.validation_cases


def test_a_small_disk_gives_few_cases():
    experiment, made, _ = chosen(archive(), room=500)
    assert experiment.data.kept_cases == 500
    assert "no room for more" in made.comments["data.kept_cases"]
    assert "no room" not in chosen(archive())[1].comments["data.kept_cases"]


@pytest.mark.parametrize(("free", "cases"), [(2**31, 1024), (2**31 + 2**30, 1024), (2**31 - 1, 512), (100, 1), (0, 1)])
def test_the_disk_has_room_for_cases_in_half_of_what_is_free(free, cases, tmp_path, monkeypatch):
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "not" / "made"))
    asked = []
    found = cases_on_disk(2**20, lambda path: asked.append(path) or SimpleNamespace(free=free))
    assert (found, asked) == (cases, [tmp_path])


def test_a_narrower_network_has_its_reason():
    experiment, made, _ = chosen(archive(), width=0.5)
    assert experiment.model.hidden_channels == [width // 2 for width in model_config(RECIPE.model).hidden_channels]
    assert "so that there is time for enough steps" in made.comments["model.hidden_channels"]
    assert "time" not in chosen(archive())[1].comments["model.hidden_channels"]


def test_a_short_run_averages_few_steps_and_warms_up_shortly():
    short, long = (chosen(archive(), hours=hours)[0].training for hours in (0.05, 8))
    assert short.ema < GIVEN.ema == long.ema
    assert short.warmup_steps == short.steps // 10 < long.warmup_steps == GIVEN.warmup_steps


def test_the_sizes_become_narrower_and_then_smaller():
    tried = list(own_archive.sizes(made_up([archive()]), reference_choices(ARCHIVE)))
    assert [(size.width, size.batch_size) for size in tried] == [(1, 4), (0.5, 4), (0.25, 4), (0.25, 2), (0.25, 1)]
    assert {size.crop for size in tried} == {CROP}


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.tuples(st.integers(8, 3000), st.integers(8, 3000)), st.integers(12, 90), st.floats(0, 1),
    st.floats(1e-3, 1e3), st.floats(0, 1e2), st.floats(1e-3, 1e3), st.integers(1, MANY),
)  # fmt: skip
def test_any_archive_gives_a_config_that_stands(shape, days, rainy, seconds, guidance, hours, room):
    part = archive(shape, days=days)
    experiment, made, length = chosen(part, seconds=seconds, guidance=guidance, hours=hours, room=room, rainy_frames=rainy)
    assert config.with_settings(tomllib.loads(write_commented(experiment, made.comments)), (), source="plan") == experiment
    assert experiment.data.crop % make_model(model_config(experiment.model)).cell_multiple == 0
    assert 1 <= experiment.data.kept_cases <= max(room, 1)
    assert 1 <= experiment.training.validation_cases <= GIVEN.validation_cases
    assert 1 <= experiment.training.validate_every <= experiment.training.steps
    assert experiment.training.warmup_steps < experiment.training.steps
    if length.steps > 1:
        assert length.hours <= 1.001 * hours


def test_the_installed_recipes_are_those_in_configs():
    for recipe in ("archive", "radar"):
        assert not path_of(recipe).is_symlink()
        assert path_of(recipe).read_bytes() == (ROOT / "configs" / f"{recipe}.toml").read_bytes()
