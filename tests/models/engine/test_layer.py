"""The ConvLSTM engine (layer.py, gates.py and gates.c) gives what the cell gives when it is called step by step."""

import logging
import subprocess
from functools import partial

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.engine import layer
from nowcast.models.engine.gates import SOURCE, GateArithmetic, NativeGates, compile_gates, gate_arithmetic, with_fallback
from nowcast.runtime import compiled as runtime_compiled

KINDS = [(a, g) for a in ("tanh", "relu") for g in ("sigmoid", "hard_sigmoid")]


@pytest.fixture
def fresh_compiler(tmp_path, monkeypatch):
    """An empty cache and nothing remembered of an earlier compilation."""
    monkeypatch.setenv("NOWCAST_CACHE", str(tmp_path))
    forget_libraries()
    yield tmp_path
    forget_libraries()


def forget_libraries():
    runtime_compiled.forget()
    gate_arithmetic.cache_clear()


def stack(in_channels=9, *, hidden=(8, 5), kernels=(3, 5), seed=0, **options):
    torch.manual_seed(seed)
    input_kernels = options.pop("input_kernels", ())
    net = ConvLSTM(in_channels, hidden, kernels, input_kernel_sizes=input_kernels, options=CellOptions(**options))
    for cell in net.cells:
        if cell.peepholes is not None:
            torch.nn.init.normal_(cell.peepholes)
    return net


def random_states(net, *, cases=2, grid=(7, 9)):
    return [tuple(torch.randn(cases, cell.hidden_channels, *grid, requires_grad=True) for _ in range(2)) for cell in net.cells]


