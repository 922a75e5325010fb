#!/usr/bin/env python3
"""The few constants that no training finds, chosen for each fold of skill.py without its services: are the folds blind to them?

A network that has learnt nothing forecasts the cases of skill_record.py with the package's constants, and with each of the
other values below in the place of one. For each fold, every constant gets the value whose CSI at 0.5 and 1 mm/h beside pysteps,
as the ratio of the means over services, is best on the services outside the fold; so chosen, the fold is forecast. Printed is
what was chosen, and the ratios over all folds beside those of the package's constants.

    python scripts/skill_constants.py --baselines runs/skill/baselines --jobs 2
"""

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from skill import FOLDS, ROOT, records_of
from skill_record import KEPT, LEADS, PAST, Cases, choose_cases, kept_forecasts
from skill_table import markdown, number

from nowcast import config, motion
from nowcast.checkpoint import Checkpoint
from nowcast.errors import DataError, NowcastError
from nowcast.forecaster import Network
from nowcast.models import cascade, make_model, model_config, probabilistic
from nowcast.netcdf import Record, open_records
from nowcast.windows import plan

THRESHOLDS = (0.5, 1.0, 5.0)  # mm/h
LIGHT = slice(2)  # of them, by which is chosen
NETWORK, AGAINST = "network", "pysteps"
Counts = np.ndarray  # (threshold, 3): hits, misses and false alarms
Chosen = tuple[tuple[str, Any], ...]  # constants that are not as in the package, by name
Scores = dict[Chosen, np.ndarray]  # CSI (2, threshold): of the network, and of pysteps


@dataclass(frozen=True)
class Constant:
    """One number of a module, or several, and the values to choose from, the package's own among them."""

    module: ModuleType
    name: str
    values: tuple[Any, ...]

    @property
    def own(self) -> Any:
        return getattr(self.module, self.name)

    @property
    def others(self) -> tuple[Any, ...]:
        return tuple(value for value in self.values if value != self.own)


CONSTANTS = {
    constant.name: constant
    for constant in (
        Constant(motion, "IMAGE_CELL", (1.0, 1.5, 2.0)),
        Constant(motion, "MOTION_SIGMA", (10.0, 20.0, 30.0)),
        Constant(cascade, "AROUND", (1, 2)),
        Constant(probabilistic, "OFFSET", (0.3, 0.5, 1.0)),
        Constant(probabilistic, "STEADIED", (1, 2, 4)),
        Constant(probabilistic, "ERRORS", ((0.0,) * 4, (0.15, 0.15, 0.4, 0.4), (0.3, 0.3, 0.3, 0.3))),
    )
}


@contextmanager
def using(chosen: Chosen) -> Iterator[None]:
    """These constants in the place of the package's."""
    before = {(CONSTANTS[name].module, name): CONSTANTS[name].own for name, _ in chosen}
    before |= {(probabilistic, name): getattr(probabilistic, name) for name in ("ANCHORS", "WET")}
    try:
        for name, value in chosen:
            setattr(CONSTANTS[name].module, name, value)
        probabilistic.ANCHORS = probabilistic.anchors()
        probabilistic.WET = probabilistic.ANCHORS[1]
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def untrained(path: Path) -> Network:
    """The network of a config, as the constants have it, that has learnt nothing."""
    experiment = config.read(path, [f"transform.offset={probabilistic.OFFSET}"])
    model = make_model(model_config(experiment.model))
    torch.nn.init.zeros_(model.head.weight)
    facts = {"config": config.as_dict(experiment), "input_frames": experiment.data.input_frames, "lead_frames": LEADS,
             "time_steps": [300], "quantity": "rain_rate", "units": "mm h-1"}  # fmt: skip
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    return Network(Checkpoint(facts, tensors, "0" * 64), NETWORK, device=torch.device("cpu"))


def counted(forecast: np.ndarray, observed: np.ndarray, known: np.ndarray) -> Counts:
    """Of all leads together, where `known`."""
    rows = []
    for threshold in THRESHOLDS:
        said, seen = (forecast >= threshold) & known, (observed >= threshold) & known
        hits = int((said & seen).sum())
        rows.append((hits, int(seen.sum()) - hits, int(said.sum()) - hits))
    return np.array(rows)


def csi(counts: Counts) -> np.ndarray:
    """By threshold; NaN where nobody forecast or observed an event."""
    total = counts.sum(axis=1)
    return np.divide(counts[:, 0], total, out=np.full(len(total), math.nan), where=total > 0)


def score_record(path: Path, source: Path, baselines: Path, candidates: Sequence[Chosen]) -> Scores:
    """By candidate the CSI (2, threshold) of a record, its own and that of pysteps where it knows; empty without cases."""
    (record,) = open_records([path])
    try:
        cases = choose_cases(record, record.time_step)
    except DataError:
        return {}
    kept = {name: kept_forecasts(name, record, cases, baselines) for name in KEPT}
    sums: dict[Chosen, np.ndarray] = {}
    for past, observed, others in _cases(record, cases, kept):
        known = np.isfinite(observed) & np.logical_and.reduce([np.isfinite(field) for field in others.values()])
        for candidate in candidates:
            with using(candidate):
                forecast = untrained(source).forecast(past[None], cases.num_leads)[0]
            both = [counted(field, observed, known & np.isfinite(forecast)) for field in (forecast, others[AGAINST])]
            sums[candidate] = sums.get(candidate, 0) + np.array(both)
    return {name: np.array([csi(ours), csi(theirs)]) for name, (ours, theirs) in sums.items()}


