"""The contracts of the networks: Model, and DistributionModel for those that forecast a probability distribution.

A model works in network values (transform.py), never in mm/h, and knows neither files nor times. Training, validation,
forecasters and tiles use only what is documented here; everything but `forward` has a default.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nowcast.config.schema import Section
from nowcast.models.transform import Transform

Block = tuple[int, int]  # (number of a record, day since 1970-01-01)
NO_START: Mapping[str, Tensor] = MappingProxyType({})  # no calibrated buffers: new weights do not start from a checkpoint
SAMPLE_CELLS = 1 << 15  # approximate number of cells in the sample of a grid by which areas are matched


class Calibration:
    """Adjusts a model's probabilities to validation cases. This one, for models without probabilities, does nothing."""

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor, blocks: Sequence[Block]) -> None:
        """Add a batch of validation cases.

        outputs: of the model, (case, lead, …)
        observed: (case, lead, y, x) mm/h, 0 where missing
        validity: (case, lead, y, x) 1 known, 0 missing
        blocks: (case,) the record and day of each case; cases of different blocks are taken as independent
        """

    def apply(self, gather: Callable[[Any], list[Any]]) -> None:
        """Set the model's calibration from all batches counted, in this process and the others.

        gather: returns the values of all processes
        """


class Calibrations(Calibration):
    """Several calibrations of one model."""

    def __init__(self, *parts: Calibration):
        self.parts = parts

    def count(self, outputs: Tensor, observed: Tensor, validity: Tensor, blocks: Sequence[Block]) -> None:
        for part in self.parts:
            part.count(outputs, observed, validity, blocks)

    def apply(self, gather: Callable[[Any], list[Any]]) -> None:
        for part in self.parts:
            part.apply(gather)