def run(net, frames, states, num_steps=0):
    """All outputs, and the gradients of everything that has one."""
    hidden, after = net(frames, states, num_steps=num_steps)
    outputs = [*hidden, *(part for state in after for part in state)]
    loss = sum((part * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in outputs)
    inputs = [*net.parameters(), *([] if frames is None else [frames]), *(part for state in states or [] for part in state)]
    return [part.detach() for part in outputs], torch.autograd.grad(loss, inputs)


def assert_equal(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= tolerance * max(float(other.abs().max()), 1)


CASES = {
    "plain": {},
    "one channel in": {"in_channels": 1},
    "peepholes": {"peepholes": True},
    "relu": {"activation": "relu"},
    "hard sigmoid": {"gate_activation": "hard_sigmoid"},
    "relu, hard sigmoid, peepholes": {"activation": "relu", "gate_activation": "hard_sigmoid", "peepholes": True},
    "two kernel sizes": {"input_kernels": (5, 1)},
    "1 × 1": {"kernels": (1, 1)},
}


@pytest.mark.parametrize("states", ["no state", "a state"])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_engine_equals_the_cell_called_step_by_step(options, states):
    net = stack(**options)
    frames = torch.randn(2, 4, net.cells[0].input_weight.shape[1], 7, 9, requires_grad=True)
    given = random_states(net) if states == "a state" else None
    fast = run(net, frames, given)
    net.use_engine = False
    for found, expected in zip(fast, run(net, frames, given), strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("peepholes", [False, True])
def test_the_engine_equals_an_unfed_stack_called_step_by_step(peepholes):
    net = stack(0, peepholes=peepholes)
    states = random_states(net)
    fast = run(net, None, states, num_steps=5)
    net.use_engine = False
    for found, expected in zip(fast, run(net, None, states, num_steps=5), strict=True):
        assert_equal(found, expected)


def test_a_stack_without_frames_and_states_is_refused():
    with pytest.raises(ValueError, match="needs states to start from"):
        stack(0)(None, num_steps=2)


def test_the_forward_pass_is_the_same_without_gradients():
    net, frames = stack(peepholes=True), torch.randn(2, 4, 9, 7, 9)
    hidden, states = net(frames)
    with torch.no_grad():
        hidden_alone, states_alone = net(frames)
    for one, other in zip([*hidden, *states[0]], [*hidden_alone, *states_alone[0]], strict=True):
        assert torch.equal(one, other)


def test_torch_arithmetic_equals_the_cell_too(monkeypatch):
    monkeypatch.setattr(runtime_compiled, "load", lambda *_: None)
    gate_arithmetic.cache_clear()
    net, frames = stack(peepholes=True), torch.randn(2, 3, 9, 7, 9, requires_grad=True)
    fast = run(net, frames, None)
    gate_arithmetic.cache_clear()
    net.use_engine = False
    for found, expected in zip(fast, run(net, frames, None), strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_checkpointed_stretches_change_no_gradient(length):
    net, frames = stack(), torch.randn(2, 4, 9, 7, 9, requires_grad=True)
    expected = run(net, frames, None)
    net.checkpoint_steps = length
    for found, whole in zip(run(net, frames, None), expected, strict=True):
        assert_equal(found, whole, 1e-6)


def test_bfloat16_keeps_cell_states_and_weights_in_float32():
    net, frames = stack(peepholes=True), torch.randn(2, 4, 9, 7, 9, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, states = net(frames)
    assert {h.dtype for h in hidden} == {torch.bfloat16}
    assert {cell.dtype for _, cell in states} == {torch.float32}
    sum(h.float().sum() for h in hidden).backward()
    found = [p.grad for p in net.parameters()]
    assert {g.dtype for g in found} == {torch.float32}
    net.zero_grad()
    exact, _ = net(frames)
    sum(h.sum() for h in exact).backward()
    assert_equal([h.detach().float() for h in hidden], [h.detach() for h in exact], 0.03)
    for one, p in zip(found, net.parameters(), strict=True):
        assert float((one - p.grad).norm()) < 0.03 * float(p.grad.norm())


def test_a_second_backward_pass_is_refused():
    net = stack()
    loss = net(torch.randn(1, 2, 9, 5, 5))[0][-1].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it can be called once"):
        loss.backward()


def test_a_compiler_sees_the_equations_instead_of_the_engine():
    net = stack().eval()
    exported = torch.export.export(net, (torch.randn(1, 2, 9, 6, 5),))
    frames = torch.randn(1, 2, 9, 6, 5)
    with torch.no_grad():
        assert_equal(exported.module()(frames)[0], net(frames)[0])
    assert not [node for node in exported.graph.nodes if "LayerSequence" in str(node.target)]


def arguments(dtype, *, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(channels, kind):
        return (torch.randn(2, 3, 4, channels, generator=generator) * spread).to(kind).movedim(-1, -3)

    return {
        "from_input": draw(20, dtype), "from_state": draw(20, dtype), "bias": torch.randn(20, generator=generator),
        "peepholes": torch.randn(3, 5, 1, 1, generator=generator), "before": draw(5, torch.float32),
        "d_hidden": draw(5, dtype), "d_hidden_next": draw(5, dtype), "d_cell": draw(5, torch.float32),
    }  # fmt: skip


def both_ways(gates, given, dtype, *, without=()):
    """What forward and backward write: gates, cell, hidden, then the gradients of the arguments and of the cell before."""
    given = {name: None if name in without else value.clone() for name, value in given.items()}
    empty = [torch.empty(2, 3, 4, n, dtype=d).movedim(-1, -3) for n, d in ((20, dtype), (5, torch.float32), (5, dtype))]
    values, cell, hidden = empty
    names = ("from_input", "from_state", "bias", "peepholes", "before")
    gates.forward(*(given[name] for name in names), values, cell, hidden)
    written = [values.clone(), cell.clone(), hidden.clone()]
    gates.backward(
        values, given["before"], cell, given["peepholes"], given["d_hidden"], given["d_hidden_next"], given["d_cell"]
    )
    return [*written, values, given["d_cell"]]


@pytest.mark.parametrize("without", [(), ("from_input",), ("peepholes",), ("from_input", "peepholes"), ("d_hidden_next",),
                                     ("peepholes", "d_hidden_next")])  # fmt: skip
@pytest.mark.parametrize(("activation", "gate_activation"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_gates_equal_those_in_torch(dtype, activation, gate_activation, without):
    gates = gate_arithmetic(activation, gate_activation, "cpu", dtype)
    assert isinstance(gates, NativeGates), "no C compiler here?"
    given = arguments(dtype)
    found = both_ways(gates, given, dtype, without=without)
    expected = both_ways(GateArithmetic(activation, gate_activation), given, dtype, without=without)
    tolerance = 1e-6 if dtype == torch.float32 else 0.01
    assert_equal([part.float() for part in found], [part.float() for part in expected], tolerance)


def test_native_gates_saturate_without_nan_and_pass_nan_on():
    gates, given = gate_arithmetic("tanh", "sigmoid", "cpu", torch.float32), arguments(torch.float32, spread=1e4)
    assert all(part.isfinite().all() for part in both_ways(gates, given, torch.float32))
    given["from_state"][0, 7, 1, 2] = torch.nan
    _, cell, hidden, *_ = both_ways(gates, given, torch.float32)
    assert cell.isnan().nonzero().tolist() == hidden.isnan().nonzero().tolist() == [[0, 2, 1, 2]]


def test_the_library_is_compiled_once_and_logged(fresh_compiler, caplog):
    with caplog.at_level(logging.INFO, "nowcast"):
        assert runtime_compiled.load(SOURCE) is not None
    assert "compiled gates.c in" in caplog.text
    assert len(list(fresh_compiler.rglob("*.so"))) == 1
    (library,) = fresh_compiler.rglob("*.so")
    written = library.stat().st_mtime_ns
    runtime_compiled.load.cache_clear()
    assert runtime_compiled.load(SOURCE) is not None
    assert library.stat().st_mtime_ns == written


def test_without_a_compiler_the_gates_are_computed_in_torch_and_it_is_said_once(fresh_compiler, caplog, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh_compiler))
    monkeypatch.delenv("CC", raising=False)
    for dtype in (torch.float32, torch.bfloat16):
        assert type(gate_arithmetic("tanh", "sigmoid", "cpu", dtype)) is GateArithmetic
    assert [record.message for record in caplog.records] == [
        "no C compiler found (cc, gcc, clang or $CC): the gates are computed in torch, which takes more time"
    ]


def fake_compiler(path, *lines):
    """A shell script that stands in for a C compiler and runs these lines when it is to compile; return its path."""
    path.write_text("\n".join(["#!/bin/sh", '[ "$1" = --version ] && exit 0', *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails_is_named_with_its_first_line(fresh_compiler, caplog, monkeypatch):
    compiler = fake_compiler(fresh_compiler / "cc", 'echo "no such flag" >&2', "echo more >&2", "exit 1")
    monkeypatch.setenv("CC", compiler)
    assert runtime_compiled.load(SOURCE) is None
    (record,) = caplog.records
    assert record.message.startswith(f"{compiler} did not build gates.c (no such flag): the gates are computed in torch")
    assert not list(fresh_compiler.rglob("*.so*"))


@pytest.mark.slow
def test_a_damaged_library_is_compiled_again(fresh_compiler, monkeypatch):
    assert runtime_compiled.load(SOURCE) is not None
    (whole,) = fresh_compiler.rglob("*.so")
    monkeypatch.setenv("NOWCAST_CACHE", str(fresh_compiler / "other"))  # this process has the first path loaded
    path = fresh_compiler / "other" / whole.relative_to(fresh_compiler)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a library")
    runtime_compiled.forget()
    assert runtime_compiled.load(SOURCE) is not None
    assert path.stat().st_size > 1000


def test_a_library_that_does_not_load_is_replaced_by_torch(fresh_compiler, caplog, monkeypatch):
    compiler = fake_compiler(fresh_compiler / "cc", 'while [ "$1" != -o ]; do shift; done', 'echo "no library" >"$2"')
    monkeypatch.setenv("CC", compiler)
    assert runtime_compiled.load(SOURCE) is None
    assert "did not build gates.c" in caplog.text


def test_a_cache_that_cannot_be_written_costs_speed_alone(fresh_compiler, caplog, monkeypatch):
    (fresh_compiler / "file").write_text("")
    monkeypatch.setenv("NOWCAST_CACHE", str(fresh_compiler / "file"))
    assert runtime_compiled.load(SOURCE) is None
    assert "the gates are computed in torch" in caplog.text


def test_a_compiler_that_hangs_is_given_up(fresh_compiler, caplog, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert runtime_compiled.load(SOURCE) is None
    assert "timed out" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_that_are_not_float32_go_step_by_step(dtype):
    net, frames = stack(hidden=(8,), kernels=(3,)).to(dtype), torch.randn(2, 4, 9, 7, 9).to(dtype)
    found, _ = net(frames)
    net.use_engine = False
    assert torch.equal(net(frames)[0][-1], found[-1])


def test_a_state_of_another_shape_is_refused():
    net = stack(hidden=(8,), kernels=(3,))
    with pytest.raises(ValueError, match=r"the state has shapes \(1, 8, 7, 9\) .* both should be \(2, 8, 7, 9\)"):
        net(torch.randn(2, 4, 9, 7, 9), random_states(net, cases=1))


@pytest.fixture
def graphs(monkeypatch, caplog):
    """The graphs that `graphs.backend` compiled, which stands in for inductor; an error where it is given up."""
    torch._dynamo.reset()
    made = Graphs()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=made.compile))
    compiled = compile_gates(GateArithmetic("tanh", "sigmoid"))
    monkeypatch.setattr(layer, "gate_arithmetic", lambda *_: compiled)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield made
    assert not caplog.records


class Graphs(list):
    backend = staticmethod(lambda graph, _: graph.forward)

    def compile(self, graph, inputs):
        self.append(graph)
        return self.backend(graph, inputs)


@pytest.mark.slow
def test_all_variants_of_the_gates_are_compiled(graphs):
    """One case, views at 0 and views of one size are each compiled anew; above a limit dynamo runs the rest uncompiled."""
    net = stack(4, hidden=(6,), kernels=(3,))
    for cases in (1, 2):
        frames = torch.randn(cases, 3, 4, 8, 8)
        with torch.inference_mode():
            net(frames)
        _, states = net(frames)
        net(frames, states)[0][-1].sum().backward()
    assert len(graphs) > 8


@pytest.mark.slow
def test_the_gates_of_a_forecast_can_be_compiled(graphs):
    """Not where an input is an output too, which "aot_eager", that does all of inductor but the kernels, finds as well."""
    graphs.backend = aot_eager
    with torch.inference_mode():
        stack(4, hidden=(6,), kernels=(3,))(torch.randn(1, 3, 4, 8, 8))
    assert graphs


def test_running_out_of_memory_is_no_fault_of_inductor():
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        with_fallback(full, lambda *_: "plain")(None)
