"""Simulate a GPU: fake CUDA tensors have a shape, a dtype and a device, but no values.

torch refuses operations on tensors of two devices, fake or not. What would make the processor wait for the GPU is noted with
its line; so is a copy in the background that is none, because the processor's memory is not pinned. Where a result depends on
values, they count as true, and numbers as 1.
"""

import contextlib
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nowcast

PACKAGE = f"{Path(nowcast.__file__).parent}/"
aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
MEMORY = 1 << 30  # bytes of the GPU
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)


class Waits(TorchDispatchMode):
    """Records operations that wait for the GPU in `found`, as lines such as `models/guided/network.py:122 index.Tensor`."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        if func in (aten._local_scalar_dense.default, aten.item.default):  # the latter in inference mode
            return self._number(func, args[0])
        if func in INDEXED:
            args = (args[0], [index for each in args[1] for index in self._indices(func, each, args[0])], *args[2:])
        if on_gpu and func is aten.bincount.default:
            self.note(func)
            return args[0].new_empty((kwargs or {})["minlength"])
        if on_gpu and func is aten.nonzero.default:
            self.note(func)
            return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.int64)
        if func is aten._fused_sgd_.default:  # torch has no fake form of it
            assert all(tensor.is_cuda for tensor in tensors)
            return None
        out = func(*args, **(kwargs or {}))
        if (kwargs or {}).get("pin_memory"):
            out.in_pinned_memory = True
        if isinstance(out, Tensor) and tensors and _waits_for_copy(func, args, out, kwargs or {}):
            self.note(func)
        return out

    def _number(self, func, tensor):
        if not tensor.is_cuda:
            with contextlib.suppress(DataDependentOutputException):  # some are known: constants
                return func(tensor)
        else:
            self.note(func)
        return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 1

    def _indices(self, func, index, indexed):
        """Return indices of cells in place of a mask, which has to be counted; those of a list are copied to the GPU."""
        is_mask = index is not None and index.dtype == torch.bool
        if index is None or not (is_mask or index.device != indexed.device):
            return [index]
        if indexed.is_cuda:
            self.note(func)
        shape, number = ((math.prod(index.shape),), index.ndim) if is_mask else (index.shape, 1)
        return [torch.empty(shape, dtype=torch.int64, device=indexed.device) for _ in range(number)]

    def note(self, func):
        frame = sys._getframe(1)
        while frame and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame:
            self.found.append(f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno} {func}")


def _waits_for_copy(func, args, out, kwargs):
    """Return whether an operation copies between processor and GPU, and not in the background from or to pinned memory."""
    if func not in (aten.copy_.default, aten._to_copy.default):
        return False
    source = args[1] if func is aten.copy_.default else args[0]
    asked = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
    in_background = asked and any(hasattr(tensor, "in_pinned_memory") for tensor in (source, out, args[0]))
    return source.is_cuda != out.is_cuda and not in_background


class Values(TorchFunctionMode):
    """Gives NumPy arrays of ones for fake tensors that a processor holds, and copies of them in pinned memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.pin_memory:
            assert not args[0].is_cuda, "only memory of the processor can be pinned"
            copied = args[0].clone()
            copied.in_pinned_memory = True
            return copied
        if func in (Tensor.numpy, Tensor.__array__, Tensor.tolist):
            tensor = args[0].detach()
            assert not tensor.is_cuda, "NumPy cannot read the memory of a GPU"
            array = np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch."))
            return array.tolist() if func is Tensor.tolist else array
        return func(*args, **(kwargs or {}))


class Event:
    """An event, or a stream, of the simulated GPU."""

    def __init__(self, *_, **__):
        pass

    record = synchronize = wait_stream = __init__


def backward(loss):
    """Compute the gradients as `Tensor.backward`, whose engine asks the driver of a GPU for its context.

    Nodes are taken from the newest to the oldest, and are freed as soon as they have been used, as by the engine.
    """
    node = loss.grad_fn
    waiting, gradients = {node._sequence_nr(): node}, {node._sequence_nr(): {0: torch.ones_like(loss)}}
    loss.detach_()
    while waiting:
        number = max(waiting)
        node, given = waiting.pop(number), gradients.pop(number)
        arguments = [given.get(n) for n in range(len(node._input_metadata))]
        if is_own := isinstance(node, torch.autograd.function.BackwardCFunction):
            zeros = (torch.zeros(of.shape, dtype=of.dtype, device=of.device) for of in node._input_metadata)
            arguments = [zero if argument is None else argument for argument, zero in zip(arguments, zeros, strict=True)]
        with torch.no_grad():
            found = node.apply(*arguments) if is_own else node(*arguments)
            del given, arguments
        found = found if isinstance(found, tuple) else (found,)
        if is_own:  # it has edges for tensors only
            found = [gradient for gradient, needed in zip(found, node.needs_input_grad, strict=True) if needed]
            edges = [edge for edge in node.next_functions if edge[0] is not None]
        else:
            edges = node.next_functions
        for (following, place), gradient in zip(edges, found, strict=True):
            if following is None or gradient is None:
                continue
            expected = following._input_metadata[place]  # the engine, too, makes a gradient fit
            gradient = gradient.sum_to_size(expected.shape).to(expected.dtype)
            if hasattr(following, "variable"):
                following(gradient)
                continue
            key = following._sequence_nr()
            waiting[key], of_node = following, gradients.setdefault(key, {})
            of_node[place] = of_node[place] + gradient if place in of_node else gradient
        del node, found, edges, following, gradient


def _move(module, device):
    """Move a module as `Module.to`, which cannot exchange fake tensors."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, torch.nn.Parameter(parameter.detach().to(device), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device))
    return module


@cache
def _fake_mode():
    """Return one mode for all tests: constants that losses keep are of the mode in which they were made."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def fake_gpu(monkeypatch):
    """Context manager in which CUDA tensors are fake and can be computed with; yields the `Waits`."""
    for name in ("Event", "Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Event)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (MEMORY, MEMORY))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: MEMORY // 4)  # so that large grids are forecast in tiles
    for name in ("reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, Event.record)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(Tensor, "record_stream", Event.record)
    monkeypatch.setattr(torch.nn.Module, "to", _move)
    monkeypatch.setattr(Tensor, "backward", backward)
    with _fake_mode(), Values(), Waits() as waits:
        yield waits
