"""torch.compile takes each network, while it trains, as one graph: a break would cost a GPU a wait in each step."""

import pytest
import torch
from makers.models import SMALL, build


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"probabilistic", "trajgru"}))  # these take 11 s; one graph too
def test_a_network_is_one_graph(name):
    model = build(name).train()
    torch._dynamo.reset()
    found = torch._dynamo.explain(model)(torch.rand(1, 2, 2, 12, 12), 2, **model.blank_inputs(1, 2, (12, 12)))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
