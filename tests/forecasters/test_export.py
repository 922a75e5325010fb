"""An exported network forecasts what nowcast's does, without nowcast, for every model; what cannot be is refused by name."""

import io
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from makers import ROOT, rain, tiny_experiment
from torch import nn
from torch.torch_version import TorchVersion

from nowcast import config
from nowcast.commands.export import OLDEST_FOR_PT2, export_run
from nowcast.errors import OutputError, UsageError
from nowcast.forecasters import export, export_formats
from nowcast.forecasters.network import Network
from nowcast.models import MODELS, make_model, model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.training.experiment import resolve

pytestmark = pytest.mark.slow  # all of them together take seconds
takes_pt2 = pytest.mark.skipif(torch.__version__ < OLDEST_FOR_PT2, reason="an older torch cannot save such programs")

CPU = torch.device("cpu")
ONE_SCALE = {"hidden_channels": [4], "kernel_sizes": [3], "down_channels": [4], "down_kernels": [3],
             "strides": [2], "up_kernels": [4]}  # fmt: skip
ANY_SIZE = {"strides": [1], "up_kernels": [5]}  # needs no padding, whose symbolic sizes take as long as all the rest
TINY = {  # of one layer where that is a whole model: the exporter takes a second for every few operations
    "encoder_forecaster": {"hidden_channels": [4], "kernel_sizes": [3], "patch": 2, "peepholes": True},
    "multiscale": {**ONE_SCALE, "peepholes": True},
    "convgru": {**ONE_SCALE, **ANY_SIZE},
    "trajgru": {**ONE_SCALE, **ANY_SIZE, "links": [1]},
    "next_frame": {"hidden_channels": [4], "kernel_sizes": [3], "patch": 1, "head_kernel": 3, "last_norm": True},
    "many_to_many": {"hidden_channels": [5], "kernel_sizes": [3], "patch": 1},
    "cnn_lstm": {"grid": [12, 16], "channels": [4], "hidden": 6},
    "fc_lstm": {"grid": [12, 16], "hidden": [6]},
}
# past frames and leads, else 2 each. That states go on and leads are stacked, convgru tells of encoder–forecasters, next_frame
# of what reads its own forecasts, and fc_lstm of vectors
FRAMES = {"encoder_forecaster": (1, 1), "multiscale": (1, 1), "trajgru": (1, 1), "next_frame": (1, 2), "cnn_lstm": (1, 1)}
TRANSFORMS = {"multiscale": {"name": "dbz"}, "fc_lstm": {"name": "linear", "scale": 50.0}}  # else log


