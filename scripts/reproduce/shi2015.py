#!/usr/bin/env python3
"""Repeat table 1 of Shi et al. (2015): make the Moving MNIST records, train, and score on the test sequences.

The score is that of the paper: the cross entropy in nats of the forecasts of the test record, summed over 10 frames of 64 ×
64 pixels and averaged over the test sequences. For comparison the table has the scores of perfect forecasts (the entropy of
the grey pixels), of the mean map of the test set, and of its mean. Called again, the script resumes unfinished trainings
and keeps finished ones. `--steps` and `--sequences` shorten the work; the table states them, and is then not comparable
with the paper.

    python scripts/reproduce/shi2015.py --work runs/shi2015
    python scripts/reproduce/shi2015.py --models shi2015_mmnist_3layer shi2015_mmnist_fc_lstm --steps 200 --sequences 1000
"""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))

import make_moving_mnist
import numpy as np

from nowcast import config
from nowcast.commands.train import train_run
from nowcast.dataset.windows import Windows, find_windows
from nowcast.errors import NowcastError
from nowcast.forecasters import open_forecaster
from nowcast.forecasters.network import Network
from nowcast.models import num_parameters
from nowcast.models.checkpoint import LAST, read_checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.netcdf.record import Record
from nowcast.runtime.device import pick_device

ROOT = Path(__file__).resolve().parents[2]
# Published scores of table 1: config -> nats per sequence.
PUBLISHED = {
    "shi2015_mmnist_fc_lstm": 4832.49,
    "shi2015_mmnist_1layer": 3887.94,
    "shi2015_mmnist_2layer": 3733.56,
    "shi2015_mmnist_3layer": 3670.85,
    "shi2015_mmnist_9x9_2layer": 4782.84,
    "shi2015_mmnist_9x9_3layer": 4231.50,
}
PAST, LEADS = 10, 10
AT_ONCE = 50  # number of sequences that are read and forecast together
# Lowest value of a logarithm, as in the loss: a pixel that is entirely wrong costs 100 nats instead of infinitely many.
LOWEST = -100.0


@dataclass(frozen=True)
class Row:
    """One line of the table. The cross entropy is in nats per sequence."""

    model: str
    cross_entropy: float
    parameters: int | None = None
    steps: str = ""
    device: str = ""
    published: float | None = None


