"""What a GPU would refuse or wait for, found without one: fake CUDA tensors (makers/fake_gpu.py) go through the software.

Skipped where torch is not built for CUDA. What has values on a GPU is in test_gpu.py.
"""

import numpy as np
import pytest
import torch
from makers import ROOT
from makers.models import OF_DISTRIBUTIONS, SMALL, untrained_network

from nowcast import config
from nowcast.dataset.batches import Batch
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
]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
DIFFERENT = [path for path in RECIPES if path.stem in ("archive", "cnn_lstm")]
FRAMES = ["data.input_frames=3", "data.lead_frames=2"]  # few, as every operation is dispatched by Python


@pytest.fixture
def gpu(monkeypatch):
    """The operations that would wait for the GPU; gates are computed by torch, which inductor would compile for a real one."""
    from makers.fake_gpu import fake_gpu

    monkeypatch.setattr(layer, "gate_arithmetic", lambda activation, gate, *_: GateArithmetic(activation, gate))
    cascade_model(), rate_matrix()  # are computed once, from values
    with fake_gpu(monkeypatch) as waits:
        yield waits


def learner(recipe, *settings):
    grid = ["model.grid=[64,64]"] if recipe.stem == "archive" else []
    return Learner(config.read(recipe, [*FRAMES, "training.ema=0.9", *grid, *settings]), torch.device("cuda", 0))


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
