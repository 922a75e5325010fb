"""What patches.c computes between cells and patches is what torch computes, forward and backward."""

import pytest
import torch
from makers.models import build

from nowcast.models.guided import patches
from nowcast.models.guided.guidance import MISSING, RATES
from nowcast.runtime import compiled


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "forecasting"])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_in_c_are_those_of_torch(patch, training, precision, monkeypatch):
    if compiled.load(patches.SOURCE) is None:
        pytest.skip("no C compiler")
    generator = torch.Generator().manual_seed(patch)
    model = build("guided", patch=patch, trust=0.4).train(training)
    with torch.no_grad():
        for buffer in (model.intercept, model.slope):
            buffer += 0.5 * torch.randn(buffer.shape, generator=generator)
    past = torch.rand(2, 2, 2, 9, 10, generator=generator)  # no multiple of the patch
    coded = torch.randint(-60, 20, (2, 3, len(RATES), 9, 10), generator=generator, dtype=torch.int8)
    coded.masked_fill_(torch.rand(2, 3, 1, 9, 10, generator=generator) < 0.2, MISSING)

    def outputs_and_gradients():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = model(past, 3, guidance=coded)
        factors = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
        return outputs.detach(), torch.autograd.grad((factors * outputs.nan_to_num(0.0)).sum(), list(model.parameters()))

    load, libraries = patches.library_for, []
    monkeypatch.setattr(patches, "library_for", lambda tensor: (libraries.append(load(tensor)), libraries[-1])[1])
    found, gradients = outputs_and_gradients()
    assert len(libraries) == 2  # of the input and of the outputs
    assert all(libraries)
    monkeypatch.setattr(patches, "library_for", lambda _: None)
    expected, expected_gradients = outputs_and_gradients()
    assert torch.equal(found.isnan(), coded == MISSING)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