def _cases(
    record: Record, cases: Cases, kept: Mapping[str, Any]
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Past frames, observed ones, and the forecasts of the baselines."""
    windows = plan(record.times, input_frames=PAST, lead_frames=cases.num_leads, time_step=cases.step)
    lead_times = np.arange(1, cases.num_leads + 1) * cases.step
    for positions in windows.select(np.isin(record.times[windows.reference_positions], cases.references)).positions:
        reference = record.times[positions[PAST - 1]]
        fields = {name: forecast.forecast_at(reference, lead_times) for name, forecast in kept.items()}
        yield record.read(positions[:PAST]), record.read(positions[PAST:]), fields


def score_all(
    paths: Sequence[Path], given: argparse.Namespace, candidates: Mapping[str, Sequence[Chosen]]
) -> dict[str, Scores]:
    """By service what `score_record` finds, averaged over its records; each service has its own candidates."""
    tasks = [(path, given.config, given.baselines, candidates[path.parent.name]) for path in paths]
    if given.jobs == 1:
        found = list(starmap(score_record, tasks))
    else:
        with multiprocessing.get_context("spawn").Pool(given.jobs, torch.set_num_threads, (1,)) as pool:
            found = pool.starmap(score_record, tasks, chunksize=1)
    return {
        service: averaged([one for path, one in zip(paths, found, strict=True) if path.parent.name == service and one])
        for service in candidates
    }


def averaged(records: Sequence[Scores]) -> Scores:
    """Over the records in which a figure is defined for all; NaN where it is in none."""
    defined = [np.isfinite(list(record.values())).all(axis=(0, 1)) for record in records]
    number_defined = np.sum(defined, axis=0)
    sums = {
        name: sum(np.where(is_defined, record[name], 0) for record, is_defined in zip(records, defined, strict=True))
        for name in records[0]
    }
    return {name: np.where(number_defined > 0, total / np.maximum(number_defined, 1), math.nan) for name, total in sums.items()}


def ratio_of_means(scores: Sequence[np.ndarray]) -> np.ndarray:
    """By threshold, of services in which it is defined."""
    ours, theirs = np.nansum(scores, axis=0)
    return ours / theirs


def choose(services: Sequence[Scores]) -> Chosen:
    """The constants that are best on these services, each beside the package's others; those of the package left out."""
    chosen: Chosen = ()
    for constant in CONSTANTS.values():
        candidates = [(), *(((constant.name, value),) for value in constant.others)]
        chosen += max(candidates, key=lambda candidate: ratio_of_means([each[candidate] for each in services])[LIGHT].mean())
    return chosen


def table(found: Mapping[str, Scores], chosen: Mapping[str, Chosen], blind: Mapping[str, Scores]) -> str:
    """What each fold got, and the ratios to pysteps with the package's constants and with those."""
    rows = [
        [name, f"{constant.own}", *(f"{dict(chosen[fold]).get(name, constant.own)}" for fold in FOLDS)]
        for name, constant in CONSTANTS.items()
    ]
    lines = markdown(["constant", "package", *(f"fold {fold}" for fold in FOLDS)], rows)
    own = [blind[service][chosen[fold]] for fold, services in FOLDS.items() for service in services]
    rows = []
    for name, scores in (("the package's", [each[()] for each in found.values()]), ("chosen without the fold", own)):
        ratios = np.nanmean([ours / theirs for ours, theirs in scores], axis=0)
        both = zip(ratios, ratio_of_means(scores), strict=True)
        rows.append([name, *(f"{number(mean_ratio)} ({number(of_means)})" for mean_ratio, of_means in both)])
    header = ["constants", *(f"CSI≥{threshold:g} ÷ {AGAINST} (of the means)" for threshold in THRESHOLDS)]
    return "\n".join([*lines, "", *markdown(header, rows)])


def work(given: argparse.Namespace) -> str:
    services = [service for fold in FOLDS.values() for service in fold]
    paths = records_of(given.radar, services)
    candidates = [(), *(((name, value),) for name, constant in CONSTANTS.items() for value in constant.others)]
    found = score_all(paths, given, dict.fromkeys(services, candidates))
    chosen = {fold: choose([found[s] for s in services if s not in inside]) for fold, inside in FOLDS.items()}
    own = {service: [chosen[fold]] for fold, inside in FOLDS.items() for service in inside}
    return table(found, chosen, score_all(paths, given, own))


def main(argv: Sequence[str] | None = None) -> None:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "radar.toml")
    parser.add_argument(
        "--baselines", type=Path, required=True, help="folder of the baselines' forecasts, as skill.py keeps them"
    )
    parser.add_argument("--radar", type=Path, default=shared / "radar", help="folder with a folder of records for each service")
    parser.add_argument("--jobs", type=int, default=1, help="records at once; of several, each on one core")
    given = parser.parse_args(argv)
    try:
        print(work(given))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
