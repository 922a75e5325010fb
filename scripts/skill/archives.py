#!/usr/bin/env python3
"""Train a network on some days of months of one radar, and score it on other days beside baselines without training.

A day's number is days since 1970-01-01 UTC modulo 10. Networks train on days 0 to 4; the cascade (cascade.py) is corrected
on day 6; everything is scored on day 7, or on days 8 and 9 of the records in `--test`. A case is 4 past and 12 future frames
that are at least 1 % wet (0.1 mm/h or more); `--cases` of them are taken, spread evenly over the days. `nowcast evaluate`'s own
code scores them. Intervals are 95 % of a bootstrap over days, and those of ratios draw the same days on both sides.

    python scripts/skill/archives.py --archive taasrad --output runs/taasrad_skill
    python scripts/skill/archives.py --archive taasrad --network runs/taasrad --output runs/taasrad_skill
    python scripts/skill/archives.py --archive taasrad --network pretrained --test days_8_and_9 --output runs/taasrad_test

The forecasts of pysteps and S-PROG, if pysteps is installed, and the cascade's correction are kept in `--output`: called again,
the program goes on from what is there. Started by torchrun, its processes share the cases. The table is printed, and written to
archive.md and archive.json.
"""

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from archive_table import write_table
from cascade import LEADS, PAST, THRESHOLDS, Cascade, calibrated, count

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.config.schema import Data, Splits
from nowcast.dataset.archive import open_split, packed
from nowcast.dataset.splits import split_by_days
from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import DataError, NowcastError
from nowcast.evaluation.evaluate import evaluate
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.baselines import BASELINES, available
from nowcast.forecasters.forecaster import Forecaster
from nowcast.models.guided.calibration import GUIDANCE_CENTRES
from nowcast.models.guided.network import Guided
from nowcast.netcdf.record import Record
from nowcast.plan.own_archive import batch_of_whole_grids
from nowcast.prediction.cases import Selection
from nowcast.prediction.pipeline import file_name, predict
from nowcast.runtime import distributed
from nowcast.runtime.device import pick_device
from nowcast.runtime.outputs import replacing
from nowcast.runtime.progress import track
from nowcast.runtime.signals import Terminated, terminating
from nowcast.training import run_folder

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = ("meteocat", "singapore", "taasrad")
EVERY_DAYS, VALIDATION_DAYS, TEST_DAYS, WITHHELD_DAYS = 10, (6,), (7,), (8, 9)
MIN_WET = 0.01  # mean fraction of wet cells in the frames of a case
CASES = 300
COUNTED_AT_ONCE = 20  # cases from one saving of the counts to the next
CONFIG = ROOT / "configs" / "archive.toml"
NO_NETWORK = "none"  # value of --network: only the cascade and the baselines
KEPT = ("pysteps", "sprog")  # baselines whose forecasts are kept in files: they take up to seconds each

log = logging.getLogger("nowcast.skill")


@dataclass(frozen=True)
class Cases:
    """A record and the windows of its cases."""

    record: Record
    windows: Windows

    @property
    def references(self) -> np.ndarray:
        """(case,) reference times, ascending."""
        return self.record.times[self.windows.reference_positions]

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the past and the future frames of a case, (time, y, x) mm/h."""
        frames = self.record.read(self.windows.positions[number])
        return frames[:PAST], frames[PAST:]


def open_record(folder: Path) -> Record:
    """Open the one record of a folder; DataError (exit 3) if its files are not on one grid."""
    records = open_split([folder], Data())
    if len(records) != 1:
        raise DataError(f"{folder} holds {len(records)} records.\nExpected one radar on one grid.")
    return records[0]


def choose_cases(record: Record, days: Sequence[int], most: int) -> Cases:
    """Choose up to `most` wet cases on days with these numbers (modulo 10), equally many per day if possible.

    Raises DataError (exit 3) if there is none.
    """
    windows = find_windows(
        record.times, input_frames=PAST, lead_frames=LEADS, time_step=record.time_step,
        wet=packed(record).wet, min_wet=MIN_WET,
    )  # fmt: skip
    windows = split_by_days(windows, record.times, every_days=EVERY_DAYS, days={"test": days})["test"]
    if not len(windows):
        numbers = " and ".join(map(str, days))
        raise DataError(f"{record.name} has no case of {PAST} + {LEADS} frames, 1 % wet, on days {numbers} of every ten")
    day = record.times[windows.reference_positions].astype("datetime64[D]")
    return Cases(record, windows.select(spread_over_days(day, most)))


def spread_over_days(days: np.ndarray, most: int) -> np.ndarray:
    """Choose `most` of the cases, or all, as evenly over the days as they allow, and evenly within each day.

    days: (case,) the day of each, ascending
    returns: mask (case,)
    """
    starts, sizes = np.unique(days, return_index=True, return_counts=True)[1:]
    shares = np.zeros(len(sizes), np.int64)
    while shares.sum() < min(most, len(days)):
        open_days = np.flatnonzero(shares < sizes)
        wanted = min(most, len(days)) - shares.sum()
        if wanted < len(open_days):  # the last few are spread over days of the whole archive
            open_days = open_days[np.linspace(0, len(open_days) - 1, wanted).round().astype(int)]
        shares[open_days] += 1
    chosen = np.zeros(len(days), bool)
    for start, size, share in zip(starts, sizes, shares, strict=True):
        chosen[start + ((np.arange(share) + 0.5) * size / max(share, 1)).astype(int)] = True
    return chosen


def cascade_of(cases: Cases, path: Path) -> Guided:
    """Fit the cascade's correction to the cases. Counts are kept in `path` as they grow, and continued from there."""
    identity = hashlib.sha256(f"{cases.record.name} {cases.references.tolist()}".encode()).hexdigest()
    counts, num_counted = _kept_counts(path, identity)
    numbers = range(num_counted, len(cases.windows))
    for number in track(numbers, f"correcting the cascade on {cases.record.name}", unit="case"):
        counts = counts + count(*cases.read(number))
        if (number + 1) % COUNTED_AT_ONCE == 0 or number == numbers[-1]:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, identity=identity, counts=counts, num_counted=number + 1)
    return calibrated(counts)