def network(name, **keys):
    """An untrained network for FRAMES, all of whose parameters and statistics matter."""
    tree = config.as_dict(resolve(tiny_experiment(["x.nc"])))
    tree |= {"model": {"name": name, **TINY[name], **keys}, "transform": TRANSFORMS.get(name, {"name": "log"})}
    experiment = config.check(config.Experiment, tree)
    torch.manual_seed(0)
    model = make_model(model_config(experiment.model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
        for norm in (part for part in model.modules() if isinstance(part, nn.BatchNorm3d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    inputs, leads = FRAMES.get(name, (2, 2))
    facts = {"config": config.as_dict(experiment), "input_frames": inputs, "lead_frames": leads,
             "time_steps": [300, 600], "quantity": "rain_rate"}  # fmt: skip
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    return Network(Checkpoint(facts, tensors, "0" * 64), name, device=CPU)


@pytest.fixture(scope="module", autouse=True)
def registry_made_once():
    """Keep the exporter's table of ONNX's operations, which it makes anew at each export in a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@dataclass
class Exported:
    """A network and what is made from it, each once: the graph takes longest."""

    network: Network

    @cached_property
    def graph(self):
        return export.program(self.network)

    @cached_property
    def onnx(self):
        return export_formats.to_onnx(self.graph, export.description(self.network))

    @cached_property
    def pt2(self):
        return export_formats.to_pt2(self.graph, export.description(self.network))


made_once = cache(lambda name: Exported(network(name)))


@pytest.fixture(params=[name for name in MODELS if name not in ("probabilistic", "guided")])  # they are refused
def exported(request):
    return made_once(request.param)


@pytest.fixture
def small():
    return made_once("fc_lstm")


def past(made, *, cases=3, shape=(22, 31)):
    """Rain with holes, and a corner that is never seen."""
    shape = made.model.grid or shape
    fields = np.stack([rain(frames=made.input_frames, shape=shape, missing=0.1, seed=seed) for seed in range(cases)])
    fields[..., :5, :7] = np.nan
    return fields


def compare(forecast, made, **shape):
    frames = past(made, **shape)
    expected = made.forecast(frames, made.lead_frames)
    assert 0 < np.isnan(expected).mean() < 0.9
    assert np.nanstd(expected) > 1e-3
    np.testing.assert_allclose(forecast(frames), expected, rtol=1e-4, atol=1e-4)  # mm/h


@takes_pt2
def test_every_model_forecasts_the_same_in_onnx_runtime_and_as_a_program_of_torch(exported):
    for forecast in (export_formats.from_onnx(exported.onnx), export_formats.from_pt2(exported.pt2)):
        compare(forecast, exported.network)
        compare(forecast, exported.network, cases=1, shape=(9, 40))
    proto = onnx.load(io.BytesIO(exported.onnx))
    axes = [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["case", exported.network.input_frames, *(exported.network.model.grid or ("y", "x"))]


@pytest.mark.parametrize("exported", ["encoder_forecaster"], indirect=True)
def test_a_grid_of_real_radar_is_forecast_the_same(exported, shared):
    (record,) = open_records([shared / "radar" / "mch" / "20150515.nc"])
    frames = record.read([11])[None]
    expected = exported.network.forecast(frames, 1)
    np.testing.assert_allclose(export_formats.from_onnx(exported.onnx)(frames), expected, rtol=1e-4, atol=1e-4)


def test_an_onnx_file_tells_what_it_is(small, tmp_path, monkeypatch):
    made, graph, content = small.network, small.graph, small.onnx
    monkeypatch.setattr(export, "program", lambda _: graph)
    monkeypatch.setitem(
        export.FORMATS, ".onnx", (lambda *_: content, export_formats.from_onnx)
    )  # to_onnx takes seconds each time
    call = export.export(made, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["units"] == "mm h-1"
    assert json.loads(told["time_steps_seconds"]) == [300, 600]
    assert (told["input_frames"], told["lead_frames"], told["grid"]) == ("2", "2", "[12, 16]")
    assert told["checkpoint_sha256"] == made.digest
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("past", "tensor(float)", ["case", 2, 12, 16])
    assert (given.name, given.shape) == ("forecast", ["case", 2, 12, 16])
    found = eval(call, {"onnxruntime": onnxruntime, "past": past(made)})
    np.testing.assert_allclose(found, made.forecast(past(made), 2), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@takes_pt2
def test_a_pt2_file_tells_what_it_is(small, tmp_path, monkeypatch):
    made, graph = small.network, small.graph
    monkeypatch.setattr(export, "program", lambda _: graph)
    call = export.export(made, tmp_path / "m.pt2")
    told = {export_formats.PT2_DESCRIPTION: ""}
    torch.export.load(tmp_path / "m.pt2", extra_files=told)
    assert json.loads(told[export_formats.PT2_DESCRIPTION]) == export.description(made)
    found = eval(call, {"torch": torch, "past": past(made)})
    assert not found.requires_grad  # else `found.numpy()` would fail, and a forecast keep all that its gradient needs
    np.testing.assert_allclose(found.numpy(), made.forecast(past(made), 2), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@takes_pt2
def test_a_network_that_forecasts_in_bfloat16_is_said_to_differ(small, tmp_path, monkeypatch, caplog):
    graph = small.graph
    monkeypatch.setattr(export, "program", lambda _: graph)
    for precision, lines in ((torch.float32, 0), (torch.bfloat16, 1)):
        monkeypatch.setattr(small.network, "precision", precision)
        with caplog.at_level("INFO"):
            export.export(small.network, tmp_path / f"{lines}.pt2")
        assert caplog.text.count("forecasts in bfloat16 here and its file in float32") == lines


@takes_pt2
def test_another_forecast_than_the_networks_is_not_written(small, tmp_path, monkeypatch):
    graph = small.graph
    monkeypatch.setattr(export, "program", lambda _: graph)
    make, load = export.FORMATS[".pt2"]
    wrong = (make, lambda content: lambda frames: load(content)(frames) + 0.01)
    monkeypatch.setitem(export.FORMATS, ".pt2", wrong)
    with pytest.raises(
        UsageError, match=r"fc_lstm \(fc_lstm\) cannot be exported to \.pt2: its forecast differs by up to 0\.01"
    ):
        export.export(small.network, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


@takes_pt2
def test_files_hold_neither_paths_of_this_machine_nor_other_texts_of_the_exporter(small):
    for content in (small.onnx, small.pt2):
        for path in (ROOT, Path(torch.__file__).parent, Path(export.__file__).parent):
            assert str(path).encode() not in content
    for node in onnx.load(io.BytesIO(small.onnx)).graph.node:
        assert {entry.key for entry in node.metadata_props} <= {"namespace"}


@pytest.mark.filterwarnings("ignore")
@takes_pt2
def test_sizes_of_intermediate_values_are_not_parsed_again_at_each_load(small):
    def symbolic(graph):
        inner = [node.meta.get("val") for node in graph.graph.nodes if node.op == "call_function"][:-1]  # the last one is given
        sizes = [size for value in inner if isinstance(value, torch.Tensor) for size in value.shape]
        return sum(isinstance(size, torch.SymInt) for size in sizes)

    loaded = torch.export.load(io.BytesIO(small.pt2))
    assert symbolic(loaded) == 0
    assert symbolic(small.graph) > 10  # the graph itself keeps them: the other format is made from it
    (past,) = [node for node in loaded.graph.nodes if node.name == "past"]
    assert isinstance(past.meta["val"].shape[0], torch.SymInt)


def test_what_the_exporter_cannot_do_is_said_in_a_line(small, tmp_path, monkeypatch):
    def refuse(_):
        raise RuntimeError("step 2 of 3") from NotImplementedError("No decomposition for aten::magic\nand so forth")

    monkeypatch.setattr(export, "program", refuse)
    with pytest.raises(UsageError, match=r"cannot be exported to \.onnx: No decomposition for aten::magic$"):
        export.export(small.network, tmp_path / "m.onnx")


def test_a_file_that_onnx_cannot_hold_is_refused(small, monkeypatch):
    monkeypatch.setattr(export_formats, "LARGEST", 100)
    with pytest.raises(UsageError, match=r"larger than an ONNX file can be \(2 GB\); write a \.pt2"):
        export_formats.to_onnx(small.graph, {})


def test_what_can_be_known_is_said_before_the_work(tmp_path, monkeypatch):
    for name in ("m.pb", "m", "onnx"):
        with pytest.raises(UsageError, match=r"the ending of the name sets the format, and must be \.onnx or \.pt2"):
            export.check_output(tmp_path / name, overwrite=False)
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(OutputError, match=r"m\.onnx exists already\.\nChoose another name"):
        export.check_output(tmp_path / "m.onnx", overwrite=False)
    export.check_output(tmp_path / "m.onnx", overwrite=True)
    with pytest.raises(OutputError, match="there is no folder"):
        export.check_output(tmp_path / "absent" / "m.onnx", overwrite=False)
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "absent_package"))
    with pytest.raises(UsageError, match=r"absent_package is not installed: pip install onnx absent_package, or write a \.pt2"):
        export.check_output(tmp_path / "n.onnx", overwrite=False)
    export.check_output(tmp_path / "n.pt2", overwrite=False)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(UsageError, match=r"a \.pt2 needs torch 2\.10 or newer, and this is 2\.9\.1\.\nWrite an \.onnx\."):
        export_run("pretrained", tmp_path / "n.pt2", grid=None, overwrite=False)
