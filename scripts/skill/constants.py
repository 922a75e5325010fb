#!/usr/bin/env python3
"""Check by cross-validation whether the constants of the package that are not trained are overfitted to the services.

An untrained network forecasts the cases of record.py with the package's constants, and with each of the other values below
for one constant at a time. It does so for the records as they are and at half their resolution, since radars that are to be
forecast have various grids. For each fold of services.py, each constant gets the value with the best CSI at 0.5 and 1 mm/h,
averaged over the services outside the fold; with these values the fold is forecast. The script prints the values chosen,
and the CSI over all folds relative to pysteps and S-PROG, with the chosen values and with the package's constants.

    python scripts/skill/constants.py --baselines runs/skill/baselines --jobs 2
"""

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import KEPT, LEADS, PAST, Cases, choose_cases, kept_forecasts
from services import FOLDS, ROOT, records_of
from table import markdown, number

from nowcast import config
from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError, NowcastError
from nowcast.evaluation.coarsen import block_means
from nowcast.forecasters.forecast_files import ForecastFiles
from nowcast.forecasters.network import Network
from nowcast.models import model_config
from nowcast.models.checkpoint import Checkpoint
from nowcast.models.probabilistic.cascade import BLOCK, CASCADE, CascadeConstants
from nowcast.models.probabilistic.matching import MATCHING, MatchingConstants
from nowcast.models.probabilistic.network import Probabilistic
from nowcast.motion import MOTION, MotionConstants
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record

THRESHOLDS = (0.5, 1.0, 5.0)  # mm/h
LIGHT = slice(2)  # the thresholds by which values are chosen
NETWORK = "network"
# Positions of the network's counts at full and at half resolution; those of the baselines KEPT lie between.
WHOLE, HALF = 0, -1
SMALLEST = 2 * BLOCK  # cells; smaller grids are not forecast at half resolution
Counts = np.ndarray  # (forecaster, threshold, 3): hits, misses and false alarms
Chosen = tuple[tuple[str, Any], ...]  # (name, value) of constants that differ from the package's
Scores = dict[Chosen, np.ndarray]  # CSI (forecaster, threshold) for each choice of constants


@dataclass(frozen=True)
class Constants:
    """The package's constants that are not trained."""

    motion: MotionConstants = MOTION
    cascade: CascadeConstants = CASCADE
    matching: MatchingConstants = MATCHING

    def value(self, name: str) -> Any:
        """Return the constant of a name such as "motion.smoothing"."""
        group, field = name.split(".")
        return getattr(getattr(self, group), field)

    def having(self, chosen: Chosen) -> "Constants":
        """Return these constants with the chosen values."""
        constants = self
        for name, value in chosen:
            group, field = name.split(".")
            constants = replace(constants, **{group: replace(getattr(constants, group), **{field: value})})
        return constants


PACKAGE = Constants()


@dataclass(frozen=True)
class Constant:
    """A constant of the package, and the values to choose from, which include the package's own."""

    name: str  # group.field, as in Constants
    values: tuple[Any, ...]

    @property
    def own(self) -> Any:
        return PACKAGE.value(self.name)

    @property
    def others(self) -> tuple[Any, ...]:
        return tuple(value for value in self.values if value != self.own)


CONSTANTS = {
    constant.name: constant
    for constant in (
        Constant("motion.pixel_widths", ((1, 1), (1.5, 1.5), (2, 1), (2, 2))),
        Constant("motion.smoothing", (10.0, 20.0, 30.0)),
        Constant("cascade.correlation_reach", (1, 2)),
        Constant("matching.offset", (0.3, 0.5, 1.0)),
        Constant("cascade.num_averaged_bands", (1, 2, 4)),
        Constant("cascade.error_share", (0.0, 0.15, 0.3, 0.45, 0.6)),
        Constant("matching.area_gain", (0.0, 0.05, 0.1)),
    )
}


def untrained(path: Path, constants: Constants) -> Network:
    """Make the untrained network of a config with these constants."""
    experiment = config.read(path, [f"transform.offset={constants.matching.offset}"])
    options = {"cascade_constants": constants.cascade, "matching_constants": constants.matching}
    model = Probabilistic(model_config(experiment.model), **options)
    torch.nn.init.zeros_(model.head.weight)
    metadata = {"config": config.as_dict(experiment), "input_frames": experiment.data.input_frames, "lead_frames": LEADS,
             "time_steps": [300], "quantity": "rain_rate", "units": "mm h-1"}  # fmt: skip
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    checkpoint, device = Checkpoint(metadata, tensors, "0" * 64), torch.device("cpu")
    return Network(checkpoint, NETWORK, device=device, model=model, motion_constants=constants.motion)