def _kept_counts(path: Path, identity: str) -> tuple[np.ndarray | int, int]:
    """Return the counts in a file and the number of cases in them; zeros if it is absent, of other cases or other bins."""
    if path.exists():
        with np.load(path) as kept:
            if str(kept["identity"]) == identity and kept["counts"].shape[2] == len(GUIDANCE_CENTRES):
                return kept["counts"], int(kept["num_counted"])
    return 0, 0


def kept_forecasts(name: str, cases: Cases, folder: Path) -> Forecaster:
    """Return a baseline's forecasts of the cases from files in `folder`; missing ones are made now."""
    missing = [reference for reference in cases.references if not (folder / file_name(reference)).exists()]
    if missing := distributed.gather(missing)[0]:  # as the first process saw the folder before any of them wrote
        predict(BASELINES[name](), [cases.record], folder, selection=Selection(listed=tuple(missing)), folder=True)
    opened = open_forecaster(str(folder), device=pick_device("cpu"))
    opened.name = name
    return opened


def train(
    folder: Path, run: Path, settings: Sequence[str], *, device: str, splits: Splits | None = None, recipe: Path = CONFIG
) -> None:
    """Train a recipe, changed by `settings`, on the record in `folder`; continue the run folder of an interrupted call."""
    experiment = config.read(recipe, settings)
    shape, crop = open_record(folder).grid.shape, experiment.data.crop
    if min(shape) <= crop:  # the grid is smaller than the recipe's crops
        batch_size = batch_of_whole_grids(shape, crop, config.read(recipe).training.batch_size)
        experiment = config.read(recipe, [f"training.batch_size={batch_size}", *settings, "data.crop=0"])
    data = experiment.data.model_copy(update={"records": (str(folder),), **({"splits": splits} if splits else {})})
    is_begun = run_folder.is_resumable(run)
    train_run(experiment.model_copy(update={"data": data}), run, resume=is_begun, overwrite=False, device=device)


def tabulate(arguments: argparse.Namespace) -> str:
    """Score the network, the cascade and all baselines on the test cases; return the table."""
    device = distributed.join(pick_device(arguments.device))
    with distributed.in_turn():  # the first process packs the frames and counts, the others find the results
        archive = open_record(arguments.archives / arguments.archive)
        tested = open_record(arguments.test) if arguments.test else archive
        cases = choose_cases(tested, WITHHELD_DAYS if arguments.test else TEST_DAYS, arguments.cases)
        validation = choose_cases(archive, VALIDATION_DAYS, arguments.cases)
        cascade = cascade_of(validation, arguments.output / f"{arguments.archive}_cascade.npz")
    forecasters: dict[str, Forecaster] = {}
    if arguments.network != NO_NETWORK:
        run = arguments.output / f"{arguments.archive}_run"
        if not arguments.network:
            train(arguments.archives / arguments.archive, run, arguments.set, device=arguments.device)
        network = open_forecaster(arguments.network or str(run), device=device)
        forecasters[network.name] = network
    forecasters["cascade"] = Cascade(cascade, cases.references)
    folder = arguments.output / "baselines" / (arguments.test.resolve().name if arguments.test else arguments.archive)
    for name in (name for name in available() if name not in forecasters):
        forecasters[name] = kept_forecasts(name, cases, folder / name) if name in KEPT else BASELINES[name]()
    if len(cases.windows) < arguments.cases:
        log.warning("%s has only %d of the %d requested cases", tested.name, len(cases.windows), arguments.cases)
    evaluation = evaluate(forecasters, [tested], selection=Selection(), thresholds=THRESHOLDS)
    if not distributed.is_first():
        return ""
    named = None if arguments.network == NO_NETWORK else network.name
    return write_table(evaluation, arguments.output, archive=arguments.archive, test=arguments.test, network=named)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True, choices=ARCHIVES)
    parser.add_argument("--network", help=f"a run folder, a checkpoint, pretrained, or {NO_NETWORK}; default: train one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the config that is trained")
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="other records of the same radar, to score on days 8 and 9")
    parser.add_argument("--cases", type=int, default=CASES, help=f"cases to correct on and to score; default {CASES}")
    parser.add_argument("--output", type=Path, required=True, help="folder of the table and of intermediate results")
    parser.add_argument("--archives", type=Path, default=shared / "archives", help="folder with a folder for each archive")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    if arguments.cases < 1:
        parser.error("--cases is at least 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with terminating():
            arguments.output.mkdir(parents=True, exist_ok=True)
            if text := tabulate(arguments):
                print(text)
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Terminated) as stopped:
        print(f"stopped: call again to continue from the results in {arguments.output}", file=sys.stderr)
        sys.exit(130 if isinstance(stopped, KeyboardInterrupt) else 143)


if __name__ == "__main__":
    main()
