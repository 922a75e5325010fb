"""Sums of several kinds, which add over cases, blocks, shards and processes.

A kind of sums is a frozen dataclass derived from `Additive`: facts, which must be equal where sums are added, and arrays
described by `summed`, whose axes have names. A `Tally` is one forecaster's sums of every kind. Arrays may have further axes
in front, which the bootstrap uses, so scores and sums count axes from the end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np


def summed(*axes: str, dtype: type = np.float64) -> dict:
    """The metadata of a field of an `Additive`: an array with these axes, "lead" first where it has one."""
    return {"axes": axes, "dtype": dtype}


@dataclass(frozen=True, eq=False)
class Additive:
    """Base of a kind of sums. `a + b` is the sums of both sets of cases.

    Every kind has `num_cases`, the cases with at least one pair at that lead, and `num_pairs`. A kind whose pairs can be
    absent from a case that others have also counts `num_whole_cases`, those with a pair at any lead.
    """

    axis_facts: ClassVar[Mapping[str, str]] = {}  # axis -> the fact that holds its values

    @classmethod
    @cache  # asked for with every sum that is added
    def axes(cls) -> Mapping[str, tuple[str, ...]]:
        """The axes of every array by name."""
        return MappingProxyType({part.name: part.metadata["axes"] for part in fields(cls) if "axes" in part.metadata})

    @classmethod
    def empty(cls, num_leads: int, **facts) -> Self:
        """The sums of no case at all."""
        sizes = {"lead": num_leads} | {axis: len(facts[fact]) for axis, fact in cls.axis_facts.items()}
        parts = [part for part in fields(cls) if "axes" in part.metadata]
        shapes = {part.name: tuple(sizes[axis] for axis in part.metadata["axes"]) for part in parts}
        return cls(**facts, **{part.name: np.zeros(shapes[part.name], part.metadata["dtype"]) for part in parts})

    @property
    def facts(self) -> dict:
        """What is no array: thresholds, scales and the like."""
        return {part.name: getattr(self, part.name) for part in fields(self) if "axes" not in part.metadata}

    @property
    def coordinates(self) -> dict[str, tuple]:
        """The values along each axis but "lead"."""
        return {axis: getattr(self, fact) for axis, fact in self.axis_facts.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name, for files and for reduction over processes; `like` restores."""
        return {name: getattr(self, name) for name in self.axes()}

    def like(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """The same kind with the same facts, of other arrays."""
        return type(self)(**self.facts, **arrays)

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        require_alike(self, other)
        theirs = other.arrays()
        return self.like({name: array + theirs[name] for name, array in self.arrays().items()})

    def __radd__(self, other: int) -> Self:
        return self if other == 0 else NotImplemented  # so that sum([...]) works

    def pooled(self) -> Self:
        """The sums over all leads as one lead: scores of it are pooled over leads, not means over leads."""
        arrays = {name: _over_leads(array, self.axes()[name]) for name, array in self.arrays().items()}
        if "num_whole_cases" in arrays:
            axis = self.axes()["num_cases"].index("lead") - len(self.axes()["num_cases"])
            arrays["num_cases"] = np.expand_dims(arrays["num_whole_cases"], axis)
        return self.like(arrays)


def _over_leads(array: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    return array.sum(axis=axes.index("lead") - len(axes), keepdims=True) if "lead" in axes else array


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator in float64, NaN where the denominator is 0."""
    numerator, denominator = np.float64(numerator), np.float64(denominator)
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)


def require_alike(a: Additive, b: Additive) -> None:
    """ValueError where two sums of one kind are not of the same leads and facts."""
    if a.facts != b.facts or a.num_pairs.shape != b.num_pairs.shape:
        raise ValueError(
            f"sums of {a.num_pairs.shape} leads with {a.facts} do not add to sums of {b.num_pairs.shape} leads with {b.facts}"
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """One forecaster's sums of every kind by name, `tally["pairs"]`, of the same cases."""

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
        return Tally({kind: mine + other[kind] for kind, mine in self.kinds.items()})

    def __radd__(self, other: int) -> "Tally":
        return self if other == 0 else NotImplemented

    def pooled(self) -> "Tally":
        """Every kind pooled over leads."""
        return Tally({kind: mine.pooled() for kind, mine in self.kinds.items()})
