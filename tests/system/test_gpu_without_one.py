"""What a GPU would refuse or wait for, found without one: fake CUDA tensors (makers/fake_gpu.py) go through the software.

Skipped where torch is not built for CUDA. What has values on a GPU is in test_gpu.py.
"""

import contextlib

import numpy as np
import pytest
import torch
from makers import ROOT, tiny_experiment
from makers.models import OF_DISTRIBUTIONS, SMALL, untrained_network

from nowcast import config
from nowcast.dataset.batches import Batch
from nowcast.dataset.loader import load
from nowcast.forecasters.tiles import PROBE_FRACTION, SHARE
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.engine import layer
from nowcast.models.engine.gates import GateArithmetic
from nowcast.models.guided.calibration import fill_rows
from nowcast.models.guided.guidance import cascade_model, rate_matrix
from nowcast.quantity import RAIN_RATE
from nowcast.training.baselines import Baselines
from nowcast.training.learner import Learner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None, reason="torch is not built for CUDA"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: see test_gpu.py"),
    pytest.mark.skipif(torch.__version__ < "2.14", reason="fake CUDA tensors of older versions call the driver"),
]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
DIFFERENT = [path for path in RECIPES if path.stem in ("archive", "cnn_lstm")]
CUDA = torch.device("cuda", 0)
FRAMES = ["data.input_frames=3", "data.lead_frames=2"]  # few, as every operation is dispatched by Python


@pytest.fixture
def gpu(monkeypatch):
    """The operations that would wait for the GPU; gates are computed by torch, which inductor would compile for a real one."""
    from makers.fake_gpu import fake_gpu  # here, as it loads much of torch

    monkeypatch.setattr(layer, "gate_arithmetic", lambda activation, gate, *_: GateArithmetic(activation, gate))
    cascade_model(), rate_matrix()  # are computed once, from values
    with fake_gpu(monkeypatch) as waits:
        yield waits


def learner(recipe, *settings):
    grid = ["model.grid=[64,64]"] if recipe.stem == "archive" else []
    return Learner(config.read(recipe, [*FRAMES, "training.ema=0.9", *grid, *settings]), CUDA)


