"""Write networks as ONNX and as programs of torch, and read both to forecast with them."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only

from nowcast import __version__
from nowcast.errors import UsageError

LARGEST = 2_000_000_000  # bytes; limit of a protobuf file
PT2_DESCRIPTION = "nowcast.json"  # extra file of a .pt2 that holds the description; an ONNX file holds it as metadata
NAMES = {"inputs": ["past", "motion"], "outputs": ["forecast", "probabilities"]}  # a program may have the first ones only
Forecast = Callable[..., np.ndarray | tuple[np.ndarray, ...]]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters, which log their own deprecations and every optimisation that they skip."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def without_paths(graph: ExportedProgram) -> ExportedProgram:
    """Return a graph without the lines of source of each operation, which hold this machine's paths and fill most of a file."""
    for node in graph.graph.nodes:
        node.meta.pop("stack_trace", None)
    return graph


def to_onnx(graph: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return the content of an ONNX file, made by the exporter of torch graphs; the older exporter is deprecated.

    Raises UsageError (exit 2) for a network that is too large for the format.
    """
    if sum(tensor.nbytes for tensor in graph.state_dict.values()) > LARGEST:
        raise UsageError("the network is larger than an ONNX file can be (2 GB); write a .pt2")
    for node in graph.graph.nodes:
        # the exporter fails if one limit is an int and the other a float
        if node.target is torch.ops.aten.clamp.default and node.meta["val"].is_floating_point():
            node.args = (node.args[0], *(float(limit) if isinstance(limit, int) else limit for limit in node.args[1:]))
    num_inputs, num_outputs = len(graph.graph_signature.user_inputs), len(graph.graph_signature.user_outputs)
    names = {"input_names": NAMES["inputs"][:num_inputs], "output_names": NAMES["outputs"][:num_outputs]}
    with quiet():
        exported = torch.onnx.export(graph, dynamo=True, verbose=False, optimize=False, **names)
        _shorten(exported.model)
    proto = exported.model_proto
    axes = zip(("case", "time", "y", "x"), proto.graph.input[0].type.tensor_type.shape.dim, strict=True)
    axis_names = {dim.dim_param: axis for axis, dim in axes}
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = axis_names.get(dim.dim_param, dim.dim_param)
    for node in proto.graph.node:  # texts of the exporter on each operation; a viewer groups by the first
        kept = [entry for entry in node.metadata_props if entry.key == "namespace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    proto.producer_name, proto.producer_version = "nowcast", __version__
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return proto.SerializeToString()


def _shorten(model: Any) -> None:
    """Compute constants and join equal nodes of an ONNX model, without the patterns that the exporter looks for at each node.

    These take minutes for networks along the motion, and make their files neither smaller nor faster.
    """
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.optimize_ir(model, num_iterations=0)


def from_onnx(content: bytes) -> Forecast:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda *inputs: _one_or_all(session.run(None, dict(zip(NAMES["inputs"], inputs, strict=False))))


def to_pt2(graph: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return the content of a .pt2 file."""
    buffer = io.BytesIO()
    with quiet(), _without_sizes(graph):
        torch.export.save(graph, buffer, extra_files={PT2_DESCRIPTION: json.dumps(about, indent=1)})
    return buffer.getvalue()


@contextmanager
def _without_sizes(graph: ExportedProgram) -> Iterator[None]:
    """Describe intermediate values of a graph only by their type and number of axes, with sizes of 0, while it is saved.

    As expressions of y and x, sizes would be parsed anew whenever the file is loaded, ten times as long as all the rest.
    Running the program does not use them; inputs and outputs keep theirs.
    """
    outputs = {value for node in graph.graph.nodes if node.op == "output" for value in node.all_input_nodes}
    inner = [node for node in graph.graph.nodes if node.op == "call_function" and node not in outputs]
    before = [dict(node.meta) for node in inner]
    try:
        for node in inner:
            node.meta["val"] = tree_map_only(Tensor, lambda each: each.new_empty((0,) * each.dim()), node.meta["val"])
            node.meta.pop("tensor_meta", None)
        yield
    finally:
        for node, meta in zip(inner, before, strict=True):
            node.meta = meta


def from_pt2(content: bytes) -> Forecast:
    with quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def forecast(*inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        outputs = module(*map(torch.from_numpy, inputs))
        return _one_or_all([output.detach().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))])

    return forecast


def _one_or_all(outputs: list[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


FORMATS = {".onnx": (to_onnx, from_onnx), ".pt2": (to_pt2, from_pt2)}
