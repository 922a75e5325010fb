"""What a step takes: arithmetic with a speed of this machine that is measured once, whatever else the machine does."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from makers import command
from makers.archives import record

from nowcast.models import make_model, model_config
from nowcast.plan.basis import ARCHIVE
from nowcast.plan.cost import READING, guidance_bytes, guidance_operations, memory, operations, validation_operations
from nowcast.plan.references import reference_choices, reference_experiment
from nowcast.plan.speed import FILE, ROUNDING, Machine, measure_speed, this_machine

CPU = torch.device("cpu")
MODELS = ("guided", "probabilistic", "encoder_forecaster")


def machine(speed=1e10, *, threads=1, cores=1, asked=None):
    def measure(kind, device):
        if asked is not None:
            asked.append((kind, device.type))
        return speed

    return Machine(CPU, measure, threads, cores)


@pytest.fixture
def guided():
    return reference_choices(ARCHIVE).experiment()


# The arithmetic


@pytest.mark.parametrize("name", MODELS)
def test_work_is_in_proportion_to_cases_and_cells_and_memory_grows_with_them(name):
    experiment = reference_experiment(name)
    one = operations(experiment, (64, 64), batch_size=1)
    assert operations(experiment, (64, 128), batch_size=3) == pytest.approx(6 * one)
    empty = memory(experiment, (64, 64), batch_size=0)
    assert memory(experiment, (64, 128), batch_size=3) - empty == pytest.approx(
        6 * (memory(experiment, (64, 64), batch_size=1) - empty)
    )


def test_weights_work_at_each_place_and_frame(guided):
    model = guided.model.model_dump()
    wide = guided.model_copy(update={"model": type(guided.model)(**model | {"hidden_channels": [64, 64]})})

    sizes = [sum(p.numel() for p in make_model(model_config(e.model)).parameters()) for e in (guided, wide)]
    more = operations(wide, (64, 64), batch_size=1) - operations(guided, (64, 64), batch_size=1)
    frames, places = guided.data.input_frames + guided.data.lead_frames, 64 * 64 / model["patch"] ** 2
    assert more == pytest.approx(3 * (sizes[1] - sizes[0]) * frames * places)


def test_the_guidance_of_a_crop_has_a_margin_within_the_grid(guided):
    def data(crop, kept_crop):
        return guided.data.model_copy(update={"crop": crop, "kept_crop": kept_crop})

    whole = guidance_operations(data(0, 0), (192, 192))
    assert guidance_operations(data(64, 0), (500, 500)) == guidance_operations(data(32, 64), (500, 500)) == whole
    assert guidance_operations(data(64, 0), (100, 100)) < whole
    leads = guided.data.lead_frames
    assert guidance_bytes(data(64, 0), (500, 500)) == guidance_bytes(data(32, 64), (500, 500)) == leads * 8 * 64 * 64
    assert guidance_bytes(data(64, 128), (100, 200)) == leads * 8 * 100 * 128
    assert guidance_bytes(data(0, 128), (100, 200)) == leads * 8 * 100 * 200


def test_seconds_are_operations_by_speed_threads_and_cores(cache, guided):
    speed = ROUNDING**60
    cost = machine(speed).cost(guided, (64, 64), (300, 300))
    work = READING["guided"] * operations(guided, (64, 64), batch_size=guided.training.batch_size)
    assert cost.step_seconds == pytest.approx(work / speed)
    assert cost.guidance_seconds == pytest.approx(guidance_operations(guided.data, (300, 300)) / speed)
    whole = guided.data.model_copy(update={"crop": 0})
    assert cost.first_validation_seconds == pytest.approx(1.5 * guidance_operations(whole, (300, 300)) / speed)
    forecast = validation_operations(guided, (300, 300)) / speed
    assert cost.validation_seconds == pytest.approx(forecast)
    assert forecast > 10 * cost.step_seconds / guided.training.batch_size, "a whole grid has 22 times the cells of a crop"
    huge = machine(speed).cost(guided, (64, 64), (3000, 3000))
    assert huge.memory_bytes > 10 * cost.memory_bytes, "a batch of the validation holds whole grids"
    eight = machine(speed, threads=8, cores=16).cost(guided, (64, 64), (300, 300))
    assert eight.step_seconds == pytest.approx(cost.step_seconds / 8**0.8)
    assert eight.guidance_seconds == pytest.approx(cost.guidance_seconds / 16)
    assert machine(speed).cost(reference_experiment("probabilistic"), (64, 64), (64, 64)).guidance_seconds == 0


# The speed


def test_a_speed_is_measured_once_and_rounded(cache, guided):
    asked = []
    first = machine(1.05e10, asked=asked).cost(guided, (64, 64), (64, 64))
    again = machine(9.9e10, asked=asked).cost(guided, (64, 64), (64, 64))
    assert (again, asked) == (first, [("guided", "cpu")])
    (kept,) = json.loads((cache / FILE).read_text()).values()
    assert kept["guided"] == pytest.approx(ROUNDING**67)
    for nearly in (1.03e10, 1.42e10):
        (cache / FILE).unlink()
        assert machine(nearly).cost(guided, (64, 64), (64, 64)) == first


def test_a_machine_of_other_cores_is_another_machine(cache, guided):
    asked = []
    for cores in (1, 2, 1):
        machine(asked=asked, cores=cores).cost(guided, (64, 64), (64, 64))
    assert len(asked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"guided": -1}}'])
def test_a_damaged_file_is_measured_anew(text, cache, guided):
    first = machine().cost(guided, (64, 64), (64, 64))
    kept = json.loads((cache / FILE).read_text())
    (cache / FILE).write_text(text.replace('"a"', json.dumps(next(iter(kept)))))
    assert machine().cost(guided, (64, 64), (64, 64)) == first
    assert json.loads((cache / FILE).read_text()) == kept


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, guided):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path / "file"))
    asked = []
    here = machine(asked=asked)
    assert here.cost(guided, (64, 64), (64, 64)) == here.cost(guided, (64, 64), (64, 64))
    assert len(asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_steps_of_this_machine_are_measured_in_operations_per_second(name):
    threads = torch.get_num_threads()
    assert 1e8 < measure_speed(name, CPU) < 1e13
    assert torch.get_num_threads() == threads


def test_this_machine_counts_with_the_threads_of_torch():
    here = this_machine(CPU)
    assert here.threads == torch.get_num_threads()
    assert replace(here, threads=1).name == "cpu (1 thread)"
    assert replace(here, threads=2).name == "cpu (2 threads)"


@pytest.mark.slow
def test_two_plans_are_equal_though_the_machine_is_busy_at_the_second(tmp_path, workplace, cache):
    path = record(tmp_path, shape=(24, 28))
    assert command("plan", path, "--output", "idle.toml", "-q", "--device", "cpu")[0] == 0
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert command("plan", path, "--output", "busy.toml", "-q", "--device", "cpu")[0] == 0
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert (workplace / "busy.toml").read_bytes() == (workplace / "idle.toml").read_bytes()
