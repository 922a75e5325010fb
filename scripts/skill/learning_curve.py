#!/usr/bin/env python3
"""Learning curve: networks trained on 3, 10, 30 and all training days of an archive, scored on the same cases.

Days are numbered and split as in archives.py. The days to train on are spread evenly over the days 0 to 4 of every ten that
have rain; each network is chosen and cut on day 6 and scored on day 7, beside the cascade, which learns nothing.

    python scripts/skill/learning_curve.py --archive taasrad --output runs/curve
    python scripts/skill/learning_curve.py --archive taasrad --days 3 10 --config configs/radar.toml \\
        --set training.start_from=pretrained --output runs/tuned
    python scripts/skill/learning_curve.py --picture runs/curve/taasrad.json runs/curve/singapore.json --output curve.png

Trainings are kept in `--output`: called again, the program goes on from what is there. It writes ARCHIVE.json, with the CSI ÷
that of the cascade and 95 % intervals of a paired bootstrap over days, and prints a table.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from archive_table import Scored, shown
from archives import (
    ARCHIVES,
    CASES,
    CONFIG,
    EVERY_DAYS,
    ROOT,
    TEST_DAYS,
    VALIDATION_DAYS,
    cascade_of,
    choose_cases,
    open_record,
    train,
)
from cascade import THRESHOLDS, Cascade

from nowcast.config.schema import Splits
from nowcast.errors import NowcastError
from nowcast.evaluation.evaluate import evaluate
from nowcast.forecasters import open_forecaster
from nowcast.netcdf.record import Record
from nowcast.prediction.cases import Selection
from nowcast.report.maps import drawn, png
from nowcast.runtime.device import pick_device

TRAINING_DAYS = (0, 1, 2, 3, 4)
NUMBERS = (3, 10, 30, 0)  # of training days; 0: all
# few days have few windows, which a network memorises in fewer steps; validation chooses the best
STEPS = {3: 400, 10: 700, 30: 1200, 0: 1800}
KEPT_CASES = {3: 750, 10: 1500, 30: 3000, 0: 3000}
VALIDATIONS = 4  # of each training
SHOWN = (1.0, 5.0)  # mm/h


def days_with_rain(record: Record, numbers: Sequence[int]) -> np.ndarray:
    """Return the days with these numbers that have a case, (day,) datetime64[D], ascending."""
    references = choose_cases(record, numbers, most=10**9).references
    return np.unique(references.astype("datetime64[D]"))


def splits(record: Record, number: int) -> tuple[Splits, int]:
    """Return splits with `number` days to train on, spread evenly over those that have rain, and their number; 0: all."""
    available = days_with_rain(record, TRAINING_DAYS)
    chosen = available if not 0 < number < len(available) else available[_spread(len(available), number)]
    listed = {"training": chosen, **{name: days_with_rain(record, days) for name, days in
                                     (("validation", VALIDATION_DAYS), ("test", TEST_DAYS))}}  # fmt: skip
    spans = {name: tuple(_span(day) for day in days) for name, days in listed.items()}
    return Splits(by="spans", every_days=EVERY_DAYS, **spans), len(chosen)


def _spread(available: int, number: int) -> np.ndarray:
    return ((np.arange(number) + 0.5) * available / number).astype(int)


def _span(day: np.datetime64) -> tuple:
    return day.astype("datetime64[s]").item(), (day + np.timedelta64(1, "D")).astype("datetime64[s]").item()


def curve(options: argparse.Namespace) -> dict:
    """Train and score the networks; return the contents of ARCHIVE.json."""
    record = open_record(options.archives / options.archive)
    cases, device = choose_cases(record, TEST_DAYS, options.cases), pick_device(options.device)
    validation = choose_cases(record, VALIDATION_DAYS, options.cases)
    cascade = cascade_of(validation, options.output / f"{options.archive}_cascade.npz")
    forecasters, days = {"cascade": Cascade(cascade, cases.references)}, {}
    for number in options.days:
        own, num_days = splits(record, number)
        if num_days in days.values():
            continue  # the archive has no more days than that
        run = options.output / f"{options.archive}_{num_days}_days"
        if number == 0 and options.network:
            run = options.network
        else:
            settings = settings_of(number, options.steps, options.set)
            train(options.archives / options.archive, run, settings, device=options.device, splits=own, recipe=options.config)
        name = f"{num_days} days"
        forecasters[name], days[name] = open_forecaster(str(run), device=device), num_days
    evaluation = evaluate(forecasters, [record], selection=Selection(), thresholds=THRESHOLDS)
    scored = Scored(evaluation)
    points = [{"days": num_days, **_ratios(scored, name)} for name, num_days in days.items()]
    results = {"archive": options.archive, "thresholds": SHOWN, "test_days": scored.num_days,
             "num_cases": evaluation.num_cases, "points": points}  # fmt: skip
    (options.output / f"{options.archive}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _print_table(scored, days)
    return results


def settings_of(number: int, steps: int | None, changes: Sequence[str]) -> list[str]:
    """Return the changes of the config for a training on `number` days (0: all); `changes` are appended."""
    steps = steps or STEPS[number]
    ours = (
        f"data.kept_cases={KEPT_CASES[number]}",
        f"training.steps={steps}",
        f"training.validate_every={max(steps // VALIDATIONS, 1)}",
    )
    return [*ours, *changes]


def _ratios(scored: Scored, name: str) -> dict[str, list[float]]:
    """Return value, low and high of the CSI ÷ that of the cascade, each a list over SHOWN."""
    ratio, columns = scored.of("csi", name, against="cascade"), [THRESHOLDS.index(rate) for rate in SHOWN]
    return {key: getattr(ratio, key)[columns].tolist() for key in ("value", "low", "high")}


def _print_table(scored: Scored, days: dict[str, int]) -> None:
    print(f"| training days | {' | '.join(f'CSI ≥ {rate:g} mm/h ÷ cascade' for rate in SHOWN)} |\n| ---: | ---: | ---: |")
    for name, num_days in days.items():
        ratio = scored.of("csi", name, against="cascade")
        print(f"| {num_days} | {' | '.join(shown(ratio, THRESHOLDS.index(rate)) for rate in SHOWN)} |")


def draw(curves: Sequence[dict]) -> bytes:
    """Draw the curves of some archives: a panel for each threshold; return the PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.1), layout="constrained")
    for panel, (axes, rate) in enumerate(zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True)):
        for number, results in enumerate(curves):
            days = np.array([point["days"] for point in results["points"]]) * 1.04**number  # so that intervals do not overlap
            value, low, high = (np.array([p[key][panel] for p in results["points"]]) for key in ("value", "low", "high"))
            axes.errorbar(
                days, value, [value - low, high - value], marker="o", markersize=4, capsize=3, label=results["archive"]
            )
        axes.axhline(1, color="0.4", linewidth=0.8, linestyle="--")
        axes.set(xscale="log", xlabel="days of radar with rain to train on", title=f"≥ {rate:g} mm/h")
        axes.set_xticks([3, 10, 30, 100], ["3", "10", "30", "100"])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("CSI ÷ that of the cascade")
    figure.axes[0].legend(frameon=False)
    return png(drawn(figure))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    shared = Path(os.environ.get("NOWCAST_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", choices=ARCHIVES)
    parser.add_argument("--picture", nargs="+", type=Path, metavar="JSON", help="draws these results to --output and ends")
    parser.add_argument("--output", type=Path, required=True, help="folder of trainings and results, or with --picture the PNG")
    parser.add_argument("--cases", type=int, default=CASES, help=f"cases to correct on and to score; default {CASES}")
    parser.add_argument(
        "--days", type=int, nargs="+", default=NUMBERS, choices=NUMBERS, help="of training; 0: all; default: each"
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="recipe of the trainings; default configs/archive.toml")
    parser.add_argument("--steps", type=int, help="steps of each training; default: more for more days")
    parser.add_argument("--network", type=Path, metavar="RUN", help="network of archives.py, which was trained on all days")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the config that is trained")
    parser.add_argument("--archives", type=Path, default=shared / "archives", help="folder with a folder for each archive")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    if not options.archive and not options.picture:
        parser.error("give --archive or --picture")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.picture:
            options.output.write_bytes(draw([json.loads(path.read_text()) for path in options.picture]))
            return
        options.output.mkdir(parents=True, exist_ok=True)
        curve(options)
    except NowcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
