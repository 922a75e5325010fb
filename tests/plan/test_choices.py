"""Choices of a plan: each follows from a figure of the fingerprint, and any archive gives a valid config."""

import math
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import ROOT
from makers.archives import made_up, series
from makers.configs import commented_keys

from nowcast import config
from nowcast.config.toml import write_commented
from nowcast.errors import NotEnoughFrames
from nowcast.models import make_model, model_config
from nowcast.plan import choices
from nowcast.plan.choices import Size, choose, first_size
from nowcast.plan.cost import Cost
from nowcast.plan.frames import choose_frames
from nowcast.plan.references import reference_choices
from nowcast.plan.training import (
    FEW_EVENTS_PATIENCE,
    FEW_EVENTS_STEPS,
    FEWEST_STEPS,
    MOST_STEPS,
    choose_radar_training,
    choose_training,
    orientations_of,
    radar_length,
)
from nowcast.quantity import DIMENSIONLESS, RAIN_RATE
from nowcast.training.experiment import resolve

REFERENCE = ROOT / "configs" / "radar.toml"


def chosen(parts, *, size=None, device="cpu", seconds=1.0, hours=2.0, **facts):
    found, frames = made_up(parts, **facts), choose_frames(parts)
    size = size or first_size(found, frames, device)
    made, cost = reference_choices(), Cost(seconds, 5e8)
    choose(found, frames, size, made)
    length = radar_length(found, frames, size, made.experiment(), hours=hours, cost=cost)
    choose_radar_training(made, size, length, has_few_events=frames.splits.by != "days")
    choose_training(made, size, length, cost=cost, device_name=device)
    return resolve(made.experiment()), made


def days(number, *, frames=60):
    """A record of so many days with a run of frames each."""
    return series(*[frames] * number, gap_hours=24 - frames / 12)


def of_900_cells():
    part = series(300)
    return type(part)(part.name, part.times, part.time_step, (900, 900), (1.0, 1.0), 0.1)


def test_what_nothing_decides_is_the_reference_recipe():
    experiment, made = chosen([series(300)])
    found, reference = (config.as_dict(e) for e in (experiment, resolve(config.read(REFERENCE))))
    for section, keys in {
        "transform": ("name", "offset"),
        "loss": ("name", "weights"),
        "training": ("optimizer", "clip"),
    }.items():
        assert all(found[section][key] == reference[section][key] for key in keys)
    assert made.comments["training.clip"] == commented_keys(REFERENCE)["training.clip"]


@pytest.mark.parametrize("motion", [0.2, 40.0])
def test_rain_that_is_followed_needs_no_more_room_or_reach_where_it_is_fast(motion):
    experiment, made = chosen([of_900_cells()], motion=motion)
    assert experiment.data.coordinates == "lagrangian"
    assert (experiment.data.crop, experiment.model.patch, experiment.model.kernel_sizes) == (160, 8, [3, 3])
    assert not made.warnings


@pytest.mark.parametrize(("motion", "crop"), [(0.2, 128), (3.1, 128), (6.0, 192), (9.0, 256), (40.0, 256)])
def test_crops_hold_what_moves_through_them(motion, crop):
    experiment, made = chosen([of_900_cells()], motion=motion, quantity=DIMENSIONLESS)
    assert experiment.data.coordinates == "grid"
    assert experiment.data.crop == crop
    assert f"moves at most {motion:.1f} cells a step" in made.comments["data.crop"]


@pytest.mark.parametrize(
    ("parts", "shape", "patch"),
    [
        ([series(300)], (48, 37), 8),
        ([series(300)], (16, 16), 8),
        ([series(300)], (15, 40), 1),
        ([days(60)], (48, 37), 2),
        ([days(60)], (64, 64), 4),
    ],
)
def test_a_small_grid_is_taken_whole_and_finely_unless_few_events_begin_with_the_included_network(parts, shape, patch):
    small = [replace(part, shape=shape) for part in parts]
    experiment, made = chosen(small)
    assert (experiment.data.crop, experiment.model.patch) == (0, patch)
    assert ("as in the included network" in made.comments["model.patch"]) == (patch == 8)
    assert chosen(small, quantity=DIMENSIONLESS)[0].model.patch < 8, "what is not rain has no included network"


