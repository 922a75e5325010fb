"""Tiles put together are what the whole grid gives, for every model: to rounding with a margin of its reach, and seamless."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from makers import rain, tiny_run, write_record
from makers.models import FIXED_GRID, LOG, build

from nowcast.errors import MemoryLimitError
from nowcast.forecasters import network as forecasters_network
from nowcast.forecasters import open_forecaster, tiles
from nowcast.forecasters.fields import forecast_fields
from nowcast.forecasters.tiles import (
    LARGEST_MARGIN,
    Tiling,
    available_bytes,
    bytes_per_cell,
    cheapest_tiles,
    choose_tiles,
    find_reach,
)
from nowcast.models import MODELS
from nowcast.models.probabilistic.network import WIDTH_RATE
from nowcast.models.transform import network_input

pytestmark = pytest.mark.slow  # all of them together take seconds

CPU = torch.device("cpu")
PAST, LEADS = 2, 3
SHAPE = (150, 131)
WIDE = (560, 535)


def shape_of(model):
    """Some times the cells that matter to a place."""
    return WIDE if model.tile_multiple > model.cell_multiple else SHAPE


def shaken(name):
    """The small model of that name with weights that let distant cells matter."""
    model = build(name).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "flow" not in key:  # which would then point anywhere
                size = 0.1 / WIDTH_RATE if key == "width" else 0.1
                parameter.add_(size * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.fixture(params=sorted(set(MODELS) - FIXED_GRID))
def model(request):
    return shaken(request.param)


def guided(model, frames):
    """What the model takes beside past frames: random guidance."""
    blank = model.blank_inputs(len(frames), LEADS, frames.shape[-2:])
    rng = np.random.default_rng(0)
    return {name: rng.integers(-60, 20, value.shape, np.int8) for name, value in blank.items()}


def runner(model):
    @torch.inference_mode()
    def run(past, num_leads, **further):
        if hasattr(model, "point"):  # areas are matched on the whole grid; what each tile gives to that are locations
            outputs = model(network_input(torch.from_numpy(past), LOG), num_leads)
            return LOG.decode(outputs[:, :, 0] / outputs[:, :, 3]).numpy()
        further = {name: torch.from_numpy(values) for name, values in further.items()}
        further = further or model.blank_inputs(len(past), num_leads, past.shape[-2:])
        return forecast_fields(model, LOG, torch.from_numpy(past), num_leads, **further)[:, :, 0].numpy()

    return run


def past(shape=SHAPE, cases=1):
    return np.stack([rain(frames=PAST, shape=shape, missing=0.05, seed=seed) for seed in range(cases)])


def reach_of(model):
    return find_reach(model, PAST, LEADS, like=torch.zeros(1))


def in_tiles(model, frames, *, margin, counts=(2, 2)):
    multiple = model.tile_multiple
    blend = math.ceil(8 / multiple) * multiple
    tiling = Tiling(frames.shape[-2:], counts, multiple, margin + blend, blend)
    return tiles.forecast_in_tiles(runner(model), frames, LEADS, tiling, **guided(model, frames))


def test_with_a_margin_of_its_reach_every_model_gives_what_the_whole_grid_gives(model):
    reach = reach_of(model)
    margin = 48 if reach == math.inf else reach  # untrained flows are short
    assert 2 * margin < min(shape_of(model))
    frames = past(shape_of(model), cases=2)
    whole = runner(model)(frames, LEADS, **guided(model, frames))
    np.testing.assert_allclose(in_tiles(model, frames, margin=margin), whole, rtol=1e-4, atol=1e-4)


def test_nothing_beyond_the_reach_matters(model):
    shape, multiple = shape_of(model), model.tile_multiple
    frames = np.zeros((1, PAST, *shape), np.float32)
    changed = frames.copy()
    first = shape[1] // 2 // multiple * multiple
    changed[..., first : first + multiple] = 80.0
    before, after = (runner(model)(rain, LEADS, **guided(model, frames)) for rain in (frames, changed))
    columns = np.flatnonzero((before != after).any(axis=(0, 1, 2)))
    found = max(first - columns.min(), columns.max() - (first + multiple - 1))
    reach = reach_of(model)
    assert found <= reach
    assert found > reach / 3 or model.config.name == "trajgru"


def test_a_state_that_is_read_along_flows_reaches_anywhere():
    assert reach_of(build("trajgru")) == math.inf


def test_the_reach_is_that_of_kernels_patches_and_steps():
    model = build("encoder_forecaster", hidden_channels=[4, 4], kernel_sizes=[3, 5], patch=4)
    # in patches: 2 a step in the second layer, and 1 once to come through the first
    assert find_reach(model, 4, 12, like=torch.zeros(1)) == 4 * (1 + 2 * (4 + 12))
    assert find_reach(model, 4, 12, like=torch.zeros(1)) > find_reach(model, 4, 6, like=torch.zeros(1))


def test_a_smaller_margin_gives_it_about(model):
    frames, reach, multiple = past(shape_of(model)), reach_of(model), model.tile_multiple
    whole = runner(model)(frames, LEADS, **guided(model, frames))
    most = 16 if reach == math.inf else 3 * reach // 4 // multiple * multiple
    off = [np.nanmax(np.abs(in_tiles(model, frames, margin=margin) - whole)) for margin in (0, most)]
    assert off[0] > 2 * off[1]


@given(size=st.integers(1, 900), count=st.integers(1, 5), stride=st.integers(1, 9))
def test_what_is_sampled_of_tiles_is_what_is_sampled_of_the_grid(size, count, stride):
    tiling = Tiling((size, 16), (min(count, max(size // 64, 1)), 1), 16, 32, 16)
    cells = np.arange(size)
    found = [cells[y.read][y.core_from(stride)][::stride] for y, _ in tiling]
    np.testing.assert_array_equal(np.concatenate(found), cells[::stride])


@given(
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    multiple=st.sampled_from([1, 2, 4, 30]),
    max_cells=st.integers(1, 200_000),
    reach=st.one_of(st.integers(0, 200), st.just(math.inf)),
)
def test_tiles_cover_every_cell_with_a_weight_of_one(shape, multiple, max_cells, reach):
    tiling = cheapest_tiles(shape, multiple, max_cells=max_cells, reach=reach)
    weight = np.zeros(shape)
    for y, x in tiling:
        weight[y.written, x.written] += y.weight[:, None] * x.weight
        for span, size in ((y, shape[0]), (x, shape[1])):
            assert span.read.start % multiple == 0
            inside = tiling.margin - tiling.blend
            assert span.read.start == 0 or span.written.start - span.read.start >= inside
            assert span.read.stop == size or span.read.stop - span.written.stop >= inside
    np.testing.assert_allclose(weight, 1, rtol=1e-5)
    assert tiling.margin - tiling.blend <= math.ceil(min(reach, LARGEST_MARGIN) / multiple) * multiple


def test_tiles_are_as_large_as_memory_allows_and_no_larger():
    tiling = cheapest_tiles((4400, 3800), 4, max_cells=1_000_000, reach=68)
    assert tiling.margin - tiling.blend == 68
    sizes = [(y.read.stop - y.read.start) * (x.read.stop - x.read.start) for y, x in tiling]
    assert 700_000 < max(sizes) <= 1_000_000
    assert tiling.num_cells < 1.4 * 4400 * 3800
    assert cheapest_tiles((4400, 3800), 4, max_cells=1 << 30, reach=68).counts == (1, 1)


def test_margins_become_smaller_where_tiles_are_small():
    tiling = cheapest_tiles((1000, 1000), 4, max_cells=150 * 150, reach=200)
    assert 8 <= tiling.margin - tiling.blend < LARGEST_MARGIN
    assert max((y.read.stop - y.read.start) * (x.read.stop - x.read.start) for y, x in tiling) <= 150 * 150


def test_small_tiles_are_taken_on_a_cpu_where_they_cost_little():
    def chosen(per_cell, num_bytes=4e9, kind="cpu"):
        device = torch.device(kind)
        return choose_tiles((4400, 3800), 4, num_bytes=num_bytes, per_cell=per_cell, reach=68, device=device)

    assert chosen(400).num_cells > chosen(400, kind="cuda").num_cells
    assert math.prod(chosen(400).counts) > 10
    greedy = chosen(17_000)  # small tiles would be margins for the most part
    assert greedy == chosen(17_000, kind="cuda")
    assert chosen(400, num_bytes=1e8).margin == chosen(400).margin


@pytest.mark.parametrize(("per_cell", "num_bytes", "kind"), [(17_000, 4e9, "cuda"), (17_000, 4e9, "cpu"), (400, 1e8, "cpu")])
def test_the_largest_tile_takes_no_more_memory_than_it_may(per_cell, num_bytes, kind):
    tiling = choose_tiles((4400, 3800), 4, num_bytes=num_bytes, per_cell=per_cell, reach=68, device=torch.device(kind))
    largest = max((y.read.stop - y.read.start) * (x.read.stop - x.read.start) for y, x in tiling)
    assert 0.6 * num_bytes < largest * per_cell <= num_bytes


def test_memory_is_not_reckoned_too_small(model):
    needed = bytes_per_cell(runner(model), PAST, LEADS, SHAPE, CPU) * math.prod(SHAPE)
    taken = tiles.peak_bytes(lambda: runner(model)(past(), LEADS), CPU)
    assert taken <= needed < 20 * taken  # twenty, as the grids are tiny
    assert taken > 4 * math.prod(SHAPE) * (PAST + LEADS)


def test_what_is_available_does_not_depend_on_what_is_free_unless_that_is_less(monkeypatch, caplog):
    monkeypatch.setattr(tiles, "total_memory", lambda: 4000)
    for free in (1000, 3999):
        monkeypatch.setattr(tiles, "free_memory", lambda free=free: free)
        assert available_bytes(CPU) == 1000
    assert not caplog.records
    monkeypatch.setattr(tiles, "free_memory", lambda: 900)
    assert available_bytes(CPU) == 450
    assert "GB of memory are free: tiles may be smaller, and forecasts a little different" in caplog.text
    monkeypatch.setattr(tiles, "free_memory", lambda: 1 << 50)
    monkeypatch.setattr(tiles, "total_memory", lambda: 1 << 50)
    assert available_bytes(CPU) == tiles.MOST_BYTES

    def unknown():
        raise MemoryLimitError("nobody knows")

    monkeypatch.setattr(tiles, "free_memory", unknown)
    assert available_bytes(CPU) == tiles.MOST_BYTES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOWCAST_CACHE", str(folder / "cache"))
        return tiny_run(folder / "run", [write_record(folder / "rain.nc", rain(frames=40, shape=(24, 28)))])


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(forecasters_network, "SMALL_GRID", 0)
    monkeypatch.setattr(tiles, "MOST_BYTES", 2_000_000)


def test_a_network_forecasts_in_tiles_where_memory_is_short(run, little_memory, monkeypatch, caplog):
    network = open_forecaster(str(run), device=CPU)
    with monkeypatch.context() as plenty:
        plenty.setattr(tiles, "MOST_BYTES", 1 << 40)
        whole = open_forecaster(str(run), device=CPU).forecast(past((203, 190)), LEADS)
    with caplog.at_level(logging.INFO, logger="nowcast"):
        tiled = network.forecast(past((203, 190)), LEADS)
        network.forecast(past((203, 190)), LEADS)
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-4)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("203 × 190 cells do not fit in memory at once: forecast in ")
    assert said[0].endswith(" tiles with 10 cells around each")
    assert not caplog.clear()
    small = network.forecast(past((40, 40)), LEADS)  # fits
    assert small.shape == (1, LEADS, 40, 40)
    assert not caplog.records


def test_a_margin_below_the_reach_is_logged(run, little_memory, monkeypatch, caplog):
    monkeypatch.setattr(tiles, "LARGEST_MARGIN", 8)
    with caplog.at_level(logging.INFO, logger="nowcast"):
        open_forecaster(str(run), device=CPU).forecast(past((203, 190)), LEADS)
    assert caplog.records[0].getMessage().endswith(" tiles with 8 cells around each (exact with 10)")


def test_a_network_of_one_grid_is_never_tiled(run, little_memory, caplog):
    network = open_forecaster(str(run), device=CPU)
    network.model.grid = (203, 190)
    with caplog.at_level(logging.INFO, logger="nowcast"):
        network.forecast(past((203, 190)), LEADS)
    assert not caplog.records