def batch_for(made, cases=2):
    """Two fake cases on the processor."""
    data = made.experiment.data
    shape = made.model.grid or (min(data.crop or 64, 96) // made.model.cell_multiple * made.model.cell_multiple,) * 2
    frames = torch.rand(cases, data.input_frames + data.lead_frames, *shape)
    blank = made.model.blank_inputs(cases, data.lead_frames, shape).get("guidance")
    past, future = frames[:, : data.input_frames], frames[:, data.input_frames :]
    return Batch(past, future, ((0, 0, 0, 0),) * cases, None if blank is None else blank.cpu())


class OfOneDay(list):
    """Batches whose cases are all of one record and day."""

    def blocks(self, batch):
        return [(0, 0)] * len(batch.cases)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_step_waits_for_nothing_and_all_lies_on_the_gpu(recipe, gpu):
    precision = "float32" if recipe.stem in ("synthetic", "keras_next_frame") else "bfloat16"
    made = learner(recipe, f'training.precision="{precision}"')
    batch = batch_for(made).to(made.device)
    made.model.train()
    made.loss_sum(batch)  # makes the loss's constants, once
    gpu.found.clear()
    outcome = made.compute_gradients([batch], 0, progress=0.0)
    made.apply_gradients(0, rate=1e-3)
    assert gpu.found == []
    assert outcome.values.device.type == "cpu", "copied in the background"
    for name, parameter in made.model.named_parameters():
        assert parameter.grad.is_cuda, name
        assert parameter.grad.dtype == torch.float32, name
    for name, tensor in made.state_tensors().items():
        assert tensor.is_cuda or tensor.ndim == 0, name  # counters of steps may lie on the processor


@pytest.mark.parametrize("recipe", DIFFERENT, ids=lambda path: path.stem)
def test_validation_scores_and_calibrates_on_the_gpu(recipe, gpu):
    made = learner(recipe, 'training.precision="bfloat16"')
    batches = OfOneDay([batch_for(made)])
    validation = made.validate(batches, 1, Baselines(RAIN_RATE.thresholds))
    assert set(validation.network.csi) == set(RAIN_RATE.thresholds)
    assert made.forecast(batches[0]).shape == batches[0].future.shape
    for name, buffer in made.model.named_buffers():
        assert buffer.is_cuda, name
    assert all(value.is_cuda for value in made.forecasting_weights().values())


@pytest.mark.parametrize("name", ["guided", "cnn_lstm"])
def test_a_forecast_is_computed_on_the_gpu(name, gpu):
    keys = {"grid": (24, 24)} if "grid" in SMALL[name] else {}
    network = untrained_network(name, device="cuda", **keys)
    past = np.ones((2, network.input_frames, 24, 24), np.float32)
    if name in OF_DISTRIBUTIONS:
        fields, probabilities = network.forecast_and_exceedance(past, 2, network.thresholds)
        assert probabilities.shape == (*fields.shape[:2], len(network.thresholds), 24, 24)
    else:
        fields = network.forecast(past, 2)
    assert fields.shape == (2, 2, 24, 24)
    assert next(network.model.parameters()).is_cuda


TILED = {"encoder_forecaster": {}, "guided": {"rule": "areas"}, "probabilistic": {}}


@pytest.mark.parametrize("name", TILED)
def test_a_grid_in_tiles_is_forecast_on_the_gpu(name, gpu, monkeypatch):
    from makers.fake_gpu import MEMORY

    network = untrained_network(name, device="cuda", **TILED[name])
    bytes_of_probe = 1.3 * SHARE * MEMORY / PROBE_FRACTION**2  # the whole grid would take more than a forecast may
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: bytes_of_probe)
    grids, forward = [], type(network.model).leads
    monkeypatch.setattr(type(network.model), "leads", lambda self, past, *rest, **further: (
        grids.append(tuple(past.shape[-2:])) or forward(self, past, *rest, **further)))  # fmt: skip
    guidance = network.model.guidance if network.model.takes_guidance else None
    if guidance:  # is computed on the processor, by OpenCV
        coded = np.zeros((1, 2, 8, 264, 264), np.int8)
        monkeypatch.setattr(network.model, "guidance", lambda *_: coded)
    past = np.ones((1, network.input_frames, 264, 264), np.float32)
    if name in OF_DISTRIBUTIONS:
        fields, probabilities = network.forecast_and_exceedance(past, 2, network.thresholds)
        np.testing.assert_allclose(probabilities, 1, rtol=1e-6, err_msg="tiles fade into each other")
        for chances in network.exceedance_by_lead(past[0], 2, network.thresholds):
            np.testing.assert_allclose(chances, 1, rtol=1e-6, err_msg="all tiles advance together")
    else:
        fields = network.forecast(past, 2)
    np.testing.assert_allclose(fields, 1, rtol=1e-6, err_msg="each tile is of ones")
    probes = [(33, 33), (network.model.tile_multiple,)]  # of the memory, and of the reach, a strip
    tiles = [grid for grid in grids if not {grid, grid[:1]} & set(probes)]
    assert len(tiles) >= (4 if network.model.matches_areas else 2), "there, each has its areas matched before"
    assert max(y * x for y, x in tiles) < 264 * 264


class Order(list):
    """In what order streams wait and copy, and memory is kept for the stream that computes."""

    @contextlib.contextmanager
    def copying(self, _):
        yield
        self.append("copied")


