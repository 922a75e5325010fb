"""ConvLSTM layers on matrix units (AMX) give what the cell gives step by step; the same code is tried on emulated ones."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nowcast.models.convlstm import CellOptions, ConvLSTM
from nowcast.models.engine.amx import functions
from nowcast.models.engine.amx import layer as amx_layer
from nowcast.runtime import compiled
from nowcast.runtime.precision import processor_flags

HAS_UNITS, HAS_VECTORS = ({name} <= processor_flags() for name in ("amx_bf16", "avx512_bf16"))
BFLOAT16, LIBRARY = torch.bfloat16, functions.library
CLOSE = 0.03  # largest relative error (root mean square) of a gradient; the textbook cell in bfloat16 has as large ones


def emulated(relu, hard_sigmoid):
    return compiled.load(functions.SOURCE, "EMULATED", *["RELU"] * relu, *["HARD_SIGMOID"] * hard_sigmoid)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("units", marks=pytest.mark.skipif(not HAS_UNITS, reason="no matrix units")),
        pytest.param("emulated", marks=pytest.mark.skipif(not HAS_VECTORS, reason="no vector units of bfloat16")),
    ],
)
def units(request):
    """The matrix units of this processor, or emulated ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "emulated":
            patch.setattr(functions, "library", emulated)
        assert functions.library(False, False) is not None, "layers would be computed in torch"
        yield request.param


def one_layer(inputs, n, kernel, *, input_kernel=0, seed=0, **options):
    torch.manual_seed(seed)
    net = ConvLSTM(inputs, [n], [kernel], input_kernel_sizes=[input_kernel], options=CellOptions(**options))
    with torch.no_grad():
        for cell in net.cells:
            for weight in (cell.input_weight, cell.state_weight):
                if weight is not None:
                    weight.copy_(weight.to(BFLOAT16))  # so that only sums and states are rounded
            if cell.peepholes is not None:
                torch.nn.init.normal_(cell.peepholes)
    return net


