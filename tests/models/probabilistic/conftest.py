"""What the tests of steps that are also in C share."""

import pytest
import torch


@pytest.fixture(params=[1, 2, 3])
def each_number_of_threads(request):
    """Run a test with 1, 2 and 3 threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)