@pytest.mark.parametrize("motion", [0.5, 2.0, 4.2, 7.0, 9.6, 14.4, 24.0])
def test_a_state_can_move_as_far_as_what_it_follows(motion):
    experiment, made = chosen([of_900_cells()], motion=motion, quantity=DIMENSIONLESS)
    reach = experiment.model.patch * (experiment.model.kernel_sizes[0] - 1) // 2
    assert reach >= motion - choices.REACH_SLACK
    assert not made.warnings


def test_what_must_tell_where_things_go_has_finer_patches():
    assert chosen([of_900_cells()], motion=0.5, quantity=DIMENSIONLESS)[0].model.patch == choices.LARGEST_PATCH == 4
    assert chosen([of_900_cells()], motion=0.5)[0].model.patch == 8


def test_motion_too_fast_for_any_network_is_a_warning():
    _, made = chosen([series(300)], motion=40.0, quantity=DIMENSIONLESS)
    assert "a coarser grid would be better" in made.warnings[0]


def test_long_cells_are_not_turned():
    part = series(300)
    long = type(part)(part.name, part.times, part.time_step, part.shape, (1.1, 0.7), 0.1)
    experiment, made = chosen([long])
    assert experiment.data.augmentation == ("flips",)
    assert "1.57 times" in made.comments["data.augmentation"]


@pytest.mark.parametrize(
    ("shape", "augmentation"),
    [((48, 37), ("flips",)), ((48, 48), ("flips", "rotations")), ((900, 700), ("flips", "rotations"))],
)
def test_whole_grids_that_are_not_square_are_not_turned(shape, augmentation):
    experiment, made = chosen([replace(series(300), shape=shape)])
    assert (experiment.data.crop > 0, experiment.data.augmentation) == (shape[0] == 900, augmentation)
    told = "no rotations: 48 × 37 cells are not square" in made.comments["data.augmentation"]
    assert told == (augmentation == ("flips",))


def test_outages_are_dropped_from_a_long_archive_only():
    assert chosen([series(3000)], missing=0.2, most_missing=1.0)[0].data.max_missing == 0.5
    assert chosen([series(300)], missing=0.2, most_missing=1.0)[0].data.max_missing == 1.0
    assert chosen([series(3000)], missing=0.2, most_missing=0.3)[0].data.max_missing == 1.0


@pytest.mark.parametrize(("top", "ceiling"), [(40.0, 100.0), (150.0, 200.0), (800.0, 300.0)])
def test_the_ceiling_is_above_the_highest_credible_rate(top, ceiling, monkeypatch):
    monkeypatch.setattr(choices, "CREDIBLE", 1e-5)
    assert chosen([series(300)], top=top)[0].transform.ceiling == ceiling


def test_what_is_not_rain_is_left_as_it_is():
    experiment, made = chosen([series(300)], quantity=DIMENSIONLESS, top=0.9)
    assert (experiment.transform.name, experiment.transform.scale, experiment.loss.name) == ("linear", 1.0, "mae")
    assert (experiment.data.sampler, experiment.data.coordinates) == ("uniform", "grid")
    assert experiment.model.name == "encoder_forecaster"
    assert {key for key in made.comments if key.startswith("loss.")} == {"loss.name"}


def test_steps_are_those_of_the_time_but_no_more_than_the_data_bears():
    part = days(60)
    steps, made = (found := chosen([part], seconds=2.0))[0].training.steps, found[1]
    assert steps == 3200, "2 h of 2 s, a tenth of it for validations"
    assert made.comments["training.steps"] == "about 2 h, with 2 s a step on cpu; as many as fit into 2 h"
    assert chosen([part], seconds=2.0, hours=0.5)[0].training.steps == 810
    assert chosen([days(80)], seconds=0.01)[0].training.steps == MOST_STEPS
    few, made = chosen([days(30, frames=17)], seconds=0.01)
    assert FEWEST_STEPS < few.training.steps < MOST_STEPS
    assert "in each of 4 orientations" in made.comments["training.steps"]  # whole grids of 40 × 50 cells are not turned
    square, made = chosen([replace(days(30, frames=17), shape=(50, 50))], seconds=0.01)
    assert square.training.steps == pytest.approx(2 * few.training.steps, abs=100)
    assert "in each of 8 orientations" in made.comments["training.steps"]