def computed(net, frames, state, times, *, precision, in_loss=(0, 1)):
    """Hidden states, last cell state and all gradients; in float32 by the cell, in bfloat16 by the layer.

    in_loss: which of the first two the loss is made of
    """
    with torch.autocast("cpu", BFLOAT16, enabled=precision == BFLOAT16):
        hidden, after = net(frames, state, num_steps=times)
    outputs = [hidden[-1], after[-1][1]]
    chosen = [outputs[n] for n in in_loss]
    loss = sum((part.float() * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in chosen)
    given = [] if frames is None or not frames.requires_grad else [frames]
    inputs = [*net.parameters(), *given, *(part for each in state or [] for part in each)]
    return [part.detach().float() for part in outputs], [part.float() for part in torch.autograd.grad(loss, inputs)]


def assert_as_the_cell(net, inputs, n, grid, *, cases=2, times=3, with_state=False, in_loss=(0, 1)):
    """In bfloat16 the layer gives what it gives in float32, to the rounding of hidden states."""
    frames = torch.randn(cases, times, inputs, *grid).to(BFLOAT16).float().requires_grad_() if inputs else None
    state = [tuple(torch.randn(cases, n, *grid).to(BFLOAT16).float().requires_grad_() for _ in range(2))]
    state = state if with_state or not inputs else None
    outputs, gradients = computed(net, frames, state, times, precision=BFLOAT16, in_loss=in_loss)
    expected, expected_gradients = computed(net, frames, state, times, precision=torch.float32, in_loss=in_loss)
    for found, right in zip(outputs, expected, strict=True):
        assert found.shape == right.shape
        typical = max(float(right.norm()), 0.02 * right.numel() ** 0.5)  # gates are off by up to 1e-4, however small a state is
        assert float((found - right).norm()) <= 0.01 * typical
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert found.shape == right.shape
        typical = max(float(right.norm()), 0.2 * right.numel() ** 0.5)  # not less, as few numbers may cancel each other
        assert float((found - right).norm()) <= CLOSE * typical


CASES = {
    "as in recipes": {"inputs": 16, "n": 32, "kernel": 3, "grid": (12, 20)},
    "one channel in": {"inputs": 1, "n": 16, "kernel": 3, "grid": (9, 33)},
    "odd numbers of channels": {"inputs": 5, "n": 13, "kernel": 3, "grid": (7, 9)},
    "5 × 5 on a grid that is smaller": {"inputs": 3, "n": 8, "kernel": 5, "grid": (2, 3)},
    "1 × 1 on one cell": {"inputs": 4, "n": 7, "kernel": 1, "grid": (1, 1)},
    "1 × 1 from the input, as in recipes": {"inputs": 70, "n": 16, "kernel": 3, "input_kernel": 1, "grid": (6, 20)},
    "5 × 5 from the input": {"inputs": 9, "n": 20, "kernel": 3, "input_kernel": 5, "grid": (6, 11)},
    "channels that fill all registers": {"inputs": 32, "n": 32, "kernel": 3, "grid": (8, 16)},
    "the same with two kernels": {"inputs": 64, "n": 32, "kernel": 3, "input_kernel": 1, "grid": (8, 16)},
    "no input": {"inputs": 0, "n": 20, "kernel": 3, "grid": (5, 40)},
    "more columns than at once, and places": {"inputs": 40, "n": 33, "kernel": 3, "grid": (9, 70)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("with_state", [False, True], ids=["no state", "a state"])
def test_a_layer_equals_the_cell(units, case, with_state):
    net = one_layer(case["inputs"], case["n"], case["kernel"], input_kernel=case.get("input_kernel", 0))
    assert_as_the_cell(net, case["inputs"], case["n"], case["grid"], with_state=with_state)


@pytest.mark.parametrize("in_loss", [(0,), (1,)], ids=["hidden states alone", "last cell state alone"])
def test_a_loss_of_one_output_alone(units, in_loss):
    assert_as_the_cell(one_layer(6, 18, 3), 6, 18, (8, 11), with_state=True, in_loss=in_loss)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("with_state", [False, True], ids=["no state", "a state"])
def test_memory_that_is_not_cleared_is_never_read(units, case, with_state, monkeypatch):
    net = one_layer(case["inputs"], case["n"], case["kernel"], input_kernel=case.get("input_kernel", 0), peepholes=True)
    frames = torch.randn(2, 3, case["inputs"], *case["grid"]).requires_grad_() if case["inputs"] else None
    state = [tuple(torch.randn(2, case["n"], *case["grid"]).requires_grad_() for _ in range(2))]
    state = state if with_state or frames is None else None
    expected = computed(net, frames, state, 3, precision=BFLOAT16)
    memory = functions.memory

    def spoilt(shape, dtype=torch.float32, *, zero=False):
        allocated = memory(shape, dtype, zero=zero)
        return allocated if zero else allocated.fill_(float("nan"))

    for module in (functions, amx_layer):
        monkeypatch.setattr(module, "memory", spoilt)
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda values: empty_like(values).fill_(float("nan")))
    found = computed(net, frames, state, 3, precision=BFLOAT16)
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("peepholes", [False, True], ids=["plain", "peepholes"])
@pytest.mark.parametrize(("activation", "gate"), [("tanh", "hard_sigmoid"), ("relu", "sigmoid"), ("tanh", "sigmoid")])
def test_every_activation_equals_the_cell(units, activation, gate, peepholes):
    net = one_layer(6, 18, 3, peepholes=peepholes, activation=activation, gate_activation=gate, seed=3)
    assert_as_the_cell(net, 6, 18, (8, 11), with_state=True)


@settings(max_examples=15)
@given(
    inputs=st.integers(0, 40), n=st.integers(1, 40), reach=st.integers(0, 2), input_reach=st.integers(0, 2),
    y=st.integers(1, 12), x=st.integers(1, 40), cases=st.integers(1, 3), times=st.integers(1, 3),
    threads=st.integers(1, 3), with_state=st.booleans(),
)  # fmt: skip
def test_any_sizes_equal_the_cell_on_any_number_of_threads(
    units, inputs, n, reach, input_reach, y, x, cases, times, threads, with_state
):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net = one_layer(inputs, n, 2 * reach + 1, input_kernel=2 * input_reach + 1)
        assert_as_the_cell(net, inputs, n, (y, x), cases=cases, times=times, with_state=with_state)
    finally:
        torch.set_num_threads(before)


def test_the_bytes_depend_neither_on_threads_nor_on_gradients(units):
    net, frames = one_layer(20, 24, 3), torch.randn(2, 4, 20, 13, 40)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            outputs, gradients = computed(net, frames.requires_grad_(), None, 4, precision=BFLOAT16)
            with torch.no_grad(), torch.autocast("cpu", BFLOAT16):
                hidden, after = net(frames, None, num_steps=4)
        finally:
            torch.set_num_threads(before)
        found.append([*outputs, *gradients, hidden[-1].float(), after[-1][1]])
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert torch.equal(found[0][0], found[0][-2])
    assert torch.equal(found[0][1], found[0][-1])


def test_frames_whose_gradient_is_not_wanted_change_no_bit(units):
    net, frames = one_layer(20, 24, 3, input_kernel=1), torch.randn(2, 4, 20, 7, 9)
    outputs, gradients = computed(net, frames, None, 4, precision=BFLOAT16)
    others, with_frames = computed(net, frames.clone().requires_grad_(), None, 4, precision=BFLOAT16)
    for one, other in zip([*outputs, *gradients], [*others, *with_frames[:-1]], strict=True):
        assert torch.equal(one, other)


def test_weights_that_are_kept_change_no_gradient_of_the_frames(units):
    net, frames = one_layer(20, 24, 3), torch.randn(2, 4, 20, 7, 9, requires_grad=True)
    *_, expected = computed(net, frames, None, 4, precision=BFLOAT16)[1]
    net.requires_grad_(False)
    with torch.autocast("cpu", BFLOAT16):
        hidden, after = net(frames, None, num_steps=4)
    parts = (hidden[-1], after[-1][1])
    loss = sum((part.float() * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in parts)
    assert torch.equal(torch.autograd.grad(loss, frames)[0], expected)


def test_another_default_dtype_changes_no_bit(units):
    net, frames = one_layer(3, 20, 3, peepholes=True), torch.randn(1, 3, 3, 6, 7)
    expected = computed(net, frames, None, 3, precision=BFLOAT16)
    torch.set_default_dtype(torch.float64)
    try:
        loss_weights = torch.linspace  # of the loss in `computed`, which are of the default dtype
        torch.linspace = lambda *sizes: loss_weights(*sizes, dtype=torch.float32)
        found = computed(net, frames, None, 3, precision=BFLOAT16)
    finally:
        torch.linspace = loss_weights
        torch.set_default_dtype(torch.float32)
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert torch.equal(one, other)


def test_no_cases_give_no_states_and_zero_gradients(units):
    outputs, gradients = computed(one_layer(5, 16, 3), torch.randn(0, 3, 5, 8, 9), None, 3, precision=BFLOAT16)
    assert outputs[0].shape == (0, 3, 16, 8, 9)
    assert not any(gradient.any() for gradient in gradients)


def test_a_grid_without_cells_gives_zero_gradients(units):
    outputs, gradients = computed(one_layer(3, 16, 1), torch.randn(2, 3, 3, 0, 5), None, 3, precision=BFLOAT16)
    assert outputs[0].shape == (2, 3, 16, 0, 5)
    assert not any(gradient.any() for gradient in gradients)


def test_the_last_state_can_be_changed_in_place(units):
    net = one_layer(3, 16, 3)
    frames = torch.randn(1, 3, 3, 6, 7)
    _, expected = computed(net, frames, None, 3, precision=BFLOAT16, in_loss=(0,))
    with torch.autocast("cpu", BFLOAT16):
        hidden, after = net(frames, None, num_steps=3)
    after[0][1].detach().zero_()
    loss = (hidden[-1].float() * torch.linspace(-1, 1, hidden[-1].numel()).view(hidden[-1].shape)).sum()
    for found, right in zip(torch.autograd.grad(loss, list(net.parameters())), expected, strict=True):
        assert torch.equal(found, right)


def test_the_last_state_keeps_no_others(units):
    """With `checkpoint_steps` it alone is kept of so many times."""
    with torch.autocast("cpu", BFLOAT16):
        _, after = one_layer(3, 16, 3)(torch.randn(1, 5, 3, 6, 7), None, num_steps=5)
    assert after[0][1].untyped_storage().nbytes() == 16 * 6 * 7 * 4


def test_a_call_that_fails_while_it_is_traced_breaks_no_later_one(units):
    net, frames = one_layer(2, 17, 3).requires_grad_(False), torch.randn(1, 2, 2, 5, 11)

    def total(factor):
        with torch.autocast("cpu", BFLOAT16):
            return (factor * net(factor * frames)[0][-1].float()).sum()

    with pytest.raises(RuntimeError):
        torch.func.grad(total)(torch.tensor(2.0))
    assert total(torch.tensor(2.0)).isfinite()


def test_zeros_stay_zeros(units):
    net = one_layer(2, 16, 3, forget_bias=0.0)
    with torch.no_grad(), torch.autocast("cpu", BFLOAT16):
        hidden, _ = net(torch.zeros(1, 3, 2, 9, 9), None, num_steps=3)
    assert not hidden[-1].any()


@pytest.mark.parametrize("gate", [0, 1, 2, 3], ids=["input", "forget", "cell", "output"])
def test_activations_are_those_of_torch_to_a_twentieth_of_bfloat16(units, gate):
    """The gates' arguments are exact: one is the frame times 1, with a bias; the others are far in saturation."""
    net, values = one_layer(1, 16, 1), torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.0, 2e30, -2e30])])
    values = values.to(BFLOAT16).float()
    for weight in net.parameters():
        torch.nn.init.zeros_(weight)
    with torch.no_grad():
        cell = net.cells[0]
        cell.bias.view(4, 16)[:] = 50.0
        cell.bias.view(4, 16)[gate] = -0.75
        cell.input_weight.view(4, 16)[gate] = 1.0
        state = [tuple(torch.full((1, 16, 1, len(values)), 2.0) for _ in range(2))]
        expected = net(values.view(1, 1, 1, 1, -1), state)
        with torch.autocast("cpu", BFLOAT16):
            found = net(values.view(1, 1, 1, 1, -1), state)
    assert float((found[1][0][1] - expected[1][0][1]).abs().max()) <= 2e-4  # cell state: up to twice the forget gate
    assert float((found[0][0].float() - expected[0][0]).abs().max()) <= 1e-4 + 2**-9  # hidden state, rounded


