#!/usr/bin/env python3
"""One record of the protocol in skill.py: the cases to forecast, the baselines' forecasts, and the scores of a network.

A record is forecast from up to `--starts` reference times, spread evenly over those that have 4 past frames and the leads;
12 leads where a stretch of the record allows, else as many as the longest does. What takes long and does not depend on the
network, the forecasts of pysteps and S-PROG, is kept in `--baselines` as forecast files and scored from there: to the last
bit what `nowcast evaluate` would have made of them. Called again, what is done is kept.

    python scripts/skill/record.py radar/fmi/20160928.nc --network runs/radar --output scores/fmi --baselines baselines
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nowcast.dataset.windows import find_windows
from nowcast.errors import DataError, NowcastError, UsageError
from nowcast.evaluation.evaluate import MINUTE, evaluate
from nowcast.evaluation.result import Evaluation
from nowcast.evaluation.score_files import SCORES_JSON, SCORES_NC, as_dataset, as_json, write_dataset
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.forecasters.forecast_files import ForecastFiles
from nowcast.forecasters.forecaster import Forecaster
from nowcast.forecasters.network import Network
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import predict
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import replacing
from nowcast.scores.pixels import THRESHOLDS

PAST, LEADS, STARTS = 4, 12, 6
KEPT = ("pysteps", "sprog")  # whose forecasts take long: up to minutes for a case of a large grid
CASES = "cases.json"  # what was scored; written last, so that what it stands beside is whole

log = logging.getLogger("nowcast.skill")


@dataclass(frozen=True)
class Cases:
    """What is forecast of a record: from these reference times, so many leads of one time step."""

    step: np.timedelta64
    num_leads: int
    references: tuple[np.datetime64, ...]

    def as_dict(self) -> dict[str, Any]:
        references = [f"{reference}Z" for reference in self.references]
        return {"step_minutes": self.step / MINUTE, "leads": self.num_leads, "references": references}


def choose_cases(record: Record, step: np.timedelta64, *, most_leads: int = LEADS, starts: int = STARTS) -> Cases:
    """The cases of a record with `most_leads`, or else the most leads that any of its stretches has frames for.

    Frames that are missing as a whole can be no past frames. Raises DataError where not even one lead is there.
    """
    empty = np.array([np.isnan(record.read([n])).all() for n in range(len(record))])
    for leads in range(most_leads, 0, -1):
        windows = find_windows(record.times, input_frames=PAST, lead_frames=leads, time_step=step)
        windows = windows.select(~empty[windows.positions[:, :PAST]].any(axis=1))
        if len(windows):
            chosen = np.unique(np.linspace(0, len(windows) - 1, min(starts, len(windows))).round().astype(int))
            return Cases(step, leads, tuple(record.times[windows.reference_positions[chosen]]))
    raise DataError(f"{record.name} has no {PAST} + 1 frames {step / MINUTE:g} min apart: nothing can be forecast and scored")


def baseline(name: str, cases: Cases) -> Forecaster:
    """A baseline that forecasts these leads in this step, as it does beside a network of them."""
    made = BASELINES[name]()
    made.lead_frames, made.own_time_step = cases.num_leads, lambda record: cases.step
    return made


def kept_forecasts(name: str, record: Record, cases: Cases, folder: Path) -> ForecastFiles:
    """The baseline's forecasts of the cases from the file that is kept in `folder`, made now if it is not there."""
    first, last = (str(cases.references[n]).replace(":", "").replace("-", "") for n in (0, -1))
    shape = f"{cases.num_leads}x{cases.step / MINUTE:g}min_{len(cases.references)}_from_{first}_to_{last}"
    path = folder / record.paths[0].parent.name / record.name / f"{name}_{shape}.nc"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # replacing what another process may have made in the meantime: it is the same
        options = {"selection": Selection(listed=cases.references), "folder": False, "overwrite": True}
        predict(baseline(name, cases), [record], path, **options)
    opened = open_forecaster(str(path), device=pick_device("cpu"))
    opened.name = name
    return opened


