"""Keras as the outside oracle: with copied weights our layers give what ConvLSTM2D gives."""

import os

import pytest
import torch
from makers import ROOT

from nowcast import config
from nowcast.config.schema import NamedSection
from nowcast.models import make_model, model_config, num_parameters
from nowcast.models.convlstm import CellOptions, ConvLSTM

CONFIGS = ROOT / "configs"
pytestmark = pytest.mark.slow  # the import of Keras alone takes seconds


@pytest.fixture(scope="module")
def keras():
    """Keras on torch, imported where its tests run and not in every process that collects them."""
    os.environ["KERAS_BACKEND"] = "torch"
    return pytest.importorskip("keras")


def weights(layer):
    """The layer's weights as plain tensors, in Keras's order."""
    return [variable.value.detach() for variable in layer.weights]


def copy_weights(cell, layer):
    """Keras's kernels are (y, x, in, gate · out) with the gates in our order."""
    kernel, state_kernel, bias = weights(layer)
    with torch.no_grad():
        cell.input_weight.copy_(kernel.permute(3, 2, 0, 1))
        cell.state_weight.copy_(state_kernel.permute(3, 2, 0, 1))
        cell.bias.copy_(bias)


def keras_input(frames):
    return frames.permute(0, 1, 3, 4, 2).contiguous()


def keras_output(values):
    return values.detach().permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize(("activation", "gates"), [("tanh", "sigmoid"), ("relu", "sigmoid"), ("tanh", "hard_sigmoid")])
def test_a_layer_equals_convlstm2d_over_four_steps_on_an_odd_grid(keras, activation, gates):
    def hard_sigmoid_of_keras_2(x):
        return keras.ops.clip(0.2 * x + 0.5, 0, 1)

    layer = keras.layers.ConvLSTM2D(
        5, 3, padding="same", return_sequences=True, activation=activation, bias_initializer="random_normal",
        recurrent_activation=hard_sigmoid_of_keras_2 if gates == "hard_sigmoid" else gates,
    )  # fmt: skip
    frames = torch.randn(2, 4, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = keras_output(layer(keras_input(frames)))
    stack = ConvLSTM(3, (5,), (3,), options=CellOptions(activation=activation, gate_activation=gates))
    copy_weights(stack.cells[0], layer)
    (hidden,), _ = stack(frames)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


def test_the_next_frame_stack_equals_the_keras_example_but_for_its_look_ahead(keras):
    """Inference of ConvLSTM2D, BatchNormalization, ConvLSTM2D and a Conv3D whose kernel is moved back by one frame."""
    layers = [
        keras.layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.ConvLSTM2D(4, 1, padding="same", return_sequences=True, activation="relu"),
        keras.layers.Conv3D(1, 3, padding="same", activation="sigmoid"),
    ]
    frames = torch.rand(2, 6, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    values = keras_input(frames)
    for layer in layers:
        # the last layer sees one frame more behind and none ahead
        values = keras.ops.pad(values, [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]]) if layer is layers[3] else values
        values = layer(values)
    expected = keras_output(values)[:, :6, 0]

    section = NamedSection(name="next_frame", hidden_channels=[4, 4], kernel_sizes=[3, 1], validity_channel=False)
    model = make_model(model_config(section)).eval()
    for ours, theirs in zip(model.stack.layers, (layers[0], layers[2]), strict=True):
        copy_weights(ours.cells[0], theirs)
    kernel, bias = weights(layers[3])
    with torch.no_grad():
        model.head.weight.copy_(kernel.permute(4, 3, 0, 1, 2))
        model.head.bias.copy_(bias)
    past = torch.stack([frames[:, :, 0], torch.ones_like(frames[:, :, 0])], dim=2)
    got, _ = model.one_step_ahead(past, None)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_configs_have_as_many_weights_as_the_examples_built_in_keras(keras):
    """The 2021 example and the moving squares, built in Keras."""
    examples = [([64, 64, 64], [5, 3, 1], 2, "keras_next_frame"), ([40] * 4, [3] * 4, 4, "keras_moving_squares")]
    for hidden, kernels, norms, name in examples:
        ours = make_model(model_config(config.read(CONFIGS / f"{name}.toml").model))
        model = keras.Sequential([keras.Input((None, 20, 20, 1))])
        for n, (channels, kernel) in enumerate(zip(hidden, kernels, strict=True)):
            model.add(keras.layers.ConvLSTM2D(channels, kernel, padding="same", return_sequences=True))
            if n < norms:
                model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Conv3D(1, 3, padding="same"))
        assert num_parameters(ours) == model.count_params()
