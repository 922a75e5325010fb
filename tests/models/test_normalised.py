"""The gradients of ConvLSTM layers with batch normalisation, also of a batch of one case."""

import pytest
import torch

from nowcast.models.convlstm import CellOptions, ConvLSTM, NormalisedConvLSTM


@pytest.mark.parametrize("cases", [1, 2])
def test_the_gradients_are_those_of_the_cells_one_by_one(cases):
    """Of one case with channels innermost, as the engine gives them, torch 2.13 and 2.14 give a wrong one, off by its size."""
    torch.manual_seed(0)
    options = {"batch_norm": True, "last_norm": True, "options": CellOptions()}
    stack, head = NormalisedConvLSTM(1, (2, 3), (3, 3), **options), torch.nn.Conv3d(3, 1, (1, 3, 3), padding=(0, 1, 1))
    frames, gradients = torch.rand(cases, 4, 1, 8, 9), []
    for use_engine in (True, False):
        for layer in stack.modules():
            if isinstance(layer, ConvLSTM):
                layer.use_engine = use_engine
        features, _ = stack(frames)
        loss = head(features.transpose(1, 2)).pow(3).sum()
        gradients.append(torch.autograd.grad(loss, list(stack.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
