"""The text of a plan for its user: findings, choices with reasons, limitations and advice."""

import math
from collections.abc import Iterator, Sequence

from nowcast import __version__
from nowcast.config.schema import Experiment
from nowcast.errors import counted
from nowcast.netcdf.record import Record
from nowcast.plan.basis import RAINY_DAYS, Basis
from nowcast.plan.choices import HEAVY, percent
from nowcast.plan.fingerprint import Fingerprint
from nowcast.plan.frames import ENOUGH, FEW_DAYS, FrameChoice
from nowcast.plan.training import Length

NEARLY_DRY = 0.005  # fraction of wet pixels below which a warning is given


def warnings_of(fingerprint: Fingerprint, frames: FrameChoice) -> list[str]:
    """Return the limitations that the data set on the network, each with a remedy."""
    warnings, leads = [], f"{frames.lead_minutes:g} of {frames.wanted_leads * frames.minutes:g} minutes"
    if frames.lead_frames < frames.wanted_leads:
        warnings.append(f"the runs of frames are short and allow {leads} of leads; longer runs would help")
    if not frames.is_apart:
        warnings.append(
            "validation follows training without a gap, so its scores are too good: score the network on another day"
        )
    if min(frames.num_training, frames.num_validation) < ENOUGH[0][1]:
        numbers = f"{frames.num_training:,} training and {frames.num_validation:,} validation windows"
        warnings.append(f"{numbers}: enough for a test run, too few to train a useful network; more days would help")
    if frames.has_few_days:
        warnings.append(
            f"validation has windows of {counted(frames.num_validation_days, 'day')}: "
            f"fewer than {FEW_DAYS} say little about other weather; more months would help"
        )
    if fingerprint.wet < NEARLY_DRY:
        warnings.append(f"{percent(fingerprint.wet, 2)} of the pixels are wet: there is hardly any rain to learn from")
    if not fingerprint.num_pairs:
        warnings.append("there is too little rain to measure motion: crop, patch and kernels are based on assumptions")
    return warnings


def summary(
    fingerprint: Fingerprint,
    basis: Basis,
    experiment: Experiment,
    length: Length,
    warnings: Sequence[str],
) -> Iterator[str]:
    """Yield five texts: findings, recipe, split, training, and advice, each advice on a line of its own."""
    frames, training = basis.frames, experiment.training
    on = f"about {fingerprint.num_rainy_days}" if fingerprint.num_rainy_days else "none"
    rainy = f"rain on {on} of them" if fingerprint.quantity.is_rain else "not rain rate"
    yield f"found:  {_frames_of(fingerprint)}, {rainy}; {_grids_of(fingerprint)}"
    yield f"recipe: configs/{basis.recipe}.toml; {basis.reason}"
    windows = f"{frames.num_training:,} training, {frames.num_validation:,} validation and {frames.num_test:,} test windows"
    used = f", {percent(fingerprint.rainy_frames)} of them with rain" if basis.is_archive else ""
    yield f"split:  by {frames.splits.by}, {windows} of {frames.input_frames} + {frames.lead_frames} frames{used}"
    start = f" from {training.start_from}" if training.start_from else ""
    width = f"channels {list(experiment.model.hidden_channels)}"
    of_it = f", {length.validation_hours:.2g} h of it for validations" if length.validation_hours else ""
    hours = f"about {length.hours:.2g} h where nothing else runs{of_it}"
    yield f"train:  {training.steps:,} steps of {training.batch_size}{start}, {width}, {hours}; {length.reason}"
    yield "better: " + "\n        ".join([*_advice(basis, fingerprint), *warnings])


def _advice(basis: Basis, fingerprint: Fingerprint) -> Iterator[str]:
    """Yield advice that does not depend on limitations of the data."""
    frames = basis.frames
    if frames.num_test:
        days = " and ".join(map(str, frames.splits.test_days))
        where = f"day {days} of every {frames.splits.every_days}" if frames.splits.by == "days" else "the last tenth"
        yield f"score the network on the test windows ({where}): it never sees them"
    else:
        yield "keep a day with rain out of these records, and score the network on it"
    if fingerprint.quantity.is_rain and not basis.is_archive and fingerprint.num_rainy_days < RAINY_DAYS:
        yield f"from {RAINY_DAYS} days with rain of one radar on, a network learns its weather"


def file_head(records: Sequence[Record], fingerprint: Fingerprint, basis: Basis, warnings: Sequence[str]) -> list[str]:
    """Return the lines above the config: what the records hold, the recipe, and the warnings."""
    names = ", ".join(record.name for record in records[:8])
    values = f"{percent(fingerprint.wet, 2)} wet, {percent(fingerprint.share_from(HEAVY), 3)} from {HEAVY:g} mm/h on"
    moved = f"motion {fingerprint.motion_median:.1f} cells a step, 95 % of it up to {fingerprint.motion_95:.1f}"
    return [
        f"Planned by nowcast {__version__} from a fingerprint of the records; every key is here, and may be changed.",
        "",
        f"{_frames_of(fingerprint)}: {names}",
        _grids_of(fingerprint),
        f"{values}, {percent(fingerprint.missing)} missing ({counted(fingerprint.num_frames_read, 'frame')} read)",
        f"{moved} ({counted(fingerprint.num_pairs, 'pair')} of frames)"
        if fingerprint.num_pairs
        else "motion not measured: too little rain",
        f"From configs/{basis.recipe}.toml: {basis.reason}.",
        *(f"Beware: {warning}." for warning in warnings),
    ]


def _frames_of(fingerprint: Fingerprint) -> str:
    steps = dict.fromkeys(f"{record.minutes:g}" for record in fingerprint.series if math.isfinite(record.minutes))
    days = counted(fingerprint.num_days, "day")
    return f"{fingerprint.num_frames:,} frames on {days} every {', '.join(steps)} minutes"


def _grids_of(fingerprint: Fingerprint) -> str:
    grids = dict.fromkeys(
        "{} × {} cells of {} km".format(*record.shape, _km(record.spacing_km)) for record in fingerprint.series
    )
    shown = list(grids)[:4]
    return ", ".join(shown) + (f" and {len(grids) - len(shown)} other grids" if len(grids) > len(shown) else "")


def _km(spacing: tuple[float, float]) -> str:
    return " × ".join(f"{km:.3g}" if math.isfinite(km) else "?" for km in spacing)
