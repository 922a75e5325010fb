#!/usr/bin/env python3
"""A network beside optical flow on radar it has never seen: leave services out, in one command that can be called again.

The services are in four folds. For each fold the config is trained on the records of all other services, and the network is
scored on the records of the fold (skill_record.py) beside persistence, extrapolation, pysteps and S-PROG, from 4 past frames
for 12 leads where a record has them. The table (skill_table.py) is printed, and written to OUTPUT/skill.md and skill.json.
What was interrupted goes on, what is done is kept. `--network` scores one network that is trained already on all folds.

    python scripts/skill/services.py --output runs/skill
    python scripts/skill/services.py --output runs/skill --folds A B --only train --jobs 2 --set training.steps=5000
    python scripts/skill/services.py --output runs/other --network runs/radar --baselines runs/skill/baselines
"""

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import table as skill_table
from record import STARTS

from nowcast import config
from nowcast.config.schema import Data, Experiment
from nowcast.dataset.archive import open_split
from nowcast.dataset.windows import find_windows
from nowcast.errors import CheckpointError, DataError, NowcastError, UsageError
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint
from nowcast.runtime.device import num_cores
from nowcast.runtime.signals import Terminated, terminating
from nowcast.training.experiment import resolve
from nowcast.training.run_folder import CONFIG, is_resumable

ROOT = Path(__file__).resolve().parents[2]
# whole services: no radar of a fold, nor another day of it, is in the training of its network
FOLDS = {"A": ("mch", "mrms"), "B": ("fmi", "opera"), "C": ("knmi", "bom"), "D": ("dwd", "meteofrance", "smhi")}
WORK = ("train", "evaluate", "table")
SHOWN = 4  # keys that differ, in a message


def records_of(radar: Path, services: Sequence[str]) -> list[Path]:
    """The files of these services; DataError where one has none."""
    found = {service: sorted((radar / service).glob("*.nc")) for service in services}
    if absent := [service for service, paths in found.items() if not paths]:
        raise DataError(
            f"no records of {', '.join(absent)} in {radar}.\nRight would be a folder with a folder for each service."
        )
    return [path for paths in found.values() for path in paths]


def training_records(radar: Path, fold: str, data: Data) -> tuple[list[Path], list[Path]]:
    """The records of all services outside the fold: those with at least one training window, and those without."""
    others = [service for name, services in FOLDS.items() if name != fold for service in services]
    with_window, without = [], []
    for path in records_of(radar, others):
        (with_window if _has_window(path, data) else without).append(path)
    return with_window, without


def _has_window(path: Path, data: Data) -> bool:
    def step(record) -> np.timedelta64:
        return record.time_step if data.time_step == "auto" else np.timedelta64(round(data.time_step * 60), "s")

    frames = {"input_frames": data.input_frames, "lead_frames": data.lead_frames}
    return any(len(find_windows(record.times, time_step=step(record), **frames)) for record in open_split([path], data))


def training_command(given: argparse.Namespace, fold: str) -> list[str] | None:
    """The training of a fold's network: begun or resumed; None where it is done.

    Raises CheckpointError where the fold was begun with another config or other records.
    """
    run, settings = run_folder(given, fold), [setting.replace("{fold}", fold) for setting in given.set]
    experiment = config.read(given.config, settings)
    records, left_out = training_records(given.radar, fold, experiment.data)
    if left_out:
        frames = f"{experiment.data.input_frames} + {experiment.data.lead_frames} frames"
        print(f"fold {fold}: not trained on {_names(left_out)}, too short for {frames}", file=sys.stderr)
    data = experiment.data.model_copy(update={"records": tuple(map(str, records))})
    check_same(run, experiment.model_copy(update={"data": data}))
    if is_trained(run):
        print(f"fold {fold}: {run} is trained already", file=sys.stderr)
        return None
    words = ["-m", "nowcast", "train", str(given.config), "--output", str(run), "--device", given.device]
    words += [word for setting in settings for word in ("--set", setting)]
    words += [word for path in records for word in ("--data", str(path))]
    return [sys.executable, *words, "--resume" if is_resumable(run) else "--overwrite"]


def check_same(run: Path, experiment: Experiment) -> None:
    """CheckpointError where a run was begun with other values or other records; where these lie does not matter."""
    if not (run / CONFIG).is_file():
        return
    before, now = (_flat(config.as_dict(resolve(e))) for e in (config.read(run / CONFIG), experiment))
    if now["training.batch_size"] == "auto":  # the run's own is a number
        now["training.batch_size"] = before["training.batch_size"]
    before["data.records"], now["data.records"] = (_names(map(Path, sorted(k["data.records"]))) for k in (before, now))
    differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differ:
        listed = ", ".join(f"{key} = {now.get(key)} (there: {before.get(key)})" for key in differ[:SHOWN])
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise CheckpointError(
            f"{run} was trained with another config: {listed}{more}.\n"
            "Give another --output, or the config that it was begun with."
        )


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return flat