def sources_of(network: Forecaster, record: Record, cases: Cases, baselines: Path) -> dict[str, Forecaster]:
    """The network first, then the baselines that are not the network itself."""
    named = {network.name: baseline(network.name, cases) if network.name in BASELINES else network}
    for name in BASELINES:
        if name in KEPT:
            named[name] = kept_forecasts(name, record, cases, baselines)
        elif name not in named:
            named[name] = baseline(name, cases)
    return named


def seen_of(network: Forecaster, service: Path) -> list[str]:
    """The records of a service's folder that the network was trained or validated on, by their names."""
    spans = network.facts.get("spans", {}) if isinstance(network, Network) else {}
    seen = {name for split in spans.values() for name, *_ in split}
    return sorted(seen & {path.stem for path in service.glob("*.nc")})


def identity(network: Forecaster, record: Record, cases: Cases) -> dict[str, Any]:
    """Everything that the scores depend on, and what the table says of the network."""
    facts: dict[str, Any] = {"network": network.name, "seen": seen_of(network, record.paths[0].parent), **cases.as_dict()}
    facts["record_minutes"] = record.time_step / MINUTE  # a network may forecast in longer steps
    if isinstance(network, Network):
        facts |= {"digest": network.digest, "step": network.facts["step"], "model": network.experiment.model.name}
    return facts


def score_record(path: Path, network: str, output: Path, baselines: Path, *, starts: int, device: str) -> str:
    """Score a network (a run, a checkpoint or a baseline's name) and all baselines on a record; returns a line about it.

    A network that cannot forecast the record is written down with the reason; the table says so.
    """
    if missing := [name for name in KEPT if name not in available()]:
        raise UsageError(f"{' and '.join(missing)} cannot be scored without pysteps: pip install pysteps")
    opened = open_forecaster(network, device=pick_device(device))
    if not opened.makes_forecasts or opened.input_frames > PAST:
        raise UsageError(f"{network} is no network of at most {PAST} input frames")
    (record,) = open_records([path], **(opened.reading or {}))
    try:
        cases = choose_cases(record, opened.time_step(record), most_leads=min(LEADS, opened.num_leads), starts=starts)
    except DataError as error:
        _write(output, {"network": opened.name, "refused": str(error).splitlines()[0]})
        return f"{output}: {error}"
    facts = identity(opened, record, cases)
    if read_cases(output) == facts:
        return f"{output}: done already"
    (output / CASES).unlink(missing_ok=True)
    sources = sources_of(opened, record, cases, baselines)
    evaluation = evaluate(sources, [record], selection=Selection(), thresholds=THRESHOLDS)
    write_scores(evaluation, output)
    _write(output, facts)
    return f"{output}: {evaluation.num_cases} cases of {cases.num_leads} leads"


def write_scores(evaluation: Evaluation, output: Path) -> None:
    """scores.nc and scores.json as `nowcast evaluate` writes them; given scores.nc, it makes the report and its pictures."""
    output.mkdir(parents=True, exist_ok=True)
    rows = evaluation.rows()
    with replacing(output / SCORES_JSON) as temporary:
        temporary.write_text(as_json(evaluation, rows), encoding="utf-8")
    with replacing(output / SCORES_NC) as temporary:
        write_dataset(as_dataset(evaluation, rows), temporary)


def read_cases(output: Path) -> dict[str, Any] | None:
    """What was scored into a folder; None where that is not complete."""
    path = output / CASES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write(output: Path, facts: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / CASES) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path, help="a file in the folder of its service")
    parser.add_argument("--network", required=True, help="a run folder, a checkpoint, or a baseline's name")
    parser.add_argument("--output", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--baselines", type=Path, required=True, help="folder of the baselines' forecasts")
    parser.add_argument("--starts", type=int, default=STARTS)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options = {"starts": given.starts, "device": given.device}
        print(score_record(given.record, given.network, given.output, given.baselines, **options))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