class Model(nn.Module, ABC):
    """A network: past frames in, forecast values out, for any number of lead times.

    `config` holds the model's keys of the config. Registered in MODELS under the config's `name`.
    """

    citation: ClassVar[str] = "none"  # the paper, for the attribute `references` of forecast files
    gives_distributions: ClassVar[bool] = False  # whether the outputs are the parameters of a distribution
    learns_from_future: ClassVar[bool] = False  # whether `forward` takes `future` and `done` in training
    takes_guidance: ClassVar[bool] = False  # whether `forward` and `leads` take `guidance`; see models/guided/guidance.py
    calibrated: ClassVar[tuple[str, ...]] = ()  # names of the buffers that calibration sets
    fixed: ClassVar[tuple[str, ...]] = ()  # names of the buffers that are set before the first step and never change
    newer: ClassVar[Mapping[str, Tensor]] = {}  # buffers that older checkpoints lack, with neutral values

    cell_multiple: int = 1  # cells: smallest side of a grid; grids are padded to a multiple of it
    grid: tuple[int, int] | None = None  # the only (y, x) shape that it can forecast; None: any
    reach_is_bounded: bool = True  # False if a forecast may depend on the past at any distance, as along TrajGRU's flows
    draws_random_numbers: bool = (
        False  # True if training draws random numbers for each case: one process alone can then train it
    )
    matches_areas: bool = False  # True if forecast values depend on the areas of the whole grid; see DistributionModel

    def __init__(self, config: Section):
        super().__init__()
        self.config = config

    @property
    def tile_multiple(self) -> int:
        """Return the number of cells of which tile edges are multiples: block means in a tile then equal those of the grid."""
        return self.cell_multiple

    @abstractmethod
    def forward(self, past: Tensor, num_leads: int) -> Tensor:
        """Compute the outputs for all lead times.

            past: (case, time, 2, y, x) network values (0 where missing) and validity (1 known, 0 missing)
            returns: (case, lead, y, x) float32 network values, or parameters of a distribution (case, lead, parameter, y, x)

        In training, a model with `learns_from_future` also takes `future` (case, lead, 2, y, x) and `done`, the completed
        fraction of the training (0 to 1). It may then return outputs for past frames as well, before those for the lead times.
        """

    def leads(self, past: Tensor, num_leads: int) -> Iterable[Tensor]:
        """Return the outputs of `forward` in parts of one or more lead times, in order; by default all in one part.

            past: (case, time, 2, y, x) as given to `forward`
            returns: (case, lead, …) each

        Overridden by models whose outputs for all lead times would take much memory.
        """
        return [self(past, num_leads)]

    def values(self, outputs: Tensor, past: Tensor, *, first_lead: int = 1, matched: Tensor | None = None) -> Tensor:
        """Return the network values (case, lead, y, x) to forecast, by default the outputs.

        outputs: (case, lead, …) of `leads`, beginning at lead time number `first_lead` (1, 2, …)
        past: (case, time, 2, y, x) as given to `forward`
        matched: (case, lead, 2, value) of `match`, also on a larger grid of which this is a tile; None: that of this grid
        """
        return outputs

    def matched(self, outputs: Tensor, past: Tensor, first_lead: int = 1) -> Tensor | None:
        """Return the `match` (case, lead, 2, value) of a whole grid; None if areas are not matched. Arguments as `values`."""
        return None

    def loss_input(self, outputs: Tensor) -> "Tensor | Distribution":
        """Return the input of a loss: the outputs (case, lead, …), or the distribution that they describe."""
        return outputs

    def blank_inputs(self, cases: int, num_leads: int, grid: Sequence[int]) -> dict[str, Tensor]:
        """Return blank values of the other inputs of `forward` and `leads`, to measure time, memory or reach.

        grid: (y, x)
        """
        return {}

    def calibration(
        self, transform: Transform, thresholds: Sequence[float], *, start: Mapping[str, Tensor] = NO_START
    ) -> Calibration:
        """Return an object that adjusts the probabilities of reaching `thresholds` (mm/h) to validation cases.

        start: calibrated buffers of the checkpoint that the training started from; empty for new weights
        """
        return Calibration()

    @classmethod
    def completed(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a checkpoint with the buffers added that it lacks (`newer`)."""
        return {name: value.clone() for name, value in cls.newer.items()} | dict(weights)

    def normalises_over_batch(self) -> bool:
        """Return whether the model has batch normalisation, which needs the whole batch in one process."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())


class DistributionModel(Model):
    """A model whose outputs describe, for each cell and lead time, the distribution of the network value.

    The distribution is expressed by the log-odds z(v) = ln(p / (1 - p)) of the probability p that the network value reaches v.
    A model whose forecast values depend on areas of the whole grid sets `matches_areas` and implements `sample` and `match`.
    """

    gives_distributions = True

    @abstractmethod
    def log_odds(self, outputs: Tensor, value: float) -> Tensor:
        """Return the log-odds of reaching a network value.

        outputs: (case, lead, parameter, y, x)
        returns: (case, lead, y, x)
        """

    def coefficients(self, values: Sequence[float]) -> list[list[float]] | None:
        """Return the coefficients (value, parameter) if log-odds are linear in the outputs, else None.

        They allow a CPU to compute a loss of log-odds in one pass.
        """
        return None

    @abstractmethod
    def values(self, outputs: Tensor, past: Tensor, *, first_lead: int = 1, matched: Tensor | None = None) -> Tensor:
        """Return the single network value (case, lead, y, x) to forecast for each cell. Arguments as `Model.values`."""

    def exceedance(self, outputs: Tensor, values: Sequence[float], matched: Tensor | None = None) -> Tensor:
        """Return the probability of reaching each network value.

        outputs: (case, lead, parameter, y, x)
        matched: (case, lead, 2, value) of `match`; None where areas are not matched
        returns: (case, lead, value, y, x) from 0 to 1
        """
        return torch.stack([torch.sigmoid(self.log_odds(outputs, value)) for value in values], dim=2)

    def loss_input(self, outputs: Tensor) -> "Distribution":
        return Distribution(self, outputs)

    def reference_entropy(self, value: float) -> Tensor:
        """Return the mean cross entropy, in nats, of the guidance's probability of reaching a network value, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} takes no guidance")

    def sample_stride(self, grid: Sequence[int]) -> int:
        """Return the stride in cells, each way, that leaves about SAMPLE_CELLS cells of a grid of this (y, x) shape."""
        return max(math.isqrt(math.prod(grid) // SAMPLE_CELLS), 1)

    def sample(self, outputs: Tensor, past: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of `match` from every `stride`-th cell along y and x; samples of tiles are joined along the cells.

        outputs: (case, lead, parameter, y, x); past: (case, time, 2, y, x)
        returns: log-odds (case, lead, value, cell), newest network values (case, cell) and validity (case, cell)
        """
        raise NotImplementedError(f"{type(self).__name__} does not match areas")

    def match(self, odds: Tensor, newest: Tensor, validity: Tensor, first_lead: int = 1) -> Tensor:
        """Return a cut and a shift of the log-odds for each value from areas in the newest frame: (case, lead, 2, value).

        Cells above the cut are forecast to reach the value; the shift is added to the log-odds of its probability.
        The arguments are those of a `sample` that begins at lead time number `first_lead`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not match areas")

    def shifts(self, odds: Tensor, newest: Tensor, validity: Tensor) -> Tensor:
        """Return the shifts (case, lead, value) of `match`, by default 0. Arguments as `match`."""
        return odds.new_zeros(odds.shape[:3])

    def matched(self, outputs: Tensor, past: Tensor, first_lead: int = 1) -> Tensor | None:
        if not self.matches_areas:
            return None
        return self.match(*self.sample(outputs, past, self.sample_stride(past.shape[-2:])), first_lead)


@dataclass(frozen=True)
class Distribution:
    """The distribution described by a model's outputs, for a loss."""

    model: DistributionModel
    outputs: Tensor

    def log_odds(self, value: float) -> Tensor:
        """Return the log-odds (case, lead, y, x) of reaching a network value."""
        return self.model.log_odds(self.outputs, value)

    def coefficients(self, values: Sequence[float]) -> list[list[float]] | None:
        """Return (value, parameter) as `DistributionModel.coefficients`."""
        return self.model.coefficients(values)

    @property
    def known(self) -> Tensor:
        """Return a mask (case, lead, y, x) of the cells with a forecast."""
        return ~self.outputs.isnan().any(dim=2)

    def reference_entropy(self, value: float) -> Tensor:
        """Return the mean cross entropy, in nats, of the guidance for a network value, a scalar."""
        return self.model.reference_entropy(value)
