"""The counts and sums that scores are computed from, which add over cases, blocks and processes; and the class of a score.

A kind of sums is a frozen dataclass derived from `Additive`. Its fields are parameters (thresholds, scales), which must be
equal where sums are added, and arrays with named axes, declared with `summed`. A `Tally` holds one forecaster's sums of every
kind. The bootstrap puts a further axis in front of all arrays, so scores and sums count axes from the end.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np


def summed(*axes: str, dtype: type = np.float64) -> dict:
    """Return the metadata that declares a field of an `Additive` as an array with these axes ("lead" comes first)."""
    return {"axes": axes, "dtype": dtype}


@dataclass(frozen=True, eq=False)
class Additive:
    """Base class of a kind of sums. `a + b` holds the sums over the cases of both.

    Every kind has `num_pairs` (of forecast and observed values) and `num_cases`, the number of cases with at least one pair at
    that lead time. A kind that can lack pairs in a case where others have some also has `num_whole_cases`, the number of
    cases with a pair at any lead time.
    """

    axis_parameters: ClassVar[Mapping[str, str]] = {}  # axis -> the parameter that holds the values along it

    @classmethod
    @cache  # called in every addition
    def axes(cls) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the axes of every array, by array name."""
        return MappingProxyType({f.name: f.metadata["axes"] for f in fields(cls) if "axes" in f.metadata})

    @classmethod
    def empty(cls, num_leads: int, **parameters) -> Self:
        """Return sums over no cases: all arrays zero."""
        sizes = {"lead": num_leads} | {axis: len(parameters[name]) for axis, name in cls.axis_parameters.items()}
        arrays = [f for f in fields(cls) if "axes" in f.metadata]
        shapes = {f.name: tuple(sizes[axis] for axis in f.metadata["axes"]) for f in arrays}
        return cls(**parameters, **{f.name: np.zeros(shapes[f.name], f.metadata["dtype"]) for f in arrays})

    @property
    def parameters(self) -> dict:
        """Return the fields that are not arrays: thresholds, scales and the like."""
        return {f.name: getattr(self, f.name) for f in fields(self) if "axes" not in f.metadata}

    @property
    def coordinates(self) -> dict[str, tuple]:
        """Return the values along each axis; of "lead" only where it has fewer values than there are lead times."""
        return {axis: getattr(self, name) for axis, name in self.axis_parameters.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every array by name, to write it to a file or add it over processes. `like` is the inverse."""
        return {name: getattr(self, name) for name in self.axes()}

    def like(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return sums of the same kind and parameters with other arrays."""
        return type(self)(**self.parameters, **arrays)

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        require_alike(self, other)
        addends = other.arrays()
        return self.like({name: array + addends[name] for name, array in self.arrays().items()})

    def __radd__(self, other: int) -> Self:
        return self if other == 0 else NotImplemented  # so that sum([...]) works

    def pooled(self) -> Self:
        """Return the sums over all lead times, as one lead: its scores are pooled over leads, not averaged over leads."""
        arrays = {name: _over_leads(array, self.axes()[name]) for name, array in self.arrays().items()}
        if "num_whole_cases" in arrays:
            axis = self.axes()["num_cases"].index("lead") - len(self.axes()["num_cases"])
            arrays["num_cases"] = np.expand_dims(arrays["num_whole_cases"], axis)
        return self.like(arrays)


def _over_leads(array: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    return array.sum(axis=axes.index("lead") - len(axes), keepdims=True) if "lead" in axes else array


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, two arrays of the same shape, in float64; NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)


def require_alike(a: Additive, b: Additive) -> None:
    """Raise ValueError where two sums of one kind differ in their parameters or lead times."""
    if a.parameters != b.parameters or a.num_pairs.shape != b.num_pairs.shape:
        raise ValueError(
            f"sums of {a.num_pairs.shape} leads with {a.parameters} do not add to sums of {b.num_pairs.shape} leads with "
            f"{b.parameters}"
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """One forecaster's sums over the same cases, by kind: `tally["pairs"]`."""

    kinds: Mapping[str, Additive]

    def __getitem__(self, kind: str) -> Additive:
        return self.kinds[kind]

    def __contains__(self, kind: str) -> bool:
        return kind in self.kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __add__(self, other: "Tally") -> "Tally":
        if not isinstance(other, Tally):
            return NotImplemented
        if set(self.kinds) != set(other.kinds):
            raise ValueError(f"sums of {sorted(self.kinds)} do not add to sums of {sorted(other.kinds)}")
        return Tally({kind: sums + other[kind] for kind, sums in self.kinds.items()})

    def __radd__(self, other: int) -> "Tally":
        return self if other == 0 else NotImplemented

    def pooled(self) -> "Tally":
        """Return the sums of every kind pooled over lead times."""
        return Tally({kind: sums.pooled() for kind, sums in self.kinds.items()})


@dataclass(frozen=True)
class Score:
    """One score, called with the sums of its kind or with a Tally; returns an array with the score's axes, "lead" first."""

    function: Callable[[Additive], np.ndarray]
    long_name: str
    range: tuple[float, float]
    best: float | None  # None where no value is best by itself
    axes: tuple[str, ...] = ("lead",)
    units: str = "1"  # as CF writes them
    kind: str = "pairs"  # the kind of sums it is computed from: a key of KINDS
    compared: bool = True  # False where differences between forecasters have no meaning

    def __call__(self, s: Additive | Tally) -> np.ndarray:
        return self.function(s[self.kind] if isinstance(s, Tally) else s)

    def pooled(self, s: Additive | Tally) -> np.ndarray:
        """Compute the score (1,) or (1, threshold, …) of the sums over all lead times."""
        return self((s[self.kind] if isinstance(s, Tally) else s).pooled())

    def mean_over_leads(self, s: Additive | Tally) -> np.ndarray:
        """Compute the mean of the scores of all lead times; NaN if the score of any lead time is NaN.

        returns: () or (threshold, …)

        Not the same as the pooled score.
        """
        return self(s).mean(axis=-len(self.axes))

    @property
    def needs_threshold(self) -> bool:
        """Whether the score depends on a threshold."""
        return "threshold" in self.axes
