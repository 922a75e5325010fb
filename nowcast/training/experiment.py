"""Fill in the defaults of an experiment, and check that its parts fit together: loss, processes, grids, frames."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nowcast.config.schema import Data, Experiment, NamedSection, Section, Training
from nowcast.config.toml import as_dict, flat
from nowcast.dataset.archive import Archive
from nowcast.dataset.draws import Series
from nowcast.dataset.packed import WET_RATE
from nowcast.errors import DataError, UsageError
from nowcast.models import MODELS, model_config
from nowcast.models.guided.guidance import RATES, TRANSFORM
from nowcast.models.losses import Loss, make_loss
from nowcast.models.model import Model
from nowcast.models.transform import Transform, make_transform
from nowcast.quantity import Quantity
from nowcast.runtime import distributed
from nowcast.training.optimizer import count_steps

PADDING = 31  # cells by which a crop may exceed all grids, because crops of recipes are multiples of 32

# keys of [data.splits] -> values of `by` that read them
SPLIT_KEYS = {
    ("fractions",): ("fractions", "events"),
    ("training", "validation", "test"): ("spans",),
    ("validation_records", "test_records"): ("records",),
    ("every_days", "training_days", "validation_days", "test_days"): ("days",),
}


def resolve(experiment: Experiment) -> Experiment:
    """Fill in the defaults of `[transform]`, `[model]` and `[loss]`. Raises UsageError (exit 2) for unknown keys."""
    sections = {
        "transform": make_transform(experiment.transform),
        "model": model_config(experiment.model),
        "loss": make_loss(experiment.loss),
    }
    check_loss(sections["model"], sections["loss"])
    check_guidance(experiment.data, sections["model"], sections["transform"])
    dumped = {name: NamedSection(**section.model_dump(mode="json")) for name, section in sections.items()}
    return experiment.model_copy(update=dumped)


def check_loss(model: Section, loss: Loss) -> None:
    """Raise UsageError (exit 2) if the loss needs distributions, or values from 0 to 1, which the model does not give.

    Also if it is divided by the entropy of guidance at thresholds other than the rates of the guidance.
    """
    if loss.takes_guidance and not MODELS[model.name][1].takes_guidance:
        raise UsageError(f"config: loss.name = {loss.name!r} compares with guidance but model.name = {model.name!r} takes none")
    if loss.takes_guidance and (others := [rate for rate in loss.thresholds if rate not in RATES]):
        raise UsageError(
            f"config: loss.thresholds = {list(loss.thresholds)}: the guidance has no probabilities of {others[0]:g} mm/h\n"
            f"give some of {', '.join(f'{rate:g}' for rate in RATES)} mm/h for loss.name = {loss.name!r}"
        )
    gives = "distributions" if MODELS[model.name][1].gives_distributions else "values"
    takes = "distributions" if loss.takes_distributions else "values"
    if gives != takes:
        raise UsageError(f"config: loss.name = {loss.name!r} takes {takes} but model.name = {model.name!r} gives {gives}")
    output = getattr(model, "output", None)  # None: a model that has no such key may limit its values itself
    if loss.takes_shares and output not in (None, "sigmoid"):
        raise UsageError(
            f"config: loss.name = {loss.name!r} takes values from 0 to 1: model.output = 'sigmoid', not {output!r}"
        )


def check_guidance(data: Data, model: Section, transform: Transform) -> None:
    """Raise UsageError (exit 2) if a model takes guidance and the config has other network values or coordinates than it."""
    if not MODELS[model.name][1].takes_guidance:
        return
    if data.coordinates != "grid":
        raise UsageError(
            f"config: model.name = {model.name!r} takes guidance on the cells of the grid: data.coordinates = 'grid'"
        )
    if transform != TRANSFORM:
        needed = ", ".join(f"{key} = {value!r}" for key, value in TRANSFORM.model_dump().items())
        raise UsageError(f"config: model.name = {model.name!r} takes guidance that is made with [transform] {needed}")


def check_quantity(archive: Archive, model: Section) -> None:
    """Raise DataError (exit 3) where a model that takes guidance, which is made for rain, would get another quantity."""
    quantity = archive.quantity
    if MODELS[model.name][1].takes_guidance and not quantity.is_rain:
        raise DataError(
            f"model.name = {model.name!r} takes guidance, which is made for the rain rate, but {archive.records[0].name} holds "
            f"{quantity}.\nUse records of the rain rate, or another model."
        )


def check_shares(model: Model, batch_size: int) -> None:
    """Raise UsageError (exit 2) if several processes would train another network than a single process."""
    processes = distributed.size()
    if batch_size < processes:
        raise UsageError(f"training.batch_size = {batch_size} cannot be shared by {processes} processes: give at least as many")
    if processes > 1 and model.draws_random_numbers:
        raise UsageError(
            f"scheduled sampling over {processes} processes would draw other numbers than one does: "
            "train in one, or with model.scheduled_sampling = 0"
        )
    if processes > 1 and model.normalises_over_batch():
        raise UsageError(
            f"batch normalisation over {processes} processes would see a part of each batch alone: "
            "train in one, or with model.batch_norm = false"
        )


def with_grid(experiment: Experiment, archive: Archive) -> Experiment:
    """Replace model.grid = "auto" by the grid of the records, or by [0, 0] (any grid) if they have several."""
    model = experiment.model.model_dump()
    if model.get("grid") != "auto":
        return experiment
    shapes = {record.grid.shape for record in archive.records}
    grid = list(shapes.pop()) if len(shapes) == 1 else [0, 0]
    return experiment.model_copy(update={"model": NamedSection(**model | {"grid": grid})})


def without_effect(experiment: Experiment, archive: Archive) -> list[str]:
    """Return warnings of keys that have no effect, because of other keys or on these records."""
    default, values = _values(_with_defaults(experiment)), _values(experiment)
    warnings = []
    for keys, is_read, reader in _readers(experiment):
        changed = [key for key in keys if key in values and values[key] != default[key]]
        if changed and not is_read:
            have, them = ("has", "it") if len(changed) == 1 else ("have", "them")
            warnings.append(f"{', '.join(changed)} {have} no effect: only {reader} would read {them}")
    return [*warnings, *_without_effect_on(experiment, archive)]


def _without_effect_on(experiment: Experiment, archive: Archive) -> Iterator[str]:
    """Yield warnings of keys that have no effect on these records."""
    data, training = experiment.data, experiment.training
    y, x = archive.records[0].grid.shape
    if not data.crop and y != x and "rotations" in data.augmentation:
        what = f"rotations have no effect on whole grids of {y} × {x} cells, which are not square"
        yield f"data.augmentation: {what}; leave them out, or set data.crop"
    if (data.zr_a, data.zr_b) != (Data().zr_a, Data().zr_b) and not any(record.is_reflectivity for record in archive.records):
        yield "data.zr_a and data.zr_b have no effect: no record holds reflectivity"
    num_steps = count_steps(training, archive.num_windows("training"))
    if training.warmup_steps >= num_steps and training.schedule != "constant":
        what = f"the learning rate rises over training.warmup_steps = {training.warmup_steps}, and the training has {num_steps}"
        yield f'training.schedule = "{training.schedule}" has no effect: {what}'
    if archive.num_windows("validation"):
        return
    if training.early_stopping:
        yield "training.early_stopping has no effect without validation windows: the training runs to its last step"
    if training.schedule == "plateau":
        yield 'training.schedule = "plateau" has no effect without validation windows: the learning rate stays the same'


def _readers(experiment: Experiment) -> Iterator[tuple[list[str], bool, str]]:
    """Yield keys that are read only beside certain others, whether they are read in this experiment, and by what."""
    data, training, model = experiment.data, experiment.training, experiment.model
    by, schedule, optimizer = data.splits.by, training.schedule, training.optimizer
    for names, reading in SPLIT_KEYS.items():
        reader = " or ".join(f'data.splits.by = "{each}"' for each in reading)
        yield [f"data.splits.{name}" for name in names], by in reading, reader
    for each in ("decay", "plateau"):
        keys = [key for key in _values(experiment) if key.startswith(f"training.{each}_")]
        yield keys, schedule == each, f'training.schedule = "{each}"'
    yield ["training.betas, first value,"], optimizer not in ("rmsprop", "adadelta"), "adamw, adam or sgd"
    yield ["training.betas, second value,"], optimizer != "sgd", "another optimizer than sgd"
    yield ["data.kept_cases", "data.kept_crop"], MODELS[model.name][1].takes_guidance, "a model that takes guidance"
    options = model.model_extra or {}
    yield ["model.last_norm"], options.get("batch_norm", True), "model.batch_norm = true"
    has_bias = options.get("initial", "keras") == "keras" or not options.get("forget_bias")  # 0 is what torch's weights have
    yield ["model.forget_bias"], has_bias, 'model.initial = "keras"'
    yield ["model.head_kernel"], options.get("head") != "hidden", 'model.head = "conv3d" or "conv2d"'


def _with_defaults(experiment: Experiment) -> Experiment:
    """Return the experiment with the default of every key that has one, but for the names and lengths that it needs."""
    model = model_config(NamedSection(name=experiment.model.name)).model_dump(mode="json")
    return experiment.model_copy(update={"data": Data(), "model": NamedSection(**model), "training": Training(steps=1)})


def _values(experiment: Experiment) -> dict[str, Any]:
    """Return the values of an experiment by their dotted keys; the two of training.betas apart."""
    values = dict(flat(as_dict(experiment)))
    first, second = values["training.betas"]
    return values | {"training.betas, first value,": first, "training.betas, second value,": second}


def check_grids(archive: Archive, crop: int, model: Model) -> None:
    """Raise DataError (exit 3) for a grid that the model cannot take, and for different grids without a crop.

    crop: cells of the side of a training case, 0 for whole grids
    """
    cells, only = model.cell_multiple, model.grid
    for record in archive.records:
        # a model that takes guidance sees the places of the whole grid also where it is trained on crops
        trained = (crop, crop) if crop and not model.takes_guidance else record.grid.shape
        if only and trained != only:
            raise DataError(
                f"{record.name} gives {trained[0]} × {trained[1]} cells but this model is made for {only[0]} × {only[1]}; "
                "set model.grid or data.crop"
            )
        if min(record.grid.shape) < cells:
            y, x = record.grid.shape
            raise DataError(f"{record.name} has a grid of {y} × {x} cells; this model needs at least {cells} each way")
    shapes = {record.grid.shape for record in archive.records}
    largest = max(map(max, shapes))
    # several grids need a crop to share a batch, which may be a little larger than all of them
    if crop > largest + (PADDING if len(shapes) > 1 else 0):
        raise DataError(
            f"data.crop = {crop} is larger than the grid of {archive.records[0].name}, {largest} cells at its longest side.\n"
            "Write data.crop = 0 for whole grids, or a smaller crop."
        )
    if not crop and len(shapes) > 1:
        listed = ", ".join(f"{y} × {x}" for y, x in sorted(shapes))
        raise DataError(f"the records have different grids ({listed}); set data.crop so that they can share a batch")


def remarks_on_frames(training: Sequence[Series], validation: Sequence[Series], quantity: Quantity) -> list[str]:
    """Return what to warn of: frames that are damaged, and windows for training or validation without any rain."""
    remarks = [line for series in [*training, *validation] for line in series.frames.damaged]
    for split, all_series in (("training", training), ("validation", validation)):
        wet = [series.frames.wet[np.unique(series.windows.positions)] for series in all_series]
        if quantity.is_rain and wet and not np.nansum(np.concatenate(wet)):
            remarks.append(f"the {split} windows have no cell of {WET_RATE} mm/h or more: nothing can be learnt from them")
    return list(dict.fromkeys(remarks))
