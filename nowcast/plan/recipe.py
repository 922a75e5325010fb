"""Make a recipe: records -> fingerprint -> a complete config with the reason for every value, sized for this machine.

The method is that of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z): everything that can be
computed from the data is, the rest stays as in the recipe that the plan starts from, and the result is a file that people can
read and change. The same records and machine always give the same file (cost.py, speed.py).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nowcast import config
from nowcast.config.schema import PRETRAINED, Data, Experiment
from nowcast.config.toml import write_commented
from nowcast.dataset.archive import Archive, check_alike, open_archive, open_split
from nowcast.errors import CheckpointError, MemoryLimitError
from nowcast.models import make_model, model_config
from nowcast.models.checkpoint import read_checkpoint
from nowcast.netcdf.record import log_readings
from nowcast.plan import own_archive
from nowcast.plan.advice import file_head, summary, warnings_of
from nowcast.plan.basis import Basis, choose_basis
from nowcast.plan.choices import Choices, Size, choose, first_size
from nowcast.plan.cost import Cost, guidance_bytes
from nowcast.plan.fingerprint import Fingerprint, take_fingerprint
from nowcast.plan.references import reference_choices
from nowcast.plan.speed import Machine, this_machine
from nowcast.plan.training import (
    HOURS,
    Length,
    archive_length,
    cases_on_disk,
    choose_archive_training,
    choose_radar_training,
    choose_training,
    radar_length,
)
from nowcast.quantity import Quantity
from nowcast.runtime.memory import total_memory
from nowcast.training.compatibility import fitting_weights
from nowcast.training.experiment import check_grids, resolve
from nowcast.training.step_cost import case_shape

log = logging.getLogger(__name__)
MEMORY_SHARE = 0.5  # share of all memory that a step may take; validation, reading and other programs need some as well
TOO_LONG = 1.1  # ratio to the given hours from which on a warning says that even the shortest training takes longer


@dataclass(frozen=True)
class Recipe:
    """A config with a comment at each key, the lines above it, and texts for the user.

    lines: findings, choices with reasons, and advice
    warnings: limitations that the data set on the network
    """

    experiment: Experiment
    comments: Mapping[str, str]
    head: tuple[str, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self, experiment: Experiment | None = None) -> str:
        """Return the config as commented TOML.

        experiment: the config after --set has changed keys; those are commented "set by hand", but for what was left to the
        training to decide
        """
        written = experiment or self.experiment
        same = {key for key in self.comments if _value(written, key) == _value(self.experiment, key)} | {"training.precision"}
        comments = {key: text if key in same else "set by hand" for key, text in self.comments.items()}
        return write_commented(written, comments, self.head)


def _value(experiment: Experiment, key: str) -> Any:
    """Return the value of a dotted key; None where there is none."""
    value = config.as_toml(experiment)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Sized:
    """A size that fits this machine, with the choices for the config, the cost of a step, and the length of the training."""

    size: Size
    choices: Choices
    cost: Cost
    length: Length


def make_recipe(
    paths: Sequence[str],
    *,
    variable: str = "auto",
    units: str = "auto",
    device: torch.device,
    hours: float | None = None,
    machine: Machine | None = None,
    memory_limit: float | None = None,
) -> Recipe:
    """Read a sample of the records and choose a complete config for training on them with this device.

    hours: time that the training may take; default: HOURS
    machine: machine and its speed; default: this one
    memory_limit: memory, bytes, that a step may take; default: a fraction of all memory

    Raises what opening records raises, DataError (exit 3) where nothing was observed, NotEnoughFrames (exit 75) where
    training and validation cannot both have a window, MemoryLimitError (exit 7) where not even the smallest size fits.
    """
    sources = Data(records=tuple(paths), variable=variable, units=units)
    records = open_split(paths, sources)
    check_alike(records)
    fingerprint = take_fingerprint(records)
    log_readings(records)
    basis, machine, hours = choose_basis(fingerprint), machine or this_machine(device), hours or HOURS[device.type]
    sized = _largest_size(fingerprint, basis, sources, machine, hours, memory_limit or _usable_memory(device))
    _choose_length(basis, sized, machine, hours)
    if basis.has_few_events:
        _choose_start(sized.choices, fingerprint.quantity)
    choices = sized.choices
    warnings = (*warnings_of(fingerprint, basis.frames), *choices.warnings)
    experiment = resolve(choices.experiment())
    lines = tuple(summary(fingerprint, basis, experiment, sized.length, warnings))
    return Recipe(experiment, choices.comments, tuple(file_head(records, fingerprint, basis, warnings)), lines, warnings)


def _largest_size(
    fingerprint: Fingerprint,
    basis: Basis,
    sources: Data,
    machine: Machine,
    hours: float,
    memory_limit: float,
) -> Sized:
    """Try sizes, the desired one first; return the first that fits memory and time, else the last that fits memory."""
    archive, sized, least = None, None, 0.0
    for size in _sizes(fingerprint, basis, machine.device.type):
        if sized and basis.is_archive and size.batch_size < sized.size.batch_size:
            break  # fewer cases are for memory, not for time
        choices = _choices_for(fingerprint, basis, size, sources)
        experiment = _with_batch(choices.experiment(), size)
        if archive is None:
            archive = open_archive(experiment.data.model_copy(update={"max_missing": 1.0, "min_wet": 0.0}))
        cost = _cost(experiment, archive, machine)
        if cost.memory_bytes > memory_limit:
            least = cost.memory_bytes
            continue
        sized = Sized(size, choices, cost, _length(fingerprint, basis, experiment, size, cost, hours))
        if sized.length.is_enough:
            break
        log.debug("%s takes %.2g s a step; trying a smaller size", size, cost.step_seconds)
    if sized is None:
        free = f"not even one case of a small network fits into {memory_limit / 1e9:.1f} GB"
        raise MemoryLimitError(f"{free}; it takes {least / 1e9:.1f} GB")
    return sized


def _sizes(fingerprint: Fingerprint, basis: Basis, device: str) -> Iterator[Size]:
    if basis.is_archive:
        yield from own_archive.sizes(fingerprint, reference_choices(basis.recipe))
        return
    size = first_size(fingerprint, basis.frames, device)
    width = size.width
    while size:
        if size.width == width or not basis.has_few_events:  # a narrower one could not start from the included network
            yield size
        size = size.smaller()


def _choices_for(fingerprint: Fingerprint, basis: Basis, size: Size, sources: Data) -> Choices:
    choices = reference_choices(basis.recipe)
    choices.set("data.records", list(sources.records), "the records that this config was made for")
    by_name = "found by CF standard name and units" if sources.variable == "auto" else "set by --variable"
    choices.set("data.variable", sources.variable, by_name)
    stated = "as stated in the files" if sources.units == "auto" else "set by --units, as the files state none"
    choices.set("data.units", sources.units, stated)
    choose_all = own_archive.choose_for_archive if basis.is_archive else choose
    choose_all(fingerprint, basis.frames, size, choices)
    return choices


def _with_batch(experiment: Experiment, size: Size) -> Experiment:
    training = experiment.training.model_copy(update={"batch_size": size.batch_size})
    return experiment.model_copy(update={"training": training})


def _cost(experiment: Experiment, archive: Archive, machine: Machine) -> Cost:
    """Return the cost of a step. Raises DataError (exit 3) for a grid that the model cannot take."""
    check_grids(archive, experiment.data.crop, make_model(model_config(experiment.model)))
    return machine.cost(experiment, case_shape(experiment.data, archive), archive.records[0].grid.shape)


def _usable_memory(device: torch.device) -> float:
    """Return the memory, bytes, that a step may take: on a GPU of its memory, else of the machine."""
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    return MEMORY_SHARE * total_memory()


def _length(fingerprint: Fingerprint, basis: Basis, experiment: Experiment, size: Size, cost: Cost, hours: float) -> Length:
    """Return how long a training of that size is; the experiment still has the steps of the recipe."""
    if not basis.is_archive:
        return radar_length(fingerprint, basis.frames, size, experiment, hours=hours, cost=cost)
    room = cases_on_disk(guidance_bytes(experiment.data, fingerprint.series[0].shape))
    return archive_length(fingerprint, basis.frames, size, experiment, hours=hours, cost=cost, room=room)


def _choose_length(basis: Basis, sized: Sized, machine: Machine, hours: float) -> None:
    """Choose the number of steps and the keys that depend on it, from the time of a step; warn if the time is too short."""
    if sized.length.hours > TOO_LONG * hours:
        most = f", {sized.length.validation_hours:.2g} h of it for validations" if sized.length.validation_hours else ""
        longer = f"{hours:.2g} h are too short: it takes about {sized.length.hours:.2g} h{most}; a larger --hours would help"
        sized.choices.warnings.append(longer)
    if basis.is_archive:
        choose_archive_training(sized.choices, sized.length)
    else:
        choose_radar_training(sized.choices, sized.size, sized.length, has_few_events=basis.has_few_events)
    choose_training(sized.choices, sized.size, sized.length, cost=sized.cost, device_name=machine.name)


def _choose_start(choices: Choices, quantity: Quantity) -> None:
    """Start from the included network if its weights fit: few events are enough to adapt it, but not to train a new one."""
    experiment = resolve(choices.experiment())
    try:
        model = make_model(model_config(experiment.model))
        fitting_weights(read_checkpoint(PRETRAINED), PRETRAINED, model, experiment, quantity=quantity)
    except CheckpointError as error:
        log.debug("%s", error)
        choices.set("training.start_from", "", "new weights: the included network has another shape than this one")
    else:
        choices.set("training.start_from", PRETRAINED, "the included network, which these events adapt to this radar")
