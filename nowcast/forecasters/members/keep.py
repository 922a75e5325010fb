"""Measure the structure of members' noise at the end of a training, and store it in the checkpoint."""

import logging
from pathlib import Path

import numpy as np
import torch

from nowcast.dataset.archive import Archive
from nowcast.forecasters.members.draw import DRY
from nowcast.forecasters.members.measure import Case, measure
from nowcast.forecasters.members.structure import KEY, Structure
from nowcast.forecasters.network import Network
from nowcast.models.checkpoint import BEST, Checkpoint, read_checkpoint, write_checkpoint
from nowcast.netcdf.damage import Damage
from nowcast.netcdf.record import Record
from nowcast.runtime.progress import track
from nowcast.scores.distribution import RATES

MOST_CASES, FEWEST_CASES = 24, 8  # largest and smallest number of validation cases that are measured
CANDIDATES_PER_CASE = 6  # windows that are read per measured case, to find wet ones
LARGEST_SIDE = 128  # cells; only the middle of larger grids is measured
LEAST_WET_FRACTION = 0.02  # smallest fraction of wet cells in the newest past frame

log = logging.getLogger(__name__)


def keep_structure(output: Path, archive: Archive, device: torch.device, *, most: int = MOST_CASES) -> bool:
    """Measure the structure of the noise on up to `most` validation cases and add it to `best` of a run, unless it has one.

    The checkpoint is unchanged if the network gives no probabilities of rain, or if there are too few wet cases.
    Returns whether it has a structure now. Raises OutputError (exit 5) if the checkpoint cannot be written.
    """
    checkpoint = read_checkpoint(output / BEST)
    if "shared" in checkpoint.metadata.get(KEY, {}):  # structures of one noise, from older versions, are measured again
        return True
    network = Network(checkpoint, output.name, device=device)
    has_members = network.gives_members and network.quantity.is_rain
    structure = structure_of(network, archive, most=min(most, MOST_CASES)) if has_members else None
    if structure:
        _write(checkpoint, structure)
        log.info("members: measured the spatial and temporal structure of their noise on validation cases")
    return structure is not None or KEY in checkpoint.metadata


def structure_of(network: Network, archive: Archive, *, most: int) -> Structure | None:
    """Measure the structure on wet validation cases like those of the record with the most windows; None if too few."""
    pairs = list(zip(archive.records, archive.windows["validation"], strict=True))
    record, windows = max(pairs, key=lambda pair: len(pair[1]), default=(None, ()))
    if min(len(windows), most) < FEWEST_CASES:
        return None
    same_grid = [(r, w) for r, w in pairs if r.grid.shape == record.grid.shape and w.time_step == windows.time_step]
    candidates = [(r, positions, w.input_frames) for r, w in same_grid for positions in w.positions]
    chosen = np.unique(np.linspace(0, len(candidates) - 1, CANDIDATES_PER_CASE * most).round().astype(int))
    candidates_wet = [(candidates[n], _wet_fraction(*candidates[n])) for n in chosen]
    wet = [candidate for candidate, fraction in candidates_wet if fraction >= LEAST_WET_FRACTION]
    wet = [wet[n] for n in np.unique(np.linspace(0, len(wet) - 1, most).round().astype(int))] if wet else []
    if len(wet) < FEWEST_CASES:
        return None
    cases = [_case(network, *each) for each in track(wet, "measuring members", unit="case")]
    km, minutes = network.on_record(record, windows.time_step).scale
    return measure(lambda: iter(cases), cases[0].observed.shape[1:], windows.lead_frames, km=km, minutes=minutes)


def _wet_fraction(record: Record, positions: np.ndarray, input_frames: int) -> float:
    """Return the fraction of measured cells that are wet in the newest past frame."""
    return float((middle(Damage(record).read(positions[input_frames - 1])) >= DRY).mean())


def _case(network: Network, record: Record, positions: np.ndarray, input_frames: int) -> Case:
    """Forecast a case: only the measured cells, but the whole grid if the network is made for one grid."""
    frames = Damage(record).frames(positions)
    frames = frames if network.model.grid else middle(frames)
    past, observed = frames[:input_frames], frames[input_frames:]
    _, exceedance = network.forecast_and_exceedance(past[None], len(observed), RATES)
    dry = np.where(observed < DRY, 0, observed)  # NaN stays NaN
    return Case(middle(past), middle(dry), middle(exceedance[0]))


def middle(fields: np.ndarray, side: int = LARGEST_SIDE) -> np.ndarray:
    """Return the middle of fields (…, y, x), at most `side` cells in y and x."""
    y, x = ((size - min(side, size)) // 2 for size in fields.shape[-2:])
    return np.ascontiguousarray(fields[..., y : y + side, x : x + side])


def _write(checkpoint: Checkpoint, structure: Structure) -> None:
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != "format"}
    write_checkpoint(checkpoint.path, metadata | {KEY: structure.as_dict()}, checkpoint.tensors)
