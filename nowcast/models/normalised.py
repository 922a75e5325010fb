"""A ConvLSTM stack with batch normalisation after each layer, for next_frame and many_to_many."""

from collections.abc import Sequence

from torch import Tensor, nn

from nowcast.models.convlstm import CellOptions, ConvLSTM, State


class NormalisedConvLSTM(nn.Module):
    """ConvLSTM layers, each followed by batch normalisation over cases, times and cells.

    `batch_norm = False` leaves out normalisation, `last_norm = False` that of the last layer. Momentum and epsilon are those of
    Keras.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        kernel_sizes: Sequence[int],
        *,
        batch_norm: bool,
        last_norm: bool,
        options: CellOptions,
    ):
        super().__init__()
        inputs = [in_channels, *hidden_channels[:-1]]
        last = len(hidden_channels) - 1
        layers, norms = [], []
        for n, (hidden, kernel) in enumerate(zip(hidden_channels, kernel_sizes, strict=True)):
            layers.append(ConvLSTM(inputs[n], (hidden,), (kernel,), options=options))
            normed = batch_norm and (n < last or last_norm)
            norms.append(nn.BatchNorm3d(hidden, eps=1e-3, momentum=0.01) if normed else nn.Identity())
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)

    def forward(self, frames: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """Run over frames (case, time, channel, y, x).

        returns: the last layer's hidden states (case, time, hidden, y, x), and each layer's last state
        """
        after = []
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            (hidden,), (state,) = layer(frames, None if states is None else [states[n]])
            frames = norm(hidden.transpose(1, 2)).transpose(1, 2)
            after.append(state)
        return frames, after