def make_records(folder: Path, digits: Path, number: int) -> dict[str, Path]:
    """Make the record of each split, unless it exists: `number` sequences for training, the others in proportion."""
    paths = {}
    for split, full in make_moving_mnist.NUMBER.items():
        paths[split] = folder / f"{split}.nc"
        if not paths[split].exists():
            count = max(number * full // make_moving_mnist.NUMBER["training"], 1)
            make_moving_mnist.make(paths[split], digits, split, rules="2015", number=count, seed=0)
            print(f"{paths[split]}: {count} sequences", file=sys.stderr)
    return paths


def train(model: str, run: Path, paths: dict[str, Path], *, steps: int | None, settings: Sequence[str], device: str) -> None:
    """Train one of the configs on the records for its epochs or for `steps`, unless that is done."""
    records = [str(paths["training"]), str(paths["validation"])]
    experiment = config.read(ROOT / "configs" / f"{model}.toml", [f"data.records={json.dumps(records)}", *settings])
    batch = experiment.training.batch_size * experiment.training.accumulate
    changes = {
        "validate_every": math.ceil(_num_sequences(paths["training"]) / batch),  # once an epoch
        "validation_cases": _num_sequences(paths["validation"]),
    } | ({"steps": steps, "epochs": 0} if steps else {})
    experiment = experiment.model_copy(update={"training": experiment.training.model_copy(update=changes)})
    print(train_run(experiment, run, resume=(run / LAST).exists(), overwrite=True, device=device), file=sys.stderr)


def _num_sequences(path: Path) -> int:
    return len(_sequences(path)[1])


def _sequences(path: Path) -> tuple[Record, Windows]:
    (record,) = open_records([path], variable="intensity")
    return record, find_windows(record.times, input_frames=PAST, lead_frames=LEADS, time_step=record.time_step)


def read(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield past and future frames (sequence, frame, y, x), AT_ONCE sequences at a time."""
    record, windows = _sequences(path)
    for start in range(0, len(windows), AT_ONCE):
        positions = windows.positions[start : start + AT_ONCE]
        frames = record.read(positions.ravel()).reshape(*positions.shape, *record.grid.shape)
        yield frames[:, :PAST], frames[:, PAST:]


def nats(forecast: np.ndarray, observed: np.ndarray) -> float:
    """Compute the cross entropy -o ln f - (1 - o) ln(1 - f) of arrays of the same shape, in nats, summed over all pixels."""
    forecast, observed = forecast.astype(np.float64), observed.astype(np.float64)
    with np.errstate(divide="ignore"):
        yes, no = np.log(forecast).clip(min=LOWEST), np.log1p(-forecast).clip(min=LOWEST)
    return float(-(observed * yes + (1 - observed) * no).sum())


def score(network: Network, test: Path) -> float:
    """Compute the cross entropy of the network's forecasts, in nats per sequence."""
    totals = [(nats(network.forecast(past, LEADS), future), len(future)) for past, future in read(test)]
    return sum(total for total, _ in totals) / sum(number for _, number in totals)


def levels(test: Path) -> list[Row]:
    """Score perfect forecasts, the mean map of the test frames and their mean, for comparison."""
    number, perfect, summed = 0, 0.0, 0.0
    for _, future in read(test):
        number, perfect = number + len(future), perfect + nats(future, future)
        summed = summed + future.sum(axis=(0, 1), dtype=np.float64)
    mean_map = summed / (number * LEADS)
    # The cross entropy is linear in the observed values, so it can be computed from their mean.
    constant = np.full_like(mean_map, mean_map.mean())
    return [
        Row("perfect", perfect / number),
        Row("mean map", LEADS * nats(mean_map, mean_map)),
        Row("mean", LEADS * nats(constant, mean_map)),
    ]


def result(model: str, run: Path, test: Path, *, device: str) -> Row:
    """Score the best checkpoint of a trained model on the test record."""
    network = open_forecaster(str(run), device=pick_device(device))
    done = read_checkpoint(run / LAST).metadata["state"]["step"]
    steps = f"{network.metadata['step']:,} of {done:,}"
    parameters = num_parameters(network.model)
    return Row(model, score(network, test), parameters, steps, network.device.type, PUBLISHED[model])


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | parameters | best step of those done | device | nats per sequence | published |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        parameters = f"{row.parameters:,}" if row.parameters else ""
        published = f"{row.published:.2f}" if row.published else ""
        cells = [row.model, parameters, row.steps, row.device, f"{row.cross_entropy:.2f}", published]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run_all(args: argparse.Namespace) -> str:
    """Make records, train and score; write the table after every model, and return it with a line about the test set."""
    folder = args.work / f"{args.sequences}_sequences"
    paths = make_records(folder, args.digits, args.sequences)
    caption = f"{_num_sequences(paths['training']):,} training and {_num_sequences(paths['test']):,} test sequences"
    rows = levels(paths["test"])
    for model in args.models:
        run = folder / model
        train(model, run, paths, steps=args.steps, settings=args.set, device=args.device)
        rows.append(result(model, run, paths["test"], device=args.device))
        text = f"{caption}\n\n{table(rows)}\n"
        (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=["shi2015_mmnist_3layer"], metavar="CONFIG")
    parser.add_argument("--work", type=Path, default=Path("runs/shi2015"), help="folder of the records and runs")
    parser.add_argument("--digits", type=Path, default=shared / "mnist", help="folder of the four original MNIST files")
    parser.add_argument(
        "--sequences",
        type=int,
        default=10_000,
        help="sequences for training; validation has a fifth and test three tenths of this",
    )
    parser.add_argument("--steps", type=int, help="instead of the config's epochs")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one key of the configs")
    parser.add_argument("--device", default="auto")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(run_all(parser.parse_args()))
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
