#!/usr/bin/env python3
"""Compare a network with optical flow on radars that it was not trained on, by cross-validation over weather services.

The services are divided into four folds. For each fold, the config is trained on the records of all other services. The
network and persistence, extrapolation, pysteps and S-PROG are scored on the records of the fold (record.py), from 4 past
frames for up to 12 lead times. The table (table.py) is printed, and written to OUTPUT/skill.md and skill.json. Called
again, the script resumes interrupted work and keeps what is done. `--network` scores one trained network on all folds.

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
# Folds hold whole services, so that a network is never trained on another day of a radar that it is scored on.
FOLDS = {"A": ("mch", "mrms"), "B": ("fmi", "opera"), "C": ("knmi", "bom"), "D": ("dwd", "meteofrance", "smhi")}
WORK = ("train", "evaluate", "table")
SHOWN = 4  # number of different keys that a message names


def records_of(radar: Path, services: Sequence[str]) -> list[Path]:
    """Return the files of these services. Raises DataError (exit 3) if a service has none."""
    paths_of = {service: sorted((radar / service).glob("*.nc")) for service in services}
    if absent := [service for service, paths in paths_of.items() if not paths]:
        raise DataError(f"no records of {', '.join(absent)} in {radar}.\nExpected a folder with a folder for each service.")
    return [path for paths in paths_of.values() for path in paths]


def training_records(radar: Path, fold: str, data: Data) -> tuple[list[Path], list[Path]]:
    """Return the records of all services outside the fold: those with at least one training window, and the others."""
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


def training_command(args: argparse.Namespace, fold: str) -> list[str] | None:
    """Return the command that starts or resumes the training of a fold's network; None if it is trained.

    Raises CheckpointError (exit 4) if the training was started with another config or other records.
    """
    run, settings = run_folder(args, fold), [setting.replace("{fold}", fold) for setting in args.set]
    experiment = config.read(args.config, settings)
    records, left_out = training_records(args.radar, fold, experiment.data)
    if left_out:
        frames = f"{experiment.data.input_frames} + {experiment.data.lead_frames} frames"
        print(f"fold {fold}: not trained on {_names(left_out)}, too short for {frames}", file=sys.stderr)
    data = experiment.data.model_copy(update={"records": tuple(map(str, records))})
    check_same(run, experiment.model_copy(update={"data": data}))
    if is_trained(run):
        print(f"fold {fold}: {run} is trained already", file=sys.stderr)
        return None
    words = ["-m", "nowcast", "train", str(args.config), "--output", str(run), "--device", args.device]
    words += [word for setting in settings for word in ("--set", setting)]
    words += [word for path in records for word in ("--data", str(path))]
    return [sys.executable, *words, "--resume" if is_resumable(run) else "--overwrite"]


def check_same(run: Path, experiment: Experiment) -> None:
    """Raise CheckpointError (exit 4) if a run was started with another config or other records, wherever these lie."""
    if not (run / CONFIG).is_file():
        return
    before, now = (_flat(config.as_dict(resolve(e))) for e in (config.read(run / CONFIG), experiment))
    if now["training.batch_size"] == "auto":  # in the run's config it is a number
        now["training.batch_size"] = before["training.batch_size"]
    before["data.records"], now["data.records"] = (_names(map(Path, sorted(k["data.records"]))) for k in (before, now))
    differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differ:
        listed = ", ".join(f"{key} = {now.get(key)} (there: {before.get(key)})" for key in differ[:SHOWN])
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise CheckpointError(
            f"{run} was trained with another config: {listed}{more}.\n"
            "Give another --output, or the config that it was started with."
        )


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return flat


def _names(paths: Iterator[Path] | Sequence[Path]) -> str:
    return ", ".join("/".join(path.with_suffix("").parts[-2:]) for path in paths)


def is_trained(run: Path) -> bool:
    """Return whether training has ended, by the validation of its last step or by early stopping.

    A run with a best checkpoint and no state to resume from was copied from elsewhere, and counts as trained.
    """
    if not (run / LAST).is_file():
        return (run / BEST).is_file() and not is_resumable(run)
    metadata = read_checkpoint(run / LAST).metadata
    state, patience = metadata["state"], metadata["config"]["training"]["early_stopping"]
    is_done = metadata["num_steps"] <= state["step"] == state["validated_step"]
    return is_done or 0 < patience <= state["validations_since_best"]


def run_folder(args: argparse.Namespace, fold: str) -> Path:
    return args.output / f"fold_{fold}"


def evaluation_commands(args: argparse.Namespace, fold: str) -> list[list[str]]:
    """Return the command that scores the network on a record, for each record of the fold."""
    run, script = run_folder(args, fold), Path(__file__).with_name("record.py")
    network = args.network or str(run)
    if args.network and (run / CONFIG).exists():
        raise UsageError(f"{run} holds a network of its own: give another --output to score {args.network}")
    if not args.network and not (run / BEST).exists():
        raise CheckpointError(f"{run} holds no trained network: run `--only train` first, or name one with --network")
    words = ["--network", network, "--baselines", str(args.baselines), "--starts", str(args.starts), "--device", args.device]
    paths = records_of(args.radar, FOLDS[fold])
    outputs = [run / path.parent.name / path.stem for path in paths]
    return [[sys.executable, str(script), str(p), "--output", str(o), *words] for p, o in zip(paths, outputs, strict=True)]


def run_all(commands: Sequence[list[str]], *, jobs: int) -> None:
    """Run commands, `jobs` at a time. If this program is stopped, so are they; a training then saves its state.

    Raises NowcastError with the exit code of the first command that failed, after all have ended.
    """
    environment = {"OMP_NUM_THREADS": f"{max(num_cores() // jobs, 1)}"} | os.environ
    running: list[subprocess.Popen] = []

    def call(words: list[str]) -> int:
        print(shlex.join(words), file=sys.stderr, flush=True)
        # stdout=2: only the table goes to stdout. A new session, so that Ctrl-C reaches the process only once, from here.
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


def work(args: argparse.Namespace) -> str:
    """Do the work that `--only` names for the folds; return the table, or a line if no table was asked for."""
    if "train" in args.only and not args.network:
        commands = [training_command(args, fold) for fold in args.folds]
        run_all([words for words in commands if words], jobs=args.jobs)
    if "evaluate" in args.only:
        run_all([words for fold in args.folds for words in evaluation_commands(args, fold)], jobs=args.jobs)
    if "table" not in args.only:
        return f"{args.output}: {' and '.join(args.only)} done"
    names = [_names([path]) for services in FOLDS.values() for path in records_of(args.radar, services)]
    return skill_table.write_table(args.output, {fold: FOLDS[fold] for fold in args.folds}, names)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, the scores and the table")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "radar.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change one key of the config; {fold} in it stands for the fold's letter")  # fmt: skip
    parser.add_argument("--folds", nargs="+", choices=FOLDS, default=list(FOLDS), metavar="FOLD")
    parser.add_argument(
        "--only", nargs="+", choices=WORK, default=list(WORK), metavar="WORK", help="train, evaluate, table or some of them"
    )
    parser.add_argument("--network", help="run, checkpoint or baseline to score on all folds, without training")
    parser.add_argument("--baselines", type=Path, help="folder of the baselines' forecasts; default OUTPUT/baselines")
    parser.add_argument("--radar", type=Path, default=shared / "radar", help="folder with a folder of records for each service")
    parser.add_argument("--starts", type=int, default=STARTS, help="largest number of forecasts of each record")
    parser.add_argument("--jobs", type=int, default=1, help="number of trainings or records at a time, which share the cores")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    args.baselines = args.baselines or args.output / "baselines"
    if args.starts < 1 or args.jobs < 1:
        parser.error("--starts and --jobs are at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with terminating():
            args.output.mkdir(parents=True, exist_ok=True)
            print(work(args))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Terminated) as stopped:
        print(f"stopped: call again to continue from what is in {args.output}", file=sys.stderr)
        sys.exit(130 if isinstance(stopped, KeyboardInterrupt) else 143)


if __name__ == "__main__":
    main()
