"""A contract that every entry of MODELS keeps, and the ConvLSTM against its equations and published parameter counts."""

import pytest
import torch
from makers.models import FIXED_GRID, LOG, OF_DISTRIBUTIONS, build, run
from torch.nn.functional import conv2d

from nowcast.config.schema import NamedSection
from nowcast.models import MODELS, make_model, model_config, num_parameters
from nowcast.models.convlstm import CellOptions, ConvLSTM, ConvLSTMCell
from nowcast.models.transform import network_input


@pytest.fixture(params=MODELS)
def model(request):
    return build(request.param)


def past(cases=2, frames=3, y=12, x=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(cases, frames, y, x, generator=generator) * 20
    values[:, :, 2:4, 3:6] = torch.nan
    return values


@pytest.mark.parametrize("leads", [1, 5])
@pytest.mark.parametrize("grid", [(12, 12), (13, 11), (8, 31)])
def test_any_grid_and_any_number_of_leads(model, grid, leads):
    if model.config.name in FIXED_GRID and grid != model.grid:
        with pytest.raises(RuntimeError):
            run(model, network_input(past(y=grid[0], x=grid[1]), LOG), leads)
        return
    forecast = run(model, network_input(past(y=grid[0], x=grid[1]), LOG), leads)
    parameters = (OF_DISTRIBUTIONS[model.config.name],) if model.config.name in OF_DISTRIBUTIONS else ()
    assert forecast.shape == (2, leads, *parameters, *grid)
    assert forecast.dtype == torch.float32
    assert torch.isfinite(forecast).all()


def test_every_parameter_gets_a_finite_gradient(model):
    with torch.no_grad():
        for parameter in model.parameters():  # a peephole of 0 hides the others' gradients
            parameter.add_(0.01 * torch.randn_like(parameter))
    run(model, network_input(past(), LOG), 3).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_values_under_the_mask_change_no_forecast(model):
    frames = past()
    changed = torch.where(torch.isnan(frames), torch.inf, frames)
    first, second = (run(model.eval(), network_input(rain, LOG), 4) for rain in (frames, changed))
    assert torch.equal(first, second)


def test_missing_is_not_the_same_as_dry(model):
    frames = past()
    dry = torch.nan_to_num(frames, nan=0.0)
    model.eval()
    assert not torch.equal(run(model, network_input(frames, LOG), 2), run(model, network_input(dry, LOG), 2))


def test_a_case_does_not_depend_on_the_others_in_its_batch(model):
    values, model = network_input(past(), LOG), model.eval()
    torch.testing.assert_close(run(model, values, 3)[:1], run(model, values[:1], 3), rtol=1e-4, atol=1e-6)


def test_the_first_leads_do_not_depend_on_how_many_are_asked_for(model):
    values, model = network_input(past(), LOG), model.eval()
    torch.testing.assert_close(run(model, values, 6)[:, :2], run(model, values, 2))


@pytest.mark.parametrize("name", sorted(MODELS.keys() - OF_DISTRIBUTIONS.keys()))
def test_a_sigmoid_output_lies_in_the_unit_interval(name):
    forecast = build(name, output="sigmoid")(network_input(past(), LOG), 2)
    assert ((forecast > 0) & (forecast < 1)).all()


# Shi et al. (2015), table 1: (state-to-state kernel, input-to-state kernel, hidden channels) and parameters
SHI_2015 = [
    (5, 5, (256,), 13_524_496),
    (5, 5, (128, 128), 10_042_896),
    (5, 5, (128, 64, 64), 7_585_296),
    (1, 9, (128, 128), 11_550_224),
    (1, 9, (128, 64, 64), 8_830_480),
]


@pytest.mark.slow
@pytest.mark.parametrize(("state_kernel", "input_kernel", "hidden", "published"), SHI_2015)
def test_parameter_counts_are_those_of_the_2015_paper(state_kernel, input_kernel, hidden, published):
    layers = len(hidden)
    section = NamedSection(
        name="encoder_forecaster", hidden_channels=list(hidden), kernel_sizes=[state_kernel] * layers,
        input_kernel_sizes=[input_kernel] * layers, patch=4, peepholes=True, validity_channel=False, output="sigmoid",
    )  # fmt: skip
    assert num_parameters(make_model(model_config(section))) == published


def textbook_step(cell, x, hidden, memory):
    """The equations of the module's docstring, gate by gate and with eight convolutions."""

    def gate(n, peephole=None, on=None):
        total = conv2d(hidden, cell.state_weight.chunk(4)[n], padding=cell.state_weight.shape[-1] // 2)
        total = total + conv2d(x, cell.input_weight.chunk(4)[n], padding=cell.input_weight.shape[-1] // 2)
        total = total + cell.bias.chunk(4)[n].view(1, -1, 1, 1)
        return total if peephole is None else total + cell.peepholes[peephole] * on

    i, f = torch.sigmoid(gate(0, 0, memory)), torch.sigmoid(gate(1, 1, memory))
    memory = f * memory + i * torch.tanh(gate(2))
    o = torch.sigmoid(gate(3, 2, memory))
    return o * torch.tanh(memory), memory


@pytest.mark.parametrize("input_kernel", [0, 5])
def test_the_cell_is_the_equations(input_kernel):
    torch.manual_seed(1)
    cell = ConvLSTMCell(3, 4, 3, input_kernel_size=input_kernel, options=CellOptions(peepholes=True))
    torch.nn.init.normal_(cell.peepholes)
    torch.nn.init.normal_(cell.bias)
    hidden, memory = torch.randn(2, 4, 5, 7), torch.randn(2, 4, 5, 7)
    for _ in range(3):
        x = torch.randn(2, 3, 5, 7)
        expected = textbook_step(cell, x, hidden, memory)
        hidden, memory = cell(x, (hidden, memory))
        torch.testing.assert_close((hidden, memory), expected, rtol=1e-5, atol=1e-6)


def test_the_stack_returns_all_hidden_states_and_the_last_of_each_layer():
    stack = ConvLSTM(3, (5, 4), (3, 5))
    frames = torch.randn(2, 6, 3, 9, 8)
    hidden, states = stack(frames)
    assert [tuple(layer.shape) for layer in hidden] == [(2, 6, 5, 9, 8), (2, 6, 4, 9, 8)]
    for layer, (last, cell) in zip(hidden, states, strict=True):
        assert torch.equal(layer[:, -1], last)
        assert cell.shape == last.shape


def test_a_stack_run_in_two_parts_equals_one_run():
    stack = ConvLSTM(3, (5, 4), (3, 3), options=CellOptions(peepholes=True))
    frames = torch.randn(2, 6, 3, 9, 8)
    whole, _ = stack(frames)
    first, states = stack(frames[:, :2])
    second, _ = stack(frames[:, 2:], states)
    for n in range(2):
        torch.testing.assert_close(torch.cat([first[n], second[n]], dim=1), whole[n])


def test_the_forget_gate_starts_open():
    cell = ConvLSTMCell(1, 3, 3)
    assert cell.bias.view(4, 3).tolist() == [[0] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_layers_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 hidden_channels need as many kernel_sizes, not 1"):
        ConvLSTM(1, (2, 3), (3,))
