#!/usr/bin/env python3
"""Score a network and the baselines on one record, as in services.py.

A record is forecast from up to `--starts` reference times, evenly spaced among those with 4 past frames and all lead times.
There are 12 lead times, or fewer if no part of the record without a gap is long enough. The forecasts of pysteps and
S-PROG, which take long and do not depend on the network, are kept in `--baselines` as forecast files and scored from there,
with the same scores as by `nowcast evaluate`. Called again, the script keeps what is done.

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
KEPT = ("pysteps", "sprog")  # baselines whose forecasts are kept, since one can take minutes on a large grid
CASES = "cases.json"  # what was scored; written last: in a folder with this file all others are complete

log = logging.getLogger("nowcast.skill")


@dataclass(frozen=True)
class Cases:
    """The forecasts of a record that are scored: their reference times, number of lead times and time step."""

    step: np.timedelta64
    num_leads: int
    references: tuple[np.datetime64, ...]

    def as_dict(self) -> dict[str, Any]:
        references = [f"{reference}Z" for reference in self.references]
        return {"step_minutes": self.step / MINUTE, "leads": self.num_leads, "references": references}


def choose_cases(record: Record, step: np.timedelta64, *, most_leads: int = LEADS, starts: int = STARTS) -> Cases:
    """Choose the cases of a record, with `most_leads` lead times or as many as a part of it without a gap allows.

    Frames that are all missing are not used as past frames. Raises DataError (exit 3) if no case has even one lead time.
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
    """Open a baseline that forecasts with the lead times and time step of the cases."""
    made = BASELINES[name]()
    made.lead_frames, made.own_time_step = cases.num_leads, lambda record: cases.step
    return made


def kept_forecasts(name: str, record: Record, cases: Cases, folder: Path) -> ForecastFiles:
    """Open the baseline's forecasts of the cases, kept in a file in `folder`; make them if the file does not exist."""
    first, last = (str(cases.references[n]).replace(":", "").replace("-", "") for n in (0, -1))
    shape = f"{cases.num_leads}x{cases.step / MINUTE:g}min_{len(cases.references)}_from_{first}_to_{last}"
    path = folder / record.paths[0].parent.name / record.name / f"{name}_{shape}.nc"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # overwrite=True: another process may have written the same file in the meantime
        options = {"selection": Selection(listed=cases.references), "folder": False, "overwrite": True}
        predict(baseline(name, cases), [record], path, **options)
    opened = open_forecaster(str(path), device=pick_device("cpu"))
    opened.name = name
    return opened


def sources_of(network: Forecaster, record: Record, cases: Cases, baselines: Path) -> dict[str, Forecaster]:
    """Return the network, then the baselines other than the network itself."""
    named = {network.name: baseline(network.name, cases) if network.name in BASELINES else network}
    for name in BASELINES:
        if name in KEPT:
            named[name] = kept_forecasts(name, record, cases, baselines)
        elif name not in named:
            named[name] = baseline(name, cases)
    return named


def seen_of(network: Forecaster, service: Path) -> list[str]:
    """Return the names of the records in a service's folder on which the network was trained or validated."""
    spans = network.metadata.get("spans", {}) if isinstance(network, Network) else {}
    seen = {name for split in spans.values() for name, *_ in split}
    return sorted(seen & {path.stem for path in service.glob("*.nc")})


def identity(network: Forecaster, record: Record, cases: Cases) -> dict[str, Any]:
    """Return everything that the scores depend on, and the description of the network for the table, for cases.json."""
    values: dict[str, Any] = {"network": network.name, "seen": seen_of(network, record.paths[0].parent), **cases.as_dict()}
    values["record_minutes"] = record.time_step / MINUTE  # a network may forecast with a longer time step
    if isinstance(network, Network):
        values |= {"digest": network.digest, "step": network.metadata["step"], "model": network.experiment.model.name}
    return values


def score_record(path: Path, network: str, output: Path, baselines: Path, *, starts: int, device: str) -> str:
    """Score a network (a run, a checkpoint or a baseline's name) and all baselines on a record; return a line about it.

    If the network cannot forecast the record, cases.json holds the reason, and the table shows it.
    """
    if missing := [name for name in KEPT if name not in available()]:
        raise UsageError(f"{' and '.join(missing)} cannot be scored without pysteps: pip install pysteps")
    opened = open_forecaster(network, device=pick_device(device))
    if not opened.makes_forecasts or opened.input_frames > PAST:
        raise UsageError(f"{network} is not a network of at most {PAST} input frames")
    (record,) = open_records([path], **(opened.reading or {}))
    try:
        cases = choose_cases(record, opened.time_step(record), most_leads=min(LEADS, opened.num_leads), starts=starts)
    except DataError as error:
        _write(output, {"network": opened.name, "refused": str(error).splitlines()[0]})
        return f"{output}: {error}"
    identity_of_scores = identity(opened, record, cases)
    if read_cases(output) == identity_of_scores:
        return f"{output}: done already"
    (output / CASES).unlink(missing_ok=True)
    sources = sources_of(opened, record, cases, baselines)
    evaluation = evaluate(sources, [record], selection=Selection(), thresholds=THRESHOLDS)
    write_scores(evaluation, output)
    _write(output, identity_of_scores)
    return f"{output}: {evaluation.num_cases} cases of {cases.num_leads} leads"


def write_scores(evaluation: Evaluation, output: Path) -> None:
    """Write scores.nc and scores.json as `nowcast evaluate` does, which can make a report from scores.nc."""
    output.mkdir(parents=True, exist_ok=True)
    rows = evaluation.rows()
    with replacing(output / SCORES_JSON) as temporary:
        temporary.write_text(as_json(evaluation, rows), encoding="utf-8")
    with replacing(output / SCORES_NC) as temporary:
        write_dataset(as_dataset(evaluation, rows), temporary)


def read_cases(output: Path) -> dict[str, Any] | None:
    """Read the scores in a folder; None if they are incomplete."""
    path = output / CASES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write(output: Path, identity_of_scores: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / CASES) as temporary:
        temporary.write_text(json.dumps(identity_of_scores, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path, help="NetCDF file in the folder of its service")
    parser.add_argument("--network", required=True, help="run folder, checkpoint, or name of a baseline")
    parser.add_argument("--output", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--baselines", type=Path, required=True, help="folder of the baselines' forecasts")
    parser.add_argument("--starts", type=int, default=STARTS)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options = {"starts": args.starts, "device": args.device}
        print(score_record(args.record, args.network, args.output, args.baselines, **options))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
