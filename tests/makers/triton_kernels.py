"""Compile Triton kernels without a GPU: inductor writes them from fake tensors, Triton and ptxas compile them.

The properties that inductor reads from a driver (processors, registers and memory of the GPU) are constants here.
"""

import importlib.util
import re
from contextlib import ExitStack
from types import SimpleNamespace
from unittest.mock import patch

import torch
import triton
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config, scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import triton_helpers, triton_heuristics
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton.backends.compiler import GPUTarget

CARD = {"name": "of a test", "total_memory": 80 << 30, "multi_processor_count": 108, "max_threads_per_multi_processor": 2048,
        "regs_per_multiprocessor": 65536, "warp_size": 32, "max_threads_per_block": 1024, "shared_memory_per_block": 48 << 10,
        "shared_memory_per_block_optin": 163 << 10, "shared_memory_per_multiprocessor": 164 << 10,
        "L2_cache_size": 40 << 20}  # fmt: skip
KERNEL = re.compile(r"async_compile\.triton\('(\w+)', '''\n(.*?)'''", re.DOTALL)
BLOCK = {"XBLOCK": 256, "YBLOCK": 32}  # a size that inductor would try


def kernels(function, arguments, capability, folder):
    """Return the compiled Triton kernels of a function that writes to its arguments.

    arguments: a function that makes them, called in a fake mode
    capability: (8, 0) or (9, 0)
    """
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    properties = SimpleNamespace(major=capability[0], minor=capability[1], **CARD)
    with ExitStack() as changed:
        for owner, name, value in (
            (CudaInterface, "get_device_properties", properties), (CudaInterface.Worker, "get_device_properties", properties),
            (CudaInterface.Worker, "current_device", 0), (CudaInterface, "get_compute_capability", target.arch),
            (torch.cuda, "get_device_properties", properties), (torch.cuda, "get_device_capability", capability),
            (scheduler, "has_triton", True), (triton_helpers, "set_driver_to_gpu", None),
        ):  # fmt: skip
            changed.enter_context(patch.object(owner, name, staticmethod(lambda *_, value=value, **__: value)))
        driver = SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0)
        changed.enter_context(patch.object(triton.runtime.driver, "_active", driver))
        source = inductor_source(function, arguments)
        return [compiled(*found, target, folder) for found in KERNEL.findall(source)]


def inductor_source(function, arguments):
    """Return the Python file that inductor writes for a function."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        tensors = arguments()
        traced = torch.func.functionalize(function, remove="mutations")
        graph_module = make_fx(traced, decomposition_table=select_decomp_table())(*tensors)
    with V.set_fake_mode(mode), V.set_debug_handler(DebugContext()), config.patch("triton.autotune_at_compile_time", False):
        graph = GraphLowering(graph_module, example_inputs=tensors)
        with V.set_graph_handler(graph), V.set_extern_kernel_nodes([]):
            graph.run(*tensors)
            source, _ = graph.codegen()
    return source.value


def compiled(name, source, target, folder):
    """Compile the source of one kernel, as inductor writes it, to machine code."""
    kept = []

    def keep(*_, triton_meta, **__):
        return lambda kernel: kept.append((kernel, triton_meta)) or kernel

    path = folder / f"{name}_{target.arch}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    with patch.object(triton_heuristics, "pointwise", keep):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    (kernel, meta), = kept  # fmt: skip
    sizes = {key: value for key, value in BLOCK.items() if key in kernel.arg_names}
    described = triton.compiler.ASTSource(fn=kernel, signature=dict(meta["signature"]), constexprs=sizes)
    return triton.compile(described, target=target)