def test_batches_are_pinned_and_copied_while_the_gpu_computes(gpu, monkeypatch):
    from makers.fake_gpu import Event

    order, batches = Order(), [batch_for(learner(ROOT / "configs/archive.toml")) for _ in range(3)]
    monkeypatch.setattr(torch.cuda, "stream", order.copying)
    monkeypatch.setattr(Event, "wait_stream", lambda *_: order.append("waited"))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: order.append("kept"))
    gpu.found.clear()
    with monkeypatch.context() as there:
        there.setattr(torch.accelerator, "is_available", lambda: True)  # the DataLoader asks before it pins
        loaded = load(batches, 0, 3, workers=0, device=CUDA)
    for batch in loaded:
        order.append("used")
        assert [tensor.is_cuda for tensor in batch.tensors] == [True] * 3
        assert batch.cases == batches[0].cases
    assert gpu.found == []
    kept = ["kept"] * 3  # past, future, guidance
    assert order == ["waited", "copied", *(["waited", "copied", *kept, "used"] * 2), "waited", *kept, "used"]
    batches[0].to(CUDA)
    assert [line.split(":")[0] for line in gpu.found] == ["dataset/batches.py"] * 3, "not pinned: each copy waits"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adadelta", "rmsprop", "sgd"])
def test_a_resumed_training_goes_on_on_the_gpu(optimizer, gpu):
    experiment = tiny_experiment(["x.nc"], optimizer=optimizer, accumulate=2, checkpoint_steps=1)
    before, after = (Learner(experiment, CUDA) for _ in range(2))
    batches = [batch_for(before).to(CUDA) for _ in range(2)]

    def update(made, step):
        made.model.train()
        made.compute_gradients(batches, step, progress=0.0)
        made.apply_gradients(step, rate=1e-3)

    update(before, 0)
    state = before.state_tensors()
    after.restore(Checkpoint({"precision": "float32"}, {name: tensor.cpu() for name, tensor in state.items()}, ""))
    found = after.state_tensors()
    assert {name: tensor.device for name, tensor in found.items()} == {name: tensor.device for name, tensor in state.items()}
    gpu.found.clear()
    update(after, 1)
    assert gpu.found == []


def test_what_waits_is_noted(gpu):
    model = learner(ROOT / "configs/archive.toml").model
    gpu.found.clear()
    fill_rows(model.cuts, np.ones((2, 8)))
    model.match(*(torch.rand(shape, device="cuda") for shape in ((1, 1, 8, 9), (1, 9), (1, 9))))
    noted = {line.split(":")[0] + line[line.rindex(" ") :] for line in gpu.found}
    assert "models/guided/calibration.py aten.copy_.default" in noted
    assert "models/probabilistic/matching.py aten.index.Tensor" in noted, "a mask"
    assert "models/probabilistic/matching.py aten._local_scalar_dense.default" in noted, "a number"


def gate_tensors(*, backward, dtype=torch.bfloat16, hidden=32):
    """What `GateArithmetic` is given, channels innermost; None for peepholes."""

    def empty(channels, dtype):
        return torch.empty(4, 16, 16, channels, device="cuda", dtype=dtype).movedim(-1, 1)

    cell, cells, gates = (empty(n * hidden, kind) for n, kind in ((1, dtype), (1, torch.float32), (4, dtype)))
    if backward:
        return gates, cells, cells.clone(), cell, cell.clone(), cells.clone()
    return gates, gates.clone(), torch.empty(4 * hidden, device="cuda"), cells, gates.clone(), cells.clone(), cell


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_the_kernels_of_the_gates_compile_for_a_gpu(backward, capability, tmp_path):
    pytest.importorskip("triton")
    from makers.triton_kernels import kernels

    gates = GateArithmetic("tanh", "sigmoid")

    def forward(one, two, bias, before, *written):
        gates.forward(one, two, bias, None, before, *written)
        return ()

    def back(values, before, cell, *rest):
        gates.backward(values, before, cell, None, *rest)
        return ()

    made = kernels(back if backward else forward, lambda: gate_tensors(backward=backward), capability, tmp_path)
    assert made
    for kernel in made:
        assert f".target sm_{capability[0]}{capability[1]}" in kernel.asm["ptx"]
        assert kernel.asm["cubin"].startswith(b"\x7fELF"), "machine code"
