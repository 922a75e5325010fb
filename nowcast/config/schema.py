"""The sections and keys of a config, and how their values are checked.

A config is strict and frozen. The keys of `[data]` and `[training]` are defined here. Those of `[transform]`, `[model]` and
`[loss]` depend on the `name` in the section, and are defined beside the transform, model or loss of that name, which checks
them by `check`. Every key has a value that TOML can write ("auto" or 0 where nothing is set).
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nowcast.errors import UsageError

PRETRAINED = "pretrained"  # name of the network that is included in the package


class Section(BaseModel):
    """Section of a config, frozen and strict: an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class NamedSection(BaseModel):
    """Section whose further keys are those of the transform, model or loss called `name`; they are checked by it later."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    name: str


def as_tuple(value: Any) -> Any:
    """Turn lists into tuples, at all depths; leave anything else for pydantic to refuse."""
    return tuple(as_tuple(item) for item in value) if isinstance(value, list) else value


def _as_datetime(value: Any) -> Any:
    """Turn a date or time into a time in UTC without a time zone; leave anything else for pydantic to refuse."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


Item = TypeVar("Item")
# TOML has only arrays, which are read as lists; a frozen section holds tuples.
Many = Annotated[tuple[Item, ...], BeforeValidator(as_tuple)]
Number = float | int
Decay = Annotated[Number, Field(ge=0, lt=1)]
Time = Annotated[datetime, BeforeValidator(_as_datetime)]
Span = Annotated[tuple[Time, Time], BeforeValidator(as_tuple)]


class Splits(Section):
    """`[data.splits]`: how the windows are divided into training, validation and test. No frame is in two splits."""

    by: Literal["fractions", "events", "spans", "records", "days"] = "fractions"
    fractions: Annotated[tuple[Number, Number, Number], BeforeValidator(as_tuple)] = (0.75, 0.25, 0.0)
    training: Many[Span] = ()
    validation: Many[Span] = ()
    test: Many[Span] = ()
    validation_records: Many[str] = ()
    test_records: Many[str] = ()
    every_days: int = Field(10, ge=2, le=1000)
    training_days: Many[int] = (0, 1, 2, 3, 4)
    validation_days: Many[int] = (6,)
    test_days: Many[int] = (7,)

    @property
    def days(self) -> dict[str, tuple[int, ...]]:
        """The day numbers of each split, for by = "days"."""
        return {"training": self.training_days, "validation": self.validation_days, "test": self.test_days}

    @model_validator(mode="after")
    def _complete(self) -> "Splits":
        if self.by in ("fractions", "events") and (min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6):
            raise ValueError(f"fractions {list(self.fractions)} must be three numbers of at least 0 with sum 1")
        if self.by == "spans" and not self.training:
            raise ValueError('by = "spans" needs training = [[start, end], ...]')
        if self.by == "days":
            self._check_days()
        return self

    def _check_days(self) -> None:
        numbers = [day for days in self.days.values() for day in days]
        if outside := [day for day in numbers if not 0 <= day < self.every_days]:
            last = self.every_days - 1
            raise ValueError(f"there is no day {outside[0]}: every_days = {self.every_days} numbers them 0 to {last}")
        if twice := sorted({day for day in numbers if numbers.count(day) > 1}):
            raise ValueError(f"day {twice[0]} is listed twice: a day belongs to one split")
        if not self.training_days:
            raise ValueError('by = "days" needs training_days')


class Data(Section):
    """`[data]`: the records that are read, and how windows and crops are drawn from them."""

    records: Many[str] = ()
    variable: str = "auto"
    units: str = "auto"
    input_frames: int = Field(4, ge=1, le=1000)
    lead_frames: int = Field(12, ge=1, le=1000)
    time_step: Literal["auto"] | Annotated[Number, Field(gt=0)] = "auto"
    stride: int = Field(1, ge=1)
    coordinates: Literal["grid", "lagrangian"] = "grid"
    splits: Splits = Splits()
    crop: int = Field(0, ge=0, le=1 << 14)
    sampler: Literal["rain", "past", "uniform", "each"] = "rain"
    augmentation: Many[Literal["flips", "rotations"]] = ()
    zr_a: Number = Field(200.0, gt=0)
    zr_b: Number = Field(1.6, gt=0)
    kept_cases: int = Field(4000, ge=1, le=10_000_000)
    kept_crop: int = Field(0, ge=0, le=100_000)
    max_missing: Number = Field(1.0, ge=0, le=1)
    max_absent: int = Field(1, ge=0)
    min_wet: Number = Field(0.0, ge=0, le=1)


