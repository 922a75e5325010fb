"""The grids of the multiscale stacks: each accepted combination of strides and kernels divides and restores them exactly."""

import pytest
import torch

from nowcast.config.schema import NamedSection
from nowcast.errors import UsageError
from nowcast.models import make_model, model_config

ONE_LAYER = {"name": "multiscale", "hidden_channels": [1], "kernel_sizes": [1], "down_channels": [1]}


def one_layer(stride, down, up):
    return model_config(NamedSection(**ONE_LAYER, strides=[stride], down_kernels=[down], up_kernels=[up]))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_down_kernel_that_is_accepted_divides_the_grid_by_the_stride(stride):
    for down in range(1, 8):
        try:
            config = one_layer(stride, down, stride)
        except UsageError:
            assert down < stride or (stride == 1 and down % 2 == 0)
            continue
        model = make_model(config)
        ((hidden, _),) = model._encode(torch.zeros(1, 2, 2, 3 * stride, 5 * stride))
        assert hidden.shape == (1, 1, 3, 5), down
        assert model(torch.zeros(1, 2, 2, 3 * stride + 1, 5 * stride), 2).shape == (1, 2, 3 * stride + 1, 5 * stride)


def test_an_even_down_kernel_without_a_stride_is_refused():
    """It gave a grid larger by a cell than that of the forecaster's input: an error of torch in the first step."""
    with pytest.raises(UsageError, match=r"^config: model: stride 1 needs an odd down kernel, not 2$"):
        one_layer(1, 2, 1)