def _names(paths: Iterator[Path] | Sequence[Path]) -> str:
    return ", ".join("/".join(path.with_suffix("").parts[-2:]) for path in paths)


def is_trained(run: Path) -> bool:
    """To its last step, or by early stopping; a network that is there without its state was brought from elsewhere."""
    if not (run / LAST).is_file():
        return (run / BEST).is_file() and not is_resumable(run)
    facts = read_checkpoint(run / LAST).facts
    state, patience = facts["state"], facts["config"]["training"]["early_stopping"]
    return state["step"] >= facts["num_steps"] or 0 < patience <= state["validations_since_best"]


def run_folder(given: argparse.Namespace, fold: str) -> Path:
    return given.output / f"fold_{fold}"


def evaluation_commands(given: argparse.Namespace, fold: str) -> list[list[str]]:
    """One for each record of the fold."""
    run, script = run_folder(given, fold), Path(__file__).with_name("record.py")
    network = given.network or str(run)
    if given.network and (run / CONFIG).exists():
        raise UsageError(f"{run} holds a network of its own: give another --output to score {given.network}")
    if not given.network and not (run / BEST).exists():
        raise CheckpointError(f"{run} holds no trained network: run `--only train` first, or name one with --network")
    words = ["--network", network, "--baselines", str(given.baselines), "--starts", str(given.starts), "--device", given.device]
    paths = records_of(given.radar, FOLDS[fold])
    outputs = [run / path.parent.name / path.stem for path in paths]
    return [[sys.executable, str(script), str(p), "--output", str(o), *words] for p, o in zip(paths, outputs, strict=True)]


def run_all(commands: Sequence[list[str]], *, jobs: int) -> None:
    """Run commands, `jobs` at a time; NowcastError with the exit code of the first that failed, after all have ended.

    What stops this program stops them, once: a training saves its state.
    """
    environment = {"OMP_NUM_THREADS": f"{max(num_cores() // jobs, 1)}"} | os.environ
    running: list[subprocess.Popen] = []

    def call(words: list[str]) -> int:
        print(shlex.join(words), file=sys.stderr, flush=True)
        # results to stderr: the table alone goes to stdout; in a session of its own Ctrl-C reaches it through here only
        process = subprocess.Popen(words, env=environment, stdout=2, start_new_session=True)
        running.append(process)
        return process.wait()

    pool = ThreadPoolExecutor(jobs)
    try:
        codes = list(pool.map(call, commands))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        raise
    finally:
        pool.shutdown()
    if failed := [(code, words) for code, words in zip(codes, commands, strict=True) if code]:
        error = NowcastError(f"{len(failed)} of {len(commands)} commands failed, the first: {shlex.join(failed[0][1])}")
        error.exit_code = failed[0][0] if failed[0][0] > 0 else 128 - failed[0][0]
        raise error


def work(given: argparse.Namespace) -> str:
    """Train, evaluate and tabulate the folds, as far as asked for; returns the table, or a line where none was."""
    if "train" in given.only and not given.network:
        commands = [training_command(given, fold) for fold in given.folds]
        run_all([words for words in commands if words], jobs=given.jobs)
    if "evaluate" in given.only:
        run_all([words for fold in given.folds for words in evaluation_commands(given, fold)], jobs=given.jobs)
    if "table" not in given.only:
        return f"{given.output}: {' and '.join(given.only)} done"
    names = [_names([path]) for services in FOLDS.values() for path in records_of(given.radar, services)]
    return skill_table.write_table(given.output, {fold: FOLDS[fold] for fold in given.folds}, names)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, the scores and the table")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "radar.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change one key of the config; {fold} in it stands for the fold's letter")  # fmt: skip
    parser.add_argument("--folds", nargs="+", choices=FOLDS, default=list(FOLDS), metavar="FOLD")
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK), metavar="WORK", help="of train, evaluate, table")
    parser.add_argument("--network", help="a run, a checkpoint or a baseline to score on all folds, and nothing is trained")
    parser.add_argument("--baselines", type=Path, help="folder of the baselines' forecasts; default OUTPUT/baselines")
    parser.add_argument("--radar", type=Path, default=shared / "radar", help="folder with a folder of records for each service")
    parser.add_argument("--starts", type=int, default=STARTS, help="forecasts of each record, at most")
    parser.add_argument("--jobs", type=int, default=1, help="trainings or records at once, each with its share of the cores")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(argv)
    given.baselines = given.baselines or given.output / "baselines"
    if given.starts < 1 or given.jobs < 1:
        parser.error("--starts and --jobs are at least 1")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    given = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with terminating():
            given.output.mkdir(parents=True, exist_ok=True)
            print(work(given))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Terminated) as stopped:
        print(f"stopped: call again to go on from what is in {given.output}", file=sys.stderr)
        sys.exit(130 if isinstance(stopped, KeyboardInterrupt) else 143)


if __name__ == "__main__":
    main()