class Training(Section):
    """`[training]`: how the weights are optimized. A step is one update; one of `steps` and `epochs` must be 0."""

    steps: int = Field(0, ge=0)
    epochs: int = Field(0, ge=0)
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1 << 16)] = 8
    optimizer: Literal["adamw", "adam", "rmsprop", "adadelta", "sgd"] = "adamw"
    learning_rate: Number = Field(1e-3, gt=0)
    weight_decay: Number = Field(0.0, ge=0)
    betas: Annotated[tuple[Decay, Decay], BeforeValidator(as_tuple)] = (0.9, 0.999)
    schedule: Literal["constant", "cosine", "onecycle", "decay", "plateau"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    decay_factor: Number = Field(0.7, gt=0, lt=1)
    decay_every: int = Field(20_000, ge=1)
    plateau_factor: Number = Field(0.1, gt=0, lt=1)
    plateau_patience: int = Field(5, ge=1)
    plateau_delta: Number = Field(0.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    clip: Number = Field(0.0, ge=0)
    seed: int = Field(0, ge=0, lt=1 << 32)
    validate_every: int = Field(500, ge=1)
    validation_cases: int = Field(64, ge=1)
    early_stopping: int = Field(0, ge=0)
    ema: Number = Field(0.0, ge=0, lt=1)
    accumulate: int = Field(1, ge=1)
    checkpoint_steps: int = Field(0, ge=0)
    compile: bool = False
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"
    start_from: str = ""  # a checkpoint, a run folder or PRETRAINED
    loggers: Many[Literal["csv", "tensorboard", "mlflow", "wandb"]] = ("csv",)

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if bool(self.steps) == bool(self.epochs):
            raise ValueError("give either steps or epochs (the other one 0)")
        return self


class Experiment(Section):
    """The complete config of one run."""

    data: Data = Data()
    transform: NamedSection
    model: NamedSection
    loss: NamedSection
    training: Training


NO_OTHERS: Mapping[str, str] = MappingProxyType({})
AnySection = TypeVar("AnySection", bound=BaseModel)


def check(kind: type[AnySection], values: Mapping[str, Any], *, where: str = "", source: str = "config") -> AnySection:
    """Return `values` as a section of class `kind`.

    Raises UsageError (exit 2) for a wrong value or key, with the dotted path (after `where`) and, for a key that is misspelt,
    the one most like it.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error.errors(), kind, where)}") from None


def _explain(problems: Sequence[Mapping[str, Any]], kind: type[BaseModel], where: str) -> str:
    """Describe the first of the problems that pydantic found."""
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    path = _path(problem)
    dotted = ".".join(filter(None, [where, *map(str, path)]))
    if problem["type"] == "extra_forbidden":
        known = _keys_at(kind, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        if isinstance(problem["input"], Mapping):
            listed = ", ".join(f"[{dotted.removesuffix(str(path[-1]))}{name}]" for name in near or known)
            return f"unknown section [{dotted}]" + (f"; did you mean {listed}?" if near else f"; known sections: {listed}")
        return f"unknown key {dotted}" + (f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}")
    if problem["type"] == "missing" and isinstance(path[-1], int):
        return f"{dotted} is missing: the list is too short"
    if problem["type"] == "missing":
        return f"{dotted} is missing; configs are complete: copy it from a config with all keys, such as configs/radar.toml"
    if problem["type"] == "model_type":
        return f"{dotted} is no section; write [{dotted}] once, in single brackets, and its keys below it"
    if problem["type"] == "value_error":
        return f"{dotted}: {problem['msg'].removeprefix('Value error, ')}"
    # pydantic reports one problem for each type that a key may have; together they name all values that are allowed.
    messages = [_demand(each) for each in problems if _path(each) == path]
    allowed, value = dict.fromkeys(messages), problem["input"]
    shown = value if isinstance(value, date | time) else repr(value)  # as TOML has it, not datetime.date(2020, 1, 1)
    return f"{dotted} = {shown}: it {', or '.join(allowed)}"


def _demand(problem: Mapping[str, Any]) -> str:
    """Return what a value should be, in the words of TOML."""
    if problem["type"] == "datetime_type":
        return "should be a date, with or without a time, and without quotes: 2020-06-01 or 2020-06-01T12:00:00Z"
    if problem["type"] == "tuple_type":
        return "should be a list in square brackets"
    return re.sub("^(Input|Tuple) | after validation", "", problem["msg"])


def _path(problem: Mapping[str, Any]) -> list[str | int]:
    """Return the keys and list positions that lead to the problem."""
    # For a key that may have several types, pydantic adds the name of a type to the path. No key of ours has such a name.
    type_name = re.compile(r"int|float|str|constrained-.*|.*\[.*")
    return [key for key in problem["loc"] if not (isinstance(key, str) and type_name.fullmatch(key))]


def _keys_at(kind: Any, path: Sequence[Any]) -> list[str]:
    """Return the keys that are known in the section at `path`."""
    for key in path:
        if isinstance(key, str):
            kind = kind.model_fields[key].annotation
    return sorted(kind.model_fields)


def lookup(
    registry: Mapping[str, Any], name: str, *, where: str, source: str = "config", others: Mapping[str, str] = NO_OTHERS
) -> Any:
    """Return the entry `name` of a registry such as MODELS. Raises UsageError (exit 2) for an unknown name.

    others: names of entries in other programs -> their names here, for the message
    """
    if name in registry:
        return registry[name]
    near = nearest_name(name, registry, others)
    hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(registry))}"
    raise UsageError(f"{source}: {where} = {name!r} is not known; {hint}")


def nearest_name(name: str, known: Iterable[str], others: Mapping[str, str] = NO_OTHERS) -> str | None:
    """Return the known name that a misspelt one is most like; None if none is.

    others: names in other programs -> the known name
    """
    near = difflib.get_close_matches(name.lower(), [*known, *others], n=1)
    return others.get(near[0], near[0]) if near else None
