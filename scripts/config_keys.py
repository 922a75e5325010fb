#!/usr/bin/env python3
"""Write the tables of config keys into configs/README.md.

Keys, allowed values and defaults come from the code (nowcast/config/schema.py, MODELS, LOSSES, TRANSFORMS); what each key means
stands in MEANING below. tests/system/test_documentation.py fails where the page differs from what this script writes.

    python scripts/config_keys.py
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nowcast.config.schema import Data, Section, Splits, Training
from nowcast.models import MODELS
from nowcast.models.losses import LOSSES
from nowcast.models.transform import TRANSFORMS

PAGE = Path(__file__).resolve().parents[1] / "configs" / "README.md"
BEGIN, END = "<!-- written by scripts/config_keys.py -->\n", "<!-- end -->\n"

SPANS = "time spans [[start, end], …] in UTC, for `spans`"
PATTERNS = (
    "for `records`: files, folders or patterns of the records that validate and of those kept for a test; the others train, "
    "without windows that lie within a window's length of the other splits' frames on the same grid"
)
BETAS = (
    "decay rates of Adam's averages; the first is also the momentum of `sgd` (torch: 0), the second the alpha of `rmsprop` "
    "(torch: 0.99) and the rho of `adadelta` (torch: 0.9)"
)
LENGTH = "length of the training: optimizer updates, or passes over the training windows; one of them is 0"
DAYS = "for `days`: the day numbers of each split; days in no list are left out, as a gap"
VARIABLE = "name of the variable, and its units where files state none; `auto`: found by CF standard name and units"
Z_R = "a and b of Z = a R^b, for records in dBZ"
DECAY = "for `decay`: multiply the learning rate by the factor, every so many updates"
PLATEAU = "for `plateau`: multiply the rate by the factor after so many validations whose loss did not fall by more than delta"
PRECISION = "of the network's arithmetic; `auto`: bfloat16 if the hardware supports it; the run's config says which"
BATCH_SIZE = "windows per batch over all processes; `auto`: the most whose step fits into half of all memory, kept by the run"
# dotted key -> what it means; a key of a model, loss or transform that means the same in several of them stands here once
MEANING = {
    "data.records": "NetCDF files, folders or globs; `--data` replaces them",
    "data.variable": VARIABLE,
    "data.units": VARIABLE,
    "data.input_frames": "past frames that the network sees",
    "data.lead_frames": "future frames that it learns to forecast",
    "data.time_step": "minutes between frames; `auto`: each record's own",
    "data.stride": "take every n-th window",
    "data.coordinates": "`lagrangian`: frames are read along the motion of the rain (see above); `grid`: as they lie",
    "data.crop": "side of the square crops that train, in cells; 0: whole grid",
    "data.sampler": "draw windows and crops by future `rain`, by `past` rain, all alike, or take `each` once per epoch",
    "data.augmentation": "random mirror images and quarter turns of the training windows; whole grids are turned if square",
    "data.zr_a": Z_R,
    "data.zr_b": Z_R,
    "data.kept_cases": "for models that take guidance: training cases whose guidance is computed once and kept in the cache",
    "data.kept_crop": "cells: side of the kept cases; where it is larger than `crop`, a crop of each is drawn anew each time",
    "data.max_absent": "frames of a window that may be in no file, but not its newest past frame: they are missing as a whole; "
    "no window touches a longer gap",
    "data.max_missing": "drop windows with a frame in which a larger fraction is missing",
    "data.min_wet": "drop windows in which a smaller fraction of pixels is wet (0.1 mm/h or more)",
    "data.splits.by": "how windows are divided; no frame is in two splits",
    "data.splits.fractions": "training, validation and test fractions of the frames, for `fractions` and `events`",
    "data.splits.training": SPANS,
    "data.splits.validation": SPANS,
    "data.splits.test": SPANS,
    "data.splits.validation_records": PATTERNS,
    "data.splits.test_records": PATTERNS,
    "data.splits.every_days": "for `days`: the length of the cycle; a day's number is days since 1970-01-01 UTC modulo this",
    "data.splits.training_days": DAYS,
    "data.splits.validation_days": DAYS,
    "data.splits.test_days": DAYS,
    "training.steps": LENGTH,
    "training.epochs": LENGTH,
    "training.batch_size": BATCH_SIZE,
    "training.optimizer": "the optimizer, as torch has it",
    "training.learning_rate": "learning rate at the end of the warm-up",
    "training.weight_decay": "weight decay",
    "training.betas": BETAS,
    "training.schedule": "how the learning rate changes after the warm-up",
    "training.warmup_steps": "updates over which the learning rate rises from 0",
    "training.decay_factor": DECAY,
    "training.decay_every": DECAY,
    "training.plateau_factor": PLATEAU,
    "training.plateau_patience": PLATEAU,
    "training.plateau_delta": PLATEAU,
    "training.precision": PRECISION,
    "training.clip": "largest norm of the gradient; 0: no clipping",
    "training.seed": "of weights, windows, crops and augmentation",
    "training.validate_every": "updates between validations, from step 0 on, before any update; each one saves a checkpoint",
    "training.validation_cases": "windows of a validation, always the same ones, in whole batches (60 with `batch_size = 8`: "
    "64); below 8 members' noise is the default",
    "training.early_stopping": "stop after so many validations without improvement; 0: never",
    "training.ema": "decay of the average of the weights that forecasts, at update n (from 0) at most (1 + n) / (10 + n); "
    "0: the weights themselves",
    "training.accumulate": "batches per update, to save memory; as one larger batch, but for batch statistics",
    "training.checkpoint_steps": "keep ConvLSTM states every n time steps, recompute the others (1 saves most); 0: keep all",
    "training.compile": "use torch.compile; it pays on a GPU",
    "training.workers": "processes that read ahead; `auto`: 4 beside a GPU, none on a CPU; with motion to find 4 to 12, and 1",
    "training.start_from": "run folder, checkpoint or `pretrained` whose weights to start from",
    "training.loggers": "beside metrics.jsonl: `csv`, `tensorboard`, `mlflow`, `wandb` (see the run folder)",
    "hidden_channels": "channels of each recurrent layer",
    "kernel_sizes": "state-to-state convolution of each layer, cells",
    "input_kernel_sizes": "input-to-state convolutions; empty: as `kernel_sizes`",
    "patch": "cells per side that are folded into one cell of the network",
    "peepholes": "gates also see the cell state",
    "validity_channel": "show the network which pixels are missing",
    "output": "nonlinearity of the output",
    "trust": "share of the learnt correction that is used in forecasts",
    "rule": "where a rate is forecast: log-odds above a cut of validation, or the newest frame's area where it is likeliest",
    "down_channels": "channels of each downsampling convolution",
    "down_kernels": "kernels of the downsampling convolutions",
    "strides": "strides of the downsampling convolutions",
    "up_kernels": "kernels of the upsampling convolutions",
    "links": "flow vectors along which each layer reads its state; they replace `kernel_sizes`",
    "batch_norm": "batch normalisation between the layers",
    "last_norm": "batch normalisation after the last layer as well",
    "activation": "nonlinearity of the cell",
    "gate_activation": "nonlinearity of the gates",
    "initial": "initial weights as in Keras or torch",
    "forget_bias": "initial bias of the forget gate, for `initial = \"keras\"`",
    "head": "last layer: a convolution over time, over one frame, or the hidden state itself",
    "head_kernel": "kernel of the last layer",
    "supervise": "`all`: train on every next frame, true frames as input; `future`: on its own rollout",
    "scheduled_sampling": "share of the training over which own forecasts replace true frames as input; 0: never",
    "grid": "(y, x) of the only grid that the model takes; for guided `[0, 0]`: any, `auto`: that of the records",
    "channels": "channels of each convolution; each halves the grid",
    "hidden": "units of the LSTM",
    "offset": "mm/h; nearly linear below, logarithmic above",
    "log.ceiling": "mm/h that becomes 1; forecasts are cut to it",
    "dbz.ceiling": "dBZ that becomes 1; forecasts are cut to it",
    "linear.ceiling": "forecasts are cut to it",
    "floor": "dBZ that becomes 0",
    "zr_a": "a of Z = a R^b",
    "zr_b": "b of Z = a R^b",
    "scale": "value that becomes 1",
    "balanced.thresholds": "mm/h at which the weight changes",
    "balanced.weights": "weights below, between and above them",
    "exceedance.thresholds": "mm/h whose probabilities are trained",
    "relative_exceedance.thresholds": "mm/h whose probabilities are trained: some of these",
    "exceedance.weights": "one for each threshold",
    "mse": "weight of the squared error",
    "mae": "weight of the absolute error",
    "space": "errors in network values or in mm/h",
    "reduction": "mean over pixels, or sum over pixels and frames",
}  # fmt: skip
SCHEMA_NAMES = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
ABOUT = {
    "log": "ln(1 + r / offset), scaled to 0 to 1",
    "dbz": "reflectivity, scaled to 0 to 1",
    "linear": "r / scale",
    "mse": "mean squared error of network values",
    "mae": "mean absolute error of network values",
    "balanced": "B-MSE + B-MAE: errors weighted by observed rain (Shi et al. 2017)",
    "bce": "binary cross entropy, for outputs in (0, 1)",
    "exceedance": "cross entropy of exceedance probabilities, for models of distributions",
    "relative_exceedance": "the same, at each threshold divided by that of the guidance: below 1 is better than the guidance",
}


def plain_table(section: str, kind: type[Section]) -> Iterator[str]:
    """Yield the rows of a section whose keys are fixed: keys of one meaning, their defaults, allowed values, meaning."""
    schemas = kind.model_json_schema()["properties"]
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for key, field in kind.model_fields.items():
        if key != "splits":
            allowed = _allowed(schemas[key])
            if "anyOf" in schemas[key]:  # then the bounds are in the field, not in its JSON schema
                allowed = f"{allowed} {_limits(_bounds(field.metadata))}".strip()
            name = f"`splits.{key}`" if section == "data.splits" else f"`{key}`"
            default = f"`{_text(field.get_default(call_default_factory=True))}`"
            rows.setdefault(MEANING[f"{section}.{key}"], []).append((name, default, allowed))
    for meaning, keys in rows.items():
        names, defaults, allowed = ([*dict.fromkeys(column)] for column in zip(*keys, strict=True))
        yield f"| {', '.join(names)} | {', '.join(defaults)} | {'; '.join(allowed)} | {meaning} |"


def named_table(registry: Mapping[str, type[Section]]) -> Iterator[str]:
    """Yield one row for each transform or loss: name, what it is, its keys with defaults and meanings."""
    for name, kind in registry.items():
        keys = [
            f"`{key} = {_text(default)}` ({MEANING.get(f'{name}.{key}') or MEANING[key]})" for key, default in _own_keys(kind)
        ]
        yield f"| `{name}` | {ABOUT[name]} | {'; '.join(keys) or '–'} |"


def models_table() -> Iterator[str]:
    """Yield one row for each key whose default differs between models, then one row for each group of models."""
    defaults: dict[str, dict[str, str]] = {}  # key -> model -> default
    for name, (kind, *_) in MODELS.items():
        for key, default in _own_keys(kind):
            defaults.setdefault(key, {})[name] = _text(default)
    alike: dict[tuple[str, ...], list[str]] = {}  # models -> the keys that only they have, with one default
    for key, by_model in defaults.items():
        values = dict.fromkeys(by_model.values())
        if len(values) == 1:
            alike.setdefault(tuple(by_model), []).append(f"`{key} = {next(iter(values))}` ({MEANING[key]})")
        else:
            groups = [(value, [name for name in by_model if by_model[name] == value]) for value in values]
            text = "; ".join(f"`{value}`: {', '.join(names)}" for value, names in groups)
            yield f"| `{key}` | {MEANING[key]} | {text} |"
    for names, keys in alike.items():
        yield f"| only {', '.join(names)} | {'; '.join(keys)} | |"


def _own_keys(kind: type[Section]) -> list[tuple[str, Any]]:
    """Return the keys of a model, loss or transform with their defaults, all but `name`."""
    return [(key, field.get_default(call_default_factory=True)) for key, field in kind.model_fields.items() if key != "name"]


def _bounds(constraints: Iterable[Any]) -> dict[str, float]:
    """Return the bounds of a pydantic field under the names that a JSON schema has for them."""
    values = [
        (name, getattr(constraint, attribute, None)) for constraint in constraints for attribute, name in SCHEMA_NAMES.items()
    ]
    return {name: value for name, value in values if value is not None}


def _limits(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {schema[name]:.10g}" for name, sign in signs.items() if name in schema)


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return the allowed values of a key, from its JSON schema."""
    if "anyOf" in schema:
        branches = dict.fromkeys(_allowed(branch) for branch in schema["anyOf"])
        return " or ".join(branch for branch in branches if branch != "integer" or "number" not in branches)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        items = schema.get("items") or {}
        return f"list of {_allowed(items)}" if "enum" in items else "list"
    return " ".join(
        filter(None, [{"string": "text", "boolean": "true, false"}.get(schema["type"], schema["type"]), _limits(schema)])
    )


def _text(default: Any) -> str:
    """Return a default as TOML would have it."""
    return (
        json.dumps(default)
        if isinstance(default, str | bool)
        else str(list(default) if isinstance(default, tuple) else default)
    )


def generated() -> str:
    """Return the Markdown text between the markers of configs/README.md."""
    with_values = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    with_keys = ["| name | what it is | keys |", "| --- | --- | --- |"]
    with_defaults = ["| key | meaning | default by model |", "| --- | --- | --- |"]
    models = ", ".join(f"`{name}`" for name in MODELS)
    blocks = [
        ["### `[data]` and `[data.splits]`", "", *with_values, *plain_table("data", Data), *plain_table("data.splits", Splits)],
        ["### `[training]`", "", *with_values, *plain_table("training", Training)],
        ["### `[transform]` and `[loss]`", "", *with_keys, *named_table(TRANSFORMS), *named_table(LOSSES)],
        ["### `[model]`", "", f"`name` is one of {models}.", "", *with_defaults, *models_table()],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def renewed(page: str) -> str:
    """Return the page with the text between its markers replaced by what is generated now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + "\n" + generated() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