def test_not_a_number_stays_where_it_can_reach(units):
    net, frames = one_layer(2, 16, 3), torch.zeros(1, 1, 2, 9, 9)
    frames[0, 0, 0, 4, 4] = torch.nan
    with torch.no_grad(), torch.autocast("cpu", BFLOAT16):
        hidden, _ = net(frames, None, num_steps=1)
    bad = hidden[-1][0, 0].isnan().any(dim=0)
    assert bad[3:6, 3:6].all()
    assert bad.sum() == 9


def test_a_second_backward_pass_is_refused(units):
    net = one_layer(2, 16, 3)
    with torch.autocast("cpu", BFLOAT16):
        hidden, _ = net(torch.randn(1, 2, 2, 5, 5), None, num_steps=2)
    loss = hidden[-1].float().sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it can be called once"):
        loss.backward()


@pytest.mark.skipif(not HAS_UNITS, reason="no matrix units")
def test_what_matrix_units_compute_and_what_torch():
    state, plain = torch.zeros(16, 4, 3, 3), ("tanh", "sigmoid")
    assert functions.layer_functions(state, BFLOAT16, plain) is not None
    assert functions.layer_functions(state, torch.float32, plain) is None
    assert functions.layer_functions(state.to("meta"), BFLOAT16, plain) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert functions.layer_functions(state, BFLOAT16, plain) is None


def test_without_units_torch_computes(monkeypatch):
    monkeypatch.setattr(functions, "processor_flags", lambda: frozenset({"avx512_bf16"}))
    assert LIBRARY.__wrapped__(False, False) is None


def test_units_that_the_system_refuses_are_told_of(monkeypatch, caplog):
    class Refused:
        def ask_for_units(self, allowed, threads):
            assert threads == 1

    monkeypatch.setattr(functions, "processor_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(compiled, "load", lambda source, *defines: Refused())
    with caplog.at_level(logging.WARNING):
        assert LIBRARY.__wrapped__(False, False) is None
    assert [record.message for record in caplog.records] == [
        "the system does not let this process use the processor's matrix units: layers take more time"
    ]