def test_few_events_are_learnt_in_hundreds_of_steps_that_may_end_early():
    few, made = chosen([series(300)], seconds=0.1)
    assert few.training.steps == FEW_EVENTS_STEPS == 500
    assert few.training.early_stopping == FEW_EVENTS_PATIENCE
    assert few.training.validate_every == 50
    assert "overfit to few events" in made.comments["training.steps"]
    assert "without a better loss" in made.comments["training.early_stopping"]
    assert chosen([series(300)], seconds=10.0, hours=0.5)[0].training.steps == 160
    assert chosen([days(60)])[0].training.early_stopping == 0


def test_a_wider_network_is_for_a_gpu_and_many_days():
    assert chosen([days(60)], device="cuda")[0].model.hidden_channels == [32, 32]
    assert chosen([series(300)], device="cuda")[0].model.hidden_channels == [16, 16]


def test_a_longer_run_decays_less_in_each_step():
    reference = config.read(REFERENCE).training
    long, made = chosen([days(60)], seconds=2.0)
    decays = long.training.steps * long.training.weight_decay / (reference.steps * reference.weight_decay)
    assert decays == pytest.approx(1, rel=0.1)
    assert "longer" in made.comments["training.weight_decay"]


@pytest.mark.parametrize(("number", "trust"), [(choices.MANY_DAYS - 1, 0.3), (choices.MANY_DAYS, 1.0)])
def test_what_many_days_teach_is_believed_whole(number, trust):
    assert chosen([series(288 * number)])[0].model.trust == trust


def test_a_split_by_days_comes_with_its_windows():
    _, made = chosen([series(*[60] * 60, gap_hours=19)])
    assert not made.comments["data.splits.fractions"].endswith("windows")
    assert made.comments["data.splits.by"].endswith("; 1,620 training, 270 validation and 270 test windows")
    assert made.tree["data"]["splits"]["test_days"] == (7,)


def test_sizes_shrink_to_an_end():
    size, work = Size(2.0, 384, 16), []
    while size:
        work.append(size.work)
        size = size.smaller()
    assert work == sorted(work, reverse=True)
    assert len(work) == len(set(work)) < 15


@st.composite
def archives(draw):
    parts = []
    for n in range(draw(st.integers(1, 3))):
        runs = draw(st.lists(st.integers(1, 80), min_size=1, max_size=5))
        part = series(
            *runs,
            minutes=draw(st.sampled_from([1, 2, 5, 6, 10, 15, 30])),
            wet=draw(st.sampled_from([0, 0.01, 0.5])),
            name=str(n),
        )
        shape = draw(st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
        km = draw(st.tuples(*[st.floats(0.1, 20) | st.just(math.nan)] * 2))
        parts.append(type(part)(part.name, part.times, part.time_step, shape, km, part.wet))
    return parts


@pytest.mark.slow
@settings(max_examples=40)
@given(
    archives(),
    st.floats(0, 128) | st.just(math.nan),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 2000),
    st.sampled_from([RAIN_RATE, DIMENSIONLESS]),
    st.sampled_from(["cpu", "cuda", "mps"]),
    st.floats(1e-3, 1e3),
)
def test_any_archive_gives_a_config_that_stands(parts, motion, heavy, missing, most, top, quantity, device, seconds):
    try:
        choose_frames(parts)
    except NotEnoughFrames:
        return
    facts = {"motion": motion, "heavy": heavy, "missing": missing, "most_missing": max(missing, most), "top": top}
    experiment, made = chosen(parts, device=device, seconds=seconds, quantity=quantity, **facts)
    text = write_commented(experiment, made.comments)
    assert config.with_settings(tomllib.loads(text), (), source="plan") == experiment
    model = make_model(model_config(experiment.model))
    assert experiment.data.crop % model.cell_multiple == 0
    assert min(min(part.shape) for part in parts) >= model.cell_multiple
    if not experiment.data.crop:
        assert len({part.shape for part in parts}) == 1
    assert experiment.training.warmup_steps < experiment.training.steps


@pytest.mark.parametrize(
    ("augmentation", "number"), [((), 1), (("flips",), 4), (("rotations",), 4), (("flips", "rotations"), 8)]
)
def test_orientations_are_counted_as_training_draws_them(augmentation, number):
    assert orientations_of(augmentation) == number
