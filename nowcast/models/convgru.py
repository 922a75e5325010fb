"""One layer of ConvGRU and of TrajGRU: Shi et al. (2017), arXiv 1706.03458, eq. 2 and 3.

    Z = σ(Wxz*X + Whz*H' + bz)    R = σ(Wxr*X + Whr*H' + br)
    N = φ(Wxn*X + bn + R∘(Whn*H' + bhn))    H = (1 - Z)∘N + Z∘H'    with φ = leaky ReLU, slope 0.2

X is the input, H' the hidden state one time step earlier, * a convolution and ∘ the elementwise product. TrajGRU replaces the
convolutions over H' by 1 × 1 convolutions over H' read along L flow fields, which a small network computes from X and H'. The
channels are in the order z, r, n. A state is the tuple (hidden,), so that a layer can take the place of `ConvLSTM` in a
multiscale stack.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor]
FLOW_CHANNELS = 32  # hidden channels of the network that computes the flows


class ConvGRU(nn.Module):
    """One ConvGRU layer; input kernels are 3 × 3. With `in_channels = 0` it has no input, and `step` takes `frame = None`."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int):
        super().__init__()
        self.hidden_channels = hidden_channels
        self.from_input = nn.Conv2d(in_channels, 3 * hidden_channels, 3, padding=1) if in_channels else None
        self.from_state = self._make_from_state(kernel_size)

    def _make_from_state(self, kernel_size: int) -> nn.Module:
        return nn.Conv2d(self.hidden_channels, 3 * self.hidden_channels, kernel_size, padding=kernel_size // 2)

    def initial_states(self, like: Tensor) -> list[State]:
        """Return zero states for the grid of `like` (case, channel, y, x)."""
        return [(like.new_zeros(like.shape[0], self.hidden_channels, *like.shape[-2:]),)]

    def step(self, frame: Tensor | None, states: Sequence[State]) -> list[State]:
        """Advance the state by one time step; `frame` is (case, channel, y, x)."""
        ((hidden,),) = states
        z, r, n = self.look_back(frame, hidden).chunk(3, dim=1)
        if self.from_input is not None and frame is not None:
            input_z, input_r, input_n = self.from_input(frame).chunk(3, dim=1)
        else:
            input_z = input_r = input_n = 0.0
        update = torch.sigmoid(input_z + z)
        new = F.leaky_relu(input_n + torch.sigmoid(input_r + r) * n, 0.2)
        return [((1 - update) * new + update * hidden,)]

    def forward(
        self, frames: Tensor | None, states: Sequence[State] | None = None, *, num_steps: int = 0
    ) -> tuple[list[Tensor], list[State]]:
        """Run over a sequence as `ConvLSTM.forward`; return all hidden states (case, time, hidden, y, x) and the last state."""
        states, hidden = self.initial_states(frames[:, 0]) if states is None else list(states), []
        for time in range(num_steps if frames is None else frames.shape[1]):
            states = self.step(None if frames is None else frames[:, time], states)
            hidden.append(states[0][0])
        return [torch.stack(hidden, dim=1)], states

    def look_back(self, frame: Tensor | None, hidden: Tensor) -> Tensor:
        """Compute the contributions of the hidden state to z, r and n: (case, 3 × hidden, y, x)."""
        return self.from_state(hidden)


class TrajGRU(ConvGRU):
    """One TrajGRU layer with `links` flow fields."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int, *, links: int):
        self.links = links
        super().__init__(in_channels, hidden_channels, kernel_size)
        self.flow_from_input = nn.Conv2d(in_channels, FLOW_CHANNELS, 5, padding=2) if in_channels else None
        self.flow_from_state = nn.Conv2d(hidden_channels, FLOW_CHANNELS, 5, padding=2)
        self.flows = nn.Conv2d(FLOW_CHANNELS, 2 * links, 5, padding=2)

    def _make_from_state(self, kernel_size: int) -> nn.Module:
        return nn.Conv2d(self.hidden_channels * self.links, 3 * self.hidden_channels, 1)

    def look_back(self, frame: Tensor | None, hidden: Tensor) -> Tensor:
        features = self.flow_from_state(hidden)
        if self.flow_from_input is not None and frame is not None:
            features = features + self.flow_from_input(frame)
        flows = self.flows(F.leaky_relu(features, 0.2)).unflatten(1, (self.links, 2))  # (case, link, (y, x), y, x)
        return self.from_state(warp(hidden, flows).transpose(1, 2).flatten(1, 2))


def warp(field: Tensor, flows: Tensor) -> Tensor:
    """Read a field at each cell's position plus each of several flows, by bilinear interpolation; 0 outside the grid.

    All flows in one call, as if they lay below each other: one by one they would be most of an exported network.

    field: (case, channel, y, x)
    flows: (case, link, 2, y, x) cells, (y, x)
    returns: (case, channel, link, y, x)
    """
    height, width = field.shape[-2:]
    rows = torch.arange(height, device=field.device, dtype=torch.float32).view(-1, 1) + flows[:, :, 0].float()
    columns = torch.arange(width, device=field.device, dtype=torch.float32) + flows[:, :, 1].float()
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    read = F.grid_sample(field.float(), places.flatten(1, 2), align_corners=False).to(field.dtype)
    return read.unflatten(2, (flows.shape[1], height))
