"""TRANSFORMS: rain rate to network values and back, and the validity mask.

Physical fields are in mm/h, NaN missing. Network values are dimensionless, about 0 to 1, and 0 (dry) where missing; the
validity (1 known, 0 missing) is kept beside them, so that missing and dry differ. A quantity other than rain rate (units "1")
uses the same functions, with its own unit instead of mm/h.
"""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nowcast.config.schema import NamedSection, Number, Section, check, lookup


class Transform(Section):
    """A map from rain rate to network values and its inverse; its fields are the keys of `[transform]`."""

    def encode(self, rain: Tensor) -> Tensor:
        """Convert rain of any shape, mm/h, at least 0, to network values."""
        raise NotImplementedError

    def decode(self, values: Tensor) -> Tensor:
        """Convert network values of any shape to mm/h; decode(encode(r)) = r for 0 <= r <= the transform's highest rate."""
        raise NotImplementedError


class Log(Transform):
    """values = ln(1 + r / offset) / ln(1 + ceiling / offset): linear below `offset`, logarithmic above it."""

    name: Literal["log"] = "log"
    offset: Number = Field(0.1, gt=0)  # mm/h; the default is the usual dry threshold
    ceiling: Number = Field(100.0, gt=0)  # mm/h that becomes 1; higher forecasts are limited to it

    @property
    def _scale(self) -> float:
        return math.log1p(self.ceiling / self.offset)

    def encode(self, rain: Tensor) -> Tensor:
        return torch.log1p(rain / self.offset) / self._scale

    def decode(self, values: Tensor) -> Tensor:
        return self.offset * torch.expm1(values.clamp(0, 1) * self._scale)


class Dbz(Transform):
    """values = (dBZ - floor) / (ceiling - floor), with reflectivity dBZ = 10 log10(a r^b) and rain rate r in mm/h.

    Rates whose reflectivity is below `floor` become 0, dry.
    """

    name: Literal["dbz"] = "dbz"
    floor: Number = 0.0  # dBZ
    ceiling: Number = 55.0  # dBZ
    zr_a: Number = Field(200.0, gt=0)  # Marshall & Palmer (1948)
    zr_b: Number = Field(1.6, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Dbz":
        if self.floor >= self.ceiling:
            raise ValueError(f"floor {self.floor} dBZ must be below ceiling {self.ceiling} dBZ")
        return self

    def encode(self, rain: Tensor) -> Tensor:
        dbz = 10 * torch.log10(self.zr_a * rain.clamp(min=1e-6) ** self.zr_b)
        return ((dbz - self.floor) / (self.ceiling - self.floor)).clamp(min=0)

    def decode(self, values: Tensor) -> Tensor:
        values = values.clamp(0, 1)
        reflectivity = 10 ** ((values * (self.ceiling - self.floor) + self.floor) / 10)
        return torch.where(values > 0, (reflectivity / self.zr_a) ** (1 / self.zr_b), 0.0)


class Linear(Transform):
    """values = r / scale; scale = 1 for quantities from 0 to 1. Forecasts are limited to 0 … `ceiling` (mm/h)."""

    name: Literal["linear"] = "linear"
    scale: Number = Field(1.0, gt=0)
    ceiling: Number = Field(1e4, gt=0)

    def encode(self, rain: Tensor) -> Tensor:
        return rain / self.scale

    def decode(self, values: Tensor) -> Tensor:
        return (values * self.scale).clamp(0, self.ceiling)


TRANSFORMS: dict[str, type[Transform]] = {"log": Log, "dbz": Dbz, "linear": Linear}


def make_transform(section: NamedSection) -> Transform:
    """Return the transform that the config's `[transform]` describes; UsageError (exit 2) for an unknown name or key."""
    kind = lookup(TRANSFORMS, section.name, where="transform.name")
    return check(kind, section.model_dump(), where="transform")


def split_missing(rain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rain with 0 where missing, and its validity (1.0 known, 0.0 missing), both of the same shape."""
    filled = torch.nan_to_num(rain, nan=0.0, posinf=0.0, neginf=0.0)
    return filled, torch.eq(filled, rain, out=torch.empty_like(filled))  # isfinite and where take four times as long on a CPU


def network_input(rain: Tensor, transform: Transform) -> Tensor:
    """Make a model's input.

    rain: (case, time, y, x) mm/h, NaN missing
    returns: (case, time, 2, y, x) network values and validity
    """
    filled, validity = split_missing(rain)
    return torch.stack([transform.encode(filled) * validity, validity], dim=2)