def counted(observed: np.ndarray, *forecasts: np.ndarray) -> Counts:
    """Count the events of each forecast (lead, y, x) over all lead times, in cells that are known in all of them."""
    known = np.isfinite(observed) & np.isfinite(forecasts).all(axis=0)
    return np.array([[_counts(forecast[known] >= threshold, observed[known] >= threshold) for threshold in THRESHOLDS]
                     for forecast in forecasts])  # fmt: skip


def _counts(forecast: np.ndarray, observed: np.ndarray) -> tuple[int, int, int]:
    hits = int((forecast & observed).sum())
    return hits, int(observed.sum()) - hits, int(forecast.sum()) - hits


def csi(counts: Counts) -> np.ndarray:
    """Compute the CSI (forecaster, threshold); NaN if no event was forecast or observed."""
    total = counts.sum(axis=-1)
    return np.divide(counts[..., 0], total, out=np.full(total.shape, math.nan), where=total > 0)


def halved(field: np.ndarray) -> np.ndarray:
    """Average the rain rate (..., y, x) over 2 × 2 cells, without an odd last row or column."""
    y, x = (size // 2 * 2 for size in field.shape[-2:])
    return block_means(field[..., :y, :x], 2)


def score_record(path: Path, source: Path, baselines: Path, candidates: Sequence[Chosen]) -> Scores:
    """Compute the CSI of a record for each candidate; NaN at half resolution if the grid is too small; {} without cases."""
    (record,) = open_records([path])
    try:
        cases = choose_cases(record, record.time_step)
    except DataError:
        return {}
    kept = [kept_forecasts(name, record, cases, baselines) for name in KEPT]
    networks = {candidate: untrained(source, PACKAGE.having(candidate)) for candidate in candidates}
    sums = dict.fromkeys(candidates, 0)
    for past, observed, others in _cases(record, cases, kept):
        for candidate, network in networks.items():
            sums[candidate] += count_case(network, past, observed, others)
    return {candidate: csi(counts) for candidate, counts in sums.items()}


def count_case(network: Network, past: np.ndarray, observed: np.ndarray, others: Sequence[np.ndarray]) -> Counts:
    """Count the events of the network, of the other forecasts, and of the network at half the resolution."""
    whole = counted(observed, network.forecast(past[None], len(observed))[0], *others)
    if min(observed.shape[1:]) < SMALLEST:
        return np.concatenate([whole, np.zeros_like(whole[:1])])
    return np.concatenate([whole, counted(halved(observed), network.forecast(halved(past)[None], len(observed))[0])])


def _cases(
    record: Record, cases: Cases, kept: Sequence[ForecastFiles]
) -> Iterator[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Yield the past frames, the observed frames and the kept forecasts of each case."""
    windows = find_windows(record.times, input_frames=PAST, lead_frames=cases.num_leads, time_step=cases.step)
    lead_times = np.arange(1, cases.num_leads + 1) * cases.step
    for positions in windows.select(np.isin(record.times[windows.reference_positions], cases.references)).positions:
        reference = record.times[positions[PAST - 1]]
        others = [forecasts.forecast_at(reference, lead_times) for forecasts in kept]
        yield record.read(positions[:PAST]), record.read(positions[PAST:]), others


def score_all(paths: Sequence[Path], args: argparse.Namespace, candidates: Mapping[str, Sequence[Chosen]]) -> dict[str, Scores]:
    """Average the CSI over the records of each service; each service has its own candidates."""
    tasks = [(path, args.config, args.baselines, candidates[path.parent.name]) for path in paths]
    if args.jobs == 1:
        scores = list(starmap(score_record, tasks))
    else:
        with multiprocessing.get_context("spawn").Pool(args.jobs, torch.set_num_threads, (1,)) as pool:
            scores = pool.starmap(score_record, tasks, chunksize=1)
    return {
        service: averaged([one for path, one in zip(paths, scores, strict=True) if path.parent.name == service and one])
        for service in candidates
    }


def averaged(records: Sequence[Scores]) -> Scores:
    """Average each CSI over the records in which it is defined for all candidates; NaN if there are none."""
    defined = [np.isfinite(list(record.values())).all(axis=0) for record in records]  # (whose, threshold)
    for each in defined:
        each[:HALF] = each[:HALF].all(axis=0)
    number_defined = np.sum(defined, axis=0)
    sums = {
        name: sum(np.where(is_defined, record[name], 0) for record, is_defined in zip(records, defined, strict=True))
        for name in records[0]
    }
    return {name: np.where(number_defined > 0, total / np.maximum(number_defined, 1), math.nan) for name, total in sums.items()}


def choose(services: Sequence[Scores]) -> Chosen:
    """Choose the best value of each constant on these services, with the package's values for the other constants."""
    chosen: Chosen = ()
    for constant in CONSTANTS.values():
        candidates = [(), *(((constant.name, value),) for value in constant.others)]
        chosen += max(candidates, key=lambda candidate: gain(services, candidate))
    return chosen


def gain(services: Sequence[Scores], candidate: Chosen) -> float:
    """Compute the ratio of the candidate's CSI to that of the package, averaged over resolutions and light thresholds."""
    ours, package = (np.nansum([each[which][[WHOLE, HALF], LIGHT] for each in services], axis=0) for which in (candidate, ()))
    return float(np.mean(ours / package))


def table(scores_of: Mapping[str, Scores], chosen: Mapping[str, Chosen]) -> str:
    """Return a table of the values chosen for each fold, and one of the ratios to the kept baselines."""
    rows = [
        [name, f"{constant.own}", *(f"{dict(chosen[fold]).get(name, constant.own)}" for fold in FOLDS)]
        for name, constant in CONSTANTS.items()
    ]
    lines = markdown(["constant", "package", *(f"fold {fold}" for fold in FOLDS)], rows)
    kinds = {
        "the package's": [each[()] for each in scores_of.values()],
        "chosen without the fold": [scores_of[service][chosen[fold]] for fold, inside in FOLDS.items() for service in inside],
    }
    rows = [[name, against, *_ratios(np.array(scores)[:, [WHOLE, number]])]
            for name, scores in kinds.items() for number, against in enumerate(KEPT, 1)]  # fmt: skip
    header = ["constants", "beside", *(f"CSI≥{threshold:g} (of the means)" for threshold in THRESHOLDS)]
    return "\n".join([*lines, "", *markdown(header, rows)])


def _ratios(scores: np.ndarray) -> list[str]:
    """Return for each threshold the mean of the services' ratios, and in brackets the ratio of their means.

    scores: (service, 2, threshold) CSI of the network and of a baseline
    """
    mean_ratios, sums = np.nanmean(scores[:, 0] / scores[:, 1], axis=0), np.nansum(scores, axis=0)
    return [f"{number(ratio)} ({number(of_means)})" for ratio, of_means in zip(mean_ratios, sums[0] / sums[1], strict=True)]


def work(args: argparse.Namespace) -> str:
    services = [service for fold in FOLDS.values() for service in fold]
    paths = records_of(args.radar, services)
    candidates = [(), *(((name, value),) for name, constant in CONSTANTS.items() for value in constant.others)]
    scores_of = score_all(paths, args, dict.fromkeys(services, candidates))
    chosen = {fold: choose([scores_of[s] for s in services if s not in inside]) for fold, inside in FOLDS.items()}
    own = {service: chosen[fold] for fold, inside in FOLDS.items() for service in inside}
    unknown = {service: [constants] for service, constants in own.items() if constants not in scores_of[service]}
    for service, scores in score_all([path for path in paths if path.parent.name in unknown], args, unknown).items():
        scores_of[service] |= scores
    return table(scores_of, chosen)


def main(argv: Sequence[str] | None = None) -> None:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "radar.toml")
    parser.add_argument(
        "--baselines", type=Path, required=True, help="folder of the baselines' forecasts, as services.py keeps them"
    )
    parser.add_argument("--radar", type=Path, default=shared / "radar", help="folder with a folder of records for each service")
    parser.add_argument("--jobs", type=int, default=1, help="number of records at a time; if more than one, each on one core")
    args = parser.parse_args(argv)
    try:
        print(work(args))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
